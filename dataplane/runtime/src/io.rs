//! The one generic seam of the data plane: connect, accept, receive, send, time.
//!
//! Two implementations exist: [`crate::kernel`] for the kernel and the `sim` crate for tests. The rules both keep:
//!
//! - Memory is lent for the call: a receive needs its buffer in the moment in which bytes are there, and what a send in
//!   flight points to is kept with the connection until the kernel is done with it.
//! - An operation ends by completion, by its deadline or by an explicit cancel; dropping one that is in flight is a bug.
//!   On the kernel only a send is harmed by it, and trips a debug assertion; the simulation holds everybody to the whole
//!   rule.
//! - A receive that loses the race against its deadline still delivers the bytes it got.
//! - Nothing here is `Send`: a connection is on one worker at a time. One on which nothing happens may be given to another
//!   ([`Io::detach`]).

// No future of this trait ever leaves its thread, so the missing `Send` bound is the point.
#![allow(async_fn_in_trait)]

use std::{
    future::Future,
    io,
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    buffer::{Buffer, Gather},
    timer::{Alarm, Timers},
};

/// A point of monotonic time in nanoseconds after which an operation is given up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline(pub u64);

impl Deadline {
    /// Never given up.
    pub const NEVER: Deadline = Deadline(u64::MAX);

    /// `wait` after `now` (nanoseconds); saturates at [`Deadline::NEVER`].
    pub fn after(now: u64, wait: Duration) -> Deadline {
        Deadline(now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The earlier of two.
    pub fn min(self, other: Deadline) -> Deadline {
        Deadline(self.0.min(other.0))
    }
}

/// A thread's access to the network and to time. Clones share everything.
pub trait Io: Clone + 'static {
    /// A bound, listening socket on its way from the thread that bound it to the worker that will accept on it.
    type Socket: Send + 'static;
    /// A connection on its way from one worker to another.
    type Stream: Send + 'static;
    /// An accepting socket of this worker.
    type Listener: Listener<Recv = Self::Recv, Send = Self::Send>;
    /// The receiving half of a connection.
    type Recv: RecvHalf;
    /// The sending half of a connection.
    type Send: SendHalf;

    /// Monotonic nanoseconds, read once per loop turn.
    fn now(&self) -> u64;

    /// The timers of this worker, to make alarms from.
    fn timers(&self) -> &Timers;

    /// Opens a TCP connection. Fails with `TimedOut` at the deadline.
    async fn connect(&self, to: SocketAddr, until: Deadline) -> io::Result<(Self::Recv, Self::Send)>;

    /// Takes a bound socket into this worker's loop. Fails only when the kernel cannot watch one more descriptor.
    fn listener(&self, socket: Self::Socket) -> io::Result<Self::Listener>;

    /// Takes a connection out of this worker's loop on which no send is in flight; what waits for its bytes is ended first,
    /// which wakes nobody but who waits here. Gives the halves back where bytes or an end have come by then that nobody took,
    /// or where it cannot be. Dropped before its end, it closes the connection.
    async fn detach(
        &self,
        recv: Self::Recv,
        send: Self::Send,
    ) -> Result<Self::Stream, (Self::Recv, Self::Send)>;

    /// Takes a connection into this worker's loop. What came while it was in none is there for the first look. Fails as
    /// [`Io::listener`] does; the connection is then closed.
    fn attach(&self, stream: Self::Stream) -> io::Result<(Self::Recv, Self::Send)>;

    /// Starts a task on this worker. One allocation; the task must end by itself.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Ends with every loop turn, after its ready tasks ran; gives how long the turn was busy. Only the main
    /// future of a worker may wait here.
    async fn turn(&self) -> Duration;

    /// Turns in which more had happened than the kernel's queue holds. Nothing of it is lost: it is told in the next turn.
    fn overflow_count(&self) -> u64;

    /// Waits until a point of time; late by at most [`crate::timer::TICK`].
    async fn sleep_until(&self, at: Deadline) {
        let alarm = self.timers().alarm();
        alarm.set(at);
        alarm.rung().await;
    }
}

/// A connection as accepted.
#[derive(Debug)]
pub struct Accepted<R, S> {
    /// Its receiving half.
    pub recv: R,
    /// Its sending half.
    pub send: S,
    /// The other end's address.
    pub downstream: SocketAddr,
}

/// An accepting socket.
pub trait Listener: 'static {
    /// See [`Io::Recv`].
    type Recv: RecvHalf;
    /// See [`Io::Send`].
    type Send: SendHalf;

    /// The next connection. Must be awaited to its end; [`ListenerClose::close`] ends it with an error.
    async fn accept(&mut self) -> io::Result<Accepted<Self::Recv, Self::Send>>;

    /// The bound address.
    fn local_addr(&self) -> SocketAddr;

    /// A handle that ends the accepting from outside.
    fn close_handle(&self) -> ListenerClose;
}

/// What the kernel says of a receive or a send, in the words of this interface: `TimedOut` is said of a deadline alone. The
/// kernel's own ETIMEDOUT means that what we sent was never acknowledged: the connection is over. It is told once, and the
/// next receive would get 0, as if the other end had finished.
pub fn kernel_error(raw_os_error: i32) -> io::Error {
    match io::Error::from_raw_os_error(raw_os_error) {
        error if error.kind() == io::ErrorKind::TimedOut => io::ErrorKind::ConnectionReset.into(),
        error => error,
    }
}

/// Ends a listener: its waiting accept fails and no connection is queued any more.
#[derive(Clone)]
pub struct ListenerClose(std::rc::Rc<dyn Fn()>);

impl ListenerClose {
    /// Wraps what closing means for one implementation.
    pub fn new(close: impl Fn() + 'static) -> Self {
        ListenerClose(std::rc::Rc::new(close))
    }

    /// Stops accepting; idempotent.
    pub fn close(&self) {
        (self.0)()
    }
}

impl std::fmt::Debug for ListenerClose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListenerClose")
    }
}

/// The receiving half of a connection.
pub trait RecvHalf: 'static {
    /// Receives at least one byte behind what `buffer` holds. `Ok(0)` is the other end's FIN (or a full buffer): a
    /// connection that broke never looks like one that ended, even when a send was told of it first. `TimedOut` at the
    /// deadline, `Interrupted` after a cancel; the connection can be received from again after both.
    async fn recv(&mut self, buffer: &mut Buffer, until: Deadline) -> io::Result<usize>;

    /// Waits until a receive would not wait: bytes, FIN or an error. May return early. For idle connections, which
    /// hold no buffer.
    async fn readable(&mut self, until: Deadline) -> io::Result<()>;

    /// Whether [`RecvHalf::try_recv`] is worth a call, which may be said too often; else the task of `cx` is woken when it
    /// is, and nobody who asked before.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Receives what is there behind what `buffer` holds, which must have room; `None` when nothing is. Ends as
    /// [`RecvHalf::recv`] does.
    fn try_recv(&mut self, buffer: &mut Buffer) -> Option<io::Result<usize>>;

    /// A handle that ends the receive in flight with `Interrupted`.
    fn cancel_handle(&self) -> Alarm;

    /// The address the other end connected to.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The sending half of a connection.
pub trait SendHalf: 'static {
    /// Sends some of what is left in `gather` and marks it as sent; `Ok(n)` may be less than all. A deadline that
    /// passes breaks the connection (`TimedOut`), since what the kernel took is then unknown. The other end gets a RST: it
    /// cannot take what it got for all there is.
    async fn send(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<usize>;

    /// A handle that breaks the connection in the same way while a send is in flight; the send ends with `Interrupted`.
    fn cancel_handle(&self) -> Alarm;

    /// Has the kernel take more only while it holds less than this of what it has not sent yet; 0 is no limit. What is on its
    /// way and not acknowledged does not count, so a connection with a long delay is not slower for it.
    fn limit_unsent(&mut self, bytes: u32);

    /// Sends FIN: no more bytes will follow, receiving goes on.
    fn shutdown(&mut self) -> io::Result<()>;

    /// Makes the close of this connection a RST, so that the other end cannot take what it got for all there is. It goes
    /// out when both halves have been dropped and no operation is in flight; until then nothing changes.
    fn reset(&mut self);

    /// Sends everything in `gather`, however many sends it takes.
    async fn send_all(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<()> {
        while !gather.is_sent() {
            if self.send(gather, until).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_a_deadline_is_never_the_kernels() {
        const ETIMEDOUT: i32 = 110;
        assert_eq!(kernel_error(ETIMEDOUT).kind(), io::ErrorKind::ConnectionReset);
        assert!((1..134).all(|number| kernel_error(number).kind() != io::ErrorKind::TimedOut));
    }
}
