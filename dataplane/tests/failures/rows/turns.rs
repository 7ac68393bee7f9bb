//! Who may speak when: H1-14, H1-15, H1-16, H1-22.

use crate::{
    client::{Answer, Client, End},
    ledger::{Meant, Unsafe, Verdict},
    recorder::{Then, echo},
    trial::{Fate, Input, Trials},
};

/// What a body must never be taken for.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\nX-Id: 7\r\n\r\n";

fn request(name: &str, head: &str, body: &str, means: Option<Meant>, fate: Fate) -> Input {
    let bytes = format!("{head}\r\nX-Id: {{id}}\r\n\r\n{body}").into_bytes();
    Input { name: name.to_owned(), bytes, means, fate, is_in_body: false }
}

/// RFC 9110 §9.3.1, §9.3.5: content of any method is framed like any other, or the connection does not go on.
pub(crate) fn bodies_of_any_method(trials: &mut Trials<'_>) {
    let chunked = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH", "TRACE", "BREW"] {
        let means = || Some(Meant::new(method, "/t", HIDDEN.as_bytes()));
        let head = format!("{method} /t HTTP/1.1\r\nHost: a\r\nContent-Length: {}", HIDDEN.len());
        trials.input(&request(&format!("{method} with a length"), &head, HIDDEN, means(), Fate::Forwarded));
        let head = format!("{method} /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked");
        trials.input(&request(&format!("{method} in chunks"), &head, &chunked, means(), Fate::Forwarded));
        let head = format!("{method} /t HTTP/1.1\r\nHost: a\r\nContent-Length: 0");
        let empty = Meant::new(method, "/t", b"");
        trials.input(&request(&format!("{method} without"), &head, "", Some(empty), Fate::Forwarded));
    }
    for status in ["200 OK", "413 Content Too Large"] {
        for is_chunked in [false, true] {
            early_answer(trials, status, is_chunked);
        }
    }
}

/// An origin that answers before it has the body, which it waits for then; and a client that sends the rest of the body,
/// which looks like a request, when it has the answer.
fn early_answer(trials: &mut Trials<'_>, status: &str, is_chunked: bool) {
    let mut verdict = Verdict::default();
    let body = format!("begin{HIDDEN}");
    let id = trials.enter(Meant::new("POST", "/t", body.as_bytes()));
    let answer = format!("HTTP/1.1 {status}\r\nX-Id: {id}\r\nContent-Length: 0\r\n\r\n");
    trials.origin.script(id, move |origin| {
        origin.send(answer.as_bytes())?;
        origin.body()?;
        Ok(Then::KeepAlive)
    });
    let size = body.len();
    let (framing, first, rest) = match is_chunked {
        false => (format!("Content-Length: {size}"), "begin".to_owned(), HIDDEN.to_owned()),
        true => (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{size:x}\r\nbegin"),
            format!("{HIDDEN}\r\n0\r\n\r\n"),
        ),
    };
    let mut client = trials.connect();
    client.send(format!("POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n{framing}\r\n\r\n{first}").as_bytes());
    match client.answer("POST") {
        Answer::Whole(message) if message.head.id() == Some(id) => {}
        answer => verdict.expect_echo("the early answer", id, answer),
    }
    let (next, plain) = trials.plain();
    client.send(&[rest.as_bytes(), &plain].concat());
    verdict.expect_echo_or_end("the request behind", next, client.answer("GET"));
    trials.settle(id, &mut verdict);
    trials.tally.count(&format!("{status} before the body, chunks {is_chunked}"), verdict);
}

/// RFC 9110 §10.1.1, §15.2.1.
pub(crate) fn expectations(trials: &mut Trials<'_>) {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    expectation_met(trials, interim.to_owned());
    expectation_met(trials, interim.repeat(2));
    for status in ["417 Expectation Failed", "200 OK"] {
        for body in ["", "hello"] {
            expectation_not_met(trials, status, body);
        }
    }
    let head = "POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: ";
    let means = || Some(Meant::new("POST", "/t", b"hello"));
    for (value, fate) in [
        ("100-continue", Fate::Forwarded),
        ("100-Continue", Fate::Forwarded),
        ("y", Fate::Refused(417)),
        ("100-continue, y", Fate::Refused(417)),
        ("100-continue=1", Fate::Refused(417)),
        ("", Fate::Refused(417)),
    ] {
        trials.input(&request(
            &format!("Expect: {value}"),
            &format!("{head}{value}"),
            "hello",
            means(),
            fate,
        ));
    }
    let old =
        "POST /t HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\nExpect: 100-continue";
    trials.input(&request("Expect in HTTP/1.0", old, "hello", means(), Fate::Forwarded));
}

/// Asked for and given, once or twice; both are one for the client.
fn expectation_met(trials: &mut Trials<'_>, interim: String) {
    let mut verdict = Verdict::default();
    let id = trials.enter(Meant::new("POST", "/t", b"hello"));
    trials.origin.script(id, move |origin| {
        origin.send(interim.as_bytes())?;
        origin.body()?;
        let answer = echo(&origin.message);
        origin.send(&answer)?;
        Ok(Then::KeepAlive)
    });
    let mut client = expecting(trials, id);
    match client.next_interim() {
        Some(100) => {}
        other => verdict.unexpected = Some(format!("{other:?} in place of 100")),
    }
    client.send(b"hello");
    let answer = client.answer("POST");
    if !client.interim.is_empty() {
        verdict.unexpected = Some("100 was said twice".to_owned());
    }
    verdict.expect_body("the answer", id, b"hello", answer);
    trials.settle(id, &mut verdict);
    trials.tally.count("100 when asked for", verdict);
}

/// A final answer in its place, after which the client goes away, or sends the body all the same. The origin waits for it.
fn expectation_not_met(trials: &mut Trials<'_>, status: &str, body: &str) {
    let mut verdict = Verdict::default();
    let id = trials.enter(Meant::new("POST", "/t", b"hello"));
    let answer = format!("HTTP/1.1 {status}\r\nX-Id: {id}\r\nContent-Length: 0\r\n\r\n");
    trials.origin.script(id, move |origin| {
        origin.send(answer.as_bytes())?;
        origin.body()?;
        Ok(Then::KeepAlive)
    });
    let mut client = expecting(trials, id);
    match client.answer("POST") {
        Answer::Whole(message) if message.head.id() == Some(id) => {}
        answer => verdict.expect_echo("the final answer", id, answer),
    }
    if !body.is_empty() {
        let (next, plain) = trials.plain();
        client.send(&[body.as_bytes(), &plain].concat());
        verdict.expect_echo_or_end("the request behind", next, client.answer("GET"));
    }
    drop(client);
    trials.settle(id, &mut verdict);
    trials.tally.count(&format!("{status} in place of 100, then {body:?}"), verdict);
}

/// A client that has sent a head with an expectation.
fn expecting(trials: &Trials<'_>, id: u64) -> Client {
    let mut client = trials.connect();
    let head = format!(
        "POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    );
    client.send(head.as_bytes());
    client
}

/// RFC 9110 §7.8: only 101 switches. No listener of this proxy asks for it yet, so an upgrade is a plain request, what is
/// behind it is the next one, and a 101 is an answer that nobody asked for.
pub(crate) fn upgrades(trials: &mut Trials<'_>) {
    let get = "GET /t HTTP/1.1\r\nHost: a\r\n";
    let websocket =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==";
    let plain = || Some(Meant::new("GET", "/t", b""));
    for lines in
        [websocket, "Connection: upgrade\r\nUpgrade: foo", "Upgrade: websocket", "Connection: upgrade"]
    {
        trials.input(&request(lines, &format!("{get}{lines}"), "", plain(), Fate::Forwarded));
    }
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk";
    let means = plain().map(|plain| Meant { without: &["upgrade", "http2-settings"], ..plain });
    trials.input(&request("h2c", &format!("{get}{h2c}"), "", means, Fate::Forwarded));
    let body = format!("POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{websocket}", HIDDEN.len());
    let means = Meant::new("POST", "/t", HIDDEN.as_bytes());
    trials.input(&request("an upgrade with a body", &body, HIDDEN, Some(means), Fate::Forwarded));
    let old = "GET /t HTTP/1.0\r\nHost: a\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket";
    trials.input(&request("an upgrade in HTTP/1.0", old, "", plain(), Fate::Forwarded));

    for status in ["101 Switching Protocols", "200 OK", "401 Unauthorized"] {
        let mut verdict = Verdict::default();
        let id = trials.enter(Meant::new("GET", "/t", b""));
        let lines = if status.starts_with("101") {
            "Connection: upgrade\r\nUpgrade: websocket"
        } else {
            "Content-Length: 0"
        };
        let answer = format!("HTTP/1.1 {status}\r\nX-Id: {id}\r\n{lines}\r\n\r\n");
        trials.origin.script(id, move |origin| {
            origin.send(answer.as_bytes())?;
            Ok(Then::KeepAlive)
        });
        let (next, plain) = trials.plain();
        let mut client = trials.connect();
        client.send(&[format!("{get}X-Id: {id}\r\n{websocket}\r\n\r\n").as_bytes(), &plain].concat());
        let expected = if status.starts_with("101") { 502 } else { status[..3].parse().unwrap_or_default() };
        match client.answer("GET") {
            Answer::Whole(message) if message.head.status() == expected => {
                verdict.expect_echo("the request behind", next, client.answer("GET"));
            }
            Answer::Whole(message) => verdict.unexpected = Some(format!("{}", message.head.status())),
            answer => verdict.expect_echo("the answer", id, answer),
        }
        trials.settle(id, &mut verdict);
        trials.tally.count(&format!("{status} to an upgrade"), verdict);
    }
}

/// RFC 9112 §9.6: a client may half-close behind its last request. What ends early is told as ended early.
pub(crate) fn half_closes(trials: &mut Trials<'_>) {
    for body in ["", "hello"] {
        let mut verdict = Verdict::default();
        let id = trials.enter(Meant::new("POST", "/t", body.as_bytes()));
        let mut client = trials.connect();
        let length = body.len();
        let text =
            format!("POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n{body}");
        client.send(text.as_bytes());
        client.half_close();
        verdict.expect_body("the answer", id, body.as_bytes(), client.answer("POST"));
        match client.end() {
            (bytes, End::Fin) if bytes.is_empty() => {}
            (bytes, end) => verdict.unexpected = Some(format!("{end:?} after {}", bytes.escape_ascii())),
        }
        trials.settle(id, &mut verdict);
        trials.tally.count("FIN behind a request", verdict);
    }
    for (framing, part) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")]
    {
        let mut verdict = Verdict::default();
        let id = trials.enter(Meant { breaks: true, ..Meant::new("POST", "/t", b"") });
        let mut client = trials.connect();
        client
            .send(format!("POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n{framing}\r\n\r\n{part}").as_bytes());
        client.half_close();
        match client.answer("POST") {
            Answer::Whole(message) if message.head.status() == 400 => {}
            Answer::Whole(message) if message.head.id().is_some() => {
                verdict.found.push((Unsafe::Truncated, "half a body was answered".to_owned()));
            }
            Answer::Broken(_, End::Silence) => verdict.found.push((Unsafe::Lost, "silence".to_owned())),
            _ => verdict.unexpected = Some("no 400".to_owned()),
        }
        trials.settle(id, &mut verdict);
        trials.tally.count("FIN inside a request", verdict);
    }
}
