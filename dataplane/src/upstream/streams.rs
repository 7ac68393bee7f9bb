//! Connections to endpoints that speak HTTP/2: few, each shared by the exchanges of its worker.
//!
//! One connection per endpoint, and another when it has as many streams as it may. Exchanges that need one at the same time
//! wait for the one that is being made. Its driver is a task of its own.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use policy::{
    alpn::{Carries, Http},
    cluster::ClusterConfig,
    endpoint::{EndpointId, EndpointState},
    limits,
    tls::UpstreamTls,
};
use runtime::{Buffer, Deadline, Io, timer::Alarm};
use wire::head::RequestHead;

use super::{
    CheckoutError,
    dial::{self, Dial, Dialed},
    is_same,
};
use crate::{
    by_number::ByNumber,
    http2::{self, Arrived, Drive, Ended, Http2, Owner, Stream},
    telemetry::metrics::ClusterStats,
    transport::Halves,
    worker::Worker,
};

/// The HTTP/2 connections of one worker, by endpoint.
#[derive(Default)]
pub struct StreamPools {
    /// Has every endpoint of the snapshot in use, and no other.
    by_endpoint: RefCell<ByNumber<EndpointId, Shared>>,
}

/// The connections to one endpoint.
#[derive(Default)]
struct Shared {
    connections: Vec<Rc<Http2>>,
    /// What carries their bytes.
    tls: Option<Arc<UpstreamTls>>,
    /// One is being made; these wait for it.
    connecting: Option<Rc<Connecting>>,
    /// The endpoint had the choice, and chose HTTP/1.1.
    is_http1: bool,
}

/// A connection that is being made.
#[derive(Default)]
struct Connecting {
    waiting: RefCell<Vec<Waker>>,
    /// How it ended; `None` within: nobody knows, since who made it had no more time.
    ended: Cell<Option<Option<CheckoutError>>>,
}

/// What a checkout has to know.
pub struct StreamDestination<'a> {
    /// The endpoint.
    pub endpoint: &'a EndpointState,
    /// Its address.
    pub address: SocketAddr,
    /// What carries the bytes to it; `None` is plain TCP.
    pub tls: Option<&'a Arc<UpstreamTls>>,
    /// Whether the endpoint may choose to speak HTTP/1.1.
    pub may_be_http1: bool,
    /// Its cluster.
    pub config: &'a ClusterConfig,
    /// Counters of the cluster.
    pub stats: &'a Arc<ClusterStats>,
}

impl StreamPools {
    /// Forgets what an endpoint has chosen to speak: it may be another one by now.
    pub fn ask_again(&self, id: EndpointId) {
        if let Some(shared) = self.by_endpoint.borrow_mut().get_mut(&id) {
            shared.is_http1 = false;
        }
    }

    /// A stream to the endpoint. Waits until there is one, until `deadline`.
    pub async fn open<I: Io>(
        &self,
        worker: &Worker<I>,
        to: &StreamDestination<'_>,
        (alarm, deadline): (&Alarm, Deadline),
    ) -> Result<Opened<I>, CheckoutError> {
        let (id, io) = (to.endpoint.id(), &worker.io);
        let timed_out = CheckoutError::TimedOut { endpoint: to.address };
        loop {
            let found = {
                let mut pools = self.by_endpoint.borrow_mut();
                // Its endpoint may have been removed meanwhile: then its connection is for this stream alone.
                pools.get_mut(&id).and_then(|shared| shared.find(to, io.now()))
            };
            match found {
                Some(Found::Stream(stream)) => return Ok(Opened::Stream { stream, is_new: false }),
                Some(Found::Http1) => return Ok(Opened::Http1(None)),
                Some(Found::Unheard(connection)) => {
                    wait((alarm, deadline), |cx| connection.poll_heard(cx)).await;
                    // One that never says what it takes is as one that cannot be made.
                    if io.now() >= deadline.0 || !connection.is_heard() {
                        return Err(timed_out);
                    }
                }
                Some(Found::Connecting(connecting)) => {
                    let ended = wait((alarm, deadline), |cx| connecting.poll_ended(cx)).await;
                    if let Some(Some(error)) = ended {
                        return Err(error);
                    }
                    if io.now() >= deadline.0 {
                        return Err(timed_out);
                    }
                }
                Some(Found::Nothing) => return Err(CheckoutError::Shortage { endpoint: to.address }),
                None => {
                    let connecting = Rc::<Connecting>::default();
                    if let Some(shared) = self.by_endpoint.borrow_mut().get_mut(&id) {
                        shared.connecting = Some(connecting.clone());
                    }
                    // Boxed: it happens once per connection, and every exchange would carry its size.
                    let made = Box::pin(connect(worker, to, deadline)).await;
                    let had_no_time = io.now() >= deadline.0;
                    let error = made.as_ref().err().copied();
                    let is_shared = self.connected(id, &connecting, made.as_ref().ok());
                    connecting.end(error.filter(|_| !had_no_time));
                    return match made? {
                        Made::Http1(halves) => Ok(Opened::Http1(Some(halves))),
                        Made::Http2(made) => {
                            let opened = made.open(io.now());
                            if !is_shared {
                                made.retire();
                            }
                            let stream = opened.ok_or(CheckoutError::Failed { endpoint: to.address })?;
                            Ok(Opened::Stream { stream, is_new: true })
                        }
                    };
                }
            }
        }
    }

    /// A connection was made, or not; whether others share it.
    fn connected<I: Io>(&self, id: EndpointId, connecting: &Rc<Connecting>, made: Option<&Made<I>>) -> bool {
        let mut pools = self.by_endpoint.borrow_mut();
        let Some(shared) = pools.get_mut(&id) else { return false };
        // Another one may be wanted by now, of which nobody here knows.
        if !shared.connecting.as_ref().is_some_and(|known| Rc::ptr_eq(known, connecting)) {
            return false;
        }
        shared.connecting = None;
        match made {
            Some(Made::Http2(made)) => shared.connections.push(made.clone()),
            Some(Made::Http1(_)) => shared.is_http1 = true,
            None => {}
        }
        true
    }

    /// Takes on the endpoints of a snapshot; connections to others end when their streams have.
    pub fn adopt<'a>(&self, endpoints: impl IntoIterator<Item = &'a Arc<EndpointState>>) {
        let mut pools = self.by_endpoint.borrow_mut();
        let mut before = std::mem::take(&mut *pools);
        for endpoint in endpoints {
            // One address may stand in the snapshot more than once.
            if let Some(known) = before.remove(&endpoint.id()) {
                pools.insert(endpoint.id(), known);
            } else {
                pools.entry(endpoint.id()).or_default();
            }
        }
        before
            .into_values()
            .flat_map(|removed| removed.connections)
            .for_each(|connection| connection.retire());
    }
}

/// What a checkout led to.
pub enum Opened<I: Io> {
    /// A stream.
    Stream {
        /// The stream.
        stream: Stream,
        /// Its connection has carried nothing before.
        is_new: bool,
    },
    /// The endpoint speaks HTTP/1.1; with the connection on which it said so, if that was now.
    Http1(Option<Halves<I>>),
}

/// What there is for who needs a stream.
enum Found {
    /// It speaks HTTP/1.1.
    Http1,
    Stream(Stream),
    /// A connection that was made. Until it is known how many streams it takes it carries the one that it was made for: more
    /// could be refused, with the bodies that went with them.
    Unheard(Rc<Http2>),
    Connecting(Rc<Connecting>),
    /// There are as many as may be, and none takes another stream.
    Nothing,
}

impl Shared {
    fn find(&mut self, to: &StreamDestination<'_>, now: u64) -> Option<Found> {
        let tls = to.tls;
        // Those that were made under a configuration that is gone carry nothing more.
        if !is_same(self.tls.as_ref(), tls) {
            self.connections.drain(..).for_each(|connection| connection.retire());
            (self.tls, self.connecting, self.is_http1) = (tls.cloned(), None, false);
        }
        if self.is_http1 && to.may_be_http1 {
            return Some(Found::Http1);
        }
        self.connections.retain(|connection| !connection.is_over());
        let mut heard = self.connections.iter().filter(|connection| connection.is_heard());
        if let Some(stream) = heard.find_map(|connection| connection.open(now)) {
            return Some(Found::Stream(stream));
        }
        let unheard = self.connections.iter().find(|connection| !connection.is_heard());
        match (unheard, &self.connecting) {
            (Some(connection), _) => Some(Found::Unheard(connection.clone())),
            (None, Some(connecting)) => Some(Found::Connecting(connecting.clone())),
            (None, None) if self.connections.len() >= limits::HTTP2_CONNECTIONS_PER_ENDPOINT_MAX => {
                Some(Found::Nothing)
            }
            (None, None) => None,
        }
    }
}

/// Waits for something until a deadline; `None` when that came first.
async fn wait<T>(
    (alarm, deadline): (&Alarm, Deadline),
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    alarm.set(deadline);
    let waited = poll_fn(|cx| match poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => alarm.poll_rung(cx).map(|_| None),
    })
    .await;
    alarm.set(Deadline::NEVER);
    waited
}

impl Connecting {
    /// Its end, with the error that everybody gets who needs it.
    fn poll_ended(&self, cx: &Context<'_>) -> Poll<Option<CheckoutError>> {
        if let Some(error) = self.ended.get() {
            return Poll::Ready(error);
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn end(&self, error: Option<CheckoutError>) {
        self.ended.set(Some(error));
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

async fn connect<I: Io>(
    worker: &Worker<I>,
    to: &StreamDestination<'_>,
    deadline: Deadline,
) -> Result<Made<I>, CheckoutError> {
    let (io, counters) = (&worker.io, &to.stats.counters);
    let dial = Dial {
        address: to.address,
        connect_timeout: to.config.connect_timeout,
        unsent_bytes_max: to.config.unsent_bytes_max,
        tls: to.tls,
        carries: if to.may_be_http1 { Carries::Either } else { Carries::Only(Http::Http2) },
        header: b"",
        stats: to.stats,
    };
    let Dialed { halves, http } = dial::dial(worker, &dial, deadline).await?;
    // A server that has no word for it speaks what everybody does.
    if to.may_be_http1 && http != Some(Http::Http2) {
        return Ok(Made::Http1(halves));
    }
    counters.upstream_cx_http2_total.inc();
    let random = worker.rng.borrow_mut().next_u64();
    let http2 =
        Http2::new(false, http2::upstream_config(to.config, random), worker.buffers.clone(), io.now());
    if let Some(most) = to.config.max_requests_per_connection {
        http2.limit_streams(most.get());
    }
    let life = Life {
        settings_timeout: to.config.connect_timeout,
        idle_timeout: to.config.idle_timeout,
        ages_at: to.config.max_connection_duration.map_or(Deadline::NEVER, |most| ages_at(worker, most)),
        stats: to.stats.clone(),
    };
    io.spawn(drive(http2.clone(), io.clone(), halves, life));
    Ok(Made::Http2(http2))
}

/// A connection that was made, by what is spoken on it.
enum Made<I: Io> {
    Http1(Halves<I>),
    Http2(Rc<Http2>),
}

/// When a connection that may live so long has: up to a tenth earlier, so that those that were made together do not end
/// together.
fn ages_at<I: Io>(worker: &Worker<I>, most: Duration) -> Deadline {
    let tenth = u64::try_from((most / 10).as_nanos()).unwrap_or(u64::MAX);
    let earlier = worker.rng.borrow_mut().below(tenth.max(1));
    Deadline::after(worker.io.now(), most.saturating_sub(Duration::from_nanos(earlier)))
}

struct Life {
    /// How long the other end may take to begin.
    settings_timeout: Duration,
    idle_timeout: Option<Duration>,
    ages_at: Deadline,
    stats: Arc<ClusterStats>,
}

/// The task of a connection.
async fn drive<I: Io>(http2: Rc<Http2>, io: I, (mut recv, mut send): Halves<I>, life: Life) {
    let counters = &life.stats.counters;
    let drive = Drive {
        alarm: recv.cancel_handle(),
        recv: &mut recv,
        send: &mut send,
        first: Buffer::default(),
        idle_timeout: life.idle_timeout,
        settings_timeout: life.settings_timeout,
        ages_at: life.ages_at,
        send_timeout: limits::STREAM_IDLE_TIMEOUT_DEFAULT,
        received: &counters.upstream_cx_rx_bytes_total,
        sent: &counters.upstream_cx_tx_bytes_total,
    };
    match http2::drive(&http2, &io, drive, &mut NoRequests).await {
        Ended::Closed | Ended::Broken => counters.upstream_cx_destroy_remote.inc(),
        Ended::Failed(_) => {
            counters.upstream_cx_protocol_error.inc();
            counters.upstream_cx_destroy_local.inc();
        }
        Ended::Done => counters.upstream_cx_destroy_local.inc(),
    }
    counters.upstream_cx_active.dec();
}

/// A server sends no requests.
struct NoRequests;

impl Owner for NoRequests {
    fn arrived(&mut self, _: Arrived) {}

    fn spare(&mut self) -> RequestHead {
        RequestHead::default()
    }

    fn may_stay(&mut self) -> bool {
        true
    }
}
