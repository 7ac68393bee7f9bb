//! Normal paths, as `wire::path` says what they are: one list of characters after the other, and RFC 3986 §5.2.4 to the
//! letter.

use wire::path::{EscapedSlashes, Normalization, Normalized, PathError};

/// A path as it was received, in the units that its reader sees.
#[derive(Clone, Copy)]
enum Unit {
    /// A character, or a `%` that begins no escape.
    Plain(u8),
    /// `%` and two hex digits.
    Escape(u8, [u8; 3]),
}

/// Normalizes a path that begins with `/`.
pub fn normalize(path: &[u8], how: Normalization) -> Result<(Normalized, Vec<u8>), PathError> {
    let mut path = path.to_vec();
    let mut normalized = Normalized::Forward;
    if how.escaped_slashes != EscapedSlashes::Keep {
        let is_slash = |byte: u8| byte == b'/' || byte == b'\\';
        let has_one =
            units(&path).iter().any(|unit| matches!(unit, Unit::Escape(byte, _) if is_slash(*byte)));
        match how.escaped_slashes {
            EscapedSlashes::Reject if has_one => return Err(PathError::EscapedSlash),
            EscapedSlashes::UnescapeAndRedirect if has_one => normalized = Normalized::Redirect,
            _ => {}
        }
        path = decode(&path, is_slash);
    }
    if how.dot_segments {
        if units(&path).iter().any(|unit| matches!(unit, Unit::Escape(0, _))) {
            return Err(PathError::EscapedNul);
        }
        // RFC 3986 §6.2.2.2: the unreserved characters.
        path = decode(&path, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        path = path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
        path = remove_dot_segments(&path);
    }
    if how.merge_slashes {
        path.dedup_by(|second, first| *first == b'/' && *second == b'/');
    }
    Ok((normalized, path))
}

fn units(text: &[u8]) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let is_hex = |two: &&str| two.bytes().all(|digit| digit.is_ascii_hexdigit());
        let escape = digits.filter(is_hex).filter(|_| *byte == b'%');
        match escape.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(decoded) => {
                units.push(Unit::Escape(decoded, [rest[0], rest[1], rest[2]]));
                rest = &rest[3..];
            }
            None => {
                units.push(Unit::Plain(*byte));
                rest = after;
            }
        }
    }
    units
}

/// Decodes such escapes, once. A `%` that began no escape must not begin one then: it is escaped.
fn decode(text: &[u8], is_decoded: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut decoded: Vec<(u8, bool)> = Vec::new();
    for unit in units(text) {
        match unit {
            Unit::Plain(byte) => decoded.push((byte, byte == b'%')),
            Unit::Escape(byte, _) if is_decoded(byte) => decoded.push((byte, false)),
            Unit::Escape(_, text) => decoded.extend(text.map(|byte| (byte, false))),
        }
    }
    let mut out = Vec::new();
    for (at, (byte, is_bare_percent)) in decoded.iter().enumerate() {
        out.push(*byte);
        let next = decoded.get(at + 1..at + 3).unwrap_or_default();
        if *is_bare_percent && next.len() == 2 && next.iter().all(|(byte, _)| byte.is_ascii_hexdigit()) {
            out.extend_from_slice(b"25");
        }
    }
    out
}

/// RFC 3986 §5.2.4, steps A to E.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut input = path.to_vec();
    let mut output: Vec<u8> = Vec::new();
    while !input.is_empty() {
        if input.starts_with(b"/./") {
            input.drain(..2);
        } else if input == b"/." {
            input = b"/".to_vec();
        } else if input.starts_with(b"/../") {
            input.drain(..3);
            remove_last_segment(&mut output);
        } else if input == b"/.." {
            input = b"/".to_vec();
            remove_last_segment(&mut output);
        } else {
            // The first segment with its slash, up to the next slash. A path that begins with `/` never gets to the steps
            // for one that begins with a dot.
            let end = input[1..].iter().position(|byte| *byte == b'/').map_or(input.len(), |at| at + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}

fn remove_last_segment(output: &mut Vec<u8>) {
    let slash = output.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    output.truncate(slash);
}
