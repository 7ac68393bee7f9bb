//! One spelling of a path, before anything is decided by it (Envoy: `normalize_path`, `merge_slashes`,
//! `path_with_escaped_slashes_action`).
//!
//! `/a/../b`, `/a/%2e%2e/b` and `/b` are one resource to most servers. Whoever routes or authorizes by the text alone
//! takes them for three, so a proxy that shall guard one of them makes one spelling of all, and routes by, decides on and
//! forwards that one.
//!
//! No step makes a path longer, so all is done where the path lies. Bytes that RFC 3986 does not allow in a path stay as
//! they came.

use crate::head::{RequestHead, Span};

/// What is done to paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Normalization {
    /// Removes `.` and `..` segments, decodes escapes of unreserved characters and makes `\` a `/` (RFC 3986 §6.2.2).
    pub dot_segments: bool,
    /// Makes one slash of several that follow each other.
    pub merge_slashes: bool,
    /// What becomes of `%2F` and `%5C`, which are separators to some servers and not to others.
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of an escaped slash or backslash (Envoy: `PathWithEscapedSlashesAction`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EscapedSlashes {
    /// It stays.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// It is decoded, and the downstream is told to ask for the path that comes out.
    UnescapeAndRedirect,
    /// It is decoded.
    UnescapeAndForward,
}

/// What becomes of a request whose path was normalized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Normalized {
    /// It goes on.
    Forward,
    /// The downstream shall ask for the new path.
    Redirect,
}

/// Why a path is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// It has an escaped slash or backslash.
    #[error("the path has an escaped slash")]
    EscapedSlash,
    /// It has an escaped NUL, which ends the path for some servers.
    #[error("the path has an escaped NUL")]
    EscapedNul,
}

/// Normalizes the path of a head in the bytes it was parsed from. The query moves with it; what follows the target stays.
pub fn normalize(
    head: &mut RequestHead,
    bytes: &mut [u8],
    how: Normalization,
) -> Result<Normalized, PathError> {
    let (start, end) = (head.path.start as usize, head.path.end as usize);
    let Some(path) = bytes.get_mut(start..end) else { return Ok(Normalized::Forward) };
    if how == Normalization::default() || is_plain(path) {
        return Ok(Normalized::Forward);
    }
    let mut normalized = Normalized::Forward;
    let mut len = path.len();
    if how.escaped_slashes != EscapedSlashes::Keep {
        let unescaped = decode(path, |byte| matches!(byte, b'/' | b'\\'));
        if unescaped < len {
            match how.escaped_slashes {
                EscapedSlashes::Reject => return Err(PathError::EscapedSlash),
                EscapedSlashes::UnescapeAndRedirect => normalized = Normalized::Redirect,
                EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
            }
        }
        len = unescaped;
    }
    if how.dot_segments {
        let path = path.get_mut(..len).unwrap_or_default();
        if path.windows(3).any(|escape| escape == b"%00") {
            return Err(PathError::EscapedNul);
        }
        len = decode(path, is_unreserved);
        let path = path.get_mut(..len).unwrap_or_default();
        path.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
        len = remove_dot_segments(path);
    }
    if how.merge_slashes {
        len = merge_slashes(path.get_mut(..len).unwrap_or_default());
    }
    shorten(head, bytes, len);
    Ok(normalized)
}

/// Whether no step has anything to do, as for nearly every path there is.
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    path.iter().all(|byte| {
        let is_plain = !matches!((last, byte), (_, b'%' | b'\\') | (b'/', b'/' | b'.'));
        last = *byte;
        is_plain
    })
}

/// Decodes the escapes of such characters as `is_decoded` says, once: what comes out is not looked at again. Gives the new
/// length. A `%` that begins no escape stays, unless what was decoded behind it would make it one: then it is escaped
/// itself, or the next reader would decode twice.
fn decode(path: &mut [u8], is_decoded: impl Fn(u8) -> bool) -> usize {
    let (mut read, mut written) = (0, 0);
    let mut bare_percent = None;
    while let Some(&byte) = path.get(read) {
        let (byte, width) = match escaped(path.get(read..).unwrap_or_default()) {
            Some(decoded) if is_decoded(decoded) => (decoded, 3),
            Some(_) => (byte, 1),
            None => {
                if byte == b'%' {
                    bare_percent = Some(written);
                }
                (byte, 1)
            }
        };
        if let Some(place) = path.get_mut(written) {
            *place = byte;
        }
        (read, written) = (read + width, written + 1);
        if let Some(percent) = bare_percent.filter(|percent| percent + 3 == written)
            && let Some([b'%', high, low, two, five]) = path.get_mut(percent..written + 2)
            && high.is_ascii_hexdigit()
            && low.is_ascii_hexdigit()
        {
            // One of the two digits was an escape, so there is room that was read already.
            (*two, *five) = (*high, *low);
            (*high, *low) = (b'2', b'5');
            written += 2;
        }
    }
    written
}

/// The byte that `text` begins with an escape of.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §5.2.4, for a path that begins with `/`. Gives the new length.
fn remove_dot_segments(path: &mut [u8]) -> usize {
    let slash_from = |path: &[u8], from: usize| {
        path.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'/')).map(|at| from + at)
    };
    // What was written ends with a slash before each segment.
    let (mut read, mut written) = (1, 1usize);
    while read <= path.len() {
        let slash = slash_from(path, read);
        let end = slash.unwrap_or(path.len());
        match path.get(read..end).unwrap_or_default() {
            b"." => {}
            b".." => {
                let before = path.get(..written.saturating_sub(1)).unwrap_or_default();
                written = before.iter().rposition(|byte| *byte == b'/').map_or(1, |at| at + 1);
            }
            _ => {
                let end = slash.map_or(end, |slash| slash + 1);
                path.copy_within(read..end, written);
                written += end - read;
            }
        }
        read = end + 1;
    }
    written.min(path.len())
}

fn merge_slashes(path: &mut [u8]) -> usize {
    let (mut written, mut last) = (0, 0);
    for read in 0..path.len() {
        let Some(&byte) = path.get(read) else { break };
        if (last, byte) == (b'/', b'/') {
            continue;
        }
        if let Some(place) = path.get_mut(written) {
            *place = byte;
        }
        (written, last) = (written + 1, byte);
    }
    written
}

/// The path has `len` bytes now: moves the query behind it.
fn shorten(head: &mut RequestHead, bytes: &mut [u8], len: usize) {
    let (old, target_end) = (head.path.end as usize, head.target.end as usize);
    let new = head.path.start as usize + len;
    let cut = old.saturating_sub(new);
    if cut == 0 {
        return;
    }
    bytes.copy_within(old..target_end, new);
    let moved = |span: Span| Span::new(span.start as usize - cut, span.end as usize - cut);
    head.path = Span::new(head.path.start as usize, new);
    head.query = head.query.map(moved);
    head.target = Span::new(head.target.start as usize, target_end - cut);
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec::Vec};

    use super::*;
    use crate::http1::parse::{self, Limits, Parsed};

    const LIMITS: Limits = Limits { head_bytes_max: 1024, headers_count_max: 10, target_bytes_max: 1024 };

    /// Path and query of a request to `target`, normalized.
    fn normalized(target: &str, how: Normalization) -> Result<(Normalized, String), PathError> {
        let mut bytes: Vec<u8> = std::format!("GET {target} HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n").into();
        let mut head = RequestHead::default();
        assert_eq!(parse::request(&bytes, &LIMITS, &mut head), Ok(Parsed::Complete), "{target}");
        let end = head.target_end as usize;
        let behind = bytes[end..].to_vec();
        let what = normalize(&mut head, &mut bytes, how)?;
        assert_eq!(bytes[end..], behind, "what follows the target moved");
        assert_eq!(head.headers[1].value.of(&bytes), b"y");
        let path = head.path.of(&bytes);
        let mut text = String::from_utf8(path.to_vec()).unwrap();
        if let Some(query) = head.query {
            text.push('?');
            text.push_str(std::str::from_utf8(query.of(&bytes)).unwrap());
        }
        assert!(head.target.of(&bytes).ends_with(text.as_bytes()), "{target} -> {text}");
        Ok((what, text))
    }

    #[test]
    fn every_spelling_of_a_path_becomes_one() {
        let how = Normalization { dot_segments: true, ..Normalization::default() };
        for (target, expected) in [
            ("/", "/"),
            ("/a/b?c=/../d", "/a/b?c=/../d"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../..", "/"),
            ("/./a", "/a"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/../../c", "/c"),
            ("/a/../../../c?d", "/c?d"),
            ("/a//../b", "/a/b"),
            ("//a//b", "//a//b"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c/d.", "/a/.b/..c/d."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2E", "/a/"),
            ("/%61%2D%7e%5F%30", "/a-~_0"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/a%2fb%5cc%20d", "/a%2fb%5cc%20d"),
            ("/a\\b", "/a/b"),
            ("/a\\..\\b", "/b"),
            ("/a%", "/a%"),
            ("/a%2", "/a%2"),
            ("/a%zz%2", "/a%zz%2"),
            ("/%%32%65", "/%252e"),
            ("/%%326%2%66", "/%2526%252f"),
            ("/%%2532", "/%%2532"),
            ("http://a/x/../y?q", "/y?q"),
            ("http://a", ""),
        ] {
            assert_eq!(normalized(target, how), Ok((Normalized::Forward, expected.into())), "{target}");
        }
        assert_eq!(normalized("/a%00b", how), Err(PathError::EscapedNul));
    }

    #[test]
    fn slashes_are_merged_when_dots_are_gone() {
        let merge = Normalization { merge_slashes: true, ..Normalization::default() };
        let both = Normalization { dot_segments: true, ..merge };
        for (target, merged, with_dots) in [
            ("/a//b///c//?d//e", "/a/b/c/?d//e", "/a/b/c/?d//e"),
            ("//", "/", "/"),
            ("/a//../b", "/a/../b", "/a/b"),
            ("/a/%2e%2e//b", "/a/%2e%2e/b", "/b"),
        ] {
            assert_eq!(normalized(target, merge), Ok((Normalized::Forward, merged.into())), "{target}");
            assert_eq!(normalized(target, both), Ok((Normalized::Forward, with_dots.into())), "{target}");
        }
    }

    #[test]
    fn an_escaped_slash_stays_is_refused_or_decoded_once() {
        use EscapedSlashes::{Keep, Reject, UnescapeAndForward, UnescapeAndRedirect};
        let how = |escaped_slashes| Normalization {
            dot_segments: true,
            escaped_slashes,
            ..Normalization::default()
        };
        for target in ["/a%2Fb?c%2Fd", "/a%5cb?c%2Fd"] {
            let kept = normalized(target, how(Keep)).unwrap();
            assert_eq!(kept, (Normalized::Forward, target.into()));
            assert_eq!(normalized(target, how(Reject)), Err(PathError::EscapedSlash));
            let decoded = String::from("/a/b?c%2Fd");
            let forwarded = normalized(target, how(UnescapeAndForward)).unwrap();
            assert_eq!(forwarded, (Normalized::Forward, decoded.clone()));
            let redirected = normalized(target, how(UnescapeAndRedirect)).unwrap();
            assert_eq!(redirected, (Normalized::Redirect, decoded));
        }
        let twice = normalized("/a%252Fb/..%2f..%2fc", how(UnescapeAndForward)).unwrap();
        assert_eq!(twice, (Normalized::Forward, "/c".into()));
        for plain in ["/a/b", "/%20", "/%2E"] {
            assert!(normalized(plain, how(Reject)).is_ok(), "{plain}");
        }
    }

    #[test]
    fn what_was_normalized_is_normal() {
        let how = Normalization { dot_segments: true, merge_slashes: true, ..Normalization::default() };
        // Every path of five pieces of what matters; a decoded escape may not make another one.
        let pieces = ["/", ".", "%2e", "\\", "%", "2", "%65"];
        for number in 0..pieces.len().pow(5) {
            let mut target = String::from("/");
            let mut rest = number;
            for _ in 0..5 {
                target.push_str(pieces[rest % pieces.len()]);
                rest /= pieces.len();
            }
            let (_, once) = normalized(&target, how).unwrap();
            assert_eq!(normalized(&once, how), Ok((Normalized::Forward, once.clone())), "{target}");
            let clean = once.split('/').all(|segment| segment != "." && segment != "..");
            assert!(clean && once.starts_with('/') && !once.contains("//"), "{target} -> {once}");
        }
    }
}
