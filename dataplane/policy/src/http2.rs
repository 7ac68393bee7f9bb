//! How HTTP/2 is spoken on a connection, downstream or upstream: what is told to the other end, and what is taken from it.
//! Data only.

use core::time::Duration;

use crate::limits;

/// How HTTP/2 is spoken (Envoy: `Http2ProtocolOptions`). The budgets end a connection when they are passed, with
/// `ENHANCE_YOUR_CALM`; each bounds what an end that does not read, or sends what means nothing, can make us do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Http2Options {
    /// Most streams at a time. Downstream it is what we announce; upstream what we open, or less where the other end
    /// announces less (Envoy: `max_concurrent_streams`). From 1 to [`limits::HTTP2_STREAMS_MAX`].
    pub streams_max: u32,
    /// What the receive window of a stream grows to at most, in bytes, as the measured bandwidth-delay product asks for it;
    /// it begins with [`limits::HTTP2_WINDOW_BYTES_FIRST`] and is never less (Envoy: `initial_stream_window_size`).
    pub stream_window_bytes: u32,
    /// The same for the window of a connection, which its streams share (Envoy: `initial_connection_window_size`).
    pub connection_window_bytes: u32,
    /// Most that a dynamic table of HPACK may take, ours and the one that the other end asks of us, in bytes; at most
    /// [`limits::HTTP2_TABLE_BYTES_MAX`] (Envoy: `hpack_table_size`).
    pub table_bytes: u32,
    /// Take CONNECT with `:protocol` (RFC 8441), which is how an upgrade is asked for on HTTP/2 (Envoy: `allow_connect`).
    pub allow_connect: bool,
    /// Whether and when the other end is asked if it is still there (Envoy: `connection_keepalive`).
    pub keepalive: Option<Keepalive>,
    /// Frames of all types that wait to be sent (Envoy: `max_outbound_frames`); above zero. It is not counted:
    /// what waits is bounded in bytes, by what one send may carry.
    pub outbound_frames_max: u32,
    /// Of these, PING, SETTINGS and RST_STREAM, which the other end can make us owe (Envoy:
    /// `max_outbound_control_frames`); above zero.
    pub outbound_control_frames_max: u32,
    /// HEADERS, CONTINUATION and DATA in a row without payload that do not end their stream (Envoy:
    /// `max_consecutive_inbound_frames_with_empty_payload`); with 0 the first is one too many.
    pub empty_frames_max: u32,
    /// PRIORITY frames for each stream that was opened, and for one more (Envoy:
    /// `max_inbound_priority_frames_per_stream`).
    pub priority_frames_per_stream_max: u32,
    /// WINDOW_UPDATE frames for each DATA frame that we sent (Envoy:
    /// `max_inbound_window_update_frames_per_data_frame_sent`); above zero.
    pub window_updates_per_data_frame_max: u32,
    /// RST_STREAM frames that may come at once (Envoy: `stream_reset_burst`) ...
    pub resets_burst: u32,
    /// ... and how many more each second (Envoy: `stream_reset_rate`).
    pub resets_per_second: u32,
}

/// When PINGs are sent (Envoy: `KeepaliveSettings`). At least one of the intervals is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Time between two PINGs.
    pub interval: Option<Duration>,
    /// Most that is added to each interval by chance, in percent of it, so that many connections do not ping at once.
    pub jitter_percent: u8,
    /// A connection that was idle so long gets a PING before its next stream.
    pub idle_interval: Option<Duration>,
    /// Time for the answer. Any frame that comes starts it anew: who sends is there.
    pub timeout: Duration,
}

impl Http2Options {
    /// Every default, for connections that come to us.
    pub fn downstream() -> Http2Options {
        Http2Options::new(limits::HTTP2_STREAMS_DOWNSTREAM_DEFAULT)
    }

    /// Every default, for connections that we make.
    pub fn upstream() -> Http2Options {
        Http2Options::new(limits::HTTP2_STREAMS_UPSTREAM_DEFAULT)
    }

    fn new(streams_max: u32) -> Http2Options {
        Http2Options {
            streams_max,
            stream_window_bytes: limits::HTTP2_STREAM_WINDOW_BYTES_DEFAULT,
            connection_window_bytes: limits::HTTP2_CONNECTION_WINDOW_BYTES_DEFAULT,
            table_bytes: limits::HTTP2_TABLE_BYTES_DEFAULT,
            allow_connect: false,
            keepalive: None,
            outbound_frames_max: limits::HTTP2_OUTBOUND_FRAMES_DEFAULT,
            outbound_control_frames_max: limits::HTTP2_OUTBOUND_CONTROL_FRAMES_DEFAULT,
            empty_frames_max: limits::HTTP2_EMPTY_FRAMES_DEFAULT,
            priority_frames_per_stream_max: limits::HTTP2_PRIORITY_FRAMES_PER_STREAM_DEFAULT,
            window_updates_per_data_frame_max: limits::HTTP2_WINDOW_UPDATES_PER_DATA_FRAME_DEFAULT,
            resets_burst: limits::HTTP2_RESETS_BURST_DEFAULT,
            resets_per_second: limits::HTTP2_RESETS_PER_SECOND_DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_sides_differ_in_the_streams_alone() {
        let (down, up) = (Http2Options::downstream(), Http2Options::upstream());
        assert_eq!((down.streams_max, up.streams_max), (100, 1024));
        assert_eq!(Http2Options { streams_max: up.streams_max, ..down }, up);
    }
}
