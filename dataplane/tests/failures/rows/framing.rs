//! How long a request is: H1-01 to H1-04, H1-08, H1-09.
//!
//! `wire` has longer tables of the same in `parse` and `body`, each input cut at every byte there, too.

use policy::limits::{EXTENSION_BYTES_MAX, HEADERS_COUNT_DEFAULT};

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
        is_in_body: false,
    }
}

/// A POST with this chunked body.
fn chunks(body: &str, means: Option<&str>, fate: Fate) -> Input {
    let means = means.map_or_else(
        || Meant { breaks: true, ..Meant::new("POST", "/t", b"") },
        |body| Meant::new("POST", "/t", body.as_bytes()),
    );
    let mut input = post("Transfer-Encoding: chunked", body, None, fate);
    input.name = format!("{:?}", body.get(..60).unwrap_or(body));
    Input { means: Some(means), is_in_body: true, ..input }
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

/// RFC 9112 §6.1: such a message is faulty, and its connection ends with it.
pub(crate) fn old_version(trials: &mut Trials<'_>) {
    for lines in ["", "Connection: keep-alive\r\n", "Content-Length: 5\r\n"] {
        let text = format!(
            "POST /t HTTP/1.0\r\nHost: a\r\nX-Id: {{id}}\r\n{lines}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        let input = post("", "", Some("hello"), Fate::Refused(400));
        trials.input(&Input { name: format!("{lines:?}"), bytes: text.into_bytes(), ..input });
    }
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

/// RFC 9112 §7.1: the grammar of chunks, which ends every line in CRLF and has sizes in hex digits alone. What is not in it
/// ends both connections; extensions are dropped (§7.1.1).
pub(crate) fn chunk_framing(trials: &mut Trials<'_>) {
    let broken = Fate::Refused(400);
    for body in [
        "5;\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a=\rb\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\n",
        "100000000000000005\r\nhello\r\n0\r\n\r\n",
    ] {
        trials.input(&chunks(body, None, broken));
    }
    // Some take these, which does no harm as long as they are not sent on.
    for body in [
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;a\x00\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
    ] {
        trials.input(&chunks(body, Some("hello"), broken));
    }
    for size in ["ffffffffffffffff", "fffffffffffffffff", "fffffffffffffffe", "8000000000000000"] {
        trials.input(&chunks(&format!("{size}\r\nhello\r\n0\r\n\r\n"), None, Fate::Refused(413)));
    }
    let extended = |bytes: usize| format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(bytes));
    for (body, fate) in [
        (extended(EXTENSION_BYTES_MAX), Fate::Forwarded),
        (extended(EXTENSION_BYTES_MAX + 1), broken),
        (extended(64 * 1024), broken),
    ] {
        trials.input(&chunks(&body, Some("hello"), fate));
    }
    let hello = Some("hello");
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a\r\nhello\r\n0;b=c\r\n\r\n",
        "5;a=\"\t;\"\r\nhello\r\n0\r\n\r\n",
        "0000000000000005\r\nhello\r\n000\r\n\r\n",
        "1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n",
    ] {
        trials.input(&chunks(body, hello, Fate::Forwarded));
    }
    // The broken proxy goes over all of it for every part that comes.
    let count = if trials.subject.kind.is_thorough() { 1_000_000 } else { 1_000 };
    let body = "1\r\nx\r\n".repeat(count) + "0\r\n\r\n";
    trials.input(&chunks(&body, Some(&"x".repeat(count)), Fate::Forwarded));
}

/// RFC 9110 §6.5.1: a trailer that frames or routes is refused, one that says who asks is dropped, and none becomes a
/// header. RFC 9112 §7.1.2.
pub(crate) fn trailers(trials: &mut Trials<'_>) {
    let body = |lines: &str| format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n");
    let names = &[
        "Content-Length",
        "Host",
        "Transfer-Encoding",
        "Connection",
        "Trailer",
        "Authorization",
        "X-Forwarded-For",
    ];
    let mut trial = |lines: &str, fate| {
        let mut input = chunks(&body(lines), Some("hello"), fate);
        input.means = input.means.map(|means| Meant {
            without_trailers: names,
            without: &["x-late", "authorization"],
            ..means
        });
        trials.input(&input);
    };
    for name in &names[..5] {
        trial(&format!("{name}: 1"), Fate::Refused(400));
        trial(&format!("X-Late: 1\r\n{}: 1", name.to_ascii_uppercase()), Fate::Refused(400));
    }
    for line in ["Authorization: 1", "X-Forwarded-For: 1", "X-Late: 1", "X-Late: 1\r\nX-Late: 2"] {
        trial(line, Fate::Forwarded);
    }
    for line in ["X-Late", " X-Late: 1", "X-Late : 1", "X-Late: 1\r\n 2", "X-Late: \x00", ": 1"] {
        let input = chunks(&body(line), None, Fate::Refused(400));
        trials.input(&input);
    }
    for (count, fate) in [
        (HEADERS_COUNT_DEFAULT, Fate::Forwarded),
        (HEADERS_COUNT_DEFAULT + 1, Fate::Refused(431)),
        (10_000, Fate::Refused(431)),
    ] {
        trials.input(&chunks(&body(&vec!["X: 1"; count].join("\r\n")), Some("hello"), fate));
    }
}
