//! How long an exchange may take as a whole, by the route, the connection manager, or what a gRPC client says.

use core::time::Duration;

/// How long an exchange may take from its request head on (Envoy: `MaxStreamDuration`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StreamDuration {
    /// The most, unless `grpc-timeout` decides.
    pub max: DurationMax,
    /// Whether `grpc-timeout` decides.
    pub grpc_timeout: Option<GrpcTimeout>,
}

/// The most that an exchange may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DurationMax {
    /// What the connection manager's `max_stream_duration` says.
    #[default]
    Inherit,
    /// For ever (Envoy: 0).
    Off,
    /// This long.
    After(Duration),
}

/// How the `grpc-timeout` of a request is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GrpcTimeout {
    /// At most as this; `None` is as it is (Envoy: `grpc_timeout_header_max`, 0).
    pub max: Option<Duration>,
    /// Less this, so that we answer before the client gives up (Envoy: `grpc_timeout_header_offset`).
    pub offset: Duration,
}

impl StreamDuration {
    /// How long an exchange may take; `None` is for ever, zero is no time at all. `manager` is the connection manager's most,
    /// `grpc_timeout` what the request says ([`crate::grpc::timeout`]).
    pub fn limit(&self, manager: Option<Duration>, grpc_timeout: Option<Duration>) -> Option<Duration> {
        if let (Some(asked), Some(rule)) = (grpc_timeout, &self.grpc_timeout) {
            let asked = rule.max.map_or(asked, |max| asked.min(max));
            return Some(asked.saturating_sub(rule.offset));
        }
        match self.max {
            DurationMax::Inherit => manager,
            DurationMax::Off => None,
            DurationMax::After(max) => Some(max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_timeout_goes_first_where_the_route_takes_it() {
        let seconds = Duration::from_secs;
        let route = |max, grpc_timeout: Option<(Option<u64>, u64)>| StreamDuration {
            max,
            grpc_timeout: grpc_timeout
                .map(|(max, offset)| GrpcTimeout { max: max.map(seconds), offset: seconds(offset) }),
        };
        use DurationMax::{After, Inherit, Off};
        // Route, the connection manager's most, what the client says; what holds.
        for (route, manager, asked, expected) in [
            (route(Inherit, None), None, None, None),
            (route(Inherit, None), Some(7), Some(1), Some(7)),
            (route(Off, None), Some(7), Some(1), None),
            (route(After(seconds(3)), None), Some(7), Some(1), Some(3)),
            (route(After(seconds(3)), Some((None, 0))), Some(7), None, Some(3)),
            (route(After(seconds(3)), Some((None, 0))), Some(7), Some(9), Some(9)),
            (route(Inherit, Some((Some(5), 0))), None, Some(9), Some(5)),
            (route(Inherit, Some((Some(5), 0))), None, Some(4), Some(4)),
            (route(Inherit, Some((Some(5), 2))), None, Some(9), Some(3)),
            (route(Inherit, Some((None, 2))), None, Some(1), Some(0)),
            (route(Inherit, Some((None, 2))), None, Some(0), Some(0)),
        ] {
            let limit = route.limit(manager.map(seconds), asked.map(seconds));
            assert_eq!(limit, expected.map(seconds), "{route:?} {manager:?} {asked:?}");
        }
    }
}
