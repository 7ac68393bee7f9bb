//! One attempt of an exchange in which one side or both speak HTTP/2: as [`super::exchange`], with streams for ends.
//!
//! Both halves wait for bytes and for room only. What ends them before their time is looked for in one place, whenever
//! either is woken: a downstream that goes away, a time that has passed.

mod response;

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use runtime::{Buffer, Deadline, Io, timer::Alarm};
use wire::{
    head::{Framing, ResponseHead},
    http1::{conn::Finished, encode::BodyOut},
};

use self::response::{Download, From};
use super::{
    Plan,
    body::Body,
    count_failure,
    ends::{Broken, Halt, Http1Source, Sink, Source},
    send_first,
};
use crate::{
    downstream::{After, Downstream, Manager, Side},
    exchange::Failed,
    http2::Stream,
    respond::{ExchangeError, Phase},
    telemetry::{access_log::Record, grpc},
    upstream::{Connection, End, Received, Upstream},
    worker::Worker,
};

/// Relays one attempt. The request head was sent on an upstream stream, or is queued for an upstream connection.
pub(super) async fn exchange<I: Io>(
    worker: &Rc<Worker<I>>,
    manager: &Manager,
    downstream: &mut Downstream<'_, I>,
    mut upstream: Upstream<I>,
    plan: &Plan<'_>,
    record: &mut Record<'_>,
) -> Result<After, Failed> {
    let framing = downstream.request.framing;
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    if let Upstream::Http1(connection) = &mut upstream
        && !(plan.ends_tunnel && downstream.to_upstream.is_sent())
    {
        send_first(worker, downstream, connection, &mut Body::new(Framing::None, false), plan).await?;
        send_rest_of_head(worker, downstream, connection, plan).await?;
    }
    downstream.request_is_kept = !has_body;
    if grpc::is_call(&downstream.view()) {
        record.grpc_call();
    }
    record.request_sent(worker.io.now());
    plan.stats.counters.upstream_rq_total.inc();

    let head_bytes = downstream.request.end as usize;
    // What is behind the head goes into `rest`.
    downstream.done_bytes = downstream.buffer.len();
    let Downstream {
        side,
        buffer,
        rest,
        request,
        response,
        to_upstream,
        to_downstream,
        edits,
        trailers,
        alarm,
        ..
    } = downstream;
    let [up_trailers, down_trailers] = trailers;
    let behind = buffer.filled().get(head_bytes..).unwrap_or_default();
    if !behind.is_empty() && rest.capacity() == 0 {
        *rest = worker.buffers.take_with(behind);
    }
    let watch = Watch {
        plan,
        request_until: downstream.request_until,
        deadline: Cell::new(if has_body { plan.ends_at } else { plan.deadline }),
        moved: Cell::new(worker.io.now()),
        uploaded: Cell::new((!has_body).then_some(Uploaded::Whole)),
        has_taken_body: Cell::new(false),
        response_begun: Cell::new(false),
        is_switched: Cell::new(false),
        error: Cell::new(None),
        halt: Halt::default(),
    };
    let counters = &manager.stats.counters;
    let (mut ended, ages_at) = (None, side.ages_at());
    let (mut source, down, stream_down) = match side {
        Side::Http1(connection) => {
            ended = connection.is_ended.then_some(End::Closed);
            let count = &counters.downstream_cx_rx_bytes_total;
            let received = Received { recv: &mut connection.recv, end: &mut ended, count };
            let source = Http1Source::new(received, std::mem::take(rest), framing);
            let sent = &counters.downstream_cx_tx_bytes_total;
            let down = Sink::Http1 {
                send: &mut connection.send,
                gather: to_downstream,
                is_chunked: false,
                is_tunnel: false,
                sent,
            };
            (Source::Http1(source), down, None)
        }
        Side::Http2(on) => {
            let source = Source::Http2 { stream: &on.stream, bytes: Buffer::default() };
            (source, Sink::Http2(&on.stream), Some(&on.stream))
        }
    };
    let (mut up, from) = match &mut upstream {
        Upstream::Http1(connection) => {
            let (send, received, stats) = connection.split();
            let sent = &stats.counters.upstream_cx_tx_bytes_total;
            let is_chunked = framing == Framing::Chunked;
            (
                Sink::Http1 { send, gather: to_upstream, is_chunked, is_tunnel: false, sent },
                if plan.ends_tunnel { From::Tunnel(received) } else { From::Http1(received) },
            )
        }
        Upstream::Http2 { stream, .. } => (Sink::Http2(stream), From::Http2(stream)),
    };
    let cancels = [up.cancel_handle(), down.cancel_handle()];
    let mut download = Download {
        worker,
        manager,
        down,
        edits,
        request,
        request_bytes: buffer.filled(),
        head: response,
        trailers: down_trailers,
        watch: &watch,
        record,
        announces_close: downstream.is_last || worker.io.now() >= ages_at.0 || worker.is_draining(),
        surplus: false,
    };
    let downloaded = {
        // Pinned where they are made: to hand them over would copy them, twice.
        let upload = pin!(upload(worker, (&mut source, &mut up), up_trailers, &watch));
        let run = pin!(download.run(from));
        both(worker, (upload, run), (stream_down, alarm), &cancels, &watch).await
    };
    let (surplus, announced_close) = (download.surplus, download.announces_close);
    let is_begun = watch.has_taken_body.get() || matches!(&source, Source::Http1(source) if source.is_begun);
    let waiting_bytes = match &source {
        Source::Http1(source) => source.bytes.len(),
        Source::Http2 { .. } => 0,
    };
    match source {
        Source::Http1(source) => *rest = source.bytes,
        Source::Http2 { bytes, .. } => worker.buffers.put(bytes),
    }
    if waiting_bytes == 0 {
        worker.buffers.put(std::mem::take(rest));
    }
    let body_out = match downloaded {
        Ok(body_out) => body_out,
        Err(mut failed) => {
            count_failure(plan.stats, failed.error);
            // What was not sent when the exchange was stopped.
            worker.buffers.put(to_downstream.take_buffer());
            // What upstream has not looked at may go elsewhere, if all of it is still there.
            if has_body && is_begun {
                failed.phase = failed.phase.max(Phase::RequestSent);
            }
            // What broke a tunnel on one side breaks it on the other.
            if let (true, Upstream::Http1(connection)) = (watch.is_switched.get(), &mut upstream) {
                connection.reset();
            }
            return Err(failed);
        }
    };
    if watch.is_switched.get() {
        return Ok(After::Close);
    }
    let is_received = watch.uploaded.get() == Some(Uploaded::Whole);
    if let Side::Http1(connection) = side {
        connection.is_ended |= ended.is_some();
    }
    let mut finished = Finished {
        request_received: is_received,
        request_sent: is_received,
        response_received: true,
        response_sent: true,
        upstream_surplus: surplus,
        upstream_closed: false,
        downstream_closed: matches!(side, Side::Http1(connection) if connection.is_ended),
    };
    if let Upstream::Http1(connection) = upstream {
        give_back(worker, connection, response, &mut finished);
    }
    let Side::Http1(connection) = side else { return Ok(After::KeepAlive) };
    connection.is_finished = !request.keep_alive && is_received && waiting_bytes == 0;
    let reusable = !announced_close && finished.downstream_reusable(request, body_out, waiting_bytes);
    Ok(if reusable { After::KeepAlive } else { After::Close })
}

/// Sends what the kernel did not take at once of the head, seldom anything. Before all else: the bytes of the head are with
/// what is sent until it is, and both halves look at them.
async fn send_rest_of_head<I: Io>(
    worker: &Worker<I>,
    downstream: &mut Downstream<'_, I>,
    connection: &mut Connection<I>,
    plan: &Plan<'_>,
) -> Result<(), Failed> {
    let gather = &mut downstream.to_upstream;
    if gather.is_sent() {
        return Ok(());
    }
    let until = plan
        .idle
        .map_or(Deadline::NEVER, |wait| Deadline::after(worker.io.now(), wait))
        .min(plan.deadline)
        .min(worker.send_until());
    let count = gather.unsent_len();
    let (to_up, _, stats) = connection.split();
    let result = to_up.send_all(gather, until).await;
    stats.counters.upstream_cx_tx_bytes_total.add((count - gather.unsent_len()) as u64);
    downstream.buffer = gather.take_buffer();
    result.map_err(|error| {
        let error = match error.kind() {
            io::ErrorKind::TimedOut => ExchangeError::UpstreamTimeout,
            _ => ExchangeError::UpstreamReset,
        };
        Failed { error, phase: Phase::RequestSent }
    })
}

/// Gives a connection back to the pool, where it may carry another exchange.
fn give_back<I: Io>(
    worker: &Worker<I>,
    mut connection: Connection<I>,
    response: &ResponseHead,
    finished: &mut Finished,
) {
    let is_touched = connection.is_touched(&worker.buffers);
    finished.upstream_surplus |= is_touched && connection.end().is_none();
    finished.upstream_closed = connection.end().is_some();
    if finished.upstream_reusable(response) && !worker.is_draining() {
        worker.pools.give_back(&worker.io, connection);
    }
}

/// How the request body's way up ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Uploaded {
    /// All of it was sent.
    Whole,
    /// Upstream takes no more, or the exchange was over first.
    Partly,
}

/// What both halves look at.
struct Watch<'a> {
    plan: &'a Plan<'a>,
    /// When the request must have come whole, unless its response has begun.
    request_until: Deadline,
    /// When the exchange must be over.
    deadline: Cell<Deadline>,
    /// When bytes moved last, in either direction.
    moved: Cell<u64>,
    uploaded: Cell<Option<Uploaded>>,
    /// Bytes of the request body are gone from where they could be sent again.
    has_taken_body: Cell<bool>,
    /// The final response's head came.
    response_begun: Cell<bool>,
    /// Upstream granted the upgrade: both directions are bytes.
    is_switched: Cell<bool>,
    /// What ended the exchange from outside of the response.
    error: Cell<Option<ExchangeError>>,
    halt: Halt,
}

impl Watch<'_> {
    fn fail(&self, error: ExchangeError) {
        if self.error.get().is_none() {
            self.error.set(Some(error));
        }
        self.halt.stop();
    }

    /// The upgrade was granted: from now on only silence ends it.
    fn switch(&self) {
        self.is_switched.set(true);
        self.response_begun.set(true);
        self.deadline.set(self.plan.ends_at);
    }

    fn idle_from(&self, since: u64) -> Deadline {
        self.plan.idle.map_or(Deadline::NEVER, |wait| Deadline::after(since, wait))
    }

    fn request_until(&self) -> Deadline {
        match self.uploaded.get().is_some() || self.response_begun.get() {
            true => Deadline::NEVER,
            false => self.request_until,
        }
    }

    /// When something is due, if nothing moves before.
    fn until(&self) -> Deadline {
        self.idle_from(self.moved.get()).min(self.deadline.get()).min(self.request_until())
    }

    /// Until when a send that begins `now` may last: one that is given up breaks its connection, so it has a time of its
    /// own.
    fn send_until(&self, now: u64) -> Deadline {
        self.idle_from(now).min(self.deadline.get())
    }

    /// What has become due `now`.
    fn due(&self, now: u64) -> Option<ExchangeError> {
        match now {
            _ if now >= self.request_until().0 => Some(ExchangeError::RequestBodyTimeout),
            _ if now >= self.deadline.get().0 => Some(ExchangeError::UpstreamTimeout),
            _ if now >= self.until().0 => Some(ExchangeError::StreamIdle),
            _ => None,
        }
    }
}

/// Runs both halves until the response is over, and the upload has ended or was stopped.
async fn both<I: Io>(
    worker: &Worker<I>,
    (mut upload, mut download): (
        Pin<&mut impl Future<Output = ()>>,
        Pin<&mut impl Future<Output = Result<BodyOut, Failed>>>,
    ),
    (down, alarm): (Option<&Stream>, &Alarm),
    sends: &[Option<Alarm>],
    watch: &Watch<'_>,
) -> Result<BodyOut, Failed> {
    let (mut has_uploaded, mut downloaded) = (false, None);
    let mut is_stopped = false;
    let result = poll_fn(|cx| {
        loop {
            if !watch.halt.is_stopped() {
                if let Some(error) = watch.due(worker.io.now()) {
                    watch.fail(error);
                } else if down.is_some_and(|stream| stream.poll_gone(cx).is_ready()) {
                    watch.fail(ExchangeError::DownstreamGone);
                }
            }
            // What became a tunnel ends one direction after the other.
            let is_half_closed = watch.is_switched.get() && matches!(downloaded, Some(Ok(_)));
            if downloaded.is_some() && !is_half_closed {
                watch.halt.stop();
            }
            // Once: it ends the sends that are in flight, and those that begin look for themselves.
            if watch.halt.is_stopped() && !std::mem::replace(&mut is_stopped, true) {
                sends.iter().flatten().for_each(Alarm::cancel);
            }
            if !has_uploaded && upload.as_mut().poll(cx).is_ready() {
                has_uploaded = true;
                if watch.halt.is_stopped() && !is_stopped {
                    continue;
                }
            }
            if downloaded.is_none() {
                let was_switched = watch.is_switched.get();
                if let Poll::Ready(end) = download.as_mut().poll(cx) {
                    downloaded = Some(end);
                    if !has_uploaded {
                        continue;
                    }
                }
                // The upload waits for this.
                if watch.is_switched.get() != was_switched {
                    continue;
                }
            }
            if has_uploaded && let Some(end) = downloaded {
                return Poll::Ready(end);
            }
            if watch.halt.is_stopped() {
                if is_stopped { return Poll::Pending } else { continue }
            }
            alarm.set(watch.until());
            if alarm.poll_rung(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
    alarm.set(Deadline::NEVER);
    result
}

/// The request body's way up; then a look at a downstream connection, which may go away while its response is waited for, and
/// where the request is granted an upgrade, whatever comes behind it.
async fn upload<I: Io>(
    worker: &Worker<I>,
    (source, up): (&mut Source<'_, I>, &mut Sink<'_, I>),
    trailers: &mut Vec<u8>,
    watch: &Watch<'_>,
) {
    if watch.uploaded.get().is_none() {
        let uploaded = send_body(worker, (source, up), trailers, watch).await;
        let now = worker.io.now();
        watch.uploaded.set(Some(uploaded));
        if !watch.is_switched.get() {
            watch.deadline.set(watch.plan.deadline_from(now));
        }
    }
    if wait_for_response(worker, source, watch).await {
        source.become_tunnel();
        up.become_tunnel();
        watch.uploaded.set(Some(send_body(worker, (source, up), trailers, watch).await));
    }
}

/// Receives ahead while a response is waited for, as far as there is room; whether everything behind the request goes up.
async fn wait_for_response<I: Io>(worker: &Worker<I>, source: &mut Source<'_, I>, watch: &Watch<'_>) -> bool {
    poll_fn(|cx| {
        loop {
            if watch.is_switched.get() || watch.halt.is_stopped() {
                return Poll::Ready(watch.is_switched.get() && !watch.halt.is_stopped());
            }
            // A stream that goes away is noticed by whoever polls this.
            let Source::Http1(source) = &mut *source else { return Poll::Pending };
            if source.bytes.capacity() > 0 && source.bytes.spare() == 0 {
                return Poll::Pending;
            }
            match std::task::ready!(source.received.poll_into(cx, &worker.buffers, &mut source.bytes)) {
                Ok(()) => {}
                Err(End::Reset) => watch.fail(ExchangeError::DownstreamGone),
                // No sign that it went: HTTP/1.1 clients may send FIN behind their last request.
                Err(End::Closed) => return Poll::Pending,
            }
        }
    })
    .await
}

async fn send_body<I: Io>(
    worker: &Worker<I>,
    (source, up): (&mut Source<'_, I>, &mut Sink<'_, I>),
    trailers: &mut Vec<u8>,
    watch: &Watch<'_>,
) -> Uploaded {
    trailers.clear();
    loop {
        let part = match source.next(&worker.buffers, trailers, &watch.halt).await {
            Ok(part) => part,
            Err(error) => {
                match error {
                    Broken::Malformed(error) => watch.fail(ExchangeError::RequestBody(error)),
                    Broken::Over => watch.fail(ExchangeError::DownstreamGone),
                    Broken::Halted => {}
                }
                return Uploaded::Partly;
            }
        };
        watch.moved.set(worker.io.now());
        watch.has_taken_body.set(true);
        if watch.plan.drops_trailers {
            trailers.clear();
        }
        let what = (source.bytes(part), part.ends, &trailers[..]);
        let sent = up
            .send(
                what,
                &worker.buffers,
                || watch.send_until(worker.io.now()).min(worker.send_until()),
                &watch.halt,
            )
            .await;
        watch.moved.set(worker.io.now());
        source.done(part, &worker.buffers);
        if sent.is_err() {
            // Upstream may have answered before it took no more.
            return Uploaded::Partly;
        }
        if part.ends {
            return Uploaded::Whole;
        }
    }
}
