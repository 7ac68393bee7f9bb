//! How long a request is: H1-01 to H1-04, H1-08, H1-09.

use crate::{
    ledger::Meant,
    trial::{Fate, Input, Trials},
};

/// A POST with these lines and these bytes behind its head.
fn post(lines: &str, body: &str, means: Option<&str>, fate: Fate) -> Input {
    Input {
        name: format!("{lines:?}"),
        bytes: format!("POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {{id}}\r\n{lines}\r\n\r\n{body}").into_bytes(),
        means: means.map(|body| Meant::new("POST", "/t", body.as_bytes())),
        fate,
    }
}

/// RFC 9112 §6.1: a server may reject it, or process it by Transfer-Encoding alone and close. Ringway rejects it.
pub(crate) fn length_and_coding(trials: &mut Trials<'_>) {
    for lines in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "content-length:6\r\ntransfer-encoding:CHUNKED",
    ] {
        trials.input(&post(lines, "0\r\n\r\nG", Some(""), Fate::Refused(400)));
    }
    // By the length the next request is inside the body, by the coding it is not.
    let hidden = "GET /hidden HTTP/1.1\r\n\r\n";
    for lines in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let body = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        trials.input(&post(lines, &body, Some(hidden), Fate::Refused(400)));
    }
}

/// RFC 9112 §6.1: an unknown coding is 501, a malformed list 400; `chunked` must be last and once (§7.1).
pub(crate) fn codings(trials: &mut Trials<'_>) {
    let hello = Some("hello");
    for (value, status) in [
        (" chunked, identity", 400),
        (" ,chunked", 400),
        (" chunked,", 400),
        (" chunked, chunked", 400),
        (" \"chunked\"", 400),
        (" Chunked\x0b", 400),
        ("\tchunked", 400),
        (" chunked\t", 400),
        (" chunked\r\nTransfer-Encoding: chunked", 400),
        (" chunked\r\nTransfer-Encoding: identity", 400),
        ("", 400),
        (" xchunked", 501),
        (" chunkedx", 501),
        (" identity", 501),
        (" gzip, chunked", 501),
    ] {
        let lines = format!("Transfer-Encoding:{value}");
        // White space around a value is legal, and not read alike by all.
        let means = hello.filter(|_| value.trim_matches('\t').trim() == "chunked");
        trials.input(&post(&lines, "5\r\nhello\r\n0\r\n\r\n", means, Fate::Refused(status)));
    }
    trials.input(&post(
        "Transfer-Encoding: cHuNkEd",
        "5\r\nhello\r\n0\r\n\r\n",
        Some("hello"),
        Fate::Forwarded,
    ));
}

/// RFC 9112 §6.3: a recipient may merge equal lengths or reject them; Ringway rejects. All others are errors.
pub(crate) fn lengths(trials: &mut Trials<'_>) {
    let hello = Some("hello");
    for (lines, means) in [
        ("Content-Length: 5\r\nContent-Length: 5", hello),
        ("Content-Length: 5, 5", hello),
        ("Content-Length: 5\r\nContent-Length: 6", None),
        ("Content-Length: 6\r\nContent-Length: 5", None),
        ("Content-Length: 5, 6", None),
        ("Content-Length: +5", None),
        ("Content-Length: -0", None),
        ("Content-Length: 0x5", None),
        ("Content-Length: 5 5", None),
        ("Content-Length: 5.0", None),
        ("Content-Length:", None),
        ("Content-Length: \t5", hello),
        ("Content-Length: 5\x0b", None),
        ("Content-Length: 9223372036854775808", None),
        ("Content-Length: 18446744073709551621", None),
    ] {
        trials.input(&post(lines, "hello", means, Fate::Refused(400)));
    }
    for (length, body) in [("5", "hello"), ("05", "hello"), ("0", "")] {
        trials.input(&post(&format!("Content-Length: {length}"), body, Some(body), Fate::Forwarded));
    }
}
