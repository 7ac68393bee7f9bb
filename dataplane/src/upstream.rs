//! Connections to endpoints: the pool of one worker, connecting, giving back.
//!
//! While a connection is idle a task of its own waits on it, so a FIN is noticed at once and takes it out of the pool before
//! it can be picked. Whoever holds a connection receives from it without a detour. An idle connection holds no buffer. Last
//! in, first out: the most recently used connection is the least likely to be closing.
//!
//! Where a connection begins with whom it is for (the PROXY protocol), it belongs to one downstream connection, carries its
//! requests only, and ends with it: nobody else could ever use it. One that is anybody's may be [lent](lending) to another
//! worker.

pub(crate) mod checkout;
pub(crate) mod dial;
pub mod lending;
mod received;
pub mod streams;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    net::SocketAddr,
    num::NonZeroU32,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use policy::{
    alpn::Carries,
    endpoint::{EndpointId, EndpointState, WorkerId},
    lending::can_lend,
    limits,
    tls::UpstreamTls,
};
use runtime::{BufferPool, Deadline, Io, timer::Alarm};

pub use self::dial::CheckoutError;
use self::dial::{Dial, Dialed};
pub use self::received::{End, Nothing, Received};
use crate::{
    by_number::ByNumber, http2::Stream, telemetry::metrics::ClusterStats, transport, worker::Worker,
};

/// The idle connections of one worker, by endpoint.
pub struct Pools<I: Io> {
    worker: WorkerId,
    /// Has every endpoint of the snapshot in use, and no other.
    idle: RefCell<ByNumber<EndpointId, Idle<I>>>,
    /// The idle connections of downstream connections that have some of their own.
    owned: RefCell<ByNumber<Owner, Vec<Connection<I>>>>,
    /// How many of them are anybody's.
    count: Cell<usize>,
    buffers: BufferPool,
}

/// The idle connections to one endpoint that are anybody's, the one used last behind the others.
struct Idle<I: Io> {
    connections: VecDeque<Connection<I>>,
    /// Where the other workers see how many there are.
    endpoint: Arc<EndpointState>,
}

/// A downstream connection of a worker, as whose an upstream connection may be marked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner(pub u64);

/// Where a connection leads and what is counted on it.
#[derive(Clone)]
pub struct Destination {
    /// The endpoint.
    pub id: EndpointId,
    /// Its address.
    pub address: SocketAddr,
    /// How long to try.
    pub connect_timeout: Duration,
    /// How long a connection may wait in the pool; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// What the kernel may hold of a connection that it has not sent yet.
    pub unsent_bytes_max: u32,
    /// What carries the bytes; `None` is plain TCP.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Counters of the cluster.
    pub stats: Arc<ClusterStats>,
}

/// Whose a connection is and how long it is used.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Whose it is; `None` is anybody's.
    pub owner: Option<Owner>,
    /// How long it may live; `None` is for ever.
    pub duration: Option<Duration>,
    /// Requests that it carries at most.
    pub requests_max: Option<NonZeroU32>,
}

/// An open connection to an endpoint, held by one exchange or by the pool. Dropping it closes it.
pub struct Connection<I: Io> {
    recv: transport::Recv<I>,
    send: transport::Send<I>,
    /// Whether it has carried an exchange before.
    pub reused: bool,
    /// Bytes came that belong to no response.
    has_surplus: bool,
    open: Open,
}

/// What an exchange sends its request on.
pub enum Upstream<I: Io> {
    /// A connection that speaks HTTP/1.1.
    Http1(Connection<I>),
    /// A stream of one that speaks HTTP/2.
    Http2 {
        /// The stream.
        stream: Stream,
        /// Its connection has carried nothing before.
        is_new: bool,
    },
}

impl<I: Io> Upstream<I> {
    /// Whether it has carried an exchange before.
    pub fn is_reused(&self) -> bool {
        match self {
            Upstream::Http1(connection) => connection.reused,
            Upstream::Http2 { is_new, .. } => !is_new,
        }
    }
}

/// A connection that is counted as open. Dropping it tells how it ended, and whoever watches it that it did.
struct Open {
    /// How its receiving ended, once that was seen.
    end: Option<End>,
    /// Another worker has it now.
    is_lent: bool,
    stats: Arc<ClusterStats>,
    watch: Rc<Watch>,
}

/// Between a connection and the task that watches it while it is idle.
pub(crate) struct Watch {
    id: EndpointId,
    /// What carries its bytes: it is for nobody who wants another.
    tls: Option<Arc<UpstreamTls>>,
    /// Whose it is, if not anybody's.
    owner: Option<Owner>,
    idle_timeout: Option<Duration>,
    /// From then on it carries no other request.
    ages_at: Deadline,
    requests_left: Cell<u32>,
    /// In the pool: bytes or an end now mean that the connection is over.
    is_idle: Cell<bool>,
    /// The connection was closed.
    is_gone: Cell<bool>,
    /// Ends its time in the pool.
    alarm: Alarm,
    /// How to wake the task; `None` before the first time in the pool.
    task: RefCell<Option<Waker>>,
}

impl<I: Io> Pools<I> {
    /// No connections yet; receive buffers come from `buffers`.
    pub fn new(worker: WorkerId, buffers: BufferPool) -> Rc<Pools<I>> {
        let (idle, owned, count) = (RefCell::default(), RefCell::default(), Cell::new(0));
        Rc::new(Pools { worker, idle, owned, count, buffers })
    }

    /// An idle connection to the endpoint, the one used last: of `owner`, or anybody's. One whose bytes something else than
    /// `tls` carries is closed: it was made under a configuration that is gone.
    pub fn reuse(
        &self,
        id: EndpointId,
        owner: Option<Owner>,
        tls: Option<&Arc<UpstreamTls>>,
    ) -> Option<Connection<I>> {
        loop {
            let connection = self.take(id, owner)?;
            if is_same(connection.open.watch.tls.as_ref(), tls) {
                return Some(connection);
            }
        }
    }

    fn take(&self, id: EndpointId, owner: Option<Owner>) -> Option<Connection<I>> {
        let connection = match owner {
            None => {
                let mut idle = self.idle.borrow_mut();
                let idle = idle.get_mut(&id)?;
                let connection = idle.connections.pop_back()?;
                self.one_less(idle);
                connection
            }
            Some(owner) => {
                let mut owned = self.owned.borrow_mut();
                let connections = owned.get_mut(&owner)?;
                let at = connections.iter().rposition(|connection| connection.open.watch.id == id)?;
                connections.remove(at)
            }
        };
        connection.open.watch.leave_pool();
        Some(connection)
    }

    /// The idle connection to the endpoint that waited longest, if this worker can spare one.
    fn spare(&self, id: EndpointId) -> Option<Connection<I>> {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_mut(&id)?;
        if !can_lend(idle.connections.len()) {
            return None;
        }
        let connection = idle.connections.pop_front()?;
        self.one_less(idle);
        connection.open.watch.leave_pool();
        Some(connection)
    }

    /// A connection of `idle` was taken out.
    fn one_less(&self, idle: &Idle<I>) {
        self.count.set(self.count.get() - 1);
        idle.endpoint.set_idle(self.worker, idle.connections.len());
    }

    /// A new connection, made before `deadline`. `header` is sent before all else, except where it goes with the request.
    pub async fn connect(
        worker: &Worker<I>,
        to: Destination,
        (life, header): (Life, &[u8]),
        carries: Carries,
        deadline: Deadline,
    ) -> Result<Connection<I>, CheckoutError> {
        let dial = Dial {
            address: to.address,
            connect_timeout: to.connect_timeout,
            unsent_bytes_max: to.unsent_bytes_max,
            tls: to.tls.as_ref(),
            carries,
            header,
            stats: &to.stats,
        };
        let Dialed { halves, .. } = dial::dial(worker, &dial, deadline).await?;
        Ok(Connection::new(halves, to, life, worker.io.now()))
    }

    /// Takes a connection back for the next exchange. It must be between two messages; one that was
    /// touched is closed.
    pub fn give_back(self: &Rc<Self>, io: &I, mut connection: Connection<I>) {
        let Open { watch, stats, .. } = &connection.open;
        let left = watch.requests_left.get() - 1;
        watch.requests_left.set(left);
        if left == 0 {
            return stats.counters.upstream_cx_max_requests.inc();
        }
        connection.reused = true;
        self.put(io, connection);
    }

    /// Takes in a connection that may carry another exchange.
    #[inline]
    fn put(self: &Rc<Self>, io: &I, mut connection: Connection<I>) {
        let watch = connection.open.watch.clone();
        if watch.owner.is_none() && self.count.get() >= limits::POOL_IDLE_PER_WORKER_MAX {
            return;
        }
        if io.now() >= watch.ages_at.0 {
            return connection.open.stats.counters.upstream_cx_max_duration_reached.inc();
        }
        let task = watch.task.borrow();
        match &*task {
            None => {
                drop(task);
                io.spawn(watch_idle(watch.clone(), Rc::downgrade(self)));
            }
            Some(task) => {
                let is_touched =
                    connection.poll_touched(&self.buffers, &mut Context::from_waker(task)).is_ready();
                if is_touched {
                    return;
                }
            }
        }
        watch.is_idle.set(true);
        let idle_until = watch.idle_timeout.map_or(Deadline::NEVER, |wait| Deadline::after(io.now(), wait));
        watch.alarm.set(idle_until.min(watch.ages_at));
        let mut idle = self.idle.borrow_mut();
        // Its endpoint may have been removed meanwhile.
        let Some(Idle { connections, endpoint }) = idle.get_mut(&watch.id) else { return };
        if let Some(owner) = watch.owner {
            let mut owned = self.owned.borrow_mut();
            let connections = owned.entry(owner).or_default();
            if connections.len() >= limits::POOL_IDLE_PER_DOWNSTREAM_MAX {
                connections.remove(0);
            }
            return connections.push(connection);
        }
        // The one that waited longest goes when there are too many.
        let oldest = match connections.len() >= limits::POOL_IDLE_PER_ENDPOINT_MAX {
            true => connections.pop_front(),
            false => None,
        };
        connections.push_back(connection);
        endpoint.set_idle(self.worker, connections.len());
        self.count.set(self.count.get() + 1 - usize::from(oldest.is_some()));
    }

    /// Takes on the endpoints of a snapshot; idle connections to others are closed.
    pub fn adopt<'a>(&self, endpoints: impl IntoIterator<Item = &'a Arc<EndpointState>>) {
        let mut idle = self.idle.borrow_mut();
        let mut before = std::mem::take(&mut *idle);
        for endpoint in endpoints {
            let known = before.remove(&endpoint.id());
            let none = || Idle { connections: VecDeque::new(), endpoint: endpoint.clone() };
            // One address may stand in the snapshot more than once.
            idle.entry(endpoint.id()).or_insert_with(|| known.unwrap_or_else(none));
        }
        before.into_values().for_each(|removed| removed.endpoint.set_idle(self.worker, 0));
        self.count.set(idle.values().map(|idle| idle.connections.len()).sum());
        for connections in self.owned.borrow_mut().values_mut() {
            connections.retain(|connection| idle.contains_key(&connection.open.watch.id));
        }
    }

    /// Closes the idle connections of a downstream connection that ends.
    pub fn close_of(&self, owner: Owner) {
        let mut owned = self.owned.borrow_mut();
        if !owned.is_empty() {
            owned.remove(&owner);
        }
    }

    /// How many idle connections there are.
    pub fn idle_count(&self) -> usize {
        self.count.get() + self.owned.borrow().values().map(Vec::len).sum::<usize>()
    }

    /// Whether an idle connection has to go, which it then does; else the task of `cx` is woken when that has to be asked
    /// again.
    fn poll_over(&self, watch: &Rc<Watch>, cx: &mut Context<'_>) -> Poll<()> {
        let is_watched = |known: &Connection<I>| Rc::ptr_eq(&known.open.watch, watch);
        let mut is_over = |known: &mut Connection<I>| {
            watch.alarm.poll_rung(cx).is_ready() || known.poll_touched(&self.buffers, cx).is_ready()
        };
        if let Some(owner) = watch.owner {
            let mut owned = self.owned.borrow_mut();
            let Some(connections) = owned.get_mut(&owner) else { return Poll::Ready(()) };
            let Some(at) = connections.iter().position(is_watched) else { return Poll::Ready(()) };
            if !is_over(&mut connections[at]) {
                return Poll::Pending;
            }
            let removed = connections.remove(at);
            drop(owned);
            drop(removed);
            return Poll::Ready(());
        }
        let mut idle = self.idle.borrow_mut();
        let Some(of) = idle.get_mut(&watch.id) else { return Poll::Ready(()) };
        let Some(at) = of.connections.iter().position(is_watched) else { return Poll::Ready(()) };
        if !is_over(&mut of.connections[at]) {
            return Poll::Pending;
        }
        let removed = of.connections.remove(at);
        self.one_less(of);
        drop(idle);
        drop(removed);
        Poll::Ready(())
    }
}

/// Whether two connections are carried by the same.
fn is_same(one: Option<&Arc<UpstreamTls>>, other: Option<&Arc<UpstreamTls>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// Waits on one connection whenever it is idle, until it is closed.
pub(crate) async fn watch_idle<I: Io>(watch: Rc<Watch>, pools: Weak<Pools<I>>) {
    poll_fn(|cx| {
        if watch.is_gone.get() {
            return Poll::Ready(());
        }
        if watch.task.borrow().is_none() {
            *watch.task.borrow_mut() = Some(cx.waker().clone());
            // Waits for its ring from now on, even if it is in use already.
            let _ = watch.alarm.poll_rung(cx);
        }
        match pools.upgrade() {
            Some(pools) if watch.is_idle.get() => pools.poll_over(&watch, cx),
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        }
    })
    .await
}

impl<I: Io> Connection<I> {
    /// A connection that was made, at `now`.
    pub fn new((recv, send): transport::Halves<I>, to: Destination, life: Life, now: u64) -> Connection<I> {
        let watch = Rc::new(Watch {
            id: to.id,
            tls: to.tls,
            owner: life.owner,
            idle_timeout: to.idle_timeout,
            ages_at: life.duration.map_or(Deadline::NEVER, |wait| Deadline::after(now, wait)),
            requests_left: Cell::new(life.requests_max.map_or(u32::MAX, NonZeroU32::get)),
            is_idle: Cell::new(false),
            is_gone: Cell::new(false),
            alarm: recv.cancel_handle(),
            task: RefCell::default(),
        });
        let open = Open { end: None, is_lent: false, stats: to.stats, watch };
        Connection { recv, send, reused: false, has_surplus: false, open }
    }

    /// Both directions, to be used side by side, and whose counters they move.
    pub fn split(&mut self) -> (&mut transport::Send<I>, Received<'_, I>, &ClusterStats) {
        let Connection { recv, send, open: Open { end, stats, .. }, .. } = self;
        (send, Received { recv, end, count: &stats.counters.upstream_cx_rx_bytes_total }, stats)
    }

    /// Whether upstream closed or sent something since the last [`Received::next`].
    pub fn is_touched(&mut self, buffers: &BufferPool) -> bool {
        self.poll_touched(buffers, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn poll_touched(&mut self, buffers: &BufferPool, cx: &mut Context<'_>) -> Poll<()> {
        while self.open.end.is_none() && !self.has_surplus {
            if self.recv.poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            let mut nobody_asked = buffers.take();
            match self.recv.try_recv(&mut nobody_asked) {
                Some(Ok(0)) => self.open.end = Some(End::Closed),
                Some(Ok(_)) => self.has_surplus = true,
                Some(Err(_)) => self.open.end = Some(End::Reset),
                None => {}
            }
            buffers.put(nobody_asked);
        }
        Poll::Ready(())
    }

    /// Whether its bytes are carried by this.
    pub fn is_carried_by(&self, tls: Option<&Arc<UpstreamTls>>) -> bool {
        is_same(self.open.watch.tls.as_ref(), tls)
    }

    /// How its receiving ended, if that was seen.
    pub fn end(&self) -> Option<End> {
        self.open.end
    }

    /// Makes its close a RST.
    pub fn reset(&mut self) {
        self.send.reset();
    }

    /// Whose counters this connection moves.
    pub fn stats(&self) -> &ClusterStats {
        &self.open.stats
    }
}

impl Watch {
    fn leave_pool(&self) {
        self.is_idle.set(false);
        self.alarm.set(Deadline::NEVER);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let counters = &self.stats.counters;
        counters.upstream_cx_active.dec();
        match self.end {
            _ if self.is_lent => {}
            Some(_) => counters.upstream_cx_destroy_remote.inc(),
            None => counters.upstream_cx_destroy_local.inc(),
        }
        self.watch.is_gone.set(true);
        if let Some(task) = self.watch.task.take() {
            task.wake();
        }
    }
}
