//! One request and its response, start to end. Read this file first.
//!
//! Three phases, each with what can still be done: *nothing sent* (any endpoint, any answer), *request sent* (another
//! attempt only where a repeat cannot do harm), *response started* (only closing is left). The phase is a value, so that
//! whether to try again is decided by pure functions ([`retry`](crate::retry)).

use std::{future::poll_fn, rc::Rc, task::Poll};

use policy::{
    alpn::Carries,
    cluster::{Cluster, UpstreamProtocol},
    endpoint::{Endpoint, EndpointState, WorkerId},
    grpc,
    route::{Forward, ForwardTarget, HostRewrite, IdleTimeout, RouteAction},
    snapshot::Address,
    upgrade::Connect,
};
use runtime::{Deadline, Io, timer::Alarm};
use wire::{
    head::{Method, RequestView},
    http1::{
        conn::Asked,
        encode::{self, Edit, EncodeError, HeadEdits},
        parse,
    },
    path::{self, Normalized},
    proxy_protocol,
};

use crate::{
    downstream::{After, Downstream, Manager},
    dynamic_host, filter,
    head_edits::{self, EditList, Forwarded},
    http2::Stream,
    relay::{self, GatherSink, Plan},
    respond::{self, ExchangeError, Phase},
    retry::{Attempts, Sent},
    telemetry::access_log::Record,
    upgrade,
    upstream::{
        Upstream,
        checkout::{Destinations, checkout, connect, open_stream},
    },
    worker::Worker,
};

/// Runs the exchange whose request head lies at the front of the connection's buffer.
pub async fn run<I: Io>(
    worker: &Rc<Worker<I>>,
    manager: &Manager,
    downstream: &mut Downstream<'_, I>,
) -> After {
    let mut record = Record::begin(&worker.stats, manager, worker.io.now());
    let result = match choose(worker, manager, downstream, &mut record) {
        Ok(Choice::Forward { forward, target }) => {
            forward_to(worker, manager, downstream, &mut record, forward, target).await
        }
        Ok(Choice::Answer(answer)) => respond::answer_route(worker, downstream, &mut record, &answer).await,
        Err(error) => Err(Failed { error, phase: Phase::NothingSent }),
    };
    let after = match result {
        Ok(after) => after,
        Err(failed) => respond::answer_failed(worker, manager, downstream, &mut record, failed).await,
    };
    record.finish(worker, downstream);
    downstream.advance(worker);
    after
}

/// Answers a request whose head could not be read; the connection ends.
pub async fn refuse<I: Io>(
    worker: &Rc<Worker<I>>,
    manager: &Manager,
    downstream: &mut Downstream<'_, I>,
    error: ExchangeError,
) -> After {
    let mut record = Record::begin(&worker.stats, manager, worker.io.now());
    let failed = Failed { error, phase: Phase::NothingSent };
    respond::answer_failed(worker, manager, downstream, &mut record, failed).await;
    record.finish(worker, downstream);
    After::Close
}

/// An exchange that ended early, and how far it had come.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// Why.
    pub error: ExchangeError,
    /// How far.
    pub phase: Phase,
}

/// What the configuration says of a request.
enum Choice<'a> {
    Forward { forward: &'a Forward, target: &'a ForwardTarget },
    Answer(respond::RouteAnswer<'a>),
}

fn choose<'a, I: Io>(
    worker: &Worker<I>,
    manager: &'a Manager,
    downstream: &mut Downstream<'_, I>,
    record: &mut Record<'a>,
) -> Result<Choice<'a>, ExchangeError> {
    let counters = &manager.stats.counters;
    if worker.is_short_of_memory() {
        counters.downstream_rq_overload_close.inc();
        return Err(ExchangeError::Overloaded);
    }
    if manager.is_denied {
        return Err(ExchangeError::AccessDenied);
    }
    // CONNECT has no path.
    let is_connect = downstream.request.method == Method::Connect;
    if !is_connect
        && path::normalize(
            &mut downstream.request,
            downstream.buffer.filled_mut(),
            manager.config.path_normalization,
        )? == Normalized::Redirect
    {
        return Ok(Choice::Answer(respond::RouteAnswer::to_own_path(downstream)));
    }
    let random = worker.rng.borrow_mut().next_u64();
    let table = manager.bound.snapshot.routes_of(&manager.config).ok_or(ExchangeError::NoRoute)?;
    let mut scratch = manager.bound.scratch.borrow_mut();
    let view = RequestView { head: &downstream.request, bytes: downstream.buffer.filled() };
    let route = table.pick(&view, &mut scratch, random);
    if let Some(route) = route {
        record.route(route);
    }
    let overrides = route.map(|route| route.filters(random));
    let asked = (&view, downstream.side.origin());
    filter::on_request(manager, overrides, asked, &mut scratch, record)?;
    let Some(route) = route else {
        counters.no_route.inc();
        return Err(if is_connect { ExchangeError::MethodNotAllowed } else { ExchangeError::NoRoute });
    };
    match &route.action {
        RouteAction::Forward(forward) => {
            let rewritten =
                forward.rewrite_target(&route.matches.path, &view, &mut scratch, &mut downstream.text);
            rewritten.map_err(|_| ExchangeError::Rewrite(EncodeError::Path))?;
            Ok(Choice::Forward { forward, target: forward.target(random) })
        }
        RouteAction::Redirect(redirect) => {
            let scheme = manager.config.forwarded.scheme(&view, downstream.side.origin().scheme());
            let written =
                redirect.location(&route.matches.path, &view, scheme, &mut scratch, &mut downstream.text);
            written.map_err(|_| ExchangeError::Rewrite(EncodeError::Path))?;
            counters.rq_redirect.inc();
            Ok(Choice::Answer(respond::RouteAnswer {
                route: Some(route),
                status: redirect.status,
                is_redirect: true,
                body: b"",
            }))
        }
        RouteAction::DirectResponse(direct) => {
            counters.rq_direct_response.inc();
            let (status, body) = (direct.status, &direct.body[..]);
            Ok(Choice::Answer(respond::RouteAnswer { route: Some(route), status, is_redirect: false, body }))
        }
    }
}

/// Forwards the request, on another connection or to another endpoint where the first choice fails and a repeat is safe.
async fn forward_to<'a, I: Io>(
    worker: &Rc<Worker<I>>,
    manager: &'a Manager,
    downstream: &mut Downstream<'_, I>,
    record: &mut Record<'a>,
    forward: &Forward,
    target: &ForwardTarget,
) -> Result<After, Failed> {
    let nothing_sent = |error| Failed { error, phase: Phase::NothingSent };
    let Some((cluster, bound)) = manager.bound.cluster(&target.cluster) else {
        manager.stats.counters.no_cluster.inc();
        return Err(nothing_sent(ExchangeError::NoCluster));
    };
    record.cluster(bound);
    let asked = upgrade::asked(&downstream.view(), downstream.side.is_http2(), forward, &manager.config)
        .map_err(nothing_sent)?;
    let ends_at = ends_at(worker.io.now(), manager, &downstream.view(), forward);
    let deadline = forward.timeout.map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait));
    let deadline = deadline.min(ends_at);
    let mut looked_up = None;
    let host = dynamic_host::find(worker, downstream, (cluster, deadline), &mut looked_up).await;
    let destinations = Destinations { cluster, bound, host: host.map_err(nothing_sent)? };
    let plan = Plan {
        request_timeout: forward.timeout,
        deadline,
        ends_at,
        asked,
        ends_tunnel: asked == Asked::Tunnel && forward.upgrades.connect() == Connect::Terminate,
        drops_trailers: !manager.config.http_filters.is_empty(),
        idle: match forward.idle_timeout {
            IdleTimeout::Inherit => manager.config.stream_idle_timeout,
            IdleTimeout::Off => None,
            IdleTimeout::After(wait) => Some(wait),
        },
        response_limits: parse::Limits {
            head_bytes_max: cluster.config.response_head_bytes_max,
            headers_count_max: cluster.config.headers_count_max,
            target_bytes_max: 0,
        },
        target,
        stats: &bound.stats,
    };
    let mut attempts = Attempts::new(forward.connect_retries);

    loop {
        // ---- Nothing sent: any endpoint may be tried, any answer given. ----
        let reached = reach(worker, downstream, record, &destinations, &mut attempts, &plan).await;
        let (endpoint, upstream) = reached.map_err(nothing_sent)?;
        if let (Asked::Upgrade, Upstream::Http2 { stream, .. }) = (asked, &upstream)
            && let Err(error) = takes_protocols(stream, &downstream.alarm, deadline).await
        {
            let sent = Sent { was_idle: upstream.is_reused(), can_repeat: true };
            attempts.go_on(endpoint.state.id(), nothing_sent(error), sent)?;
            continue;
        }
        let _in_flight = InFlight::begin(&endpoint.state, worker.id);
        queue_connection_start(downstream, cluster, (endpoint, &upstream));
        if !plan.ends_tunnel {
            send_request(worker, manager, downstream, (forward, &plan), (endpoint, &upstream))
                .map_err(|error| nothing_sent(error.into()))?;
        }

        // ---- Request sent: the relay tells how far it came. ----
        let was_idle = upstream.is_reused();
        downstream.done_bytes = downstream.request.end as usize;
        match relay::exchange(worker, manager, downstream, upstream, &plan, record).await {
            Ok(after) => return Ok(after),
            Err(failed) => {
                let can_repeat = downstream.request.method.is_idempotent() && downstream.request_is_kept;
                attempts.go_on(endpoint.state.id(), failed, Sent { was_idle, can_repeat })?;
            }
        }
    }
}

/// Waits until upstream has said that it takes protocols that a request asks for.
async fn takes_protocols(stream: &Stream, alarm: &Alarm, deadline: Deadline) -> Result<(), ExchangeError> {
    alarm.set(deadline);
    let answer = poll_fn(|cx| match stream.poll_takes_protocols(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => alarm.poll_rung(cx).map(|_| None),
    });
    match answer.await {
        Some(Ok(true)) => Ok(()),
        Some(Ok(false)) => Err(ExchangeError::UpgradeNotAllowed),
        Some(Err(_)) => Err(ExchangeError::UpstreamClosed),
        None => Err(ExchangeError::UpstreamTimeout),
    }
}

/// When the exchange must be over, whatever moves.
fn ends_at(now: u64, manager: &Manager, view: &RequestView<'_>, forward: &Forward) -> Deadline {
    let duration = &forward.stream_duration;
    let asked = match duration.grpc_timeout {
        Some(_) => view.header_values(b"grpc-timeout").next().and_then(grpc::timeout),
        None => None,
    };
    let limit = duration.limit(manager.config.max_stream_duration, asked);
    limit.map_or(Deadline::NEVER, |wait| Deadline::after(now, wait))
}

/// An endpoint that can be reached, and a connection to it. Those that failed in this exchange are passed over.
async fn reach<'a, I: Io>(
    worker: &Rc<Worker<I>>,
    downstream: &Downstream<'_, I>,
    record: &mut Record<'_>,
    to: &Destinations<'a>,
    attempts: &mut Attempts,
    plan: &Plan<'_>,
) -> Result<(&'a Endpoint, Upstream<I>), ExchangeError> {
    loop {
        let Some(endpoint) = pick(worker, to, attempts) else { return Err(attempts.last_error()) };
        let Address::Socket(address) = endpoint.spec.address else {
            return Err(ExchangeError::ConnectFailed);
        };
        if attempts.begin() {
            record.retry();
        }
        let id = endpoint.state.id();
        let wait = (&downstream.alarm, plan.deadline);
        let origin = downstream.side.origin();
        let owner = to.cluster.config.proxy_protocol.map(|_| downstream.side.owner());
        let at = (endpoint, address);
        let reached = match (to.cluster.config.protocol, &endpoint.tls) {
            _ if plan.ends_tunnel => {
                let how = (origin, None, Carries::Bytes);
                connect(worker, at, to, how, plan.deadline).await.map(Upstream::Http1)
            }
            (UpstreamProtocol::Http2, _) => open_stream(worker, at, to, (origin, false), wait).await,
            (UpstreamProtocol::Downstream, _) if downstream.side.is_http2() => {
                open_stream(worker, at, to, (origin, false), wait).await
            }
            (UpstreamProtocol::Auto, Some(_)) => open_stream(worker, at, to, (origin, true), wait).await,
            // Without TLS nobody is asked.
            (UpstreamProtocol::Http1 | UpstreamProtocol::Downstream | UpstreamProtocol::Auto, _) => {
                checkout(worker, at, to, (origin, owner), wait).await.map(Upstream::Http1)
            }
        };
        match reached {
            Ok(upstream) => {
                record.upstream(address);
                return Ok((endpoint, upstream));
            }
            Err(_) if worker.io.now() >= plan.deadline.0 => return Err(ExchangeError::UpstreamTimeout),
            Err(error) => attempts.not_there(id, error.into())?,
        }
    }
}

fn pick<'a, I: Io>(worker: &Worker<I>, to: &Destinations<'a>, attempts: &Attempts) -> Option<&'a Endpoint> {
    let mut rng = worker.rng.borrow_mut();
    let failed = attempts.failed_endpoints();
    let endpoint = to.cluster.pick_endpoint(to.host, &mut to.bound.pick.borrow_mut(), &mut rng, failed);
    if endpoint.is_none() && failed.is_empty() {
        to.bound.stats.counters.upstream_cx_none_healthy.inc();
    }
    endpoint
}

/// Begins the gather for upstream with what a new connection begins with, before any request. With TLS that went before.
fn queue_connection_start<I: Io>(
    downstream: &mut Downstream<'_, I>,
    cluster: &Cluster,
    (endpoint, upstream): (&Endpoint, &Upstream<I>),
) {
    downstream.to_upstream.clear();
    if let (Some(version), None) = (cluster.config.proxy_protocol, &endpoint.tls)
        && !upstream.is_reused()
    {
        downstream.forwarded.clear();
        proxy_protocol::write(version, &downstream.side.origin().addresses(), &mut downstream.forwarded);
        downstream.to_upstream.insert(&downstream.forwarded);
    }
}

/// Adds the request head for upstream to the connection's gather, where the buffer goes with it until it was sent; or sends
/// it on the stream.
fn send_request<I: Io>(
    worker: &Worker<I>,
    manager: &Manager,
    downstream: &mut Downstream<'_, I>,
    (forward, plan): (&Forward, &Plan<'_>),
    (endpoint, upstream): (&Endpoint, &Upstream<I>),
) -> Result<(), EncodeError> {
    let authority = match forward.host_rewrite_of(plan.target) {
        Some(HostRewrite::Literal(host)) => Some(&host[..]),
        Some(HostRewrite::EndpointHostname) => endpoint.spec.hostname.as_deref().map(str::as_bytes),
        None => None,
    };
    let Downstream { request, buffer, to_upstream, text, edits, side, forwarded, .. } = downstream;
    let view = RequestView { head: request, bytes: buffer.filled() };
    let mut request_id = [0; 36];
    if manager.config.generate_request_id {
        let mut rng = worker.rng.borrow_mut();
        head_edits::write_request_id([rng.next_u64(), rng.next_u64()], &mut request_id);
    }
    let forwarded = Forwarded::write(view, &manager.config, side.origin(), &request_id, forwarded);
    let mut list = EditList::take(edits);
    head_edits::request(view, &plan.target.request_headers, &manager.config, &forwarded, &mut list);
    let mut key = [0; upgrade::KEY_CHARACTERS];
    if plan.asked == Asked::Upgrade {
        match upstream {
            Upstream::Http1(_) if side.is_http2() => {
                upgrade::write_key(&mut worker.rng.borrow_mut(), &mut key);
                list.push(Edit::Set { name: upgrade::KEY, value: &key });
            }
            Upstream::Http2 { .. } if !side.is_http2() => list.push(Edit::Remove(upgrade::KEY)),
            _ => {}
        }
    }
    let head_edits = HeadEdits {
        path_and_query: (!text.is_empty()).then_some(&text[..]),
        authority,
        headers: list.as_slice(),
        close: false,
        upgrade: plan.asked == Asked::Upgrade,
    };
    let result = match upstream {
        Upstream::Http1(_) => encode::request(view, &head_edits, &mut GatherSink(to_upstream)),
        Upstream::Http2 { stream, .. } => {
            stream.send_request(view, &head_edits, side.origin().scheme().as_bytes())
        }
    };
    list.give_back(edits);
    result
}

/// Counts an exchange at its endpoint for as long as it lives.
struct InFlight<'a> {
    state: &'a EndpointState,
    worker: WorkerId,
}

impl<'a> InFlight<'a> {
    fn begin(state: &'a EndpointState, worker: WorkerId) -> InFlight<'a> {
        state.begin(worker);
        InFlight { state, worker }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.state.finish(self.worker);
    }
}
