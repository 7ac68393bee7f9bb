//! How a trial is made: bytes from a client or from the origin, and what must follow from them.

use std::{net::TcpStream, time::Duration};

use crate::{
    apart,
    client::{Answer, Client, End},
    ledger::{Ledger, Meant, Tally, Unsafe, Verdict},
    recorder::{Recorder, Then},
    subject::{Setting, Subject},
    world::World,
};

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Answered by the proxy with this status and closed; nothing of it was forwarded.
    Refused(u16),
    /// Answered by the proxy with this status; the connection may live on.
    Answered(u16),
    /// Forwarded as what it means, and answered by the origin.
    Forwarded,
    /// Its body was refused after a part of it was forwarded: answered with this status, and both connections closed.
    BrokenOff(u16),
}

/// Bytes of a client with what they mean.
pub(crate) struct Input {
    /// For the findings.
    pub(crate) name: String,
    /// With `{id}` where the id stands.
    pub(crate) bytes: Vec<u8>,
    /// The one way in which they may be forwarded; `None` when there is none.
    pub(crate) means: Option<Meant>,
    /// What Ringway does.
    pub(crate) fate: Fate,
    /// It is the body that is odd, and its head may be on its way when that is seen.
    pub(crate) is_in_body: bool,
}

/// Bytes of an origin in place of an answer.
pub(crate) struct Output {
    /// For the findings.
    pub(crate) name: String,
    /// Of the request.
    pub(crate) method: &'static str,
    /// With `{id}` where the id stands.
    pub(crate) bytes: Vec<u8>,
    /// What the origin does then.
    pub(crate) then: Then,
    /// The one way in which they may be told as a whole answer; `None` when there is none.
    pub(crate) means: Option<(u16, Vec<u8>)>,
    /// What Ringway makes of them.
    pub(crate) reply: Reply,
}

/// What a client gets for an [`Output`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// An answer of the proxy's own.
    Status(u16),
    /// The origin's answer as it was meant.
    Whole,
    /// A part, and no clean end.
    Cut,
}

/// The trials of one proxy.
pub(crate) struct Trials<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) world: &'a World,
    pub(crate) origin: &'a Recorder,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) tally: Tally,
}

/// Longest input that is cut at every byte.
const CUT_BYTES_MAX: usize = 256;

/// Unsafe outcomes after which a row ends: what waits in vain waits long, and all of it shall be bounded.
const UNSAFE_ENOUGH: usize = 20;

impl Trials<'_> {
    /// Goes on with a proxy of the same kind that is set up so; not at all where this kind cannot be.
    pub(crate) fn with(&mut self, setting: &Setting, run: impl FnOnce(&mut Trials<'_>)) {
        if self.subject.kind.can_be(setting) {
            let tally = std::mem::take(&mut self.tally);
            let subject = Subject::start(self.subject.kind, setting, self.world);
            self.tally = tried_on(subject, self.world, self.ledger, tally, run);
        }
    }

    /// Goes on with one in a network where nobody else is, with a world of its own.
    pub(crate) fn elsewhere(&mut self, run: impl FnOnce(&mut Trials<'_>) + Send) {
        let (kind, tally) = (self.subject.kind, &mut self.tally);
        let result = apart::in_a_network(|| {
            let world = World::start();
            let subject = Subject::start(kind, &Setting::default(), &world);
            *tally = tried_on(subject, &world, &mut Ledger::default(), std::mem::take(tally), run);
        });
        if let Err(why) = result {
            self.tally.not_tried.push(format!("in a network of its own: {why}"));
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.subject.address, self.subject.patience)
    }

    /// A connection; `None` when nobody takes it for longer than the first one that finds a queue full waits.
    pub(crate) fn try_connect(&self) -> Option<Client> {
        let stream = TcpStream::connect_timeout(&self.subject.address, Duration::from_secs(4)).ok()?;
        Some(Client::over(stream, self.subject.patience))
    }

    /// A new id for a request that means this.
    pub(crate) fn enter(&mut self, meant: Meant) -> u64 {
        let id = self.ledger.next_id();
        self.ledger.enter(id, Some(meant));
        id
    }

    /// A plain GET with its id, ready to be sent.
    pub(crate) fn plain(&mut self) -> (u64, Vec<u8>) {
        let id = self.enter(Meant::new("GET", "/plain", b""));
        (id, format!("GET /plain HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").into_bytes())
    }

    /// Tries one input whole, and cut in two at every byte where the subject is to be looked at closely.
    pub(crate) fn input(&mut self, input: &Input) {
        self.input_cut_at(input, None);
        if self.subject.kind.is_thorough() && input.bytes.len() <= CUT_BYTES_MAX {
            // An id is never shorter than its place in the table.
            (1..input.bytes.len()).for_each(|cut| self.input_cut_at(input, Some(cut)));
        }
    }

    /// Whether the row went wrong so often that more of it says nothing new, and may wait long for each trial.
    pub(crate) fn has_enough(&self) -> bool {
        self.tally.unsafe_trials >= UNSAFE_ENOUGH
    }

    fn input_cut_at(&mut self, input: &Input, cut: Option<usize>) {
        if self.has_enough() {
            return;
        }
        let mut verdict = Verdict::default();
        let id = self.ledger.next_id();
        self.ledger.enter(id, input.means.clone());
        let bytes = with_id(&input.bytes, id);
        let (next, mut next_bytes) = self.plain();
        if input.means.as_ref().is_none_or(|meant| meant.breaks) {
            // Where the next message begins is unknown: nothing may be read as one.
            self.ledger.enter(next, None);
        }
        let mut client = self.connect();
        let cut = cut.unwrap_or_default();
        if cut > 0 {
            // The proxy reads the first part together with a request before it; its answer tells that it did.
            let (before, request) = self.plain();
            client.send(&[&request, &bytes[..cut]].concat());
            verdict.expect_echo("the request before", before, client.answer("GET"));
        }
        next_bytes.splice(0..0, bytes[cut..].iter().copied());
        client.send(&next_bytes);
        let method = input.means.as_ref().map_or("GET", |meant| &meant.method).to_owned();
        let fate = verdict.fate(&mut client, id, &method, input.means.as_ref());
        match fate {
            Some(Fate::Forwarded | Fate::Answered(_)) if input.means.is_some() => {
                verdict.expect_echo("the request behind", next, client.answer("GET"));
            }
            _ => {}
        }
        let forwarded_part = self.settle(id, &mut verdict);
        let fate = match fate {
            Some(Fate::Refused(status)) if forwarded_part => Some(Fate::BrokenOff(status)),
            fate => fate,
        };
        // What is wrong with a body may be behind a part that was sent on.
        let as_broken_off = match input.fate {
            Fate::Refused(status) if input.is_in_body => Some(Fate::BrokenOff(status)),
            _ => None,
        };
        if fate.is_none() || fate != Some(input.fate) && fate != as_broken_off {
            verdict.unexpected.get_or_insert(format!("{fate:?}"));
        }
        let name = if cut > 0 { format!("{} cut at {cut}", input.name) } else { input.name.clone() };
        self.tally.count(&name, verdict);
    }

    /// Has the origin answer with these bytes.
    pub(crate) fn output(&mut self, output: &Output) {
        if self.has_enough() {
            return;
        }
        let mut verdict = Verdict::default();
        let id = self.enter(Meant::new(output.method, "/t", b""));
        let (bytes, then) = (with_id(&output.bytes, id), output.then);
        self.origin.script(id, move |origin| {
            origin.send(&bytes)?;
            Ok(then)
        });
        let mut client = self.connect();
        client.send(format!("{} /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n", output.method).as_bytes());
        let answer = client.answer(output.method);
        let is_whole = matches!(answer, Answer::Whole(_));
        let reply = verdict.reply(id, answer, output.means.as_ref());
        if reply != Some(output.reply) {
            verdict.unexpected.get_or_insert(format!("{reply:?}"));
        }
        if is_whole {
            // What is left of the answer, here or upstream, must not be taken for the next one.
            let (next, request) = self.plain();
            client.send(&request);
            verdict.expect_echo_or_end("the request behind", next, client.answer("GET"));
        }
        self.settle(id, &mut verdict);
        self.tally.count(&output.name, verdict);
    }

    /// Asks once more over a new connection, then judges what was recorded. Whether the request with this id arrived.
    pub(crate) fn settle(&mut self, id: u64, verdict: &mut Verdict) -> bool {
        let (after, request) = self.plain();
        let mut client = self.connect();
        client.send(&request);
        verdict.expect_echo("the request on a new connection", after, client.answer("GET"));
        self.judge(verdict);
        self.ledger.runs(id) > 0
    }

    /// Judges what was recorded.
    pub(crate) fn judge(&mut self, verdict: &mut Verdict) {
        let log = self.origin.log_when(|log| self.ledger.can_judge(log), self.subject.patience);
        verdict.found.extend(self.ledger.judge(&log));
    }
}

/// The trials of a proxy that a row has for itself, added to `tally`.
fn tried_on(
    mut subject: Subject,
    world: &World,
    ledger: &mut Ledger,
    tally: Tally,
    run: impl FnOnce(&mut Trials<'_>),
) -> Tally {
    let origin = &world.origin;
    let first = origin.log().connections;
    let mut trials = Trials { subject: &subject, world, origin, ledger, tally };
    run(&mut trials);
    let mut tally = trials.tally;
    let open = origin.log().open_from(first);
    if let Some(trouble) = subject.trouble(open).or_else(|| subject.stop()) {
        tally.count("the process", Verdict::of(Unsafe::Broken, &trouble));
    }
    tally
}

impl Verdict {
    /// That this was found.
    pub(crate) fn of(kind: Unsafe, what: &str) -> Verdict {
        Verdict { found: vec![(kind, what.to_owned())], unexpected: None }
    }

    /// This request must be answered with its own answer.
    pub(crate) fn expect_echo(&mut self, what: &str, id: u64, answer: Answer) {
        self.expect_body(what, id, b"", answer);
    }

    /// As [`Verdict::expect_echo`], on a connection that may have been closed before.
    pub(crate) fn expect_echo_or_end(&mut self, what: &str, id: u64, answer: Answer) {
        match answer {
            Answer::Broken(message, End::Fin | End::Reset) if message.head.headers.is_empty() => {}
            answer => self.expect_echo(what, id, answer),
        }
    }

    pub(crate) fn expect_body(&mut self, what: &str, id: u64, body: &[u8], answer: Answer) {
        match answer {
            Answer::Whole(message) => match message.head.id() {
                Some(answered) if answered == id && message.head.status() == 200 && message.body == body => {}
                Some(answered) if answered == id => {
                    let bytes = message.body.len();
                    self.found.push((Unsafe::Truncated, format!("{what}: {bytes} bytes of {}", body.len())));
                }
                Some(answered) => {
                    self.found.push((Unsafe::Crossed, format!("{what} ({id}) got the answer of {answered}")));
                }
                None if message.head.status() >= 500 => {
                    self.unexpected = Some(format!("{what} got {}", message.head.status()));
                }
                None => self.found.push((
                    Unsafe::Crossed,
                    format!("{what} got a {} that is not the origin's", message.head.status()),
                )),
            },
            Answer::Broken(message, End::Silence) => {
                let bytes = message.body.len();
                self.found.push((Unsafe::Lost, format!("{what} got nothing more after {bytes} bytes")));
            }
            Answer::Broken(_, end) => self.unexpected = Some(format!("{what} ended in {end:?}")),
            Answer::Malformed(why) => self.found.push((Unsafe::Crossed, format!("{what} got {why}"))),
        }
    }

    /// What became of the request with this id, by what the client sees.
    fn fate(&mut self, client: &mut Client, id: u64, method: &str, means: Option<&Meant>) -> Option<Fate> {
        match client.answer(method) {
            Answer::Whole(message) if message.head.id() == Some(id) => {
                let body = means.map_or(&b""[..], |meant| &meant.body);
                if means.is_some() && method != "HEAD" && message.body != body {
                    self.found.push((Unsafe::Truncated, format!("{} bytes", message.body.len())));
                }
                Some(Fate::Forwarded)
            }
            Answer::Whole(message) if message.head.id().is_some() => {
                self.found.push((Unsafe::Crossed, format!("the answer of {:?}", message.head.id())));
                None
            }
            Answer::Whole(message) => {
                let status = message.head.status();
                if !message.head.values("connection").any(|value| value.eq_ignore_ascii_case(b"close")) {
                    return Some(Fate::Answered(status));
                }
                match client.end() {
                    (bytes, End::Fin) if bytes.is_empty() => Some(Fate::Refused(status)),
                    (bytes, end) => {
                        let left = bytes.escape_ascii();
                        self.unexpected = Some(format!("{status}, then {end:?} after {left:?}"));
                        None
                    }
                }
            }
            Answer::Broken(_, end) => {
                self.unexpected = Some(format!("no answer, {end:?}"));
                None
            }
            Answer::Malformed(why) => {
                self.found.push((Unsafe::Crossed, why));
                None
            }
        }
    }

    /// What a client got whose request was answered with odd bytes.
    fn reply(&mut self, id: u64, answer: Answer, means: Option<&(u16, Vec<u8>)>) -> Option<Reply> {
        match answer {
            Answer::Whole(message) => match message.head.id() {
                None => Some(Reply::Status(message.head.status())),
                Some(answered) if answered != id => {
                    self.found.push((Unsafe::Crossed, format!("{id} got the answer of {answered}")));
                    None
                }
                Some(_) => {
                    let (status, bytes) = (message.head.status(), message.body.len());
                    if means.is_none_or(|meant| *meant != (status, message.body)) {
                        self.found
                            .push((Unsafe::Truncated, format!("{status} with {bytes} bytes told as whole")));
                    }
                    Some(Reply::Whole)
                }
            },
            Answer::Broken(message, End::Silence) => {
                let bytes = message.body.len();
                self.found.push((Unsafe::Lost, format!("nothing more after {bytes} bytes")));
                None
            }
            Answer::Broken(..) => Some(Reply::Cut),
            Answer::Malformed(why) => {
                self.found.push((Unsafe::Crossed, why));
                None
            }
        }
    }
}

fn with_id(bytes: &[u8], id: u64) -> Vec<u8> {
    let mark = b"{id}";
    let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) else { return bytes.to_vec() };
    [&bytes[..at], id.to_string().as_bytes(), &bytes[at + mark.len()..]].concat()
}
