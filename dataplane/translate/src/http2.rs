//! `Http2ProtocolOptions` of a connection manager or a cluster.

use policy::{
    http2::{Http2Options, Keepalive},
    limits,
};
use proto::pb::{
    envoy::{
        config::core::v3::{Http2ProtocolOptions, KeepaliveSettings},
        r#type::v3::Percent,
    },
    google::protobuf::{Duration, UInt32Value, UInt64Value},
};

use crate::{
    Origin, fields,
    reject::{At, Fault, Reason},
};

/// Most streams that the protocol's numbers allow, as `validate.rules` have it.
const STREAMS_MAX: u32 = (1 << 31) - 1;

/// What `value` sets of `defaults`. Streams and tables that are more than ours are capped for a control plane and refused in
/// the operator's file, where they would be a promise; windows are bounds of ours already, so any is taken.
///
/// Accepted without effect: what Ringway always does (a malformed message ends its stream, not the connection, whatever
/// `override_stream_error_on_invalid_http_message` and the field before it say), choices of Envoy's codecs
/// (`use_oghttp2_codec`, `enable_huffman_encoding`, `max_header_field_size_kb`, whose least is more than our longest head),
/// and `max_metadata_size`, since metadata is refused.
pub(crate) fn options(
    value: &Http2ProtocolOptions,
    defaults: Http2Options,
    origin: Origin,
    at: &At<'_>,
) -> Result<Http2Options, Fault> {
    at.refuse_all(&[
        ("allow_metadata", value.allow_metadata),
        ("custom_settings_parameters", !value.custom_settings_parameters.is_empty()),
        ("disallow_obs_text", value.disallow_obs_text.is_some_and(|on| on.value)),
    ])?;
    let mut options = Http2Options { allow_connect: value.allow_connect, ..defaults };
    let windows = (limits::HTTP2_WINDOW_BYTES_FIRST, limits::HTTP2_WINDOW_BYTES_MAX);
    for (name, number, (least, most), into) in [
        ("max_concurrent_streams", &value.max_concurrent_streams, (1, STREAMS_MAX), &mut options.streams_max),
        (
            "initial_stream_window_size",
            &value.initial_stream_window_size,
            windows,
            &mut options.stream_window_bytes,
        ),
        (
            "initial_connection_window_size",
            &value.initial_connection_window_size,
            windows,
            &mut options.connection_window_bytes,
        ),
        ("hpack_table_size", &value.hpack_table_size, (0, u32::MAX), &mut options.table_bytes),
        ("max_outbound_frames", &value.max_outbound_frames, (1, u32::MAX), &mut options.outbound_frames_max),
        (
            "max_outbound_control_frames",
            &value.max_outbound_control_frames,
            (1, u32::MAX),
            &mut options.outbound_control_frames_max,
        ),
        (
            "max_consecutive_inbound_frames_with_empty_payload",
            &value.max_consecutive_inbound_frames_with_empty_payload,
            (0, u32::MAX),
            &mut options.empty_frames_max,
        ),
        (
            "max_inbound_priority_frames_per_stream",
            &value.max_inbound_priority_frames_per_stream,
            (0, u32::MAX),
            &mut options.priority_frames_per_stream_max,
        ),
        (
            "max_inbound_window_update_frames_per_data_frame_sent",
            &value.max_inbound_window_update_frames_per_data_frame_sent,
            (1, u32::MAX),
            &mut options.window_updates_per_data_frame_max,
        ),
    ] {
        if let Some(UInt32Value { value }) = number {
            *into = fields::between(*value, least, most, &at.field(name))?;
        }
    }
    for (name, most, into) in [
        ("max_concurrent_streams", limits::HTTP2_STREAMS_MAX, &mut options.streams_max),
        ("hpack_table_size", limits::HTTP2_TABLE_BYTES_MAX, &mut options.table_bytes),
    ] {
        if origin == Origin::Static {
            fields::between(*into, 0, most, &at.field(name))?;
        }
        *into = (*into).min(most);
    }
    // More than 32 bits can say is not a rate that anybody reaches.
    let saturated = |number: &UInt64Value| u32::try_from(number.value).unwrap_or(u32::MAX);
    options.resets_burst = value.stream_reset_burst.as_ref().map_or(options.resets_burst, saturated);
    options.resets_per_second = value.stream_reset_rate.as_ref().map_or(options.resets_per_second, saturated);
    if let Some(settings) = &value.connection_keepalive {
        options.keepalive = keepalive(settings, &at.field("connection_keepalive"))?;
    }
    Ok(options)
}

/// `None` where no interval is given: then nothing is ever asked.
fn keepalive(value: &KeepaliveSettings, at: &At<'_>) -> Result<Option<Keepalive>, Fault> {
    let duration = |duration: &Duration, name| {
        let at = at.field(name);
        let duration = fields::duration(duration, &at)?;
        if duration < limits::HTTP2_KEEPALIVE_MIN {
            let value = format!("{duration:?}");
            return Err(at.fault(Reason::Invalid { value, expected: "a duration of 1ms or more" }));
        }
        Ok(duration)
    };
    let optional = |of: Option<&Duration>, name| of.map(|of| duration(of, name)).transpose();
    let timeout = duration(at.field("timeout").require(value.timeout.as_ref())?, "timeout")?;
    let interval = optional(value.interval.as_ref(), "interval")?;
    let idle_interval = optional(value.connection_idle_interval.as_ref(), "connection_idle_interval")?;
    let jitter_percent = match &value.interval_jitter {
        None => limits::HTTP2_KEEPALIVE_JITTER_PERCENT_DEFAULT,
        Some(Percent { value }) if (0.0..=100.0).contains(value) => value.round() as u8,
        Some(Percent { value }) => {
            let reason = Reason::Invalid { value: value.to_string(), expected: "a percentage" };
            return Err(at.field("interval_jitter").fault(reason));
        }
    };
    let keepalive = Keepalive { interval, jitter_percent, idle_interval, timeout };
    Ok((interval.is_some() || idle_interval.is_some()).then_some(keepalive))
}
