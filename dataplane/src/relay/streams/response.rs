//! The response's way down: interim heads, the final head, the body.

use std::{future::poll_fn, rc::Rc, task::Poll};

use runtime::{Buffer, Io};
use wire::{
    head::{Framing, Method, RequestHead, RequestView, ResponseHead, ResponseView},
    http1::{
        conn::{self, Interim, Next},
        encode::{self, BodyOut, Edit, ResponseEdits},
        parse::{self, Parsed},
    },
};

use super::{
    super::{
        GatherSink,
        ends::{Broken, Http1Source, Refused, Sink, Source},
    },
    Uploaded, Watch,
};
use crate::{
    downstream::Manager,
    exchange::Failed,
    head_edits::{self, EditList},
    http2::{Gone, Stream},
    respond::{ExchangeError, Phase},
    telemetry::{access_log::Record, grpc},
    upgrade,
    upstream::{End, Received},
    worker::Worker,
};

const CONNECTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Where a response comes from.
pub(super) enum From<'a, I: Io> {
    Http1(Received<'a, I>),
    Http2(&'a Stream),
    /// There is none: the connection is the end of a tunnel, and was made.
    Tunnel(Received<'a, I>),
}

pub(super) struct Download<'a, 'r, I: Io> {
    pub(super) worker: &'a Rc<Worker<I>>,
    pub(super) manager: &'a Manager,
    pub(super) down: Sink<'a, I>,
    pub(super) edits: &'a mut Vec<Edit<'static>>,
    pub(super) request: &'a RequestHead,
    /// The bytes of the request head.
    pub(super) request_bytes: &'a [u8],
    pub(super) head: &'a mut ResponseHead,
    pub(super) trailers: &'a mut Vec<u8>,
    pub(super) watch: &'a Watch<'a>,
    pub(super) record: &'a mut Record<'r>,
    /// The downstream connection closes after this response, and its head says so.
    pub(super) announces_close: bool,
    /// Upstream sent more than its response.
    pub(super) surplus: bool,
}

impl<I: Io> Download<'_, '_, I> {
    pub(super) async fn run(&mut self, from: From<'_, I>) -> Result<BodyOut, Failed> {
        let mut received = Buffer::default();
        let found = self.final_head(from, &mut received).await;
        let (mut source, head_bytes) = match found {
            Ok(found) => found,
            Err(failed) => {
                self.worker.buffers.put(received);
                return Err(failed);
            }
        };
        let result = self.final_response(&mut source, head_bytes).await;
        let left = source.take_bytes();
        self.surplus = !left.is_empty();
        self.worker.buffers.put(left);
        result
    }

    /// The final head and the body.
    async fn final_response(
        &mut self,
        source: &mut Source<'_, I>,
        head_bytes: Buffer,
    ) -> Result<BodyOut, Failed> {
        self.watch.response_begun.set(true);
        let is_switched = self.watch.is_switched.get();
        self.record.response_started(self.head.status, self.worker.io.now());
        let body_out = BodyOut::choose(self.head.framing, self.request.version);
        let ends = !is_switched && matches!(self.head.framing, Framing::None | Framing::Length(0));
        let is_stream = matches!(source, Source::Http2 { .. });
        self.send_final_head(head_bytes, (body_out, ends), is_stream);
        if is_switched {
            self.down.become_tunnel();
        }
        self.trailers.clear();
        let mut is_over = ends;
        while !is_over {
            let part = match source.try_next(&self.worker.buffers, self.trailers).await {
                Some(part) => part,
                None => {
                    self.flush().await?;
                    source.next(&self.worker.buffers, self.trailers, &self.watch.halt).await
                }
            };
            let part = part.map_err(|error| self.broken(error))?;
            self.watch.moved.set(self.worker.io.now());
            let (watch, worker) = (self.watch, self.worker);
            let what = (source.bytes(part), part.ends, &self.trailers[..]);
            let sent = self
                .down
                .send(
                    what,
                    &worker.buffers,
                    || watch.send_until(worker.io.now()).min(worker.send_until()),
                    &watch.halt,
                )
                .await;
            self.watch.moved.set(self.worker.io.now());
            self.record.sent_down(part.count as u64);
            source.done(part, &self.worker.buffers);
            sent.map_err(|error| self.refused(error))?;
            is_over = part.ends;
            if is_over && self.record.is_grpc() {
                self.record.grpc_status(grpc::status_of_lines(self.trailers));
            }
        }
        self.flush().await?;
        Ok(body_out)
    }

    /// Receives up to the final response head; interim ones go down on the way. Gives where the body comes from, and the bytes
    /// of the head.
    async fn final_head<'f>(
        &mut self,
        mut from: From<'f, I>,
        received: &mut Buffer,
    ) -> Result<(Source<'f, I>, Buffer), Failed> {
        let mut interim = Interim::default();
        loop {
            self.head.clear();
            let head_bytes = match &mut from {
                From::Http1(connection) => self.connection_head(connection, received).await?,
                From::Http2(stream) => self.stream_head(stream).await?,
                From::Tunnel(_) => self.connected()?,
            };
            self.watch.moved.set(self.worker.io.now());
            match interim.receive(self.head, self.request.version, self.watch.plan.asked) {
                Ok(next @ (Next::Final | Next::Switch)) => {
                    if next == Next::Switch {
                        self.watch.switch();
                    }
                    let framing = match next {
                        Next::Switch => Framing::UntilClose,
                        _ => self.head.framing,
                    };
                    let source = match from {
                        From::Http1(connection) | From::Tunnel(connection) => {
                            Source::Http1(Http1Source::new(connection, std::mem::take(received), framing))
                        }
                        From::Http2(stream) => Source::Http2 { stream, bytes: Buffer::default() },
                    };
                    return Ok((source, head_bytes));
                }
                Ok(Next::Relay) => {
                    let view = ResponseView { head: self.head, bytes: head_bytes.filled() };
                    let edits = ResponseEdits {
                        headers: &[],
                        body: BodyOut::None,
                        close: false,
                        version: self.request.version,
                        method: self.request.method,
                    };
                    queue_head(&mut self.down, view, &edits, false);
                    self.down.lend(head_bytes, &self.worker.buffers);
                    self.flush().await?;
                }
                Ok(Next::Drop) => self.worker.buffers.put(head_bytes),
                Err(_) => {
                    self.worker.buffers.put(head_bytes);
                    return Err(self.failed(ExchangeError::ResponseMalformed));
                }
            }
        }
    }

    /// A head on a connection that speaks HTTP/1.1: its bytes, with those behind it left in `received`.
    async fn connection_head(
        &mut self,
        connection: &mut Received<'_, I>,
        received: &mut Buffer,
    ) -> Result<Buffer, Failed> {
        let limits = &self.watch.plan.response_limits;
        loop {
            if !received.is_empty() {
                match parse::response(received.filled(), limits, self.request.method, self.head) {
                    Ok(Parsed::Complete) => {
                        let end = self.head.end as usize;
                        let head = received.filled().get(..end).unwrap_or_default();
                        let head_bytes = self.worker.buffers.take_with(head);
                        received.consume(end);
                        return Ok(head_bytes);
                    }
                    Ok(Parsed::Partial) => received.compact(),
                    Err(_) => return Err(self.failed(ExchangeError::ResponseMalformed)),
                }
            }
            let came = poll_fn(|cx| match self.watch.halt.is_stopped() {
                true => Poll::Ready(None),
                false => connection.poll_into(cx, &self.worker.buffers, received).map(Some),
            });
            match came.await {
                Some(Ok(())) => {}
                None => return Err(self.broken(Broken::Halted)),
                Some(Err(_)) if !received.is_empty() => {
                    return Err(self.failed(ExchangeError::ResponseMalformed));
                }
                Some(Err(End::Closed)) => return Err(self.failed(ExchangeError::UpstreamClosed)),
                Some(Err(End::Reset)) => return Err(self.failed(ExchangeError::UpstreamReset)),
            }
        }
    }

    /// The head that says that a tunnel was made.
    fn connected(&mut self) -> Result<Buffer, Failed> {
        let limits = &self.watch.plan.response_limits;
        match parse::response(CONNECTED, limits, Method::Connect, self.head) {
            Ok(Parsed::Complete) => Ok(self.worker.buffers.take_with(CONNECTED)),
            // With limits so narrow nothing could be answered.
            Ok(Parsed::Partial) | Err(_) => Err(self.failed(ExchangeError::ResponseMalformed)),
        }
    }

    async fn stream_head(&mut self, stream: &Stream) -> Result<Buffer, Failed> {
        let head = poll_fn(|cx| match self.watch.halt.is_stopped() {
            true => Poll::Ready(None),
            false => stream.poll_head(cx, self.head).map(Some),
        });
        let gone = match head.await {
            Some(Ok(bytes)) => return Ok(bytes),
            Some(Err(gone)) => gone,
            None => return Err(self.broken(Broken::Halted)),
        };
        // What upstream has not looked at was not sent.
        let phase = Phase::NothingSent;
        Err(match gone {
            Gone::Refused => Failed { error: ExchangeError::UpstreamRefused, phase },
            Gone::Left => Failed { error: ExchangeError::UpstreamClosed, phase },
            Gone::Reset => self.failed(ExchangeError::UpstreamStreamReset),
            Gone::Connection => self.failed(ExchangeError::UpstreamClosed),
        })
    }

    fn send_final_head(&mut self, head_bytes: Buffer, (body, ends): (BodyOut, bool), is_stream: bool) {
        let view = ResponseView { head: self.head, bytes: head_bytes.filled() };
        // Without a body the status of a call is in the head.
        if self.record.is_grpc() {
            self.record.grpc_status(view.header_values(b"grpc-status").next().and_then(grpc::status));
        }
        let mut list = EditList::take(self.edits);
        let server = &self.manager.config.server_header;
        head_edits::response(view, &self.watch.plan.target.response_headers, server, &mut list);
        let is_received = self.watch.uploaded.get() == Some(Uploaded::Whole);
        self.announces_close |= conn::must_close(self.request, is_received, body);
        let mut accept = [0; upgrade::ACCEPT_CHARACTERS];
        if self.watch.is_switched.get() {
            self.announces_close = false;
            let key = RequestView { head: self.request, bytes: self.request_bytes };
            match (&self.down, is_stream, key.header_values(upgrade::KEY).next()) {
                (Sink::Http1 { .. }, true, Some(key)) => {
                    upgrade::write_accept(key, &mut accept);
                    list.push(Edit::Set { name: upgrade::ACCEPT, value: &accept });
                }
                (Sink::Http2(_), ..) => list.push(Edit::Remove(upgrade::ACCEPT)),
                _ => {}
            }
        }
        let edits = ResponseEdits {
            headers: list.as_slice(),
            body,
            close: self.announces_close,
            version: self.request.version,
            method: self.request.method,
        };
        queue_head(&mut self.down, view, &edits, ends);
        list.give_back(self.edits);
        if let Sink::Http1 { is_chunked, .. } = &mut self.down {
            *is_chunked = body == BodyOut::Chunked;
        }
        self.down.lend(head_bytes, &self.worker.buffers);
    }

    /// Sends what is queued.
    async fn flush(&mut self) -> Result<(), Failed> {
        let (watch, worker) = (self.watch, self.worker);
        let sent = self
            .down
            .flush(
                &worker.buffers,
                || watch.send_until(worker.io.now()).min(worker.send_until()),
                &watch.halt,
            )
            .await;
        sent.map_err(|error| self.refused(error))
    }

    fn broken(&self, error: Broken) -> Failed {
        match error {
            Broken::Halted => self.failed(self.watch.error.get().unwrap_or(ExchangeError::DownstreamGone)),
            Broken::Malformed(_) | Broken::Over => self.failed(ExchangeError::ResponseTruncated),
        }
    }

    fn refused(&self, error: Refused) -> Failed {
        match error {
            Refused::Halted => self.broken(Broken::Halted),
            Refused::TimedOut => self.failed(ExchangeError::StreamIdle),
            Refused::Over => self.failed(ExchangeError::DownstreamGone),
        }
    }

    fn failed(&self, error: ExchangeError) -> Failed {
        let started = self.record.has_response_started();
        Failed { error, phase: if started { Phase::ResponseStarted } else { Phase::RequestSent } }
    }
}

/// Queues a response head, or sends it where a stream takes it at once.
fn queue_head<I: Io>(down: &mut Sink<'_, I>, view: ResponseView<'_>, edits: &ResponseEdits<'_>, ends: bool) {
    match down {
        Sink::Http1 { gather, .. } => encode::response(view, edits, &mut GatherSink(gather)),
        Sink::Http2(stream) => stream.send_response(view, edits, ends),
    }
}
