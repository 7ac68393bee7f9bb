//! The request body's way up.

use std::{io, rc::Rc};

use runtime::{Buffer, Gather, Io, RecvHalf, SendHalf};
use wire::http1::body::BodyError;

use super::{Plan, Progress, body::Body};
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

pub(super) struct Upload<'a, I: Io> {
    pub(super) worker: &'a Rc<Worker<I>>,
    pub(super) recv: &'a mut I::Recv,
    pub(super) send: &'a mut I::Send,
    pub(super) gather: &'a mut Gather,
    pub(super) body: &'a mut Body,
    pub(super) rest: &'a mut Buffer,
    pub(super) progress: &'a Progress<'a>,
    pub(super) plan: &'a Plan<'a>,
    /// Counts bytes from downstream.
    pub(super) received: &'a Counter,
    /// Counts bytes to upstream.
    pub(super) sent: &'a Counter,
}

impl<I: Io> Upload<'_, I> {
    pub(super) async fn run(&mut self) -> Uploaded {
        let end = self.pump().await;
        match end {
            Uploaded::Failed(error) => {
                // Wakes the other half, which waits for an answer that cannot come any more.
                self.progress.upload_error.set(Some(error));
                self.progress.alarm.cancel();
            }
            Uploaded::Whole | Uploaded::Partly => {
                let now = self.worker.io.now();
                self.progress.deadline.set(self.plan.deadline_from(now, true));
                self.progress.request_received.set(self.body.ended);
                // For the other half's wait, which began under another deadline.
                self.progress.alarm.set(self.progress.until());
            }
        }
        end
    }

    async fn pump(&mut self) -> Uploaded {
        if self.body.broken {
            return Uploaded::Partly;
        }
        loop {
            // First what is there: `rest` may hold the start of a chunk line, or nothing.
            let mut gather = std::mem::take(self.gather);
            let queued = self.body.queue(&mut gather, self.rest.filled(), 0);
            gather.put_buffer(std::mem::take(self.rest));
            let sent = match queued {
                Ok(_) if !gather.is_sent() => {
                    let until = self.progress.send_until(self.worker.io.now());
                    let count = gather.unsent_len();
                    let (result, returned) = self.send.send_all(gather, until).await;
                    gather = returned;
                    self.sent.add((count - gather.unsent_len()) as u64);
                    self.progress.moved.set(self.worker.io.now());
                    result
                }
                _ => Ok(()),
            };
            *self.rest = gather.take_buffer();
            *self.gather = gather;
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
            self.rest.compact();
            let until = self.progress.until();
            let (result, buffer) = self.recv.recv(std::mem::take(self.rest), until).await;
            *self.rest = buffer;
            match result {
                Ok(0) => return Uploaded::Failed(ExchangeError::RequestBody(BodyError::Truncated)),
                Ok(count) => {
                    self.received.add(count as u64);
                    self.progress.moved.set(self.worker.io.now());
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if self.progress.timed_out(self.worker.io.now()).is_some() {
                        return Uploaded::Failed(ExchangeError::RequestBodyTimeout);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Uploaded::Partly,
                Err(_) => return Uploaded::Failed(ExchangeError::DownstreamGone),
            }
        }
    }
}
