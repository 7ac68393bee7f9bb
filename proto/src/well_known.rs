//! From google.protobuf types to the standard library's. Functions, since neither side is ours; the types are
//! those that `envoy-types` generates, which are not those of `prost-types`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::pb::google::protobuf;

/// A `google.protobuf.Duration` as a std one; `None` if it is negative or its nanoseconds are out of range.
pub fn duration(duration: &protobuf::Duration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

/// The other way; saturates at the largest protobuf duration.
pub fn to_duration(duration: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A point of wall-clock time; times before 1970 become 1970.
pub fn to_timestamp(time: SystemTime) -> protobuf::Timestamp {
    let since = to_duration(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    protobuf::Timestamp { seconds: since.seconds, nanos: since.nanos }
}

/// The string at `path` of nested structs, as in node metadata: `["ringway", "role"]`.
pub fn string_at<'a>(root: &'a protobuf::Struct, path: &[&str]) -> Option<&'a str> {
    match value_at(root, path)?.kind.as_ref()? {
        protobuf::value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// The value at `path` of nested structs.
pub fn value_at<'a>(root: &'a protobuf::Struct, path: &[&str]) -> Option<&'a protobuf::Value> {
    let (first, rest) = path.split_first()?;
    let value = root.fields.get(*first)?;
    if rest.is_empty() {
        return Some(value);
    }
    match value.kind.as_ref()? {
        protobuf::value::Kind::StructValue(inner) => value_at(inner, rest),
        _ => None,
    }
}

/// A string as `google.protobuf.Value`.
pub fn string(text: impl Into<String>) -> protobuf::Value {
    protobuf::Value { kind: Some(protobuf::value::Kind::StringValue(text.into())) }
}

/// Fields as a `google.protobuf.Value` that holds a struct.
pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, protobuf::Value)>) -> protobuf::Value {
    protobuf::Value { kind: Some(protobuf::value::Kind::StructValue(structure(fields))) }
}

/// Fields as a `google.protobuf.Struct`.
pub fn structure<K: Into<String>>(
    fields: impl IntoIterator<Item = (K, protobuf::Value)>,
) -> protobuf::Struct {
    protobuf::Struct { fields: fields.into_iter().map(|(name, value)| (name.into(), value)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_the_way_there_and_back_and_bad_ones_are_none() {
        for good in [Duration::ZERO, Duration::from_millis(250), Duration::new(15, 999_999_999)] {
            assert_eq!(duration(&to_duration(good)), Some(good));
        }
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(duration(&protobuf::Duration { seconds, nanos }), None, "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn a_value_is_found_by_its_path_and_only_with_its_type() {
        let metadata = structure([("ringway", object([("role", string("sidecar"))]))]);
        assert_eq!(string_at(&metadata, &["ringway", "role"]), Some("sidecar"));
        for path in [&["ringway"][..], &["ringway", "name"], &["ringway", "role", "x"], &[]] {
            assert_eq!(string_at(&metadata, path), None, "{path:?}");
        }
    }
}
