//! Fields of a request on HTTP/2: refused, or the head of HTTP/1.1 that says the same, which goes on as one request over
//! either version.

use std::collections::BTreeSet;

use wire::{
    Tick,
    head::{RequestHead, RequestView},
    http1::{
        encode::{self, HeadEdits},
        parse::{Limits, ParseError},
    },
    http2::{Config, Connection, Event},
};

use crate::{
    connection::{LIMITS, REFERENCE_LIMITS, Written, of_request},
    frames::{self, END_HEADERS, END_STREAM, Frame, kind},
    message::{Framing, Head, Read, Start},
    reference::{self, Side, is_disguised_identity},
    targets::h2_conn::CONFIG,
};

/// Fields; 0xff is between two, 0xfe between a name and its value.
pub const WORDS: &[&str] = &[
    ":method\u{fe}GET\u{ff}",
    ":method\u{fe}POST\u{ff}",
    ":method\u{fe}CONNECT\u{ff}",
    ":method\u{fe}OPTIONS\u{ff}",
    ":scheme\u{fe}http\u{ff}",
    ":scheme\u{fe}https\u{ff}",
    ":authority\u{fe}a\u{ff}",
    ":authority\u{fe}a:443\u{ff}",
    ":path\u{fe}/\u{ff}",
    ":path\u{fe}*\u{ff}",
    ":path\u{fe}/a?b=c\u{ff}",
    ":protocol\u{fe}websocket\u{ff}",
    ":status\u{fe}200\u{ff}",
    "host\u{fe}b\u{ff}",
    "host\u{fe}A:443\u{ff}",
    "cookie\u{fe}a=b\u{ff}",
    "cookie\u{fe}\u{ff}",
    "content-length\u{fe}5\u{ff}",
    "content-length\u{fe}0\u{ff}",
    "transfer-encoding\u{fe}chunked\u{ff}",
    "transfer_encoding\u{fe}chunked\u{ff}",
    "connection\u{fe}close\u{ff}",
    "te\u{fe}trailers\u{ff}",
    "expect\u{fe}100-continue\u{ff}",
    "upgrade\u{fe}h2c\u{ff}",
    "keep-alive\u{fe}5\u{ff}",
    "trailer\u{fe}x\u{ff}",
    "x-a\u{fe}b\u{ff}",
    "x_real-ip\u{fe}b\u{ff}",
    "X-A\u{fe}b\u{ff}",
    "\u{fe}",
    "\u{ff}",
    " HTTP/1.1\r\nHost: b\r\n\r\n",
    "\r\n",
    "\r\na: b",
    "\n",
    "\u{0}",
    " ",
    "\t",
    ":",
    "[::1]",
    "u@",
    "http://b/",
    "#",
    "%00",
    "\u{80}",
];

/// Name and value.
pub type Field = (Vec<u8>, Vec<u8>);

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is malformed.
    Refused,
    /// It is more than is taken.
    TooLarge,
    /// It goes on as this head.
    Head(Vec<u8>),
}

/// Judges the fields of one request; the first byte says whether they are all of it.
pub fn run(bytes: &[u8]) {
    let Some((flags, rest)) = bytes.split_first() else { return };
    let ends = flags % 2 == 1;
    let fields: Vec<Field> = rest
        .split(|byte| *byte == 0xff)
        .filter(|field| !field.is_empty())
        .map(|field| {
            let mut parts = field.splitn(2, |byte| *byte == 0xfe);
            let mut next = || parts.next().unwrap_or_default().to_vec();
            (next(), next())
        })
        .collect();
    let shown = rest.escape_ascii().to_string();
    let mut head = RequestHead::default();
    let ours = ask(&block(&fields), ends, LIMITS, &mut head);
    let allowed = expected(&fields, ends);
    assert!(allowed.contains(&ours), "{ours:?} and not {allowed:?}: {shown}");
    let Verdict::Head(text) = ours else { return };
    goes_on(&head, &text, &shown);
}

/// A block of literals that no table keeps.
fn block(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match text.len() {
                short @ 0..127 => block.push(short as u8),
                long => {
                    let rest = long - 127;
                    block.extend([127, (rest % 128) as u8 | 0x80, (rest / 128) as u8]);
                }
            }
            block.extend_from_slice(text);
        }
    }
    block
}

/// What a server of ours makes of a block.
fn ask(block: &[u8], ends: bool, limits: Limits, head: &mut RequestHead) -> Verdict {
    let mut server = Connection::new(true, Config { head: limits, ..CONFIG }, Tick(0));
    let end = if ends { END_STREAM } else { 0 };
    let bytes = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        Frame::new(kind::SETTINGS, 0, 0, []).bytes(),
        Frame::new(kind::HEADERS, END_HEADERS | end, 1, block).bytes(),
    ]
    .concat();
    let mut done = 0;
    loop {
        let (count, event) =
            server.receive(&bytes[done..], Tick(0)).expect("nothing is wrong with the frames");
        done += count;
        match event {
            None => break,
            Some(Event::Settings) => {}
            Some(Event::Request { .. }) => return Verdict::Head(server.take_request(head).to_vec()),
            Some(Event::TooLarge { error, .. }) => {
                let is_large = matches!(
                    error,
                    ParseError::HeadTooLarge | ParseError::TargetTooLong | ParseError::TooManyHeaders
                );
                assert!(is_large, "{error:?}");
                return Verdict::TooLarge;
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    let mut out = Vec::new();
    server.take_output(&mut out);
    let last = frames::read(&out).pop().expect("a reset");
    assert_eq!((last.kind, last.stream, last.number(0)), (kind::RST_STREAM, 1, 1));
    Verdict::Refused
}

/// What may become of the fields, by RFC 9113 §8 and by what a head of HTTP/1.1 may be.
pub fn expected(fields: &[Field], ends: bool) -> Vec<Verdict> {
    let size: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    if size > LIMITS.head_bytes_max {
        return vec![Verdict::TooLarge];
    }
    let Some(text) = text_of(fields, ends) else { return vec![Verdict::Refused] };
    match reference::head::read(&text, Side::Requests, &REFERENCE_LIMITS) {
        Read::Whole(head) => match head.framing {
            Framing::Length(1..) if ends => vec![Verdict::Refused],
            _ => vec![Verdict::Head(text)],
        },
        Read::Refused(statuses) => {
            let large = BTreeSet::from([414, 431]);
            let is_large = !statuses.is_disjoint(&large);
            let is_wrong = !statuses.is_subset(&large);
            let verdicts = [(is_large, Verdict::TooLarge), (is_wrong, Verdict::Refused)];
            verdicts.into_iter().filter(|(may, _)| *may).map(|(_, verdict)| verdict).collect()
        }
        Read::Part => panic!("it has its end: {}", text.escape_ascii()),
    }
}

/// The head that the fields stand for, if they keep to the rules that HTTP/2 has besides.
fn text_of(fields: &[Field], ends: bool) -> Option<Vec<u8>> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let mut pseudo: Vec<Field> = Vec::new();
    let mut regular = Vec::new();
    for (name, value) in fields {
        let is_control = |byte: &u8| matches!(byte, 0..=8 | 10..=31 | 127);
        if value.iter().any(is_control) || is_blank(value.first()) || is_blank(value.last()) {
            return None;
        }
        if name.starts_with(b":") {
            let is_known = matches!(&name[..], b":method" | b":scheme" | b":authority" | b":path");
            let is_new = !pseudo.iter().any(|(other, _)| other == name);
            if !is_known || !is_new || !regular.is_empty() {
                return None;
            }
            pseudo.push((name.clone(), value.clone()));
            continue;
        }
        let is_letter =
            |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_letter) {
            return None;
        }
        const OF_CONNECTION: [&[u8]; 5] =
            [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
        if OF_CONNECTION.contains(&&name[..]) || name == b"te" && value != b"trailers" {
            return None;
        }
        regular.push((name, value));
    }
    let of = |name: &[u8]| pseudo.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..]);
    let (method, authority) = (of(b":method")?, of(b":authority"));
    let target = match (method, of(b":path"), of(b":scheme")) {
        (b"CONNECT", None, None) => authority?,
        (b"CONNECT", ..) => return None,
        (method, Some(path), Some(scheme)) => {
            let is_http = scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https");
            let is_path = path.starts_with(b"/") || path == b"*" && method == b"OPTIONS";
            if !is_http || !is_path {
                return None;
            }
            path
        }
        _ => return None,
    };
    let default_port = match of(b":scheme") {
        Some(scheme) if scheme.len() == b"https".len() => Some(443),
        Some(_) => Some(80),
        None => reference::head::authority(target).and_then(|(_, port)| port),
    };
    let named = |text: &[u8]| {
        let (name, port) = reference::head::authority(text)?;
        Some((name.to_ascii_lowercase(), port.or(default_port)))
    };
    let hosts = || regular.iter().filter(|(name, _)| &name[..] == b"host");
    if authority.is_some_and(|authority| hosts().any(|(_, host)| named(host) != named(authority))) {
        return None;
    }
    let mut text = [method, b" ", target, b" HTTP/1.1\r\n"].concat();
    let mut line = |name: &[u8], value: &[u8]| text.extend([name, b": ", value, b"\r\n"].concat());
    if let Some(authority) = authority {
        line(b"host", authority);
    }
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (name, value) in &regular {
        match &name[..] {
            b"host" if authority.is_some() => {}
            // One that is empty, before any that is not, leaves no mark.
            b"cookie" if cookies.is_empty() && value.is_empty() => {}
            b"cookie" => cookies.push(value),
            _ => line(name, value),
        }
    }
    if !cookies.is_empty() {
        line(b"cookie", &cookies.join(&b"; "[..]));
    }
    let has_length = regular.iter().any(|(name, _)| &name[..] == b"content-length");
    if !ends && !has_length && method != b"CONNECT" {
        line(b"transfer-encoding", b"chunked");
    }
    text.extend_from_slice(b"\r\n");
    Some(text)
}

/// A head that was taken goes on as exactly one request, over both versions.
fn goes_on(head: &RequestHead, text: &[u8], shown: &str) {
    assert_eq!(head.end as usize, text.len(), "{shown}");
    let before = of_request(head, text);
    let view = RequestView { head, bytes: text };
    let mut written = Written::of(text);
    encode::request(view, &HeadEdits::default(), &mut written).expect("a head without edits can be sent");
    let after = read_one(&written.bytes, shown);
    assert_same(&before, &after, shown);

    let mut client = Connection::new(false, CONFIG, Tick(0));
    let mut out = Vec::new();
    client.take_output(&mut out);
    out.clear();
    let key = client.open().expect("a stream");
    client.send_request(key, view, &HeadEdits::default(), b"http").expect("a head without edits can be sent");
    client.take_output(&mut out);
    let sent = frames::read(&out);
    let [frame] = &sent[..] else { panic!("{} frames: {shown}", sent.len()) };
    assert_eq!((frame.kind, frame.stream), (kind::HEADERS, 1), "{shown}");
    let ends = frame.flags & END_STREAM != 0;
    let wide = Limits { head_bytes_max: 4000, headers_count_max: 50, target_bytes_max: 4000 };
    let mut again = RequestHead::default();
    let Verdict::Head(twice) = ask(&frame.payload, ends, wide, &mut again) else {
        panic!("what is sent on is refused: {shown}");
    };
    assert_same(&before, &of_request(&again, &twice), shown);
}

fn read_one(bytes: &[u8], shown: &str) -> Head {
    let limits = reference::head::Limits {
        head_bytes: usize::MAX,
        headers: usize::MAX,
        target_bytes: usize::MAX,
        ..REFERENCE_LIMITS
    };
    match reference::head::read(bytes, Side::Requests, &limits) {
        Read::Whole(head) if head.end == bytes.len() => head,
        other => panic!("{other:?} of {} from {shown}", bytes.escape_ascii()),
    }
}

/// They mean the same. A body that has no bytes may be none.
fn assert_same(before: &Head, after: &Head, shown: &str) {
    let is_empty = |framing| matches!(framing, Framing::None | Framing::Length(0));
    assert!(
        before.framing == after.framing || is_empty(before.framing) && is_empty(after.framing),
        "{:?} {:?}: {shown}",
        before.framing,
        after.framing
    );
    let asked = |head: &Head| match &head.start {
        Start::Request { method, path, query, authority, .. } => {
            (method.clone(), path.clone(), query.clone(), authority.clone())
        }
        Start::Response { .. } => panic!("a response"),
    };
    assert_eq!(asked(before), asked(after), "{shown}");
    const ENDS_HERE: [&[u8]; 7] = [
        b"te",
        b"connection",
        b"host",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"x-forwarded-client-cert",
        b"transfer-encoding",
    ];
    let is_disguised = |name: &[u8]| is_disguised_identity(&String::from_utf8_lossy(name).to_lowercase());
    let kept = |head: &Head| -> Vec<(Vec<u8>, Vec<u8>)> {
        let lower = head.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
        lower.filter(|(name, _)| !ENDS_HERE.contains(&&name[..]) && !is_disguised(name)).collect()
    };
    assert_eq!(kept(before), kept(after), "{shown}");
    assert!(!after.headers.iter().any(|(name, _)| is_disguised(name)), "{shown}");
}
