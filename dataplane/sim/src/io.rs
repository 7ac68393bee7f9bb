//! [`runtime::Io`] over the simulated network: what the proxy is given instead of a kernel.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    panic::Location,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::{
    Accepted, Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf,
    io::ListenerClose,
    timer::{Alarm, Rung, Timers},
};

use crate::{
    connection::Side,
    errno,
    executor::Wait,
    network::Network,
    trace::What,
    world::{Host, World},
};

/// One simulated machine with one loop, as a worker sees it.
#[derive(Clone)]
pub struct SimIo {
    world: Rc<World>,
    host: Rc<Host>,
}

/// A bound socket on its way to the worker that will accept on it.
#[derive(Debug)]
pub struct SimSocket {
    number: u64,
    address: SocketAddr,
    dropped: Option<Arc<Mutex<Vec<u64>>>>,
}

/// An accepting socket.
pub struct SimListener {
    number: u64,
    address: SocketAddr,
    io: SimIo,
}

/// The receiving half of a connection.
pub struct SimRecv {
    end: ConnectionEnd,
    alarm: Alarm,
}

/// The sending half of a connection.
pub struct SimSend {
    end: ConnectionEnd,
    alarm: Alarm,
}

/// What both halves share by number; the last of the two closes the end.
struct ConnectionEnd {
    number: u64,
    side: Side,
    io: SimIo,
}

impl SimIo {
    pub(crate) fn new(world: Rc<World>, host: Rc<Host>) -> SimIo {
        SimIo { world, host }
    }

    /// The address that connections of this machine come from.
    pub fn ip(&self) -> IpAddr {
        self.host.ip
    }

    /// Makes a turn, as the bell of a mailbox does. Called after a message was sent to this machine's worker.
    pub fn poke(&self) {
        self.host.touch();
    }

    /// How many of 1000 connects, accepts, receives and sends of this machine fail, each with one of the errors that Linux
    /// gives for it. After most of them the connection is over, for both ends.
    pub fn fail_operations(&self, per_mille: u16) {
        self.host.fail_per_mille.set(per_mille);
    }

    /// Binds a listening socket; port 0 chooses one. Several on one address share its connections.
    pub fn bind(&self, address: SocketAddr) -> SimSocket {
        SimSocket::bind(&self.world, address)
    }

    fn halves(&self, number: u64, side: Side) -> (SimRecv, SimSend) {
        let end = || ConnectionEnd { number, side, io: self.clone() };
        let alarm = || self.world.timers.alarm();
        (SimRecv { end: end(), alarm: alarm() }, SimSend { end: end(), alarm: alarm() })
    }

    /// Waits for one operation as a loop would: sometimes late, and with a note of what is waited for.
    async fn complete<T>(
        &self,
        wait: Wait,
        mut poll: impl FnMut(&mut Network, &mut Context<'_>) -> Poll<T>,
    ) -> T {
        let mut lateness = self.world.lateness();
        let result = poll_fn(|cx| {
            if lateness > 0 {
                lateness -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let polled = poll(&mut self.world.network.borrow_mut(), cx);
            if polled.is_pending() {
                self.world.executor.note(wait);
            }
            polled
        })
        .await;
        self.host.touch();
        result
    }
}

impl Io for SimIo {
    type Socket = SimSocket;
    /// A simulated machine has one loop, so no connection ever goes to another.
    type Stream = std::convert::Infallible;
    type Listener = SimListener;
    type Recv = SimRecv;
    type Send = SimSend;

    fn now(&self) -> u64 {
        self.world.now()
    }

    fn timers(&self) -> &Timers {
        &self.world.timers
    }

    async fn connect(&self, to: SocketAddr, until: Deadline) -> io::Result<(SimRecv, SimSend)> {
        let alarm = self.world.timers.alarm();
        alarm.set(until);
        let failure = self.world.failure(&self.host, &errno::CONNECT);
        let number = self.world.network.borrow_mut().connect(self.host.ip, to, failure);
        // Dropping a connect in flight is allowed; this forgets it, or closes what it brought.
        let _connecting = Connecting { number, world: &self.world };
        let wait = Wait { operation: "a connect", connection: None, until };
        let connection = self
            .complete(wait, |network, cx| match network.poll_connect(number, cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => alarm.poll_rung(cx).map(|_| Err(io::ErrorKind::TimedOut.into())),
            })
            .await?;
        Ok(self.halves(connection, Side::Connector))
    }

    fn listener(&self, mut socket: SimSocket) -> io::Result<SimListener> {
        socket.dropped = None;
        Ok(SimListener { number: socket.number, address: socket.address, io: self.clone() })
    }

    fn detach(&self, recv: SimRecv, send: SimSend) -> Result<Self::Stream, (SimRecv, SimSend)> {
        Err((recv, send))
    }

    fn attach(&self, stream: Self::Stream) -> io::Result<(SimRecv, SimSend)> {
        match stream {}
    }

    #[track_caller]
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let number = self.world.executor.spawn(task, Location::caller());
        self.world.network.borrow_mut().note(What::TaskBegins(number));
    }

    async fn turn(&self) -> Duration {
        poll_fn(|cx| {
            let polled = self.host.poll_turn(cx);
            if polled.is_pending() {
                let wait = Wait { operation: "the end of a turn", connection: None, until: Deadline::NEVER };
                self.world.executor.note(wait);
            }
            polled
        })
        .await;
        // A simulated turn takes no time.
        Duration::ZERO
    }

    async fn sleep_until(&self, at: Deadline) {
        let alarm = self.world.timers.alarm();
        alarm.set(at);
        let wait = Wait { operation: "a point of time", connection: None, until: at };
        self.complete(wait, |_, cx| alarm.poll_rung(cx)).await;
    }
}

struct Connecting<'a> {
    number: u64,
    world: &'a World,
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.world.network.borrow_mut().abandon_connect(self.number);
    }
}

impl SimSocket {
    pub(crate) fn bind(world: &World, address: SocketAddr) -> SimSocket {
        let (number, address) = world.network.borrow_mut().bind(address);
        SimSocket { number, address, dropped: Some(world.dropped_sockets.clone()) }
    }

    /// The bound address, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            dropped.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

impl Listener for SimListener {
    type Recv = SimRecv;
    type Send = SimSend;

    async fn accept(&mut self) -> io::Result<Accepted<SimRecv, SimSend>> {
        let in_flight = InFlight::begin(&self.io.world);
        let wait = Wait { operation: "an accept", connection: None, until: Deadline::NEVER };
        let failure = self.io.world.failure(&self.io.host, &errno::ACCEPT);
        let accepted =
            self.io.complete(wait, |network, cx| network.poll_accept(self.number, failure, cx)).await;
        in_flight.completed();
        let (connection, downstream) = accepted?;
        let (recv, send) = self.io.halves(connection, Side::Acceptor);
        Ok(Accepted { recv, send, downstream })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn close_handle(&self) -> ListenerClose {
        // Weak, so that a handle kept for ever does not keep the simulation.
        let (world, number) = (Rc::downgrade(&self.io.world), self.number);
        ListenerClose::new(move || {
            if let Some(world) = world.upgrade() {
                world.network.borrow_mut().close_listener(number);
            }
        })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.io.world.network.borrow_mut().drop_listener(self.number);
    }
}

impl ConnectionEnd {
    fn wait(&self, operation: &'static str, until: Deadline) -> Wait {
        Wait { operation, connection: Some((self.number, self.side)), until }
    }
}

impl Drop for ConnectionEnd {
    fn drop(&mut self) {
        self.io.world.network.borrow_mut().release(self.number, self.side);
    }
}

impl RecvHalf for SimRecv {
    async fn recv(&mut self, mut buffer: Buffer, until: Deadline) -> (io::Result<usize>, Buffer) {
        let SimRecv { end, alarm } = self;
        alarm.set(until);
        let in_flight = InFlight::begin(&end.io.world);
        let failure = end.io.world.failure(&end.io.host, &errno::RECV);
        let mut giving_up = GivingUp::new(&end.io.world);
        let result = end
            .io
            .complete(end.wait("a receive", until), |network, cx| {
                if let Some(error) = failure {
                    return Poll::Ready(Err(network.fail(end.number, end.side, error)));
                }
                match network.poll_recv(end.number, end.side, &mut buffer, cx) {
                    Poll::Ready(result) => Poll::Ready(result),
                    Poll::Pending => giving_up.poll(network.now, alarm, cx).map(|rung| Err(error_of(rung))),
                }
            })
            .await;
        in_flight.completed();
        alarm.set(Deadline::NEVER);
        (result, buffer)
    }

    async fn readable(&mut self, until: Deadline) -> io::Result<()> {
        let SimRecv { end, alarm } = self;
        alarm.set(until);
        let mut early = end.io.world.is_late();
        let result = end
            .io
            .complete(end.wait("bytes or an end", until), |network, cx| {
                if std::mem::take(&mut early) || network.poll_readable(end.number, end.side, cx).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                alarm.poll_rung(cx).map(|rung| Err(error_of(rung)))
            })
            .await;
        alarm.set(Deadline::NEVER);
        result
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let SimIo { world, host } = &self.end.io;
        if world.is_late() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let is_early = world.is_late();
        if is_early || world.network.borrow_mut().poll_readable(self.end.number, self.end.side, cx).is_ready()
        {
            host.touch();
            return Poll::Ready(());
        }
        world.executor.note(self.end.wait("bytes or an end", Deadline::NEVER));
        Poll::Pending
    }

    fn try_recv(&mut self, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        // Who gets nothing asks to be woken.
        let cx = &mut Context::from_waker(Waker::noop());
        let mut network = self.end.io.world.network.borrow_mut();
        match network.poll_recv(self.end.number, self.end.side, buffer, cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn cancel_handle(&self) -> Alarm {
        self.alarm.clone()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.end.io.world.network.borrow_mut().address(self.end.number, self.end.side))
    }
}

impl SendHalf for SimSend {
    async fn send(&mut self, mut gather: Gather, until: Deadline) -> (io::Result<usize>, Gather) {
        let SimSend { end, alarm } = self;
        alarm.set(until);
        let in_flight = InFlight::begin(&end.io.world);
        let failure = end.io.world.failure(&end.io.host, &errno::SEND);
        let takes_some = end.io.world.is_cancel_late();
        let result = end
            .io
            .complete(end.wait("a send", until), |network, cx| {
                if let Some(error) = failure {
                    return Poll::Ready(Err(network.fail(end.number, end.side, error)));
                }
                match network.poll_send(end.number, end.side, &mut gather, cx) {
                    Poll::Ready(result) => Poll::Ready(result),
                    Poll::Pending => alarm.poll_rung(cx).map(|rung| {
                        // What the kernel took before it was told is sent, and nothing after it.
                        let taken = takes_some.then(|| network.take_one(end.number, end.side, &mut gather));
                        network.abort(end.number, end.side);
                        taken.ok_or_else(|| error_of(rung))
                    }),
                }
            })
            .await;
        in_flight.completed();
        alarm.set(Deadline::NEVER);
        (result, gather)
    }

    fn cancel_handle(&self) -> Alarm {
        self.alarm.clone()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.end.io.world.network.borrow_mut().shutdown(self.end.number, self.end.side)
    }

    fn reset(&mut self) {
        // As on the kernel: the RST leaves when both halves are gone.
        self.end.io.world.network.borrow_mut().reset_on_close(self.end.number, self.end.side);
    }
}

/// A receive that is given up, and still in flight for a while: what comes in that time is received.
struct GivingUp<'a> {
    world: &'a World,
    rung: Option<Rung>,
    over: Alarm,
}

impl<'a> GivingUp<'a> {
    fn new(world: &'a World) -> GivingUp<'a> {
        GivingUp { world, rung: None, over: world.timers.alarm() }
    }

    /// Why it was given up, when it is over.
    fn poll(&mut self, now: u64, alarm: &Alarm, cx: &mut Context<'_>) -> Poll<Rung> {
        let rung = match self.rung {
            Some(rung) => rung,
            None => {
                let Poll::Ready(rung) = alarm.poll_rung(cx) else { return Poll::Pending };
                let wait = self.world.cancelling();
                if wait == Duration::ZERO {
                    return Poll::Ready(rung);
                }
                self.over.set(Deadline::after(now, wait));
                *self.rung.insert(rung)
            }
        };
        self.over.poll_rung(cx).map(|_| rung)
    }
}

fn error_of(rung: Rung) -> io::Error {
    match rung {
        Rung::TimedOut => io::ErrorKind::TimedOut.into(),
        Rung::Cancelled => io::ErrorKind::Interrupted.into(),
    }
}

/// Trips when an operation that owns a buffer is dropped before it completed.
struct InFlight<'a> {
    world: &'a World,
    done: bool,
}

impl<'a> InFlight<'a> {
    fn begin(world: &'a World) -> Self {
        InFlight { world, done: false }
    }

    fn completed(mut self) {
        self.done = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        debug_assert!(
            self.done || self.world.ending.get() || std::thread::panicking(),
            "an operation in flight was dropped"
        );
    }
}

impl std::fmt::Debug for SimIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimIo({})", self.host.ip)
    }
}
