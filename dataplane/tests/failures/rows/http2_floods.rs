//! Frames without number and heads without end, from one client, while others are served: H2-01 to H2-05.

use std::{
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use policy::limits;

use crate::{
    client::{Answer, End},
    http2::{
        CANCEL, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM,
        FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, HEADERS, PING, PRIORITY, PROTOCOL_ERROR, Peer, SETTINGS,
        STREAM_CLOSED, block, frame, go_away, head, request, reset, string, window_update,
    },
    ledger::{Meant, Unsafe, Verdict},
    trial::Trials,
};

/// What a flood may add to the memory of the proxy.
const RESIDENT_KIB_MAX: usize = 64 * 1024;

/// Good requests before a flood, each over a connection of its own, for comparison.
const GOOD: usize = 100;

/// Bytes that a flood sends at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// How long the proxy may take nothing of a flood until it counts as held up.
const HELD: Duration = Duration::from_secs(2);

/// One flood.
struct Flood<'a> {
    name: String,
    /// What comes first.
    begin: Vec<u8>,
    /// Its parts, without end.
    parts: Box<dyn Iterator<Item = Vec<u8>> + Send + 'a>,
    /// It ends by itself after so many.
    most: usize,
    /// How it may be ended: codes of GOAWAY.
    told: &'a [u32],
    /// It may also be held up: the proxy does not read from who does not read.
    may_be_held: bool,
}

/// How a flood went.
struct Ended {
    sent: usize,
    is_held: bool,
    end: Option<End>,
    code: Option<u32>,
}

impl Flood<'_> {
    fn run(self, mut peer: Peer) -> Ended {
        let (mut sent, mut is_open) = (0, peer.send(&self.begin));
        let mut parts = self.parts.take(self.most).peekable();
        let _ = peer.stream().set_write_timeout(Some(HELD));
        let mut since = Instant::now();
        while is_open && parts.peek().is_some() {
            let mut piece = Vec::new();
            while piece.len() < PIECE_BYTES
                && let Some(part) = parts.next()
            {
                piece.extend(part);
                sent += 1;
            }
            since = Instant::now();
            is_open = peer.send(&piece);
        }
        let is_held = !is_open && since.elapsed() >= HELD;
        if !is_held {
            // The proxy's last words, unless a reset has taken them away.
            peer.until(|_| false);
        }
        Ended { sent, is_held, end: peer.end, code: peer.go_away.map(|(_, code)| code) }
    }
}

impl Trials<'_> {
    /// Floods while others ask; they must lose nothing.
    fn flood(&mut self, flood: Flood<'_>) {
        if self.has_enough() {
            return;
        }
        let (name, told, may_be_held) = (flood.name.clone(), flood.told, flood.may_be_held);
        let mut alone: Vec<Duration> = (0..GOOD).map(|at| self.good(at)).collect();
        let before = self.subject.process.resident_kib();
        let peer = Peer::connect(self.subject.address, self.subject.patience, b"");
        let (mut beside, mut peak) = (Vec::new(), before);
        let ended = thread::scope(|scope| {
            let flooding = scope.spawn(move || flood.run(peer));
            while !flooding.is_finished() || beside.len() < GOOD {
                beside.push(self.good(beside.len()));
                peak = peak.max(self.subject.process.resident_kib());
            }
            flooding.join().expect("nobody panics")
        });
        let mut verdict = Verdict::default();
        let more = peak.saturating_sub(before);
        if more > RESIDENT_KIB_MAX {
            verdict.found.push((Unsafe::Broken, format!("{more} KiB of memory more")));
        }
        let Ended { sent, is_held, end, code } = ended;
        match (end, code) {
            _ if is_held && may_be_held => {}
            (Some(End::Fin | End::Reset), Some(code)) if told.contains(&code) => {}
            // What was sent behind the end makes it a reset, which may overtake the last words.
            (Some(End::Reset), None) => {}
            _ => verdict.unexpected = Some(format!("{end:?} with {code:?}, held {is_held}, after {sent}")),
        }
        self.judge(&mut verdict);
        self.tally.count(&name, verdict);
        let (beside, alone) = (p99(&mut beside), p99(&mut alone));
        let ratio = beside.as_secs_f32() / alone.as_secs_f32();
        self.tally.notes.push(format!(
            "{name}: {sent} parts, {more} KiB, p99 of others {beside:.1?}, which is × {ratio:.1}"
        ));
    }

    /// A good request over a connection of its own, by turns of either HTTP; how long it took.
    fn good(&mut self, turn: usize) -> Duration {
        let begun = Instant::now();
        let mut verdict = Verdict::default();
        let id = self.enter(Meant::new("GET", "/plain", b""));
        let answer = match turn % 2 {
            0 => {
                let mut client = self.connect();
                client.send(format!("GET /plain HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
                client.answer("GET")
            }
            _ => {
                let mut peer = Peer::connect(self.subject.address, self.subject.patience, b"");
                peer.send(&head(1, true, &request("GET", "/plain", &id.to_string())));
                peer.answer(1)
            }
        };
        let took = begun.elapsed();
        verdict.expect_echo("a good request", id, answer);
        self.tally.count("good requests beside a flood", verdict);
        took
    }

    /// So many ids of requests that mean this.
    fn ids(&mut self, count: usize, meant: &Meant) -> RangeInclusive<u64> {
        let first = self.enter(meant.clone());
        (1..count).for_each(|_| _ = self.enter(meant.clone()));
        first..=first + count as u64 - 1
    }

    /// Few of the requests of a flood may have reached the origin.
    fn expect_few(&mut self, ids: RangeInclusive<u64>, name: &str) {
        let mut verdict = Verdict::default();
        self.judge(&mut verdict);
        let count = ids.filter(|id| self.ledger.runs(*id) > 0).count();
        // What may be on its way, and what may be reset.
        let most = limits::HTTP2_STREAMS_DOWNSTREAM_DEFAULT + limits::HTTP2_RESETS_BURST_DEFAULT;
        if count > most as usize {
            verdict.found.push((Unsafe::Amplified, format!("{count} reached the origin, {most} may")));
        }
        self.tally.count(&format!("what the origin got of {name}"), verdict);
    }
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Stream ids of a client.
fn streams() -> impl Iterator<Item = u32> + Send {
    (1..).step_by(2)
}

/// Requests of a resetting client, far more than may be.
const RESETS: usize = 20_000;

/// H2-01 (CVE-2023-44487): streams that are opened and reset at once.
pub(crate) fn rapid_reset(trials: &mut Trials<'_>) {
    let get = Meant::new("GET", "/t", b"");
    let ids = trials.ids(RESETS, &get);
    trials.flood(Flood {
        name: "HEADERS and RST_STREAM".to_owned(),
        begin: Vec::new(),
        parts: Box::new(ids.clone().zip(streams()).map(|(id, stream)| {
            [head(stream, true, &request("GET", "/t", &id.to_string())), reset(stream, CANCEL)].concat()
        })),
        most: RESETS,
        told: &[ENHANCE_YOUR_CALM],
        may_be_held: false,
    });
    trials.expect_few(ids, "HEADERS and RST_STREAM");
    let ids = trials.ids(RESETS, &Meant { breaks: true, ..Meant::new("POST", "/t", b"") });
    trials.flood(Flood {
        name: "HEADERS, DATA and RST_STREAM".to_owned(),
        begin: Vec::new(),
        parts: Box::new(ids.clone().zip(streams()).map(|(id, stream)| {
            let id = id.to_string();
            let begun = [head(stream, false, &request("POST", "/t", &id)), frame(DATA, 0, stream, b"x")];
            [begun.concat(), reset(stream, CANCEL)].concat()
        })),
        most: RESETS,
        told: &[ENHANCE_YOUR_CALM],
        may_be_held: false,
    });
    trials.expect_few(ids, "HEADERS, DATA and RST_STREAM");
}

/// H2-02 (CVE-2025-8671): streams that the proxy must reset for what is done on them.
pub(crate) fn made_to_reset(trials: &mut Trials<'_>) {
    type Wrong = fn(u32) -> Vec<u8>;
    let ways: [(&str, bool, Wrong); 6] = [
        ("WINDOW_UPDATE of 0", false, |stream| window_update(stream, 0)),
        ("WINDOW_UPDATE beyond the last", false, |stream| window_update(stream, (1 << 31) - 1)),
        ("PRIORITY of 4 bytes", false, |stream| frame(PRIORITY, 0, stream, &[0; 4])),
        ("PRIORITY on itself", false, |stream| {
            frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat())
        }),
        ("HEADERS behind the end", true, |stream| head(stream, true, &[(b"x-t", b"t")])),
        ("DATA behind the end", true, |stream| frame(DATA, 0, stream, b"x")),
    ];
    let told = [ENHANCE_YOUR_CALM, PROTOCOL_ERROR, STREAM_CLOSED, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR];
    for (name, ends, wrong) in ways {
        let (method, breaks) = if ends { ("GET", false) } else { ("POST", true) };
        let ids = trials.ids(RESETS, &Meant { breaks, ..Meant::new(method, "/t", b"") });
        trials.flood(Flood {
            name: name.to_owned(),
            begin: Vec::new(),
            parts: Box::new(ids.clone().zip(streams()).map(move |(id, stream)| {
                [head(stream, ends, &request(method, "/t", &id.to_string())), wrong(stream)].concat()
            })),
            most: RESETS,
            told: &told,
            may_be_held: false,
        });
        trials.expect_few(ids, name);
    }
}

/// H2-03 (CVE-2024-27919): heads that do not end.
pub(crate) fn endless_heads(trials: &mut Trials<'_>) {
    let huffman = [0x00, 0x81, 0x1f, 0xff].into_iter().chain([0x1f; 0x3f00]).collect::<Vec<u8>>();
    let literals: Vec<u8> = block(&[(b"x-a", &[b'b'; 1000][..])]).repeat(16);
    for (name, part) in [
        ("CONTINUATION of one byte", b"\0".to_vec()),
        ("empty CONTINUATION", Vec::new()),
        ("CONTINUATION of Huffman", huffman),
        ("CONTINUATION of literals", literals),
    ] {
        trials.flood(Flood {
            name: name.to_owned(),
            begin: frame(HEADERS, 0, 1, &block(&request("GET", "/t", "1"))),
            parts: Box::new(std::iter::repeat(frame(CONTINUATION, 0, 1, &part))),
            most: 200_000,
            told: &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR],
            may_be_held: false,
        });
    }
}

/// H2-04: few bytes that mean many. Each stream is told so, or its connection is.
pub(crate) fn compressed_bombs(trials: &mut Trials<'_>) {
    let usual = block(&request("GET", "/t", "1")[..4]);
    let kept = |name: &[u8], value: &[u8]| {
        let mut out = vec![0x40];
        string(name, &mut out);
        string(value, &mut out);
        out
    };
    // The last that was kept stands at 62.
    let again = vec![0xbe; 12_000];
    let bomb = |name: &[u8]| [&usual[..], &kept(name, &[b'v'; 3900]), &again].concat();
    let many = |field: &[u8]| [&usual[..], &field.repeat(12_000 / field.len())].concat();
    for (name, bytes, status, code) in [
        ("one header 12,000 times", bomb(b"x-a"), Some(431), None),
        ("a host 12,000 times", bomb(b"host"), Some(431), None),
        ("the right host 12,000 times", [&usual[..], &kept(b"host", b"a"), &again].concat(), Some(431), None),
        ("a cookie 12,000 times", bomb(b"cookie"), Some(431), None),
        ("12,000 crumbs", [&usual[..], &kept(b"cookie", b"a=b"), &again].concat(), Some(431), None),
        ("headers by the thousand", many(&block(&[(b"a", b"")])), Some(431), None),
        ("an empty name", [&usual[..], &block(&[(b"", b"b")])].concat(), None, None),
        (
            "table sizes by the thousand",
            [vec![0x20; 12_000], usual.clone()].concat(),
            None,
            Some(COMPRESSION_ERROR),
        ),
        (
            "an index that is not there",
            [&usual[..], &[0xff, 0xff, 0xff, 0x7f]].concat(),
            None,
            Some(COMPRESSION_ERROR),
        ),
        (
            "padding that is not",
            [&usual[..], &[0x00, 0x01, b'a', 0x81, 0x00]].concat(),
            None,
            Some(COMPRESSION_ERROR),
        ),
        ("an integer without end", [&usual[..], &[0xff; 60]].concat(), None, Some(COMPRESSION_ERROR)),
    ] {
        let before = trials.subject.process.resident_kib();
        let mut verdict = Verdict::default();
        let mut peer = Peer::connect(trials.subject.address, trials.subject.patience, b"");
        // Again and again, on a table that stays.
        let last = 199;
        for stream in (1..=last).step_by(2) {
            peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &bytes));
        }
        match (peer.answer(last), status, code) {
            (Answer::Whole(message), Some(status), None) if message.head.status() == status => {}
            (Answer::Broken(_, End::Reset), None, None) if peer.end.is_none() => {}
            (Answer::Broken(_, End::Fin | End::Reset), None, Some(code))
                if peer.go_away.is_none_or(|(_, told)| told == code) && peer.end.is_some() => {}
            (Answer::Whole(message), ..) => verdict.unexpected = Some(message.head.status().to_string()),
            (Answer::Broken(_, end), ..) => {
                verdict.unexpected = Some(format!("{end:?}, {:?}", peer.go_away));
            }
            (Answer::Malformed(why), ..) => verdict.unexpected = Some(why),
        }
        let more = trials.subject.process.resident_kib().saturating_sub(before);
        if more > RESIDENT_KIB_MAX {
            verdict.found.push((Unsafe::Broken, format!("{more} KiB of memory more")));
        }
        trials.settle(0, &mut verdict);
        trials.tally.count(name, verdict);
    }
}

/// H2-05: frames that mean nothing, from one who does not read what is owed for them.
pub(crate) fn control_floods(trials: &mut Trials<'_>) {
    for (name, part) in [
        ("SETTINGS", frame(SETTINGS, 0, 0, b"")),
        ("SETTINGS of many", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff].repeat(100))),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("answers to SETTINGS", frame(SETTINGS, 1, 0, b"")),
        ("answers to PING", frame(PING, 1, 0, &[0; 8])),
        ("GOAWAY", go_away((1 << 31) - 1, 0)),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE of 1", window_update(0, 1)),
        ("empty DATA", frame(DATA, 0, 1, b"")),
        ("DATA of padding", frame(DATA, 8, 1, &[&[200][..], &[0; 200]].concat())),
        ("unknown frames", frame(99, 0, 0, b"what")),
        ("RST_STREAM on what is over", reset(1, CANCEL)),
    ] {
        let begin = if matches!(name, "empty DATA" | "DATA of padding" | "RST_STREAM on what is over") {
            let id = trials.enter(Meant { breaks: true, ..Meant::new("POST", "/t", b"") });
            head(1, false, &request("POST", "/t", &id.to_string()))
        } else {
            Vec::new()
        };
        trials.flood(Flood {
            name: name.to_owned(),
            begin,
            parts: Box::new(std::iter::repeat(part)),
            most: 1_000_000,
            told: &[ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR],
            may_be_held: true,
        });
    }
}
