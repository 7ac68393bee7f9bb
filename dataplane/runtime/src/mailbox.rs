//! The only way in which threads speak to each other: a queue and a bell.
//!
//! No request in steady state passes through it: snapshots, listeners and orders to drain do, and connections on their way
//! to another worker; the other way, hosts that a request is the first to name. The queue takes no lock. The bell is an
//! eventfd that the receiver's loop waits on; a worker drains the queue at the end of the turn in which it rang.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::fd::{FromRawFd, OwnedFd},
    sync::{Arc, mpsc},
};

/// Wakes a worker, or the control thread, from another thread.
#[derive(Clone)]
pub struct Bell(Arc<dyn Fn() + Send + Sync>);

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
        // A full counter (WouldBlock) means that it rings already.
        let bell = Bell::of(move || {
            let _ = (&file).write(&1u64.to_ne_bytes());
        });
        Ok((bell, waited_on))
    }

    /// What `ring` does is how a loop without descriptors is woken.
    pub fn of(ring: impl Fn() + Send + Sync + 'static) -> Bell {
        Bell(Arc::new(ring))
    }

    /// Rings.
    pub fn ring(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

/// The sending end, for any thread.
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    bell: Option<Bell>,
}

/// The receiving end, for one thread.
pub struct Mailbox<T>(mpsc::Receiver<T>);

/// A mailbox. Without a bell the receiver must look by itself.
pub fn mailbox<T>(bell: Option<Bell>) -> (Sender<T>, Mailbox<T>) {
    let (queue, mailbox) = mpsc::channel();
    (Sender { queue, bell }, Mailbox(mailbox))
}

impl<T> Sender<T> {
    /// Puts a message in and rings. What is sent to somebody who is gone is dropped.
    pub fn send(&self, message: T) {
        let is_there = self.queue.send(message).is_ok();
        if let Some(bell) = self.bell.as_ref().filter(|_| is_there) {
            bell.ring();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { queue: self.queue.clone(), bell: self.bell.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Mailbox<T> {
    /// The oldest message.
    pub fn take(&self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
