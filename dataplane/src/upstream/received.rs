//! What comes on an upstream connection while it is held.

use std::{future::poll_fn, task::Poll};

use runtime::{Buffer, BufferPool, Io, RecvHalf, timer::Alarm};

use crate::telemetry::metrics::Counter;

/// The receiving side of a connection while it is held.
pub struct Received<'a, I: Io> {
    pub(super) recv: &'a mut I::Recv,
    pub(super) end: &'a mut Option<End>,
    pub(super) count: &'a Counter,
}

impl<I: Io> Received<'_, I> {
    /// The next bytes, or why there are none. `alarm` is the caller's; it decides how long to wait.
    pub async fn next(&mut self, buffers: &BufferPool, alarm: &Alarm) -> Result<Buffer, Nothing> {
        loop {
            if let Some(end) = *self.end {
                return Err(Nothing::Ended(end));
            }
            poll_fn(|cx| match self.recv.poll_readable(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => alarm.poll_rung(cx).map(|_| Err(Nothing::TimedOut)),
            })
            .await?;
            let mut buffer = buffers.take();
            match self.recv.try_recv(&mut buffer) {
                Some(Ok(count)) if count > 0 => {
                    self.count.add(count as u64);
                    return Ok(buffer);
                }
                Some(Ok(_)) => *self.end = Some(End::Closed),
                Some(Err(_)) => *self.end = Some(End::Reset),
                None => {}
            }
            buffers.put(buffer);
        }
    }
}

/// How a connection's receiving ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// FIN: all that was sent has been received.
    Closed,
    /// RST or another error.
    Reset,
}

/// What [`Received::next`] waited for in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nothing {
    /// The connection ended.
    Ended(End),
    /// The caller's alarm rang.
    TimedOut,
}
