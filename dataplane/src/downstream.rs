//! One client connection that speaks HTTP/1.1: bytes in, heads out, keep-alive, end.
//!
//! Faces hostile bytes. Holds no buffer while the connection is idle for longer than a moment.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use policy::network_filter::{HttpConnectionManager, NetworkFilter, Underscores};
use runtime::{Buffer, Deadline, Gather, Io, RecvHalf, SendHalf, timer::Alarm};
use wire::{
    head::{Header, RequestHead, RequestView, ResponseHead},
    http1::{
        encode::Edit,
        parse::{self, ParseError, Parsed},
    },
};

use crate::{
    exchange,
    origin::Origin,
    respond::ExchangeError,
    telemetry::metrics::HttpStats,
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
}

/// A connection with everything that is reused from one exchange to the next on it.
pub struct Downstream<I: Io> {
    /// The receiving half.
    pub recv: I::Recv,
    /// The sending half.
    pub send: I::Send,
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
    /// The deadline of whatever the exchange waits for.
    pub alarm: Alarm,
    /// Where it came from.
    pub origin: Origin,
    /// Marks the upstream connections that are its own.
    pub owner: Owner,
    /// The downstream sent FIN.
    pub is_ended: bool,
    /// It ends with its next response: it has no place in the configuration any more, or has carried as many requests as
    /// it may.
    pub is_last: bool,
    /// From then on it ends with its next response, too: it has lived as long as it may.
    pub ages_at: Deadline,
    /// When its request must have come whole.
    pub request_until: Deadline,
    requests_count: u32,
    /// See [`HttpConnectionManager::drain_timeout`].
    drain_timeout: Duration,
    /// See [`HttpConnectionManager::delayed_close_timeout`].
    delayed_close_timeout: Duration,
}

/// What the worker knows of a connection, to end it while it waits for a request, or for the bytes that tell what it is.
#[derive(Debug)]
pub struct Waiting {
    /// The listener that accepted it.
    pub listener: Arc<str>,
    /// Ends its receive.
    pub cancel: Alarm,
    /// It waits for a request.
    pub waits: Cell<bool>,
    /// The last snapshot in which it had a place, for a request that is on its way already.
    pub last: RefCell<Option<Rc<Bound>>>,
    /// Where it stands among the worker's connections.
    pub at: Cell<usize>,
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

/// How long an idle connection keeps its buffer.
const BUFFER_KEPT: Duration = Duration::from_secs(1);

/// Serves the exchanges of one connection, one after the other.
pub async fn serve<I: Io>(
    worker: Rc<Worker<I>>,
    manager: Manager,
    recv: I::Recv,
    send: I::Send,
    origin: Origin,
    first: Buffer,
) {
    let stats = manager.stats.clone();
    stats.counters.downstream_cx_total.inc();
    stats.counters.downstream_cx_active.inc();
    let waiting = worker.waiting.enter(Waiting::new(origin.listener.clone(), recv.cancel_handle()));
    let alarm = worker.io.timers().alarm();
    let duration = manager.config.max_connection_duration;
    let mut connection = Downstream {
        recv,
        send,
        buffer: first,
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
        alarm,
        origin,
        owner: worker.next_owner(),
        is_ended: false,
        is_last: false,
        ages_at: duration.map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait)),
        request_until: Deadline::NEVER,
        requests_count: 0,
        drain_timeout: manager.config.drain_timeout,
        delayed_close_timeout: manager.config.delayed_close_timeout,
    };
    let after = connection.exchanges(&worker, manager, &waiting, &stats).await;
    worker.waiting.leave(&waiting);
    worker.pools.close_of(connection.owner);
    if worker.io.now() >= connection.ages_at.0 {
        stats.counters.downstream_cx_max_duration_reached.inc();
    }
    match after {
        After::Reset => connection.send.reset(),
        After::Close | After::KeepAlive => connection.close(&worker).await,
    }
    worker.buffers.put(std::mem::take(&mut connection.buffer));
    stats.counters.downstream_cx_active.dec();
}

impl<I: Io> Downstream<I> {
    async fn exchanges(
        &mut self,
        worker: &Rc<Worker<I>>,
        manager: Manager,
        waiting: &Waiting,
        stats: &HttpStats,
    ) -> After {
        let mut manager = Some(manager);
        loop {
            self.request.clear();
            if self.buffer.is_empty() && !self.wait_for_bytes(worker, &mut manager, waiting, stats).await {
                return After::Close;
            }
            // Routes are looked up in what is current when the request begins, not when the connection did.
            let Some(manager) = self.refresh(worker, &mut manager, waiting) else { return After::Close };
            match self.next_head(worker, manager).await {
                Ok(true) => {}
                Ok(false) => return After::Close,
                Err(error) => {
                    match error {
                        ExchangeError::RequestHeadTimeout => {
                            stats.counters.downstream_rq_header_timeout.inc()
                        }
                        ExchangeError::RequestHead(ParseError::HeadTooLarge | ParseError::TooManyHeaders) => {
                            stats.counters.downstream_rq_too_large.inc()
                        }
                        _ => stats.counters.downstream_cx_protocol_error.inc(),
                    }
                    return exchange::refuse(worker, manager, self, error).await;
                }
            }
            self.requests_count += 1;
            if manager.config.max_requests_per_connection.is_some_and(|max| self.requests_count >= max.get())
            {
                self.is_last = true;
                stats.counters.downstream_cx_max_requests_reached.inc();
            }
            match exchange::run(worker, manager, self).await {
                After::KeepAlive => {}
                after => return after,
            }
        }
    }

    /// The connection manager for the request that begins. A connection that has no place in the current snapshot gets
    /// the last one in which it had, once.
    fn refresh<'a>(
        &mut self,
        worker: &Worker<I>,
        manager: &'a mut Option<Manager>,
        waiting: &Waiting,
    ) -> Option<&'a Manager> {
        if !manager.as_ref().is_some_and(|manager| worker.is_current(&manager.bound)) {
            match Manager::find(worker.bound(), &self.origin) {
                Some(current) => *manager = Some(current),
                None => {
                    self.is_last = true;
                    if manager.is_none() {
                        *manager = Manager::find(waiting.last.take()?, &self.origin);
                    }
                }
            }
        }
        manager.as_ref()
    }

    /// Receives until a request head is whole; false when the connection ends before.
    async fn next_head(&mut self, worker: &Rc<Worker<I>>, manager: &Manager) -> Result<bool, ExchangeError> {
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
        loop {
            match parse::request(self.buffer.filled(), &head_limits, &mut self.request) {
                Ok(Parsed::Complete) => return self.judge_names(manager).map(|()| true),
                Ok(Parsed::Partial) => {}
                Err(error) => return Err(ExchangeError::RequestHead(error)),
            }
            if self.buffer.spare() == 0 {
                self.buffer.compact();
            }
            let (result, buffer) = self.recv.recv(std::mem::take(&mut self.buffer), until).await;
            self.buffer = buffer;
            match result {
                Ok(0) => {
                    self.is_ended = true;
                    return Ok(false);
                }
                Ok(count) => manager.stats.counters.downstream_cx_rx_bytes_total.add(count as u64),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(ExchangeError::RequestHeadTimeout);
                }
                Err(_) => return Ok(false),
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

    /// Waits for the first byte of a request; false when none will come. After a moment it gives up its buffer and its
    /// hold on the snapshot, so that an idle connection keeps neither alive.
    async fn wait_for_bytes(
        &mut self,
        worker: &Rc<Worker<I>>,
        manager: &mut Option<Manager>,
        waiting: &Waiting,
        stats: &HttpStats,
    ) -> bool {
        let begun = worker.io.now();
        let timeout = manager.as_ref().and_then(|manager| manager.config.idle_timeout);
        let mut idle_until = timeout.map_or(Deadline::NEVER, |wait| Deadline::after(begun, wait));
        let mut is_retiring = false;
        let mut kept_until = Deadline::after(begun, BUFFER_KEPT);
        waiting.waits.set(true);
        let is_there = loop {
            if !is_retiring && self.is_retiring(worker, manager, waiting) {
                is_retiring = true;
                idle_until = idle_until.min(retire_at(worker, self.drain_timeout));
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            if buffer.capacity() == 0 {
                buffer = worker.buffers.take();
            }
            let look_at = if is_retiring { idle_until } else { idle_until.min(self.ages_at) };
            let (result, buffer) = self.recv.recv(buffer, kept_until.min(look_at)).await;
            let error = match result {
                Ok(count) if count > 0 => {
                    self.buffer = buffer;
                    stats.counters.downstream_cx_rx_bytes_total.add(count as u64);
                    break true;
                }
                Ok(_) => None,
                Err(error) => Some(error.kind()),
            };
            worker.buffers.put(buffer);
            match error {
                // Somebody wants it to end: the top of the loop looks.
                Some(io::ErrorKind::Interrupted) => continue,
                Some(io::ErrorKind::TimedOut) if worker.io.now() < idle_until.0 => {}
                Some(io::ErrorKind::TimedOut) => {
                    if !is_retiring {
                        stats.counters.downstream_cx_idle_timeout.inc();
                    }
                    break false;
                }
                _ => {
                    self.is_ended = true;
                    break false;
                }
            }
            if !is_retiring {
                *manager = None;
            }
            // Asked before the wait, since a cancel in between would be forgotten by it.
            if is_retiring || !self.is_retiring(worker, manager, waiting) {
                // Bytes, an end or a deadline: the next receive finds out which.
                let _ = self.recv.readable(look_at).await;
            }
            // Readiness may be told early: then the buffer is given up soon again.
            kept_until = Deadline::after(worker.io.now(), BUFFER_KEPT);
        };
        waiting.waits.set(false);
        is_there
    }

    /// Whether the connection has no place any more.
    fn is_retiring(&self, worker: &Worker<I>, manager: &Option<Manager>, waiting: &Waiting) -> bool {
        let is_current = manager.as_ref().is_some_and(|manager| worker.is_current(&manager.bound));
        worker.is_draining()
            || waiting.last.borrow().is_some()
            || worker.io.now() >= self.ages_at.0
            || !is_current && worker.bound().snapshot.listeners.position(&self.origin.listener).is_none()
    }

    /// FIN, then throws away for a while what still comes: closing a socket with unread bytes would send RST, and the
    /// other end could lose our last answer (RFC 9112 §9.6).
    async fn close(&mut self, worker: &Rc<Worker<I>>) {
        if self.send.shutdown().is_err() || self.is_ended {
            return;
        }
        let until = Deadline::after(worker.io.now(), self.delayed_close_timeout);
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() == 0 {
            buffer = worker.buffers.take();
        }
        // The receive's own deadline ends it only when nothing comes.
        while worker.io.now() < until.0 {
            buffer.clear();
            let (result, returned) = self.recv.recv(buffer, until).await;
            buffer = returned;
            if !result.is_ok_and(|count| count > 0) {
                break;
            }
        }
        self.buffer = buffer;
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

impl Waiting {
    /// A connection of `listener` that does not wait yet; `cancel` ends its receive.
    pub fn new(listener: Arc<str>, cancel: Alarm) -> Waiting {
        Waiting { listener, cancel, waits: Cell::new(false), last: RefCell::default(), at: Cell::new(0) }
    }
}

impl Manager {
    /// The connection manager for a connection in a snapshot; `None` when its listener is gone or its filter chain does
    /// not speak HTTP any more.
    pub fn find(bound: Rc<Bound>, origin: &Origin) -> Option<Manager> {
        let listener = bound.snapshot.listeners.get(&origin.listener)?;
        match &listener.filter_chains.pick(&origin.facts())?.filter {
            NetworkFilter::HttpConnectionManager(config) => {
                let config = config.clone();
                let stats = bound.http.get(&config.stat_prefix)?.clone();
                Some(Manager { bound, config, stats })
            }
            NetworkFilter::TcpProxy(_) => None,
        }
    }
}

/// When a connection that waits and shall end does. A request that comes in this time is answered, with a close announced;
/// so a connection in use never ends in the face of a request. The second half of it is drawn, so that not all end at once.
pub(crate) fn retire_at<I: Io>(worker: &Worker<I>, drain_timeout: Duration) -> Deadline {
    let half = drain_timeout / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    let drawn = worker.rng.borrow_mut().below(nanos.max(1));
    Deadline::after(worker.io.now(), half + Duration::from_nanos(drawn))
}
