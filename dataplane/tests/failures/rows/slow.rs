//! Downstreams that are slow on purpose: RES-01.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use socket2::{Domain, Socket, Type};

use crate::{
    ledger::{Meant, Unsafe, Verdict},
    recorder::Then,
    subject::Setting,
    trial::Trials,
};

/// How long the proxy waits for a downstream.
const WAIT: Duration = Duration::from_secs(3);

/// The time between two bytes, or sips, of a slow one.
const DRIP: Duration = Duration::from_millis(500);

/// Bytes of an answer that is not read as it comes: more than all buffers on its way.
const ANSWER_BYTES: usize = 1 << 20;

/// One way to be slow.
struct Slowness {
    name: &'static str,
    /// What is sent at once, with `{id}` where an id stands.
    begin: &'static str,
    /// What is sent again and again.
    drip: &'static str,
    reads: Reads,
    /// What it must be told before it is closed; nothing where there is nothing to answer, or it does not look.
    told: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    All,
    /// A little at a time, with the smallest segments that there are.
    Sips,
    Nothing,
}

const SLOWNESS: [Slowness; 8] = [
    Slowness { name: "nothing sent", begin: "", drip: "", reads: Reads::All, told: "" },
    Slowness {
        name: "a head that drips",
        begin: "GET / HTTP/1.1\r\nHost: a\r\nX: ",
        drip: "x",
        reads: Reads::All,
        told: "408",
    },
    Slowness {
        name: "header lines that drip",
        begin: "GET / HTTP/1.1\r\nHost: a\r\n",
        drip: "X: x\r\n",
        reads: Reads::All,
        told: "408",
    },
    Slowness {
        name: "a body that drips",
        begin: "POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: 100000\r\n\r\n",
        drip: "x",
        reads: Reads::All,
        told: "408",
    },
    Slowness {
        name: "chunks that drip",
        begin: "POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n",
        drip: "1\r\nx\r\n",
        reads: Reads::All,
        told: "408",
    },
    Slowness {
        name: "a chunk line that drips",
        begin: "POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nTransfer-Encoding: chunked\r\n\r\n5;a=",
        drip: "x",
        reads: Reads::All,
        told: "408",
    },
    Slowness {
        name: "an answer that is sipped",
        begin: "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        drip: "",
        reads: Reads::Sips,
        told: "",
    },
    Slowness {
        name: "an answer that is not read",
        begin: "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        drip: "",
        reads: Reads::Nothing,
        told: "",
    },
];

/// Connections that reach an origin, each with a thread there, of one way to be slow.
const FORWARDED: usize = 30;

/// Descriptors that these tests may have, for each slow connection that reaches no origin. There may be four proxies under trial
/// at a time; and a program that is not optimised takes its time for each.
const DESCRIPTORS_PER_CONNECTION: u64 = 16;

/// A slow connection.
struct Slow {
    how: &'static Slowness,
    stream: TcpStream,
    begun: Instant,
    received: Vec<u8>,
    ended: Option<Duration>,
}

/// Thousands that drip and sip hold nobody else up, and are gone when the time for what they do is over: no byte prolongs it.
pub(crate) fn slow(trials: &mut Trials<'_>) {
    let setting = Setting { wait: Some(WAIT), ..Setting::default() };
    trials.with(&setting, |trials| {
        // The connections to warm up with, so that what each takes is not what the first takes.
        let (id, request) = trials.plain();
        let mut verdict = Verdict::default();
        let mut client = trials.connect();
        client.send(&request);
        verdict.expect_echo("the first request", id, client.answer("GET"));
        drop(client);
        trials.tally.count("the first request", verdict);
        let before = trials.subject.process.resident_kib();
        let slow = connect(trials);
        let count = slow.len();
        let patience = WAIT + trials.subject.patience;
        let (mut slow, peak) = thread::scope(|scope| {
            let dripping = scope.spawn(move || drip_all(slow, patience));
            let mut peak = before;
            while !dripping.is_finished() {
                good(trials);
                peak = peak.max(trials.subject.process.resident_kib());
            }
            (dripping.join().expect("nobody panics"), peak)
        });
        for slow in &mut slow {
            let verdict = slow.verdict(patience);
            trials.tally.count(slow.how.name, verdict);
        }
        drop(slow);
        let mut last = Verdict::default();
        trials.judge(&mut last);
        trials.tally.count("what the origins got", last);
        let bytes = (peak.saturating_sub(before)) * 1024 / count;
        trials.tally.notes.push(format!("{count} slow connections, {bytes} bytes resident for each"));
    });
}

/// Connects them all and sends what each begins with.
fn connect(trials: &mut Trials<'_>) -> Vec<Slow> {
    let most =
        descriptors() / DESCRIPTORS_PER_CONNECTION / if trials.subject.kind.is_thorough() { 1 } else { 10 };
    let (forwarded, others): (Vec<_>, Vec<_>) = SLOWNESS.iter().partition(|how| how.begin.contains("{id}"));
    let each = usize::try_from(most).unwrap_or(usize::MAX) / others.len();
    let ways =
        others.into_iter().map(|how| (how, each)).chain(forwarded.into_iter().map(|how| (how, FORWARDED)));
    let mut slow = Vec::new();
    for how in ways.flat_map(|(how, count)| std::iter::repeat_n(how, count)) {
        let mut stream = how.connect(trials.subject.address);
        let mut begin = how.begin.to_owned();
        if begin.contains("{id}") {
            let method = begin.split(' ').next().unwrap_or_default();
            let breaks = method == "POST";
            let id = trials.enter(Meant { breaks, ..Meant::new(method, "/t", b"") });
            begin = begin.replace("{id}", &id.to_string());
            if how.reads != Reads::All {
                trials.origin.script(id, move |origin| {
                    let head =
                        format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {ANSWER_BYTES}\r\n\r\n");
                    origin.send(head.as_bytes())?;
                    origin.send(&vec![b'x'; ANSWER_BYTES])?;
                    Ok(Then::KeepAlive)
                });
            }
        }
        let begun = Instant::now();
        stream.write_all(begin.as_bytes()).expect("it was accepted, or will be");
        stream.set_nonblocking(true).expect("a socket");
        slow.push(Slow { how, stream, begun, received: Vec::new(), ended: None });
    }
    slow
}

/// How many descriptors these tests may have; all that they may.
fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    limit.current.unwrap_or(u64::MAX).min(20_000)
}

/// Requests beside the slow ones, each on a connection of its own, where the short timeouts do not matter.
fn good(trials: &mut Trials<'_>) {
    let target = if trials.subject.kind.has_routes() { "/three" } else { "/plain" };
    for _ in 0..10 {
        let mut verdict = Verdict::default();
        let id = trials.enter(Meant::new("GET", target, b""));
        let mut client = trials.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
        verdict.expect_echo("a good request", id, client.answer("GET"));
        trials.tally.count("good requests beside slow ones", verdict);
    }
}

/// Drips and sips until all are over, or for that long.
fn drip_all(mut slow: Vec<Slow>, patience: Duration) -> Vec<Slow> {
    let (_never, pause) = channel::<()>();
    let until = Instant::now() + patience;
    while slow.iter().any(|slow| slow.ended.is_none()) && Instant::now() < until {
        slow.iter_mut().filter(|slow| slow.ended.is_none()).for_each(Slow::drip);
        // Nothing is sent into it: it is the time between two drips.
        let _ = pause.recv_timeout(DRIP);
    }
    slow
}

impl Slowness {
    fn connect(&self, to: SocketAddr) -> TcpStream {
        if self.reads == Reads::All {
            return TcpStream::connect(to).expect("the proxy listens");
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a socket");
        // What it may send at once is counted in segments, so the other end's buffer does not grow either.
        socket.set_tcp_mss(536).expect("a socket");
        socket.connect(&to.into()).expect("the proxy listens");
        socket.into()
    }
}

impl Slow {
    fn drip(&mut self) {
        let is_over = match self.how.reads {
            Reads::All => self.read(64 * 1024),
            // An end is known before what lies in front of it is read.
            Reads::Sips => self.read(1024) || self.has_ended(),
            Reads::Nothing => self.has_ended(),
        };
        let drip = self.how.drip.as_bytes();
        let is_over = is_over || !drip.is_empty() && self.stream.write_all(drip).is_err();
        if is_over {
            self.read(64 * 1024);
            self.ended = Some(self.begun.elapsed());
        }
    }

    fn has_ended(&self) -> bool {
        let mut end = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        poll(&mut end, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }

    /// Reads this much of what is there; whether that was all there will be.
    fn read(&mut self, most: usize) -> bool {
        let mut buffer = vec![0; most];
        match self.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                self.received.extend(&buffer[..count]);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    fn verdict(&self, patience: Duration) -> Verdict {
        let mut verdict = Verdict::default();
        let Slowness { told, .. } = self.how;
        match self.ended {
            None => verdict.found.push((Unsafe::Broken, format!("still there after {patience:?}"))),
            Some(after) if after < WAIT.mul_f32(0.9) => {
                verdict.unexpected = Some(format!("over after {after:?}"))
            }
            Some(_)
                if !told.is_empty() && !self.received.starts_with(format!("HTTP/1.1 {told} ").as_bytes()) =>
            {
                let received = self.received[..self.received.len().min(60)].escape_ascii();
                verdict.unexpected = Some(format!("{received:?} in place of {told}"));
            }
            Some(_) => {}
        }
        verdict
    }
}
