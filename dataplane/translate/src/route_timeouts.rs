//! How long an exchange of a route may take: `timeout`, `idle_timeout`, `max_stream_duration`.

use policy::{
    limits,
    route::{DurationMax, Forward, GrpcTimeout, IdleTimeout, StreamDuration},
};
use proto::pb::envoy::config::route::v3::{RouteAction, route_action::MaxStreamDuration};

use crate::{
    fields,
    reject::{At, Fault},
};

/// Sets all of them. Where `max_stream_duration` is given there is no other `timeout`, as in Envoy, since both are about one
/// thing; the times of gRPC that it replaced (`max_grpc_timeout`, `grpc_timeout_offset`) are accepted without effect.
pub(crate) fn apply<T>(value: &RouteAction, forward: &mut Forward<T>, at: &At<'_>) -> Result<(), Fault> {
    let timeout = value.timeout.as_ref();
    forward.timeout = fields::timeout(timeout, Some(limits::ROUTE_TIMEOUT_DEFAULT), &at.field("timeout"))?;
    forward.idle_timeout = match &value.idle_timeout {
        None => IdleTimeout::Inherit,
        Some(timeout) => match fields::duration(timeout, &at.field("idle_timeout"))? {
            timeout if timeout.is_zero() => IdleTimeout::Off,
            timeout => IdleTimeout::After(timeout),
        },
    };
    if let Some(duration) = &value.max_stream_duration {
        forward.timeout = None;
        forward.stream_duration = stream_duration(duration, &at.field("max_stream_duration"))?;
    }
    Ok(())
}

/// An offset means something only to a timeout that is taken, so without `grpc_timeout_header_max` it has no effect.
fn stream_duration(value: &MaxStreamDuration, at: &At<'_>) -> Result<StreamDuration, Fault> {
    let max = match &value.max_stream_duration {
        None => DurationMax::Inherit,
        Some(duration) => match fields::duration(duration, &at.field("max_stream_duration"))? {
            duration if duration.is_zero() => DurationMax::Off,
            duration => DurationMax::After(duration),
        },
    };
    let offset = value.grpc_timeout_header_offset.as_ref();
    let offset =
        offset.map(|offset| fields::duration(offset, &at.field("grpc_timeout_header_offset"))).transpose()?;
    let grpc_timeout = match &value.grpc_timeout_header_max {
        None => None,
        Some(max) => {
            let max = fields::timeout(Some(max), None, &at.field("grpc_timeout_header_max"))?;
            Some(GrpcTimeout { max, offset: offset.unwrap_or_default() })
        }
    };
    Ok(StreamDuration { max, grpc_timeout })
}
