//! Upstreams that speak HTTP/2 and leave, refuse, or answer wrongly: H2-01, H2-07 and H2-08 from the other side.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use policy::limits::CONNECT_RETRIES_DEFAULT;

use crate::{
    client::{Answer, End},
    http2::{
        CANCEL, DATA, END_STREAM, ENHANCE_YOUR_CALM, Field, GO_AWAY, MAX_CONCURRENT_STREAMS, Peer,
        REFUSED_STREAM, frame, go_away, head, request, reset, setting,
    },
    ledger::{Unsafe, Verdict},
    subject::Setting,
    trial::Trials,
};

/// The cluster of these rows, and the path that leads there.
const CLUSTER: &str = "two";

/// How long an origin waits for what comes next.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an origin does with a connection: the first is 0.
type Serve = Arc<dyn Fn(usize, &mut Peer, &Ran) + Send + Sync>;

/// Ids of the requests that ran, in their order.
type Ran = Mutex<Vec<u64>>;

/// An origin that speaks HTTP/2. It closes its connections when it is dropped, so that the proxy holds none.
struct Origin {
    address: SocketAddr,
    ran: Arc<Ran>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        for stream in self.streams.lock().expect("nobody panics").iter() {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Origin {
    fn start(settings: &'static [u8], serve: Serve) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let ran = Arc::<Ran>::default();
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (log, all) = (ran.clone(), streams.clone());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                all.lock().expect("nobody panics").extend(stream.try_clone());
                let (serve, log) = (serve.clone(), log.clone());
                thread::spawn(move || -> io::Result<()> {
                    let mut peer = Peer::accept(stream, PATIENCE, settings)?;
                    serve(number, &mut peer, &log);
                    Ok(())
                });
            }
        });
        Origin { address, ran, streams }
    }

    fn setting(&self) -> Setting {
        let (ip, port) = (self.address.ip(), self.address.port());
        let text = format!(
            "type: STATIC, load_assignment: {{cluster_name: {CLUSTER}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
             {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]}}, typed_extension_protocol_options: \
             {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
             {{http2_protocol_options: {{}}}}}}}}"
        );
        Setting { clusters: vec![(CLUSTER.to_owned(), text)], ..Setting::default() }
    }

    fn runs(&self, id: u64) -> usize {
        self.ran.lock().expect("nobody panics").iter().filter(|ran| **ran == id).count()
    }
}

/// The streams of a server's connection whose requests are whole and not done with, lowest first.
fn waiting(peer: &Peer, done: u32) -> Vec<(u32, u64)> {
    let whole = peer.streams.iter().filter(|(stream, got)| **stream > done && got.message.is_whole);
    whole.map(|(stream, got)| (*stream, got.message.head.id().unwrap_or_default())).collect()
}

fn answer(peer: &mut Peer, stream: u32, id: u64) {
    let text = id.to_string();
    let fields: [Field<'_>; 3] =
        [(b":status", b"200"), (b"x-id", text.as_bytes()), (b"content-length", b"0")];
    peer.send(&head(stream, true, &fields));
}

/// Answers all that comes.
fn answer_all(peer: &mut Peer, ran: &Ran, mut done: u32) {
    while peer.until(|peer| !waiting(peer, done).is_empty()) {
        for (stream, id) in waiting(peer, done) {
            ran.lock().expect("nobody panics").push(id);
            answer(peer, stream, id);
            done = stream;
        }
    }
}

/// Requests that are on their way when an upstream leaves.
const IN_FLIGHT: usize = 10;

const REFUSED: &str = "REFUSED_STREAM";

/// H2-08: what an upstream that leaves has not looked at goes elsewhere, whatever its method; the rest is answered.
pub(crate) fn leaving(trials: &mut Trials<'_>) {
    type Leave = fn(&mut Peer, u32);
    let ways: [(&str, Leave); 7] = [
        ("GOAWAY", |peer, last| _ = peer.send(&go_away(last, 0))),
        ("GOAWAY for calm", |peer, last| _ = peer.send(&go_away(last, ENHANCE_YOUR_CALM))),
        ("GOAWAY of none, then of some", |peer, last| {
            peer.send(&[go_away((1 << 31) - 1, 0), go_away(last, 0)].concat());
        }),
        ("GOAWAY twice", |peer, last| _ = peer.send(&[go_away(last + 4, 0), go_away(last, 0)].concat())),
        ("GOAWAY, then more", |peer, last| _ = peer.send(&[go_away(last, 0), go_away(last + 6, 0)].concat())),
        ("GOAWAY and no more streams (CVE-2021-32780)", |peer, last| {
            peer.send(&[go_away(last, 0), setting(MAX_CONCURRENT_STREAMS, 0)].concat());
        }),
        (REFUSED, |peer, last| {
            let refused = waiting(peer, last);
            refused.iter().for_each(|(stream, _)| _ = peer.send(&reset(*stream, REFUSED_STREAM)));
        }),
    ];
    many_at_once(trials);
    for (name, leave) in ways {
        let origin = Origin::start(
            b"",
            Arc::new(move |number, peer, ran| {
                if number > 0 || !peer.until(|peer| waiting(peer, 0).len() == IN_FLIGHT) {
                    return answer_all(peer, ran, 0);
                }
                let all = waiting(peer, 0);
                let (looked_at, last) = (&all[..IN_FLIGHT / 2], all[IN_FLIGHT / 2 - 1].0);
                leave(peer, last);
                for (stream, id) in looked_at {
                    ran.lock().expect("nobody panics").push(*id);
                    answer(peer, *stream, *id);
                }
                // Where it stays it takes what comes next.
                match name {
                    REFUSED => answer_all(peer, ran, all[IN_FLIGHT - 1].0),
                    _ => _ = peer.until(|_| false),
                }
            }),
        );
        trials.with(&origin.setting(), move |trials| {
            let origin = origin;
            let mut verdict = Verdict::default();
            let mut peer = Peer::connect(trials.subject.address, trials.subject.patience, b"");
            let asked: Vec<(u32, u64, &str)> = (1..)
                .step_by(2)
                .zip(["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter().cycle())
                .take(IN_FLIGHT)
                .map(|(stream, method)| (stream, trials.ledger.next_id(), method))
                .collect();
            for (stream, id, method) in &asked {
                peer.send(&head(*stream, true, &request(method, "/two", &id.to_string())));
            }
            for (stream, id, method) in &asked {
                let runs_meant = match peer.answer(*stream) {
                    // It has no other endpoint, and this one has said that it has enough to do.
                    Answer::Whole(message) if name == REFUSED && message.head.status() == 503 => 0,
                    answer => {
                        verdict.expect_echo(method, *id, answer);
                        1
                    }
                };
                let runs = origin.runs(*id);
                if runs != runs_meant {
                    verdict.found.push((Unsafe::Doubled, format!("{method} ran {runs} times")));
                }
            }
            let id = trials.ledger.next_id();
            let next = 1 + 2 * IN_FLIGHT as u32;
            peer.send(&head(next, true, &request("GET", "/two", &id.to_string())));
            verdict.expect_echo("a request after it", id, peer.answer(next));
            trials.tally.count(name, verdict);
        });
    }
}

/// Streams that an upstream takes at a time, as most servers.
const AT_ONCE: usize = 100;

/// RFC 9113 §6.5.2: an upstream that has not yet said how many streams it takes is not given more than any takes.
fn many_at_once(trials: &mut Trials<'_>) {
    const SETTINGS: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, AT_ONCE as u8];
    let origin = Origin::start(
        SETTINGS,
        Arc::new(|_, peer, ran| {
            // All that come together are here before any is answered.
            let mut done = 0;
            while peer.until(|peer| !waiting(peer, done).is_empty()) {
                for (at, (stream, id)) in waiting(peer, done).into_iter().enumerate() {
                    done = stream;
                    if at >= AT_ONCE {
                        peer.send(&reset(stream, REFUSED_STREAM));
                        continue;
                    }
                    ran.lock().expect("nobody panics").push(id);
                    answer(peer, stream, id);
                }
            }
        }),
    );
    trials.with(&origin.setting(), move |trials| {
        let origin = origin;
        let mut verdict = Verdict::default();
        let mut peers: Vec<Peer> =
            (0..4).map(|_| Peer::connect(trials.subject.address, trials.subject.patience, b"")).collect();
        let mut asked = Vec::new();
        for (at, peer) in peers.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            for stream in (1..).step_by(2).take(AT_ONCE) {
                let id = trials.ledger.next_id();
                bytes.extend(head(stream, true, &request("POST", "/two", &id.to_string())));
                asked.push((at, stream, id));
            }
            peer.send(&bytes);
        }
        for (at, stream, id) in asked {
            verdict.expect_echo("one of many", id, peers[at].answer(stream));
            let runs = origin.runs(id);
            if runs != 1 {
                verdict.found.push((Unsafe::Doubled, format!("it ran {runs} times")));
            }
        }
        trials.tally.count("four times as many as it takes", verdict);
    });
}

/// Requests to an upstream that answers none, one after the other.
const UNANSWERED: usize = 2_000;

/// H2-01 from the other side: an upstream that resets whatever it is asked.
pub(crate) fn resetting(trials: &mut Trials<'_>) {
    for (name, code) in [("CANCEL", CANCEL), ("REFUSED_STREAM", REFUSED_STREAM)] {
        let origin = Origin::start(
            b"",
            Arc::new(move |_, peer, ran| {
                let mut done = 0;
                while peer.until(|peer| !waiting(peer, done).is_empty()) {
                    for (stream, id) in waiting(peer, done) {
                        ran.lock().expect("nobody panics").push(id);
                        peer.send(&reset(stream, code));
                        peer.streams.remove(&stream);
                        done = stream;
                    }
                }
            }),
        );
        trials.with(&origin.setting(), move |trials| {
            let origin = origin;
            let mut verdict = Verdict::default();
            let mut peer = Peer::connect(trials.subject.address, trials.subject.patience, b"");
            let mut told = 0;
            for stream in (1..).step_by(2).take(UNANSWERED) {
                let id = trials.ledger.next_id();
                peer.send(&head(stream, true, &request("POST", "/two", &id.to_string())));
                match peer.answer(stream) {
                    Answer::Whole(message) if message.head.status() == 503 => told += 1,
                    Answer::Whole(message) => verdict.unexpected = Some(message.head.status().to_string()),
                    Answer::Broken(_, end) => {
                        verdict.found.push((Unsafe::Lost, format!("{end:?} after {told}")));
                        break;
                    }
                    Answer::Malformed(why) => verdict.unexpected = Some(why),
                }
            }
            let ran = origin.ran.lock().expect("nobody panics").len();
            let most = UNANSWERED * (1 + CONNECT_RETRIES_DEFAULT as usize);
            if ran > most {
                verdict.found.push((Unsafe::Amplified, format!("{ran} attempts, {most} may be")));
            }
            trials.tally.count(&format!("{name} for everything"), verdict);
            trials
                .tally
                .notes
                .push(format!("{name} for everything: {ran} attempts of {UNANSWERED} requests"));
        });
    }
}

/// Where the id of a request stands in a response that is written down: as many digits as an id can have.
const ID: &[u8; 20] = b"____________________";

/// H2-07 from the other side: a response that is none, or not as long as it says, is never told as a whole one.
pub(crate) fn wrong_responses(trials: &mut Trials<'_>) {
    let ok: Field<'_> = (b":status", b"200");
    let id: Field<'_> = (b"x-id", &ID[..]);
    let length = |length: &'static [u8]| -> Field<'static> { (b"content-length", length) };
    let data = |ends: bool, bytes: &[u8]| frame(DATA, if ends { END_STREAM } else { 0 }, 0, bytes);
    let of = |ends: bool, fields: &[Field<'_>]| head(0, ends, fields);
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("a length and no body", vec![of(true, &[ok, id, length(b"5")])]),
        ("a body that is short", vec![of(false, &[ok, id, length(b"5")]), data(true, b"four")]),
        ("a body that is long", vec![of(false, &[ok, id, length(b"5")]), data(true, b"longer")]),
        ("two lengths", vec![of(false, &[ok, id, length(b"5"), length(b"6")]), data(true, b"hello")]),
        ("no status", vec![of(true, &[id])]),
        ("a status of letters", vec![of(true, &[(b":status", b"abc"), id])]),
        ("a status of 99", vec![of(true, &[(b":status", b"099"), id])]),
        ("101", vec![of(true, &[(b":status", b"101"), id])]),
        ("two statuses", vec![of(true, &[ok, ok, id])]),
        ("a path", vec![of(true, &[ok, (b":path", b"/"), id])]),
        ("an interim response that ends", vec![of(true, &[(b":status", b"103")])]),
        ("interim responses without end", vec![of(false, &[(b":status", b"103")]); 1000]),
        ("DATA before a head", vec![data(true, b"hello")]),
        ("a head behind a head", vec![of(false, &[ok, id]), of(false, &[ok, id]), data(true, b"")]),
        (
            "trailers that end nothing",
            vec![of(false, &[ok, id]), data(false, b"x"), of(false, &[(b"x-t", b"t")])],
        ),
        (
            "a coding",
            vec![of(false, &[ok, id, (b"transfer-encoding", b"chunked")]), data(true, b"0\r\n\r\n")],
        ),
        ("a connection", vec![of(true, &[ok, id, (b"connection", b"close")])]),
        ("CRLF in a value", vec![of(true, &[ok, id, (b"x-a", b"b\r\n\r\nHTTP/1.1 200 OK")])]),
        ("NUL in a value", vec![of(true, &[ok, id, (b"x-a", b"b\0")])]),
        ("a large letter", vec![of(true, &[ok, id, (b"X-A", b"b")])]),
        ("a reset inside a body", vec![of(false, &[ok, id]), data(false, b"hello"), reset(0, CANCEL)]),
        ("an end inside a body", vec![of(false, &[ok, id]), data(false, b"hello"), go_away(0, 0)]),
    ];
    for (name, frames) in cases {
        let closes = name.starts_with("an end");
        let origin = Origin::start(
            b"",
            Arc::new(move |_, peer, _| {
                let mut done = 0;
                while peer.until(|peer| !waiting(peer, done).is_empty()) {
                    for (stream, id) in waiting(peer, done) {
                        done = stream;
                        let is_wrong = peer.streams[&stream].message.head.first[1] == b"/two/wrong";
                        if !is_wrong {
                            answer(peer, stream, id);
                            continue;
                        }
                        for frame in &frames {
                            peer.send(&on_stream(frame, stream, id));
                        }
                        if closes {
                            return;
                        }
                    }
                }
            }),
        );
        trials.with(&origin.setting(), move |trials| {
            let _origin = origin;
            for is_http2 in [false, true] {
                let mut verdict = Verdict::default();
                let answer = ask(trials, is_http2, "/two/wrong").1;
                match answer {
                    Answer::Whole(message) if message.head.id().is_some() => {
                        let what = format!("{} told as whole", message.head.status());
                        verdict.found.push((Unsafe::Truncated, what));
                    }
                    Answer::Whole(message) if matches!(message.head.status(), 502 | 503) => {}
                    Answer::Whole(message) => verdict.unexpected = Some(message.head.status().to_string()),
                    Answer::Broken(_, End::Silence) => {
                        verdict.found.push((Unsafe::Lost, "silence".to_owned()));
                    }
                    Answer::Broken(..) => {}
                    Answer::Malformed(why) => verdict.found.push((Unsafe::Crossed, why)),
                }
                let (id, after) = ask(trials, is_http2, "/two/right");
                verdict.expect_echo("the request behind", id, after);
                trials.tally.count(&format!("{name}, HTTP/2 {is_http2}"), verdict);
            }
        });
    }
}

/// A frame that was written down for stream 0, for another and with the id in its place.
fn on_stream(frame: &[u8], stream: u32, id: u64) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[3] != GO_AWAY {
        frame[5..9].copy_from_slice(&stream.to_be_bytes());
    }
    if let Some(at) = frame.windows(ID.len()).position(|text| text == ID) {
        frame[at..at + ID.len()].copy_from_slice(format!("{id:020}").as_bytes());
    }
    frame
}

/// Asks over a connection of its own.
fn ask(trials: &mut Trials<'_>, is_http2: bool, path: &str) -> (u64, Answer) {
    let id = trials.ledger.next_id();
    if !is_http2 {
        let mut client = trials.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
        return (id, client.answer("GET"));
    }
    let mut peer = Peer::connect(trials.subject.address, trials.subject.patience, b"");
    peer.send(&head(1, true, &request("GET", path, &id.to_string())));
    (id, peer.answer(1))
}
