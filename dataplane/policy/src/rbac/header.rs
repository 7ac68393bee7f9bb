//! A test of a header, where a header may say several things.
//!
//! Envoy joined the lines of a header by commas before it tested them, so `x-role: user` with `x-role: admin` passed a policy
//! that denies `admin` (CVE-2026-26308); since then one line that passes is enough, which denies that and allows too much.
//! Servers differ in more: they read the lines as one list (RFC 9110 §5.3), as one text, or take one of them; some take off
//! what is white space to Unicode; and to CGI programs `x_role`, and to those behind lighttpd `x.role`, is `x-role`. So each of
//! these is a reading of its own, and [`Lean`] says whether one must pass or all of them:
//!
//! * to deny, one line, or one element of a line as a list, with white space or without, or all lines as one text, under the
//!   name or one that differs in what is neither letter nor digit alone;
//! * to allow, every line under these names, and all of them as one text; none has a tab before its value or anything behind
//!   it, which goes on as it came and some take for a part of it; one of them has the very name, and goes on itself: what
//!   `Connection` names ends here, so that upstream does not see what was allowed. Elements are not asked one by one: a date,
//!   too, has a comma.
//!
//! A host is a host in whichever case, with its port or without, with a dot at its end or without. The path of `:path` is
//! also what stands before the query.

use wire::head::RequestView;

use super::Lean;
use crate::{
    route::{HeaderMatch, HeaderTest, RouteScratch, authority, decimal, path_and_query},
    string_match::{StringMatch, StringPattern},
};

/// Whether `request` passes.
pub(super) fn holds(
    header: &HeaderMatch,
    request: &RequestView<'_>,
    lean: Lean,
    scratch: &mut RouteScratch,
) -> bool {
    let part = match header.name.as_bytes() {
        b":method" => Part::Exact(request.method()),
        b":path" => path_and_query(request).map_or(Part::Missing, Part::Path),
        name if is_authority(name) => authority(request).map_or(Part::Missing, Part::Host),
        [b':', ..] => Part::Missing,
        name => Part::Lines(name),
    };
    let is_there = part.is_there(request, lean) || header.missing_as_empty;
    match &header.test {
        HeaderTest::Present(wanted) => {
            let is_turned = *wanted == header.invert;
            (part.is_there(request, lean.turned_if(is_turned)) || header.missing_as_empty) != is_turned
        }
        HeaderTest::Value(_) | HeaderTest::Range(_) => {
            let way = lean.turned_if(header.invert);
            is_there && part.passes(header, request, way, scratch) != header.invert
        }
    }
}

/// Whether a host name passes: in whichever case it is written.
pub(super) fn name_passes(test: &StringMatch, name: &[u8], scratch: &mut RouteScratch) -> bool {
    match &test.pattern {
        StringPattern::Regex(regex) => {
            if !name.iter().any(u8::is_ascii_uppercase) {
                return regex.is_match(name, &mut scratch.regexes);
            }
            let mut folded = core::mem::take(&mut scratch.folded);
            folded.clear();
            folded.extend(name.iter().map(u8::to_ascii_lowercase));
            let passes = [name, &folded].into_iter().any(|of| regex.is_match(of, &mut scratch.regexes));
            scratch.folded = folded;
            passes
        }
        _ => test.matches_in_any_case(name),
    }
}

fn is_authority(name: &[u8]) -> bool {
    name == b":authority" || name.eq_ignore_ascii_case(b"host")
}

/// What a name stands for in a request.
enum Part<'a> {
    /// Nothing of it.
    Missing,
    /// This.
    Exact(&'a [u8]),
    /// A path with its query.
    Path(&'a [u8]),
    /// A host with its port.
    Host(&'a [u8]),
    /// The lines of this name.
    Lines(&'a [u8]),
}

impl Part<'_> {
    fn is_there(&self, request: &RequestView<'_>, lean: Lean) -> bool {
        match self {
            Part::Missing => false,
            Part::Exact(_) | Part::Path(_) | Part::Host(_) => true,
            Part::Lines(name) => lines(request, name).any(|line| line.is_certain || lean == Lean::Hold),
        }
    }

    /// Whether one reading passes, or with [`Lean::Fail`], all of them.
    fn passes(
        &self,
        header: &HeaderMatch,
        request: &RequestView<'_>,
        lean: Lean,
        scratch: &mut RouteScratch,
    ) -> bool {
        let test = &header.test;
        match (self, lean) {
            (Part::Missing, _) => value_passes(test, b"", scratch),
            (Part::Exact(value), _) | (Part::Path(value), Lean::Fail) => value_passes(test, value, scratch),
            (Part::Path(path), Lean::Hold) => {
                let end = path.iter().position(|byte| *byte == b'?').unwrap_or(path.len());
                value_passes(test, path, scratch)
                    || value_passes(test, path.get(..end).unwrap_or_default(), scratch)
            }
            (Part::Host(host), Lean::Fail) => host_passes(test, host, scratch),
            (Part::Host(host), Lean::Hold) => {
                hosts(host).into_iter().any(|host| host_passes(test, host, scratch))
            }
            (Part::Lines(name), Lean::Hold) => {
                let is_empty = header.missing_as_empty && !lines(request, name).any(|line| line.is_certain);
                lines(request, name).any(|line| line_passes(test, line.value, scratch))
                    || as_one_passes(test, request, name, scratch) == Some(true)
                    || is_empty && value_passes(test, b"", scratch)
            }
            (Part::Lines(name), Lean::Fail) => {
                let is_empty = header.missing_as_empty && !lines(request, name).any(|line| line.is_certain);
                lines(request, name).all(|line| line.is_plain && value_passes(test, line.value, scratch))
                    && as_one_passes(test, request, name, scratch) != Some(false)
                    && (!is_empty || value_passes(test, b"", scratch))
            }
        }
    }
}

/// A line of a header.
struct Line<'a> {
    value: &'a [u8],
    /// No reader takes anything around it for a part of it.
    is_plain: bool,
    /// Upstream sees it under the very name that was asked for.
    is_certain: bool,
}

/// The lines of a name, and of those that differ from it in what is neither letter nor digit alone.
fn lines<'a, 'n>(request: &RequestView<'a>, name: &'n [u8]) -> impl Iterator<Item = Line<'a>> + use<'a, 'n> {
    let request = *request;
    let folded = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    request.head.headers.iter().filter_map(move |header| {
        let of = header.name.of(request.bytes);
        let is_like = of.len() == name.len() && of.iter().map(folded).eq(name.iter().map(folded));
        is_like.then(|| Line {
            value: header.value.of(request.bytes),
            is_plain: header.is_plain(request.bytes),
            is_certain: of.eq_ignore_ascii_case(name) && !request.ends_here(of),
        })
    })
}

/// Whether the lines pass as one text, which is what many servers give to whoever asks for the value; `None` where there are
/// not several.
fn as_one_passes(
    test: &HeaderTest,
    request: &RequestView<'_>,
    name: &[u8],
    scratch: &mut RouteScratch,
) -> Option<bool> {
    lines(request, name).nth(1)?;
    let mut text = core::mem::take(&mut scratch.folded);
    text.clear();
    for (at, line) in lines(request, name).enumerate() {
        text.extend(if at == 0 { &b""[..] } else { b", " });
        text.extend(line.value);
    }
    let passes = value_passes(test, &text, scratch);
    scratch.folded = text;
    Some(passes)
}

/// Whether a line passes, or one of its elements if it is a list.
fn line_passes(test: &HeaderTest, line: &[u8], scratch: &mut RouteScratch) -> bool {
    let mut elements = line.split(|byte| *byte == b',').map(trimmed);
    value_passes(test, line, scratch)
        || trimmed(line) != line && value_passes(test, trimmed(line), scratch)
        || line.contains(&b',') && elements.any(|element| value_passes(test, element, scratch))
}

/// Without what is white space to Unicode around it, in UTF-8 or in Latin-1.
fn trimmed(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [0xe1, 0x9a, 0x80, rest @ ..]
            | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf, rest @ ..]
            | [0xe2, 0x81, 0x9f, rest @ ..]
            | [0xe3, 0x80, 0x80, rest @ ..]
            | [rest @ .., 0xe1, 0x9a, 0x80]
            | [rest @ .., 0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf]
            | [rest @ .., 0xe2, 0x81, 0x9f]
            | [rest @ .., 0xe3, 0x80, 0x80]
            | [0xc2, 0x85 | 0xa0, rest @ ..]
            | [rest @ .., 0xc2, 0x85 | 0xa0]
            | [b' ' | b'\t' | 0x85 | 0xa0, rest @ ..]
            | [rest @ .., b' ' | b'\t' | 0x85 | 0xa0] => rest,
            _ => return text,
        }
    }
}

fn value_passes(test: &HeaderTest, value: &[u8], scratch: &mut RouteScratch) -> bool {
    match test {
        HeaderTest::Present(_) => true,
        HeaderTest::Value(test) => test.matches(value, &mut scratch.regexes),
        HeaderTest::Range(range) => decimal(value).is_some_and(|number| range.contains(&number)),
    }
}

fn host_passes(test: &HeaderTest, host: &[u8], scratch: &mut RouteScratch) -> bool {
    match test {
        HeaderTest::Value(test) => name_passes(test, host, scratch),
        HeaderTest::Present(_) | HeaderTest::Range(_) => value_passes(test, host, scratch),
    }
}

/// A host as it came; without its port; and both without a dot at the end of the name.
fn hosts(host: &[u8]) -> [&[u8]; 3] {
    let is_port = |at: &usize| host.get(at + 1..).is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    let end = host.iter().rposition(|byte| *byte == b':').filter(is_port).unwrap_or(host.len());
    let name = host.get(..end).unwrap_or_default();
    [host, name, name.strip_suffix(b".").unwrap_or(name)]
}
