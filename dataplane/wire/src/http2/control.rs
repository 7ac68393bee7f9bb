//! Frames that come and are about the connection or a stream, and carry nothing of a message.

use super::{
    conn::{Connection, Event},
    error::{ConnectionError, ErrorCode},
    frame::{self, ACK, FrameHead},
    receive::{Outcome, PRIORITY_BYTES, Reading},
    settings::Settings,
    stream::Half,
};
use crate::Tick;

impl Connection {
    pub(super) fn settings<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        if head.stream != 0 {
            return Err(ConnectionError::OutOfPlace);
        }
        if head.has(ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::FrameSize);
            }
            return self.chatter(now).map(|()| None);
        }
        if self.reading != Reading::First {
            self.chatter(now)?;
        }
        self.reading = Reading::Frame;
        self.peer_is_known = true;
        let before = self.peer;
        let encoder = &mut self.encoder;
        self.peer.read(payload, !self.is_server, |bytes| encoder.set_peer_table_size(bytes))?;
        let shift = i64::from(self.peer.window_bytes) - i64::from(before.window_bytes);
        if shift != 0 {
            for (_, stream) in self.streams.iter_mut() {
                stream.send_window.shift(shift)?;
            }
        }
        self.answer()?;
        Settings::write_ack(&mut self.out);
        Ok(Some(Event::Settings))
    }

    pub(super) fn window_update<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        let increment =
            frame::number(payload).filter(|_| payload.len() == 4).ok_or(ConnectionError::FrameSize)?;
        let increment = increment & frame::STREAM_ID_MAX;
        if !self.frames.window_update() {
            return Err(ConnectionError::Calm);
        }
        if head.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::OutOfPlace);
            }
            self.send_window.grow(increment)?;
            return Ok(Some(Event::Window { stream: None }));
        }
        let Some(key) = self.streams.find(head.stream) else {
            return if self.is_idle(head.stream) { Err(ConnectionError::OutOfPlace) } else { Ok(None) };
        };
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_reset) else {
            return Ok(None);
        };
        if increment == 0 {
            return self.stream_error(key, ErrorCode::PROTOCOL_ERROR, now);
        }
        match stream.send_window.grow(increment) {
            Ok(()) => Ok(Some(Event::Window { stream: Some(key) })),
            Err(_) => self.stream_error(key, ErrorCode::FLOW_CONTROL_ERROR, now),
        }
    }

    pub(super) fn rst_stream<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        let code = frame::number(payload).filter(|_| payload.len() == 4).ok_or(ConnectionError::FrameSize)?;
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(ConnectionError::OutOfPlace);
        }
        let key = self.streams.find(head.stream);
        let live = key.and_then(|key| self.streams.get_mut(key)).filter(|stream| !stream.is_reset);
        let (Some(key), Some(stream)) = (key, live) else {
            return self.chatter(now).map(|()| None);
        };
        stream.is_reset = true;
        stream.by_peer = true;
        // Who says that it wants nothing more of a stream that is over wastes nothing. For a server it is over when it has
        // answered (RFC 9113 §8.1).
        let is_over = stream.receiving == Half::Ended && (stream.sending == Half::Ended || !self.is_server);
        if !is_over && !self.resets.spend(now) {
            return Err(ConnectionError::Calm);
        }
        Ok(Some(Event::Reset { stream: key, code: ErrorCode(code) }))
    }

    pub(super) fn ping<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        let payload =
            payload.first_chunk().filter(|_| payload.len() == 8).ok_or(ConnectionError::FrameSize)?;
        if head.stream != 0 {
            return Err(ConnectionError::OutOfPlace);
        }
        self.chatter(now)?;
        if head.has(ACK) {
            self.on_pong(*payload);
            return Ok(None);
        }
        self.answer()?;
        frame::write_ping(*payload, ACK, &mut self.out);
        Ok(None)
    }

    pub(super) fn go_away<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        let (last, code) = (frame::number(payload), frame::number(payload.get(4..).unwrap_or_default()));
        let (Some(last), Some(code)) = (last, code) else { return Err(ConnectionError::FrameSize) };
        if head.stream != 0 {
            return Err(ConnectionError::OutOfPlace);
        }
        self.chatter(now)?;
        // It may come twice, and then says less (RFC 9113 §6.8).
        let last = last & frame::STREAM_ID_MAX;
        let before = self.peer_takes_until.unwrap_or(frame::STREAM_ID_MAX);
        self.peer_takes_until = Some(last.min(before));
        Ok(Some(Event::GoAway { code: ErrorCode(code) }))
    }

    pub(super) fn priority<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        if head.stream == 0 {
            return Err(ConnectionError::OutOfPlace);
        }
        if !self.frames.priority() {
            return Err(ConnectionError::Calm);
        }
        let error = match payload.len() {
            PRIORITY_BYTES if depends_on(payload) != Some(head.stream) => return Ok(None),
            PRIORITY_BYTES => ErrorCode::PROTOCOL_ERROR,
            _ => ErrorCode::FRAME_SIZE_ERROR,
        };
        match self.streams.find(head.stream) {
            Some(key) => self.stream_error(key, error, now),
            // What nobody has opened must not be reset (RFC 9113 §6.4), so it is the connection that ends.
            None if self.is_idle(head.stream) => Err(match error {
                ErrorCode::FRAME_SIZE_ERROR => ConnectionError::FrameSize,
                _ => ConnectionError::OutOfPlace,
            }),
            None => self.refuse(head.stream, error, now),
        }
    }
}

/// The stream that a priority names (RFC 7540 §5.3.1), which nobody asks for any more.
pub(super) fn depends_on(priority: &[u8]) -> Option<u32> {
    frame::number(priority).map(|number| number & frame::STREAM_ID_MAX)
}
