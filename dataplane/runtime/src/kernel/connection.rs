//! A connection's two halves on either driver, and the listener's and bell's waits.

use std::{
    future::poll_fn,
    io,
    net::{Shutdown, SocketAddr},
    os::fd::OwnedFd,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    Interface, Kernel,
    socket::{Sending, Watched},
};
use crate::{
    buffer::{Buffer, Gather},
    io::{Deadline, RecvHalf, SendHalf, kernel_error},
    timer::{Alarm, Rung},
};

/// The receiving half of a connection.
pub struct KernelRecv {
    handle: Rc<Handle>,
    alarm: Alarm,
    /// Times in a row that it was worth a try.
    at_once: u8,
}

/// Receives, or accepts, in a row that may complete without waiting before the other tasks and the clock get their turn.
pub(super) const AT_ONCE_MAX: u8 = 32;

impl RecvHalf for KernelRecv {
    async fn recv(&mut self, buffer: &mut Buffer, until: Deadline) -> io::Result<usize> {
        loop {
            self.readable(until).await?;
            if let Some(result) = self.try_recv(buffer) {
                return result;
            }
        }
    }

    async fn readable(&mut self, until: Deadline) -> io::Result<()> {
        let mut is_set = false;
        let result = poll_fn(|cx| {
            if self.poll_readable(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if !std::mem::replace(&mut is_set, true) {
                self.alarm.set(until);
            }
            self.alarm.poll_rung(cx).map(|rung| Err(error_of(rung)))
        })
        .await;
        if is_set {
            self.alarm.set(Deadline::NEVER);
        }
        result
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let KernelRecv { handle, at_once, .. } = self;
        if handle.poll_readable(cx).is_pending() {
            *at_once = 0;
            return Poll::Pending;
        }
        *at_once += 1;
        if *at_once == AT_ONCE_MAX {
            *at_once = 0;
            handle.kernel.0.turn.wake_next(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn try_recv(&mut self, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        let has_room = buffer.spare() > 0;
        let is_broken = &self.handle.watched.is_broken;
        // The kernel tells an error once, to whoever comes first, and from then on a receive gets 0, as if the other end
        // had finished.
        Some(match self.handle.receive(buffer)? {
            Ok(0) if has_room && is_broken.get() => Err(io::ErrorKind::ConnectionReset.into()),
            Err(error) if error.raw_os_error().is_some() => {
                let was_broken = is_broken.replace(true);
                Err(if was_broken { io::ErrorKind::ConnectionReset.into() } else { in_our_words(error) })
            }
            result => result,
        })
    }

    fn cancel_handle(&self) -> Alarm {
        self.alarm.clone()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.handle.watched.local_addr()
    }
}

/// The kernel's own words are not those for a deadline.
fn in_our_words(error: io::Error) -> io::Error {
    error.raw_os_error().map_or(error, kernel_error)
}

fn error_of(rung: Rung) -> io::Error {
    match rung {
        Rung::TimedOut => io::ErrorKind::TimedOut.into(),
        Rung::Cancelled => io::ErrorKind::Interrupted.into(),
    }
}

/// The sending half of a connection.
pub struct KernelSend {
    handle: Rc<Handle>,
    alarm: Alarm,
}

impl SendHalf for KernelSend {
    async fn send(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<usize> {
        let KernelSend { handle, alarm } = self;
        let watched = &*handle.watched;
        gather.load_vectors();
        let mut in_flight = InFlight { handle, gather };
        let (mut why, mut is_set) = (None, false);
        let result = poll_fn(|cx| {
            let polled = in_flight.poll(cx);
            if polled.is_pending() && why.is_none() {
                if !std::mem::replace(&mut is_set, true) {
                    alarm.set(until);
                }
                if let Poll::Ready(rung) = alarm.poll_rung(cx) {
                    why = Some(rung);
                    // So that the send in flight completes.
                    watched.abort();
                }
            }
            polled
        })
        .await;
        if is_set {
            alarm.set(Deadline::NEVER);
        }
        drop(in_flight);
        // A pipe is also broken after a FIN either way, which receiving survives.
        let is_error = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe);
        if is_error || why.is_some() {
            watched.is_broken.set(true);
        }
        match (result, why) {
            (Ok(count), _) => {
                gather.mark_sent(count);
                Ok(count)
            }
            (Err(_), Some(rung)) => Err(error_of(rung)),
            (Err(error), None) => Err(in_our_words(error)),
        }
    }

    fn cancel_handle(&self) -> Alarm {
        self.alarm.clone()
    }

    fn limit_unsent(&mut self, bytes: u32) {
        self.handle.watched.limit_unsent(bytes);
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.handle.watched.shutdown(Shutdown::Write)
    }

    fn reset(&mut self) {
        self.handle.watched.linger_not();
    }
}

/// A connection on which nothing happens, under a number that is not watched.
pub(super) async fn detach(recv: KernelRecv, send: KernelSend) -> Result<OwnedFd, (KernelRecv, KernelSend)> {
    poll_fn(|cx| recv.handle.poll_disarmed(cx)).await;
    let watched = &recv.handle.watched;
    if watched.has_come() || watched.ring.in_flight.get() > 0 {
        return Err((recv, send));
    }
    let Ok(descriptor) = watched.duplicate() else { return Err((recv, send)) };
    if let Interface::Epoll(epoll) = &mut *recv.handle.kernel.0.interface.borrow_mut() {
        // Closing the watched number would not end the watching of what is open under another.
        epoll.release(watched);
    }
    Ok(descriptor)
}

/// A descriptor that is watched for as long as this lives, and closed then.
pub(super) struct Handle {
    pub(super) watched: Rc<Watched>,
    pub(super) kernel: Kernel,
}

impl Handle {
    /// The two halves of what is connected.
    pub(super) fn split(self) -> (KernelRecv, KernelSend) {
        let timers = &self.kernel.0.timers;
        let (receiving, sending) = (timers.alarm(), timers.alarm());
        let handle = Rc::new(self);
        let recv = KernelRecv { handle: handle.clone(), alarm: receiving, at_once: 0 };
        (recv, KernelSend { handle, alarm: sending })
    }

    /// Whether there is something to take, or a receive is worth a try; else the task is woken when it is so.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watched.has_come() {
            return Poll::Ready(());
        }
        self.watched.read.wait(cx);
        if let Interface::Ring(ring) = &mut *self.kernel.0.interface.borrow_mut() {
            ring.arm_read(&self.watched);
        }
        Poll::Pending
    }

    /// Whether nothing in the kernel waits for bytes; it is told to end, and the task is woken when it has.
    fn poll_disarmed(&self, cx: &Context<'_>) -> Poll<()> {
        if let Interface::Ring(ring) = &mut *self.kernel.0.interface.borrow_mut()
            && !ring.disarm_read(&self.watched)
        {
            self.watched.read.wait(cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whether a send is worth a try, or a connect is over.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watched.write.is_ready.get() {
            return Poll::Ready(());
        }
        self.watched.write.wait(cx);
        if let Interface::Ring(ring) = &mut *self.kernel.0.interface.borrow_mut() {
            ring.poll_write(&self.watched);
        }
        Poll::Pending
    }

    /// Waits until an accept, or a look at the bell, is worth a try.
    pub(super) async fn ready_to_accept(&self) {
        poll_fn(|cx| {
            if self.watched.read.is_ready.get() {
                return Poll::Ready(());
            }
            self.watched.read.wait(cx);
            if let Interface::Ring(ring) = &mut *self.kernel.0.interface.borrow_mut() {
                ring.poll_read(&self.watched);
            }
            Poll::Pending
        })
        .await;
    }

    /// Takes what was received, or receives what is there; `None` when there is nothing yet.
    fn receive(&self, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        let watched = &*self.watched;
        if let Interface::Ring(ring) = &mut *self.kernel.0.interface.borrow_mut()
            && let Some(taken) = ring.take(watched, buffer)
        {
            return Some(taken);
        }
        if !watched.read.is_ready.get() {
            return None;
        }
        match watched.receive(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                watched.read.is_ready.set(false);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            result => Some(result),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        match &mut *self.kernel.0.interface.borrow_mut() {
            Interface::Ring(ring) => ring.forget(&self.watched),
            Interface::Epoll(epoll) => epoll.forget(&self.watched),
        }
    }
}

/// A send. While the kernel may be reading what it points to, that is the descriptor's.
struct InFlight<'a> {
    handle: &'a Handle,
    gather: &'a mut Gather,
}

impl InFlight<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let watched = &*self.handle.watched;
        if let Interface::Ring(ring) = &mut *self.handle.kernel.0.interface.borrow_mut() {
            let sending = &watched.ring.sending;
            match sending.get() {
                Sending::No => ring.send(watched, std::mem::take(self.gather)),
                Sending::InFlight => {}
                Sending::Done(result) => {
                    sending.set(Sending::No);
                    *self.gather = watched.ring.gather.take();
                    let count = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
                    return Poll::Ready(count);
                }
            }
            watched.write.wait(cx);
            return Poll::Pending;
        }
        loop {
            if self.handle.poll_writable(cx).is_pending() {
                return Poll::Pending;
            }
            match watched.send(self.gather) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => watched.write.is_ready.set(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Handle { watched, kernel } = self.handle;
        if watched.ring.sending.get() == Sending::InFlight {
            // Of what the kernel took nobody knows: nothing may follow it.
            watched.is_broken.set(true);
            watched.abort();
            debug_assert!(
                kernel.0.turn.is_ending() || std::thread::panicking(),
                "a send in flight was dropped"
            );
        }
    }
}
