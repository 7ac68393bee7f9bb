//! Request up and response down, both at once, each half owning its ends.
//!
//! The first send carries the request head with what is there of the body. If the kernel took none of it, nothing was
//! sent, and the caller may try elsewhere. From then on the request body and the response are two futures side by side:
//! a slow upload never hides an early answer. When the response is over first, what is left of the upload is cancelled
//! and neither connection is used again. When the upload is over first and the response is slow to come, the downstream
//! is watched, so that an exchange ends with a client that goes away.

mod body;
mod download;
mod ends;
mod streams;
mod upload;

use std::{cell::Cell, future::poll_fn, io, pin::pin, rc::Rc, task::Poll, time::Duration};

use policy::route::ForwardTarget;
use runtime::{Buffer, Deadline, Gather, Io, timer::Alarm};
use wire::{
    head::{Framing, Span},
    http1::{
        conn::{Asked, Finished},
        encode::{BodyOut, Sink},
        parse,
    },
};

pub(crate) use self::body::TRAILER_LIMITS;
use self::{
    body::Body,
    download::Download,
    upload::{Upload, Uploaded},
};
use crate::{
    downstream::{After, Downstream, Manager, Side},
    exchange::Failed,
    respond::{ExchangeError, Phase},
    telemetry::{access_log::Record, metrics::ClusterStats},
    upstream::{Connection, End, Upstream},
    worker::Worker,
};

/// What the route says of one attempt.
pub struct Plan<'a> {
    /// From the end of the request to the end of the response; `None` is for ever.
    pub request_timeout: Option<Duration>,
    /// The end of the exchange, for a request that was whole when it began.
    pub deadline: Deadline,
    /// When it must be over, whatever moves.
    pub ends_at: Deadline,
    /// What the request goes on as.
    pub asked: Asked,
    /// It does not go on: the tunnel that it asks for ends at the endpoint, which gets what comes through it.
    pub ends_tunnel: bool,
    /// Trailers of the request end here: rules decided by its head, and some servers take trailers for more of that.
    pub drops_trailers: bool,
    /// How long nothing may move.
    pub idle: Option<Duration>,
    /// Bounds of the response head.
    pub response_limits: parse::Limits,
    /// Where the request goes and how the response is edited.
    pub target: &'a ForwardTarget,
    /// Counters of the cluster.
    pub stats: &'a ClusterStats,
}

/// Takes the pieces of a head into a gather whose buffer begins with that head.
pub struct GatherSink<'a>(pub &'a mut Gather);

impl Sink for GatherSink<'_> {
    fn keep(&mut self, span: Span) {
        self.0.keep(span.start as usize..span.end as usize);
    }

    fn insert(&mut self, bytes: &[u8]) {
        self.0.insert(bytes);
    }
}

/// Relays one attempt over `upstream`. The request head was sent on its stream, or is queued in `downstream.to_upstream`;
/// its bytes lie at the front of `downstream.buffer` and stay there: for another attempt while that is safe, and for the
/// log.
pub async fn exchange<I: Io>(
    worker: &Rc<Worker<I>>,
    manager: &Manager,
    downstream: &mut Downstream<'_, I>,
    upstream: Upstream<I>,
    plan: &Plan<'_>,
    record: &mut Record<'_>,
) -> Result<After, Failed> {
    match upstream {
        Upstream::Http1(connection) if !downstream.side.is_http2() && plan.asked == Asked::Response => {
            connections(worker, manager, downstream, connection, plan, record).await
        }
        upstream => streams::exchange(worker, manager, downstream, upstream, plan, record).await,
    }
}

/// Between two connections that speak HTTP/1.1.
async fn connections<I: Io>(
    worker: &Rc<Worker<I>>,
    manager: &Manager,
    downstream: &mut Downstream<'_, I>,
    mut upstream: Connection<I>,
    plan: &Plan<'_>,
    record: &mut Record<'_>,
) -> Result<After, Failed> {
    let framing = downstream.request.framing;
    let mut request_body = Body::new(framing, framing == Framing::Chunked);
    request_body.drops_trailers = plan.drops_trailers;
    let sent = send_first(worker, downstream, &mut upstream, &mut request_body, plan).await?;
    let is_first_sent = downstream.to_upstream.is_sent();
    record.request_sent(worker.io.now());
    upstream.stats().counters.upstream_rq_total.inc();

    let Downstream {
        side,
        buffer,
        rest,
        request,
        response,
        to_upstream,
        to_downstream,
        edits,
        alarm,
        is_last,
        request_until,
        ..
    } = downstream;
    let Side::Http1(connection) = side else { return Ok(After::Close) };
    if (!request_body.ended || !is_first_sent) && rest.capacity() == 0 {
        // The head stays where it is; what follows goes through a buffer of its own, which an attempt before may have made.
        let received = if is_first_sent { buffer.filled() } else { to_upstream.buffer().filled() };
        *rest = worker.buffers.take_with(received.get(sent..).unwrap_or_default());
    }
    let now = worker.io.now();
    let progress = Progress {
        alarm,
        idle: plan.idle,
        deadline: Cell::new(if request_body.ended { plan.deadline } else { plan.ends_at }),
        moved: Cell::new(now),
        watch_from: Cell::new(Deadline::NEVER),
        is_slow: Cell::new(false),
        request_received: Cell::new(request_body.ended),
        response_begun: Cell::new(false),
        upload_error: Cell::new(None),
        is_over: Cell::new(false),
    };
    let (to_up, received, stats) = upstream.split();
    let mut download = Download {
        worker,
        manager,
        send: &mut connection.send,
        received,
        gather: to_downstream,
        edits,
        request,
        head: response,
        progress: &progress,
        target: plan.target,
        record,
        behind: Buffer::default(),
        limits: plan.response_limits,
        is_last: *is_last,
        ages_at: connection.ages_at,
        announced_close: false,
        has_begun: false,
        surplus: false,
    };
    let mut upload = Upload {
        worker,
        recv: &mut connection.recv,
        send: to_up,
        gather: to_upstream,
        first: Buffer::default(),
        body: &mut request_body,
        // In one place only, or it would be read twice when `rest` is empty and given up.
        behind: buffer.filled().get(sent..).filter(|_| rest.capacity() == 0).unwrap_or_default(),
        rest,
        progress: &progress,
        plan,
        request_until: *request_until,
        received: &manager.stats.counters.downstream_cx_rx_bytes_total,
        sent: &stats.counters.upstream_cx_tx_bytes_total,
    };
    let (uploaded, downloaded) = both(&mut upload, &mut download).await;
    let (surplus, announced_close) = (download.surplus, download.announced_close);
    worker.buffers.put(std::mem::take(&mut download.behind));
    let first = std::mem::take(&mut upload.first);
    if first.capacity() > 0 {
        downstream.buffer = first;
    }
    downstream.done_bytes = sent;
    let body_out = downloaded.inspect_err(|failed| count_failure(upstream.stats(), failed.error))?;
    let is_touched = upstream.is_touched(&worker.buffers);
    let finished = Finished {
        request_received: request_body.ended,
        request_sent: matches!(uploaded, Uploaded::Whole),
        response_received: true,
        response_sent: true,
        upstream_surplus: surplus || (is_touched && upstream.end().is_none()),
        upstream_closed: upstream.end().is_some(),
        downstream_closed: connection.is_ended,
    };
    if finished.upstream_reusable(&downstream.response) && !worker.is_draining() {
        worker.pools.give_back(&worker.io, upstream);
    }
    let waiting_bytes = match downstream.rest.capacity() {
        0 => downstream.buffer.len().saturating_sub(sent),
        _ => downstream.rest.len(),
    };
    connection.is_finished =
        !downstream.request.keep_alive && finished.request_received && waiting_bytes == 0;
    let reusable =
        !announced_close && finished.downstream_reusable(&downstream.request, body_out, waiting_bytes);
    Ok(if reusable { After::KeepAlive } else { After::Close })
}

fn count_failure(stats: &ClusterStats, error: ExchangeError) {
    use ExchangeError as E;
    let counters = &stats.counters;
    match error {
        E::UpstreamClosed
        | E::UpstreamReset
        | E::UpstreamRefused
        | E::UpstreamStreamReset
        | E::ResponseTruncated => counters.upstream_rq_rx_reset.inc(),
        E::ResponseMalformed => {
            counters.upstream_cx_protocol_error.inc();
            counters.upstream_rq_tx_reset.inc();
        }
        E::UpstreamTimeout => {
            counters.upstream_rq_timeout.inc();
            counters.upstream_rq_tx_reset.inc();
        }
        _ => counters.upstream_rq_tx_reset.inc(),
    }
}

/// Queues head and first body bytes and sends what the kernel takes of them in one go, nearly always all. What is left is the
/// upload's, beside the response: upstream may take no more before its early answer is taken. Gives how many bytes of
/// the buffer are done with.
async fn send_first<I: Io>(
    worker: &Rc<Worker<I>>,
    downstream: &mut Downstream<'_, I>,
    upstream: &mut Connection<I>,
    body: &mut Body,
    plan: &Plan<'_>,
) -> Result<usize, Failed> {
    let head_bytes = downstream.request.end as usize;
    let failed = |error, phase| Failed { error, phase };
    let gather = &mut downstream.to_upstream;
    let buffer = std::mem::take(&mut downstream.buffer);
    let queued = body.queue(gather, buffer.filled(), head_bytes);
    gather.put_buffer(buffer);
    downstream.request_is_kept = body.ended;
    let result = match queued {
        Err(error) => Err(failed(ExchangeError::RequestBody(error), Phase::NothingSent)),
        Ok(_) if upstream.is_touched(&worker.buffers) => {
            let is_reset = upstream.end() == Some(End::Reset);
            let error = if is_reset { ExchangeError::UpstreamReset } else { ExchangeError::UpstreamClosed };
            Err(failed(error, Phase::NothingSent))
        }
        Ok(taken) => {
            let total = gather.unsent_len();
            let until = plan
                .idle
                .map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait))
                .min(plan.deadline)
                .min(worker.send_until());
            let (to_up, ..) = upstream.split();
            let result = to_up.send(gather, until).await;
            let unsent = gather.unsent_len();
            upstream.stats().counters.upstream_cx_tx_bytes_total.add((total - unsent) as u64);
            match result {
                Ok(_) => Ok(head_bytes + taken),
                // Before what follows: of a send that is given up nobody knows what the kernel took.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    Err(failed(ExchangeError::UpstreamTimeout, Phase::RequestSent))
                }
                // The kernel took no byte and says that the connection is over.
                Err(_) => Err(failed(ExchangeError::UpstreamReset, Phase::NothingSent)),
            }
        }
    };
    if result.is_err() || gather.is_sent() {
        downstream.buffer = gather.take_buffer();
    }
    result
}

impl Plan<'_> {
    /// The end of the exchange when the request's last byte was seen `now`.
    fn deadline_from(&self, now: u64) -> Deadline {
        self.request_timeout.map_or(Deadline::NEVER, |wait| Deadline::after(now, wait)).min(self.ends_at)
    }
}

/// What both halves look at.
struct Progress<'a> {
    alarm: &'a Alarm,
    idle: Option<Duration>,
    deadline: Cell<Deadline>,
    /// When bytes moved last, in either direction.
    moved: Cell<u64>,
    /// When a response is slow to come; not set before the request is over, nor after that time.
    watch_from: Cell<Deadline>,
    /// That time has passed.
    is_slow: Cell<bool>,
    request_received: Cell<bool>,
    /// The final response's head came.
    response_begun: Cell<bool>,
    upload_error: Cell<Option<ExchangeError>>,
    /// The response is over: the upload ends where it is.
    is_over: Cell<bool>,
}

/// How long a response may take before the downstream is watched. Less is not worth two operations more: what such a
/// request asked for is over soon anyway.
const SLOW: Duration = Duration::from_millis(250);

impl Progress<'_> {
    /// The request is over: from `now` on the response is waited for.
    fn wait_for_response(&self, now: u64) {
        self.watch_from.set(Deadline::after(now, SLOW));
    }

    /// Looks whether the response is slow `now`.
    fn notice_slow(&self, now: u64) {
        if now >= self.watch_from.get().0 {
            self.watch_from.set(Deadline::NEVER);
            self.is_slow.set(true);
        }
    }

    /// Until when the next receive of the response may last before anything has to be looked at.
    fn look_at(&self) -> Deadline {
        self.until().min(self.watch_from.get())
    }

    /// Until when the next receive may last, if nothing moves in the other direction meanwhile.
    fn until(&self) -> Deadline {
        self.after_idle(self.moved.get()).min(self.deadline.get())
    }

    /// Until when a send that begins `now` may last. A send that is given up breaks its connection, so it has a time of
    /// its own.
    fn send_until(&self, now: u64) -> Deadline {
        self.after_idle(now).min(self.deadline.get())
    }

    fn after_idle(&self, since: u64) -> Deadline {
        self.idle.map_or(Deadline::NEVER, |wait| Deadline::after(since, wait))
    }

    /// What a wait that lasted too long means; `None` when the other direction moved meanwhile, so that it goes on.
    fn timed_out(&self, now: u64) -> Option<ExchangeError> {
        match self.upload_error.get() {
            Some(error) => Some(error),
            None if now >= self.deadline.get().0 => Some(ExchangeError::UpstreamTimeout),
            None if now >= self.until().0 => Some(ExchangeError::StreamIdle),
            None => None,
        }
    }
}

/// Runs both halves until the response is over and the upload has ended or was cancelled. An upload that has nothing to
/// send is left alone until the response is slow, so that it costs an exchange nothing.
async fn both<I: Io>(
    upload: &mut Upload<'_, I>,
    download: &mut Download<'_, '_, I>,
) -> (Uploaded, Result<BodyOut, Failed>) {
    let (receiving, sending) = (upload.recv.cancel_handle(), upload.send.cancel_handle());
    let progress = upload.progress;
    let (mut is_uploading, mut is_watching) = (!upload.is_ended(), false);
    if !is_uploading {
        progress.wait_for_response(upload.worker.io.now());
    }
    let mut upload = pin!(upload.run());
    let mut download = pin!(download.run());
    let (mut uploaded, mut downloaded) = (None, None);
    poll_fn(|cx| {
        loop {
            if is_uploading
                && uploaded.is_none()
                && let Poll::Ready(end) = upload.as_mut().poll(cx)
            {
                uploaded = Some(end);
            }
            if downloaded.is_none()
                && let Poll::Ready(end) = download.as_mut().poll(cx)
            {
                downloaded = Some(end);
                if !is_uploading {
                    uploaded = Some(Uploaded::Whole);
                } else if uploaded.is_none() {
                    // Whichever of the two waits ends now; the other handle rings an alarm that nobody waits for. What
                    // completes at this very moment all the same begins no other wait.
                    progress.is_over.set(true);
                    receiving.cancel();
                    sending.cancel();
                    if let Poll::Ready(end) = upload.as_mut().poll(cx) {
                        uploaded = Some(end);
                    }
                }
            }
            match (uploaded, downloaded) {
                (Some(uploaded), Some(downloaded)) => return Poll::Ready((uploaded, downloaded)),
                // The upload waits for this, which the other half has just noticed.
                _ if progress.is_slow.get() && !is_watching => (is_uploading, is_watching) = (true, true),
                _ => return Poll::Pending,
            }
        }
    })
    .await
}
