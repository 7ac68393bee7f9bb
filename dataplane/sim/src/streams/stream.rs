//! One stream in a script's hands.

use std::io;

use runtime::Io;
use wire::{
    head::{Method, ResponseHead, ResponseView, Version},
    http1::{
        encode::{BodyOut, ResponseEdits},
        parse,
    },
    http2::{StreamKey, error::ErrorCode},
};

use super::{LIMITS, Streams, state::State};
use crate::{
    client::{Ask, Loss, Verdict, judge},
    http::Message,
};

/// A stream. Dropped, it is over, also on the wire where it has not ended.
pub struct Stream<I: Io> {
    pub(super) streams: Streams<I>,
    pub(super) key: StreamKey,
}

/// What came of a stream.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) interims: Vec<u16>,
    pub(super) head: Option<Message>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, String)>,
    pub(super) is_ended: bool,
    pub(super) gone: Option<Loss>,
    /// Its window is not opened.
    pub(super) is_held: bool,
    /// Bytes whose place in the window was not given back.
    pub(super) held_bytes: usize,
}

impl<I: Io> Stream<I> {
    fn change<T>(&self, change: impl FnOnce(&mut State, &mut Seen) -> T) -> T {
        self.streams.change(|state| {
            let mut seen = state.streams.remove(&self.key.index()).unwrap_or_default();
            let changed = change(state, &mut seen);
            state.streams.insert(self.key.index(), seen);
            changed
        })
    }

    fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        let state = self.streams.shared.state.borrow();
        look(&state.streams[&self.key.index()])
    }

    async fn wait<T>(&self, mut look: impl FnMut(&mut Seen) -> Option<T>) -> Result<T, Loss> {
        let index = self.key.index();
        let found = self.streams.try_wait(|state| {
            let end = state.end();
            let seen = state.streams.get_mut(&index)?;
            match look(seen) {
                Some(found) => Some(Ok(found)),
                None => seen.gone.clone().or(end).map(Err),
            }
        });
        found.await.unwrap_or(Err(Loss::Ended(io::ErrorKind::TimedOut)))
    }

    /// The request that came, or the final response's head.
    pub async fn head(&self) -> Result<Message, Loss> {
        self.wait(|seen| seen.head.clone()).await
    }

    /// The whole message.
    pub async fn whole(&self) -> Result<Message, Loss> {
        self.wait(|seen| seen.whole()).await
    }

    /// What became of the request.
    pub async fn verdict(&self, ask: &Ask) -> Verdict {
        match self.whole().await {
            Ok(answer) => judge(ask, answer),
            Err(loss) => Verdict::Lost(loss),
        }
    }

    /// Statuses of the interim responses so far.
    pub fn interims(&self) -> Vec<u16> {
        self.seen(|seen| seen.interims.clone())
    }

    /// The body so far.
    pub fn body(&self) -> Vec<u8> {
        self.seen(|seen| seen.body.clone())
    }

    /// Waits until so many bytes of the body have come in all.
    pub async fn body_of(&self, bytes: usize) -> Result<Vec<u8>, Loss> {
        self.wait(|seen| (seen.body.len() >= bytes).then(|| seen.body.clone())).await
    }

    /// Whether the other end has ended it.
    pub fn is_ended(&self) -> bool {
        self.seen(|seen| seen.is_ended)
    }

    /// Waits until the other end has ended it.
    pub async fn end(&self) -> Result<(), Loss> {
        self.wait(|seen| seen.is_ended.then_some(())).await
    }

    /// How it ended before its time, if it did.
    pub fn gone(&self) -> Option<Loss> {
        let end = self.streams.shared.state.borrow().end();
        self.seen(|seen| seen.gone.clone()).or(end)
    }

    /// Waits until it is over before its time.
    pub async fn until_gone(&self) -> Loss {
        match self.wait(|_| None::<()>).await {
            Err(loss) => loss,
            Ok(()) => Loss::Closed,
        }
    }

    /// From now on no place is made in its window.
    pub fn hold(&self) {
        self.change(|_, seen| seen.is_held = true);
    }

    /// Makes place for so many bytes more than is there; all of it if there are fewer.
    pub fn take(&self, bytes: usize) {
        let key = self.key;
        self.change(|state, seen| {
            let bytes = bytes.min(seen.held_bytes);
            seen.held_bytes -= bytes;
            state.wire.consume(key, bytes);
        });
    }

    /// From now on everything that comes makes place for more.
    pub fn read_on(&self) {
        self.change(|_, seen| seen.is_held = false);
        self.take(usize::MAX);
    }

    /// Sends a part of the body, and the end if it `ends`; false when the stream was over first.
    pub async fn send(&self, mut bytes: &[u8], ends: bool) -> bool {
        let key = self.key;
        if bytes.is_empty() && ends {
            self.send_end(&[]);
        }
        while !bytes.is_empty() {
            let index = key.index();
            let sent = self.streams.try_wait(|state| {
                let is_over = state.end().is_some() || state.streams.get(&index)?.gone.is_some();
                match state.wire.send_data(key, bytes, ends) {
                    0 if is_over => Some(0),
                    0 => None,
                    sent => Some(sent),
                }
            });
            match sent.await {
                Some(sent) if sent > 0 => bytes = &bytes[sent..],
                _ => return false,
            }
        }
        true
    }

    /// Sends the end, with trailers if there are any.
    pub fn send_end(&self, trailers: &[(&str, &str)]) {
        let lines: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.change(|state, _| state.wire.send_trailers(self.key, lines.as_bytes()));
    }

    /// Sends a response head: interim, final, or with 101 what grants a protocol.
    pub fn respond(&self, status: u16, headers: &[(&str, &str)], ends: bool) {
        let mut text = format!("HTTP/1.1 {status} Answer\r\n");
        let is_granted = status == 101;
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        self.change(|state, seen| {
            let mut head = ResponseHead::default();
            let method = if seen.method == "HEAD" { Method::Head } else { Method::Get };
            let parsed = parse::response(text.as_bytes(), &LIMITS, method, &mut head);
            assert_eq!(parsed, Ok(parse::Parsed::Complete), "{text}");
            let edits = ResponseEdits {
                headers: &[],
                body: if is_granted { BodyOut::None } else { BodyOut::choose(head.framing, Version::Http11) },
                close: false,
                version: Version::Http11,
                method,
            };
            let view = ResponseView { head: &head, bytes: text.as_bytes() };
            state.wire.send_response(self.key, view, &edits, ends);
        });
    }

    /// Resets it.
    pub fn reset(&self, code: u32) {
        self.change(|state, seen| {
            state.wire.reset(self.key, ErrorCode(code));
            seen.gone.get_or_insert(Loss::Reset(code));
        });
    }
}

impl<I: Io> Drop for Stream<I> {
    fn drop(&mut self) {
        self.streams.change(|state| {
            if let Some(seen) = state.streams.remove(&self.key.index()) {
                state.wire.consume(self.key, seen.held_bytes);
            }
            state.wire.release(self.key);
        });
    }
}

impl Seen {
    pub(super) fn whole(&self) -> Option<Message> {
        let mut message = self.head.clone().filter(|_| self.is_ended)?;
        message.body = self.body.clone();
        message.trailers = self.trailers.clone();
        Some(message)
    }
}
