//! Upstream connections that end when they should not: UP-01 to UP-04.
//!
//! The same in simulated time, with far more seeds, is among the stories of endings, keep-alive and bodies.

use std::{
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use crate::{
    client::{Answer, End},
    ledger::{Meant, Unsafe, Verdict},
    recorder::{Then, echo, small_buffers},
    trial::{Output, Reply, Trials},
};

/// Races on each driver.
const RACES: usize = 5_000;

/// An origin ends an idle connection at the moment at which the next request comes. RFC 9110 §9.2.2: what is idempotent may
/// be sent again, and never fails; a POST may fail, and never runs twice.
pub(crate) fn keep_alive_race(trials: &mut Trials<'_>) {
    let (mut posts, mut failed) = (0, 0);
    let races = if trials.subject.kind.is_thorough() { RACES } else { RACES / 20 };
    for n in 0..races {
        if trials.has_enough() {
            break;
        }
        let (method, body) =
            [("GET", ""), ("POST", "hello"), ("PUT", "hello"), ("POST", ""), ("DELETE", "")][n % 5];
        let mut verdict = Verdict::default();
        let (first, first_bytes) = trials.plain();
        let (now, is_now) = channel::<()>();
        trials.origin.script(first, move |origin| {
            let answer = echo(&origin.message);
            origin.send(&answer)?;
            // The client says when; or it went away, which is the end as well.
            let _ = is_now.recv();
            Ok(if n % 2 == 0 { Then::Close } else { Then::Reset })
        });
        let mut client = trials.connect();
        client.send(&first_bytes);
        verdict.expect_echo("the request before", first, client.answer("GET"));
        let id = trials.enter(Meant::new(method, "/t", body.as_bytes()));
        let length = body.len();
        let head =
            format!("{method} /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n");
        // From the end long before the request to the end well behind it.
        let apart = Duration::from_micros((n as u64 * 7) % 120);
        if n % 3 == 0 {
            client.send((head + body).as_bytes());
            spin(apart);
            let _ = now.send(());
        } else {
            let _ = now.send(());
            spin(apart);
            client.send((head + body).as_bytes());
        }
        posts += usize::from(method == "POST");
        match client.answer(method) {
            Answer::Whole(message) if message.head.id().is_none() && method == "POST" => {
                if message.head.status() != 503 {
                    verdict.unexpected = Some(format!("{} in place of 503", message.head.status()));
                }
                failed += 1;
            }
            answer => verdict.expect_body(method, id, body.as_bytes(), answer),
        }
        trials.judge(&mut verdict);
        trials.tally.count(&format!("{method} with {length} bytes, race {n}"), verdict);
    }
    for n in 0..races / 10 {
        runs_and_ends(trials, n);
    }
    trials
        .tally
        .notes
        .push(format!("{failed} of {posts} POST answered with 503, none sent twice; all others answered"));
}

/// The origin takes a request over a connection that was idle, runs it, and ends without an answer.
fn runs_and_ends(trials: &mut Trials<'_>, n: usize) {
    let (method, body) = [("GET", ""), ("POST", "hello"), ("PUT", "hello"), ("POST", "")][n % 4];
    let mut verdict = Verdict::default();
    // The connection that is idle.
    let (first, bytes) = trials.plain();
    let mut client = trials.connect();
    client.send(&bytes);
    verdict.expect_echo("the request before", first, client.answer("GET"));
    let id = trials.enter(Meant::new(method, "/t", body.as_bytes()));
    trials.origin.script(id, move |origin| {
        origin.body()?;
        Ok(if n % 8 < 4 { Then::Close } else { Then::Reset })
    });
    let length = body.len();
    let head = format!("{method} /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n");
    let (next, next_bytes) = trials.plain();
    client.send(&[(head + body).as_bytes(), &next_bytes].concat());
    match client.answer(method) {
        Answer::Whole(message) if message.head.status() == 503 && method == "POST" => {}
        answer => verdict.expect_body(method, id, body.as_bytes(), answer),
    }
    verdict.expect_echo_or_end("the request behind", next, client.answer("GET"));
    trials.judge(&mut verdict);
    trials.tally.count(&format!("{method} that ran before the end"), verdict);
}

/// So short a wait that a timer could not make it.
fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// An answer that ends anywhere, in FIN or RST: told as what it is, and never whole unless it is.
pub(crate) fn cuts(trials: &mut Trials<'_>) {
    let hello = "hello, hello, hello";
    let length = format!("HTTP/1.1 200 OK\r\nX-Id: {{id}}\r\nContent-Length: {}\r\n\r\n{hello}", hello.len());
    let chunked = "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhello, \r\nc\r\nhello, hello\r\n0\r\n\r\n";
    let until_close = format!("HTTP/1.1 200 OK\r\nX-Id: {{id}}\r\n\r\n{hello}");
    for (name, text) in [("a length", &*length), ("chunks", chunked), ("until close", &until_close)] {
        let head = text.find("\r\n\r\n").map_or(0, |at| at + 4);
        for cut in 0..=text.len() {
            for then in [Then::Close, Then::Reset] {
                // A part of the placeholder is no id.
                if (1..head).contains(&cut) && "{id}".len() + 23 > cut && cut > 23 {
                    continue;
                }
                let is_whole = match name {
                    "until close" => cut >= head && then == Then::Close,
                    _ => cut == text.len(),
                };
                let body = text.as_bytes().get(head..cut).unwrap_or_default().to_vec();
                let means = is_whole.then(|| (200, if name == "chunks" { hello.into() } else { body }));
                let reply = match cut {
                    _ if is_whole => Reply::Whole,
                    0 => Reply::Status(503),
                    _ if cut < head => Reply::Status(502),
                    _ => Reply::Cut,
                };
                let name = format!("{name}, cut at {cut}, {then:?}");
                let bytes = text.as_bytes()[..cut].to_vec();
                trials.output(&Output { name, method: "POST", bytes, then, means, reply });
            }
        }
    }
}

/// An answer while a large request body is on its way; the origin takes the rest of it, or ends. The client reads when it has
/// sent everything.
pub(crate) fn answers_during_uploads(trials: &mut Trials<'_>) {
    let body = vec![b'x'; 1 << 20];
    for (name, then) in
        [("takes the rest", Then::KeepAlive), ("ends in FIN", Then::Close), ("ends in RST", Then::Reset)]
    {
        for _ in 0..10 {
            let mut verdict = Verdict::default();
            let id = trials.enter(Meant::new("POST", "/t", &body));
            trials.origin.script(id, move |origin| {
                origin.body_bytes(10_000)?;
                origin.send(
                    format!("HTTP/1.1 413 Content Too Large\r\nX-Id: {id}\r\nContent-Length: 5\r\n\r\nlarge")
                        .as_bytes(),
                )?;
                if then == Then::KeepAlive {
                    origin.body()?;
                }
                Ok(then)
            });
            let mut client = trials.connect();
            let head = format!(
                "POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            client.send(&[head.as_bytes(), &body].concat());
            match client.answer("POST") {
                Answer::Whole(message) if message.head.id() == Some(id) && message.body == b"large" => {
                    verdict.unexpected = (message.head.status() != 413).then(|| "not 413".to_owned());
                }
                Answer::Whole(message) if message.head.status() == 503 && then == Then::Reset => {}
                Answer::Whole(_) => verdict.found.push((Unsafe::Crossed, "another answer".to_owned())),
                Answer::Broken(_, End::Silence) => verdict.found.push((Unsafe::Lost, "silence".to_owned())),
                Answer::Broken(_, end) => verdict.unexpected = Some(format!("{end:?}")),
                Answer::Malformed(why) => verdict.found.push((Unsafe::Crossed, why)),
            }
            drop(client);
            trials.settle(id, &mut verdict);
            trials.tally.count(name, verdict);
        }
    }
}

/// Bodies of 1 MB each way through send buffers of 4 KiB and receive buffers of 32 KiB: the writes are partial ones.
pub(crate) fn partial_writes(trials: &mut Trials<'_>) {
    let body: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    for is_chunked in [false, true] {
        let mut verdict = Verdict::default();
        let id = trials.enter(Meant::new("POST", "/t", &body));
        trials.origin.script(id, move |origin| {
            small_buffers(origin.stream())?;
            origin.body()?;
            let mut answer = echo(&origin.message);
            if is_chunked {
                answer = format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .into_bytes();
                for part in origin.message.body.chunks(1000) {
                    answer.extend([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
                }
                answer.extend(b"0\r\n\r\n");
            }
            origin.send(&answer)?;
            Ok(Then::KeepAlive)
        });
        let mut client = trials.connect();
        small_buffers(&client.stream).expect("a socket");
        let head =
            format!("POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send(&[head.as_bytes(), &body].concat());
        verdict.expect_body("the answer", id, &body, client.answer("POST"));
        trials.settle(id, &mut verdict);
        trials.tally.count(&format!("1 MB, chunks {is_chunked}"), verdict);
    }
}
