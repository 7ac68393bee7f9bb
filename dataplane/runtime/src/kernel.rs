//! [`Io`] over the kernel: io_uring where it is allowed, epoll elsewhere. One path serves both.
//!
//! Both drivers say when a descriptor is worth a try, and waiting for that takes nothing: a wait can be dropped. What
//! io_uring adds is that bytes are received before they are asked for, and that sends leave with the one system call of a
//! turn. Only a send has memory of ours in the kernel's hands while it is in flight.

mod connection;
mod epoll;
mod probe;
mod provided;
mod ring;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    net::{Shutdown, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

pub(crate) use self::socket::limit_held;
use self::{connection::Handle, epoll::Epoll, ring::Ring, socket::Watched};
pub use self::{
    connection::{KernelRecv, KernelSend},
    probe::{Choice, Driver, Probed, probe},
    provided::BYTES as PROVIDED_BYTES,
};
use crate::{
    executor,
    io::{Accepted, Deadline, Io, Listener, ListenerClose},
    timer::Timers,
    turn::Turn,
};

/// Runs `main` on this thread's loop until it ends; everything still in flight is then dropped.
///
/// `bell` is the descriptor of the worker's [`crate::mailbox::Bell`]; each ring makes a turn. `origin` is where the
/// clock of all workers starts.
pub fn run<F, T>(
    driver: Driver,
    origin: Instant,
    bell: OwnedFd,
    main: impl FnOnce(Kernel) -> F,
) -> io::Result<T>
where
    F: Future<Output = T>,
{
    let interface = match driver {
        Driver::IoUring => Interface::Ring(Box::new(Ring::new()?)),
        Driver::Epoll => Interface::Epoll(Epoll::new()?),
    };
    Kernel::over(interface, origin).live(bell, main)
}

/// This thread's access to its loop.
#[derive(Clone)]
pub struct Kernel(Rc<Loop>);

struct Loop {
    interface: RefCell<Interface>,
    turn: Turn,
    timers: Timers,
    held_bytes_max: Cell<Option<u32>>,
}

/// What a loop may hold beside the buffers of connections, where memory is limited.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    /// Buffers that io_uring receives into, each of [`PROVIDED_BYTES`]; there are some always.
    pub provided_max: u16,
    /// What the kernel may hold of a connection to upstream each way, in bytes; `None` leaves it to the kernel. As with
    /// [`listen::bind`](crate::listen::bind).
    pub held_bytes_max: Option<u32>,
}

enum Interface {
    Ring(Box<Ring>),
    Epoll(Epoll),
}

impl Kernel {
    fn over(interface: Interface, origin: Instant) -> Kernel {
        let turn = Turn::new(origin);
        let timers = Timers::new(turn.now());
        Kernel(Rc::new(Loop {
            interface: RefCell::new(interface),
            turn,
            timers,
            held_bytes_max: Cell::new(None),
        }))
    }

    /// As [`run`].
    fn live<F: Future>(self, bell: OwnedFd, main: impl FnOnce(Kernel) -> F) -> io::Result<F::Output> {
        let bell = self.watch(bell)?;
        executor::spawn(self.clone().answer(bell));
        let result = self.turns(main(self.clone()));
        self.0.turn.set_ending();
        if let Interface::Ring(ring) = &mut *self.0.interface.borrow_mut() {
            ring.end();
        }
        executor::clear();
        result
    }

    /// Turns until `main` ends.
    fn turns<T>(&self, main: impl Future<Output = T>) -> io::Result<T> {
        let mut main = pin!(main);
        let Loop { interface, turn, timers, .. } = &*self.0;
        loop {
            executor::run_ready();
            turn.tasks_ran();
            let waker = executor::main_waker();
            if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(result);
            }
            let wait = match executor::has_ready() || turn.is_awaited() {
                true => Some(Duration::ZERO),
                false => until(timers.next_visit(), turn),
            };
            match &mut *interface.borrow_mut() {
                Interface::Ring(ring) => ring.wait(wait)?,
                Interface::Epoll(epoll) => epoll.wait(wait)?,
            }
            turn.begin();
            timers.advance(turn.now());
        }
    }

    /// Limits what it may hold from now on.
    pub fn limit(&self, holdings: Holdings) {
        self.0.held_bytes_max.set(holdings.held_bytes_max);
        if let Interface::Ring(ring) = &mut *self.0.interface.borrow_mut() {
            ring.limit_provided(holdings.provided_max);
        }
    }

    fn watch(&self, descriptor: OwnedFd) -> io::Result<Handle> {
        let watched = Rc::new(Watched::new(descriptor));
        match &mut *self.0.interface.borrow_mut() {
            Interface::Ring(ring) => ring.watch(&watched),
            Interface::Epoll(epoll) => epoll.watch(&watched)?,
        }
        Ok(Handle { watched, kernel: self.clone() })
    }

    /// Silences the bell whenever it rings; that there was a turn is all it is for.
    async fn answer(self, bell: Handle) {
        loop {
            bell.ready_to_accept().await;
            let _ = bell.watched.silence();
            bell.watched.read.is_ready.set(false);
        }
    }
}

/// How long the loop may wait for the kernel; `None` is for ever.
fn until(visit: Deadline, turn: &Turn) -> Option<Duration> {
    (visit != Deadline::NEVER).then(|| Duration::from_nanos(visit.0.saturating_sub(turn.clock())))
}

impl Io for Kernel {
    type Socket = TcpListener;
    type Stream = OwnedFd;
    type Listener = KernelListener;
    type Recv = KernelRecv;
    type Send = KernelSend;

    fn now(&self) -> u64 {
        self.0.turn.now()
    }

    fn timers(&self) -> &Timers {
        &self.0.timers
    }

    async fn connect(&self, to: SocketAddr, until: Deadline) -> io::Result<(KernelRecv, KernelSend)> {
        let handle = self.watch(socket::connect(to, self.0.held_bytes_max.get())?)?;
        let alarm = self.0.timers.alarm();
        alarm.set(until);
        poll_fn(|cx| match handle.poll_writable(cx) {
            Poll::Ready(()) => Poll::Ready(handle.watched.connected()),
            Poll::Pending => alarm.poll_rung(cx).map(|_| Err(io::ErrorKind::TimedOut.into())),
        })
        .await?;
        Ok(handle.split())
    }

    fn listener(&self, socket: TcpListener) -> io::Result<KernelListener> {
        let address = socket.local_addr()?;
        Ok(KernelListener { handle: Rc::new(self.watch(socket.into())?), address, at_once: 0 })
    }

    async fn detach(&self, recv: KernelRecv, send: KernelSend) -> Result<OwnedFd, (KernelRecv, KernelSend)> {
        connection::detach(recv, send).await
    }

    fn attach(&self, stream: OwnedFd) -> io::Result<(KernelRecv, KernelSend)> {
        let handle = self.watch(stream)?;
        // Nobody watched it on its way.
        handle.watched.read.is_ready.set(true);
        Ok(handle.split())
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        executor::spawn(task);
    }

    async fn turn(&self) -> Duration {
        self.0.turn.ended().await
    }

    fn overflow_count(&self) -> u64 {
        match &*self.0.interface.borrow() {
            Interface::Ring(ring) => ring.overflow_count(),
            // What is not told yet is asked for in the next turn.
            Interface::Epoll(_) => 0,
        }
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self.0.interface.borrow() {
            Interface::Ring(_) => "Kernel(io_uring)",
            Interface::Epoll(_) => "Kernel(epoll)",
        })
    }
}

/// An accepting socket.
pub struct KernelListener {
    handle: Rc<Handle>,
    address: SocketAddr,
    /// Connections accepted since none waited.
    at_once: u8,
}

impl Listener for KernelListener {
    type Recv = KernelRecv;
    type Send = KernelSend;

    async fn accept(&mut self) -> io::Result<Accepted<KernelRecv, KernelSend>> {
        let Handle { watched, kernel } = &*self.handle;
        self.at_once += 1;
        if self.at_once == connection::AT_ONCE_MAX {
            self.at_once = 0;
            kernel.0.turn.next().await;
        }
        loop {
            self.handle.ready_to_accept().await;
            match watched.accept() {
                Ok((descriptor, downstream)) => {
                    let (recv, send) = kernel.watch(descriptor)?.split();
                    return Ok(Accepted { recv, send, downstream });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    watched.read.is_ready.set(false);
                    self.at_once = 0;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn close_handle(&self) -> ListenerClose {
        // Shares the descriptor, so it cannot be closed and its number given to another while the handle lives.
        let watched = self.handle.watched.clone();
        ListenerClose::new(move || {
            let _ = watched.shutdown(Shutdown::Both);
        })
    }
}
