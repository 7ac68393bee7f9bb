//! The network between all hosts of a simulation: listeners, connections, what is on its way. It has no tasks.
//!
//! Ends behave as Linux's: bytes that arrived before a RST can still be received, a close with unread bytes is a
//! RST, bytes sent to an end that is gone bring a RST back, an error is told once and an end of file follows.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::{Buffer, Gather};

use crate::{
    faults::{End, Faults, Link},
    pipe::{Carried, Pipe, wake},
    rng::Rng,
    trace::{Trace, What},
};

/// Connections that wait to be accepted; the next SYN is dropped, as the kernel does.
const BACKLOG: usize = 4096;

/// When a dropped SYN is sent again.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// `EINVAL`, which an accept on a closed listener gives.
const EINVAL: i32 = 22;

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The end that connected.
    Connector,
    /// The end that accepted.
    Acceptor,
}

impl Side {
    /// The pipe it sends into, and its place among the ends.
    fn out(self) -> usize {
        self as usize
    }

    /// The pipe it receives from.
    fn into(self) -> usize {
        self.other() as usize
    }

    fn other(self) -> Side {
        match self {
            Side::Connector => Side::Acceptor,
            Side::Acceptor => Side::Connector,
        }
    }
}

/// What answers a connect to an address, before any listener is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// The listener there, or a refusal.
    Normal,
    /// Nobody: the connect waits until its deadline.
    Unanswered,
    /// The network, with an error.
    Fails(io::ErrorKind),
}

/// A socket that somebody still holds.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Leak {
    /// A listener.
    Listener(SocketAddr),
    /// One end of a connection.
    Connection {
        /// The connection's number.
        number: u64,
        /// Whose end.
        side: Side,
        /// The address of that end.
        local: SocketAddr,
        /// The address of the other.
        remote: SocketAddr,
    },
}

pub(crate) type FaultsOf = Rc<dyn Fn(&Link, &mut Rng) -> Faults>;

pub(crate) struct Network {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) faults_of: FaultsOf,
    pub(crate) reach: BTreeMap<SocketAddr, Reach>,
    pub(crate) backlog: usize,
    connections: BTreeMap<u64, Connection>,
    connections_count: u64,
    listeners: BTreeMap<u64, ListenerState>,
    connects: BTreeMap<u64, Connecting>,
    /// Numbers of listeners and connects, and the order of events of one instant.
    sequence: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    ports: BTreeMap<IpAddr, u16>,
}

struct Connection {
    ends: [Held; 2],
    addresses: [SocketAddr; 2],
    /// By the side that sends.
    pipes: [Pipe; 2],
}

#[derive(Clone, Copy, Default)]
struct Held {
    /// Halves in somebody's hands.
    halves: u8,
    /// Not handed out yet: in an accept queue, or its connect has not ended.
    waits: bool,
    /// Told to break instead of close.
    reset_on_close: bool,
    /// The connection is broken; nothing can be sent and nothing more will come.
    broken: bool,
    /// Told by the next operation.
    error: Option<io::ErrorKind>,
    /// This end will be sent a RST, or was.
    reset_coming: bool,
}

struct ListenerState {
    address: SocketAddr,
    open: bool,
    queue: VecDeque<u64>,
    failures: VecDeque<i32>,
    waker: Option<Waker>,
}

struct Connecting {
    from: SocketAddr,
    to: SocketAddr,
    waker: Option<Waker>,
    result: Option<Result<u64, io::ErrorKind>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Syn(u64),
    ConnectEnds { connect: u64, connection: Option<u64> },
    Arrives { connection: u64, by: Side },
}

impl Network {
    pub(crate) fn new(now: u64, rng: Rng) -> Network {
        Network {
            now,
            rng,
            trace: Trace::default(),
            faults_of: Rc::new(|_, _| Faults::default()),
            reach: BTreeMap::new(),
            backlog: BACKLOG,
            connections: BTreeMap::new(),
            connections_count: 0,
            listeners: BTreeMap::new(),
            connects: BTreeMap::new(),
            sequence: 0,
            events: BinaryHeap::new(),
            ports: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, what: What) {
        self.trace.note(self.now, what);
    }

    /// A port that the kernel would choose on this address.
    fn free_port(&mut self, ip: IpAddr) -> u16 {
        let port = self.ports.entry(ip).or_insert(32767);
        *port = if *port == u16::MAX { 32768 } else { *port + 1 };
        *port
    }

    fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    // Events.

    pub(crate) fn next_event(&self) -> Option<u64> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    fn schedule(&mut self, at: u64, event: Event) {
        let order = self.number();
        self.events.push(Reverse((at, order, event)));
    }

    /// Lets one due event happen; false when none is due. A SYN that needs its faults chosen is given back, since
    /// choosing runs the test's own code, which may look at the network.
    pub(crate) fn step(&mut self) -> Option<Option<Syn>> {
        let Reverse((at, _, event)) = *self.events.peek()?;
        if at > self.now {
            return None;
        }
        self.events.pop();
        match event {
            Event::Syn(connect) => Some(self.syn(connect)),
            Event::ConnectEnds { connect, connection } => {
                self.connect_ends(connect, connection);
                Some(None)
            }
            Event::Arrives { connection, by } => {
                self.arrives(connection, by);
                Some(None)
            }
        }
    }

    // Listening.

    /// Binds one more socket to an address; several share its connections, as with SO_REUSEPORT.
    pub(crate) fn bind(&mut self, mut address: SocketAddr) -> (u64, SocketAddr) {
        if address.port() == 0 {
            address.set_port(self.free_port(address.ip()));
        }
        let number = self.number();
        let state = ListenerState {
            address,
            open: true,
            queue: VecDeque::new(),
            failures: VecDeque::new(),
            waker: None,
        };
        self.listeners.insert(number, state);
        (number, address)
    }

    pub(crate) fn fail_accepts(&mut self, address: SocketAddr, raw_os_error: i32, count: usize) {
        for listener in self.listeners.values_mut().filter(|listener| listener.address == address) {
            listener.failures.extend(std::iter::repeat_n(raw_os_error, count));
            wake(&mut listener.waker);
        }
    }

    pub(crate) fn close_listener(&mut self, number: u64) {
        let Some(listener) = self.listeners.get_mut(&number) else { return };
        listener.open = false;
        wake(&mut listener.waker);
        for connection in std::mem::take(&mut listener.queue) {
            if let Some(state) = self.connections.get_mut(&connection) {
                let end = &mut state.ends[Side::Acceptor.out()];
                end.waits = false;
                end.reset_on_close = true;
            }
            self.close(connection, Side::Acceptor);
        }
    }

    pub(crate) fn drop_listener(&mut self, number: u64) {
        self.close_listener(number);
        self.listeners.remove(&number);
    }

    pub(crate) fn poll_accept(
        &mut self,
        number: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(u64, SocketAddr)>> {
        let Some(listener) = self.listeners.get_mut(&number) else {
            return Poll::Ready(Err(io::Error::from_raw_os_error(EINVAL)));
        };
        if !listener.open {
            return Poll::Ready(Err(io::Error::from_raw_os_error(EINVAL)));
        }
        if let Some(error) = listener.failures.pop_front() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(error)));
        }
        let Some(connection) = listener.queue.pop_front() else {
            keep_waker(&mut listener.waker, cx);
            return Poll::Pending;
        };
        self.note(What::Accepted { connection });
        self.hand_out(connection, Side::Acceptor);
        Poll::Ready(Ok((connection, self.address(connection, Side::Connector))))
    }

    fn listening(&mut self, to: SocketAddr) -> Option<u64> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let found = |address: SocketAddr| -> Vec<u64> {
            let here =
                |(number, l): (&u64, &ListenerState)| (l.open && l.address == address).then_some(*number);
            self.listeners.iter().filter_map(here).collect()
        };
        let mut all = found(to);
        if all.is_empty() {
            all = found(SocketAddr::new(any, to.port()));
        }
        if all.is_empty() { None } else { Some(self.rng.pick(&all)) }
    }

    // Connecting.

    pub(crate) fn connect(&mut self, from: IpAddr, to: SocketAddr) -> u64 {
        let from = SocketAddr::new(from, self.free_port(from));
        self.note(What::Connects { from, to });
        let number = self.number();
        let mut connecting = Connecting { from, to, waker: None, result: None };
        match self.reach.get(&to) {
            Some(Reach::Unanswered) => {}
            Some(Reach::Fails(kind)) => connecting.result = Some(Err(*kind)),
            Some(Reach::Normal) | None => {
                let at = self.now + crate::faults::Way::default().draw_latency(&mut self.rng);
                self.schedule(at, Event::Syn(number));
            }
        }
        self.connects.insert(number, connecting);
        number
    }

    pub(crate) fn poll_connect(&mut self, number: u64, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let Some(connecting) = self.connects.get_mut(&number) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some(result) = connecting.result else {
            keep_waker(&mut connecting.waker, cx);
            return Poll::Pending;
        };
        self.connects.remove(&number);
        if let Ok(connection) = result {
            self.hand_out(connection, Side::Connector);
        }
        Poll::Ready(result.map_err(io::Error::from))
    }

    /// Forgets a connect that was given up. What it may still bring is closed when it comes.
    pub(crate) fn abandon_connect(&mut self, number: u64) {
        if let Some(Connecting { result: Some(Ok(connection)), .. }) = self.connects.remove(&number) {
            self.give_up(connection);
        }
    }

    fn syn(&mut self, connect: u64) -> Option<Syn> {
        let Connecting { from, to, .. } = *self.connects.get(&connect)?;
        let Some(listener) = self.listening(to) else {
            self.note(What::Refused { to });
            let at = self.now + crate::faults::Way::default().draw_latency(&mut self.rng);
            self.schedule(at, Event::ConnectEnds { connect, connection: None });
            return None;
        };
        if self.listeners.get(&listener).is_some_and(|state| state.queue.len() >= self.backlog) {
            self.schedule(self.now + SYN_AGAIN.as_nanos() as u64, Event::Syn(connect));
            return None;
        }
        let number = self.connections_count;
        self.connections_count += 1;
        Some(Syn { connect, listener, link: Link { number, from, to } })
    }

    /// Makes the connection of a SYN that found its listener.
    pub(crate) fn establish(&mut self, syn: Syn, faults: Faults) {
        let Syn { connect, listener, link } = syn;
        let number = link.number;
        let cuts = [faults.up.cut, faults.down.cut];
        let answered_at = self.now + faults.down.draw_latency(&mut self.rng);
        let waiting = Held { waits: true, ..Held::default() };
        let connection = Connection {
            ends: [waiting; 2],
            addresses: [link.from, link.to],
            pipes: [Pipe::new(faults.up), Pipe::new(faults.down)],
        };
        self.connections.insert(number, connection);
        self.note(What::Established { connection: number, to: link.to });
        if let Some(state) = self.listeners.get_mut(&listener) {
            state.queue.push_back(number);
            wake(&mut state.waker);
        }
        self.schedule(answered_at, Event::ConnectEnds { connect, connection: Some(number) });
        for cut in cuts.into_iter().flatten().filter(|cut| cut.bytes == 0) {
            self.cut(number, cut.end);
        }
    }

    fn connect_ends(&mut self, connect: u64, connection: Option<u64>) {
        match (self.connects.get_mut(&connect), connection) {
            (Some(connecting), connection) => {
                connecting.result = Some(connection.ok_or(io::ErrorKind::ConnectionRefused));
                wake(&mut connecting.waker);
            }
            (None, Some(connection)) => self.give_up(connection),
            (None, None) => {}
        }
    }

    fn give_up(&mut self, connection: u64) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.ends[Side::Connector.out()].waits = false;
        }
        self.close(connection, Side::Connector);
    }

    fn hand_out(&mut self, connection: u64, side: Side) {
        let end = &mut self.connection(connection).ends[side.out()];
        end.waits = false;
        end.halves = 2;
    }

    // Talking. A half keeps its connection in the map, so it is always found.

    fn connection(&mut self, number: u64) -> &mut Connection {
        self.connections.get_mut(&number).expect("a half keeps its connection")
    }

    /// The address of one end.
    pub(crate) fn address(&mut self, connection: u64, side: Side) -> SocketAddr {
        self.connection(connection).addresses[side.out()]
    }

    pub(crate) fn poll_recv(
        &mut self,
        number: u64,
        side: Side,
        buffer: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.poll_readable(number, side, cx).is_pending() {
            return Poll::Pending;
        }
        let Network { connections, rng, .. } = self;
        let connection = connections.get_mut(&number).expect("a half keeps its connection");
        let (end, pipe) = (&mut connection.ends[side.out()], &mut connection.pipes[side.into()]);
        let possible = pipe.arrived().min(buffer.spare());
        if possible == 0 && pipe.arrived() == 0 {
            return Poll::Ready(end.error.take().map_or(Ok(0), |kind| Err(kind.into())));
        }
        let limit = pipe.way.recv.limit(possible, pipe.received_count, rng);
        let bytes = pipe.take(buffer, limit);
        self.note(What::Received { connection: number, by: side, bytes });
        Poll::Ready(Ok(bytes))
    }

    /// Ready when a receive would not wait.
    pub(crate) fn poll_readable(&mut self, number: u64, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.connection(number);
        let (end, pipe) = (&connection.ends[side.out()], &mut connection.pipes[side.into()]);
        if pipe.arrived() > 0 || end.broken || pipe.fin_arrived {
            return Poll::Ready(());
        }
        keep_waker(&mut pipe.receiver, cx);
        Poll::Pending
    }

    pub(crate) fn poll_send(
        &mut self,
        number: u64,
        side: Side,
        gather: &mut Gather,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Network { connections, rng, now, .. } = self;
        let connection = connections.get_mut(&number).expect("a half keeps its connection");
        let (end, pipe) = (&mut connection.ends[side.out()], &mut connection.pipes[side.out()]);
        if let Some(kind) = end.error.take() {
            return Poll::Ready(Err(kind.into()));
        }
        if end.broken || pipe.fin_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let possible = gather.unsent_len();
        if possible == 0 {
            return Poll::Ready(Ok(0));
        }
        if pipe.cut {
            gather.mark_sent(possible);
            self.answer_with_reset(number, side);
            return Poll::Ready(Ok(possible));
        }
        let mut possible = possible.min(pipe.room());
        if possible == 0 {
            keep_waker(&mut pipe.sender, cx);
            return Poll::Pending;
        }
        let cut = pipe.way.cut;
        if let Some(cut) = cut {
            possible = possible.min(usize::try_from(cut.bytes - pipe.sent_count).unwrap_or(usize::MAX));
        }
        let bytes = pipe.way.send.limit(possible, pipe.sent_count, rng);
        pipe.put(gather.unsent(), bytes);
        gather.mark_sent(bytes);
        let at = *now + pipe.way.draw_latency(rng);
        let sent_count = pipe.sent_count;
        self.carry(number, side, Carried::Bytes(bytes), at);
        self.note(What::Sent { connection: number, by: side, bytes });
        if let Some(cut) = cut.filter(|cut| cut.bytes == sent_count) {
            self.cut(number, cut.end);
        }
        Poll::Ready(Ok(bytes))
    }

    /// Sends FIN behind what was sent.
    pub(crate) fn shutdown(&mut self, number: u64, side: Side) -> io::Result<()> {
        let connection = self.connection(number);
        if connection.ends[side.out()].broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.fin(number, side);
        Ok(())
    }

    /// Ends both directions from this side, as a send that is given up does. What was sent still arrives.
    pub(crate) fn shutdown_both(&mut self, number: u64, side: Side) {
        self.fin(number, side);
        let pipe = &mut self.connection(number).pipes[side.into()];
        pipe.fin_arrived = true;
        wake(&mut pipe.receiver);
    }

    /// From here on closing this end breaks the connection.
    pub(crate) fn reset_on_close(&mut self, number: u64, side: Side) {
        self.connection(number).ends[side.out()].reset_on_close = true;
    }

    /// One half less in somebody's hands; the last one closes the end.
    pub(crate) fn release(&mut self, number: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let end = &mut connection.ends[side.out()];
        end.halves = end.halves.saturating_sub(1);
        if end.halves == 0 {
            self.close(number, side);
        }
    }

    fn close(&mut self, number: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let end = connection.ends[side.out()];
        let unread = connection.pipes[side.into()].arrived() > 0;
        connection.pipes[side.into()].discard_arrived();
        self.note(What::Closed { connection: number, by: side });
        if !end.broken {
            if end.reset_on_close || unread {
                self.reset(number, side);
            } else {
                self.fin(number, side);
            }
        }
        if self.connections.get(&number).is_some_and(|connection| connection.ends.iter().all(Held::is_closed))
        {
            self.connections.remove(&number);
        }
    }

    /// Breaks a connection between its ends.
    fn cut(&mut self, number: u64, how: End) {
        for side in [Side::Connector, Side::Acceptor] {
            let fin_sent = self.connection(number).pipes[side.out()].fin_sent;
            match how {
                End::Close => self.fin(number, side),
                End::Reset => self.reset(number, side),
            }
            let pipe = &mut self.connection(number).pipes[side.out()];
            // This FIN is the network's, not the end's own: the end may still send, into nothing.
            pipe.fin_sent = fin_sent;
            pipe.cut = true;
            wake(&mut pipe.sender);
        }
    }

    fn fin(&mut self, number: u64, by: Side) {
        let pipe = &mut self.connection(number).pipes[by.out()];
        if !std::mem::replace(&mut pipe.fin_sent, true) && !pipe.cut {
            self.carry_now(number, by, Carried::Fin);
        }
    }

    fn reset(&mut self, number: u64, by: Side) {
        let other = &mut self.connection(number).ends[by.other().out()];
        if !std::mem::replace(&mut other.reset_coming, true) {
            self.carry_now(number, by, Carried::Reset);
        }
    }

    /// What `by` sends finds nobody: its RST comes after a round trip.
    fn answer_with_reset(&mut self, number: u64, by: Side) {
        self.reset(number, by.other());
    }

    fn carry_now(&mut self, number: u64, by: Side, carried: Carried) {
        let Network { connections, rng, now, .. } = self;
        let Some(connection) = connections.get_mut(&number) else { return };
        let at = *now + connection.pipes[by.out()].way.draw_latency(rng);
        self.carry(number, by, carried, at);
    }

    fn carry(&mut self, number: u64, by: Side, carried: Carried, at: u64) {
        let at = self.connection(number).pipes[by.out()].carry(carried, at);
        self.schedule(at, Event::Arrives { connection: number, by });
    }

    fn arrives(&mut self, number: u64, by: Side) {
        let to = by.other();
        loop {
            let now = self.now;
            let Some(connection) = self.connections.get_mut(&number) else { return };
            let gone = connection.ends[to.out()].is_closed();
            let pipe = &mut connection.pipes[by.out()];
            let Some(carried) = pipe.arrive(now) else { return };
            match carried {
                Carried::Bytes(_) if gone => {
                    pipe.discard_arrived();
                    self.answer_with_reset(number, by);
                }
                Carried::Bytes(_) => wake(&mut pipe.receiver),
                Carried::Fin => {
                    pipe.fin_arrived = true;
                    wake(&mut pipe.receiver);
                    self.note(What::EndArrives { connection: number, at: to });
                }
                Carried::Reset => {
                    wake(&mut pipe.receiver);
                    let ended = pipe.fin_arrived;
                    let end = &mut connection.ends[to.out()];
                    // A FIN that came before stays what a receive sees; a send then meets a broken pipe.
                    if !std::mem::replace(&mut end.broken, true) && !ended {
                        end.error = Some(io::ErrorKind::ConnectionReset);
                    }
                    let pipe = &mut connection.pipes[to.out()];
                    wake(&mut pipe.sender);
                    if !pipe.cut {
                        // The other end is gone. After a cut it is not, and what was sent still arrives.
                        pipe.discard_all();
                    }
                    self.note(What::ResetArrives { connection: number, at: to });
                }
            }
        }
    }

    /// Forgets the test's own code, which may hold what holds this.
    pub(crate) fn forget_faults(&mut self) -> FaultsOf {
        std::mem::replace(&mut self.faults_of, Rc::new(|_, _| Faults::default()))
    }

    /// Sockets in somebody's hands, or waiting to be.
    pub(crate) fn leaks(&self) -> Vec<Leak> {
        let listeners = self.listeners.values().map(|listener| Leak::Listener(listener.address));
        let ends = self.connections.iter().flat_map(|(number, connection)| {
            [Side::Connector, Side::Acceptor]
                .into_iter()
                .filter(|side| !connection.ends[side.out()].is_closed())
                .map(|side| Leak::Connection {
                    number: *number,
                    side,
                    local: connection.addresses[side.out()],
                    remote: connection.addresses[side.into()],
                })
        });
        listeners.chain(ends).collect()
    }
}

/// A SYN that found its listener.
pub(crate) struct Syn {
    connect: u64,
    listener: u64,
    pub(crate) link: Link,
}

impl Held {
    fn is_closed(&self) -> bool {
        self.halves == 0 && !self.waits
    }
}

fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *kept = Some(cx.waker().clone());
    }
}
