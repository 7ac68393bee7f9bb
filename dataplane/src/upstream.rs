//! Connections to endpoints: the pool of one worker, connecting, giving back.
//!
//! Each upstream connection has one task that owns its receive half for life and hands what arrives to whoever holds
//! the connection through a slot. So a FIN on an idle connection is noticed at once and takes it out of the pool before
//! it can be picked; and a response is received by an operation that was already waiting. An idle connection holds a
//! buffer only for a moment after its last use, in which the next use is likely; later it waits for readiness alone.
//! Last in, first out: the most recently used connection is the least likely to be closing.
//!
//! Where a connection begins with whom it is for (the PROXY protocol), it belongs to one downstream connection, carries its
//! requests only, and ends with it: nobody else could ever use it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    num::NonZeroU32,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use hashbrown::HashMap;
use policy::{endpoint::EndpointId, limits};
use runtime::{Buffer, BufferPool, Deadline, Io, RecvHalf, timer::Alarm};

use crate::telemetry::metrics::ClusterStats;

/// How long an idle connection keeps a buffer ready: most keep-alive traffic uses a connection again within this.
const BUFFER_KEPT: Duration = Duration::from_secs(1);

/// The idle connections of one worker, by endpoint.
pub struct Pools<I: Io> {
    /// Has every endpoint of the snapshot in use, and no other.
    idle: RefCell<HashMap<EndpointId, VecDeque<Connection<I>>>>,
    /// The idle connections of downstream connections that have some of their own.
    owned: RefCell<HashMap<Owner, Vec<Connection<I>>>>,
    /// How many of them are anybody's.
    count: Cell<usize>,
    buffers: BufferPool,
}

/// A downstream connection of a worker, as whose an upstream connection may be marked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner(pub u64);

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckoutError {
    /// Refused, unreachable, or no local resources.
    #[error("cannot connect to {endpoint}")]
    Failed {
        /// The address.
        endpoint: SocketAddr,
    },
    /// Not made in time.
    #[error("connect to {endpoint} timed out")]
    TimedOut {
        /// The address.
        endpoint: SocketAddr,
    },
}

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
    send: I::Send,
    shared: Rc<Shared>,
    id: EndpointId,
    /// Whether it has carried an exchange before.
    pub reused: bool,
    stats: Arc<ClusterStats>,
}

/// Between the holder of a connection and the task that receives on it.
pub(crate) struct Shared {
    slot: RefCell<Slot>,
    /// In the pool: bytes or an end now mean that the connection is over.
    idle: Cell<bool>,
    /// When it was put there last.
    idle_since: Cell<u64>,
    /// The holder is gone; the task ends.
    abandoned: Cell<bool>,
    cancel: Alarm,
    /// Whose it is, if not anybody's.
    owner: Option<Owner>,
    /// From then on it carries no other request.
    ages_at: Deadline,
    requests_left: Cell<u32>,
    /// How long it keeps a buffer when it is idle: [`BUFFER_KEPT`], or its idle timeout when that is shorter.
    buffer_kept: Duration,
}

#[derive(Default)]
struct Slot {
    received: Option<Buffer>,
    end: Option<End>,
    holder: Option<Waker>,
    task: Option<Waker>,
}

/// How a connection's receiving ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// FIN: all that was sent has been received.
    Closed,
    /// RST or another error.
    Reset,
}

/// What [`Received::next`] waited for in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nothing {
    /// The connection ended.
    Ended(End),
    /// The caller's alarm rang.
    TimedOut,
}

impl<I: Io> Pools<I> {
    /// No connections yet; receive buffers come from `buffers`.
    pub fn new(buffers: BufferPool) -> Rc<Pools<I>> {
        Rc::new(Pools { idle: RefCell::default(), owned: RefCell::default(), count: Cell::new(0), buffers })
    }

    /// An idle connection to the endpoint, the one used last: of `owner`, or anybody's.
    pub fn reuse(&self, id: EndpointId, owner: Option<Owner>) -> Option<Connection<I>> {
        let connection = match owner {
            None => {
                let connection = self.idle.borrow_mut().get_mut(&id)?.pop_back()?;
                self.count.set(self.count.get() - 1);
                connection
            }
            Some(owner) => {
                let mut owned = self.owned.borrow_mut();
                let connections = owned.get_mut(&owner)?;
                let at = connections.iter().rposition(|connection| connection.id == id)?;
                connections.remove(at)
            }
        };
        connection.shared.idle.set(false);
        connection.shared.cancel.set(Deadline::NEVER);
        Some(connection)
    }

    /// A new connection, made before `deadline`.
    pub async fn connect(
        self: &Rc<Self>,
        io: &I,
        to: Destination,
        life: Life,
        deadline: Deadline,
    ) -> Result<Connection<I>, CheckoutError> {
        let stats = &to.stats;
        let begun = io.now();
        stats.counters.upstream_cx_total.inc();
        let until = Deadline::after(begun, to.connect_timeout).min(deadline);
        let (recv, send) = match io.connect(to.address, until).await {
            Ok(halves) => halves,
            Err(error) => {
                stats.counters.upstream_cx_connect_fail.inc();
                if error.kind() == io::ErrorKind::TimedOut {
                    stats.counters.upstream_cx_connect_timeout.inc();
                    return Err(CheckoutError::TimedOut { endpoint: to.address });
                }
                return Err(CheckoutError::Failed { endpoint: to.address });
            }
        };
        stats.cx_connect.record(Duration::from_nanos(io.now().saturating_sub(begun)));
        stats.counters.upstream_cx_active.inc();
        let shared = Rc::new(Shared {
            slot: RefCell::default(),
            idle: Cell::new(false),
            idle_since: Cell::new(begun),
            abandoned: Cell::new(false),
            cancel: recv.cancel_handle(),
            owner: life.owner,
            ages_at: life.duration.map_or(Deadline::NEVER, |wait| Deadline::after(io.now(), wait)),
            requests_left: Cell::new(life.requests_max.map_or(u32::MAX, NonZeroU32::get)),
            buffer_kept: to.idle_timeout.map_or(BUFFER_KEPT, |wait| wait.min(BUFFER_KEPT)),
        });
        let connection =
            Connection { send, shared: shared.clone(), id: to.id, reused: false, stats: to.stats.clone() };
        io.spawn(receive::<I>(recv, io.clone(), shared, Rc::downgrade(self), to));
        Ok(connection)
    }

    /// Takes a connection back at `now` for the next exchange. It must be between two messages.
    pub fn give_back(&self, mut connection: Connection<I>, now: u64) {
        let is_full =
            connection.shared.owner.is_none() && self.count.get() >= limits::POOL_IDLE_PER_WORKER_MAX;
        if connection.shared.slot.borrow().is_touched() || is_full {
            return;
        }
        let (left, counters) = (connection.shared.requests_left.get() - 1, &connection.stats.counters);
        connection.shared.requests_left.set(left);
        if left == 0 {
            return counters.upstream_cx_max_requests.inc();
        }
        if now >= connection.shared.ages_at.0 {
            return counters.upstream_cx_max_duration_reached.inc();
        }
        connection.reused = true;
        connection.shared.idle.set(true);
        connection.shared.idle_since.set(now);
        // The receive that waits already began during the exchange, without an end.
        let kept_until = Deadline::after(now, connection.shared.buffer_kept).min(connection.shared.ages_at);
        connection.shared.cancel.set(kept_until);
        let mut idle = self.idle.borrow_mut();
        // Its endpoint may have been removed meanwhile.
        let Some(connections) = idle.get_mut(&connection.id) else { return };
        if let Some(owner) = connection.shared.owner {
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
        self.count.set(self.count.get() + 1 - usize::from(oldest.is_some()));
    }

    /// Takes on the endpoints of a snapshot; idle connections to others are closed.
    pub fn adopt(&self, endpoints: impl IntoIterator<Item = EndpointId>) {
        let mut idle = self.idle.borrow_mut();
        let mut before = std::mem::take(&mut *idle);
        idle.extend(endpoints.into_iter().map(|id| (id, before.remove(&id).unwrap_or_default())));
        self.count.set(idle.values().map(VecDeque::len).sum());
        for connections in self.owned.borrow_mut().values_mut() {
            connections.retain(|connection| idle.contains_key(&connection.id));
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

    fn remove(&self, id: EndpointId, shared: &Rc<Shared>) {
        if let Some(owner) = shared.owner {
            if let Some(connections) = self.owned.borrow_mut().get_mut(&owner) {
                connections.retain(|known| !Rc::ptr_eq(&known.shared, shared));
            }
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let removed = idle.get_mut(&id).and_then(|connections| {
            let at = connections.iter().position(|known| Rc::ptr_eq(&known.shared, shared))?;
            connections.remove(at)
        });
        if removed.is_some() {
            self.count.set(self.count.get() - 1);
        }
        drop(idle);
        drop(removed);
    }
}

/// The receiving side of a connection while it is held.
#[derive(Clone, Copy)]
pub struct Received<'a>(&'a Shared);

impl Received<'_> {
    /// The next bytes, or why there are none. `alarm` is the caller's; it decides how long to wait.
    pub async fn next(&self, alarm: &Alarm) -> Result<Buffer, Nothing> {
        poll_fn(|cx| {
            let mut slot = self.0.slot.borrow_mut();
            if let Some(buffer) = slot.received.take() {
                if let Some(task) = &slot.task {
                    task.wake_by_ref();
                }
                return Poll::Ready(Ok(buffer));
            }
            if let Some(end) = slot.end {
                return Poll::Ready(Err(Nothing::Ended(end)));
            }
            if alarm.poll_rung(cx).is_ready() {
                return Poll::Ready(Err(Nothing::TimedOut));
            }
            set_waker(&mut slot.holder, cx.waker());
            Poll::Pending
        })
        .await
    }
}

impl<I: Io> Connection<I> {
    /// Both directions, to be used side by side, and whose counters they move.
    pub fn split(&mut self) -> (&mut I::Send, Received<'_>, &ClusterStats) {
        (&mut self.send, Received(&self.shared), &self.stats)
    }

    /// Whether upstream closed or sent something since the last [`Received::next`].
    pub fn is_touched(&self) -> bool {
        self.shared.slot.borrow().is_touched()
    }

    /// Whether upstream's FIN was seen.
    pub fn is_ended(&self) -> bool {
        self.shared.slot.borrow().end.is_some()
    }

    /// Whose counters this connection moves.
    pub fn stats(&self) -> &ClusterStats {
        &self.stats
    }
}

impl<I: Io> Drop for Connection<I> {
    fn drop(&mut self) {
        let shared = &self.shared;
        self.stats.counters.upstream_cx_active.dec();
        match shared.slot.borrow().end {
            Some(_) => self.stats.counters.upstream_cx_destroy_remote.inc(),
            None => self.stats.counters.upstream_cx_destroy_local.inc(),
        }
        shared.abandoned.set(true);
        shared.cancel.cancel();
        if let Some(task) = shared.slot.borrow_mut().task.take() {
            task.wake();
        }
    }
}

impl Slot {
    fn hand_over(&mut self, buffer: Buffer) {
        self.received = Some(buffer);
        if let Some(holder) = self.holder.take() {
            holder.wake();
        }
    }

    fn is_touched(&self) -> bool {
        self.received.is_some() || self.end.is_some()
    }
}

impl Shared {
    /// Hands over what was received and waits until it is taken, which bounds what lies between the two to one buffer.
    async fn hand_over(&self, buffer: Buffer) {
        self.slot.borrow_mut().hand_over(buffer);
        poll_fn(|cx| {
            let mut slot = self.slot.borrow_mut();
            if slot.received.is_none() || self.abandoned.get() {
                return Poll::Ready(());
            }
            set_waker(&mut slot.task, cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn end(&self, end: End) {
        let mut slot = self.slot.borrow_mut();
        slot.end = Some(end);
        if let Some(holder) = slot.holder.take() {
            holder.wake();
        }
    }
}

fn set_waker(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

/// The task of one connection: receives until the end, on behalf of whoever holds it.
pub(crate) async fn receive<I: Io>(
    mut recv: I::Recv,
    io: I,
    shared: Rc<Shared>,
    pools: Weak<Pools<I>>,
    to: Destination,
) {
    let Some(buffers) = pools.upgrade().map(|pools| pools.buffers.clone()) else { return };
    while !shared.abandoned.get() {
        // Readiness may be told early: then an idle connection gives its buffer up soon again.
        let kept_until = match shared.idle.get() {
            true => Deadline::after(io.now(), shared.buffer_kept).min(shared.ages_at),
            false => Deadline::NEVER,
        };
        let (result, buffer) = recv.recv(buffers.take(), kept_until).await;
        if shared.abandoned.get() {
            buffers.put(buffer);
            break;
        }
        match result {
            Ok(count) if count > 0 && !shared.idle.get() => {
                to.stats.counters.upstream_cx_rx_bytes_total.add(count as u64);
                shared.hand_over(buffer).await;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                buffers.put(buffer);
                let since = shared.idle_since.get();
                let until = to.idle_timeout.map_or(Deadline::NEVER, |wait| Deadline::after(since, wait));
                let until = until.min(shared.ages_at);
                if io.now() < until.0 {
                    // Bytes, an end or the deadline: the next receive finds out which.
                    let _ = recv.readable(until).await;
                }
                if io.now() >= until.0 && shared.idle.get() {
                    return drop_idle(&pools, to.id, &shared);
                }
            }
            // FIN, RST, or bytes that nobody asked for.
            other => {
                buffers.put(buffer);
                shared.end(if other.is_ok() { End::Closed } else { End::Reset });
                return drop_idle(&pools, to.id, &shared);
            }
        }
    }
    // What was handed over and never taken goes back, too.
    if let Some(buffer) = shared.slot.borrow_mut().received.take() {
        buffers.put(buffer);
    }
}

fn drop_idle<I: Io>(pools: &Weak<Pools<I>>, id: EndpointId, shared: &Rc<Shared>) {
    if shared.idle.get()
        && let Some(pools) = pools.upgrade()
    {
        pools.remove(id, shared);
    }
}
