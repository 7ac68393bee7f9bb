//! The network between all hosts of a simulation: listeners, connects, what is on its way. It has no tasks.
//! What happens on a connection once it is made is in `connection.rs`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    connection::{Connection, Side, keep_waker},
    errno,
    faults::{Faults, Link, Way},
    pipe::wake,
    rng::Rng,
    trace::{Trace, What},
};

/// Connections that wait to be accepted; the next SYN is dropped, as the kernel does.
const BACKLOG: usize = 4096;

/// When a dropped SYN is sent again.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// `EINVAL`, which an accept on a closed listener gives.
const EINVAL: i32 = 22;

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
    pub(crate) lost_syns_per_mille: u16,
    pub(crate) connections: BTreeMap<u64, Connection>,
    connections_count: u64,
    listeners: BTreeMap<u64, ListenerState>,
    connects: BTreeMap<u64, Connecting>,
    /// Numbers of listeners and connects, and the order of events of one instant.
    sequence: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    ports: BTreeMap<IpAddr, u16>,
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
    result: Option<Result<u64, Refusal>>,
}

/// Why a connect fails.
#[derive(Clone, Copy)]
enum Refusal {
    Kind(io::ErrorKind),
    Kernel(i32),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
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
            lost_syns_per_mille: 0,
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

    pub(crate) fn schedule(&mut self, at: u64, event: Event) {
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
            self.refuse(connection);
        }
    }

    pub(crate) fn drop_listener(&mut self, number: u64) {
        self.close_listener(number);
        self.listeners.remove(&number);
    }

    /// The next connection, or `failure` if there is one in its place.
    pub(crate) fn poll_accept(
        &mut self,
        number: u64,
        failure: Option<i32>,
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
        let (Some(connection), error) = (listener.queue.front().copied(), failure) else {
            keep_waker(&mut listener.waker, cx);
            return Poll::Pending;
        };
        if error.is_none_or(|error| error == errno::ECONNABORTED) {
            listener.queue.pop_front();
        }
        if let Some(error) = error {
            if error == errno::ECONNABORTED {
                self.refuse(connection);
            }
            return Poll::Ready(Err(io::Error::from_raw_os_error(error)));
        }
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

    /// Begins a connect, which ends with `failure` if there is one.
    pub(crate) fn connect(&mut self, from: IpAddr, to: SocketAddr, failure: Option<i32>) -> u64 {
        let from = SocketAddr::new(from, self.free_port(from));
        self.note(What::Connects { from, to });
        let number = self.number();
        let mut connecting = Connecting { from, to, waker: None, result: None };
        match (failure, self.reach.get(&to)) {
            (Some(error), _) => connecting.result = Some(Err(Refusal::Kernel(error))),
            (None, Some(Reach::Unanswered)) => {}
            (None, Some(Reach::Fails(kind))) => connecting.result = Some(Err(Refusal::Kind(*kind))),
            (None, Some(Reach::Normal) | None) => {
                let mut at = self.now + Way::default().draw_latency(&mut self.rng);
                // Each SYN that is lost is sent again, after twice the time.
                let mut again = SYN_AGAIN.as_nanos() as u64;
                while self.rng.chance(self.lost_syns_per_mille) {
                    (at, again) = (at + again, again * 2);
                }
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
        Poll::Ready(result.map_err(|refusal| match refusal {
            Refusal::Kind(kind) => kind.into(),
            Refusal::Kernel(error) => io::Error::from_raw_os_error(error),
        }))
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
            let at = self.now + Way::default().draw_latency(&mut self.rng);
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
        let connection = Connection::new(&link, faults);
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
                connecting.result = Some(connection.ok_or(Refusal::Kind(io::ErrorKind::ConnectionRefused)));
                wake(&mut connecting.waker);
            }
            (None, Some(connection)) => self.give_up(connection),
            (None, None) => {}
        }
    }

    /// Forgets the test's own code, which may hold what holds this.
    pub(crate) fn forget_faults(&mut self) -> FaultsOf {
        std::mem::replace(&mut self.faults_of, Rc::new(|_, _| Faults::default()))
    }

    /// Sockets in somebody's hands, or waiting to be.
    pub(crate) fn leaks(&self) -> Vec<Leak> {
        let listeners = self.listeners.values().map(|listener| Leak::Listener(listener.address));
        let ends = self.connections.iter().flat_map(|(number, connection)| connection.leaks(*number));
        listeners.chain(ends).collect()
    }
}

/// A SYN that found its listener.
pub(crate) struct Syn {
    connect: u64,
    listener: u64,
    pub(crate) link: Link,
}
