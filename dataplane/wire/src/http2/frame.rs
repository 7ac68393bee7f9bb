//! Frames: the nine bytes before each, what is in the small ones, and how ours are written (RFC 9113 §4, §6).

use alloc::vec::Vec;

use super::error::ErrorCode;

/// What a client begins with (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes before the payload of a frame.
pub const FRAME_HEAD_BYTES: usize = 9;

/// The longest payload that every peer takes, in bytes, and the longest that we take (RFC 9113 §4.2). Larger ones save
/// nothing: the cost of a frame is small beside that of its bytes, and long ones hold up the streams behind them.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// The type of a frame (RFC 9113 §6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// Of an extension that we do not know; ignored (RFC 9113 §5.5).
    Unknown,
}

impl Kind {
    fn of(byte: u8) -> Kind {
        match byte {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::RstStream,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            _ => Kind::Unknown,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::RstStream => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::Unknown => u8::MAX,
        }
    }
}

/// Of DATA and HEADERS: nothing of the stream follows.
pub(super) const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
/// Of HEADERS and CONTINUATION: no more fields follow.
pub(super) const END_HEADERS: u8 = 0x4;
/// Of DATA and HEADERS: the payload begins with the length of its padding.
pub(super) const PADDED: u8 = 0x8;
/// Of HEADERS: a priority comes before the fields.
pub(super) const PRIORITY: u8 = 0x20;

/// The first nine bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHead {
    /// Bytes of its payload; below 2^24.
    pub length: u32,
    /// Its type.
    pub kind: Kind,
    /// Its flags; what they mean depends on the type.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
}

impl FrameHead {
    /// Reads one.
    pub fn read(bytes: &[u8; FRAME_HEAD_BYTES]) -> FrameHead {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        FrameHead {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind::of(kind),
            flags,
            // The first bit means nothing (RFC 9113 §4.1).
            stream: u32::from_be_bytes(stream) & STREAM_ID_MAX,
        }
    }

    /// Writes one.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; FRAME_HEAD_BYTES] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind.byte(), self.flags, d, e, f, g]
    }

    pub(super) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The largest stream id (RFC 9113 §5.1.1).
pub const STREAM_ID_MAX: u32 = u32::MAX >> 1;

/// A number of four bytes at the front of `bytes`.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|four| u32::from_be_bytes(*four))
}

/// RST_STREAM.
pub(super) fn write_reset(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    FrameHead { length: 4, kind: Kind::RstStream, flags: 0, stream }.write(out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// WINDOW_UPDATE; an increment of 0 must not be sent.
pub(super) fn write_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    FrameHead { length: 4, kind: Kind::WindowUpdate, flags: 0, stream }.write(out);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// PING, or the answer to one.
pub(super) fn write_ping(payload: [u8; 8], flags: u8, out: &mut Vec<u8>) {
    FrameHead { length: 8, kind: Kind::Ping, flags, stream: 0 }.write(out);
    out.extend_from_slice(&payload);
}

/// GOAWAY: streams of the peer above `last` were not looked at.
pub(super) fn write_go_away(last: u32, code: ErrorCode, out: &mut Vec<u8>) {
    FrameHead { length: 8, kind: Kind::GoAway, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        for (bytes, head) in [
            (
                [0, 0x40, 0, 0, 1, 0, 0, 0, 3],
                FrameHead { length: 16 * 1024, kind: Kind::Data, flags: END_STREAM, stream: 3 },
            ),
            (
                [0xff, 0xff, 0xff, 9, 4, 0x7f, 0xff, 0xff, 0xff],
                FrameHead {
                    length: 0xff_ffff,
                    kind: Kind::Continuation,
                    flags: END_HEADERS,
                    stream: STREAM_ID_MAX,
                },
            ),
        ] {
            assert_eq!(FrameHead::read(&bytes), head);
            assert_eq!(head.bytes(), bytes);
        }
        let reserved = FrameHead::read(&[0, 0, 0, 10, 0, 0x80, 0, 0, 1]);
        assert_eq!((reserved.kind, reserved.stream), (Kind::Unknown, 1), "the first bit means nothing");
    }

    #[test]
    fn small_frames_are_written_byte_for_byte() {
        let mut out = Vec::new();
        write_reset(5, ErrorCode::CANCEL, &mut out);
        write_window_update(0, 0x1234, &mut out);
        write_ping(*b"ringway!", ACK, &mut out);
        write_go_away(7, ErrorCode::NO_ERROR, &mut out);
        let expected: [&[u8]; 4] = [
            b"\x00\x00\x04\x03\x00\x00\x00\x00\x05\x00\x00\x00\x08",
            b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x12\x34",
            b"\x00\x00\x08\x06\x01\x00\x00\x00\x00ringway!",
            b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00",
        ];
        assert_eq!(out, expected.concat());
    }
}
