//! Responses on an upstream connection, one after the other: read the same however they come, as the reference reads
//! them, whatever the request was; sent on, they mean what they meant.

use wire::{
    head::{ResponseHead, ResponseView, Version},
    http1::{
        encode::{self, BodyOut, Edit, ResponseEdits},
        parse::{self, Parsed},
    },
};

use crate::{
    connection::{LIMITS, REFERENCE_LIMITS, Shown, Written, method_of, of_response, read, ways_to_cut},
    message::{Framing, Read, Start, assert_agree},
    reference::{self, Side},
};

/// Words of responses.
pub const WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 ",
    "HTTP/1.1 ",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 101 Switching\r\n",
    "204 ",
    "304 ",
    "205 ",
    "099 ",
    "1000 ",
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
    "Content-Length: ",
    "Content-Length: 3\r\n\r\nabc",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Transfer-Encoding: ",
    "chunked",
    "gzip",
    "Host: a\r\n",
    "Connection: ",
    "close",
    "keep-alive",
    "upgrade",
    "Upgrade: websocket\r\n",
    "Trailer: x\r\n",
    "0\r\n\r\n",
    "1\r\na\r\n",
    "9223372036854775808",
    "\u{0}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "Server: s\r\n",
    "Date: d\r\n",
    "TE: trailers\r\n",
];

/// Ends that would make the beginning of a response whole.
const COMPLETIONS: &[&[u8]] = &[
    b"\r\n\r\n",
    b"\n\r\n",
    b"\n",
    b"\r\n",
    b" \r\n\r\n",
    b"00 \r\n\r\n",
    b"0 \r\n\r\n",
    b" 200 \r\n\r\n",
    b"200 \r\n\r\n",
    b".1 200 \r\n\r\n",
    b"1 200 \r\n\r\n",
    b"/1.1 200 \r\n\r\n",
    b"TTP/1.1 200 \r\n\r\n",
    b": x\r\n\r\n",
    b"0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"\n0\r\n\r\n",
    b"0\r\n\r\n0\r\n\r\n",
    b"\n\r\n0\r\n\r\n",
];

/// Judges the bytes of one connection.
pub fn run(bytes: &[u8]) {
    for method in [&b"GET"[..], b"HEAD", b"CONNECT"] {
        let side = Side::Responses(method);
        let ours = read(bytes, side, []);
        for pieces in ways_to_cut(bytes) {
            let cut = read(bytes, side, pieces.iter().copied());
            assert_eq!(cut, ours, "cut at {pieces:?}: {}", bytes.escape_ascii());
        }
        let again = |bytes: &[u8]| reference::connection(bytes, side, &REFERENCE_LIMITS);
        assert_agree(bytes, &ours, &again(bytes), COMPLETIONS, again);
        sent_on(bytes, method);
    }
}

/// What goes downstream is one response that means the same, whatever edits say.
fn sent_on(bytes: &[u8], method: &[u8]) {
    let mut head = ResponseHead::default();
    if parse::response(bytes, &LIMITS, method_of(method), &mut head) != Ok(Parsed::Complete) {
        return;
    }
    let view = ResponseView { head: &head, bytes };
    let text =
        |from: usize| bytes.get(bytes.len() * from / 8..bytes.len() * (from + 1) / 8).unwrap_or_default();
    let name = head.headers.last().map_or(text(0), |header| header.name.of(bytes));
    let headers = [
        Edit::Append { name: text(2), value: text(3) },
        Edit::Set { name, value: text(4) },
        Edit::Remove(text(5)),
        Edit::Set { name: text(6), value: text(1) },
    ];
    for (count, version) in
        [(0, Version::Http11), (0, Version::Http10), (2, Version::Http11), (4, Version::Http11)]
    {
        let edits = ResponseEdits {
            headers: &headers[..count],
            body: BodyOut::choose(head.framing, version),
            close: count == 2,
            version,
            method: method_of(method),
        };
        let mut written = Written::of(bytes);
        encode::response(view, &edits, &mut written);
        assert_means_the_same(view, &written.bytes, method, &edits);
    }
}

fn assert_means_the_same(view: ResponseView<'_>, sent: &[u8], method: &[u8], edits: &ResponseEdits<'_>) {
    let shown = Shown(view.bytes, sent);
    let before = of_response(view.head, view.bytes);
    let limits = reference::head::Limits { head_bytes: usize::MAX, headers: usize::MAX, ..REFERENCE_LIMITS };
    let Read::Whole(after) = reference::head::read(sent, Side::Responses(method), &limits) else {
        panic!("what is sent is no response: {shown}");
    };
    let Start::Response { status, reason } = &before.start else { panic!("a response is none: {shown}") };
    // One that came without a phrase gets the registered one.
    let reason = match reason.is_empty() {
        true => encode::reason_phrase(*status).as_bytes().to_vec(),
        false => reason.clone(),
    };
    let start = Start::Response { status: *status, reason };
    assert_eq!((after.end, &after.start), (sent.len(), &start), "{shown}");
    assert_eq!(after.version, 1, "{shown}");
    let framing = match (before.framing, edits.version) {
        (Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (Framing::Chunked, Version::Http10) => Framing::UntilClose,
        (framing, _) => framing,
    };
    assert_eq!(after.framing, framing, "{shown}");
    let status = *status;
    let names =
        |name: &str| after.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
    // RFC 9112 §6.1: not with an interim answer, nor with 204, nor for whoever does not know chunks.
    let is_bare = matches!(status, 100..=199 | 204);
    assert!(!(is_bare && (names("content-length") || names("transfer-encoding"))), "{shown}");
    assert!(edits.version == Version::Http11 || !names("transfer-encoding"), "{shown}");
    if status >= 200 && edits.close {
        assert!(!after.keep_alive, "{shown}");
    }
}
