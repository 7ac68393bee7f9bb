//! gRPC calls by method and status, as Envoy's `grpc_stats` counts them.
//!
//! Methods are what clients say they are, so their number is bounded; what is beyond the bound counts together. Written by one
//! worker and read by the control thread, without a lock: a place is filled once and stays.

use std::sync::OnceLock;

use policy::{grpc, limits};
use wire::head::RequestView;

use super::metrics::Counter;

/// Calls to one cluster, by method.
#[derive(Debug, Default)]
pub struct GrpcStats(OnceLock<Box<[OnceLock<Method>]>>);

/// Calls of one method.
#[derive(Debug)]
pub struct Method {
    /// `service/method`; empty for all that found no place.
    pub path: Box<str>,
    /// By the number of the status; last those with another, or none.
    pub statuses: [Counter; STATUSES],
}

/// Statuses that gRPC knows, and one for all others.
const STATUSES: usize = 18;

impl GrpcStats {
    /// Counts a call of `path`, which begins with `/`, that ended with `status`.
    pub fn count(&self, path: &[u8], status: Option<u8>) {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let places =
            self.0.get_or_init(|| (0..limits::GRPC_METHODS_MAX + 1).map(|_| OnceLock::new()).collect());
        let Some((others, places)) = places.split_last() else { return };
        let place = places.iter().find(|place| place.get().is_none_or(|known| known.path.as_bytes() == path));
        let name = str::from_utf8(path).ok().filter(|name| name.len() <= limits::GRPC_METHOD_BYTES_MAX);
        let method = match (place, name) {
            (Some(place), Some(name)) => place.get_or_init(|| Method::new(name)),
            _ => others.get_or_init(|| Method::new("")),
        };
        let known = status.map(usize::from).filter(|status| *status < STATUSES - 1);
        if let Some(counter) = method.statuses.get(known.unwrap_or(STATUSES - 1)) {
            counter.inc();
        }
    }

    /// The methods that were called.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.0.get().into_iter().flatten().filter_map(OnceLock::get)
    }
}

impl Method {
    fn new(path: &str) -> Method {
        Method { path: path.into(), statuses: Default::default() }
    }

    /// Service and method.
    pub fn names(&self) -> (&str, &str) {
        self.path.split_once('/').unwrap_or(("other", "other"))
    }
}

/// Whether a request is a gRPC call.
pub fn is_call(view: &RequestView<'_>) -> bool {
    view.header_values(b"content-type").next().is_some_and(grpc::is_grpc)
}

/// The status that a `grpc-status` says.
pub fn status(value: &[u8]) -> Option<u8> {
    str::from_utf8(value).ok()?.trim_ascii().parse().ok()
}

/// The same, of trailer lines.
pub fn status_of_lines(lines: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"grpc-status:";
    let mut lines = lines.split(|byte| *byte == b'\n');
    let line =
        lines.find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    status(line.get(NAME.len()..)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(stats: &GrpcStats) -> Vec<(String, usize, u64)> {
        let of = |method: &Method| {
            let counted = method.statuses.iter().enumerate().filter(|(_, counter)| counter.get() > 0);
            counted
                .map(|(status, counter)| (method.path.to_string(), status, counter.get()))
                .collect::<Vec<_>>()
        };
        stats.methods().flat_map(of).collect()
    }

    #[test]
    fn calls_are_counted_by_method_and_status() {
        let stats = GrpcStats::default();
        for (path, status) in [
            (&b"/shop.Cart/Add"[..], Some(0)),
            (b"/shop.Cart/Add", Some(0)),
            (b"/shop.Cart/Add", Some(14)),
            (b"/shop.Cart/Get", None),
            (b"/shop.Cart/Get", Some(17)),
            (b"/\xff", Some(0)),
        ] {
            stats.count(path, status);
        }
        let expected =
            [("shop.Cart/Add", 0, 2), ("shop.Cart/Add", 14, 1), ("shop.Cart/Get", 17, 2), ("", 0, 1)];
        assert_eq!(counts(&stats), expected.map(|(path, status, count)| (path.to_owned(), status, count)));
        assert_eq!(stats.methods().next().unwrap().names(), ("shop.Cart", "Add"));
    }

    #[test]
    fn who_makes_up_methods_fills_the_places_and_no_more() {
        let stats = GrpcStats::default();
        for method in 0..10 * limits::GRPC_METHODS_MAX {
            stats.count(format!("/made.Up/{method}").as_bytes(), Some(0));
        }
        stats.count(&[b'/'; limits::GRPC_METHOD_BYTES_MAX + 2], Some(0));
        assert_eq!(stats.methods().count(), limits::GRPC_METHODS_MAX + 1);
        let others = stats.methods().last().unwrap();
        assert_eq!(others.statuses[0].get() as usize, 9 * limits::GRPC_METHODS_MAX + 1);
        assert_eq!(others.names(), ("other", "other"));
    }

    #[test]
    fn a_status_is_found_in_trailer_lines() {
        for (lines, expected) in [
            (&b"grpc-status: 0\r\n"[..], Some(0)),
            (b"x: 1\r\nGrpc-Status:14\r\ngrpc-message: gone\r\n", Some(14)),
            (b"grpc-status: many\r\n", None),
            (b"grpc-status-x: 1\r\n", None),
            (b"", None),
        ] {
            assert_eq!(status_of_lines(lines), expected);
        }
    }
}
