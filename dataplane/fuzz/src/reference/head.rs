//! Request and response heads (RFC 9112 §2 to §6), a whole head at a time.

use std::{collections::BTreeSet, net::Ipv6Addr};

use crate::{
    message::{Framing, Head, Read, Start},
    reference::{
        Faults, Side,
        body::TrailerLimits,
        text::{
            count, find, is_disguised, is_token, is_value, latin1, number, split_at_byte, split_lines,
            trim_blanks,
        },
    },
};

/// The bounds that are set for a reader.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest head in bytes.
    pub head_bytes: usize,
    /// Most header lines.
    pub headers: usize,
    /// Longest target in bytes.
    pub target_bytes: usize,
    /// Longest method in bytes.
    pub method_bytes: usize,
    /// Most elements of `Connection`.
    pub connection_options: usize,
    /// Those of a trailer section.
    pub trailers: TrailerLimits,
}

/// The headers with their lower-case names, for asking.
struct Headers<'a>(Vec<(String, &'a [u8], &'a [u8])>);

impl<'a> Headers<'a> {
    /// The values of all headers of a name, without white space around.
    fn all(&self, name: &str) -> Vec<&'a [u8]> {
        self.0.iter().filter(|(known, ..)| known == name).map(|(_, value, _)| *value).collect()
    }

    /// Whether a header is surrounded by nothing but spaces.
    fn has_only_spaces(&self, name: &str) -> bool {
        let tabs = |raw: &[u8], value: &[u8]| count(raw, b'\t') != count(value, b'\t');
        !self.0.iter().any(|(known, value, raw)| known == name && tabs(raw, value))
    }

    /// The elements of all headers of a name, lower case, empty ones too.
    fn elements(&self, name: &str) -> Vec<String> {
        let elements = |value: &&[u8]| -> Vec<String> {
            value.split(|byte| *byte == b',').map(|one| latin1(one.trim_ascii()).to_lowercase()).collect()
        };
        self.all(name).iter().flat_map(elements).collect()
    }

    fn has(&self, name: &str, element: &str) -> bool {
        self.elements(name).iter().any(|one| one == element)
    }
}

/// Reads a head that begins with the first byte.
pub fn read(bytes: &[u8], side: Side<'_>, limits: &Limits) -> Read<Head> {
    let Some(end) = find(bytes, b"\r\n\r\n").map(|at| at + 4).filter(|end| *end <= limits.head_bytes) else {
        if bytes.len() < limits.head_bytes {
            return Read::Part;
        }
        // Too long; or wrong in some other way that was seen before it was too long.
        return Read::Refused(BTreeSet::from([400, 414, 431, 505]));
    };
    let mut faults = Faults::default();
    let head = &bytes[..end - 4];
    // Lines end in CRLF, and neither byte stands elsewhere (RFC 9112 §2.2, ours for LF alone).
    let lines = split_lines(head);
    faults.unless(!lines.iter().any(|line| line.contains(&b'\r') || line.contains(&b'\n')), 400);
    let (first, fields) = lines.split_first().expect("a split gives one part at least");
    faults.unless(fields.len() <= limits.headers, 431);
    let headers = headers(fields, &mut faults);
    let mut head = Head {
        headers: headers.0.iter().map(|(_, value, raw)| (name_of(raw), value.to_vec())).collect(),
        end,
        ..Head::default()
    };
    let declared = declared_length(&headers, &mut faults);
    let options = headers.elements("connection");
    faults.unless(options.len() <= limits.connection_options, 400);
    match side {
        Side::Requests => request(first, &headers, declared, limits, &mut head, &mut faults),
        Side::Responses(method) => response(first, &headers, declared, method, &mut head, &mut faults),
    }
    faults.or(head)
}

/// RFC 9112 §3 and §6.3 (a request's body), §9.3.
fn request(
    first: &[u8],
    headers: &Headers<'_>,
    declared: Framing,
    limits: &Limits,
    head: &mut Head,
    faults: &mut Faults,
) {
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    faults.unless(words.len() == 3, 400);
    let [method, target, version] = [0, 1, 2].map(|at| words.get(at).copied().unwrap_or_default());
    head.version = read_version(version, faults);
    faults.unless(is_token(method) && method.len() <= limits.method_bytes, 400);
    faults.unless(target.len() <= limits.target_bytes, 414);
    faults.unless(!target.is_empty() && target.iter().all(u8::is_ascii_graphic), 400);
    let asked = read_target(method, target);
    faults.unless(asked.is_some(), 400);
    let (asked_authority, path, query, default_port) = asked.unwrap_or_default();

    // RFC 9112 §3.2: exactly one, and ours: it must be the target's, if that has one.
    let hosts = headers.all("host");
    faults.unless(hosts.len() == 1 || (hosts.is_empty() && head.version == 0), 400);
    let host = hosts.first().copied();
    faults.unless(host.is_none_or(|host| authority(host).is_some()), 400);
    if let (Some(asked), Some(host)) = (&asked_authority, host) {
        let with_port = |text: &[u8]| {
            let (name, port) = authority(text)?;
            Some((name.to_ascii_lowercase(), port.or(default_port)))
        };
        faults.unless(with_port(asked) == with_port(host), 400);
    }
    faults.unless(!headers.0.iter().any(|(name, ..)| is_disguised(name)), 400);
    // RFC 9112 §6.1: not for a version that has none.
    faults.unless(!(declared == Framing::Chunked && head.version == 0), 400);
    // Ours: nothing before a tunnel.
    faults.unless(method != b"CONNECT" || matches!(declared, Framing::None | Framing::Length(0)), 400);
    let expects = headers.all("expect");
    let is_100 = |value: &&[u8]| value.eq_ignore_ascii_case(b"100-continue");
    faults.unless(head.version == 0 || expects.iter().all(is_100), 417);

    let has_body = !matches!(declared, Framing::None | Framing::Length(0));
    head.framing = declared;
    head.keep_alive = persists(headers, head.version);
    head.start = Start::Request {
        method: method.to_vec(),
        path: path.to_vec(),
        query: query.map(<[u8]>::to_vec),
        authority: asked_authority.or(host).unwrap_or_default().to_vec(),
        expects_continue: head.version == 1 && !expects.is_empty() && has_body,
        upgrade: head.version == 1
            && !headers.all("upgrade").is_empty()
            && headers.has("connection", "upgrade")
            && !headers.has("upgrade", "h2c"),
    };
}

/// RFC 9112 §4 and §6.3 (a response's body), §9.3.
fn response(
    first: &[u8],
    headers: &Headers<'_>,
    declared: Framing,
    method: &[u8],
    head: &mut Head,
    faults: &mut Faults,
) {
    let mut words = first.splitn(3, |byte| *byte == b' ');
    let [version, code, reason] = [(); 3].map(|()| words.next());
    head.version = read_version(version.unwrap_or_default(), faults);
    // Ours: the space after the code is not left out.
    faults.unless(reason.is_some_and(is_value), 400);
    let code = code.unwrap_or_default();
    let status = if code.len() == 3 { number(code).unwrap_or(0) as u16 } else { 0 };
    faults.unless(status >= 100, 400);
    faults.unless(headers.all("host").len() <= 1, 400);
    faults.unless(!(declared == Framing::Chunked && head.version == 0), 400);

    let is_interim_or_empty = matches!(status, 100..=199 | 204);
    let is_tunnel = method == b"CONNECT" && matches!(status, 200..=299);
    let has_none = is_interim_or_empty || status == 304 || method == b"HEAD" || is_tunnel;
    head.framing = match declared {
        _ if has_none => Framing::None,
        Framing::None => Framing::UntilClose,
        declared => declared,
    };
    let announces_in_vain = is_interim_or_empty && !matches!(declared, Framing::None | Framing::Length(0));
    head.keep_alive = persists(headers, head.version)
        && head.framing != Framing::UntilClose
        && !announces_in_vain
        && !is_tunnel
        && status != 101;
    head.start = Start::Response { status, reason: reason.unwrap_or_default().to_vec() };
}

/// What `Content-Length` and `Transfer-Encoding` say (RFC 9112 §6.1, §6.2); ours: once, alone, and in one spelling.
fn declared_length(headers: &Headers<'_>, faults: &mut Faults) -> Framing {
    let (lengths, codings) = (headers.all("content-length"), headers.all("transfer-encoding"));
    faults.unless(lengths.len() + codings.len() <= 1, 400);
    faults.unless(
        headers.has_only_spaces("content-length") && headers.has_only_spaces("transfer-encoding"),
        400,
    );
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if !codings.iter().all(is_chunked) {
        // Another coding, or no coding at all.
        faults.unless(false, 501);
        faults.unless(false, 400);
    }
    let length = lengths.first().map(|text| number(text).filter(|length| *length <= i64::MAX as u64));
    faults.unless(length != Some(None), 400);
    match (length.flatten(), codings.len()) {
        (_, 1..) => Framing::Chunked,
        (Some(length), 0) => Framing::Length(length),
        (None, 0) => Framing::None,
    }
}

/// RFC 9112 §9.3.
fn persists(headers: &Headers<'_>, version: u8) -> bool {
    !headers.has("connection", "close") && (version == 1 || headers.has("connection", "keep-alive"))
}

/// RFC 9112 §2.3.
fn read_version(text: &[u8], faults: &mut Faults) -> u8 {
    // A CR in the line is a fault of its own.
    let (text, _) = split_at_byte(text, b'\r');
    let is_one = matches!(text, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit());
    match text {
        b"HTTP/1.0" => return 0,
        b"HTTP/1.1" => return 1,
        _ if is_one => faults.unless(false, 505),
        _ => faults.unless(false, 400),
    }
    1
}

type Target<'a> = (Option<&'a [u8]>, &'a [u8], Option<&'a [u8]>, Option<u16>);

/// RFC 9112 §3.2: authority, path, query, and the port that need not be named.
fn read_target<'a>(method: &[u8], target: &'a [u8]) -> Option<Target<'a>> {
    if method == b"CONNECT" {
        let (_, port) = authority(target)?;
        return Some((Some(target), b"", None, Some(port?)));
    }
    if target == b"*" {
        return (method == b"OPTIONS").then_some((None, b"", None, None));
    }
    // A fragment is never sent.
    if target.contains(&b'#') {
        return None;
    }
    let (path, query) = split_at_byte(target, b'?');
    if path.starts_with(b"/") {
        return Some((None, path, query, None));
    }
    let lower = target.to_ascii_lowercase();
    let (scheme_bytes, port) = match () {
        () if lower.starts_with(b"http://") => (7, 80),
        () if lower.starts_with(b"https://") => (8, 443),
        () => return None,
    };
    let rest = path.get(scheme_bytes..)?;
    let host_bytes = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(host_bytes);
    authority(host)?;
    // RFC 9110 §4.2.3: an empty path is `/`.
    Some((Some(host), if path.is_empty() { b"/" } else { path }, query, Some(port)))
}

/// `host[:port]` (RFC 3986 §3.2); ours: no user, no escapes, no `a,b`, no empty port.
pub fn authority(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let host_bytes =
        if text.starts_with(b"[") { find(text, b"]")? + 1 } else { split_at_byte(text, b':').0.len() };
    let (host, port) = text.split_at(host_bytes);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    if let Some(address) = host.strip_prefix(b"[") {
        latin1(&address[..address.len() - 1]).parse::<Ipv6Addr>().ok()?;
    } else if host.is_empty() || !host.iter().all(is_name) {
        return None;
    }
    match port {
        [] => Some((host, None)),
        [b':', digits @ ..] if digits.len() <= 5 => Some((host, Some(number(digits)?.try_into().ok()?))),
        _ => None,
    }
}

/// RFC 9112 §5: `name ":" OWS value OWS`, no white space before the colon, no folding.
fn headers<'a>(lines: &[&'a [u8]], faults: &mut Faults) -> Headers<'a> {
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = split_at_byte(line, b':');
        faults.unless(is_token(name), 400);
        faults.unless(value.is_some_and(is_value), 400);
        headers.push((latin1(name).to_lowercase(), trim_blanks(value.unwrap_or_default()), *line));
    }
    Headers(headers)
}

fn name_of(line: &[u8]) -> Vec<u8> {
    split_at_byte(line, b':').0.to_vec()
}
