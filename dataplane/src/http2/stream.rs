//! One stream of a connection, held by the exchange that it carries.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use runtime::Buffer;
use wire::{
    head::{RequestView, ResponseHead, ResponseView},
    http1::encode::{Answer, EncodeError, HeadEdits, ResponseEdits},
    http2::{StreamKey, error::ErrorCode},
};

use super::{Http2, State};

/// A stream. Dropping it ends it, also on the wire where it has not ended.
pub struct Stream {
    http2: Rc<Http2>,
    key: StreamKey,
}

/// A part of a body that came.
#[derive(Debug)]
pub enum Piece {
    /// Bytes, to be given back with [`Stream::consumed`] when they have found a place.
    Data {
        /// The bytes.
        bytes: Buffer,
        /// Nothing follows.
        ends: bool,
    },
    /// Nothing follows but trailers, which [`Stream::take_trailers`] has, if any.
    End,
}

/// A stream that is over before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The other end has reset it, or we have for what it did.
    Reset,
    /// The other end has not looked at it, since it takes no more for now.
    Refused,
    /// The other end has not looked at it, since it leaves.
    Left,
    /// Its connection is over.
    Connection,
}

impl Stream {
    pub(super) fn new(http2: Rc<Http2>, key: StreamKey) -> Stream {
        Stream { http2, key }
    }

    /// Changes the connection; its output goes out soon.
    fn with<T>(&self, change: impl FnOnce(&mut State, StreamKey) -> T) -> T {
        let mut state = self.http2.state.borrow_mut();
        let changed = change(&mut state, self.key);
        state.flush();
        changed
    }

    /// Whether, and how, it is over before its time.
    pub fn gone(&self) -> Option<Gone> {
        let state = self.http2.state.borrow();
        let place = state.places.get(self.key.index())?;
        place.gone.or_else(|| state.end.map(|_| Gone::Connection))
    }

    /// Whether it is over, so that the task of `cx` need not wait for it; else that task is woken when it is.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Gone> {
        match self.gone() {
            Some(gone) => Poll::Ready(gone),
            None => {
                self.http2.state.borrow_mut().place(self.key).wait(cx);
                Poll::Pending
            }
        }
    }

    /// Whether the other end takes protocols that a request asks for (RFC 8441), which it says when it begins.
    pub fn poll_takes_protocols(&self, cx: &mut Context<'_>) -> Poll<Result<bool, Gone>> {
        let known = self.http2.state.borrow().wire.peer_takes_protocols();
        match known {
            Some(takes) => Poll::Ready(Ok(takes)),
            None => self.poll_gone(cx).map(Err),
        }
    }

    // ---- receiving ----

    /// The next response head, with its bytes, in exchange for what `head` was.
    pub fn poll_head(&self, cx: &mut Context<'_>, head: &mut ResponseHead) -> Poll<Result<Buffer, Gone>> {
        let mut state = self.http2.state.borrow_mut();
        let place = state.place(self.key);
        if let Some((taken, bytes)) = place.heads.pop_front() {
            place.spare = std::mem::replace(head, taken);
            place.spare.clear();
            return Poll::Ready(Ok(bytes));
        }
        drop(state);
        self.poll_gone(cx).map(Err)
    }

    /// The next part of the body.
    pub fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Result<Piece, Gone>> {
        let mut state = self.http2.state.borrow_mut();
        let place = state.place(self.key);
        if let Some(bytes) = place.body.pop_front() {
            let ends = place.is_ended && place.body.is_empty() && place.trailers.is_empty();
            return Poll::Ready(Ok(Piece::Data { bytes, ends }));
        }
        // A body that came whole is one, whatever came behind it.
        if place.is_ended {
            return Poll::Ready(Ok(Piece::End));
        }
        drop(state);
        self.poll_gone(cx).map(Err)
    }

    /// Whether all of it came.
    pub fn has_received_all(&self) -> bool {
        self.http2.state.borrow_mut().place(self.key).is_ended
    }

    /// So many bytes of the body have found another place: as many more may come.
    pub fn consumed(&self, bytes: usize) {
        self.with(|state, key| state.wire.consume(key, bytes));
    }

    /// The trailer lines, in exchange for empty memory.
    pub fn take_trailers(&self, lines: &mut Vec<u8>) {
        lines.clear();
        std::mem::swap(&mut self.http2.state.borrow_mut().place(self.key).trailers, lines);
    }

    // ---- sending ----

    /// Sends a request head; it ends the stream where no body follows.
    pub fn send_request(
        &self,
        view: RequestView<'_>,
        edits: &HeadEdits<'_>,
        scheme: &[u8],
    ) -> Result<(), EncodeError> {
        self.with(|state, key| state.wire.send_request(key, view, edits, scheme))
    }

    /// Sends a response head.
    pub fn send_response(&self, view: ResponseView<'_>, edits: &ResponseEdits<'_>, ends: bool) {
        self.with(|state, key| state.wire.send_response(key, view, edits, ends));
    }

    /// Sends an answer of our own; gives how many bytes of its body are sent.
    pub fn send_answer(&self, answer: &Answer<'_>) -> usize {
        self.with(|state, key| state.wire.send_answer(key, answer))
    }

    /// Sends some of `bytes`, and the end behind the last of them if `ends`; how many. Waits where none can be sent.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8], ends: bool) -> Poll<Result<usize, Gone>> {
        if let Some(gone) = self.gone() {
            return Poll::Ready(Err(gone));
        }
        self.with(|state, key| {
            // Others have waited longer for the room that all share.
            let is_first = state.waiting.is_empty();
            let sent = if is_first { state.wire.send_data(key, bytes, ends) } else { 0 };
            if sent > 0 || bytes.is_empty() {
                return Poll::Ready(Ok(sent));
            }
            state.wait_for_room(key, cx);
            Poll::Pending
        })
    }

    /// Sends the end, with trailers, given as lines, if there are any.
    pub fn send_end(&self, trailers: &[u8]) {
        self.with(|state, key| state.wire.send_trailers(key, trailers));
    }

    /// Whether the end was sent.
    pub fn has_sent_all(&self) -> bool {
        self.http2.state.borrow().wire.has_sent_all(self.key)
    }

    /// Resets it: what was sent is not all there is.
    pub fn reset(&self, code: ErrorCode) {
        self.with(|state, key| state.reset(key, code));
    }
}

impl State {
    /// The stream's own window wakes it by itself; what all share wakes those that wait in turn.
    fn wait_for_room(&mut self, key: StreamKey, cx: &Context<'_>) {
        self.place(key).wait(cx);
        if self.wire.has_own_room(key) && !self.waiting.contains(&key) {
            self.waiting.push_back(key);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.http2.state.borrow_mut();
        state.wire.release(self.key);
        if !state.waiting.is_empty() {
            state.waiting.retain(|known| *known != self.key);
        }
        if !state.place(self.key).body.is_empty() {
            let held = state.place(self.key).body.iter().map(Buffer::len).sum();
            state.wire.consume(self.key, held);
        }
        state.place(self.key).clear(&self.http2.buffers);
        state.had_streams = true;
        // It may be what the driver waits for.
        state.wake_driver();
    }
}
