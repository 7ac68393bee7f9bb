//! What a route asks of a request: path, method, headers, query parameters, a random fraction.
//!
//! Whether the path passes is found by the index, except for regular expressions; [`RouteMatch::rest_matches`] tests
//! everything else. [`RouteMatch::matches`] tests all of it for one route: it says what a match is, and the index is
//! tested against it.

use alloc::{sync::Arc, vec::Vec};
use core::ops::Range;

use wire::head::{RequestView, Span};

use super::RouteScratch;
use crate::{grpc, regex::Regex, string_match::StringMatch};

/// What a route asks of a request (Envoy: `RouteMatch`). All of it must hold.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The path, without query.
    pub path: PathMatch,
    /// Whether ASCII case counts in the path. A regular expression says so itself.
    pub case_sensitive: bool,
    /// The method.
    pub method: Option<Arc<[u8]>>,
    /// Only gRPC, by its `content-type`.
    pub grpc: bool,
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
    /// There is none: plain CONNECT, which nothing else takes (Envoy: `connect_matcher`). CONNECT with `:protocol` has a
    /// path and is matched by it.
    Connect,
}

/// One header condition (Envoy: `HeaderMatcher`). Of several values of one header any may pass, as in Envoy 1.40: joined
/// by commas, a second value would hide the first from an exact test.
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
            grpc: false,
            headers: Vec::new(),
            query: Vec::new(),
            fraction: None,
        }
    }

    /// Whether `request` passes all of it.
    pub fn matches(&self, request: &RequestView<'_>, scratch: &mut RouteScratch, random: u64) -> bool {
        let Some(path) = path_of(request) else {
            return matches!(self.path, PathMatch::Connect)
                && self.rest_matches(request, b"", scratch, random);
        };
        let same = |a: &[u8], b: &[u8]| if self.case_sensitive { a == b } else { a.eq_ignore_ascii_case(b) };
        let begins = |wanted: &[u8]| path.get(..wanted.len()).is_some_and(|start| same(start, wanted));
        let path_passes = match &self.path {
            PathMatch::Exact(wanted) => same(path, wanted),
            PathMatch::Prefix(wanted) => begins(wanted),
            PathMatch::PathSeparatedPrefix(wanted) => {
                begins(wanted) && path.get(wanted.len()).is_none_or(|next| *next == b'/')
            }
            PathMatch::Regex(_) => true,
            PathMatch::Connect => false,
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
            && (!self.grpc || is_grpc(request))
            && self.fraction.is_none_or(|fraction| fraction.holds(random))
            && self.headers.iter().all(|header| header.matches(request, scratch))
            && self.query.iter().all(|parameter| parameter.matches(request.query(), scratch))
            && match &self.path {
                PathMatch::Regex(regex) => regex.is_match(path, &mut scratch.regexes),
                PathMatch::Exact(_)
                | PathMatch::Prefix(_)
                | PathMatch::PathSeparatedPrefix(_)
                | PathMatch::Connect => true,
            }
    }
}

/// The path to route by. `None` for plain CONNECT, which has none and which no matcher of paths may take (a rule for `/`
/// must not open a tunnel). `OPTIONS *` has the path `*`; an absolute-form target without a path has `/` (RFC 9112 §3.2.2).
pub(crate) fn path_of<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
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
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
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
        let mut passes = |value: &[u8]| match &self.test {
            HeaderTest::Present(_) => true,
            HeaderTest::Value(test) => test.matches(value, &mut scratch.regexes),
            HeaderTest::Range(range) => decimal(value).is_some_and(|number| range.contains(&number)),
        };
        let mut values = self.values(request).peekable();
        let is_there = values.peek().is_some();
        let any = if is_there { values.any(&mut passes) } else { self.missing_as_empty && passes(b"") };
        match self.test {
            HeaderTest::Present(wanted) => (wanted == any) != self.invert,
            HeaderTest::Value(_) | HeaderTest::Range(_) => {
                (is_there || self.missing_as_empty) && any != self.invert
            }
        }
    }

    /// The header's values, one by one.
    fn values<'a>(&self, request: &RequestView<'a>) -> impl Iterator<Item = &'a [u8]> {
        let name = self.name.as_bytes();
        let (line, header): (Option<&[u8]>, _) = match name {
            b":method" => (Some(request.method()), None),
            b":path" => (path_and_query(request), None),
            b":authority" => (authority(request), None),
            [b':', ..] => (None, None),
            _ if name.eq_ignore_ascii_case(b"host") => (authority(request), None),
            _ => (None, Some(request.header_values(name))),
        };
        line.into_iter().chain(header.into_iter().flatten())
    }
}

/// Whether a request is gRPC. One with two types is nothing that anybody can rely on.
fn is_grpc(request: &RequestView<'_>) -> bool {
    let mut types = request.header_values(b"content-type");
    types.next().is_some_and(grpc::is_grpc) && types.next().is_none()
}

/// The path with its query, also of an absolute-form target, in which both lie behind the authority.
pub(crate) fn path_and_query<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    let (path, query) = (request.head.path, request.head.query);
    if path.is_empty() {
        return path_of(request);
    }
    Some(Span { start: path.start, end: query.map_or(path.end, |query| query.end) }.of(request.bytes))
}

/// Host and port; `None` when the request names none.
pub(crate) fn authority<'a>(request: &RequestView<'a>) -> Option<&'a [u8]> {
    Some(request.authority()).filter(|authority| !authority.is_empty())
}

/// A whole value as a decimal number, sign allowed.
pub(crate) fn decimal(value: &[u8]) -> Option<i64> {
    core::str::from_utf8(value).ok()?.parse().ok()
}

impl QueryMatch {
    /// Whether a request with this query passes.
    pub fn matches(&self, query: Option<&[u8]>, scratch: &mut RouteScratch) -> bool {
        let mut decoded = core::mem::take(&mut scratch.text);
        let value = self.value(query.unwrap_or_default(), &mut decoded);
        let passes = match &self.test {
            QueryTest::Present(wanted) => *wanted == value.is_some(),
            QueryTest::Value(test) => value.is_some_and(|value| test.matches(value, &mut scratch.regexes)),
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

#[cfg(test)]
mod tests {

    use super::{super::test_request::TestRequest, *};
    use crate::string_match::StringPattern;

    fn header(name: &str, test: HeaderTest) -> HeaderMatch {
        HeaderMatch { name: name.into(), test, invert: false, missing_as_empty: false }
    }

    fn exactly(value: &str) -> StringMatch {
        StringMatch { pattern: StringPattern::Exact(value.as_bytes().into()), ignore_case: false }
    }

    #[test]
    fn a_header_is_tested_as_envoy_tests_it() {
        let requests = [
            ("missing", TestRequest::get("/")),
            ("empty", TestRequest::get("/").header("X", "")),
            ("1", TestRequest::get("/").header("x", "1")),
            ("1 and 2", TestRequest::get("/").header("x", "1").header("y", "9").header("X", "2")),
        ];
        // Per row: the test, inverted, missing as empty; whether each request passes.
        let present = HeaderTest::Present;
        let value = |text| HeaderTest::Value(exactly(text));
        let rows = [
            (present(true), false, false, [false, true, true, true]),
            (present(true), true, false, [true, false, false, false]),
            (present(false), false, false, [true, false, false, false]),
            (present(false), true, false, [false, true, true, true]),
            (present(true), false, true, [true, true, true, true]),
            (value("1"), false, false, [false, false, true, true]),
            (value("1"), true, false, [false, true, false, false]),
            (value("2"), false, false, [false, false, false, true]),
            (value("1,2"), false, false, [false, false, false, false]),
            (value(""), false, false, [false, true, false, false]),
            (value(""), false, true, [true, true, false, false]),
            (value("1"), true, true, [true, true, false, false]),
            (HeaderTest::Range(1..2), false, false, [false, false, true, true]),
            (HeaderTest::Range(1..2), true, false, [false, true, false, false]),
            (HeaderTest::Range(0..1), true, true, [true, true, true, true]),
        ];
        let mut scratch = RouteScratch::default();
        for (test, invert, missing_as_empty, expected) in rows {
            let matcher = HeaderMatch { name: "x".into(), test, invert, missing_as_empty };
            for ((name, request), expected) in requests.iter().zip(expected) {
                assert_eq!(matcher.matches(&request.view(), &mut scratch), expected, "{matcher:?} on {name}");
            }
        }
    }

    #[test]
    fn a_range_takes_whole_decimal_numbers_from_its_start_to_before_its_end() {
        let matcher = header("x", HeaderTest::Range(-10..100));
        for (value, expected) in [
            ("-10", true),
            ("-11", false),
            ("99", true),
            ("100", false),
            ("+5", true),
            ("0x5", false),
            ("5 ", false),
            ("5.0", false),
            ("", false),
            ("99999999999999999999", false),
        ] {
            let request = TestRequest::get("/").header("x", value);
            let passes = matcher.matches(&request.view(), &mut RouteScratch::default());
            assert_eq!(passes, expected, "{value:?}");
        }
    }

    #[test]
    fn parts_of_the_request_line_are_headers_with_a_colon() {
        let request = TestRequest::absolute("http://Example.com:80", "/a?b=c").host("Example.com:80");
        for (name, value, expected) in [
            (":method", "GET", true),
            (":method", "get", false),
            (":path", "/a?b=c", true),
            (":path", "/a", false),
            (":authority", "Example.com:80", true),
            ("Host", "Example.com:80", true),
            (":scheme", "http", false),
        ] {
            let matcher = header(name, HeaderTest::Value(exactly(value)));
            let passes = matcher.matches(&request.view(), &mut RouteScratch::default());
            assert_eq!(passes, expected, "{name} {value}");
        }
    }

    #[test]
    fn query_parameters_are_compared_after_percent_decoding_and_the_first_counts() {
        let value = |text: &str| QueryTest::Value(exactly(text));
        let present = QueryTest::Present;
        for (target, name, test, expected) in [
            ("/?a=1", "a", value("1"), true),
            ("/?a=1&a=2", "a", value("2"), false),
            ("/?b=2&a=1", "a", value("1"), true),
            ("/?a=%31%2", "a", value("1%2"), true),
            ("/?a=%zz+", "a", value("%zz+"), true),
            ("/?%61=1", "a", value("1"), true),
            ("/?aa=1", "a", value("1"), false),
            ("/?a", "a", value(""), true),
            ("/?a", "a", present(true), true),
            ("/?a=", "a", present(true), true),
            ("/?b", "a", present(true), false),
            ("/?b", "a", present(false), true),
            ("/", "a", present(true), false),
            ("/", "a", present(false), true),
            ("/?a=b=c", "a", value("b=c"), true),
            ("/?&&a=1", "a", value("1"), true),
        ] {
            let matcher = QueryMatch { name: name.as_bytes().into(), test };
            let request = TestRequest::get(target);
            let passes = matcher.matches(request.view().query(), &mut RouteScratch::default());
            assert_eq!(passes, expected, "{matcher:?} on {target}");
        }
    }

    #[test]
    fn a_fraction_takes_its_share_of_the_random_numbers() {
        let half = Fraction { numerator: 25, denominator: 100 };
        assert_eq!((0..1_000).filter(|random| half.holds(*random)).count(), 250);
        let none = Fraction { numerator: 0, denominator: 100 };
        assert!(!none.holds(0));
        let broken = Fraction { numerator: 1, denominator: 0 };
        assert!(broken.holds(7), "a denominator that should not be is no division by zero");
    }
}
