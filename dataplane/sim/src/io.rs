//! [`runtime::Io`] over the simulated network: what the proxy is given instead of a kernel.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    panic::Location,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::{
    Buffer, Deadline, Gather, Io, RecvHalf, SendHalf,
    mailbox::Bell,
    timer::{Alarm, Timers},
};

use crate::{
    connection::Side,
    errno,
    executor::Wait,
    listener::{SimListener, SimSocket, SimStream},
    network::Network,
    operation::{GivingUp, InFlight, Overflow, error_of},
    trace::What,
    world::{Host, World},
};

/// One simulated machine with one loop, as a worker sees it.
#[derive(Clone)]
pub struct SimIo {
    pub(crate) world: Rc<World>,
    pub(crate) host: Rc<Host>,
}

/// The receiving half of a connection.
pub struct SimRecv {
    end: ConnectionEnd,
    alarm: Alarm,
    /// For who only polls.
    overflow: Overflow,
    /// Somebody waited for its bytes, so the loop does.
    is_watched: bool,
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

    /// How many of 1000 rings of this machine's bells are heard late, up to `by_max`, since its thread does not get its turn.
    /// Another reason for a turn comes before.
    pub fn late_bells(&self, per_mille: u16, by_max: Duration) {
        self.host.late_bells.set((per_mille, by_max));
    }

    /// A bell for mailboxes of this machine's worker; each ring makes a turn.
    pub fn bell(&self) -> Bell {
        let rung = self.host.rung.clone();
        Bell::of(move || rung.store(true, Ordering::Relaxed))
    }

    /// How many of 1000 connects, accepts, receives and sends of this machine fail, each with one of the errors that Linux
    /// gives for it. After most of them the connection is over, for both ends.
    pub fn fail_operations(&self, per_mille: u16) {
        self.host.fail_per_mille.set(per_mille);
    }

    /// How many of 1000 completions of this machine are the first that its full queue has no room for: from then on, for up
    /// to `by_max`, none is seen, of whatever operation, and then all are at once. Its clock and its tasks go on.
    pub fn overflows(&self, per_mille: u16, by_max: Duration) {
        self.host.overflows.set((per_mille, by_max));
    }

    /// How many of 1000 receives of this machine that bytes come for find no buffer to put them into, and end; the bytes stay
    /// where they are, and whoever waits has to ask for them once more.
    pub fn short_of_buffers(&self, per_mille: u16) {
        self.host.no_buffer_per_mille.set(per_mille);
    }

    /// Binds a listening socket; port 0 chooses one. Several on one address share its connections.
    pub fn bind(&self, address: SocketAddr) -> SimSocket {
        SimSocket::bind(&self.world, address)
    }

    pub(crate) fn halves(&self, number: u64, side: Side) -> (SimRecv, SimSend) {
        let end = || ConnectionEnd { number, side, io: self.clone() };
        let alarm = || self.world.timers.alarm();
        let overflow = Overflow::of(&self.world, &self.host);
        let recv = SimRecv { end: end(), alarm: alarm(), overflow, is_watched: false };
        (recv, SimSend { end: end(), alarm: alarm() })
    }

    /// Ends the receive that a loop has in flight for whoever waits; gives whether it got something. That may be what comes
    /// while it is told to end; or nothing is seen of what came, which then is there for the next loop.
    async fn unwatch(&self, end: &ConnectionEnd) -> bool {
        let is_missed = self.world.is_late();
        let until = Deadline::after(self.now(), self.world.cancelling());
        let over = self.world.timers.alarm();
        over.set(until);
        self.complete(end.wait("the end of a receive", until), |network, is_seen, cx| {
            let is_over = network.now >= until.0 || over.poll_rung(cx).is_ready();
            match is_seen && is_over {
                true => Poll::Ready(!is_missed && network.poll_readable(end.number, end.side, cx).is_ready()),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn has_no_buffer(&self) -> bool {
        self.world.rng.borrow_mut().chance(self.host.no_buffer_per_mille.get())
    }

    /// Waits for one operation as a loop would: sometimes late, and with a note of what is waited for. `poll` is told whether
    /// completions of this machine are seen; while they are not, only a deadline may end it.
    pub(crate) async fn complete<T>(
        &self,
        wait: Wait,
        mut poll: impl FnMut(&mut Network, bool, &mut Context<'_>) -> Poll<T>,
    ) -> T {
        let mut lateness = self.world.lateness();
        let mut overflow = Overflow::of(&self.world, &self.host);
        let result = poll_fn(|cx| {
            if lateness > 0 {
                lateness -= 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let is_seen = overflow.poll_over(cx).is_ready();
            let polled = poll(&mut self.world.network.borrow_mut(), is_seen, cx);
            if polled.is_pending() {
                self.world.executor.note(wait);
            }
            polled
        })
        .await;
        self.world.overflow(&self.host);
        self.host.touch();
        result
    }
}

impl Io for SimIo {
    type Socket = SimSocket;
    type Stream = SimStream;
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
            .complete(wait, |network, is_seen, cx| {
                if is_seen && let Poll::Ready(result) = network.poll_connect(number, cx) {
                    return Poll::Ready(result);
                }
                alarm.poll_rung(cx).map(|_| Err(io::ErrorKind::TimedOut.into()))
            })
            .await?;
        Ok(self.halves(connection, Side::Connector))
    }

    fn listener(&self, mut socket: SimSocket) -> io::Result<SimListener> {
        socket.dropped = None;
        Ok(SimListener { number: socket.number, address: socket.address, io: self.clone() })
    }

    async fn detach(&self, recv: SimRecv, send: SimSend) -> Result<SimStream, (SimRecv, SimSend)> {
        let (number, side) = (recv.end.number, recv.end.side);
        if recv.is_watched && self.unwatch(&recv.end).await {
            return Err((recv, send));
        }
        if self.world.failure(&self.host, &errno::DUPLICATE).is_some() {
            return Err((recv, send));
        }
        // In the hands of the stream, before it is in nobody's.
        self.world.network.borrow_mut().hold(number, side);
        Ok(SimStream { number, side, dropped: Some(self.world.dropped_streams.clone()) })
    }

    fn attach(&self, mut stream: SimStream) -> io::Result<(SimRecv, SimSend)> {
        if let Some(error) = self.world.failure(&self.host, &errno::WATCH) {
            return Err(io::Error::from_raw_os_error(error));
        }
        stream.dropped = None;
        self.world.network.borrow_mut().hold(stream.number, stream.side);
        Ok(self.halves(stream.number, stream.side))
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

    fn overflow_count(&self) -> u64 {
        self.host.overflow_count.get()
    }

    async fn sleep_until(&self, at: Deadline) {
        let alarm = self.world.timers.alarm();
        alarm.set(at);
        let wait = Wait { operation: "a point of time", connection: None, until: at };
        self.complete(wait, |_, _, cx| alarm.poll_rung(cx)).await;
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
    async fn recv(&mut self, buffer: &mut Buffer, until: Deadline) -> io::Result<usize> {
        let SimRecv { end, alarm, is_watched, .. } = self;
        *is_watched = true;
        alarm.set(until);
        let in_flight = InFlight::begin(&end.io.world);
        let failure = end.io.world.failure(&end.io.host, &errno::RECV);
        let mut no_buffer = end.io.has_no_buffer();
        let mut giving_up = GivingUp::new(&end.io.world);
        let result = end
            .io
            .complete(end.wait("a receive", until), |network, is_seen, cx| {
                if let Some(error) = failure.filter(|_| is_seen) {
                    return Poll::Ready(Err(network.fail(end.number, end.side, error)));
                }
                if is_seen && no_buffer && network.poll_readable(end.number, end.side, cx).is_ready() {
                    no_buffer = false;
                    cx.waker().wake_by_ref();
                } else if is_seen
                    && let Poll::Ready(result) = network.poll_recv(end.number, end.side, buffer, cx)
                {
                    return Poll::Ready(result);
                }
                giving_up.poll(network.now, alarm, cx).map(|rung| Err(error_of(rung)))
            })
            .await;
        in_flight.completed();
        alarm.set(Deadline::NEVER);
        result
    }

    async fn readable(&mut self, until: Deadline) -> io::Result<()> {
        let SimRecv { end, alarm, is_watched, .. } = self;
        *is_watched = true;
        alarm.set(until);
        let mut early = end.io.world.is_late();
        let result = end
            .io
            .complete(end.wait("bytes or an end", until), |network, is_seen, cx| {
                let mut is_ready = || {
                    std::mem::take(&mut early) || network.poll_readable(end.number, end.side, cx).is_ready()
                };
                if is_seen && is_ready() {
                    return Poll::Ready(Ok(()));
                }
                alarm.poll_rung(cx).map(|rung| Err(error_of(rung)))
            })
            .await;
        alarm.set(Deadline::NEVER);
        result
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.is_watched = true;
        let SimIo { world, host } = &self.end.io;
        if self.overflow.poll_over(cx).is_pending() {
            world.executor.note(self.end.wait("bytes or an end", Deadline::NEVER));
            return Poll::Pending;
        }
        if world.is_late() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let is_early = world.is_late();
        if is_early || world.network.borrow_mut().poll_readable(self.end.number, self.end.side, cx).is_ready()
        {
            world.overflow(host);
            host.touch();
            return Poll::Ready(());
        }
        world.executor.note(self.end.wait("bytes or an end", Deadline::NEVER));
        Poll::Pending
    }

    fn try_recv(&mut self, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        let SimRecv { end: ConnectionEnd { number, side, io }, .. } = self;
        if io.world.now() < io.host.overflown_until.get() || io.has_no_buffer() {
            return None;
        }
        let failure = io.world.failure(&io.host, &errno::RECV);
        let mut network = io.world.network.borrow_mut();
        if let Some(error) = failure {
            return Some(Err(network.fail(*number, *side, error)));
        }
        // Who gets nothing asks to be woken.
        let cx = &mut Context::from_waker(Waker::noop());
        match network.poll_recv(*number, *side, buffer, cx) {
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
    async fn send(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<usize> {
        let SimSend { end, alarm } = self;
        alarm.set(until);
        let in_flight = InFlight::begin(&end.io.world);
        let failure = end.io.world.failure(&end.io.host, &errno::SEND);
        let takes_some = end.io.world.is_cancel_late();
        // What was sent, while its completion is not seen.
        let mut sent = None;
        let result = end
            .io
            .complete(end.wait("a send", until), |network, is_seen, cx| {
                if sent.is_none() {
                    sent = match failure {
                        Some(error) => Some(Err(network.fail(end.number, end.side, error))),
                        None => match network.poll_send(end.number, end.side, gather, cx) {
                            Poll::Ready(result) => Some(result),
                            Poll::Pending => None,
                        },
                    };
                }
                if let Some(result) = sent.take_if(|_| is_seen) {
                    return Poll::Ready(result);
                }
                alarm.poll_rung(cx).map(|rung| {
                    let sent = sent.take();
                    // What the kernel took before it was told is sent, and nothing after it.
                    let takes_some = sent.is_none() && takes_some;
                    let taken = takes_some.then(|| network.take_one(end.number, end.side, gather));
                    network.abort(end.number, end.side);
                    sent.unwrap_or_else(|| taken.ok_or_else(|| error_of(rung)))
                })
            })
            .await;
        in_flight.completed();
        alarm.set(Deadline::NEVER);
        result
    }

    fn cancel_handle(&self) -> Alarm {
        self.alarm.clone()
    }

    fn limit_unsent(&mut self, _: u32) {
        // A pipe of this network holds little anyway.
    }

    fn shutdown(&mut self) -> io::Result<()> {
        self.end.io.world.network.borrow_mut().shutdown(self.end.number, self.end.side)
    }

    fn reset(&mut self) {
        // As on the kernel: the RST leaves when both halves are gone.
        self.end.io.world.network.borrow_mut().reset_on_close(self.end.number, self.end.side);
    }
}

impl std::fmt::Debug for SimIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimIo({})", self.host.ip)
    }
}
