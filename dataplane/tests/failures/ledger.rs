//! The ledger: what became of every request, and whether that is safe.
//!
//! A trial is one input with everything that follows from it: the answers at the client, the requests at the recorder,
//! and a request over a new connection after it, which must be answered with its own answer. Every request has an id.
//! What was recorded is looked at after each trial, and once more when the proxy has ended, so that nothing comes late.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use crate::recorder::{Log, Recorded};

/// An outcome that must never be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unsafe {
    /// A request at the origin that no client sent, or one that says something else than what was sent.
    Smuggled,
    /// Bytes at the origin that no strict reader takes for a request, or that should have been refused.
    Ambiguous,
    /// A request that arrived with headers which end at a proxy, or without some that do not.
    Altered,
    /// A request that ran more often than it was sent.
    Doubled,
    /// An answer to another request.
    Crossed,
    /// A part that was told as the whole.
    Truncated,
    /// No answer, and no sign that there will be none.
    Lost,
    /// An upstream that fails got more attempts than a request may make.
    Amplified,
    /// The proxy ended, panicked, or kept what it should have given back.
    Broken,
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unsafe::Smuggled => "smuggled",
            Unsafe::Ambiguous => "ambiguous",
            Unsafe::Altered => "altered",
            Unsafe::Doubled => "doubled",
            Unsafe::Crossed => "crossed",
            Unsafe::Truncated => "truncated",
            Unsafe::Lost => "lost",
            Unsafe::Amplified => "amplified",
            Unsafe::Broken => "broken",
        })
    }
}

/// How one trial went.
#[derive(Default)]
pub(crate) struct Verdict {
    /// What must never be, and what it was.
    pub(crate) found: Vec<(Unsafe, String)>,
    /// Safe, but not what the row says that Ringway does.
    pub(crate) unexpected: Option<String>,
}

/// One row's trials on one proxy.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) trials: usize,
    pub(crate) unsafe_trials: usize,
    pub(crate) unexpected_trials: usize,
    /// What was seen, each with its trial; the first few.
    pub(crate) unsafe_findings: Vec<String>,
    pub(crate) unexpected_findings: Vec<String>,
    /// Counts of safe outcomes that a row wants shown.
    pub(crate) notes: Vec<String>,
    /// What could not be tried on this machine, and why.
    pub(crate) not_tried: Vec<String>,
    /// How long all of it took, and its slowest trial.
    pub(crate) took: Duration,
    pub(crate) slowest: Option<(Duration, String)>,
    last: Option<Instant>,
}

/// Findings kept of one row: enough to see what they have in common.
const FINDINGS_MAX: usize = 6;

impl Tally {
    /// No trial yet; the first begins now.
    pub(crate) fn begin() -> Tally {
        Tally { last: Some(Instant::now()), ..Tally::default() }
    }

    /// Counts one trial.
    pub(crate) fn count(&mut self, trial: &str, verdict: Verdict) {
        self.trials += 1;
        let now = Instant::now();
        let took = self.last.replace(now).map_or(Duration::ZERO, |last| now - last);
        if self.slowest.as_ref().is_none_or(|(slowest, _)| took > *slowest) {
            self.slowest = Some((took, trial.to_owned()));
        }
        self.unsafe_trials += usize::from(!verdict.found.is_empty());
        self.unexpected_trials += usize::from(verdict.found.is_empty() && verdict.unexpected.is_some());
        for (kind, what) in verdict.found.iter().take(FINDINGS_MAX.saturating_sub(self.unsafe_findings.len()))
        {
            self.unsafe_findings.push(format!("{trial}: UNSAFE {kind}: {what}"));
        }
        if let Some(what) = verdict.unexpected.filter(|_| self.unexpected_findings.len() < FINDINGS_MAX) {
            self.unexpected_findings.push(format!("{trial}: unexpected: {what}"));
        }
    }
}

/// A header line: name and value.
pub(crate) type Line = (&'static str, &'static [u8]);

/// What a client meant by the request with an id.
#[derive(Clone, Default)]
pub(crate) struct Meant {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: Vec<u8>,
    /// Names that must not be among its headers.
    pub(crate) without: &'static [&'static str],
    /// Lines that must be among its headers.
    pub(crate) with: &'static [Line],
    /// Names that must not be among its trailers.
    pub(crate) without_trailers: &'static [&'static str],
    /// Its body is malformed, so no origin may take it for whole.
    pub(crate) breaks: bool,
}

impl Meant {
    pub(crate) fn new(method: &str, target: &str, body: &[u8]) -> Meant {
        Meant { method: method.into(), target: target.into(), body: body.into(), ..Meant::default() }
    }

    /// In what a recorded request differs from it. A body that broke off on a connection that ended is a part of it.
    fn differs(&self, recorded: &Recorded, is_ended: bool) -> Option<(Unsafe, String)> {
        let message = &recorded.message;
        let [method, target, _] = &message.head.first;
        // A target in absolute form says the same as long as it names the host.
        let host = message.head.values("host").next().unwrap_or_default();
        let (scheme, rest) = target.split_at_checked(b"http://".len()).unwrap_or_default();
        let is_absolute = scheme.eq_ignore_ascii_case(b"http://");
        let path = rest.strip_prefix(host).filter(|_| is_absolute).unwrap_or(target);
        if (&method[..], path) != (self.method.as_bytes(), self.target.as_bytes()) {
            return Some((Unsafe::Smuggled, format!("{} {}", method.escape_ascii(), target.escape_ascii())));
        }
        if let Some(name) = self.without.iter().find(|name| message.head.has(name)) {
            return Some((Unsafe::Altered, format!("the header {name}")));
        }
        let is_there = |(name, value): &&Line| message.head.values(name).any(|known| known == *value);
        if let Some((name, _)) = self.with.iter().find(|line| !is_there(line)) {
            return Some((Unsafe::Altered, format!("no header {name} as it was sent")));
        }
        let is_trailer = |name: &&&str| {
            message.trailers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
        };
        if let Some(name) = self.without_trailers.iter().find(is_trailer) {
            return Some((Unsafe::Altered, format!("the trailer {name}")));
        }
        match message.is_whole {
            true if self.breaks => Some((Unsafe::Truncated, "a body that was never whole".to_owned())),
            true if message.body != self.body => {
                Some((Unsafe::Truncated, format!("a body of {} bytes", message.body.len())))
            }
            false if !is_ended => Some((Unsafe::Lost, "half a request on an open connection".to_owned())),
            _ => None,
        }
    }
}

/// Everything that was sent over one proxy.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By id; `None` is for bytes that have no meaning to rely on, or lie behind such.
    meant: HashMap<u64, Option<Meant>>,
    /// How often each ran.
    runs: HashMap<u64, usize>,
    last_id: u64,
    /// How much of the recorder's log was looked at.
    requests_seen: usize,
    faults_seen: usize,
}

/// Methods whose requests may run twice (RFC 9110 §9.2.2).
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

/// Ids begin here, so that all have as many digits as `{id}` has characters, or more.
const FIRST_ID: u64 = 1000;

impl Ledger {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id = (self.last_id + 1).max(FIRST_ID);
        self.last_id
    }

    /// How many digits the next id has.
    pub(crate) fn next_id_bytes(&self) -> usize {
        (self.last_id + 1).max(FIRST_ID).to_string().len()
    }

    /// A request with this id is about to be sent.
    pub(crate) fn enter(&mut self, id: u64, meant: Option<Meant>) {
        self.meant.insert(id, meant);
    }

    /// How often the request with this id ran, as far as was judged.
    pub(crate) fn runs(&self, id: u64) -> usize {
        self.runs.get(&id).copied().unwrap_or_default()
    }

    /// Whether what arrived last is whole, or its connection over: then it can be judged.
    pub(crate) fn can_judge(&self, log: &Log) -> bool {
        let is_over =
            |recorded: &Recorded| recorded.message.is_whole || log.ended.contains(&recorded.connection);
        log.requests[self.requests_seen..].iter().all(is_over)
    }

    /// Looks at what was recorded since the last look.
    pub(crate) fn judge(&mut self, log: &Log) -> Vec<(Unsafe, String)> {
        let faults = log.faults[self.faults_seen..].iter().map(|what| (Unsafe::Ambiguous, what.clone()));
        let mut found: Vec<_> = faults.collect();
        for recorded in &log.requests[self.requests_seen..] {
            let [method, target, _] = &recorded.message.head.first;
            let said = format!("{} {}", method.escape_ascii(), target.escape_ascii());
            let Some((id, meant)) = recorded.id.and_then(|id| Some((id, self.meant.get(&id)?))) else {
                found.push((Unsafe::Smuggled, format!("{said}, which nobody sent")));
                continue;
            };
            let Some(meant) = meant else {
                found.push((Unsafe::Ambiguous, format!("{said}, which should have been refused")));
                continue;
            };
            if let Some((kind, what)) = meant.differs(recorded, log.ended.contains(&recorded.connection)) {
                found.push((kind, format!("{} {} arrived with {what}", meant.method, meant.target)));
            }
            let runs = self.runs.entry(id).or_default();
            *runs += 1;
            if *runs > 1 && !IDEMPOTENT.contains(&&*meant.method) {
                found.push((Unsafe::Doubled, format!("{said} ran {runs} times")));
            }
        }
        (self.requests_seen, self.faults_seen) = (log.requests.len(), log.faults.len());
        found
    }
}
