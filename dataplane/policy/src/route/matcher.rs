//! What a route asks of a request: path, method, headers, query parameters, a random fraction.
//!
//! Whether the path passes is found by the index, except for regular expressions; [`RouteMatch::rest_matches`] tests
//! everything else. [`RouteMatch::matches`] tests all of it for one route: it says what a match is, and the index is
//! tested against it.

use alloc::{sync::Arc, vec::Vec};
use core::ops::Range;

use wire::head::RequestView;

use super::RouteScratch;
use crate::{regex::Regex, string_match::StringMatch};

/// What a route asks of a request (Envoy: `RouteMatch`). All of it must hold.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The path, without query.
    pub path: PathMatch,
    /// Whether ASCII case counts in the path. A regular expression says so itself.
    pub case_sensitive: bool,
    /// The method.
    pub method: Option<Arc<[u8]>>,
    /// Header conditions.
    pub headers: Vec<HeaderMatch>,
    /// Query parameter conditions.
    pub query: Vec<QueryMatch>,
    /// Only this share of the requests (Envoy: `runtime_fraction`).
    pub fraction: Option<Fraction>,
}

/// How the path is compared.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// It is this.
    Exact(Arc<[u8]>),
    /// It begins with this.
    Prefix(Arc<[u8]>),
    /// It is this, or begins with this and a `/`. Does not end with `/` itself.
    PathSeparatedPrefix(Arc<[u8]>),
    /// This expression matches the whole of it.
    Regex(Regex),
}

/// One header condition (Envoy: `HeaderMatcher`). Several values of one header are one value joined by commas.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    /// The header's name, ASCII case ignored. `:method`, `:path` (with query) and `:authority` (or `host`) stand for
    /// parts of the request line; no other name with a colon is ever present.
    pub name: Arc<str>,
    /// The test.
    pub test: HeaderTest,
    /// Turn the test's result round. A missing header still fails every test but [`HeaderTest::Present`].
    pub invert: bool,
    /// A missing header is an empty one.
    pub missing_as_empty: bool,
}

/// A test of a header.
#[derive(Clone, Debug)]
pub enum HeaderTest {
    /// It is there, or with `false`, it is not.
    Present(bool),
    /// Its value passes.
    Value(StringMatch),
    /// Its value is a decimal number in this range.
    Range(Range<i64>),
}

/// One query parameter condition (Envoy: `QueryParameterMatcher`). Of several values the first counts.
#[derive(Clone, Debug)]
pub struct QueryMatch {
    /// The parameter's name, compared after percent-decoding.
    pub name: Arc<[u8]>,
    /// The test.
    pub test: QueryTest,
}

/// A test of a query parameter.
#[derive(Clone, Debug)]
pub enum QueryTest {
    /// It is there, with or without a value; with `false`, it is not.
    Present(bool),
    /// It is there and its percent-decoded value passes.
    Value(StringMatch),
}

/// A share of all requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fraction {
    /// So many ...
    pub numerator: u32,
    /// ... of so many; above zero.
    pub denominator: u32,
}

impl RouteMatch {
    /// A match by path alone.
    pub fn path(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            case_sensitive: true,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            fraction: None,
        }
    }

    /// Whether `request` passes all of it.
    pub fn matches(&self, request: &RequestView<'_>, scratch: &mut RouteScratch, random: u64) -> bool {
        let Some(path) = path_of(request) else { return false };
        let same = |a: &[u8], b: &[u8]| if self.case_sensitive { a == b } else { a.eq_ignore_ascii_case(b) };
        let begins = |wanted: &[u8]| path.get(..wanted.len()).is_some_and(|start| same(start, wanted));
        let path_passes = match &self.path {
            PathMatch::Exact(wanted) => same(path, wanted),
            PathMatch::Prefix(wanted) => begins(wanted),
            PathMatch::PathSeparatedPrefix(wanted) => {
                begins(wanted) && path.get(wanted.len()).is_none_or(|next| *next == b'/')
            }
            PathMatch::Regex(_) => true,
        };
        path_passes && self.rest_matches(request, path, scratch, random)
    }

    /// Whether `request`, whose path the index has found to pass, passes the rest too. A regular expression counts to
    /// the rest, and comes last because it costs most.
    pub(super) fn rest_matches(
        &self,
        request: &RequestView<'_>,
        path: &[u8],
        scratch: &mut RouteScratch,
        random: u64,
    ) -> bool {
        self.method.as_ref().is_none_or(|method| **method == *request.method())
            && self.fraction.is_none_or(|fraction| fraction.holds(random))
            && self.headers.iter().all(|header| header.matches(request, scratch))
            && self.query.iter().all(|parameter| parameter.matches(request.query(), scratch))
            && match &self.path {
                PathMatch::Regex(regex) => regex.is_match(path, &mut scratch.regexes),
                PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::PathSeparatedPrefix(_) => true,
            }
    }
}

/// The path to route by. `None` for CONNECT, which has none and which no path matcher may take (a rule for `/` must not
/// open a tunnel). `OPTIONS *` has the path `*`; an absolute-form target without a path has `/` (RFC 9112 §3.2.2).
pub(super) fn path_of<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    let path = request.path();
    if !path.is_empty() {
        return Some(path);
    }
    match request.head.target.of(request.bytes) {
        b"*" => Some(b"*"),
        _ if request.head.method == wire::head::Method::Connect => None,
        _ => Some(b"/"),
    }
}

impl PathMatch {
    /// How many bytes of `path`, which passes this, it matched.
    pub fn matched_len(&self, path: &[u8]) -> usize {
        match self {
            PathMatch::Prefix(prefix) | PathMatch::PathSeparatedPrefix(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Regex(_) => path.len(),
        }
    }
}

impl Fraction {
    /// Whether `random` falls into it.
    fn holds(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}

impl HeaderMatch {
    /// Whether `request` passes.
    pub fn matches(&self, request: &RequestView<'_>, scratch: &mut RouteScratch) -> bool {
        let mut joined = core::mem::take(&mut scratch.text);
        let value = self.value(request, &mut joined);
        let passes = match &self.test {
            HeaderTest::Present(wanted) => {
                (*wanted == (value.is_some() || self.missing_as_empty)) != self.invert
            }
            HeaderTest::Value(_) | HeaderTest::Range(_) if value.is_none() && !self.missing_as_empty => false,
            HeaderTest::Value(test) => test.matches(value.unwrap_or_default(), scratch) != self.invert,
            HeaderTest::Range(range) => {
                let number = value.and_then(decimal);
                number.is_some_and(|number| range.contains(&number)) != self.invert
            }
        };
        scratch.text = joined;
        passes
    }

    /// The header's value; several are joined in `joined`.
    fn value<'a>(&self, request: &RequestView<'a>, joined: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let name = self.name.as_bytes();
        if name.first() == Some(&b':') {
            return match name {
                b":method" => Some(request.method()),
                b":path" => Some(request.head.target.of(request.bytes)),
                b":authority" => authority(request),
                _ => None,
            };
        }
        if name.eq_ignore_ascii_case(b"host") {
            return authority(request);
        }
        let mut values = request.header_values(name);
        let first = values.next()?;
        let Some(second) = values.next() else { return Some(first) };
        joined.clear();
        joined.extend_from_slice(first);
        for value in core::iter::once(second).chain(values) {
            joined.push(b',');
            joined.extend_from_slice(value);
        }
        Some(joined)
    }
}

fn authority<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    Some(request.authority()).filter(|authority| !authority.is_empty())
}

/// A whole value as a decimal number, sign allowed.
fn decimal(value: &[u8]) -> Option<i64> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

impl QueryMatch {
    /// Whether a request with this query passes.
    pub fn matches(&self, query: Option<&[u8]>, scratch: &mut RouteScratch) -> bool {
        let mut decoded = core::mem::take(&mut scratch.text);
        let value = self.value(query.unwrap_or_default(), &mut decoded);
        let passes = match &self.test {
            QueryTest::Present(wanted) => *wanted == value.is_some(),
            QueryTest::Value(test) => value.is_some_and(|value| test.matches(value, scratch)),
        };
        scratch.text = decoded;
        passes
    }

    fn value<'a>(&self, query: &'a [u8], decoded: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let pairs = query.split(|byte| *byte == b'&');
        let mut pairs = pairs.map(|pair| match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
            None => (pair, &[][..]),
        });
        let (_, value) = pairs.find(|(name, _)| percent_decoded(name).eq(self.name.iter().copied()))?;
        if !value.contains(&b'%') {
            return Some(value);
        }
        decoded.clear();
        decoded.extend(percent_decoded(value));
        Some(decoded)
    }
}

/// The bytes that `%xx` stands for; what is not such a triple stays as it is (so does `+`).
fn percent_decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let hex = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let mut at = 0;
    core::iter::from_fn(move || {
        let byte = *text.get(at)?;
        if byte == b'%'
            && let (Some(high), Some(low)) = (hex(at + 1), hex(at + 2))
        {
            at += 3;
            return Some((high * 16 + low) as u8);
        }
        at += 1;
        Some(byte)
    })
}
