//! Instructions per request beside what is recorded of them: a request must not become dearer unnoticed.
//!
//! The record is a file of JSON lines, one for each (subject, workload) and change, the last one in force; each says why it
//! differs from the one before. It is written only by `--record`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Percent by which a count may exceed the recorded one. On one machine counts repeat to some parts in a thousand, also
/// while others use it.
const OVER_PERCENT_MAX: u64 = 2;

/// One recorded count.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Count {
    pub(super) subject: String,
    pub(super) workload: String,
    pub(super) instructions_per_request: u64,
    pub(super) commit: String,
    /// Processor and C library: both choose among implementations of what is called most, so another machine has other
    /// counts, and should be told from a change.
    pub(super) machine: String,
    /// Why it is not what it was before.
    pub(super) reason: String,
}

/// Why a count does not pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the record of instructions, {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("the record of instructions, {path}, line {line}: {source}")]
    Malformed { path: String, line: usize, source: serde_json::Error },
    #[error("{subject}, {workload}: nothing is recorded; record it: {how}")]
    Unrecorded { subject: String, workload: String, how: String },
    #[error(
        "{subject}, {workload}: {now} instructions per request, {over:.1} % above the recorded {then} (at most 2 %); \
         make it cheaper, or record why it is worth it: {how}{elsewhere}"
    )]
    Dearer {
        subject: String,
        workload: String,
        now: u64,
        then: u64,
        over: f64,
        how: String,
        elsewhere: String,
    },
}

/// What a count that passes is worth saying.
#[derive(Debug, PartialEq)]
pub(super) struct Passed {
    pub(super) recorded: u64,
    /// In percent; below 0 it has become cheaper.
    pub(super) over: f64,
}

/// Compares a count with the one recorded last.
pub(super) fn check(path: &Path, count: &Count) -> Result<Passed, Refused> {
    let Count { subject, workload, instructions_per_request: now, machine, .. } = count.clone();
    let how = format!("bench/run --callgrind {subject} --workload {workload} --record REASON");
    let is_same = |other: &Count| other.subject == subject && other.workload == workload;
    let Some(recorded) = read(path)?.into_iter().rfind(is_same) else {
        return Err(Refused::Unrecorded { subject, workload, how });
    };
    let then = recorded.instructions_per_request;
    let over = (now as f64 / then as f64 - 1.0) * 100.0;
    if now * 100 > then * (100 + OVER_PERCENT_MAX) {
        let elsewhere = if machine == recorded.machine {
            String::new()
        } else {
            format!("\n(it was recorded on another machine, {}; this is {machine})", recorded.machine)
        };
        return Err(Refused::Dearer { subject, workload, now, then, over, how, elsewhere });
    }
    Ok(Passed { recorded: then, over })
}

/// What is said of this machine.
pub(super) fn machine(processor: &str) -> String {
    let libc = Command::new("getconf").arg("GNU_LIBC_VERSION").stderr(Stdio::null()).output();
    let libc =
        libc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{processor}, {libc}")
}

/// Appends a count.
pub(super) fn record(path: &Path, count: &Count) -> io::Result<()> {
    let mut line = serde_json::to_string(count)?;
    line.push('\n');
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

fn read(path: &Path) -> Result<Vec<Count>, Refused> {
    let name = || path.display().to_string();
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Refused::Unreadable { path: name(), source }),
        Ok(text) => text,
    };
    let parse = |(number, line)| {
        serde_json::from_str(line).map_err(|source| Refused::Malformed {
            path: name(),
            line: number + 1,
            source,
        })
    };
    text.lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percent_more_than_the_last_record_pass_and_more_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instructions.jsonl");
        let count = |workload: &str, instructions_per_request, machine: &str| Count {
            subject: String::from("ringway-epoll"),
            workload: workload.to_owned(),
            instructions_per_request,
            commit: String::from("abc"),
            machine: machine.to_owned(),
            reason: String::from("first"),
        };
        let check = |now| check(&path, &count("get-32", now, "here"));
        assert!(matches!(check(1), Err(Refused::Unrecorded { .. })));
        for (workload, instructions) in [("get-32", 5000), ("get-32", 10_000), ("get-64k", 7)] {
            record(&path, &count(workload, instructions, "here")).unwrap();
        }
        assert_eq!(check(10_000).unwrap(), Passed { recorded: 10_000, over: 0.0 });
        assert!(check(10_200).is_ok());
        assert!(check(4000).unwrap().over < -59.0);
        let refused = check(10_201).unwrap_err().to_string();
        assert!(refused.contains("2.0 % above the recorded 10000"), "{refused}");
        assert!(
            refused.ends_with("--callgrind ringway-epoll --workload get-32 --record REASON"),
            "{refused}"
        );
        record(&path, &count("get-32", 9000, "elsewhere")).unwrap();
        let refused = check(10_000).unwrap_err().to_string();
        assert!(refused.contains("another machine, elsewhere; this is here"), "{refused}");
        fs::write(&path, "{}\n").unwrap();
        assert!(matches!(check(1), Err(Refused::Malformed { line: 1, .. })));
    }
}
