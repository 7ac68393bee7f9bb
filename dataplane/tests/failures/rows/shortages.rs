//! A proxy that runs out of something that its kernel gives: RES-02, RES-05.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc::{Sender, channel},
};

use crate::{
    client::{Answer, Client, End},
    ledger::{Meant, Unsafe, Verdict},
    recorder::{Then, echo},
    subject::Setting,
    trial::Trials,
};

/// Descriptors of a proxy that has few.
const DESCRIPTORS: usize = 256;

/// Who comes to it at once.
const CROWD: usize = 2000;

/// Descriptors run out: whoever is there is served, upstream too is reached, and who waits is served when there are some.
pub(crate) fn descriptors(trials: &mut Trials<'_>) {
    let limit = format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}");
    let setting = Setting { runner: vec!["prlimit".to_owned(), limit], ..Setting::default() };
    trials.with(&setting, |trials| {
        let mut known = trials.connect();
        expect_answer(trials, "the first request", &mut known, "/plain");
        for (name, what) in [
            ("a crowd that asks", &b"GET /crowd HTTP/1.1\r\nHost: a\r\nX-Id: 7\r\n\r\n"[..]),
            ("a crowd that begins a request", b"GET /crowd HTTP/1.1\r\nHo"),
            ("a crowd that says nothing", b""),
        ] {
            crowd(trials, &mut known, name, what);
            if trials.tally.unsafe_trials > 0 {
                // Nobody takes connections any more, which fills every queue.
                return;
            }
        }
        none_left(trials, &mut known);
    });
}

/// Connections to upstream that could not be made.
const CONNECT_FAIL: &str = "envoy_cluster_upstream_cx_connect_fail";

/// Many more than there are descriptors for.
fn crowd(trials: &mut Trials<'_>, known: &mut Client, name: &str, what: &[u8]) {
    // The request of a crowd has an id that nobody sent: it is not judged what becomes of it.
    trials.ledger.enter(7, Some(Meant::new("GET", "/crowd", b"")));
    let connect = |_| {
        let mut stream = trials.try_connect()?.stream;
        let _ = stream.write_all(what);
        Some(stream)
    };
    let paused = "envoy_listener_downstream_cx_accept_paused";
    let pauses = trials.subject.metric(paused);
    let crowd: Vec<TcpStream> = (0..CROWD).map_while(connect).collect();
    let is_thorough = trials.subject.kind.is_thorough();
    let is_paused = !is_thorough || trials.subject.soon(|subject| subject.metric(paused) > pauses);
    let unexpected = (!is_paused).then(|| "accepting does not pause".to_owned());
    trials.tally.count(name, Verdict { unexpected, ..Verdict::default() });
    let failed = trials.subject.metric(CONNECT_FAIL);
    for n in 0..20 {
        // The three are new connections to upstream.
        let target = if n % 5 == 0 && trials.subject.kind.has_routes() { "/three" } else { "/plain" };
        expect_answer(trials, &format!("{name}: who is there"), known, target);
    }
    let mut verdict = Verdict::default();
    if trials.subject.metric(CONNECT_FAIL) > failed {
        verdict.unexpected = Some("no descriptor was left for upstream".to_owned());
    }
    trials.tally.count(&format!("{name}: descriptors for upstream"), verdict);
    drop(crowd);
    let behind = format!("{name}: who comes behind it");
    match trials.try_connect() {
        Some(mut next) => expect_answer(trials, &behind, &mut next, "/plain"),
        None => trials.tally.count(&behind, Verdict::of(Unsafe::Lost, "nobody takes the connection")),
    }
    expect_answer(trials, &format!("{name}: who was there before"), known, "/plain");
}

/// Not one descriptor: what needs none goes on, what does is told or waits, and all of it works when there are some.
fn none_left(trials: &mut Trials<'_>, known: &mut Client) {
    let before = trials.subject.process.limit_descriptors(0);
    let mut waiting = trials.connect();
    let (id, request) = trials.plain();
    waiting.send(&request);
    expect_answer(trials, "none left: who is there", known, "/plain");
    if trials.subject.kind.has_routes() {
        // Those that are held are the idle ones; one more needs a descriptor.
        let mut verdict = Verdict::default();
        let refused = trials.enter(Meant::new("GET", "/refused", b""));
        known.send(format!("GET /refused HTTP/1.1\r\nHost: a\r\nX-Id: {refused}\r\n\r\n").as_bytes());
        expect_shortage(trials, &mut verdict, known.answer("GET"));
        trials.tally.count("none left: a new connection to upstream", verdict);
    }
    trials.subject.process.limit_descriptors(before);
    let mut verdict = Verdict::default();
    verdict.expect_echo("who waited", id, waiting.answer("GET"));
    if trials.subject.kind.is_thorough()
        && trials.subject.metric("envoy_listener_downstream_cx_accept_fail") == 0.0
    {
        verdict.unexpected = Some("no accept failed".to_owned());
    }
    trials.tally.count("none left: who waited", verdict);
    expect_answer(trials, "none left: who was there", known, "/plain");
}

fn expect_answer(trials: &mut Trials<'_>, what: &str, client: &mut Client, target: &str) {
    let mut verdict = Verdict::default();
    let id = trials.enter(Meant::new("GET", target, b""));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
    match client.answer("GET") {
        Answer::Broken(_, end @ (End::Fin | End::Reset)) => {
            verdict.found.push((Unsafe::Lost, format!("{what}: the connection ended in {end:?}")));
        }
        answer => verdict.expect_echo(what, id, answer),
    }
    trials.tally.count(what, verdict);
}

/// 503, with the reason where there is one.
fn expect_shortage(trials: &Trials<'_>, verdict: &mut Verdict, answer: Answer) {
    match answer {
        Answer::Whole(message) if message.head.status() == 503 && message.head.id().is_none() => {
            let reason = message.head.values("x-ringway-reason").next().unwrap_or_default();
            if trials.subject.kind.is_thorough() && reason != b"local-shortage" {
                verdict.unexpected = Some(format!("503 for {:?}", String::from_utf8_lossy(reason)));
            }
        }
        Answer::Whole(message) => {
            verdict.unexpected = Some(format!("{} in place of 503", message.head.status()))
        }
        Answer::Broken(_, End::Silence) => verdict.found.push((Unsafe::Lost, "silence".to_owned())),
        Answer::Broken(_, end) => verdict.unexpected = Some(format!("{end:?} in place of 503")),
        Answer::Malformed(why) => verdict.found.push((Unsafe::Crossed, why)),
    }
}

/// Ports of the network in which they run out, and how many these are.
const PORTS: (&str, usize) = ("40000 40015", 16);

/// Where the ports of clients begin.
const CLIENT_PORTS: u16 = 20_000;

/// Ports towards one upstream run out: told with the reason, other upstreams are reached, and all is well when some are free.
pub(crate) fn ports(trials: &mut Trials<'_>) {
    trials.elsewhere(|trials| {
        if let Err(error) = fs::write("/proc/sys/net/ipv4/ip_local_port_range", PORTS.0) {
            trials.tally.not_tried.push(format!("few ports: {error}"));
            return;
        }
        let mut own = CLIENT_PORTS;
        let (held, release) = hold_all(trials, &mut own);
        for n in 0..10 {
            let mut verdict = Verdict::default();
            let (_, request) = trials.plain();
            let mut client = connect_from(trials, &mut own);
            client.send(&request);
            expect_shortage(trials, &mut verdict, client.answer("GET"));
            trials.tally.count(&format!("request {n} without a port"), verdict);
            if trials.subject.kind.has_routes() {
                expect_answer(trials, "another upstream meanwhile", &mut client, "/three");
            }
        }
        drop(release);
        for (id, mut client) in held {
            let mut verdict = Verdict::default();
            verdict.expect_echo("a request that has one", id, client.answer("GET"));
            trials.tally.count("a request that has a port", verdict);
        }
        for _ in 0..10 {
            let mut client = connect_from(trials, &mut own);
            expect_answer(trials, "ports are free again", &mut client, "/plain");
        }
        short_connections(trials, &mut own);
        broken_off(trials, &mut own);
    });
}

/// As many requests as there are ports, none answered before what this gives is dropped.
fn hold_all(trials: &mut Trials<'_>, own: &mut u16) -> (Vec<(u64, Client)>, Vec<Sender<()>>) {
    let (mut held, mut release) = (Vec::new(), Vec::new());
    let before = trials.origin.log().requests.len();
    for _ in 0..PORTS.1 {
        let (id, request) = trials.plain();
        let (lives, is_over) = channel::<()>();
        trials.origin.script(id, move |origin| {
            let _ = is_over.recv();
            let answer = echo(&origin.message);
            origin.send(&answer)?;
            Ok(Then::KeepAlive)
        });
        let mut client = connect_from(trials, own);
        client.send(&request);
        held.push((id, client));
        release.push(lives);
    }
    let wanted = before + PORTS.1;
    drop(trials.origin.log_when(|log| log.requests.len() >= wanted, trials.subject.patience));
    (held, release)
}

/// Many more connections to upstream than ports, one after the other, none used again. Whoever closes one first keeps its port
/// for a moment: what finds none is told.
fn short_connections(trials: &mut Trials<'_>, own: &mut u16) {
    let mut client = connect_from(trials, own);
    let mut told = 0;
    for _ in 0..10 * PORTS.1 {
        let mut verdict = Verdict::default();
        let (id, request) = trials.plain();
        trials.origin.script(id, move |origin| {
            origin.send(
                format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )?;
            Ok(Then::Close)
        });
        client.send(&request);
        match client.answer("GET") {
            Answer::Whole(message) if message.head.id().is_none() => {
                told += 1;
                expect_shortage(trials, &mut verdict, Answer::Whole(message));
            }
            answer => verdict.expect_echo("a short connection", id, answer),
        }
        trials.tally.count("connections that are used once", verdict);
    }
    let all = 10 * PORTS.1;
    trials.tally.notes.push(format!("{told} of {all} short connections found no port"));
    expect_recovery(trials, own, "connections that were used once");
}

/// Connections to upstream that the proxy has to end, since who asked is gone. For a moment their ports are nobody's.
fn broken_off(trials: &mut Trials<'_>, own: &mut u16) {
    for _ in 0..2 * PORTS.1 {
        let (id, request) = trials.plain();
        trials.origin.script(id, move |origin| {
            origin.send(
                format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: 10\r\n\r\nhello").as_bytes(),
            )?;
            // Until the proxy ends it.
            origin.body_bytes(1)?;
            Ok(Then::Close)
        });
        let mut client = connect_from(trials, own);
        client.send(&request);
        // The beginning of the answer, or the whole of another: it may have found no port.
        let _ = client.stream.read(&mut [0; 16]);
    }
    expect_recovery(trials, own, "connections that the proxy ends");
}

/// A request is answered soon.
fn expect_recovery(trials: &mut Trials<'_>, own: &mut u16, after: &str) {
    let mut verdict = Verdict::default();
    let subject = trials.subject;
    let is_well = subject.soon(|_| {
        let (id, request) = trials.plain();
        let mut client = connect_from(trials, own);
        client.send(&request);
        matches!(client.answer("GET"), Answer::Whole(message) if message.head.id() == Some(id))
    });
    if !is_well {
        verdict.found.push((Unsafe::Lost, "no port became free".to_owned()));
    }
    trials.judge(&mut verdict);
    trials.tally.count(&format!("well again after {after}"), verdict);
}

/// From a port that is not among those that run out.
fn connect_from(trials: &Trials<'_>, own: &mut u16) -> Client {
    *own += 1;
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, *own));
    Client::connect_from(from, trials.subject.address, trials.subject.patience)
}
