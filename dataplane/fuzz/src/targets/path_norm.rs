//! Paths in one spelling: what the proxy makes of a path is what the reference makes of it, however it is set up; it stays
//! as it is when it is made again, and nothing beside it moves.

use wire::{
    head::RequestHead,
    http1::parse::{self, Limits, Parsed},
    path::{EscapedSlashes, Normalization, Normalized, PathError, normalize},
};

use crate::reference;

/// Words of paths.
pub const WORDS: &[&str] = &[
    "/", "//", ".", "..", "/./", "/../", "\\", "%", "%2e", "%2E", "%2f", "%5C", "%00", "%25", "%252e",
    "%%32%65", "%61", "%7e", "%20", "?", ";x=y", "http://a", "*", "a",
];

const LIMITS: Limits = Limits { head_bytes_max: 4096, headers_count_max: 10, target_bytes_max: 4096 };

/// Judges a request target.
pub fn run(target: &[u8]) {
    for escaped_slashes in [
        EscapedSlashes::Keep,
        EscapedSlashes::Reject,
        EscapedSlashes::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward,
    ] {
        for (dot_segments, merge_slashes) in [(false, false), (false, true), (true, false), (true, true)] {
            judge(target, Normalization { dot_segments, merge_slashes, escaped_slashes });
        }
    }
}

fn judge(target: &[u8], how: Normalization) {
    let Some(asked) = Asked::new(target) else { return };
    let shown = || format!("{how:?} of {}", target.escape_ascii());
    let expected = if asked.path.starts_with(b"/") {
        reference::path::normalize(&asked.path, how)
    } else {
        // CONNECT, `*` and an absolute target without a path.
        Ok((Normalized::Forward, asked.path.clone()))
    };
    let ours = asked.normalized(how);
    assert_eq!(
        ours.as_ref().map(|(what, asked)| (*what, shown_path(&asked.path))),
        expected.as_ref().map(|(what, path)| (*what, shown_path(path))),
        "{}",
        shown()
    );
    let Ok((_, once)) = ours else { return };
    assert_eq!((&once.query, &once.behind), (&asked.query, &asked.behind), "{}", shown());
    assert!(once.path.len() <= asked.path.len(), "{}", shown());
    // Once more changes nothing, so that the next one in line sees what we decided by.
    if how.dot_segments && how.escaped_slashes != EscapedSlashes::Reject {
        let (_, twice) =
            once.normalized(how).unwrap_or_else(|error| panic!("{error} of what was made: {}", shown()));
        assert_eq!(shown_path(&twice.path), shown_path(&once.path), "{}", shown());
        let mut segments = once.path.split(|byte| *byte == b'/');
        assert!(!segments.any(|segment| segment == b"." || segment == b".."), "{}", shown());
    }
    if how.merge_slashes {
        assert!(!once.path.windows(2).any(|two| two == b"//"), "{}", shown());
    }
}

fn shown_path(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

/// A request to a target.
struct Asked {
    bytes: Vec<u8>,
    head: RequestHead,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    /// What follows the target in the head.
    behind: Vec<u8>,
}

impl Asked {
    fn new(target: &[u8]) -> Option<Asked> {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"].concat();
        let mut head = RequestHead::default();
        (parse::request(&bytes, &LIMITS, &mut head) == Ok(Parsed::Complete)).then(|| Asked::of(bytes, head))
    }

    fn of(bytes: Vec<u8>, head: RequestHead) -> Asked {
        let path = head.path.of(&bytes).to_vec();
        let query = head.query.map(|query| query.of(&bytes).to_vec());
        let behind = bytes[head.target_end as usize..].to_vec();
        // Path and query end where the target does, so that they go on together.
        let end = head.query.map_or(head.path.end, |query| query.end);
        assert!(path.is_empty() || end == head.target.end, "{:?} in {}", head.target, bytes.escape_ascii());
        Asked { bytes, head, path, query, behind }
    }

    fn normalized(&self, how: Normalization) -> Result<(Normalized, Asked), PathError> {
        let (mut bytes, mut head) = (self.bytes.clone(), self.head.clone());
        let what = normalize(&mut head, &mut bytes, how)?;
        Ok((what, Asked::of(bytes, head)))
    }
}
