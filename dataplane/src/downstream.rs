//! One downstream connection: bytes in, heads out, keep-alive, end.
//!
//! Faces hostile bytes. A connection at work has everything an exchange needs; one at rest ([`idle`]) has only itself. This
//! is HTTP/1.1; a connection that turns out to speak HTTP/2 goes on in [`streams`].

pub(crate) mod idle;
pub(crate) mod streams;

use std::{io, rc::Rc, sync::Arc, time::Duration};

use policy::network_filter::{Codec, HttpConnectionManager, NetworkFilter, Underscores};
use runtime::{Buffer, Deadline, Gather, Io, timer::Alarm};
use wire::{
    head::{Header, RequestHead, RequestView, ResponseHead},
    http1::{
        encode::Edit,
        parse::{self, ParseError, Parsed},
    },
    http2::frame::PREFACE,
};

use self::idle::{Connection, Next, Rest, Waiting};
use crate::{
    exchange, filter,
    http2::Stream,
    origin::Origin,
    place::{self, Misplaced},
    respond::ExchangeError,
    telemetry::metrics::HttpStats,
    transport::Halves,
    upstream::Owner,
    worker::{Bound, Worker},
};

/// A connection manager of the current snapshot with this worker's counters.
#[derive(Clone)]
pub struct Manager {
    /// The snapshot it belongs to.
    pub bound: Rc<Bound>,
    /// Its configuration.
    pub config: Arc<HttpConnectionManager>,
    /// Its counters.
    pub stats: Arc<HttpStats>,
    /// Whoever is on the other end may not connect any more.
    pub is_denied: bool,
}

/// A connection at work, with everything that is reused from one exchange to the next on it.
pub struct Downstream<'c, I: Io> {
    /// Where its requests come from.
    pub side: Side<'c, I>,
    /// Received bytes; a request head begins at the first.
    pub buffer: Buffer,
    /// The request head.
    pub request: RequestHead,
    /// The response head.
    pub response: ResponseHead,
    /// What goes upstream.
    pub to_upstream: Gather,
    /// What goes downstream.
    pub to_downstream: Gather,
    /// Memory for header edits.
    pub edits: Vec<Edit<'static>>,
    /// The request, with its body, lies whole at the front of `buffer`, from where it can be sent again.
    pub request_is_kept: bool,
    /// How much of `buffer` belongs to the exchange that is over.
    pub done_bytes: usize,
    /// Received bytes behind the exchange, where they are not in `buffer`.
    pub rest: Buffer,
    /// A rewritten target or a redirect's location.
    pub text: Vec<u8>,
    /// Memory for what is told upstream of the hops before us.
    pub forwarded: Vec<u8>,
    /// Memory for trailers, of the request and of the response.
    pub trailers: [Vec<u8>; 2],
    /// The deadline of whatever the exchange waits for.
    pub alarm: Alarm,
    /// It ends with its next response: it has no place in the configuration any more, or has carried as many requests as
    /// it may.
    pub is_last: bool,
    /// When its request must have come whole.
    pub request_until: Deadline,
}

/// Where a request comes from and its response goes.
pub enum Side<'c, I: Io> {
    /// A connection that speaks HTTP/1.1.
    Http1(&'c mut Connection<I>),
    /// A stream of one that speaks HTTP/2.
    Http2(OnStream),
}

/// A stream and what is known of its connection.
pub struct OnStream {
    /// The stream.
    pub stream: Stream,
    /// Its connection.
    pub client: Rc<Client>,
}

/// What the exchanges of an HTTP/2 connection know of it.
pub struct Client {
    /// Where it came from.
    pub origin: Origin,
    /// Marks the upstream connections that are its own.
    pub owner: Owner,
}

impl<I: Io> Side<'_, I> {
    /// Where the connection came from.
    pub fn origin(&self) -> &Origin {
        match self {
            Side::Http1(connection) => &connection.origin,
            Side::Http2(on) => &on.client.origin,
        }
    }

    /// Marks the upstream connections that are the connection's own.
    pub fn owner(&self) -> Owner {
        match self {
            Side::Http1(connection) => connection.owner,
            Side::Http2(on) => on.client.owner,
        }
    }

    /// From then on a response ends the connection. One that speaks HTTP/2 is left in another way.
    pub fn ages_at(&self) -> Deadline {
        match self {
            Side::Http1(connection) => connection.ages_at,
            Side::Http2(_) => Deadline::NEVER,
        }
    }

    /// Whether it speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Side::Http2(_))
    }
}

/// Whether a connection carries another exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// It may.
    KeepAlive,
    /// Close it: FIN, and wait a moment for the other end to stop sending, so that it can read our last answer.
    Close,
    /// Close it with RST: what was sent is not all there is.
    Reset,
}

/// Serves the exchanges of one connection, one after the other.
pub async fn serve<I: Io>(
    worker: Rc<Worker<I>>,
    manager: Manager,
    (recv, send): Halves<I>,
    origin: Origin,
    first: Buffer,
) {
    let stats = manager.stats.clone();
    stats.counters.downstream_cx_total.inc();
    stats.counters.downstream_cx_active.inc();
    let waiting = worker.waiting.enter(Waiting::new(origin.listener.clone(), recv.cancel_handle()));
    let duration = manager.config.max_connection_duration;
    let mut connection = Connection {
        recv,
        send,
        origin,
        owner: worker.next_owner(),
        is_ended: false,
        is_finished: false,
        ages_at: duration.map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait)),
        requests_count: 0,
        drain_timeout: manager.config.drain_timeout,
        delayed_close_timeout: manager.config.delayed_close_timeout,
        thrown_away_max: u64::MAX,
    };
    let (mut manager, mut first) = (Some(manager), first);
    let after = loop {
        // Boxed, since it is much: a connection at rest keeps none of it.
        let work = Box::pin(work(&worker, &mut connection, manager.take(), first, (&waiting, &stats)));
        first = match work.await {
            End::Over(after) => break after,
            End::Http2(bytes) => {
                let known = (&*waiting, &*stats);
                // Boxed: a connection that speaks HTTP/1.1 does not pay for its state.
                Box::pin(streams::serve(&worker, &mut connection, bytes, known)).await;
                break After::Close;
            }
            End::AtRest(rest) => {
                let _at_rest = worker.admission.rest();
                match connection.rest(&worker, rest, &waiting, &stats).await {
                    Some(bytes) => bytes,
                    None => break After::Close,
                }
            }
        };
    };
    worker.waiting.leave(&waiting);
    worker.pools.close_of(connection.owner);
    if worker.io.now() >= connection.ages_at.0 {
        stats.counters.downstream_cx_max_duration_reached.inc();
    }
    match after {
        After::Reset => connection.send.reset(),
        After::Close | After::KeepAlive => connection.close(&worker).await,
    }
    stats.counters.downstream_cx_active.dec();
}

/// Why a connection's work ends.
enum End {
    /// Nothing happens on it.
    AtRest(Rest),
    /// It carries no other exchange.
    Over(After),
    /// It speaks HTTP/2; these bytes are the first that came.
    Http2(Buffer),
}

/// What comes next on a connection.
enum Head {
    /// A request.
    Request,
    /// The beginning of HTTP/2, or what must be taken for it.
    Preface,
    /// Nothing.
    None,
}

/// Serves exchanges until the connection is over or comes to rest. It begins with the bytes in `first`, if any; without a
/// manager with the one that is current.
async fn work<I: Io>(
    worker: &Rc<Worker<I>>,
    connection: &mut Connection<I>,
    mut manager: Option<Manager>,
    first: Buffer,
    (waiting, stats): (&Waiting, &HttpStats),
) -> End {
    let mut downstream = Downstream::new(worker, Side::Http1(connection), first);
    let end = downstream.exchanges(worker, &mut manager, waiting, stats).await;
    worker.buffers.put(std::mem::take(&mut downstream.buffer));
    end
}

impl<'c, I: Io> Downstream<'c, I> {
    fn new(worker: &Worker<I>, side: Side<'c, I>, buffer: Buffer) -> Downstream<'c, I> {
        Downstream {
            side,
            buffer,
            request: RequestHead::default(),
            response: ResponseHead::default(),
            to_upstream: Gather::new(),
            to_downstream: Gather::new(),
            edits: Vec::new(),
            request_is_kept: false,
            done_bytes: 0,
            rest: Buffer::default(),
            text: Vec::new(),
            forwarded: Vec::new(),
            trailers: Default::default(),
            alarm: worker.io.timers().alarm(),
            is_last: false,
            request_until: Deadline::NEVER,
        }
    }

    async fn exchanges(
        &mut self,
        worker: &Rc<Worker<I>>,
        manager: &mut Option<Manager>,
        waiting: &Waiting,
        stats: &HttpStats,
    ) -> End {
        loop {
            self.request.clear();
            if self.buffer.is_empty()
                && let Err(end) = self.wait_for_bytes(worker, manager, waiting, stats).await
            {
                return end;
            }
            // Routes are looked up in what is current when the request begins, not when the connection did.
            let Some(manager) = self.refresh(worker, manager, waiting) else {
                return End::Over(After::Close);
            };
            if manager.is_denied {
                return End::Over(After::Close);
            }
            match self.next_head(worker, manager).await {
                Ok(Head::Request) => {}
                Ok(Head::Preface) => return End::Http2(std::mem::take(&mut self.buffer)),
                Ok(Head::None) => return End::Over(After::Close),
                Err(error) => {
                    match error {
                        ExchangeError::RequestHeadTimeout => {
                            stats.counters.downstream_rq_header_timeout.inc()
                        }
                        ExchangeError::RequestHead(ParseError::HeadTooLarge | ParseError::TooManyHeaders) => {
                            stats.counters.downstream_rq_too_large.inc()
                        }
                        ExchangeError::Overloaded => stats.counters.downstream_rq_overload_close.inc(),
                        _ => stats.counters.downstream_cx_protocol_error.inc(),
                    }
                    return End::Over(exchange::refuse(worker, manager, self, error).await);
                }
            }
            let Side::Http1(connection) = &mut self.side else { return End::Over(After::Close) };
            connection.requests_count += 1;
            if manager
                .config
                .max_requests_per_connection
                .is_some_and(|max| connection.requests_count >= max.get())
            {
                self.is_last = true;
                stats.counters.downstream_cx_max_requests_reached.inc();
            }
            match exchange::run(worker, manager, self).await {
                After::KeepAlive => {}
                after => return End::Over(after),
            }
        }
    }

    /// The connection manager for the request that begins. A connection that has no place in the current snapshot gets
    /// the last one in which it had, once; one that is not secured as is asked for now gets none.
    fn refresh<'a>(
        &mut self,
        worker: &Worker<I>,
        manager: &'a mut Option<Manager>,
        waiting: &Waiting,
    ) -> Option<&'a Manager> {
        if !manager.as_ref().is_some_and(|manager| worker.is_current(&manager.bound)) {
            match Manager::find(worker.bound(), self.side.origin()) {
                Ok(current) => {
                    *manager = Some(current);
                    // Its listener is another one now, under the same name.
                    self.is_last |= waiting.last.take().is_some();
                }
                Err(Misplaced::Gone) => {
                    self.is_last = true;
                    if manager.is_none() {
                        *manager = Manager::find(waiting.last.take()?, self.side.origin()).ok();
                    }
                }
                Err(Misplaced::Insecure) => return None,
            }
        }
        manager.as_ref()
    }

    /// Receives until a request head is whole, or it is known that HTTP/2 is spoken.
    async fn next_head(&mut self, worker: &Rc<Worker<I>>, manager: &Manager) -> Result<Head, ExchangeError> {
        let head_bytes_max = manager.config.request_head_bytes_max;
        let head_limits = parse::Limits {
            head_bytes_max,
            headers_count_max: manager.config.headers_count_max,
            target_bytes_max: head_bytes_max,
        };
        let begun = worker.io.now();
        let after =
            |wait: Option<Duration>| wait.map_or(Deadline::NEVER, |wait| Deadline::after(begun, wait));
        self.request_until = after(manager.config.request_timeout);
        let until = after(manager.config.request_headers_timeout).min(self.request_until);
        let Side::Http1(connection) = &mut self.side else { return Ok(Head::None) };
        let codec = connection.origin.codec(manager.config.codec);
        let mut may_be_http2 = codec != Codec::Http1 && connection.requests_count == 0;
        loop {
            let received = self.buffer.filled();
            may_be_http2 &= received.starts_with(PREFACE) || PREFACE.starts_with(received);
            match may_be_http2 {
                true if received.len() >= PREFACE.len() => return Ok(Head::Preface),
                true => {}
                false if codec == Codec::Http2 => return Ok(Head::Preface),
                false => match parse::request(received, &head_limits, &mut self.request) {
                    Ok(Parsed::Complete) => return self.judge_names(manager).map(|()| Head::Request),
                    // Told what it would be told when its head is whole.
                    Ok(Parsed::Partial) if worker.is_short_of_memory() => {
                        return Err(ExchangeError::Overloaded);
                    }
                    Ok(Parsed::Partial) => {}
                    Err(error) => return Err(ExchangeError::RequestHead(error)),
                },
            }
            if self.buffer.spare() == 0 {
                worker.buffers.make_room(&mut self.buffer);
            }
            match connection.recv.recv(&mut self.buffer, until).await {
                Ok(0) => {
                    connection.is_ended = true;
                    return Ok(Head::None);
                }
                Ok(count) => manager.stats.counters.downstream_cx_rx_bytes_total.add(count as u64),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(ExchangeError::RequestHeadTimeout);
                }
                Err(_) => return Ok(Head::None),
            }
        }
    }

    /// Does what is configured with header names that have an underscore.
    fn judge_names(&mut self, manager: &Manager) -> Result<(), ExchangeError> {
        let bytes = self.buffer.filled();
        let has_one = |header: &Header| header.name.of(bytes).contains(&b'_');
        match manager.config.underscores {
            Underscores::Refuse if self.request.headers.iter().any(has_one) => {
                return Err(ExchangeError::HeaderUnderscore);
            }
            // None of the names that mean anything here has one, so nothing was concluded from them.
            Underscores::Drop => self.request.headers.retain(|header| !has_one(header)),
            Underscores::Allow | Underscores::Refuse => {}
        }
        Ok(())
    }

    /// Waits for the first byte of a request for the moment in which it is likely; then the connection comes to rest.
    async fn wait_for_bytes(
        &mut self,
        worker: &Rc<Worker<I>>,
        manager: &Option<Manager>,
        waiting: &Waiting,
        stats: &HttpStats,
    ) -> Result<(), End> {
        let now = worker.io.now();
        let timeout = manager.as_ref().and_then(|manager| manager.config.idle_timeout);
        let is_current = manager.as_ref().is_some_and(|manager| worker.is_current(&manager.bound));
        let mut rest = Rest::begin(now, timeout, is_current);
        let Side::Http1(connection) = &mut self.side else { return Err(End::Over(After::Close)) };
        let likely_until = Deadline::after(now, idle::LIKELY);
        match connection.bytes(worker, &mut rest, likely_until, waiting, stats).await {
            Next::Bytes(bytes) => {
                worker.buffers.put(std::mem::replace(&mut self.buffer, bytes));
                Ok(())
            }
            Next::NotYet => Err(End::AtRest(rest)),
            Next::Never => Err(End::Over(After::Close)),
        }
    }

    /// Gives up the bytes of the exchange that is over; what follows them is the next one.
    pub fn advance(&mut self, worker: &Worker<I>) {
        if self.rest.capacity() > 0 {
            let done = std::mem::replace(&mut self.buffer, std::mem::take(&mut self.rest));
            worker.buffers.put(done);
        } else {
            self.buffer.consume(self.done_bytes);
        }
        self.done_bytes = 0;
        if self.buffer.is_empty() {
            worker.buffers.put(std::mem::take(&mut self.buffer));
        }
    }

    /// The request head with its bytes.
    pub fn view(&self) -> RequestView<'_> {
        RequestView { head: &self.request, bytes: self.buffer.filled() }
    }
}

impl Manager {
    /// The connection manager for a connection in a snapshot. Where its filter chain does not speak HTTP any more, its place
    /// is gone.
    pub fn find(bound: Rc<Bound>, origin: &Origin) -> Result<Manager, Misplaced> {
        let chain = place::of(&bound, origin)?;
        match &chain.filter {
            NetworkFilter::HttpConnectionManager(config) => {
                let config = config.clone();
                let stats = bound.http.get(&config.stat_prefix).ok_or(Misplaced::Gone)?.clone();
                let is_denied = !filter::may_stay(&bound, &chain.rbac, origin);
                Ok(Manager { bound, config, stats, is_denied })
            }
            NetworkFilter::TcpProxy(_) => Err(Misplaced::Gone),
        }
    }

    /// The same; where the place is gone, that in the `last` snapshot in which there was one.
    pub fn find_with(
        bound: Rc<Bound>,
        origin: &Origin,
        last: impl FnOnce() -> Option<Rc<Bound>>,
    ) -> Result<Manager, Misplaced> {
        match Manager::find(bound, origin) {
            Err(Misplaced::Gone) => Manager::find(last().ok_or(Misplaced::Gone)?, origin),
            found => found,
        }
    }
}
