//! One core: its loop, pools, counters and current snapshot.
//!
//! A worker shares nothing with other workers per request. What the control thread wants of it arrives as an [`Order`] in
//! its mailbox and is done between two turns of the loop; none of it can fail.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use hashbrown::HashMap;
use policy::{
    Rng,
    balance::PickState,
    cluster::Cluster,
    endpoint::{EndpointState, WorkerId},
    limits,
    route::RouteScratch,
    snapshot::Snapshot,
};
use runtime::{
    BufferPool, Deadline, Io, Listener,
    io::ListenerClose,
    mailbox::{self, Mailbox},
};

use crate::{
    admission::{Admission, Gate},
    colleagues::{Colleagues, HandedOver},
    downstream::{idle::Waiting, streams::Exchanges},
    dynamic_host::{DynamicHosts, Wanted},
    listener,
    live::LiveConnections,
    server_first::ServerFirst,
    telemetry::{
        access_log::AccessLog,
        metrics::{ClusterStats, HttpStats, ListenerStats, RbacCounters, TcpCounters, WorkerStats},
    },
    tls::{BoundTls, Turnstile},
    upstream::{
        Owner, Pools,
        lending::{self, Answer, Ask, Asks},
        streams::StreamPools,
    },
};

/// What the control thread, or another worker, tells a worker.
pub enum Order<I: Io> {
    /// Serve this snapshot from the next request on. Sockets of listeners that are new come with it; those of listeners
    /// that are gone close.
    Adopt {
        /// The snapshot with this worker's counters.
        bound: Box<Bound>,
        /// Listener name and bound socket, one each.
        sockets: Vec<(Arc<str>, I::Socket)>,
        /// Listeners to close.
        closed: Vec<Arc<str>>,
    },
    /// Serve a connection that another thread accepted.
    Serve(HandedOver<I>),
    /// Lend another worker an idle upstream connection.
    Lend(Ask),
    /// What became of such an ask of this worker.
    Lent(Answer<I>),
    /// Accept nothing more; end connections when their exchange ends.
    Drain,
    /// Nothing but to end a turn, which shows that the worker is well.
    EndTurn,
    /// Stop now.
    Stop,
}

/// A snapshot with one worker's counters and scratch memory, made by the control thread so that adopting it is a swap of
/// pointers.
#[derive(Debug)]
pub struct Bound {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// By position in [`Snapshot::clusters`].
    pub clusters: Vec<BoundCluster>,
    /// By position in [`Snapshot::listeners`].
    pub listeners: Vec<Arc<ListenerStats>>,
    /// By `stat_prefix` of the connection managers.
    pub http: HashMap<Arc<str>, Arc<HttpStats>>,
    /// By `stat_prefix` of the TCP proxies.
    pub tcp: HashMap<Arc<str>, Arc<TcpCounters>>,
    /// By `stat_prefix` of the filters that say who may connect.
    pub rbac: HashMap<Arc<str>, Arc<RbacCounters>>,
    /// By key of the connection limits; all workers have the same.
    pub gates: HashMap<Arc<str>, Arc<Gate>>,
    /// What its connections are secured with; all workers have the same.
    pub tls: Arc<BoundTls>,
    /// Memory for routing.
    pub scratch: RefCell<RouteScratch>,
}

/// A cluster's part of [`Bound`].
#[derive(Debug)]
pub struct BoundCluster {
    /// Its counters.
    pub stats: Arc<ClusterStats>,
    /// Where its round robin stands.
    pub pick: RefCell<PickState>,
}

impl Bound {
    /// A cluster by name, with this worker's part.
    pub fn cluster(&self, name: &str) -> Option<(&Arc<Cluster>, &BoundCluster)> {
        let position = self.snapshot.clusters.position(name)?;
        Some((self.snapshot.clusters.at(position)?, self.clusters.get(position)?))
    }
}

/// Where a worker tells others something.
#[derive(Clone, Debug)]
pub struct Outlets {
    /// Where exchanges are logged.
    pub access_log: AccessLog,
    /// How it asks for hosts that requests name and its snapshot does not know.
    pub wanted: mailbox::Sender<Wanted>,
    /// Counts the connections of all workers.
    pub admission: Arc<Admission>,
}

/// Which worker one is.
pub struct Seat<I: Io> {
    /// Its number.
    pub id: WorkerId,
    /// Counters of its loop.
    pub stats: Arc<WorkerStats>,
    /// The other workers.
    pub colleagues: Colleagues<I>,
}

/// Everything the tasks of one worker share.
pub struct Worker<I: Io> {
    /// Network and time.
    pub io: I,
    /// Which worker.
    pub id: WorkerId,
    /// Receive buffers.
    pub buffers: BufferPool,
    /// Idle upstream connections.
    pub pools: Rc<Pools<I>>,
    /// Its connections to upstreams that speak HTTP/2.
    pub stream_pools: StreamPools,
    /// Tasks that run the exchanges of streams.
    pub exchanges: Exchanges<I>,
    /// What it has asked other workers for.
    pub asks: Asks<I>,
    /// For balancing and splits.
    pub rng: RefCell<Rng>,
    /// Counters of the loop.
    pub stats: Arc<WorkerStats>,
    /// Where exchanges are logged.
    pub access_log: AccessLog,
    /// The other workers.
    pub colleagues: Colleagues<I>,
    /// Where servers speak first.
    pub server_first: ServerFirst,
    /// Where handshakes wait for their next step.
    pub turnstile: Turnstile,
    /// Hosts that requests name.
    pub hosts: DynamicHosts,
    /// Which connections are taken.
    pub admission: Arc<Admission>,
    /// Its connections that speak HTTP, or of which it is not known yet what they speak.
    pub waiting: Connections,
    /// Those that only carry bytes.
    pub live: LiveConnections,
    bound: RefCell<Rc<Bound>>,
    listening: RefCell<HashMap<Arc<str>, Vec<ListenerClose>>>,
    draining: Cell<bool>,
    owners: Cell<u64>,
}

// What io_uring received changes places with a buffer of a connection, instead of being copied.
const _: () = assert!(limits::RECV_BUFFER_BYTES == runtime::kernel::PROVIDED_BYTES);

/// Buffers that a worker keeps when they are free: as many as connections can be busy in one turn.
const BUFFERS_KEPT_MAX: usize = 1024;

/// How long a buffer is kept at least that nobody needs, where memory is limited.
const BUFFER_KEPT: Duration = Duration::from_secs(1);

/// Buffers that are freed at a time for which the kernel is given back what the allocator keeps: a MiB of them. It takes a
/// moment, in which the worker does nothing else.
const BUFFERS_GIVEN_BACK_MIN: usize = 16;

impl<I: Io> Worker<I> {
    /// A worker with nothing to do yet.
    pub fn new(io: I, seat: Seat<I>, bound: Box<Bound>, seed: u64, outlets: Outlets) -> Rc<Worker<I>> {
        let Seat { id, stats, colleagues } = seat;
        let buffers = BufferPool::new(limits::RECV_BUFFER_BYTES, BUFFERS_KEPT_MAX);
        let pools = Pools::new(id, buffers.clone());
        pools.adopt(endpoints(&bound.snapshot));
        Rc::new(Worker {
            io,
            id,
            pools,
            stream_pools: StreamPools::default(),
            exchanges: Exchanges::default(),
            asks: Asks::default(),
            buffers,
            rng: RefCell::new(Rng::new(seed)),
            stats,
            access_log: outlets.access_log,
            colleagues,
            server_first: ServerFirst::default(),
            turnstile: Turnstile::default(),
            hosts: DynamicHosts::new(outlets.wanted),
            admission: outlets.admission,
            waiting: Connections::default(),
            live: LiveConnections::default(),
            bound: RefCell::new(Rc::from(bound)),
            listening: RefCell::default(),
            draining: Cell::new(false),
            owners: Cell::new(0),
        })
    }

    /// Serves until told to stop: the worker's main future.
    pub async fn run(self: Rc<Self>, mailbox: Mailbox<Order<I>>) {
        let mut trim_at = Deadline(0);
        loop {
            while let Some(order) = mailbox.take() {
                match order {
                    Order::Adopt { bound, sockets, closed } => self.adopt(bound, sockets, closed),
                    Order::Serve(connection) => listener::take_over(&self, connection),
                    Order::Lend(ask) => lending::lend(&self, ask),
                    Order::Lent(answer) => lending::take_on(&self, answer),
                    Order::Drain => self.drain(),
                    Order::EndTurn => {}
                    Order::Stop => return self.exchanges.stop(),
                }
            }
            let busy = self.io.turn().await;
            self.stats.turn(busy);
            self.turnstile.open();
            let allowed = self.stats.buffers_allowed.get();
            self.buffers.allow(allowed);
            // A worker without work ends a turn now and then, since it is looked after.
            if allowed != u64::MAX && self.io.now() >= trim_at.0 {
                trim_at = Deadline::after(self.io.now(), BUFFER_KEPT);
                if self.buffers.trim() >= BUFFERS_GIVEN_BACK_MIN {
                    runtime::memory::give_back();
                }
            }
            self.stats.counters.completion_overflows.set(self.io.overflow_count());
            self.stats.counters.buffers_out.set(self.buffers.out_count() as u64);
            self.stats.counters.buffers_kept.set(self.buffers.kept_count() as u64);
        }
    }

    /// The snapshot in use; an exchange takes it once and keeps it to its end.
    pub fn bound(&self) -> Rc<Bound> {
        self.bound.borrow().clone()
    }

    /// Whether `bound` is the snapshot in use.
    pub fn is_current(&self, bound: &Rc<Bound>) -> bool {
        Rc::ptr_eq(&self.bound.borrow(), bound)
    }

    /// Whether connections shall end when their exchange ends.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// A mark for the upstream connections of one more downstream connection.
    pub fn next_owner(&self) -> Owner {
        self.owners.set(self.owners.get() + 1);
        Owner(self.owners.get())
    }

    /// Whether connections hold so many buffers that no request is taken.
    pub fn is_short_of_memory(&self) -> bool {
        self.holds_more_than(limits::BUFFERS_REFUSE_PERCENT)
    }

    /// Whether connections hold so many buffers that none may be held for long.
    pub fn is_tight(&self) -> bool {
        self.holds_more_than(limits::BUFFERS_TIGHT_PERCENT)
    }

    fn holds_more_than(&self, percent: u64) -> bool {
        self.stats.buffers_allowed.is_exceeded_by(self.buffers.out_count(), percent)
    }

    /// Until when a send of a buffer that begins now may last for the sake of others.
    pub fn send_until(&self) -> Deadline {
        match self.is_tight() {
            true => Deadline::after(self.io.now(), limits::SEND_TIME_WHEN_TIGHT),
            false => Deadline::NEVER,
        }
    }

    /// Whether nothing is left to drain.
    pub fn is_idle(&self) -> bool {
        self.stats.counters.connections.get() == 0
    }

    fn adopt(self: &Rc<Self>, bound: Box<Bound>, sockets: Vec<(Arc<str>, I::Socket)>, closed: Vec<Arc<str>>) {
        self.stats.counters.snapshot_version.set(bound.snapshot.version);
        self.pools.adopt(endpoints(&bound.snapshot));
        self.stream_pools.adopt(endpoints(&bound.snapshot));
        let before = self.bound.replace(Rc::from(bound));
        self.hosts.look_again();
        let current = self.bound();
        if !before.snapshot.asks_the_same_as(&current.snapshot) {
            self.live.judge_again(&current);
        }
        for name in closed {
            for close in self.listening.borrow_mut().remove(&name).unwrap_or_default() {
                close.close();
            }
            self.waiting.retire(|waiting| waiting.listener == name, &before);
        }
        for (name, socket) in sockets {
            // Only the kernel can refuse here, for want of memory to watch one more descriptor; the other workers'
            // sockets of the same address then take the connections.
            match self.io.listener(socket) {
                Ok(listener) => {
                    let close = listener.close_handle();
                    self.listening.borrow_mut().entry(name.clone()).or_default().push(close);
                    self.io.spawn(listener::serve(self.clone(), name, listener));
                }
                Err(error) => tracing::error!(listener = %name, %error, "cannot watch a listening socket"),
            }
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        for (_, closes) in self.listening.borrow_mut().drain() {
            closes.iter().for_each(ListenerClose::close);
        }
        self.pools.adopt([]);
        self.stream_pools.adopt([]);
        self.waiting.retire(|_| true, &self.bound());
    }
}

fn endpoints(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<EndpointState>> {
    let endpoints = snapshot.clusters.iter().flat_map(|(_, cluster)| cluster.all_endpoints());
    endpoints.map(|endpoint| &endpoint.state)
}

/// The connections of a worker that may wait without harm to be ended, so that they can be told to end.
#[derive(Debug, Default)]
pub struct Connections(RefCell<Vec<Rc<Waiting>>>);

impl Connections {
    /// Adds a connection.
    pub fn enter(&self, connection: Waiting) -> Rc<Waiting> {
        let connection = Rc::new(connection);
        let mut connections = self.0.borrow_mut();
        connection.at.set(connections.len());
        connections.push(connection.clone());
        connection
    }

    /// Forgets one that entered.
    pub fn leave(&self, connection: &Waiting) {
        let mut connections = self.0.borrow_mut();
        let at = connection.at.get();
        connections.swap_remove(at);
        if let Some(moved) = connections.get(at) {
            moved.at.set(at);
        }
    }

    /// Wakes those that wait; `last` is the snapshot in which they still have a place.
    fn retire(&self, which: impl Fn(&Waiting) -> bool, last: &Rc<Bound>) {
        for connection in self.0.borrow().iter().filter(|connection| which(connection)) {
            *connection.last.borrow_mut() = Some(last.clone());
            if connection.waits.get() {
                connection.cancel.cancel();
            }
        }
    }
}
