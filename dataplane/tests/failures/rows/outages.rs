//! Origins that are not there, silent, slow or killed: UP-05, UP-06.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Answer, End},
    ledger::{Meant, Unsafe, Verdict},
    recorder::Then,
    trial::Trials,
    world::TIMEOUT,
};

/// What a client gets in place of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Status(u16),
    /// A part of an answer, and no clean end.
    Cut,
}

/// How much later than it should a timeout may be seen here, where the machine may be busy. That they are exact to a tenth is
/// among the stories of timeouts, which have a clock of their own.
const LATE: Duration = Duration::from_secs(3);

/// The time between two bytes that drip.
const DRIP: Duration = Duration::from_millis(10);

/// No timeout is missed, and no byte that drips in prolongs one.
pub(crate) fn silence(trials: &mut Trials<'_>) {
    let head = "HTTP/1.1 200 OK\r\nX: ";
    let body = "HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: 100000\r\n\r\n";
    let mut medians = Vec::new();
    for (what, target, begin, told, after) in [
        ("a silent origin", "/silent", None, Told::Status(504), TIMEOUT),
        ("a head that drips", "/silent", Some(head), Told::Status(504), TIMEOUT),
        ("a body that drips", "/silent", Some(body), Told::Cut, TIMEOUT),
        ("SYN that are dropped", "/mute", None, Told::Status(503), TIMEOUT),
        ("a port where nobody listens", "/refused", None, Told::Status(503), Duration::ZERO),
    ] {
        let mut took = Vec::new();
        for _ in 0..5 {
            let mut verdict = Verdict::default();
            let id = trials.enter(Meant::new("GET", target, b""));
            let _until_here = drip(trials, id, begin);
            let begun = Instant::now();
            let mut client = trials.connect();
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
            let answer = client.answer("GET");
            let waited = begun.elapsed();
            expect_told(&mut verdict, told, answer);
            if waited < after.mul_f32(0.9) || waited > after.mul_f32(1.1) + LATE {
                verdict.unexpected = Some(format!("after {waited:?} in place of {after:?}"));
            }
            took.push(waited);
            trials.settle(id, &mut verdict);
            trials.tally.count(what, verdict);
        }
        took.sort();
        medians.push(format!("{what} {:.0?}", took[took.len() / 2]));
    }
    trials.tally.notes.push(format!("told after: {}", medians.join(", ")));
}

/// Has the origin begin an answer to this request, byte after byte, or not at all; as long as what this gives lives.
fn drip(trials: &Trials<'_>, id: u64, begin: Option<&'static str>) -> Sender<()> {
    let (lives, is_over) = channel::<()>();
    trials.origin.script(id, move |origin| {
        let Some(begin) = begin else {
            // Nobody sends anything over it: this is its end.
            let _ = is_over.recv();
            return Ok(Then::Close);
        };
        origin.send(begin.replace("{id}", &id.to_string()).as_bytes())?;
        // It ends soon behind every timeout in any case.
        for _ in 0..10 * TIMEOUT.as_millis() / DRIP.as_millis() {
            if is_over.recv_timeout(DRIP) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            origin.send(b"x")?;
        }
        Ok(Then::Reset)
    });
    lives
}

fn expect_told(verdict: &mut Verdict, told: Told, answer: Answer) {
    match answer {
        Answer::Whole(message) if Told::Status(message.head.status()) == told => {}
        Answer::Broken(message, End::Fin | End::Reset) if told == Told::Cut && !message.body.is_empty() => {}
        Answer::Whole(message) if message.head.id().is_some() => {
            let bytes = message.body.len();
            verdict.found.push((Unsafe::Truncated, format!("{bytes} bytes told as whole")));
        }
        Answer::Broken(_, End::Silence) => verdict.found.push((Unsafe::Lost, "silence".to_owned())),
        Answer::Whole(message) => verdict.unexpected = Some(message.head.status().to_string()),
        Answer::Broken(_, end) => verdict.unexpected = Some(format!("{end:?}")),
        Answer::Malformed(why) => verdict.found.push((Unsafe::Crossed, why)),
    }
}

/// How often an origin is killed on each driver, one of three after the other.
const KILLS: usize = 24;

/// One of three origins is always being killed or coming back. What fails is told, no POST runs twice, and between the kills
/// everything is answered.
pub(crate) fn kills(trials: &mut Trials<'_>) {
    let three = &trials.world.three;
    let (mut sent, mut told) = (0, 0);
    thread::scope(|scope| {
        let (is_sent, one_more) = channel::<()>();
        let killer = scope.spawn(move || {
            for n in 0..KILLS {
                // Some requests while it is away, and some while all are there.
                let wait = || (0..15 + n).all(|_| one_more.recv().is_ok());
                let origin = &three[n % 3];
                origin.kill();
                wait();
                origin.revive();
                wait();
            }
        });
        while !killer.is_finished() {
            let (method, body) = [("GET", ""), ("POST", "hello"), ("PUT", "hello")][sent % 3];
            let mut verdict = Verdict::default();
            let id = trials.enter(Meant::new(method, "/three", body.as_bytes()));
            let length = body.len();
            let mut client = trials.connect();
            // Told before, so that the kill comes with the request. It ends when it has killed often enough.
            let _ = is_sent.send(());
            client.send(format!("{method} /three HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes());
            match client.answer(method) {
                Answer::Whole(message)
                    if message.head.id().is_none() && matches!(message.head.status(), 502 | 503) =>
                {
                    told += 1;
                }
                answer => verdict.expect_body(method, id, body.as_bytes(), answer),
            }
            trials.judge(&mut verdict);
            trials.tally.count(&format!("{method} while origins are killed"), verdict);
            sent += 1;
        }
    });
    trials.tally.notes.push(format!("{told} of {sent} requests told as failed over {KILLS} kills"));
}
