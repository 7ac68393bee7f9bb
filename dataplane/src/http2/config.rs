//! What the configuration says of HTTP/2, as the protocol's own types have it.

use std::time::Duration;

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
pub fn downstream_config(manager: &HttpConnectionManager, random: u64) -> Config {
    let head = parse::Limits {
        head_bytes_max: manager.request_head_bytes_max,
        headers_count_max: manager.headers_count_max,
        target_bytes_max: manager.request_head_bytes_max,
    };
    let mut config = config(&manager.http2, head, random);
    let mut kinds = manager.upgrades.rules().filter(|(kind, _)| *kind != upgrade::CONNECT);
    config.settings.connect_protocol |= kinds.any(|(_, is_allowed)| is_allowed);
    config
}

/// A connection of ours to an upstream.
pub fn upstream_config(cluster: &ClusterConfig, random: u64) -> Config {
    let head = parse::Limits {
        head_bytes_max: cluster.response_head_bytes_max,
        headers_count_max: cluster.headers_count_max,
        target_bytes_max: 0,
    };
    config(&cluster.http2, head, random)
}

fn config(options: &Http2Options, head: parse::Limits, random: u64) -> Config {
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
        keepalive: options.keepalive.map(|keepalive| Keepalive {
            interval: keepalive.interval.map(|interval| later(interval, keepalive.jitter_percent, random)),
            idle_interval: keepalive.idle_interval,
            timeout: keepalive.timeout,
        }),
    }
}

/// An interval and up to so many percent of it more, by chance: so that not all connections ask at once.
fn later(interval: Duration, percent: u8, random: u64) -> Duration {
    const STEPS: u64 = 1024;
    let step = u32::try_from(random % STEPS).unwrap_or_default();
    interval.saturating_add(interval.saturating_mul(u32::from(percent)) / 100 * step / STEPS as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_longer_by_no_more_than_its_jitter() {
        let second = Duration::from_secs(1);
        for (percent, random, expected) in
            [(0, u64::MAX, 1000), (15, 0, 1000), (15, 512, 1075), (100, 1023, 1999), (15, 1024, 1000)]
        {
            assert_eq!(later(second, percent, random).as_millis(), expected, "{percent} {random}");
        }
    }
}
