//! What comes on an upstream connection while it is held.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use runtime::{Buffer, BufferPool, Io, timer::Alarm};

use crate::telemetry::metrics::Counter;
use crate::transport;

/// The receiving side of a connection while it is held.
pub struct Received<'a, I: Io> {
    pub(crate) recv: &'a mut transport::Recv<I>,
    pub(crate) end: &'a mut Option<End>,
    pub(crate) count: &'a Counter,
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

impl<I: Io> Received<'_, I> {
    /// Receives behind what `bytes` holds, into a new buffer where it is none; or tells how the receiving ended.
    pub fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &BufferPool,
        bytes: &mut Buffer,
    ) -> Poll<Result<(), End>> {
        loop {
            if let Some(end) = *self.end {
                return Poll::Ready(Err(end));
            }
            if bytes.spare() == 0 {
                buffers.make_room(bytes);
            }
            if bytes.capacity() > 0 && bytes.spare() == 0 {
                // What fills a buffer and is still not understood never will be.
                return Poll::Ready(Err(End::Reset));
            }
            if self.recv.poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            if bytes.capacity() == 0 {
                *bytes = buffers.take();
            }
            match self.recv.try_recv(bytes) {
                Some(Ok(count)) if count > 0 => {
                    self.count.add(count as u64);
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(_)) => *self.end = Some(End::Closed),
                Some(Err(_)) => *self.end = Some(End::Reset),
                None => {}
            }
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
