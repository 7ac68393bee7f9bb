//! The response's way down: interim heads, the final head, the body.

use std::{io, rc::Rc};

use policy::route::ForwardTarget;
use runtime::{Buffer, Deadline, Gather, Io};
use wire::{
    head::{RequestHead, ResponseHead, ResponseView},
    http1::{
        conn::{self, Asked, Interim, Next},
        encode::{self, BodyOut, ResponseEdits},
        parse::{self, Parsed},
    },
};

use super::{GatherSink, Progress, body::Body};
use crate::{
    downstream::Manager,
    exchange::Failed,
    head_edits::{self, EditList},
    respond::{ExchangeError, Phase},
    telemetry::access_log::Record,
    transport,
    upstream::{End, Nothing, Received},
    worker::Worker,
};

pub(super) struct Download<'a, 'r, I: Io> {
    pub(super) worker: &'a Rc<Worker<I>>,
    pub(super) manager: &'a Manager,
    pub(super) send: &'a mut transport::Send<I>,
    pub(super) received: Received<'a, I>,
    pub(super) gather: &'a mut Gather,
    pub(super) edits: &'a mut Vec<encode::Edit<'static>>,
    pub(super) request: &'a RequestHead,
    pub(super) head: &'a mut ResponseHead,
    pub(super) progress: &'a Progress<'a>,
    pub(super) target: &'a ForwardTarget,
    pub(super) record: &'a mut Record<'r>,
    /// Received, behind what is being looked at.
    pub(super) behind: Buffer,
    /// Bounds of the response head.
    pub(super) limits: parse::Limits,
    /// The connection ends with this response.
    pub(super) is_last: bool,
    /// Or from then on with any.
    pub(super) ages_at: Deadline,
    /// The response head said that the connection closes.
    pub(super) announced_close: bool,
    /// A byte of a response came.
    pub(super) has_begun: bool,
    /// Upstream sent more than its response.
    pub(super) surplus: bool,
}

impl<I: Io> Download<'_, '_, I> {
    pub(super) async fn run(&mut self) -> Result<BodyOut, Failed> {
        let mut buffer = self.final_head().await?;
        self.record.response_started(self.head.status, self.worker.io.now());
        self.progress.response_begun.set(true);
        let body_out = BodyOut::choose(self.head.framing, self.request.version);
        self.queue_head(&buffer, body_out);
        let mut body = Body::new(self.head.framing, body_out == BodyOut::Chunked);
        let mut start = self.head.end as usize;
        loop {
            let Ok(taken) = body.queue(self.gather, buffer.filled(), start) else {
                return Err(self.failed(ExchangeError::ResponseTruncated, Some(buffer)));
            };
            let held = buffer.len();
            self.gather.put_buffer(buffer);
            self.flush().await?;
            buffer = self.gather.take_buffer();
            if body.ended {
                self.surplus = start + taken < held || !self.behind.is_empty();
                self.worker.buffers.put(buffer);
                return Ok(body_out);
            }
            // What could not be taken is a trailer line cut in two: it waits for its other half.
            buffer.consume(start + taken);
            start = 0;
            buffer = match self.receive(buffer).await? {
                Some(buffer) => buffer,
                // Upstream closed: the end of a body until close, a cut in any other.
                None if body.on_close(self.gather).is_ok() => Buffer::default(),
                None => return Err(self.failed(ExchangeError::ResponseTruncated, None)),
            };
        }
    }

    /// Queues the response head, which `buffer` begins with.
    fn queue_head(&mut self, buffer: &Buffer, body: BodyOut) {
        let view = ResponseView { head: self.head, bytes: buffer.filled() };
        let mut list = EditList::take(self.edits);
        let server = &self.manager.config.server_header;
        head_edits::response(view, &self.target.response_headers, server, &mut list);
        self.announced_close = conn::must_close(self.request, self.progress.request_received.get(), body)
            || self.is_last
            || self.worker.io.now() >= self.ages_at.0
            || self.worker.is_draining();
        let edits = ResponseEdits {
            headers: list.as_slice(),
            body,
            close: self.announced_close,
            version: self.request.version,
            method: self.request.method,
        };
        encode::response(view, &edits, &mut GatherSink(self.gather));
        list.give_back(self.edits);
    }

    /// Receives up to the final response head; interim ones go down on the way. Gives the buffer that begins with it.
    async fn final_head(&mut self) -> Result<Buffer, Failed> {
        let mut interim = Interim::default();
        let mut buffer = Buffer::default();
        loop {
            self.head.clear();
            while buffer.is_empty() || !self.is_head_whole(&mut buffer)? {
                buffer = match self.receive(buffer).await? {
                    Some(buffer) => buffer,
                    None if self.has_begun => return Err(self.failed(ExchangeError::ResponseMalformed, None)),
                    None => return Err(self.failed(ExchangeError::UpstreamClosed, None)),
                };
                self.has_begun = true;
            }
            match interim.receive(self.head, self.request.version, Asked::Response) {
                Ok(Next::Final) => return Ok(buffer),
                Ok(Next::Relay) => {
                    let view = ResponseView { head: self.head, bytes: buffer.filled() };
                    let edits = ResponseEdits {
                        headers: &[],
                        body: BodyOut::None,
                        close: false,
                        version: self.request.version,
                        method: self.request.method,
                    };
                    encode::response(view, &edits, &mut GatherSink(self.gather));
                    self.gather.put_buffer(buffer);
                    self.flush().await?;
                    buffer = self.gather.take_buffer();
                }
                Ok(Next::Drop) => {}
                Ok(Next::Switch) | Err(_) => {
                    return Err(self.failed(ExchangeError::ResponseMalformed, Some(buffer)));
                }
            }
            buffer.consume(self.head.end as usize);
        }
    }

    fn is_head_whole(&mut self, buffer: &mut Buffer) -> Result<bool, Failed> {
        match parse::response(buffer.filled(), &self.limits, self.request.method, self.head) {
            Ok(parsed) => Ok(parsed == Parsed::Complete),
            Err(_) => Err(self.failed(ExchangeError::ResponseMalformed, Some(std::mem::take(buffer)))),
        }
    }

    /// The next bytes of the response, behind what is left of the ones before; `None` when upstream sent FIN.
    async fn receive(&mut self, mut before: Buffer) -> Result<Option<Buffer>, Failed> {
        let mut next = std::mem::take(&mut self.behind);
        if next.is_empty() {
            self.worker.buffers.put(next);
            next = match self.next().await {
                Ok(Some(next)) => next,
                Ok(None) => {
                    self.worker.buffers.put(before);
                    return Ok(None);
                }
                Err(error) => return Err(self.failed(error, Some(before))),
            };
        }
        if before.is_empty() {
            self.worker.buffers.put(before);
            return Ok(Some(next));
        }
        self.worker.buffers.make_room(&mut before);
        let joined = before.extend(next.filled());
        next.consume(joined);
        if joined == 0 {
            self.worker.buffers.put(next);
            return Err(self.failed(ExchangeError::ResponseMalformed, Some(before)));
        }
        match next.is_empty() {
            true => self.worker.buffers.put(next),
            false => self.behind = next,
        }
        Ok(Some(before))
    }

    /// Waits for bytes; `None` when upstream sent FIN.
    async fn next(&mut self) -> Result<Option<Buffer>, ExchangeError> {
        loop {
            self.progress.upload_error.get().map_or(Ok(()), Err)?;
            self.progress.alarm.set(self.progress.look_at());
            match self.received.next(&self.worker.buffers, self.progress.alarm).await {
                Ok(next) => {
                    self.progress.moved.set(self.worker.io.now());
                    return Ok(Some(next));
                }
                Err(Nothing::Ended(End::Closed)) => return Ok(None),
                Err(Nothing::Ended(End::Reset)) if self.record.has_response_started() => {
                    return Err(ExchangeError::ResponseTruncated);
                }
                Err(Nothing::Ended(End::Reset)) if self.has_begun => {
                    return Err(ExchangeError::ResponseMalformed);
                }
                Err(Nothing::Ended(End::Reset)) => return Err(ExchangeError::UpstreamReset),
                Err(Nothing::TimedOut) => {
                    let now = self.worker.io.now();
                    self.progress.notice_slow(now);
                    if let Some(error) = self.progress.timed_out(now) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Sends everything queued.
    async fn flush(&mut self) -> Result<(), Failed> {
        let until = self.progress.send_until(self.worker.io.now()).min(self.worker.send_until());
        let count = self.gather.unsent_len();
        let result = self.send.send_all(self.gather, until).await;
        let sent = (count - self.gather.unsent_len()) as u64;
        self.manager.stats.counters.downstream_cx_tx_bytes_total.add(sent);
        self.record.sent_down(sent);
        let now = self.worker.io.now();
        let error = match result {
            Ok(()) => {
                self.progress.moved.set(now);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.progress.timed_out(now).unwrap_or(ExchangeError::StreamIdle)
            }
            Err(_) => ExchangeError::DownstreamGone,
        };
        let buffer = self.gather.take_buffer();
        Err(self.failed(error, Some(buffer)))
    }

    fn failed(&mut self, error: ExchangeError, buffer: Option<Buffer>) -> Failed {
        self.worker.buffers.put(buffer.unwrap_or_default());
        let started = self.record.has_response_started();
        Failed { error, phase: if started { Phase::ResponseStarted } else { Phase::RequestSent } }
    }
}
