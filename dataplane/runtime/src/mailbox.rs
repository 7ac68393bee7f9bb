//! The only way the control thread and a worker speak to each other: a queue and a bell.
//!
//! The queue is locked, which is fine because no request in steady state passes through it: snapshots, listeners and
//! orders to drain do, and the other way hosts that a request is the first to name. The bell is an eventfd that the
//! receiver's loop waits on; a worker drains the queue at the end of the turn in which it rang.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::{FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Wakes a worker, or the control thread, from another thread.
#[derive(Clone, Debug)]
pub struct Bell(Arc<File>);

impl Bell {
    /// A bell, and the descriptor that the worker's loop waits on.
    pub fn new() -> io::Result<(Bell, OwnedFd)> {
        // SAFETY: eventfd has no memory arguments; a non-negative result is a descriptor nobody else owns.
        let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above; ownership passes here, once.
        let file = unsafe { File::from_raw_fd(raw) };
        let waited_on = OwnedFd::from(file.try_clone()?);
        Ok((Bell(Arc::new(file)), waited_on))
    }

    /// Rings. A full counter (WouldBlock) means that it rings already.
    pub fn ring(&self) {
        let _ = (&*self.0).write(&1u64.to_ne_bytes());
    }
}

struct Queue<T> {
    waiting: Mutex<VecDeque<T>>,
    filled: AtomicBool,
}

/// The sending end, for any thread.
pub struct Sender<T> {
    queue: Arc<Queue<T>>,
    bell: Option<Bell>,
}

/// The receiving end, for one thread.
pub struct Mailbox<T>(Arc<Queue<T>>);

/// A mailbox. Without a bell the receiver must look by itself, as a simulated worker does.
pub fn mailbox<T>(bell: Option<Bell>) -> (Sender<T>, Mailbox<T>) {
    let queue = Arc::new(Queue { waiting: Mutex::default(), filled: AtomicBool::new(false) });
    (Sender { queue: queue.clone(), bell }, Mailbox(queue))
}

impl<T> Sender<T> {
    /// Puts a message in and rings.
    pub fn send(&self, message: T) {
        // A panic in a holder of this lock ends the process, so a poisoned queue is never seen in the proxy.
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        self.queue.filled.store(true, Ordering::Release);
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { queue: self.queue.clone(), bell: self.bell.clone() }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Mailbox<T> {
    /// The oldest message. One relaxed-cost load when there is none.
    pub fn take(&self) -> Option<T> {
        if !self.0.filled.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let message = waiting.pop_front();
        self.0.filled.store(!waiting.is_empty(), Ordering::Release);
        message
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_many_threads_arrive_once_and_in_the_order_of_each() {
        let (sender, mailbox) = mailbox(None);
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let sender = sender.clone();
                std::thread::spawn(move || (0..1000).for_each(|n| sender.send((thread, n))))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut next = [0; 4];
        while let Some((thread, n)) = mailbox.take() {
            assert_eq!(n, next[thread]);
            next[thread] += 1;
        }
        assert_eq!(next, [1000; 4]);
    }
}
