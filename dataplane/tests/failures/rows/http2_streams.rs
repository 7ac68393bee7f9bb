//! Streams that wait, end wrongly, or have odd ids, on their way from a client: H2-06, H2-07, H2-09, H2-11.

use std::{sync::LazyLock, time::Duration};

use crate::{
    client::{Answer, End},
    http2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, HEADERS,
        INITIAL_WINDOW_SIZE, Outcome, PAYLOAD_BYTES_MAX, PING, PROTOCOL_ERROR, Peer, SETTINGS, block, frame,
        head, request, setting, window_update,
    },
    ledger::{Meant, Unsafe, Verdict},
    recorder::Then,
    subject::Setting,
    trial::Trials,
};

/// Bytes of an answer that is waited for: more than the windows and the buffers on its way.
const LARGE_BYTES: usize = 4 << 20;

/// Streams that nobody reads.
const STREAMS: u32 = 100;

/// How long the proxy waits for a downstream.
const WAIT: Duration = Duration::from_secs(3);

/// What all that waits may add to the memory of the proxy.
const RESIDENT_KIB_MAX: usize = 64 * 1024;

impl Trials<'_> {
    fn peer(&self, settings: &[u8]) -> Peer {
        Peer::connect(self.subject.address, self.subject.patience, settings)
    }

    /// An id whose request is answered with so many bytes.
    fn answered_with(&mut self, bytes: usize) -> u64 {
        let id = self.enter(Meant::new("GET", "/t", b""));
        self.origin.script(id, move |origin| {
            let head = format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {bytes}\r\n\r\n");
            origin.send(head.as_bytes())?;
            origin.send(body(bytes))?;
            Ok(Then::KeepAlive)
        });
        id
    }
}

fn body(bytes: usize) -> &'static [u8] {
    static LARGE: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..LARGE_BYTES).map(|at| (at ^ at >> 8) as u8).collect());
    &LARGE[..bytes]
}

/// H2-06: what nobody reads stays where it is, and goes when the time for it is over; small windows still carry all.
pub(crate) fn small_windows(trials: &mut Trials<'_>) {
    let setting = Setting { wait: Some(WAIT), ..Setting::default() };
    trials.with(&setting, |trials| {
        let before = trials.subject.process.resident_kib();
        let mut verdict = Verdict::default();
        let mut peer = trials.peer(&setting_of_windows(0));
        for stream in (1..).step_by(2).take(STREAMS as usize) {
            let id = trials.answered_with(LARGE_BYTES);
            peer.send(&head(stream, true, &request("GET", "/t", &id.to_string())));
        }
        // Beside it another connection is served.
        let mut peak = before;
        for _ in 0..100 {
            let (id, bytes) = trials.plain();
            let mut client = trials.connect();
            client.send(&bytes);
            verdict.expect_echo("a good request", id, client.answer("GET"));
            peak = peak.max(trials.subject.process.resident_kib());
        }
        let over = |peer: &Peer| peer.streams.values().filter(|got| got.reset.is_some()).count() as u32;
        if !peer.until(|peer| over(peer) == STREAMS) {
            let what = format!("{} of {STREAMS} streams were given up, {:?}", over(&peer), peer.end);
            verdict.found.push((Unsafe::Broken, what));
        }
        if peer.streams.values().any(|got| got.message.is_whole) {
            verdict.found.push((Unsafe::Truncated, "what was given up was told as whole".to_owned()));
        }
        peak = peak.max(trials.subject.process.resident_kib());
        let more = peak.saturating_sub(before);
        if more > RESIDENT_KIB_MAX {
            verdict.found.push((Unsafe::Broken, format!("{more} KiB of memory more")));
        }
        trials.tally.notes.push(format!("{STREAMS} streams that nobody reads: {more} KiB"));
        trials.settle(0, &mut verdict);
        trials.tally.count("streams without windows", verdict);
    });
    // A byte at a time.
    let mut verdict = Verdict::default();
    let mut peer = trials.peer(&setting_of_windows(1));
    let id = trials.answered_with(300);
    peer.send(&head(1, true, &request("GET", "/t", &id.to_string())));
    verdict.expect_body("the answer", id, body(300), peer.answer(1));
    trials.settle(id, &mut verdict);
    trials.tally.count("windows of one byte", verdict);
    // A window that is taken back is less than nothing, until it is given again.
    for rounds in [1, 20] {
        let mut verdict = Verdict::default();
        let mut peer = trials.peer(&setting_of_windows(65_535));
        peer.makes_room = false;
        let id = trials.answered_with(200_000);
        peer.send(&head(1, true, &request("GET", "/t", &id.to_string())));
        let came = |peer: &Peer| peer.streams.get(&1).map_or(0, |got| got.message.body.len());
        peer.until(|peer| came(peer) == 65_535);
        for _ in 0..rounds {
            peer.send(&[setting_of_windows(0), window_update(1, 100), setting_of_windows(65_535)].concat());
        }
        peer.makes_room = true;
        peer.send(&window_update(1, 100_000));
        verdict.expect_body("the answer", id, body(200_000), peer.answer(1));
        trials.settle(id, &mut verdict);
        trials.tally.count("windows below zero", verdict);
    }
}

fn setting_of_windows(bytes: u32) -> Vec<u8> {
    setting(INITIAL_WINDOW_SIZE, bytes)
}

/// H2-07: a body that is not as long as was said, and trailers that end nothing, are never a whole request.
pub(crate) fn ends(trials: &mut Trials<'_>) {
    let data = |ends: bool, bytes: &[u8]| frame(DATA, if ends { END_STREAM } else { 0 }, 1, bytes);
    let trailers = |ends: bool, fields: &[(&[u8], &[u8])]| head(1, ends, fields);
    let trailer: &[(&[u8], &[u8])] = &[(b"x-t", b"t")];
    for (name, length, rest, is_whole) in [
        ("a length with no body", Some("5"), None, false),
        ("DATA that is short", Some("5"), Some(data(true, b"four")), false),
        ("DATA that is long", Some("5"), Some(data(true, b"longer")), false),
        (
            "DATA that is short, in two",
            Some("5"),
            Some([data(false, b"fo"), data(true, b"ur")].concat()),
            false,
        ),
        (
            "DATA that is long, in two",
            Some("5"),
            Some([data(false, b"hello"), data(true, b"x")].concat()),
            false,
        ),
        (
            "trailers behind too little",
            Some("5"),
            Some([data(false, b"four"), trailers(true, trailer)].concat()),
            false,
        ),
        (
            "trailers that end nothing",
            None,
            Some([data(false, b"hello"), trailers(false, trailer)].concat()),
            false,
        ),
        (
            "trailers with a pseudo field",
            None,
            Some([data(false, b"hello"), trailers(true, &[(b":path", b"/u")])].concat()),
            false,
        ),
        (
            "trailers with a large letter",
            None,
            Some([data(false, b"hello"), trailers(true, &[(b"X-T", b"t")])].concat()),
            false,
        ),
        (
            "trailers with CRLF",
            None,
            Some([data(false, b"hello"), trailers(true, &[(b"x-t", b"t\r\n\r\nGET / HTTP/1.1")])].concat()),
            false,
        ),
        (
            "trailers behind all",
            Some("5"),
            Some([data(false, b"hello"), trailers(true, trailer)].concat()),
            true,
        ),
        (
            "trailers without a length",
            None,
            Some([data(false, b"hello"), trailers(true, trailer)].concat()),
            true,
        ),
        ("an empty end", None, Some([data(false, b"hello"), data(true, b"")].concat()), true),
    ] {
        let mut verdict = Verdict::default();
        let meant = Meant::new("POST", "/t", b"hello");
        let id = trials.enter(Meant { breaks: !is_whole, ..meant });
        let text = id.to_string();
        let mut fields = request("POST", "/t", &text);
        fields.extend(length.map(|length| (&b"content-length"[..], length.as_bytes())));
        let mut peer = trials.peer(b"");
        let next = trials.enter(Meant::new("GET", "/plain", b""));
        let behind = head(3, true, &request("GET", "/plain", &next.to_string()));
        peer.send(&[head(1, rest.is_none(), &fields), rest.unwrap_or_default(), behind].concat());
        match (peer.outcome(1), is_whole) {
            (Outcome::Whole(message), true) => {
                verdict.expect_body("the answer", id, b"hello", Answer::Whole(message))
            }
            (Outcome::Reset(PROTOCOL_ERROR, _), false) => {}
            (Outcome::Whole(message), false) if message.head.id().is_some() => {
                verdict.found.push((Unsafe::Truncated, "it was answered as whole".to_owned()));
            }
            (Outcome::Reset(code, _), _) => verdict.unexpected = Some(format!("reset with {code}")),
            (Outcome::Silence(_), _) => verdict.found.push((Unsafe::Lost, "silence".to_owned())),
            (Outcome::Whole(message), _) => verdict.unexpected = Some(message.head.status().to_string()),
            (Outcome::Gone(code, end), _) => verdict.unexpected = Some(format!("{end:?} with {code:?}")),
        }
        verdict.expect_echo("the stream behind", next, peer.answer(3));
        trials.settle(id, &mut verdict);
        trials.tally.count(name, verdict);
    }
}

/// H2-09: ids, lengths and windows at their limits and beyond.
pub(crate) fn limits(trials: &mut Trials<'_>) {
    const LAST: u32 = (1 << 31) - 1;
    // The last stream that there can be is a stream like any other.
    let mut verdict = Verdict::default();
    let mut peer = trials.peer(b"");
    for stream in [1, LAST - 2, LAST] {
        let id = trials.enter(Meant::new("GET", "/plain", b""));
        peer.send(&head(stream, true, &request("GET", "/plain", &id.to_string())));
        verdict.expect_echo(&format!("stream {stream}"), id, peer.answer(stream));
    }
    trials.settle(0, &mut verdict);
    trials.tally.count("the last streams", verdict);
    // What comes before a frame that is wrong may be on its way already.
    let id = trials.enter(Meant::new("GET", "/t", b"")).to_string();
    let get = |stream: u32| head(stream, true, &request("GET", "/t", &id));
    let broken: Vec<String> = (0..2)
        .map(|_| trials.enter(Meant { breaks: true, ..Meant::new("POST", "/t", b"") }).to_string())
        .collect();
    let post = |at: usize| head(1, false, &request("POST", "/t", &broken[at]));
    let too_long = frame(DATA, 0, 1, &vec![0; PAYLOAD_BYTES_MAX + 1]);
    for (name, bytes, codes) in [
        ("a stream of the server", get(2), &[PROTOCOL_ERROR][..]),
        ("stream 0", get(0), &[PROTOCOL_ERROR]),
        ("a stream behind a later one", [get(LAST), get(5)].concat(), &[PROTOCOL_ERROR]),
        ("DATA on a stream that is not", frame(DATA, 0, 7, b"x"), &[PROTOCOL_ERROR]),
        ("a frame that is too long", [post(0), too_long].concat(), &[FRAME_SIZE_ERROR]),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), &[FRAME_SIZE_ERROR]),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), &[FRAME_SIZE_ERROR]),
        ("a window beyond the last", window_update(0, LAST), &[FLOW_CONTROL_ERROR]),
        ("an initial window beyond the last", setting(INITIAL_WINDOW_SIZE, 1 << 31), &[FLOW_CONTROL_ERROR]),
        (
            "an initial window that another adds to",
            [post(1), window_update(1, LAST - 65_535), setting(INITIAL_WINDOW_SIZE, 65_536)].concat(),
            &[FLOW_CONTROL_ERROR],
        ),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, b""), &[PROTOCOL_ERROR]),
        (
            "a frame inside a head",
            [frame(HEADERS, 0, 1, &block(&request("GET", "/t", &id))), frame(PING, 0, 0, &[0; 8])].concat(),
            &[PROTOCOL_ERROR],
        ),
    ] {
        let mut verdict = Verdict::default();
        let mut peer = trials.peer(b"");
        peer.send(&bytes);
        peer.until(|_| false);
        match (peer.end, peer.go_away) {
            (Some(End::Fin | End::Reset), Some((_, code))) if codes.contains(&code) => {}
            (end, told) => verdict.unexpected = Some(format!("{end:?} with {told:?}")),
        }
        let (after, plain) = trials.plain();
        let mut client = trials.connect();
        client.send(&plain);
        verdict.expect_echo("the request on a new connection", after, client.answer("GET"));
        trials.tally.count(name, verdict);
    }
}

/// H2-11: one stream that nobody reads holds up none of those beside it.
pub(crate) fn slow_beside_fast(trials: &mut Trials<'_>) {
    for slow_bytes in [200_000, LARGE_BYTES] {
        let mut verdict = Verdict::default();
        let mut peer = trials.peer(&setting_of_windows(65_535));
        peer.makes_room = false;
        let slow = trials.answered_with(slow_bytes);
        peer.send(&head(1, true, &request("GET", "/t", &slow.to_string())));
        let came = |peer: &Peer| peer.streams.get(&1).map_or(0, |got| got.message.body.len());
        if !peer.until(|peer| came(peer) == 65_535) {
            verdict.unexpected = Some(format!("{} bytes of the slow one", came(&peer)));
        }
        let fast: Vec<(u32, u64)> =
            (3..).step_by(2).take(99).map(|stream| (stream, trials.answered_with(10_000))).collect();
        for (stream, id) in &fast {
            peer.send(&head(*stream, true, &request("GET", "/t", &id.to_string())));
        }
        for (stream, id) in &fast {
            verdict.expect_body("a fast one", *id, body(10_000), peer.answer(*stream));
        }
        if came(&peer) != 65_535 {
            verdict.found.push((Unsafe::Broken, "more than the window of the slow one".to_owned()));
        }
        peer.makes_room = true;
        peer.send(&window_update(1, 1 << 20));
        verdict.expect_body("the slow one", slow, body(slow_bytes), peer.answer(1));
        trials.settle(slow, &mut verdict);
        trials.tally.count(&format!("{slow_bytes} bytes that nobody reads"), verdict);
    }
}
