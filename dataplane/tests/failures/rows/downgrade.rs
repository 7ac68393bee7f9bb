//! HTTP/2 that HTTP/1.1 cannot say, on its way to an origin of HTTP/1.1: DG-01 to DG-04, DG-08; and what both can: DG-07.

use crate::{
    client::Answer,
    http2::{
        DATA, END_STREAM, Field, Outcome, PROTOCOL_ERROR, Peer, frame, head, request, reset as reset_frame,
    },
    ledger::{Meant, Unsafe, Verdict},
    recorder::Then,
    trial::Trials,
};

/// What becomes of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Reset with PROTOCOL_ERROR, and nothing of it went on.
    Refused,
    /// Answered by the proxy with this status, and nothing of it went on.
    Answered(u16),
    /// Forwarded as what it means.
    Forwarded,
}

/// A request with its first fields in place of the usual ones, or with more behind them.
struct Vector<'a> {
    name: String,
    /// In place of those of the same name, or behind all.
    changes: Vec<Field<'a>>,
    body: &'a [u8],
    /// The one way in which it may be forwarded.
    means: Option<Meant>,
    fate: Fate,
}

impl Trials<'_> {
    fn vector(&mut self, vector: &Vector<'_>) {
        if self.has_enough() {
            return;
        }
        let mut verdict = Verdict::default();
        let id = self.ledger.next_id();
        self.ledger.enter(id, vector.means.clone());
        let text = id.to_string();
        let method = if vector.body.is_empty() { "GET" } else { "POST" };
        let mut fields = request(method, "/t", &text);
        for change in &vector.changes {
            // Pseudo fields come first and once, unless two of a name are the point.
            let known = fields.iter().position(|(name, _)| *name == change.0 && name.starts_with(b":"));
            match known {
                Some(at) => fields[at] = *change,
                None => fields.push(*change),
            }
        }
        let mut peer = Peer::connect(self.subject.address, self.subject.patience, b"");
        let mut bytes = head(1, vector.body.is_empty(), &fields);
        if !vector.body.is_empty() {
            bytes.extend(frame(DATA, END_STREAM, 1, vector.body));
        }
        // Together with the stream behind it, which must be answered with its own answer.
        let next = self.enter(Meant::new("GET", "/plain", b""));
        bytes.extend(head(3, true, &request("GET", "/plain", &next.to_string())));
        peer.send(&bytes);
        let fate = match peer.outcome(1) {
            Outcome::Whole(message) if message.head.id() == Some(id) => Some(Fate::Forwarded),
            Outcome::Whole(message) if message.head.id().is_some() => {
                verdict.found.push((Unsafe::Crossed, format!("the answer of {:?}", message.head.id())));
                None
            }
            Outcome::Whole(message) => Some(Fate::Answered(message.head.status())),
            Outcome::Reset(PROTOCOL_ERROR, message) if message.head.headers.is_empty() => Some(Fate::Refused),
            Outcome::Reset(code, _) => {
                verdict.unexpected = Some(format!("reset with {code}"));
                None
            }
            Outcome::Gone(code, end) => {
                verdict.unexpected = Some(format!("GOAWAY {code:?}, {end:?}"));
                None
            }
            Outcome::Silence(_) => {
                verdict.found.push((Unsafe::Lost, "silence".to_owned()));
                None
            }
        };
        verdict.expect_echo("the stream behind", next, peer.answer(3));
        self.settle(id, &mut verdict);
        if fate != Some(vector.fate) {
            verdict.unexpected.get_or_insert(format!("{fate:?}"));
        }
        self.tally.count(&vector.name, verdict);
    }

    fn refused(&mut self, name: &str, changes: Vec<Field<'_>>) {
        let name = name.to_owned();
        self.vector(&Vector { name, changes, body: b"", means: None, fate: Fate::Refused });
    }
}

/// DG-01: CR, LF and NUL wherever they can stand. None of it may be a byte of HTTP/1.1.
pub(crate) fn forged_lines(trials: &mut Trials<'_>) {
    const SMUGGLED: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\nX-Id: 7\r\n\r\n";
    for bytes in ["\r\n", "\n", "\r", "\0", "\r\nTransfer-Encoding: chunked", "\r\n\r\n", "\x7f", "\x01"] {
        for place in ["front", "middle", "end"] {
            let within = |text: &str| match place {
                "front" => format!("{bytes}{text}"),
                "middle" => format!("{}{bytes}{}", &text[..1], &text[1..]),
                _ => format!("{text}{bytes}"),
            };
            let shown = bytes.escape_debug();
            for name in [":method", ":path", ":authority", ":scheme", "x-a", "cookie", "host", "te"] {
                let text = match name {
                    ":method" => "GET",
                    ":path" => "/t",
                    ":scheme" => "http",
                    "te" => "trailers",
                    _ => "ab",
                };
                let value = within(text);
                let changes = vec![(name.as_bytes(), value.as_bytes())];
                trials.refused(&format!("{shown} at the {place} of {name}"), changes);
            }
            let name = within("x-a");
            trials.refused(&format!("{shown} at the {place} of a name"), vec![(name.as_bytes(), b"b")]);
        }
    }
    for (name, value) in [
        (":path", format!("/t HTTP/1.1\r\nHost: a\r\nX-Id: 8\r\n\r\n{SMUGGLED}")),
        (":method", format!("GET /t HTTP/1.1\r\nHost: a\r\nX-Id: 8\r\n\r\n{SMUGGLED}")),
        (":authority", format!("a\r\nX-Id: 8\r\n\r\n{SMUGGLED}")),
        ("x-a", format!("b\r\n\r\n{SMUGGLED}")),
        (":path", "/t HTTP/1.1".to_owned()),
        (":path", "/t x".to_owned()),
        (":path", "t".to_owned()),
        (":path", String::new()),
        (":method", "GET /hidden".to_owned()),
        (":method", String::new()),
    ] {
        let name_of_trial = format!("{name}: {}", value.escape_debug());
        trials.refused(&name_of_trial, vec![(name.as_bytes(), value.as_bytes())]);
    }
}

/// DG-02: framing and hop-by-hop fields of HTTP/1.1, and lengths that are not those of the body.
pub(crate) fn framing(trials: &mut Trials<'_>) {
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "close"),
        ("connection", "x-id"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, chunked"),
        ("content-length", "1"),
        ("content-length", "-1"),
        ("content-length", "0x0"),
        ("content-length", "18446744073709551616"),
        ("content-length", ""),
    ] {
        trials.refused(&format!("{name}: {value}"), vec![(name.as_bytes(), value.as_bytes())]);
    }
    trials.refused("two lengths", vec![(b"content-length", b"0"), (b"content-length", b"0")]);
    for length in ["0", "4", "6", "5, 5", "+5", "50000000"] {
        let changes = vec![(&b"content-length"[..], length.as_bytes())];
        let name = format!("five bytes and content-length: {length}");
        // Its head, with a part of a body, may have been sent on before the end is seen to be wrong; without a body that
        // is all of a request.
        let begun = Meant::new("POST", "/t", b"");
        let means = match length {
            "0" => Some(begun),
            "4" | "6" | "50000000" => Some(Meant { breaks: true, ..begun }),
            _ => None,
        };
        trials.vector(&Vector { name, changes, body: b"hello", means, fate: Fate::Refused });
    }
    for changes in [vec![], vec![(&b"content-length"[..], &b"5"[..])]] {
        let name = format!("a body as it should be, {changes:?}");
        let means = Some(Meant::new("POST", "/t", b"hello"));
        trials.vector(&Vector { name, changes, body: b"hello", means, fate: Fate::Forwarded });
    }
}

/// DG-03: a host beside the authority says the same, or the request is refused; the authority is the only host upstream.
pub(crate) fn hosts(trials: &mut Trials<'_>) {
    for hosts in [&["a"][..], &["A"], &["a:80"], &["a", "a"]] {
        let means = Some(Meant { with: &[("host", b"a")], ..Meant::new("GET", "/t", b"") });
        let changes = hosts.iter().map(|host| (&b"host"[..], host.as_bytes())).collect();
        let name = format!("the host {hosts:?}");
        trials.vector(&Vector { name, changes, body: b"", means, fate: Fate::Forwarded });
    }
    for hosts in [&["b"][..], &["b", "c"], &["a", "b"], &["b", "a"], &["a:81"], &["a.b"], &["a,b"], &[""]] {
        let changes = hosts.iter().map(|host| (&b"host"[..], host.as_bytes())).collect();
        trials.refused(&format!("the host {hosts:?}"), changes);
    }
    for authority in ["a,b", "a/b", "a@b", "a b", "a:99999", "[::1", "", "user@a"] {
        let changes = vec![(&b":authority"[..], authority.as_bytes())];
        trials.refused(&format!("the authority {authority:?}"), changes);
    }
}

/// DG-04: names that are none; pseudo fields that are not known, twice, or behind others.
pub(crate) fn names(trials: &mut Trials<'_>) {
    for name in
        ["X-A", "x-A", " x-a", "x-a ", "x a", "x:a", "", ":x", ":status", ":", "x\u{e4}", "x(a)", "x\ta"]
    {
        trials.refused(&format!("the name {name:?}"), vec![(name.as_bytes(), b"b")]);
    }
    for value in [" a", "a ", "\ta", "a\t"] {
        trials.refused(&format!("the value {value:?}"), vec![(b"x-a", value.as_bytes())]);
    }
    for (name, fields) in [
        ("no method", &[(&b":scheme"[..], &b"http"[..]), (b":path", b"/t")][..]),
        ("no path", &[(b":method", b"GET"), (b":scheme", b"http")]),
        ("no scheme", &[(b":method", b"GET"), (b":path", b"/t")]),
        ("two paths", &[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/t"), (b":path", b"/u")]),
        (
            "a pseudo field behind another",
            &[(b":method", b"GET"), (b":scheme", b"http"), (b"x-a", b"b"), (b":path", b"/t")],
        ),
        ("nothing", &[(b"x-a", b"b")]),
    ] {
        let mut verdict = Verdict::default();
        let mut peer = Peer::connect(trials.subject.address, trials.subject.patience, b"");
        peer.send(&head(1, true, fields));
        match peer.outcome(1) {
            Outcome::Reset(PROTOCOL_ERROR, _) => {}
            Outcome::Whole(message) => {
                verdict.found.push((Unsafe::Ambiguous, format!("it was answered {}", message.head.status())));
            }
            _ => verdict.unexpected = Some("no reset".to_owned()),
        }
        trials.settle(0, &mut verdict);
        trials.tally.count(name, verdict);
    }
}

/// DG-08: a scheme that is none, or not ours to serve, is not a part of the target.
pub(crate) fn schemes(trials: &mut Trials<'_>) {
    for scheme in ["HTTP", "Https", "http", "https"] {
        let changes = vec![(&b":scheme"[..], scheme.as_bytes())];
        let means = Some(Meant::new("GET", "/t", b""));
        trials.vector(&Vector {
            name: format!("{scheme:?}"),
            changes,
            body: b"",
            means,
            fate: Fate::Forwarded,
        });
    }
    for scheme in ["", "ftp", "http://b/", "http ", "http:", "javascript", "h2c"] {
        trials.refused(&format!("{scheme:?}"), vec![(b":scheme", scheme.as_bytes())]);
    }
}

/// DG-07: interim responses and trailers go down as they came; a body that breaks off is told as one.
pub(crate) fn responses(trials: &mut Trials<'_>) {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let whole = |id: u64| format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: 0\r\n\r\n");
    type Says = fn(u64) -> String;
    let chunks: Says = |id| {
        format!(
            "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: t\r\n\r\n"
        )
    };
    let half: Says =
        |id| format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let short: Says = |id| format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: 9\r\n\r\nhello");
    let bad: Says = |id| {
        format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n")
    };
    for (name, interim, says, is_whole) in [
        ("103", early, whole as Says, Some(("", 0))),
        ("chunks and trailers", "", chunks, Some(("hello", 1))),
        ("103, chunks and trailers", early, chunks, Some(("hello", 1))),
        ("chunks that end nowhere", "", half, None),
        ("a body that is short", early, short, None),
        ("chunks that go wrong", "", bad, None),
    ] {
        let mut verdict = Verdict::default();
        let id = trials.enter(Meant::new("GET", "/t", b""));
        let bytes = format!("{interim}{}", says(id));
        let then = if is_whole.is_some() { Then::KeepAlive } else { Then::Close };
        trials.origin.script(id, move |origin| {
            origin.send(bytes.as_bytes())?;
            Ok(then)
        });
        let mut peer = Peer::connect(trials.subject.address, trials.subject.patience, b"");
        peer.send(&head(1, true, &request("GET", "/t", &id.to_string())));
        match (peer.answer(1), is_whole) {
            (Answer::Whole(message), Some((body, trailers))) => {
                if message.trailers.len() != trailers {
                    verdict.found.push((Unsafe::Altered, format!("the trailers {:?}", message.trailers)));
                }
                verdict.expect_body("the answer", id, body.as_bytes(), Answer::Whole(message));
                let told = peer.streams.get(&1).map(|got| got.interim.len()).unwrap_or_default();
                if told != usize::from(!interim.is_empty()) {
                    verdict.found.push((Unsafe::Altered, format!("{told} interim responses")));
                }
            }
            (answer, Some((body, _))) => verdict.expect_body("the answer", id, body.as_bytes(), answer),
            (Answer::Whole(message), None) if message.head.id().is_some() => {
                verdict.found.push((Unsafe::Truncated, "it was told as whole".to_owned()));
            }
            (Answer::Broken(..), None) => {}
            _ => verdict.unexpected = Some("neither a part nor the whole".to_owned()),
        }
        trials.settle(id, &mut verdict);
        trials.tally.count(name, verdict);
    }
    // A client that resets what is on its way: nothing of it is left for the next.
    let mut verdict = Verdict::default();
    let id = trials.enter(Meant { breaks: true, ..Meant::new("POST", "/t", b"") });
    let mut peer = Peer::connect(trials.subject.address, trials.subject.patience, b"");
    let begun =
        [head(1, false, &request("POST", "/t", &id.to_string())), frame(DATA, 0, 1, b"hello")].concat();
    peer.send(&[begun, reset_frame(1, 8)].concat());
    let next = trials.enter(Meant::new("GET", "/plain", b""));
    peer.send(&head(3, true, &request("GET", "/plain", &next.to_string())));
    verdict.expect_echo("the stream behind", next, peer.answer(3));
    trials.settle(id, &mut verdict);
    trials.tally.count("a reset inside a body", verdict);
}
