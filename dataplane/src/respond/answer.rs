//! Answers of our own on their way down: of a route, or to an exchange that failed.

use std::{future::poll_fn, task::Poll, time::Duration};

use policy::{
    grpc,
    route::{Edit, Route},
};
use runtime::{Deadline, Gather, Io};
use wire::{
    head::{Framing, Method, RequestView},
    http1::encode::{self, Answer},
};

use super::{ExchangeError, Fault, Phase, row};
use crate::{
    downstream::{After, Downstream, Manager, Side},
    exchange::Failed,
    relay::GatherSink,
    telemetry::{access_log::Record, grpc::is_call},
    worker::Worker,
};

/// An answer that a route gives by itself, or the configuration before any route.
pub struct RouteAnswer<'a> {
    /// The route, with its edits to the answer's head.
    pub route: Option<&'a Route>,
    /// Its status.
    pub status: u16,
    /// Whether the connection's text holds a `location`.
    pub is_redirect: bool,
    /// Its body.
    pub body: &'a [u8],
}

impl RouteAnswer<'_> {
    /// Sends the downstream to the path that its request has now.
    pub fn to_own_path<I: Io>(downstream: &mut Downstream<'_, I>) -> Self {
        let Downstream { text, request, buffer, .. } = downstream;
        let view = RequestView { head: request, bytes: buffer.filled() };
        text.clear();
        text.push(b'/');
        // With two slashes it would be the name of another host.
        let path = view.path();
        let rest = path.iter().position(|byte| !matches!(byte, b'/' | b'\\')).unwrap_or(path.len());
        text.extend_from_slice(path.get(rest..).unwrap_or_default());
        if let Some(query) = view.query() {
            text.push(b'?');
            text.extend_from_slice(query);
        }
        RouteAnswer { route: None, status: 307, is_redirect: true, body: b"" }
    }
}

/// Sends the answer that a route gives by itself.
pub async fn answer_route<I: Io>(
    worker: &Worker<I>,
    downstream: &mut Downstream<'_, I>,
    record: &mut Record<'_>,
    answer: &RouteAnswer<'_>,
) -> Result<After, Failed> {
    let after = after_answer(worker, downstream);
    let Downstream { side, buffer, to_downstream, text, request, .. } = downstream;
    // Cold: a list per answer is fine here.
    let mut headers: Vec<(&[u8], &[u8])> = Vec::new();
    let mut message = Vec::new();
    let view = RequestView { head: request, bytes: buffer.filled() };
    let is_grpc = is_call(&view) && !answer.is_redirect;
    if answer.is_redirect {
        headers.push((b"location", text));
    }
    if is_grpc {
        grpc_headers(answer.status, answer.body, &mut message, &mut headers);
    } else if !answer.body.is_empty() {
        headers.push((b"content-type", b"text/plain"));
    }
    let came: Vec<&[u8]> = headers.iter().map(|(name, _)| *name).collect();
    if let Some(route) = answer.route {
        route.response_headers.for_each(
            |name| came.iter().any(|known| known.eq_ignore_ascii_case(name.as_bytes())),
            |edit| match edit {
                Edit::Remove(name) => {
                    headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
                }
                Edit::Add(name, value) => headers.push((name.as_bytes(), value)),
            },
        );
    }
    let body = if is_grpc { b"" } else { answer.body };
    let whole = Answer {
        status: if is_grpc { 200 } else { answer.status },
        headers: &headers,
        body,
        close: after != After::KeepAlive,
        version: request.version,
        method: request.method,
    };
    let done = begin(side, to_downstream, &whole);
    record.response_started(answer.status, worker.io.now());
    let rest = body.get(done..).unwrap_or_default();
    send(worker, downstream, record, rest).await.map(|()| after)
}

/// Answers an exchange that failed, as far as an answer is still possible.
pub async fn answer_failed<I: Io>(
    worker: &Worker<I>,
    manager: &Manager,
    downstream: &mut Downstream<'_, I>,
    record: &mut Record<'_>,
    failed: Failed,
) -> After {
    let row = row(failed.error);
    record.failed(row);
    let counters = &manager.stats.counters;
    match failed.error {
        ExchangeError::DownstreamGone => {
            counters.downstream_rq_rx_reset.inc();
            counters.downstream_cx_destroy_active_rq.inc();
        }
        ExchangeError::RequestBodyTimeout => counters.downstream_rq_timeout.inc(),
        _ => {}
    }
    if failed.phase == Phase::ResponseStarted {
        return After::Reset;
    }
    if row.status == 0 {
        return After::Close;
    }
    let after = match failed.phase {
        // The request's bytes were left where they are, so what follows a request without body can be read.
        // Its memory goes with the connection.
        _ if failed.error == ExchangeError::Overloaded => After::Close,
        Phase::NothingSent if row.fault != Fault::Downstream => after_answer(worker, downstream),
        Phase::RequestSent if has_no_body(downstream) => after_answer(worker, downstream),
        _ => After::Close,
    };
    let text = failed.error.to_string();
    let (mut headers, mut message) = (Vec::new(), Vec::new());
    let is_grpc = is_call(&downstream.view());
    // An upstream that counts the same time ends a call with a reset; the client must not hear of that, and not hear that it
    // may try again.
    let is_late = failed.error == ExchangeError::UpstreamStreamReset
        && grpc_deadline(&downstream.view(), record.begun()).is_some_and(|until| worker.io.now() >= until.0);
    match is_grpc {
        true => {
            let status = if is_late { 504 } else { row.status };
            record.grpc_call();
            record.grpc_status(Some(grpc::Status::of_own_answer(status).code()));
            grpc_headers(status, text.as_bytes(), &mut message, &mut headers);
        }
        false => headers.push((&b"content-type"[..], &b"text/plain"[..])),
    }
    if manager.config.reason_header {
        headers.push((b"x-ringway-reason", row.reason.as_bytes()));
    }
    let body = if is_grpc { "" } else { &text };
    let answer = Answer {
        status: if is_grpc { 200 } else { row.status },
        headers: &headers,
        body: body.as_bytes(),
        close: after != After::KeepAlive,
        version: downstream.request.version,
        method: downstream.request.method,
    };
    let done = begin(&downstream.side, &mut downstream.to_downstream, &answer);
    let rest = body.as_bytes().get(done..).unwrap_or_default();
    match send(worker, downstream, record, rest).await {
        Ok(()) => after,
        Err(_) => After::Close,
    }
}

/// When the client of a gRPC request that has `begun` then waits no more.
fn grpc_deadline(view: &RequestView<'_>, begun: u64) -> Option<Deadline> {
    let timeout = view.header_values(b"grpc-timeout").next().and_then(grpc::timeout)?;
    Some(Deadline::after(begun, timeout))
}

/// What an answer that would have this status on HTTP says in gRPC: all in its head ("Trailers-Only").
fn grpc_headers<'a>(
    status: u16,
    text: &[u8],
    message: &'a mut Vec<u8>,
    headers: &mut Vec<(&'a [u8], &'a [u8])>,
) {
    headers.push((b"content-type", grpc::CONTENT_TYPE));
    headers.push((b"grpc-status", grpc::Status::of_own_answer(status).text().as_bytes()));
    grpc::push_message(text.trim_ascii(), message);
    if !message.is_empty() {
        headers.push((b"grpc-message", message));
    }
}

fn has_no_body<I: Io>(downstream: &Downstream<'_, I>) -> bool {
    matches!(downstream.request.framing, Framing::None | Framing::Length(0))
}

/// Whether the connection lives on after an answer of our own: only when no byte of a body can be left.
fn after_answer<I: Io>(worker: &Worker<I>, downstream: &mut Downstream<'_, I>) -> After {
    downstream.done_bytes = downstream.request.end as usize;
    // What comes behind CONNECT may be what should go through the tunnel.
    let goes_on = downstream.request.keep_alive
        && downstream.request.method != Method::Connect
        && !downstream.is_last
        && worker.io.now() < downstream.side.ages_at().0
        && !worker.is_draining();
    match has_no_body(downstream) && goes_on {
        true => After::KeepAlive,
        false => After::Close,
    }
}

/// How long an answer of our own may take to be taken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Queues an answer, or sends it as far as its stream lets it; gives how many bytes of its body are done with.
fn begin<I: Io>(side: &Side<'_, I>, queue: &mut Gather, answer: &Answer<'_>) -> usize {
    match side {
        Side::Http1(_) => encode::answer(answer, &mut GatherSink(queue)),
        Side::Http2(on) => {
            let sent = on.stream.send_answer(answer);
            if !on.stream.has_sent_all() {
                return sent;
            }
        }
    }
    answer.body.len()
}

async fn send<I: Io>(
    worker: &Worker<I>,
    downstream: &mut Downstream<'_, I>,
    record: &mut Record<'_>,
    mut rest: &[u8],
) -> Result<(), Failed> {
    let until = Deadline::after(worker.io.now(), ANSWER_TIMEOUT);
    let is_sent = match &mut downstream.side {
        Side::Http1(connection) => {
            let gather = &mut downstream.to_downstream;
            record.sent_down(gather.unsent_len() as u64);
            let result = connection.send.send_all(gather, until).await;
            gather.clear();
            result.is_ok()
        }
        Side::Http2(on) => {
            let alarm = &downstream.alarm;
            alarm.set(until);
            poll_fn(|cx| {
                while !rest.is_empty() {
                    match on.stream.poll_send(cx, rest, true) {
                        Poll::Ready(Ok(count)) => {
                            record.sent_down(count as u64);
                            rest = rest.get(count..).unwrap_or_default();
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(false),
                        Poll::Pending => return alarm.poll_rung(cx).map(|_| false),
                    }
                }
                Poll::Ready(on.stream.gone().is_none())
            })
            .await
        }
    };
    match is_sent {
        true => Ok(()),
        false => Err(Failed { error: ExchangeError::DownstreamGone, phase: Phase::ResponseStarted }),
    }
}
