//! The static table (RFC 7541 appendix A), and finding a field in it.

use super::table::Line;
use crate::head::Known;
use crate::http2::field::{Judged, Kind, hash, hash_name};

/// Entries of the static table; an index above names one of the dynamic table.
pub(super) const STATIC_COUNT: usize = 61;

const OTHER: Kind = Kind::Regular(Known::Other);

macro_rules! lines {
    ($($kind:expr, $name:literal, $value:literal;)*) => {
        [$(line($kind, $name.len(), concat!($name, ": ", $value, "\r\n").as_bytes())),*]
    };
}

/// Index 1 comes first.
static LINES: [Line<'static>; STATIC_COUNT] = lines! {
    Kind::Authority, ":authority", "";
    Kind::Method, ":method", "GET";
    Kind::Method, ":method", "POST";
    Kind::Path, ":path", "/";
    Kind::Path, ":path", "/index.html";
    Kind::Scheme, ":scheme", "http";
    Kind::Scheme, ":scheme", "https";
    Kind::Status, ":status", "200";
    Kind::Status, ":status", "204";
    Kind::Status, ":status", "206";
    Kind::Status, ":status", "304";
    Kind::Status, ":status", "400";
    Kind::Status, ":status", "404";
    Kind::Status, ":status", "500";
    OTHER, "accept-charset", "";
    OTHER, "accept-encoding", "gzip, deflate";
    OTHER, "accept-language", "";
    OTHER, "accept-ranges", "";
    OTHER, "accept", "";
    OTHER, "access-control-allow-origin", "";
    OTHER, "age", "";
    OTHER, "allow", "";
    OTHER, "authorization", "";
    OTHER, "cache-control", "";
    OTHER, "content-disposition", "";
    OTHER, "content-encoding", "";
    OTHER, "content-language", "";
    Kind::Regular(Known::ContentLength), "content-length", "";
    OTHER, "content-location", "";
    OTHER, "content-range", "";
    OTHER, "content-type", "";
    OTHER, "cookie", "";
    Kind::Regular(Known::Date), "date", "";
    OTHER, "etag", "";
    Kind::Regular(Known::Expect), "expect", "";
    OTHER, "expires", "";
    OTHER, "from", "";
    Kind::Regular(Known::Host), "host", "";
    OTHER, "if-match", "";
    OTHER, "if-modified-since", "";
    OTHER, "if-none-match", "";
    OTHER, "if-range", "";
    OTHER, "if-unmodified-since", "";
    OTHER, "last-modified", "";
    OTHER, "link", "";
    OTHER, "location", "";
    OTHER, "max-forwards", "";
    Kind::Regular(Known::ProxyAuthenticate), "proxy-authenticate", "";
    Kind::Regular(Known::ProxyAuthorization), "proxy-authorization", "";
    OTHER, "range", "";
    OTHER, "referer", "";
    OTHER, "refresh", "";
    OTHER, "retry-after", "";
    Kind::Regular(Known::Server), "server", "";
    OTHER, "set-cookie", "";
    OTHER, "strict-transport-security", "";
    Kind::Regular(Known::TransferEncoding), "transfer-encoding", "";
    OTHER, "user-agent", "";
    OTHER, "vary", "";
    OTHER, "via", "";
    OTHER, "www-authenticate", "";
};

const fn line(kind: Kind, name_len: usize, line: &'static [u8]) -> Line<'static> {
    let (name, rest) = line.split_at(name_len);
    let (_, value) = rest.split_at(2);
    let (value, _) = value.split_at(value.len() - 2);
    let judged = Judged { kind, name_ok: true, value_ok: true, hash: hash(name, value) };
    Line { line, name_len, judged }
}

/// The entry with `index`, which begins at 1.
pub(super) fn get(index: usize) -> Option<Line<'static>> {
    LINES.get(index.checked_sub(1)?).copied()
}

/// The entries of each pseudo-header field: the first, and how many.
pub(super) type Entries = (usize, usize);
pub(super) const AUTHORITY: Entries = (1, 1);
pub(super) const METHOD: Entries = (2, 2);
pub(super) const PATH: Entries = (4, 2);
pub(super) const SCHEME: Entries = (6, 2);
pub(super) const STATUS: Entries = (8, 7);

/// The index of the one among `entries` that has `value`.
pub(super) fn find_value_among((first, count): Entries, value: &[u8]) -> Option<usize> {
    let lines = LINES.get(first - 1..first - 1 + count)?;
    Some(first + lines.iter().position(|line| line.value() == value)?)
}

/// The first index whose entry has `name`, the case of letters ignored.
pub(super) fn find_name(name: &[u8], name_hash: u32) -> Option<usize> {
    let index = usize::from(NAMES[slot(name_hash)]);
    get(index).is_some_and(|line| line.name().eq_ignore_ascii_case(name)).then_some(index)
}

/// The index of the entry with `value` among those that have the name of the entry `first`, the first that has it.
pub(super) fn find_value(first: usize, value: &[u8]) -> Option<usize> {
    let lines = LINES.get(first.checked_sub(1)?..)?;
    let name = lines.first()?.name();
    let found = lines.iter().take_while(|line| line.name() == name).position(|line| line.value() == value)?;
    Some(first + found)
}

/// Where an index is found by the hash of its name: no two names share a place, which [`SPREAD`] was searched for.
static NAMES: [u8; 256] = {
    let mut names = [0; 256];
    let mut index = STATIC_COUNT;
    // From the last on, so that the first of those with one name stays.
    while index > 0 {
        let slot = slot(hash_name(const_name(index)));
        let taken = names[slot] as usize;
        assert!(taken == 0 || is_same(const_name(index), const_name(taken)), "two names share a place");
        names[slot] = index as u8;
        index -= 1;
    }
    names
};

const fn const_name(index: usize) -> &'static [u8] {
    let line = &LINES[index - 1];
    line.line.split_at(line.name_len).0
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

const SPREAD: u32 = 0xd92a_4aa3;

const fn slot(name_hash: u32) -> usize {
    (name_hash.wrapping_mul(SPREAD) >> 24) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::field::judge;

    #[test]
    fn entries_are_judged_as_any_field() {
        for index in 1..=STATIC_COUNT {
            let line = get(index).unwrap();
            assert_eq!(line.judged, judge(line.name(), line.value()), "{index}");
            assert_eq!(line.line, [line.name(), b": ", line.value(), b"\r\n"].concat());
        }
        assert!(get(0).is_none() && get(STATIC_COUNT + 1).is_none());
    }

    #[test]
    fn pseudo_fields_begin_where_it_is_said() {
        for ((first, count), name) in [
            (AUTHORITY, ":authority"),
            (METHOD, ":method"),
            (PATH, ":path"),
            (SCHEME, ":scheme"),
            (STATUS, ":status"),
        ] {
            assert_eq!(find_name(name.as_bytes(), hash_name(name.as_bytes())), Some(first));
            assert!(get(first + count).unwrap().name() != name.as_bytes());
            for index in first..first + count {
                let line = get(index).unwrap();
                assert_eq!(line.name(), name.as_bytes());
                assert_eq!(find_value_among((first, count), line.value()), Some(index));
            }
            assert_eq!(find_value_among((first, count), b"no such value"), None);
        }
    }

    #[test]
    fn the_entries_are_those_of_appendix_a() {
        let lines = LINES.iter().flat_map(|line| line.line).copied().collect::<std::vec::Vec<u8>>();
        // Taken from the table of another implementation.
        assert_eq!((lines.len(), hash(b"", &lines)), (928, 0xbf40_3c02));
    }

    #[test]
    fn every_entry_is_found() {
        for index in 1..=STATIC_COUNT {
            let line = get(index).unwrap();
            let name = line.name();
            let first = (1..).find(|first| get(*first).unwrap().name() == name).unwrap();
            assert_eq!(find_name(name, hash_name(name)), Some(first), "{index}");
            let large = name.to_ascii_uppercase();
            assert_eq!(find_name(&large, hash_name(&large)), Some(first), "{index}");
            assert_eq!(find_value(first, line.value()), Some(index));
            assert_eq!(find_value(first, b"no such value"), None);
            let mut other = name.to_vec();
            other[0] ^= 1;
            assert_eq!(find_name(&other, hash_name(name)), None);
        }
        assert_eq!(find_value(0, b""), None);
        assert_eq!(find_value(STATIC_COUNT + 1, b""), None);
    }
}
