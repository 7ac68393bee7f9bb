//! Requests on a downstream connection, one after the other: read the same however they come, as the reference reads
//! them; sent on, they mean what they meant, whatever edits say.

use wire::{
    head::{RequestHead, RequestView},
    http1::{
        encode::{self, Edit, HeadEdits},
        parse::{self, Limits, Parsed},
    },
};

use crate::{
    connection::{LIMITS, REFERENCE_LIMITS, Shown, Written, of_request, read, ways_to_cut},
    message::{Head, Read, Start, assert_agree},
    reference::{self, Side, is_disguised_identity},
};

/// Words of requests.
pub const WORDS: &[&str] = &[
    "GET ",
    "HEAD ",
    "POST ",
    "CONNECT ",
    "OPTIONS ",
    "* ",
    "/",
    "http://a",
    "https://a:443/",
    "?q",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "HTTP/2.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\r\n ",
    ": ",
    ":\t",
    ":",
    ", ",
    "\t",
    "Host: a\r\n",
    "Host: [::1]:80\r\n",
    "Content-Length: ",
    "Content-Length: 3\r\n\r\nabc",
    "Transfer-Encoding: chunked\r\n",
    "Transfer_Encoding: ",
    "content--length: ",
    "Transfer-Encoding: ",
    "chunked",
    "gzip",
    "identity",
    "Connection: ",
    "close",
    "keep-alive",
    "upgrade",
    "X-A: b\r\n",
    "X_Real-IP: b\r\n",
    "X-A",
    "Upgrade: websocket\r\n",
    "h2c",
    "Expect: 100-continue\r\n",
    "TE: trailers\r\n",
    "trailers;q=0.5",
    "Trailer: x\r\n",
    "Keep-Alive: 5\r\n",
    "Proxy-Connection: x\r\n",
    "0\r\n\r\n",
    "1\r\na\r\n",
    "5;x=y\r\nhello\r\n",
    "9223372036854775807",
    "18446744073709551616",
    "+5",
    "0x5",
    "\u{0}",
    "\u{7f}",
    "\u{b}",
    "\u{85}",
    "\u{a0}",
    "%2f",
];

/// Ends that would make the beginning of a request whole.
const COMPLETIONS: &[&[u8]] = &[
    b"\r\n\r\n",
    b"\n\r\n",
    b"\n",
    b"\r\n",
    b"\nHost: a\r\n\r\n",
    b"\r\nHost: a\r\n\r\n",
    b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1\r\nHost: a\r\n\r\n",
    b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"1\r\nHost: a\r\n\r\n",
    b"0\r\n\r\n",
    b": x\r\n\r\n",
    b"0\r\n\r\n0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"\n0\r\n\r\n",
    b"\n\r\n0\r\n\r\n",
];

/// Judges the bytes of one connection.
pub fn run(bytes: &[u8]) {
    let ours = read(bytes, Side::Requests, []);
    for pieces in ways_to_cut(bytes) {
        let cut = read(bytes, Side::Requests, pieces.iter().copied());
        assert_eq!(cut, ours, "cut at {pieces:?}: {}", bytes.escape_ascii());
    }
    let again = |bytes: &[u8]| reference::connection(bytes, Side::Requests, &REFERENCE_LIMITS);
    assert_agree(bytes, &ours, &again(bytes), COMPLETIONS, again);
    let mut head = RequestHead::default();
    if parse::request(bytes, &LIMITS, &mut head) == Ok(Parsed::Complete) {
        let view = RequestView { head: &head, bytes };
        sent_on(view, &HeadEdits { upgrade: true, ..HeadEdits::default() });
        hostile_edits(view);
    }
}

/// Edits whose text is the request's own bytes, as those of a route may be.
fn hostile_edits(view: RequestView<'_>) {
    let bytes = view.bytes;
    let text =
        |from: usize| bytes.get(bytes.len() * from / 8..bytes.len() * (from + 1) / 8).unwrap_or_default();
    let name = view.head.headers.last().map_or(text(0), |header| header.name.of(bytes));
    let value = view.head.headers.first().map_or(text(1), |header| header.value.of(bytes));
    let headers = [
        Edit::Append { name: text(2), value: text(3) },
        Edit::Set { name, value: text(4) },
        Edit::Append { name, value },
        Edit::Remove(text(5)),
        Edit::Set { name: text(6), value },
    ];
    for count in 0..=headers.len() {
        let headers = &headers[..count];
        let edits =
            HeadEdits { headers, close: count % 2 == 0, upgrade: count % 3 == 0, ..HeadEdits::default() };
        sent_on(view, &edits);
    }
    let rewritten =
        HeadEdits { path_and_query: Some(text(1)), authority: Some(text(2)), ..HeadEdits::default() };
    sent_on(view, &rewritten);
}

/// What goes upstream is one request that means the same, and stays as it is when it is sent on again.
fn sent_on(view: RequestView<'_>, edits: &HeadEdits<'_>) {
    // An HTTP/1.0 request may name no host: whoever sends it on knows one.
    let authority = edits.authority.or(view.authority().is_empty().then_some(b"a"));
    let mut written = Written::of(view.bytes);
    if encode::request(view, &HeadEdits { authority, ..*edits }, &mut written).is_err() {
        assert!(written.bytes.is_empty(), "a head that cannot be sent was begun");
        return;
    }
    let sent = written.bytes;
    let shown = Shown(view.bytes, &sent);
    let before = of_request(view.head, view.bytes);
    // What is added makes a head longer than one that may come.
    let limits = reference::head::Limits {
        head_bytes: usize::MAX,
        headers: usize::MAX,
        target_bytes: usize::MAX,
        ..REFERENCE_LIMITS
    };
    let Read::Whole(after) = reference::head::read(&sent, Side::Requests, &limits) else {
        panic!("what is sent is no request: {shown}");
    };
    assert_eq!((after.end, after.version, after.framing), (sent.len(), 1, before.framing), "{shown}");
    let (Start::Request { method, path, query, authority: host, upgrade, .. }, Start::Request { .. }) =
        (&after.start, &before.start)
    else {
        panic!("a request becomes a request: {shown}");
    };
    assert_eq!(method, view.method(), "{shown}");
    if edits.path_and_query.is_none() {
        let asks_for_server = path.is_empty() && method == b"OPTIONS" && view.path() == b"/";
        assert!(path == view.path() || asks_for_server, "{shown}");
        assert_eq!(query.as_deref(), view.query(), "{shown}");
    }
    if method != b"CONNECT" && authority.is_none() {
        assert!(
            host.eq_ignore_ascii_case(view.authority()) || names_the_same(host, view.authority()),
            "{shown}"
        );
    }
    assert_eq!(*upgrade, edits.upgrade && view.head.upgrade, "{shown}");
    assert_eq!(after.keep_alive, !edits.close || *upgrade, "{shown}");
    // Transfer codings would be ours to decode (RFC 9110 §10.1.4).
    let mut te = after.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"te"));
    assert!(te.next().is_none_or(|(_, value)| value == b"trailers") && te.next().is_none(), "{shown}");
    assert_end_to_end(&before, &after, edits.headers, shown);

    if !edits.headers.is_empty() {
        // They may add what ends at the next hop.
        return;
    }
    let mut again = RequestHead::default();
    let wide = Limits { head_bytes_max: usize::MAX, headers_count_max: 256, target_bytes_max: usize::MAX };
    assert_eq!(parse::request(&sent, &wide, &mut again), Ok(Parsed::Complete), "{shown}");
    let mut twice = Written::of(&sent);
    let edits = HeadEdits { close: edits.close, upgrade: true, ..HeadEdits::default() };
    encode::request(RequestView { head: &again, bytes: &sent }, &edits, &mut twice)
        .expect("it was sent once");
    let (once, twice) = (without_idle_connection(&sent), without_idle_connection(&twice.bytes));
    assert!(twice == once, "{}\nis not what was sent once: {shown}", twice.escape_ascii());
}

/// Without the `Connection` lines that say what holds without them: they may stand beside one that says more.
fn without_idle_connection(head: &[u8]) -> Vec<u8> {
    let is_idle = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line).to_lowercase();
        let options = line.strip_prefix("connection:");
        options.is_some_and(|options| options.split(',').all(|one| matches!(one.trim(), "" | "keep-alive")))
    };
    head.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_idle(line)).flatten().copied().collect()
}

/// The `Host` that goes with an absolute target may leave out the scheme's port, or name it.
fn names_the_same(one: &[u8], other: &[u8]) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    long.get(..short.len()).is_some_and(|start| start.eq_ignore_ascii_case(short))
        && matches!(long.get(short.len()..), Some([b':', port @ ..]) if port.iter().all(u8::is_ascii_digit))
}

/// Headers that say something to the next hop only, which may come and go.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "te",
    "upgrade",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "expect",
    "x-forwarded-client-cert",
];

/// Every other header that no edit names goes on, as it is and in its order, unless `Connection` names it.
fn assert_end_to_end(before: &Head, after: &Head, edits: &[Edit<'_>], shown: Shown<'_>) {
    let lower = |text: &[u8]| String::from_utf8_lossy(text).to_lowercase();
    let is_edited = |name: &[u8]| {
        edits.iter().any(|edit| {
            let (Edit::Remove(edited) | Edit::Set { name: edited, .. } | Edit::Append { name: edited, .. }) =
                edit;
            edited.eq_ignore_ascii_case(name)
        })
    };
    let options: Vec<String> = before
        .headers
        .iter()
        .filter(|(name, _)| lower(name) == "connection")
        .flat_map(|(_, value)| lower(value).split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>())
        .collect();
    let goes_on = |(name, _): &&(Vec<u8>, Vec<u8>)| {
        let name_text = lower(name);
        let is_free = !HOP_BY_HOP.contains(&name_text.as_str())
            && name_text != "host"
            && !options.contains(&name_text)
            && !is_disguised_identity(&name_text);
        is_free && !is_edited(name)
    };
    let sent: Vec<_> = before.headers.iter().filter(goes_on).collect();
    let received: Vec<_> = after.headers.iter().filter(goes_on).collect();
    assert_eq!(received, sent, "{shown}");
    let is_disguised = |name: &[u8]| is_disguised_identity(&lower(name)) && !is_edited(name);
    assert!(!after.headers.iter().any(|(name, _)| is_disguised(name)), "{shown}");
}
