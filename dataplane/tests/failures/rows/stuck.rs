//! A worker that does not go on: RES-13.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    apart::Stopped,
    client::{Answer, Client, End},
    ledger::{Meant, Unsafe, Verdict},
    subject::Setting,
    trial::Trials,
};

/// Connections that are there, and that come then.
const CONNECTIONS: usize = 24;

/// Time between two that come before it is known that a worker is stuck.
const PAUSE: Duration = Duration::from_millis(25);

/// One of two workers is stopped: it is said, whoever comes is served by the other, and nobody is lost when it goes on.
pub(crate) fn stuck_worker(trials: &mut Trials<'_>) {
    let setting = Setting { workers: Some(2), ..Setting::default() };
    for worker in [0, 1] {
        trials.with(&setting, |trials| stop_one(trials, worker));
    }
}

fn stop_one(trials: &mut Trials<'_>, worker: usize) {
    let mut there: Vec<(u64, Client)> = (0..CONNECTIONS).map(|_| ask(trials)).collect();
    for (id, client) in &mut there {
        expect(trials, "before the stop", *id, client);
    }
    let thread = thread_named(trials, &format!("worker-{worker}"));
    let stopped = match Stopped::thread(thread) {
        Ok(stopped) => stopped,
        Err(why) => return trials.tally.not_tried.push(format!("a thread that is stopped: {why}")),
    };
    let begun = Instant::now();
    for (id, client) in &mut there {
        *id = send(trials, client);
    }
    let mut verdict = Verdict::default();
    let patience = trials.subject.patience;
    let mut early: Vec<(u64, Client)> = Vec::new();
    let said = loop {
        // They come until it is known, as fast as it is looked whether it is.
        early.push(ask(trials));
        match trials.subject.process.says("a worker is stuck", PAUSE) {
            Err(_) if begun.elapsed() < patience => {}
            said => break said,
        }
    };
    match said {
        Ok(line) if line.contains(&format!("worker={worker}")) => {}
        Ok(why) | Err(why) => verdict.found.push((Unsafe::Broken, why)),
    }
    trials.tally.count("that it is said", verdict);
    let said_after = begun.elapsed();
    for _ in 0..CONNECTIONS {
        if trials.tally.unsafe_trials > 0 {
            // Each of them waits long.
            break;
        }
        let (id, mut client) = ask(trials);
        expect(trials, "who comes while one is stuck", id, &mut client);
    }
    // Given to it before anybody knew, or in its queue and not looked at yet.
    let waiting = |early: &[(u64, Client)]| early.iter().filter(|(_, client)| !client.has_answer()).count();
    let mut verdict = Verdict::default();
    if !trials.subject.soon(|_| waiting(&early) <= GIVEN_MAX) {
        let (count, all) = (waiting(&early), early.len());
        verdict.found.push((Unsafe::Lost, format!("{count} of {all} wait for the worker that is stuck")));
    }
    trials.tally.count("who came before it was known", verdict);
    let there_waiting = waiting(&there);
    trials.tally.notes.push(format!(
        "worker {worker} said to be stuck after {said_after:.1?}; {there_waiting} of {CONNECTIONS} connections were its own, \
         {} of {} were given to it before that was seen",
        waiting(&early),
        early.len()
    ));
    drop(stopped);
    for (id, client) in there.iter_mut().chain(&mut early) {
        expect(trials, "who waited for it", *id, client);
    }
    let mut verdict = Verdict::default();
    if let Err(why) = trials.subject.process.says("a worker that was stuck goes on", patience) {
        verdict.found.push((Unsafe::Broken, why));
    }
    trials.judge(&mut verdict);
    trials.tally.count("that it goes on", verdict);
    for _ in 0..CONNECTIONS {
        let (id, mut client) = ask(trials);
        expect(trials, "who comes afterwards", id, &mut client);
    }
}

/// Connections that a worker may have been given when it stopped: of one that is only a moment late nothing is concluded.
const GIVEN_MAX: usize = 4;

/// A new connection with a request on it.
fn ask(trials: &mut Trials<'_>) -> (u64, Client) {
    let mut client = trials.connect();
    (send(trials, &mut client), client)
}

fn send(trials: &mut Trials<'_>, client: &mut Client) -> u64 {
    let id = trials.enter(Meant::new("GET", "/t", b""));
    client.send(format!("GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
    id
}

/// Any end but the answer is a loss: nothing is wrong with the connection or the request.
fn expect(trials: &mut Trials<'_>, what: &str, id: u64, client: &mut Client) {
    let mut verdict = Verdict::default();
    match client.answer("GET") {
        Answer::Broken(_, end @ (End::Fin | End::Reset)) => {
            verdict.found.push((Unsafe::Lost, format!("the connection ended in {end:?}")));
        }
        answer => verdict.expect_echo(what, id, answer),
    }
    trials.tally.count(what, verdict);
}

/// The kernel's number of one of the proxy's threads.
fn thread_named(trials: &Trials<'_>, name: &str) -> u32 {
    let tasks = format!("/proc/{}/task", trials.subject.process.id().as_raw_nonzero());
    let numbers = fs::read_dir(tasks).expect("a process").flatten();
    let is_it = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let found = numbers.into_iter().find(is_it).and_then(|entry| entry.file_name().to_str()?.parse().ok());
    found.unwrap_or_else(|| panic!("no thread {name}"))
}
