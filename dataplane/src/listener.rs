//! Accepting: from a listening socket to a connection with its filter chain.
//!
//! What is read before the filter chain is picked, if anything, is in [`listener_filters`].

use std::{io, rc::Rc, sync::Arc, time::Duration};

use policy::network_filter::NetworkFilter;
use runtime::{Accepted, Deadline, Io, Listener, RecvHalf};

use crate::{
    downstream::{self, Manager, Origin, Waiting},
    listener_filters::{self, Found, Unknown},
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
    let mut origin = Origin::new(name, downstream, local);
    let mut last = None;
    let found = match listener.listener_filters.is_any() {
        true => {
            let waiting = worker.waiting.enter(Waiting::new(origin.listener.clone(), recv.cancel_handle()));
            waiting.waits.set(true);
            let filters = &listener.listener_filters;
            // Boxed: a listener without filters does not pay for their state.
            let found = Box::pin(listener_filters::run(&worker, &mut recv, filters, &waiting)).await;
            worker.waiting.leave(&waiting);
            last = waiting.last.take();
            found
        }
        false => Ok(Found::default()),
    };
    match found {
        Ok(found) => {
            origin.server_name = found.server_name;
            origin.is_tls = found.is_tls;
            if let Some(addresses) = found.addresses {
                origin.set_addresses(addresses);
            }
            let filter = listener.filter_chains.pick(&origin.facts()).map(|chain| chain.filter.clone());
            drop(bound);
            match filter {
                Some(NetworkFilter::HttpConnectionManager(_)) => {
                    // What came while its listener went is answered, and the connection ends with that.
                    let manager = Manager::find(worker.bound(), &origin);
                    if let Some(manager) = manager.or_else(|| Manager::find(last?, &origin)) {
                        // Boxed, as the other: neither kind of connection pays for the state of both.
                        Box::pin(downstream::serve(worker.clone(), manager, recv, send, origin, found.bytes))
                            .await;
                    }
                }
                Some(NetworkFilter::TcpProxy(proxy)) => {
                    Box::pin(tcp::serve(&worker, &proxy, &origin, recv, send, found.bytes)).await;
                }
                None => counters.no_filter_chain_match.inc(),
            }
        }
        Err(Unknown::NotTold) => counters.downstream_pre_cx_timeout.inc(),
        Err(Unknown::ProxyProtocol) => counters.downstream_cx_proxy_proto_error.inc(),
        Err(Unknown::Retired) => {}
    }
    counters.downstream_cx_active.dec();
    worker.stats.counters.connections.dec();
}
