//! What is sent on the streams of a connection, and the windows for what comes.

use super::{
    conn::{Connection, OUTPUT_BYTES_MAX, PING_GROWTH},
    encode,
    flow::WINDOW_BYTES_INITIAL,
    frame::{self, END_STREAM, FrameHead, Kind, PAYLOAD_BYTES_MAX},
    stream::{Half, StreamKey},
};
use crate::{
    head::{Framing, Method, RequestView, ResponseView},
    http1::encode::{Answer, EncodeError, HeadEdits, ResponseEdits},
};

impl Connection {
    /// Sends a request head; it ends the stream where neither a body nor a tunnel follows. Nothing is sent with an error.
    pub fn send_request(
        &mut self,
        key: StreamKey,
        view: RequestView<'_>,
        edits: &HeadEdits<'_>,
        scheme: &[u8],
    ) -> Result<(), EncodeError> {
        let payload_max = self.payload_max();
        edits.check()?;
        let id = self.own_next;
        // One that was reset before it began takes no id: the next would get the same.
        if self.streams.get(key).is_none_or(|stream| stream.is_reset) {
            return Ok(());
        }
        let Some(stream) = self.streams.name(key, id) else { return Ok(()) };
        self.own_next += 2;
        self.frames.opened();
        let protocol = view.head.upgrade.then(|| view.header_values(b"upgrade").next()).flatten();
        let protocol = protocol.filter(|_| edits.upgrade);
        // What follows CONNECT is no body, and ends when it ends.
        let is_tunnel = protocol.is_some() || view.head.method == Method::Connect;
        let ends = !is_tunnel && matches!(view.head.framing, Framing::None | Framing::Length(0));
        stream.method = view.head.method;
        stream.protocol = protocol.map(Into::into);
        stream.sending = if ends { Half::Ended } else { Half::Body };
        let encoder = &mut self.encoder;
        encode::write_block(&mut self.out, (id, ends, payload_max), |out| {
            encode::request(view, edits, (scheme, protocol), encoder, out);
        });
        Ok(())
    }

    /// Sends a response head. `ends`: no body follows.
    pub fn send_response(
        &mut self,
        key: StreamKey,
        view: ResponseView<'_>,
        edits: &ResponseEdits<'_>,
        ends: bool,
    ) {
        // What grants a protocol is final here (RFC 8441 §5.1).
        let is_interim = view.head.status < 200 && view.head.status != 101;
        let Some(id) = self.head_goes_out(key, is_interim, ends) else { return };
        let (payload_max, encoder) = (self.payload_max(), &mut self.encoder);
        encode::write_block(&mut self.out, (id, ends, payload_max), |out| {
            encode::response(view, edits, encoder, out);
        });
    }

    /// Sends an answer of our own: the head, and the body as far as the windows allow. Gives how many bytes of the body
    /// are sent.
    pub fn send_answer(&mut self, key: StreamKey, answer: &Answer<'_>) -> usize {
        let has_body =
            !answer.body.is_empty() && answer.method != Method::Head && !matches!(answer.status, 204 | 304);
        let Some(id) = self.head_goes_out(key, false, !has_body) else { return 0 };
        let (payload_max, encoder) = (self.payload_max(), &mut self.encoder);
        encode::write_block(&mut self.out, (id, !has_body, payload_max), |out| {
            encode::answer(answer, encoder, out)
        });
        if has_body { self.send_data(key, answer.body, true) } else { 0 }
    }

    fn head_goes_out(&mut self, key: StreamKey, is_interim: bool, ends: bool) -> Option<u32> {
        let stream = self.streams.get_mut(key).filter(|stream| !stream.is_reset)?;
        if stream.sending != Half::Head {
            return None;
        }
        if !is_interim {
            stream.sending = if ends { Half::Ended } else { Half::Body };
        }
        Some(stream.id)
    }

    /// Whether it is not the stream's own window that keeps it from sending.
    pub fn has_own_room(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_some_and(|stream| stream.send_window.room() > 0)
    }

    /// Bytes of DATA that could be sent now.
    pub fn room(&self, key: StreamKey) -> usize {
        let Some(stream) = self.streams.get(key) else { return 0 };
        let output = OUTPUT_BYTES_MAX.saturating_sub(self.out.len());
        stream.send_window.room().min(self.send_window.room()).min(output)
    }

    /// Sends as much of `bytes` as one frame and the windows allow, and the end of the stream behind the last of them if
    /// `ends`. Gives how many bytes are sent.
    pub fn send_data(&mut self, key: StreamKey, bytes: &[u8], ends: bool) -> usize {
        let room = self.room(key).min(self.payload_max());
        let Some(stream) = self.streams.get_mut(key) else { return 0 };
        if stream.is_reset || stream.sending != Half::Body {
            return 0;
        }
        let sent = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        let ends = ends && sent.len() == bytes.len();
        if sent.is_empty() && !ends {
            return 0;
        }
        stream.send_window.take(sent.len());
        self.send_window.take(sent.len());
        if ends {
            stream.sending = Half::Ended;
        }
        let head = FrameHead {
            length: sent.len() as u32,
            kind: Kind::Data,
            flags: if ends { END_STREAM } else { 0 },
            stream: stream.id,
        };
        head.write(&mut self.out);
        self.out.extend_from_slice(sent);
        self.chatter.earn();
        self.frames.sent_data();
        sent.len()
    }

    /// Sends trailers, given as lines, which end the stream; without a line the end alone.
    pub fn send_trailers(&mut self, key: StreamKey, lines: &[u8]) {
        if lines.is_empty() {
            self.send_data(key, &[], true);
            return;
        }
        let payload_max = self.payload_max();
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.is_reset || stream.sending != Half::Body {
            return;
        }
        stream.sending = Half::Ended;
        let (id, encoder) = (stream.id, &mut self.encoder);
        encode::write_block(&mut self.out, (id, true, payload_max), |out| {
            encode::trailers(lines, encoder, out)
        });
    }

    /// Whether the end of what we send on a stream is output.
    pub fn has_sent_all(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_none_or(|stream| stream.sending == Half::Ended)
    }

    fn payload_max(&self) -> usize {
        (self.peer.payload_bytes_max as usize).min(PAYLOAD_BYTES_MAX)
    }

    /// So many bytes of a stream's DATA are in nobody's way any more; the peer may send more.
    pub fn consume(&mut self, key: StreamKey, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.consume_of_connection(bytes);
        let target = self.growth.window_bytes;
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.is_reset || stream.receiving == Half::Ended {
            return;
        }
        if let Some(more) = stream.recv_window.consume(bytes, target) {
            frame::write_window_update(stream.id, more, &mut self.out);
        }
    }

    pub(super) fn consume_of_connection(&mut self, bytes: u32) {
        let target = self.config.connection_window_bytes.max(WINDOW_BYTES_INITIAL);
        if let Some(more) = self.recv_window.consume(bytes, target) {
            frame::write_window_update(0, more, &mut self.out);
        }
    }

    /// Counts DATA that came, to learn how much is on its way.
    pub(super) fn count_for_growth(&mut self, bytes: u32) {
        let growth = &mut self.growth;
        growth.counted = growth.counted.saturating_add(bytes);
        if growth.window_bytes >= self.config.stream_window_bytes_max || growth.is_measuring {
            return;
        }
        // Only where much comes: else nobody is held up.
        if growth.counted >= growth.window_bytes / 4 {
            growth.counted = 0;
            growth.is_measuring = true;
            frame::write_ping(PING_GROWTH, 0, &mut self.out);
        }
    }
}
