//! What the configuration says of HTTP/2, as the protocol's own types have it.

use policy::{
    cluster::ClusterConfig, http2::Http2Options, limits, network_filter::HttpConnectionManager, upgrade,
};
use wire::{
    http1::parse,
    http2::{
        Config, Keepalive,
        budget::{Allowance, FrameBounds},
        settings::Settings,
    },
};

use crate::relay::TRAILER_LIMITS;

/// A connection of a client to us.
pub fn downstream_config(manager: &HttpConnectionManager) -> Config {
    let head = parse::Limits {
        head_bytes_max: manager.request_head_bytes_max,
        headers_count_max: manager.headers_count_max,
        target_bytes_max: manager.request_head_bytes_max,
    };
    let mut config = config(&manager.http2, head);
    let mut kinds = manager.upgrades.rules().filter(|(kind, _)| *kind != upgrade::CONNECT);
    config.settings.connect_protocol |= kinds.any(|(_, is_allowed)| is_allowed);
    config
}

/// A connection of ours to an upstream.
pub fn upstream_config(cluster: &ClusterConfig) -> Config {
    let head = parse::Limits {
        head_bytes_max: cluster.response_head_bytes_max,
        headers_count_max: cluster.headers_count_max,
        target_bytes_max: 0,
    };
    config(&cluster.http2, head)
}

fn config(options: &Http2Options, head: parse::Limits) -> Config {
    Config {
        settings: Settings {
            table_bytes: options.table_bytes,
            streams_max: options.streams_max,
            window_bytes: limits::HTTP2_WINDOW_BYTES_FIRST,
            head_bytes_max: u32::try_from(head.head_bytes_max).unwrap_or(u32::MAX),
            connect_protocol: options.allow_connect,
            ..Settings::default()
        },
        stream_window_bytes_max: options.stream_window_bytes,
        connection_window_bytes: options.connection_window_bytes,
        own_streams_max: options.streams_max,
        head,
        trailers: TRAILER_LIMITS,
        resets: Allowance { most: options.resets_burst, per_second: options.resets_per_second, per_use: 0 },
        chatter: Allowance {
            most: limits::HTTP2_CHATTER_BURST,
            per_second: limits::HTTP2_CHATTER_PER_SECOND,
            per_use: options.window_updates_per_data_frame_max,
        },
        // `outbound_frames_max` has no count of its own: nothing more is received, and no DATA written, while more output
        // waits than `wire::http2::conn::OUTPUT_BYTES_MAX`, so frames that wait are bounded by their bytes.
        frames: FrameBounds {
            empty_max: options.empty_frames_max,
            priority_per_stream_max: options.priority_frames_per_stream_max,
            window_updates_per_data_max: options.window_updates_per_data_frame_max,
            answers_max: options.outbound_control_frames_max,
        },
        keepalive: options.keepalive.and_then(|keepalive| {
            Some(Keepalive { interval: keepalive.interval?, timeout: keepalive.timeout })
        }),
    }
}
