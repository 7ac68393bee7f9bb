//! Accepting: from a listening socket to a connection with its filter chain.
//!
//! What is read before the filter chain is picked, if anything, is in [`listener_filters`].

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use policy::{
    limits,
    network_filter::{ConnectionLimit, NetworkFilter},
};
use runtime::{Accepted, Buffer, Deadline, Io, Listener, SendHalf};

use crate::{
    admission::Pass,
    colleagues::HandedOver,
    downstream::{self, Manager, idle::Waiting},
    filter::{self, Denied},
    listener_filters::{self, Found, Unknown},
    origin::{Origin, TlsOrigin},
    place::{self, Misplaced},
    server_first::{self, First},
    tcp,
    telemetry::metrics::{ListenerCounters, ListenerStats},
    tls::{self, Secured, ServerTls},
    transport::{self, Halves},
    worker::{Bound, Worker},
};

/// How long accepting pauses after an error, such as no descriptor being free: long enough not to spin, short enough to
/// go on soon after.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pause between two looks for room. Short, since of thousands in the kernel's queue most may have gone: each makes room for
/// the next as soon as it was looked at.
const ROOM_LOOK: Duration = Duration::from_millis(2);

/// A connection with its place among those of the process.
type Admitted<I> = (Accepted<<I as Io>::Recv, <I as Io>::Send>, Pass);

/// Accepts until the listener is closed. Every connection becomes a task.
pub async fn serve<I: Io>(worker: Rc<Worker<I>>, name: Arc<str>, mut listener: I::Listener) {
    let local = listener.local_addr();
    loop {
        if !worker.admission.has_room() {
            count(&worker, &name, |counters| counters.downstream_cx_accept_paused.inc());
            // The kernel queues who comes meanwhile.
            while !worker.admission.has_room() && !worker.is_draining() {
                worker.io.sleep_until(Deadline::after(worker.io.now(), ROOM_LOOK)).await;
            }
        }
        match listener.accept().await {
            Ok(accepted) => match worker.admission.enter() {
                Some(pass) => {
                    if let Some((own, pass)) = hand_over(&worker, &name, local, (accepted, pass)).await {
                        begin(&worker, name.clone(), local, (own, pass));
                    }
                }
                None => count(&worker, &name, |counters| counters.downstream_global_cx_overflow.inc()),
            },
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

/// Counts a connection at once, so that the next one accepted sees it, and serves it.
fn begin<I: Io>(
    worker: &Rc<Worker<I>>,
    name: Arc<str>,
    listening_on: SocketAddr,
    (accepted, pass): Admitted<I>,
) {
    worker.stats.counters.connections.inc();
    let served = worker.clone();
    worker.io.spawn(async move {
        connection(served.clone(), name, listening_on, accepted).await;
        served.stats.counters.connections.dec();
        drop(pass);
    });
}

/// Gives a connection to another worker, where one has clearly less to do; else gives it back.
async fn hand_over<I: Io>(
    worker: &Worker<I>,
    name: &Arc<str>,
    listening_on: SocketAddr,
    (accepted, pass): Admitted<I>,
) -> Option<Admitted<I>> {
    let now = worker.io.now();
    let Some(position) = worker.colleagues.receiver(now) else { return Some((accepted, pass)) };
    let Accepted { recv, send, downstream } = accepted;
    match worker.io.detach(recv, send).await {
        Ok(stream) => {
            let connection = HandedOver { listener: name.clone(), listening_on, stream, downstream, pass };
            worker.colleagues.give(position, connection, now);
            None
        }
        Err((recv, send)) => Some((Accepted { recv, send, downstream }, pass)),
    }
}

/// Serves a connection that another thread accepted.
pub(crate) fn take_over<I: Io>(worker: &Rc<Worker<I>>, connection: HandedOver<I>) {
    let HandedOver { listener, listening_on, stream, downstream, pass } = connection;
    match worker.io.attach(stream) {
        Ok((recv, send)) => {
            begin(worker, listener, listening_on, (Accepted { recv, send, downstream }, pass));
        }
        Err(_) => count(worker, &listener, |counters| counters.downstream_cx_accept_fail.inc()),
    }
    worker.colleagues.took(worker.io.now());
}

/// Linux's number of what accept(2) says of a socket that does not listen any more: its close handle was used.
const EINVAL: i32 = 22;

fn count<I: Io>(worker: &Worker<I>, name: &str, count: impl Fn(&ListenerCounters)) {
    let bound = worker.bound();
    if let Some(stats) = bound.snapshot.listeners.position(name).and_then(|at| bound.listeners.get(at)) {
        count(&stats.counters);
    }
}

/// Takes a place under the limit of a filter chain; without one, how long the connection is kept before it is closed.
fn enter(bound: &Bound, limit: &ConnectionLimit) -> Result<Option<Pass>, Duration> {
    match bound.gates.get(&limit.key) {
        Some(gate) => gate.enter(limit.connections_max).map(Some).ok_or(limit.delay),
        None => Ok(None),
    }
}

/// Who speaks first on a connection, where that may be the server.
async fn first<I: Io>(
    worker: &Rc<Worker<I>>,
    recv: &mut transport::Recv<I>,
    listener: &policy::snapshot::Listener,
    origin: &Origin,
    until: Deadline,
) -> First<I> {
    let filters = &listener.listener_filters;
    // Where a header says whom the connection is from, the client speaks first; and always in TLS.
    if filters.may_be_opaque()
        && filters.proxy_protocol.is_none()
        && let Some(chain) = origin.pick(&listener.filter_chains)
        && let (NetworkFilter::TcpProxy(proxy), None) = (&chain.filter, &chain.tls)
        // The server may hear of nobody who may not connect.
        && filter::may_be(&worker.bound(), &chain.rbac, origin)
    {
        // What is known of the server says nothing of a client that may begin with TLS.
        let silence = match listener.filter_chains.ends_tls() {
            true => limits::SERVER_FIRST_WAIT_BESIDE_TLS,
            false if worker.server_first.knows(origin.local, worker.io.now()) => return First::Nobody,
            false => limits::SERVER_FIRST_WAIT,
        };
        return server_first::wait(worker, recv, proxy, origin, (silence, until)).await;
    }
    First::Client(Buffer::default())
}

pub(crate) async fn connection<I: Io>(
    worker: Rc<Worker<I>>,
    name: Arc<str>,
    listening_on: SocketAddr,
    accepted: Accepted<I::Recv, I::Send>,
) {
    let Accepted { recv, mut send, downstream } = accepted;
    let mut recv = transport::Recv::Raw(recv);
    // The snapshot may be another one by the end of the connection, but its listener counters are carried over.
    let bound = worker.bound();
    let Some(at) = bound.snapshot.listeners.position(&name) else { return };
    let (Some(listener), Some(stats)) = (bound.snapshot.listeners.at(at), bound.listeners.get(at)) else {
        return;
    };
    let stats = stats.clone();
    let counters = &stats.counters;
    counters.downstream_cx_total.inc();
    counters.downstream_cx_active.inc();
    // The default comes with the listening socket.
    if listener.unsent_bytes_max != limits::UNSENT_BYTES_DEFAULT {
        send.limit_unsent(listener.unsent_bytes_max);
    }
    let local = match listening_on.ip().is_unspecified() {
        true => recv.local_addr().unwrap_or(listening_on),
        false => listening_on,
    };
    let mut origin = Origin::new(name, downstream, local);
    let mut last = None;
    let mut connected = None;
    let filters = &listener.listener_filters;
    let found = match filters.is_any() {
        true => {
            let until =
                filters.timeout.map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait));
            let waiting = worker.waiting.enter(Waiting::new(origin.listener.clone(), recv.cancel_handle()));
            waiting.waits.set(true);
            // Boxed: a listener without filters does not pay for their state.
            let found = match Box::pin(first(&worker, &mut recv, listener, &origin, until)).await {
                First::Client(bytes) => {
                    Box::pin(listener_filters::run(&worker, &mut recv, (filters, until), &waiting, bytes))
                        .await
                }
                First::Server(upstream, bytes) => {
                    counters.downstream_cx_server_first.inc();
                    worker.server_first.remember(local, worker.io.now());
                    connected = Some((upstream, bytes));
                    Ok(Found::default())
                }
                First::Nobody => Ok(Found::default()),
            };
            worker.waiting.leave(&waiting);
            last = waiting.last.take();
            found
        }
        false => Ok(Found::default()),
    };
    match found {
        Ok(found) => {
            origin.spoken = found.spoken;
            if let Some(addresses) = found.addresses {
                origin.set_addresses(addresses);
            }
            let chain = Chain::pick(&bound, listener, &origin);
            drop(bound);
            let mut bytes = found.bytes;
            let Chain { filter, pass, tls, is_guarded, is_plain } = chain;
            let secured = match (pass, tls, recv) {
                (Ok(pass), None, recv) => Ok((pass, (recv, transport::Send::Raw(send)))),
                (Ok(pass), Some(tls), transport::Recv::Raw(recv)) => {
                    // Boxed: its state is much, and gone after the handshake.
                    let first = std::mem::take(&mut bytes);
                    let secured = secure(&worker, &stats, tls, &mut origin, ((recv, send), first));
                    Box::pin(secured).await.map(|halves| (pass, halves)).ok_or(None)
                }
                (Ok(_), Some(_), transport::Recv::Tls(_)) => Err(None),
                (Err(delay), ..) => Err(Some(delay)),
            };
            // By value: what is borrowed here would be kept for as long as the connection lives.
            let secured =
                secured.map_err(|delay| (delay, None)).and_then(|(pass, halves)| {
                    match may_connect(&worker, last.as_ref(), is_guarded, &origin) {
                        Ok(()) => {
                            if is_plain && filter.is_some() {
                                stats.plaintext.count(origin.remote.ip(), worker.io.now());
                            }
                            Ok((pass, halves))
                        }
                        Err(denied) => {
                            worker.access_log.refused(&origin, "rbac-access-denied", &denied);
                            Err((Some(denied.delay), Some(halves)))
                        }
                    }
                });
            match (secured, filter) {
                (Ok((_pass, halves)), Some(NetworkFilter::HttpConnectionManager(_))) => {
                    // What came while its listener went is answered, and the connection ends with that.
                    match Manager::find_with(worker.bound(), &origin, || last) {
                        // Boxed, as the other: neither kind of connection pays for the state of both.
                        Ok(manager) => {
                            Box::pin(downstream::serve(worker.clone(), manager, halves, origin, bytes)).await;
                        }
                        Err(_) => worker.buffers.put(bytes),
                    }
                }
                (Ok((_pass, halves)), Some(NetworkFilter::TcpProxy(proxy))) => {
                    Box::pin(tcp::serve(&worker, &proxy, &origin, halves, (bytes, connected))).await;
                }
                (ended, filter) => {
                    worker.buffers.put(bytes);
                    worker.buffers.put(connected.map(|(_, bytes)| bytes).unwrap_or_default());
                    match ended {
                        Ok(_) if filter.is_none() => {
                            counters.no_filter_chain_match.inc();
                            let detail = match is_plain {
                                true => "it is in plain text, and what is served here is secured",
                                false => "no filter chain takes it",
                            };
                            worker.access_log.refused(&origin, "no-filter-chain", &detail);
                        }
                        // Boxed, and not held here: no other connection pays for it.
                        Err((Some(delay), halves)) => Box::pin(keep(&worker, halves, delay)).await,
                        _ => {}
                    }
                }
            }
        }
        Err(Unknown::NotTold) => counters.downstream_pre_cx_timeout.inc(),
        Err(Unknown::ProxyProtocol) => counters.downstream_cx_proxy_proto_error.inc(),
        Err(Unknown::Retired) => {}
    }
    counters.downstream_cx_active.dec();
}

/// Waits for a while before a connection that is not served is closed.
async fn keep<I: Io>(worker: &Worker<I>, _halves: Option<Halves<I>>, delay: Duration) {
    worker.io.sleep_until(Deadline::after(worker.io.now(), delay)).await;
}

/// What a connection needs of the filter chain that takes it, whatever comes of the snapshot.
struct Chain {
    /// `None` when no chain takes it.
    filter: Option<NetworkFilter>,
    /// A place under the limit of the chain; or how long the connection is kept before it is closed.
    pass: Result<Option<Pass>, Duration>,
    /// TLS that ends here. Within, `None`: what it needs is not there.
    tls: Option<Option<Arc<ServerTls>>>,
    /// Somebody says who may connect.
    is_guarded: bool,
    /// It is not secured, and others of its listener are.
    is_plain: bool,
}

impl Chain {
    fn pick(bound: &Bound, listener: &policy::snapshot::Listener, origin: &Origin) -> Chain {
        let Some(chain) = origin.pick(&listener.filter_chains) else {
            let is_tls = origin.spoken.as_ref().is_some_and(|spoken| spoken.is_tls);
            let is_plain = !is_tls && listener.filter_chains.ends_tls();
            return Chain { filter: None, pass: Ok(None), tls: None, is_guarded: false, is_plain };
        };
        Chain {
            filter: Some(chain.filter.clone()),
            pass: chain.connection_limit.as_ref().map_or(Ok(None), |limit| enter(bound, limit)),
            tls: chain.tls.as_ref().map(|tls| bound.tls.server(tls).cloned()),
            is_guarded: !chain.rbac.is_empty(),
            is_plain: chain.is_plain() && listener.filter_chains.ends_tls(),
        }
    }
}

/// Asks whether a connection may be, of what is in force now, else of the last snapshot in which it had a place. Where neither
/// knows it and somebody should have been asked, it may not.
fn may_connect<I: Io>(
    worker: &Worker<I>,
    last: Option<&Rc<Bound>>,
    is_guarded: bool,
    origin: &Origin,
) -> Result<(), Denied> {
    let ask = |bound: &Rc<Bound>| match place::of(bound, origin) {
        Ok(chain) => Some(filter::on_connection(bound, &chain.rbac, origin)),
        Err(Misplaced::Gone) => None,
        Err(Misplaced::Insecure) => Some(Err(Denied::default())),
    };
    let unknown = || if is_guarded { Err(Denied::default()) } else { Ok(()) };
    ask(&worker.bound()).or_else(|| ask(last?)).unwrap_or_else(unknown)
}

/// Does the handshake of a connection whose TLS ends here, of which `first` came; `None` where it failed, which is told.
async fn secure<I: Io>(
    worker: &Rc<Worker<I>>,
    stats: &ListenerStats,
    tls: Option<Arc<ServerTls>>,
    origin: &mut Origin,
    (halves, first): ((I::Recv, I::Send), Buffer),
) -> Option<Halves<I>> {
    let Some(tls) = tls else {
        worker.buffers.put(first);
        stats.tls.connection_error.inc();
        stats.tls.no_certificate.inc();
        worker.access_log.refused(
            origin,
            "tls-refused",
            &"a secret of this listener is missing or of no use",
        );
        return None;
    };
    match tls::accept(worker, &tls, halves, first).await {
        Ok(Secured { halves, peer, own, alpn, is_resumed }) => {
            stats.tls.handshake(is_resumed);
            let terms = tls.terms.clone();
            origin.tls = Some(Arc::new(TlsOrigin { peer, alpn, own, terms }));
            Some(halves)
        }
        Err(error) => {
            stats.tls.refused(&error);
            worker.access_log.refused(origin, "tls-refused", &error);
            None
        }
    }
}
