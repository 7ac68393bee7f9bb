//! Upstreams that fail for everything, and then do not: RES-10.

use std::ops::RangeInclusive;

use policy::limits::CONNECT_RETRIES_DEFAULT;

use crate::{
    client::{Answer, Client, End},
    ledger::{Meant, Unsafe, Verdict},
    recorder::{Habit, Then},
    subject::Setting,
    trial::Trials,
};

/// Requests at a time.
const AT_ONCE: usize = 8;

/// How many times so many come while all fail, and how many times when none does any more.
const ROUNDS: usize = 12;

/// The most attempts that one request may make: one, and what is allowed where nobody is there.
const ATTEMPTS_MAX: usize = 1 + CONNECT_RETRIES_DEFAULT as usize;

/// An upstream that answers 503, breaks, or is not there gets hardly more load than one that is well, and no more than that
/// when it is well again.
pub(crate) fn storm(trials: &mut Trials<'_>) {
    let answers_503: Habit = |origin| {
        origin.body()?;
        let id = origin.message.head.id().unwrap_or_default();
        let answer = format!("HTTP/1.1 503 Service Unavailable\r\nX-Id: {id}\r\nContent-Length: 0\r\n\r\n");
        origin.send(answer.as_bytes())?;
        Ok(Then::KeepAlive)
    };
    let answers_garbage: Habit = |origin| {
        origin.body()?;
        origin.send(b"503 for everything\r\n\r\n")?;
        Ok(Then::Close)
    };
    let ends: Habit = |origin| {
        origin.body()?;
        Ok(Then::Close)
    };
    let resets: Habit = |_| Ok(Then::Reset);
    for (name, habit, told) in [
        ("503 for everything", answers_503, 503..=503),
        ("garbage for everything", answers_garbage, 502..=502),
        ("FIN for everything", ends, 503..=503),
        ("RST for everything", resets, 503..=503),
    ] {
        trials.with(&Setting::default(), |trials| {
            trials.origin.treat_all(Some(habit));
            rounds(trials, name, "/t", Some(told));
            trials.origin.treat_all(None);
            rounds(trials, &format!("well again after {name}"), "/t", None);
        });
    }
    if trials.subject.kind.has_routes() {
        nobody_there(trials);
    }
}

/// Attempts that reach nobody are seen by no recorder; Ringway counts them itself.
fn nobody_there(trials: &mut Trials<'_>) {
    let attempts = "envoy_cluster_upstream_cx_total";
    trials.with(&Setting::default(), |trials| {
        let three = &trials.world.three;
        three.iter().for_each(|origin| origin.kill());
        let before = trials.subject.metric(attempts);
        rounds(trials, "nobody there", "/three", Some(503..=503));
        let made = trials.subject.metric(attempts) - before;
        let most = ROUNDS * AT_ONCE * ATTEMPTS_MAX;
        let mut verdict = Verdict::default();
        if made > most as f64 {
            verdict.found.push((Unsafe::Amplified, format!("{made} connects in place of {most} at most")));
        }
        trials.tally.count("connects to where nobody is", verdict);
        three.iter().for_each(|origin| origin.revive());
        rounds(trials, "well again after nobody was there", "/three", None);
    });
}

/// Requests of which all are told to have failed so, or all are answered.
fn rounds(trials: &mut Trials<'_>, name: &str, target: &str, told: Option<RangeInclusive<u16>>) {
    for round in 0..ROUNDS {
        if trials.has_enough() {
            return;
        }
        let (method, body) = [("GET", ""), ("POST", "hello"), ("PUT", "hello")][round % 3];
        let mut asked = Vec::new();
        for _ in 0..AT_ONCE {
            let id = trials.enter(Meant::new(method, target, body.as_bytes()));
            let mut client = trials.connect();
            let length = body.len();
            let head = format!(
                "{method} {target} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: {length}\r\n\r\n"
            );
            client.send((head + body).as_bytes());
            asked.push((id, client));
        }
        let mut verdicts: Vec<Verdict> =
            asked.iter_mut().map(|(id, client)| verdict(*id, client, method, body, told.as_ref())).collect();
        let mut last = Verdict::default();
        trials.judge(&mut last);
        let most = if told.is_some() { ATTEMPTS_MAX } else { 1 };
        for ((id, _), verdict) in asked.iter().zip(&mut verdicts) {
            let runs = trials.ledger.runs(*id);
            if runs > most {
                verdict.found.push((Unsafe::Amplified, format!("{runs} attempts for one {method}")));
            }
        }
        verdicts.push(last);
        verdicts.into_iter().for_each(|verdict| trials.tally.count(name, verdict));
    }
}

fn verdict(
    id: u64,
    client: &mut Client,
    method: &str,
    body: &str,
    told: Option<&RangeInclusive<u16>>,
) -> Verdict {
    let mut verdict = Verdict::default();
    match (client.answer(method), told) {
        (answer, None) => verdict.expect_body(method, id, body.as_bytes(), answer),
        (Answer::Whole(message), Some(told)) if told.contains(&message.head.status()) => {}
        (Answer::Whole(message), Some(_)) => verdict.unexpected = Some(message.head.status().to_string()),
        (Answer::Broken(_, End::Silence), Some(_)) => {
            verdict.found.push((Unsafe::Lost, "silence".to_owned()));
        }
        (Answer::Broken(_, end), Some(_)) => verdict.unexpected = Some(format!("{end:?}")),
        (Answer::Malformed(why), Some(_)) => verdict.found.push((Unsafe::Crossed, why)),
    }
    verdict
}
