//! What was asked and what became of it, and the verdict about that.

use std::{cell::RefCell, collections::BTreeMap, io::ErrorKind};

use sim::{
    Ask, Loss, Verdict,
    http::{Message, hash},
    origin::LEDGER_ID,
};

use crate::{plan::Plan, world::AnyOrigin};

/// All requests of a world.
#[derive(Default)]
pub(crate) struct Ledger {
    asked: RefCell<BTreeMap<String, Asked>>,
    story: RefCell<Story>,
}

struct Asked {
    method: String,
    body: String,
}

/// What happened, in words, printed when the world fails.
#[derive(Default)]
pub(crate) struct Story(Vec<String>);

/// How a request was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct How {
    /// The connection had carried another before.
    pub(crate) is_reused: bool,
    /// The proxy's listener had gone, or it drained, when the request was sent.
    pub(crate) had_left: bool,
    /// The same, when it was over.
    pub(crate) has_left: bool,
}

impl Ledger {
    /// Notes a request before it is sent.
    pub(crate) fn ask(&self, ask: &Ask) {
        let asked = Asked { method: ask.method.clone(), body: hash(ask.body.as_deref().unwrap_or_default()) };
        let before = self.asked.borrow_mut().insert(ask.id.clone(), asked);
        assert!(before.is_none(), "an id is given once");
    }

    pub(crate) fn tell(&self, now: u64, what: String) {
        self.story.borrow_mut().0.push(format!("{:>12.6} ms  {what}", now as f64 / 1e6));
    }

    /// Judges what came of a request.
    pub(crate) fn judge(&self, plan: &Plan, ask: &Ask, how: How, verdict: &Verdict) {
        match verdict {
            Verdict::Cross(answer) => panic!("{}: the answer to another request: {answer:?}", ask.id),
            Verdict::Truncated(answer) => panic!("{}: a body that is not the one sent: {answer:?}", ask.id),
            Verdict::Lost(Loss::Malformed(malformed)) => panic!("{}: no answer at all: {malformed}", ask.id),
            Verdict::Lost(Loss::Ended(ErrorKind::TimedOut)) if !plan.clock_jumps => {
                panic!("{}: no answer in all the time there is", ask.id)
            }
            Verdict::Ok(_) | Verdict::Refused(_) | Verdict::Lost(_) => {}
        }
        if plan.is_whole {
            self.judge_whole(ask, how, verdict);
        }
    }

    /// Where nothing breaks, every request has its answer. But one whose upstream connection was closed when it was sent must
    /// not be repeated unless that is harmless, and is told so; and one that is sent when the proxy goes finds nobody.
    fn judge_whole(&self, ask: &Ask, how: How, verdict: &Verdict) {
        match verdict {
            Verdict::Ok(_) => {}
            Verdict::Refused(answer) => {
                // Of a body that comes apart from its head the end may be taken, whatever its length.
                let has_body =
                    ask.chunk_bytes.is_some() || ask.body.as_ref().is_some_and(|body| !body.is_empty());
                let is_harmless = ask.method != "POST" && !has_body;
                let reason = answer.header("x-ringway-reason").unwrap_or_default();
                let is_closed = matches!(reason, "upstream-closed" | "upstream-reset");
                assert!(answer.status() == 503 && is_closed && !is_harmless, "{}: {answer:?}", ask.id);
            }
            // It may be asked again, and harms nobody.
            Verdict::Lost(Loss::Left) => {}
            Verdict::Lost(loss) => {
                // A listener that closes breaks what it has not accepted; nothing else that came before is harmed.
                let is_gone = how.had_left || how.has_left && !how.is_reused;
                assert!(is_gone, "{}: {how:?}: lost by {loss:?}", ask.id);
            }
            Verdict::Cross(_) | Verdict::Truncated(_) => {}
        }
    }

    /// Judges what the origins got: requests as they were asked, a POST once.
    pub(crate) fn judge_origins(&self, origins: &[AnyOrigin]) {
        let mut runs: BTreeMap<String, usize> = BTreeMap::new();
        for request in origins.iter().flat_map(requests) {
            let id = request.header(LEDGER_ID).unwrap_or_default();
            self.judge_request(id, &request);
            *runs.entry(id.to_owned()).or_default() += 1;
        }
        for (id, count) in runs {
            let is_post = self.asked.borrow()[&id].method == "POST";
            assert!(!is_post || count == 1, "{id}: a POST ran {count} times");
        }
    }

    fn judge_request(&self, id: &str, request: &Message) {
        let asked = self.asked.borrow();
        let Some(asked) = asked.get(id) else { panic!("a request that nobody asked: {request:?}") };
        let method = request.start.split(' ').next().unwrap_or_default();
        assert_eq!((method, hash(&request.body)), (&asked.method[..], asked.body.clone()), "{id}");
    }
}

/// What an origin got.
fn requests(origin: &AnyOrigin) -> Vec<Message> {
    let connections = match origin {
        AnyOrigin::Streams(origin) => return origin.requests(),
        AnyOrigin::Connections(origin) => origin.connections(),
    };
    for malformed in connections.iter().filter_map(|record| record.malformed.as_ref()) {
        // One that was given up.
        assert_eq!(malformed.what, "ends in the middle of a message", "{}", malformed.near);
    }
    connections.into_iter().flat_map(|record| record.requests).collect()
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the clients and the configuration did:");
            self.0.iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}
