//! One client connection that speaks HTTP/1.1: bytes in, heads out, keep-alive, end.
//!
//! Faces hostile bytes. Holds no buffer while the connection is idle for longer than a moment.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use policy::{
    filter_chain::{ConnectionFacts, TransportProtocol},
    limits,
    network_filter::{HttpConnectionManager, NetworkFilter},
};
use runtime::{Buffer, Deadline, Gather, Io, RecvHalf, SendHalf, timer::Alarm};
use wire::{
    head::{RequestHead, RequestView, ResponseHead},
    http1::{
        encode::Edit,
        parse::{self, Parsed},
    },
};

use crate::{
    exchange,
    respond::ExchangeError,
    telemetry::metrics::HttpStats,
    worker::{Bound, Worker},
};

/// What is known of a connection for its whole life.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The listener that accepted it.
    pub listener: Arc<str>,
    /// The other end.
    pub downstream: SocketAddr,
    /// Its IP address, as `x-forwarded-for` shows it.
    pub address_text: Box<str>,
    /// The address it was made to.
    pub local: SocketAddr,
    /// Server name of its ClientHello.
    pub server_name: Option<Box<str>>,
    /// A ClientHello was seen.
    pub is_tls: bool,
}

impl Origin {
    /// What a filter chain is picked by.
    pub fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            destination_port: Some(self.local.port()),
            server_name: self.server_name.as_deref(),
            transport_protocol: if self.is_tls {
                TransportProtocol::Tls
            } else {
                TransportProtocol::RawBuffer
            },
            ..ConnectionFacts::default()
        }
    }
}

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
    /// How much of `buffer` belongs to the exchange that is over.
    pub done_bytes: usize,
    /// Received bytes behind the exchange, where they are not in `buffer`.
    pub rest: Buffer,
    /// A rewritten target or a redirect's location.
    pub text: Vec<u8>,
    /// The deadline of whatever the exchange waits for.
    pub alarm: Alarm,
    /// Where it came from.
    pub origin: Origin,
    /// The downstream sent FIN.
    pub is_ended: bool,
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
/// How long a connection lingers after its last answer while the other end still sends, and how much is thrown away.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Serves the exchanges of one connection, one after the other.
pub async fn serve<I: Io>(
    worker: Rc<Worker<I>>,
    manager: Manager,
    recv: I::Recv,
    send: I::Send,
    origin: Origin,
    first: Buffer,
) {
    let counters = &manager.stats.clone().counters;
    counters.downstream_cx_total.inc();
    counters.downstream_cx_active.inc();
    let alarm = worker.io.timers().alarm();
    let mut connection = Downstream {
        recv,
        send,
        buffer: first,
        request: RequestHead::default(),
        response: ResponseHead::default(),
        to_upstream: Gather::new(),
        to_downstream: Gather::new(),
        edits: Vec::new(),
        done_bytes: 0,
        rest: Buffer::default(),
        text: Vec::new(),
        alarm,
        origin,
        is_ended: false,
    };
    let after = connection.exchanges(&worker, manager).await;
    match after {
        After::Reset => connection.send.reset(),
        After::Close | After::KeepAlive => connection.close(&worker).await,
    }
    worker.buffers.put(std::mem::take(&mut connection.buffer));
    counters.downstream_cx_active.dec();
}

impl<I: Io> Downstream<I> {
    async fn exchanges(&mut self, worker: &Rc<Worker<I>>, mut manager: Manager) -> After {
        loop {
            match self.next_request(worker, &mut manager).await {
                Ok(true) => {}
                Ok(false) => return After::Close,
                Err(error) => {
                    let counters = &manager.stats.counters;
                    match error {
                        ExchangeError::RequestHeadTimeout => counters.downstream_rq_header_timeout.inc(),
                        _ => counters.downstream_cx_protocol_error.inc(),
                    }
                    return exchange::refuse(worker, &manager, self, error).await;
                }
            }
            match exchange::run(worker, &manager, self).await {
                After::KeepAlive if !worker.is_draining() => {}
                after => return after,
            }
        }
    }

    /// Receives until a request head is whole; false when the connection ends before one begins.
    async fn next_request(
        &mut self,
        worker: &Rc<Worker<I>>,
        manager: &mut Manager,
    ) -> Result<bool, ExchangeError> {
        self.request.clear();
        if self.buffer.is_empty() && !self.wait_for_bytes(worker, manager).await {
            return Ok(false);
        }
        // Routes are looked up in what is current when the request begins, not when the connection did.
        if !manager.refresh(worker, &self.origin) {
            return Ok(false);
        }
        let head_bytes_max = manager.config.request_head_bytes_max;
        let head_limits = parse::Limits {
            head_bytes_max,
            headers_count_max: limits::HEADERS_COUNT_MAX,
            target_bytes_max: head_bytes_max,
        };
        let timeout = manager.config.request_headers_timeout;
        let until = timeout.map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait));
        loop {
            match parse::request(self.buffer.filled(), &head_limits, &mut self.request) {
                Ok(Parsed::Complete) => return Ok(true),
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

    /// Waits for the first byte of a request; false when none will come.
    async fn wait_for_bytes(&mut self, worker: &Rc<Worker<I>>, manager: &Manager) -> bool {
        let begun = worker.io.now();
        let idle_until =
            manager.config.idle_timeout.map_or(Deadline::NEVER, |wait| Deadline::after(begun, wait));
        let mut until = Deadline::after(begun, BUFFER_KEPT).min(idle_until);
        loop {
            let mut buffer = std::mem::take(&mut self.buffer);
            if buffer.capacity() == 0 {
                buffer = worker.buffers.take();
            }
            let (result, buffer) = self.recv.recv(buffer, until).await;
            match result {
                Ok(count) if count > 0 => {
                    self.buffer = buffer;
                    manager.stats.counters.downstream_cx_rx_bytes_total.add(count as u64);
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !worker.is_draining() => {
                    worker.buffers.put(buffer);
                    if until == idle_until || self.recv.readable(idle_until).await.is_err() {
                        manager.stats.counters.downstream_cx_idle_timeout.inc();
                        return false;
                    }
                    until = idle_until;
                }
                result => {
                    worker.buffers.put(buffer);
                    // A draining worker's idle connection is ended by us; any other end is the other side's.
                    self.is_ended = !result.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
                    return false;
                }
            }
        }
    }

    /// FIN, then throws away for a while what still comes: closing a socket with unread bytes would send RST, and the
    /// other end could lose our last answer (RFC 9112 §9.6).
    async fn close(&mut self, worker: &Rc<Worker<I>>) {
        if self.send.shutdown().is_err() || self.is_ended {
            return;
        }
        let until = Deadline::after(worker.io.now(), LINGER);
        let mut thrown_away = 0;
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() == 0 {
            buffer = worker.buffers.take();
        }
        while thrown_away < LINGER_BYTES_MAX {
            buffer.clear();
            let (result, returned) = self.recv.recv(buffer, until).await;
            buffer = returned;
            match result {
                Ok(count) if count > 0 => thrown_away += count,
                _ => break,
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

impl Manager {
    /// The connection manager for a connection in the current snapshot; `None` when its listener is gone or its filter
    /// chain does not speak HTTP any more.
    pub fn find<I: Io>(worker: &Worker<I>, origin: &Origin) -> Option<Manager> {
        let bound = worker.bound();
        let listener = bound.snapshot.listeners.get(&origin.listener)?;
        match &listener.filter_chains.pick(&origin.facts())?.filter {
            NetworkFilter::HttpConnectionManager(config) => {
                let config = config.clone();
                let stats = bound.http.get(&config.stat_prefix)?.clone();
                Some(Manager { bound: bound.clone(), config, stats })
            }
            NetworkFilter::TcpProxy(_) => None,
        }
    }

    /// Moves on to the current snapshot; false when the connection has no place in it.
    fn refresh<I: Io>(&mut self, worker: &Worker<I>, origin: &Origin) -> bool {
        if worker.is_current(&self.bound) {
            return true;
        }
        match Manager::find(worker, origin) {
            Some(current) => {
                *self = current;
                true
            }
            None => false,
        }
    }
}
