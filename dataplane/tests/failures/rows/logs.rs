//! A log that nobody takes: RES-11.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::channel,
    thread,
};

use crate::{
    apart,
    ledger::{Meant, Unsafe, Verdict},
    subject::{Setting, Subject},
    trial::Trials,
};

/// Requests whose lines fill a pipe of 64 KiB and everything that a proxy keeps for it.
const MANY: usize = 5_000;

/// Requests whose lines do not fit into what is left of a small disk.
const SOME: usize = 300;

/// How many are sent before the first is answered.
const AT_ONCE: usize = 50;

/// Lines after which there is room for more of them on their way.
const ROOM: usize = 1_000;

/// What does not reach its sink is counted and holds nobody up; what follows is written when the sink is well again, and no
/// line is mixed up with another.
pub(crate) fn stalled_sinks(trials: &mut Trials<'_>) {
    pipe(trials);
    standard_output(trials);
    full_device(trials);
    full_disk(trials);
}

/// A named pipe that is open and not read.
fn pipe(trials: &mut Trials<'_>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()), "mkfifo");
    let reader = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path).expect("a pipe of ours");
    let setting = Setting { access_log: Some(path.clone()), ..Setting::default() };
    trials.with(&setting, |trials| {
        let many = if trials.subject.kind.is_thorough() { MANY } else { MANY / 2 };
        let sent = requests(trials, "a pipe that nobody reads", many);
        // Another end of it, so that it is always open to somebody.
        let reading = File::open(&path).expect("a pipe of ours");
        drop(reader);
        resumes(trials, "a pipe", sent, reading);
    });
}

/// Whoever opens a pipe to read does not wait for somebody who writes.
const O_NONBLOCK: i32 = 0o4000;

/// Standard output, a pipe as most supervisors have it.
fn standard_output(trials: &mut Trials<'_>) {
    if !trials.subject.kind.is_thorough() {
        return;
    }
    let setting = Setting { access_log: Some(PathBuf::from("-")), ..Setting::default() };
    trials.with(&setting, |trials| {
        let sent = requests(trials, "standard output that nobody reads", MANY);
        resumes(trials, "standard output", sent, trials.subject.process.take_stdout());
    });
}

/// A device that is always full.
fn full_device(trials: &mut Trials<'_>) {
    let setting = Setting { access_log: Some(PathBuf::from("/dev/full")), ..Setting::default() };
    trials.with(&setting, |trials| {
        let sent = requests(trials, "a full device", SOME).len();
        let mut verdict = Verdict::default();
        if trials.subject.kind.is_thorough() && !trials.subject.soon(|subject| dropped(subject) == sent) {
            let dropped = dropped(trials.subject);
            verdict.found.push((Unsafe::Lost, format!("{dropped} of {sent} lines count as dropped")));
        }
        trials.tally.count("lines for a full device", verdict);
    });
}

/// A disk of 64 KiB of which another file takes half, until that goes.
fn full_disk(trials: &mut Trials<'_>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "mount -t tmpfs -o size=64k tmpfs \"$0\" && head -c 32768 /dev/zero >\"$0/other\"";
    let runner = match apart::with_mounts(script, folder.path()) {
        Ok(runner) => runner,
        Err(why) => return trials.tally.not_tried.push(format!("a full disk: {why}")),
    };
    let path = folder.path().join("log");
    let setting = Setting { runner, access_log: Some(path.clone()), ..Setting::default() };
    trials.with(&setting, |trials| {
        let sent = requests(trials, "a full disk", SOME);
        if !trials.subject.kind.is_thorough() {
            return;
        }
        let mut verdict = Verdict::default();
        if !trials.subject.soon(|subject| dropped(subject) > 0) {
            verdict.found.push((Unsafe::Lost, "no line counts as dropped".to_owned()));
        }
        trials.tally.count("lines for a full disk", verdict);
        let inside = |path: &Path| {
            let root = format!("/proc/{}/root", trials.subject.process.id().as_raw_nonzero());
            Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
        };
        let (log, other) = (inside(&path), inside(&folder.path().join("other")));
        fs::remove_file(other).expect("the file of another");
        let more = requests(trials, "a disk with room again", AT_ONCE);
        let read = || fs::read_to_string(&log).unwrap_or_default();
        let last = line_of(more.last().copied().unwrap_or_default());
        let is_there = trials.subject.soon(|_| read().lines().any(|line| line.contains(&last)));
        let lines = read().lines().map(str::to_owned).collect();
        expect_lines(trials, "a disk", is_there, lines, sent.len() + more.len());
    });
}

/// What waited and what comes is read from now on, all but what counts as dropped.
fn resumes(trials: &mut Trials<'_>, name: &str, sent: Vec<u64>, sink: impl Read + Send + 'static) {
    if !trials.subject.kind.is_thorough() {
        return;
    }
    let (sender, receiver) = channel();
    thread::spawn(move || {
        BufReader::new(sink).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    let next = || receiver.recv_timeout(trials.subject.patience).ok();
    let mut lines: Vec<String> = (0..ROOM).map_while(|_| next()).collect();
    let more = requests(trials, &format!("{name} that is read again"), AT_ONCE);
    let last = line_of(more.last().copied().unwrap_or_default());
    while !lines.last().is_some_and(|line| line.contains(&last)) {
        let Some(line) = receiver.recv_timeout(trials.subject.patience).ok() else { break };
        lines.push(line);
    }
    let is_there = lines.last().is_some_and(|line| line.contains(&last));
    expect_lines(trials, name, is_there, lines, sent.len() + more.len());
}

/// Every line that was not dropped is there, whole and once; a torn one is alone on its line.
fn expect_lines(trials: &mut Trials<'_>, name: &str, is_there: bool, lines: Vec<String>, sent: usize) {
    let mut verdict = Verdict::default();
    let begin = "{\"time_unix_ms\":";
    let is_whole =
        |line: &&String| line.starts_with(begin) && line.matches(begin).count() == 1 && line.ends_with('}');
    let whole: BTreeSet<&str> =
        lines.iter().filter(is_whole).filter_map(|line| line.split("\"target\":\"").nth(1)).collect();
    let torn = lines.iter().filter(|line| !line.is_empty() && !is_whole(line)).count();
    let dropped = dropped(trials.subject);
    if !is_there {
        verdict.found.push((Unsafe::Lost, "what came last is not logged".to_owned()));
    }
    if whole.len() + dropped != sent {
        let whole = whole.len();
        verdict.found.push((Unsafe::Lost, format!("{sent} lines, {whole} written and {dropped} dropped")));
    }
    if torn > 1 || dropped == 0 {
        verdict.found.push((Unsafe::Truncated, format!("{torn} lines are torn, {dropped} dropped")));
    }
    trials.tally.count(&format!("lines for {name}"), verdict);
    trials.tally.notes.push(format!("{name}: {dropped} of {sent} lines dropped"));
}

/// How many lines count as dropped.
fn dropped(subject: &Subject) -> usize {
    subject.metric("ringway_access_log_dropped") as usize
}

/// What only the line of this request has.
fn line_of(id: u64) -> String {
    format!("\"target\":\"/log/{id}\"")
}

/// So many requests, all of which are answered; gives their ids.
fn requests(trials: &mut Trials<'_>, name: &str, count: usize) -> Vec<u64> {
    let mut sent = Vec::new();
    while sent.len() < count && !trials.has_enough() {
        let mut client = trials.connect();
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..AT_ONCE {
            let target = format!("/log/{}", trials.ledger.next_id() + 1);
            let id = trials.enter(Meant::new("GET", &target, b""));
            bytes.extend(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
            ids.push(id);
        }
        client.send(&bytes);
        for id in &ids {
            let mut verdict = Verdict::default();
            verdict.expect_echo("a request", *id, client.answer("GET"));
            trials.tally.count(name, verdict);
        }
        sent.extend(ids);
    }
    let mut verdict = Verdict::default();
    trials.judge(&mut verdict);
    trials.tally.count("what the origin got", verdict);
    sent
}
