//! Chunked bodies: read the same however they come, as the reference reads them; written again, they are the same body.

use std::collections::BTreeSet;

use wire::{
    head::Framing,
    http1::body::{CHUNK_END, ChunkHead, Decoder, LAST_CHUNK, Step, TRAILERS_END},
};

use crate::{
    connection::{REFERENCE_TRAILER_LIMITS, TRAILER_LIMITS, ways_to_cut},
    message::Read,
    reference::body::{self, Chunked},
};

/// Words of chunked bodies.
pub const WORDS: &[&str] = &[
    "0\r\n",
    "0\r\n\r\n",
    "\r\n",
    "\n",
    "\r",
    "1\r\na\r\n",
    "5\r\nhello\r\n",
    "A\r\n0123456789\r\n",
    "00000000000000001",
    "7fffffffffffffff\r\n",
    "8000000000000000\r\n",
    "ffffffffffffffff\r\n",
    ";",
    ";a=b",
    ";a=\"b;c\"",
    "=\"\\\"",
    "Content_Length: 5\r\n",
    "0x",
    "+",
    "-",
    " ",
    "\t",
    "a: b\r\n",
    "Content-Length: 5\r\n",
    "Host: a\r\n",
    "transfer-encoding: chunked\r\n",
    "Authorization: x\r\n",
    "X-Forwarded-For: a\r\n",
    "x-request-id: a\r\n",
    " folded\r\n",
    ": ",
    "\u{0}",
    "\u{7f}",
    "GET / HTTP/1.1\r\n",
];

/// Ends that would make the beginning of a body whole.
const COMPLETIONS: &[&[u8]] = &[
    b"0\r\n\r\n",
    b"\r\n0\r\n\r\n",
    b"\n0\r\n\r\n",
    b"\r\n\r\n",
    b"\n\r\n",
    b"\n",
    b"\r\n",
    b"\r\na\r\n0\r\n\r\n",
    b"\na\r\n0\r\n\r\n",
    b": b\r\n\r\n",
    b"b\r\n\r\n",
    b"a: b\r\n\r\n",
];

/// Judges a body and what follows it.
pub fn run(bytes: &[u8]) {
    let ours = decode(bytes, []);
    for pieces in ways_to_cut(bytes) {
        let cut = decode(bytes, pieces.iter().copied());
        assert_eq!(cut, ours, "cut at {pieces:?}: {}", bytes.escape_ascii());
    }
    let shown = bytes.escape_ascii();
    match (&ours, body::read(bytes, &REFERENCE_TRAILER_LIMITS)) {
        (Read::Refused(ours), Read::Refused(theirs)) => {
            assert!(ours.is_subset(&theirs), "refused with {ours:?} and not {theirs:?}: {shown}");
        }
        (Read::Refused(_), Read::Part) => {
            for completion in COMPLETIONS {
                let completed = body::read(&[bytes, completion].concat(), &REFERENCE_TRAILER_LIMITS);
                let is_whole = matches!(completed, Read::Whole(_));
                assert!(!is_whole, "`{}` would make it whole: {shown}", completion.escape_ascii());
            }
        }
        (ours, theirs) => assert_eq!(*ours, theirs, "{shown}"),
    }
    if let Read::Whole(body) = ours {
        sent_on(&body);
    }
}

/// Reads a body, in pieces that end where `pieces` says.
fn decode(bytes: &[u8], pieces: impl IntoIterator<Item = usize>) -> Read<Chunked> {
    let mut decoder = Decoder::new(Framing::Chunked, TRAILER_LIMITS);
    let mut body = Chunked::default();
    for end in pieces.into_iter().chain([bytes.len()]) {
        loop {
            let rest = &bytes[body.end..end];
            let count = match decoder.receive(rest) {
                Ok(Step::Data(count)) => {
                    body.data.extend_from_slice(&rest[..count]);
                    count
                }
                Ok(Step::Trailer(count)) => {
                    body.trailers.extend_from_slice(&rest[..count]);
                    count
                }
                Ok(Step::Skip(count)) => count,
                Ok(Step::NeedMore) => break,
                Ok(Step::End) => {
                    assert!(decoder.is_ended() && decoder.on_close().is_ok());
                    return Read::Whole(body);
                }
                Err(error) => return Read::Refused(BTreeSet::from([error.status()])),
            };
            assert!(count > 0, "a step of no bytes");
            body.end += count;
        }
    }
    assert!(!decoder.is_ended() && decoder.on_close().is_err());
    Read::Part
}

/// Written as the relay writes it, in chunks of other sizes.
fn sent_on(body: &Chunked) {
    for size in [1, 10, 16, usize::MAX] {
        let mut sent = Vec::new();
        for chunk in body.data.chunks(size) {
            sent.extend_from_slice(ChunkHead::new(chunk.len()).as_bytes());
            sent.extend_from_slice(chunk);
            sent.extend_from_slice(CHUNK_END);
        }
        sent.extend_from_slice(LAST_CHUNK);
        sent.extend_from_slice(&body.trailers);
        sent.extend_from_slice(TRAILERS_END);
        let end = sent.len();
        let expected = Read::Whole(Chunked { end, ..body.clone() });
        assert_eq!(body::read(&sent, &REFERENCE_TRAILER_LIMITS), expected, "{}", sent.escape_ascii());
        assert_eq!(decode(&sent, []), expected, "{}", sent.escape_ascii());
    }
}
