//! The request body's way up, and a look at the downstream while its response is slow to come.

use std::{future::poll_fn, io, rc::Rc, task::Poll, time::Duration};

use runtime::{Buffer, Deadline, Gather, Io};
use wire::http1::body::BodyError;

use super::{Plan, Progress, body::Body};
use crate::transport;
use crate::{respond::ExchangeError, telemetry::metrics::Counter, worker::Worker};

/// How the request body's way up ended.
#[derive(Clone, Copy)]
pub(super) enum Uploaded {
    /// All of it was sent.
    Whole,
    /// Upstream takes no more, or the response was over first.
    Partly,
    /// The downstream failed.
    Failed(ExchangeError),
}

/// How long a downstream that is watched keeps a buffer into which nothing comes.
const BUFFER_KEPT: Duration = Duration::from_secs(1);

pub(super) struct Upload<'a, I: Io> {
    pub(super) worker: &'a Rc<Worker<I>>,
    pub(super) recv: &'a mut transport::Recv<I>,
    pub(super) send: &'a mut transport::Send<I>,
    pub(super) gather: &'a mut Gather,
    /// The buffer of the head and what came with it, when the gather is done with it.
    pub(super) first: Buffer,
    pub(super) body: &'a mut Body,
    /// What came behind the request, where that is not in `rest`.
    pub(super) behind: &'a [u8],
    pub(super) rest: &'a mut Buffer,
    pub(super) progress: &'a Progress<'a>,
    pub(super) plan: &'a Plan<'a>,
    /// When the request must have come whole, unless its response has begun.
    pub(super) request_until: Deadline,
    /// Counts bytes from downstream.
    pub(super) received: &'a Counter,
    /// Counts bytes to upstream.
    pub(super) sent: &'a Counter,
}

impl<I: Io> Upload<'_, I> {
    /// Whether there is nothing to send.
    pub(super) fn is_ended(&self) -> bool {
        self.body.ended && self.gather.is_sent()
    }

    pub(super) async fn run(&mut self) -> Uploaded {
        if !self.gather.is_sent() {
            self.send_first().await;
        }
        let end = match self.body.ended {
            true if self.body.broken => Uploaded::Partly,
            true => Uploaded::Whole,
            false => self.send_body().await,
        };
        if matches!(end, Uploaded::Whole) {
            self.watch().await;
        }
        end
    }

    /// Sends what upstream did not take at once of the head and the bytes behind it.
    async fn send_first(&mut self) {
        let result = self.send().await;
        self.first = self.gather.take_buffer();
        // Upstream may have answered before it took no more.
        self.body.broken = result.is_err();
        if self.body.ended && result.is_ok() {
            self.progress.wait_for_response(self.worker.io.now());
            self.progress.alarm.set(self.progress.look_at());
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        let until = self.progress.send_until(self.worker.io.now()).min(self.worker.send_until());
        let count = self.gather.unsent_len();
        let result = self.send.send_all(self.gather, until).await;
        self.sent.add((count - self.gather.unsent_len()) as u64);
        self.progress.moved.set(self.worker.io.now());
        result
    }

    async fn send_body(&mut self) -> Uploaded {
        let end = self.pump().await;
        match end {
            Uploaded::Failed(error) => {
                // Wakes the other half, which waits for an answer that cannot come any more.
                self.progress.upload_error.set(Some(error));
                self.progress.alarm.cancel();
            }
            Uploaded::Whole | Uploaded::Partly => {
                let now = self.worker.io.now();
                self.progress.deadline.set(self.plan.deadline_from(now));
                self.progress.request_received.set(self.body.ended);
                if matches!(end, Uploaded::Whole) {
                    self.progress.wait_for_response(now);
                }
                // For the other half's wait, which began under another deadline.
                self.progress.alarm.set(self.progress.look_at());
            }
        }
        end
    }

    /// Receives what comes while a slow response is waited for: the next requests, which are kept, or the sign that the
    /// downstream has gone away, which ends the exchange. A FIN is no such sign, since HTTP/1.1 clients may send it behind
    /// their last request; after it, and when there is no room for more, nothing is looked for any longer.
    async fn watch(&mut self) {
        let Progress { is_slow, is_over, upload_error, alarm, .. } = self.progress;
        // Whoever notices either polls this.
        poll_fn(|_| if is_slow.get() || is_over.get() { Poll::Ready(()) } else { Poll::Pending }).await;
        while !is_over.get() {
            // No buffer is held while nothing comes; how the wait ended is told by the receive.
            let _ = self.recv.readable(Deadline::NEVER).await;
            if is_over.get() {
                return;
            }
            if self.rest.capacity() == 0 {
                *self.rest = self.worker.buffers.take_with(self.behind);
            }
            self.rest.compact();
            if self.rest.spare() == 0 {
                return;
            }
            // Readiness may be told early: then the buffer is given up soon again.
            let until = Deadline::after(self.worker.io.now(), BUFFER_KEPT);
            match self.recv.recv(self.rest, until).await {
                Ok(0) => return,
                Ok(count) => self.received.add(count as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
                Err(_) if self.worker.io.now() >= until.0 => {
                    if self.rest.is_empty() {
                        self.worker.buffers.put(std::mem::take(self.rest));
                    }
                }
                Err(_) => {
                    upload_error.set(Some(ExchangeError::DownstreamGone));
                    return alarm.cancel();
                }
            }
        }
    }

    async fn pump(&mut self) -> Uploaded {
        if self.body.broken {
            return Uploaded::Partly;
        }
        loop {
            // A send that begins now would not hear the cancel that was given.
            if self.progress.is_over.get() {
                return Uploaded::Partly;
            }
            // First what is there: `rest` may hold the start of a chunk line, or nothing.
            let queued = self.body.queue(self.gather, self.rest.filled(), 0);
            self.gather.put_buffer(std::mem::take(self.rest));
            let sent = match queued {
                Ok(_) if !self.gather.is_sent() => self.send().await,
                _ => Ok(()),
            };
            *self.rest = self.gather.take_buffer();
            match queued {
                Ok(taken) => self.rest.consume(taken),
                Err(error) => return Uploaded::Failed(ExchangeError::RequestBody(error)),
            }
            if sent.is_err() {
                self.body.broken = true;
                return Uploaded::Partly;
            }
            if self.body.ended {
                return Uploaded::Whole;
            }
            if self.progress.is_over.get() {
                return Uploaded::Partly;
            }
            self.worker.buffers.make_room(self.rest);
            let request_until =
                if self.progress.response_begun.get() { Deadline::NEVER } else { self.request_until };
            let until = self.progress.until().min(request_until);
            match self.receive(until).await {
                Ok(0) => return Uploaded::Failed(ExchangeError::RequestBody(BodyError::Truncated)),
                Ok(count) => {
                    self.received.add(count as u64);
                    self.progress.moved.set(self.worker.io.now());
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let now = self.worker.io.now();
                    // Looked at again: the response may have begun meanwhile.
                    let is_late = now >= request_until.0 && !self.progress.response_begun.get();
                    if is_late || self.progress.timed_out(now).is_some() {
                        return Uploaded::Failed(ExchangeError::RequestBodyTimeout);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Uploaded::Partly,
                Err(_) => return Uploaded::Failed(ExchangeError::DownstreamGone),
            }
        }
    }

    /// Receives into `rest`. An empty buffer is not held while nothing comes, when others may need it.
    async fn receive(&mut self, until: Deadline) -> io::Result<usize> {
        if self.rest.is_empty() && self.worker.is_tight() {
            self.worker.buffers.put(std::mem::take(self.rest));
            let result = self.recv.readable(until).await;
            *self.rest = self.worker.buffers.take();
            result?;
        }
        self.recv.recv(self.rest, until).await
    }
}
