//! Accepting: from a listening socket to a connection with its filter chain.
//!
//! Faces hostile bytes: the ClientHello of a connection whose listener looks at it.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use policy::{network_filter::NetworkFilter, snapshot::ListenerFilters};
use runtime::{Accepted, Buffer, Deadline, Io, Listener, RecvHalf};
use wire::tls_sniff::{self, Sniff};

use crate::{
    downstream::{self, Manager, Origin, Waiting},
    tcp,
    telemetry::metrics::ListenerCounters,
    worker::Worker,
};

/// How long accepting pauses after an error, such as no descriptor being free: long enough not to spin, short enough to
/// go on soon after.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the listener is closed. Every connection becomes a task.
pub async fn serve<I: Io>(worker: Rc<Worker<I>>, name: Arc<str>, mut listener: I::Listener) {
    let local = listener.local_addr();
    loop {
        match listener.accept().await {
            Ok(accepted) => worker.io.spawn(connection(worker.clone(), name.clone(), local, accepted)),
            Err(error) if error.raw_os_error() == Some(EINVAL) => return,
            // The other end was gone before we got to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // A shortage, or an error of the connection that accept(2) tells instead of it: none ends the accepting.
            Err(_) => {
                count(&worker, &name, |counters| counters.downstream_cx_accept_fail.inc());
                worker.io.sleep_until(Deadline::after(worker.io.now(), ACCEPT_PAUSE)).await;
            }
        }
    }
}

/// Linux's number of what accept(2) says of a socket that does not listen any more: its close handle was used.
const EINVAL: i32 = 22;

fn count<I: Io>(worker: &Worker<I>, name: &str, count: impl Fn(&ListenerCounters)) {
    let bound = worker.bound();
    if let Some(counters) = bound.snapshot.listeners.position(name).and_then(|at| bound.listeners.get(at)) {
        count(counters);
    }
}

pub(crate) async fn connection<I: Io>(
    worker: Rc<Worker<I>>,
    name: Arc<str>,
    listening_on: std::net::SocketAddr,
    accepted: Accepted<I::Recv, I::Send>,
) {
    let Accepted { mut recv, send, downstream } = accepted;
    // The snapshot may be another one by the end of the connection, but its listener counters are carried over.
    let bound = worker.bound();
    let Some(at) = bound.snapshot.listeners.position(&name) else { return };
    let (Some(listener), Some(counters)) = (bound.snapshot.listeners.at(at), bound.listeners.get(at)) else {
        return;
    };
    let counters = counters.clone();
    counters.downstream_cx_total.inc();
    counters.downstream_cx_active.inc();
    worker.stats.counters.connections.inc();
    let local = match listening_on.ip().is_unspecified() {
        true => recv.local_addr().unwrap_or(listening_on),
        false => listening_on,
    };
    let remote_text = downstream.ip().to_string().into();
    let mut origin =
        Origin { listener: name, remote: downstream, remote_text, local, server_name: None, is_tls: false };
    let mut last = None;
    let sniffed = match listener.listener_filters.tls_inspector {
        true => {
            let waiting = worker.waiting.enter(Waiting::new(origin.listener.clone(), recv.cancel_handle()));
            waiting.waits.set(true);
            let sniffed = sniff(&worker, &mut recv, &listener.listener_filters, &waiting).await;
            worker.waiting.leave(&waiting);
            last = waiting.last.take();
            sniffed
        }
        false => Ok(Sniffed::default()),
    };
    match sniffed {
        Ok(sniffed) => {
            origin.server_name = sniffed.server_name;
            origin.is_tls = sniffed.is_tls;
            let filter = listener.filter_chains.pick(&origin.facts()).map(|chain| chain.filter.clone());
            drop(bound);
            match filter {
                Some(NetworkFilter::HttpConnectionManager(_)) => {
                    // What came while its listener went is answered, and the connection ends with that.
                    let manager = Manager::find(worker.bound(), &origin);
                    if let Some(manager) = manager.or_else(|| Manager::find(last?, &origin)) {
                        // Boxed, as the other: neither kind of connection pays for the state of both.
                        Box::pin(downstream::serve(
                            worker.clone(),
                            manager,
                            recv,
                            send,
                            origin,
                            sniffed.bytes,
                        ))
                        .await;
                    }
                }
                Some(NetworkFilter::TcpProxy(proxy)) => {
                    Box::pin(tcp::serve(&worker, &proxy, recv, send, sniffed.bytes)).await;
                }
                None => counters.no_filter_chain_match.inc(),
            }
        }
        Err(Unknown::NotTold) => counters.downstream_pre_cx_timeout.inc(),
        Err(Unknown::Retired) => {}
    }
    counters.downstream_cx_active.dec();
    worker.stats.counters.connections.dec();
}

/// What the listener filters found, and the bytes they read on the way.
#[derive(Default)]
struct Sniffed {
    server_name: Option<Box<str>>,
    is_tls: bool,
    bytes: Buffer,
}

/// Why it is not known what a connection is.
enum Unknown {
    /// The bytes that would tell did not come in time, or are no ClientHello.
    NotTold,
    /// It had no place any more: its listener is gone, or the worker drains.
    Retired,
}

/// Reads until the ClientHello is whole, or is none.
async fn sniff<I: Io>(
    worker: &Worker<I>,
    recv: &mut I::Recv,
    filters: &ListenerFilters,
    waiting: &Waiting,
) -> Result<Sniffed, Unknown> {
    let mut until = filters.timeout.map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait));
    let mut is_retiring = false;
    let mut bytes = worker.buffers.take();
    loop {
        if !is_retiring && (worker.is_draining() || waiting.last.borrow().is_some()) {
            is_retiring = true;
            until = until.min(downstream::retire_at(worker));
        }
        let (result, buffer) = recv.recv(bytes, until).await;
        bytes = buffer;
        let ended = match result.map_err(|error| error.kind()) {
            Ok(count) => count == 0,
            // Somebody wants it to end: the top of the loop looks.
            Err(io::ErrorKind::Interrupted) => continue,
            Err(io::ErrorKind::TimedOut) if is_retiring => {
                worker.buffers.put(bytes);
                return Err(Unknown::Retired);
            }
            Err(io::ErrorKind::TimedOut) if filters.continue_on_timeout => {
                return Ok(Sniffed { bytes, ..Sniffed::default() });
            }
            Err(_) => {
                worker.buffers.put(bytes);
                return Err(Unknown::NotTold);
            }
        };
        match tls_sniff::client_hello(bytes.filled()) {
            Sniff::Hello(hello) => {
                let server_name = hello.server_name.as_ref().map(|name| Box::from(&**name));
                return Ok(Sniffed { server_name, is_tls: true, bytes });
            }
            Sniff::NotTls => return Ok(Sniffed { bytes, ..Sniffed::default() }),
            // More bytes than a hello may have are told as malformed.
            Sniff::Partial if !ended => {}
            Sniff::Partial | Sniff::Malformed => {
                worker.buffers.put(bytes);
                return Err(Unknown::NotTold);
            }
        }
    }
}
