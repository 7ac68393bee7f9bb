//! Plain TCP: bytes both ways at once, each half-close passed on.
//!
//! Whichever side ends with an error takes the other with it as a reset, so that a cut stream is never taken for a whole
//! one.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use policy::{
    alpn::Carries,
    endpoint::{EndpointId, EndpointState, WorkerId},
    limits,
    network_filter::TcpProxy,
    snapshot::Address,
};
use runtime::{Buffer, Deadline, Gather, Io};
use wire::proxy_protocol;

use crate::{
    live::Live,
    origin::Origin,
    telemetry::metrics::{ClusterStats, Counter},
    transport::{self, Halves},
    upstream::dial::{self, Dial, Dialed},
    worker::Worker,
};

/// Connects to an endpoint, unless that was done and some bytes came from there, and relays until both directions have ended.
/// `first` was received already.
pub(crate) async fn serve<I: Io>(
    worker: &Rc<Worker<I>>,
    proxy: &TcpProxy,
    origin: &Origin,
    (recv, send): Halves<I>,
    (first, connected): (Buffer, Option<(Upstream<I>, Buffer)>),
) {
    let (connected, down_first) = match connected {
        Some((upstream, bytes)) => (Some(upstream), bytes),
        None => (None, Buffer::default()),
    };
    let Some(counters) = worker.bound().tcp.get(&proxy.stat_prefix).cloned() else {
        return refuse(worker, send, [first, down_first]);
    };
    counters.downstream_cx_total.inc();
    worker.stats.counters.requests.inc();
    if worker.is_short_of_memory() {
        counters.downstream_cx_overload_close.inc();
        return refuse(worker, send, [first, down_first]);
    }
    let entered = worker.live.enter(origin);
    let live = &*entered.live;
    let connected = match connected {
        Some(upstream) => Some(upstream),
        None => connect(worker, proxy, origin).await,
    };
    if live.is_over.get() {
        return refuse(worker, send, [first, down_first]);
    }
    let Some(Upstream { recv: up_recv, send: up_send, counted }) = connected else {
        counters.downstream_cx_no_route.inc();
        return refuse(worker, send, [first, down_first]);
    };
    let stats = &counted.stats;
    let moved = Cell::new(worker.io.now());
    let mut up = Pump {
        worker,
        recv,
        send: up_send,
        buffer: first,
        moved: &moved,
        is_over: &live.is_over,
        idle: proxy.idle_timeout,
        received: [&counters.downstream_cx_rx_bytes_total, &stats.counters.upstream_cx_tx_bytes_total],
    };
    let mut down = Pump {
        worker,
        recv: up_recv,
        send,
        buffer: down_first,
        moved: &moved,
        is_over: &live.is_over,
        idle: proxy.idle_timeout,
        received: [&stats.counters.upstream_cx_rx_bytes_total, &counters.downstream_cx_tx_bytes_total],
    };
    *live.cancels.borrow_mut() = vec![
        up.recv.cancel_handle(),
        up.send.cancel_handle(),
        down.recv.cancel_handle(),
        down.send.cancel_handle(),
    ];
    if both(&mut up, &mut down, live).await == Ended::Idle {
        counters.idle_timeout.inc();
    }
}

/// Ends a connection that is not served, of which these bytes came.
fn refuse<I: Io>(worker: &Worker<I>, mut send: transport::Send<I>, bytes: [Buffer; 2]) {
    bytes.into_iter().for_each(|bytes| worker.buffers.put(bytes));
    send.reset();
}

/// A connection to an endpoint.
pub(crate) struct Upstream<I: Io> {
    /// Its receiving half.
    pub(crate) recv: transport::Recv<I>,
    send: transport::Send<I>,
    counted: Counted,
}

/// Counts a connection at its cluster and its endpoint for as long as it lives.
struct Counted {
    stats: Arc<ClusterStats>,
    state: Arc<EndpointState>,
    worker: WorkerId,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stats.counters.upstream_cx_active.dec();
        self.state.finish(self.worker);
    }
}

/// A connection to an endpoint; to another one when the first cannot be reached, since nothing was sent yet.
pub(crate) async fn connect<I: Io>(
    worker: &Rc<Worker<I>>,
    proxy: &TcpProxy,
    origin: &Origin,
) -> Option<Upstream<I>> {
    let bound = worker.bound();
    let random = worker.rng.borrow_mut().next_u64();
    let (cluster, bound_cluster) = bound.cluster(proxy.clusters.pick(random))?;
    let stats = &bound_cluster.stats;
    let mut tried: Vec<EndpointId> = Vec::new();
    while tried.len() < limits::CONNECT_ATTEMPTS_MAX {
        let picked = {
            let mut rng = worker.rng.borrow_mut();
            cluster.pick_endpoint(None, &mut bound_cluster.pick.borrow_mut(), &mut rng, &tried)
        };
        let Some(endpoint) = picked else {
            stats.counters.upstream_cx_none_healthy.inc();
            return None;
        };
        let Address::Socket(address) = endpoint.spec.address else { return None };
        let mut header = Vec::new();
        if let Some(version) = cluster.config.proxy_protocol {
            // At once, since upstream may be the one that speaks first.
            proxy_protocol::write(version, &origin.addresses(), &mut header);
        }
        let dial = Dial {
            address,
            connect_timeout: cluster.config.connect_timeout,
            unsent_bytes_max: cluster.config.unsent_bytes_max,
            tls: endpoint.tls.as_ref(),
            carries: Carries::Bytes,
            header: &header,
            stats,
        };
        match dial::dial(worker, &dial, Deadline::NEVER).await {
            Ok(Dialed { halves: (recv, send), .. }) => {
                endpoint.state.begin(worker.id);
                let (stats, state) = (stats.clone(), endpoint.state.clone());
                return Some(Upstream { recv, send, counted: Counted { stats, state, worker: worker.id } });
            }
            Err(_) => tried.push(endpoint.state.id()),
        }
    }
    None
}

/// How long a direction in which nothing moves keeps its buffer.
const BUFFER_KEPT: Duration = Duration::from_secs(1);

/// One direction.
struct Pump<'a, I: Io> {
    worker: &'a Worker<I>,
    recv: transport::Recv<I>,
    send: transport::Send<I>,
    /// Received and not sent.
    buffer: Buffer,
    /// When a byte moved last, in either direction.
    moved: &'a Cell<u64>,
    /// The other direction broke, or rules end the connection: this one begins no other wait.
    is_over: &'a Cell<bool>,
    idle: Option<Duration>,
    received: [&'a Counter; 2],
}

/// How a direction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    /// FIN was received and passed on.
    Fin,
    /// Nothing moved in either direction.
    Idle,
    /// An error, or the other direction's.
    Broken,
}

impl<I: Io> Pump<'_, I> {
    async fn run(&mut self) -> Ended {
        let mut gather = Gather::new();
        loop {
            if !self.buffer.is_empty() {
                gather.keep(0..self.buffer.len());
                gather.put_buffer(std::mem::take(&mut self.buffer));
                let until = self.idle_until().min(self.worker.send_until());
                let result = self.send.send_all(&mut gather, until).await;
                self.buffer = gather.take_buffer();
                self.buffer.clear();
                match result {
                    Ok(()) => self.moved.set(self.worker.io.now()),
                    Err(error) => {
                        self.give_back();
                        let is_idle = error.kind() == io::ErrorKind::TimedOut;
                        return if is_idle { Ended::Idle } else { Ended::Broken };
                    }
                }
            }
            if self.is_over.get() {
                self.give_back();
                return Ended::Broken;
            }
            if self.buffer.capacity() == 0 {
                self.buffer = self.worker.buffers.take();
            }
            let kept_until = Deadline::after(self.worker.io.now(), BUFFER_KEPT);
            let until = kept_until.min(self.idle_until());
            let error = match self.recv.recv(&mut self.buffer, until).await {
                Ok(0) => {
                    self.give_back();
                    return if self.send.finish(self.idle_until()).await.is_ok() {
                        Ended::Fin
                    } else {
                        Ended::Broken
                    };
                }
                Ok(count) => {
                    self.moved.set(self.worker.io.now());
                    self.received.iter().for_each(|counter| counter.add(count as u64));
                    continue;
                }
                Err(error) => error,
            };
            self.give_back();
            if error.kind() != io::ErrorKind::TimedOut {
                return Ended::Broken;
            }
            // The other direction may have moved meanwhile; then this one waits on, without a buffer.
            while self.worker.io.now() < self.idle_until().0 {
                match self.recv.readable(self.idle_until()).await {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                    Err(_) => return Ended::Broken,
                }
            }
            if self.worker.io.now() >= self.idle_until().0 {
                return Ended::Idle;
            }
        }
    }

    fn idle_until(&self) -> Deadline {
        self.idle.map_or(Deadline::NEVER, |wait| Deadline::after(self.moved.get(), wait))
    }

    fn give_back(&mut self) {
        self.worker.buffers.put(std::mem::take(&mut self.buffer));
    }
}

/// Runs both directions to their ends; the first that ends otherwise than by FIN breaks both connections.
async fn both<I: Io>(up: &mut Pump<'_, I>, down: &mut Pump<'_, I>, live: &Live) -> Ended {
    let (mut up_end, mut down_end) = (None, None);
    {
        let (mut up, mut down) = (pin!(up.run()), pin!(down.run()));
        poll_fn(|cx| {
            loop {
                let before = (up_end, down_end);
                if up_end.is_none()
                    && let Poll::Ready(end) = up.as_mut().poll(cx)
                {
                    up_end = Some(end);
                }
                if down_end.is_none()
                    && let Poll::Ready(end) = down.as_mut().poll(cx)
                {
                    down_end = Some(end);
                }
                match (up_end, down_end) {
                    (Some(_), Some(_)) => return Poll::Ready(()),
                    // A cancel ends the other one's wait at its next poll.
                    (Some(end), None) | (None, Some(end))
                        if end != Ended::Fin && before != (up_end, down_end) =>
                    {
                        live.end();
                    }
                    _ => return Poll::Pending,
                }
            }
        })
        .await;
    }
    let ends = [up_end, down_end];
    if ends.iter().all(|end| *end == Some(Ended::Fin)) {
        return Ended::Fin;
    }
    up.send.reset();
    down.send.reset();
    if ends.contains(&Some(Ended::Idle)) { Ended::Idle } else { Ended::Broken }
}
