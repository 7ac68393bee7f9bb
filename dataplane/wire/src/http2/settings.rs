//! SETTINGS: what the peer takes, and what we tell it (RFC 9113 §6.5).

use alloc::vec::Vec;

use super::{
    error::ConnectionError,
    flow::{WINDOW_BYTES_INITIAL, WINDOW_BYTES_MAX},
    frame::{ACK, FrameHead, Kind, PAYLOAD_BYTES_MAX},
};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 §3.
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// Bytes of one setting.
const SETTING_BYTES: usize = 6;

/// What one side takes. The other's, until it says so, is what the default says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Bytes of the dynamic table of its decoder.
    pub table_bytes: u32,
    /// Streams that it lets the other side open at a time.
    pub streams_max: u32,
    /// Bytes that may be sent on a new stream.
    pub window_bytes: u32,
    /// Longest payload of a frame, in bytes.
    pub payload_bytes_max: u32,
    /// Bytes of a head that it takes, as RFC 9113 §6.5.2 counts them; advice only.
    pub head_bytes_max: u32,
    /// It takes CONNECT with a protocol (RFC 8441).
    pub connect_protocol: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            table_bytes: 4096,
            streams_max: u32::MAX,
            window_bytes: WINDOW_BYTES_INITIAL,
            payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
            head_bytes_max: u32::MAX,
            connect_protocol: false,
        }
    }
}

impl Settings {
    /// Takes on what a SETTINGS frame says. Each size of the table is given to `resize`: the smallest counts, too, since what
    /// does not fit it is gone (RFC 7541 §4.2).
    pub(super) fn read(
        &mut self,
        payload: &[u8],
        from_server: bool,
        mut resize: impl FnMut(u32),
    ) -> Result<(), ConnectionError> {
        let (settings, rest) = payload.as_chunks::<SETTING_BYTES>();
        if !rest.is_empty() {
            return Err(ConnectionError::FrameSize);
        }
        for [a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                HEADER_TABLE_SIZE => {
                    self.table_bytes = value;
                    resize(value);
                }
                // A server must not enable push, nor does it matter to us what a client says (RFC 9113 §6.5.2).
                ENABLE_PUSH if value > 1 || from_server && value == 1 => {
                    return Err(ConnectionError::Setting);
                }
                MAX_CONCURRENT_STREAMS => self.streams_max = value,
                INITIAL_WINDOW_SIZE if value > WINDOW_BYTES_MAX => return Err(ConnectionError::FlowControl),
                INITIAL_WINDOW_SIZE => self.window_bytes = value,
                MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(ConnectionError::Setting);
                }
                MAX_FRAME_SIZE => self.payload_bytes_max = value,
                MAX_HEADER_LIST_SIZE => self.head_bytes_max = value,
                // It must not be taken back (RFC 8441 §3).
                ENABLE_CONNECT_PROTOCOL if value > 1 || self.connect_protocol && value == 0 => {
                    return Err(ConnectionError::Setting);
                }
                ENABLE_CONNECT_PROTOCOL => self.connect_protocol = value == 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes a SETTINGS frame that says this, as far as it is not what is taken for granted.
    pub(super) fn write(&self, is_server: bool, out: &mut Vec<u8>) {
        let known = Settings::default();
        let mut payload = [0; 7 * SETTING_BYTES];
        let mut length = 0;
        let mut put = |id: u16, value: u32| {
            if let Some(place) = payload.get_mut(length..length + SETTING_BYTES) {
                let [a, b] = id.to_be_bytes();
                let [c, d, e, f] = value.to_be_bytes();
                place.copy_from_slice(&[a, b, c, d, e, f]);
                length += SETTING_BYTES;
            }
        };
        if self.table_bytes != known.table_bytes {
            put(HEADER_TABLE_SIZE, self.table_bytes);
        }
        if !is_server {
            put(ENABLE_PUSH, 0);
        }
        if is_server && self.streams_max != known.streams_max {
            put(MAX_CONCURRENT_STREAMS, self.streams_max);
        }
        if self.window_bytes != known.window_bytes {
            put(INITIAL_WINDOW_SIZE, self.window_bytes);
        }
        if self.head_bytes_max != known.head_bytes_max {
            put(MAX_HEADER_LIST_SIZE, self.head_bytes_max);
        }
        if is_server && self.connect_protocol {
            put(ENABLE_CONNECT_PROTOCOL, 1);
        }
        FrameHead { length: length as u32, kind: Kind::Settings, flags: 0, stream: 0 }.write(out);
        out.extend_from_slice(payload.get(..length).unwrap_or_default());
    }

    /// Writes that the peer's were taken on.
    pub(super) fn write_ack(out: &mut Vec<u8>) {
        FrameHead { length: 0, kind: Kind::Settings, flags: ACK, stream: 0 }.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &[u8], from_server: bool) -> Result<Settings, ConnectionError> {
        let mut settings = Settings::default();
        settings.read(payload, from_server, drop).map(|()| settings)
    }

    #[test]
    fn what_is_written_is_read() {
        let ours = Settings {
            table_bytes: 0,
            streams_max: 100,
            window_bytes: 1 << 20,
            payload_bytes_max: 16 * 1024,
            head_bytes_max: 60 * 1024,
            connect_protocol: true,
        };
        let mut out = Vec::new();
        ours.write(true, &mut out);
        assert_eq!(read(&out[9..], true), Ok(ours));
        out.clear();
        Settings::default().write(true, &mut out);
        assert_eq!(out, [0, 0, 0, 4, 0, 0, 0, 0, 0], "nothing is said that is known");
        out.clear();
        Settings::default().write(false, &mut out);
        assert_eq!(out[9..], [0, 2, 0, 0, 0, 0], "but that a client takes no push");
    }

    #[test]
    fn settings_out_of_their_bounds_are_refused() {
        use ConnectionError::{FlowControl, FrameSize, Setting};
        for (payload, from_server, expected) in [
            (&[0, 1, 0, 0, 0][..], false, FrameSize),
            (&[0, 2, 0, 0, 0, 2], false, Setting),
            (&[0, 2, 0, 0, 0, 1], true, Setting),
            (&[0, 4, 0x80, 0, 0, 0], false, FlowControl),
            (&[0, 5, 0, 0, 0x3f, 0xff], false, Setting),
            (&[0, 5, 1, 0, 0, 0], false, Setting),
            (&[0, 8, 0, 0, 0, 2], false, Setting),
            (&[0, 8, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0], false, Setting),
        ] {
            assert_eq!(read(payload, from_server), Err(expected), "{payload:?}");
        }
        let unknown = read(&[0x0a, 0x0a, 1, 2, 3, 4, 0, 2, 0, 0, 0, 1], false);
        assert_eq!(unknown, Ok(Settings::default()), "of a client push is its own business");
    }
}
