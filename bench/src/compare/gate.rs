//! Instructions per request beside what is recorded of them: a request must not become dearer unnoticed.
//!
//! The record is a file of JSON lines, one for each (subject, workload) and change, the last one in force; each says why it
//! differs from the one before. It is written only by `--record`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Percent by which a count may exceed the recorded one. Counts repeat to a few parts in a thousand: what varies is how
/// many requests one turn of the loop finds.
const OVER_PERCENT_MAX: u64 = 2;

/// One recorded count.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Count {
    pub(super) subject: String,
    pub(super) workload: String,
    pub(super) instructions_per_request: u64,
    pub(super) commit: String,
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
         make it cheaper, or record why it is worth it: {how}"
    )]
    Dearer { subject: String, workload: String, now: u64, then: u64, over: f64, how: String },
}

/// What a count that passes is worth saying.
#[derive(Debug, PartialEq)]
pub(super) struct Passed {
    pub(super) recorded: u64,
    /// In percent; below 0 it has become cheaper.
    pub(super) over: f64,
}

/// Compares a count with the one recorded last.
pub(super) fn check(path: &Path, subject: &str, workload: &str, now: u64) -> Result<Passed, Refused> {
    let how = format!("bench/run --callgrind {subject} --workload {workload} --record REASON");
    let names = |subject: &str, workload: &str| (subject.to_owned(), workload.to_owned());
    let recorded =
        read(path)?.into_iter().rfind(|count| count.subject == subject && count.workload == workload);
    let Some(recorded) = recorded else {
        let (subject, workload) = names(subject, workload);
        return Err(Refused::Unrecorded { subject, workload, how });
    };
    let then = recorded.instructions_per_request;
    let over = (now as f64 / then as f64 - 1.0) * 100.0;
    if now * 100 > then * (100 + OVER_PERCENT_MAX) {
        let (subject, workload) = names(subject, workload);
        return Err(Refused::Dearer { subject, workload, now, then, over, how });
    }
    Ok(Passed { recorded: then, over })
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
        let check = |now| check(&path, "ringway-epoll", "get-32", now);
        assert!(matches!(check(1), Err(Refused::Unrecorded { .. })));
        for (workload, instructions_per_request) in [("get-32", 5000), ("get-32", 10_000), ("get-64k", 7)] {
            let count = Count {
                subject: String::from("ringway-epoll"),
                workload: workload.to_owned(),
                instructions_per_request,
                commit: String::from("abc"),
                reason: String::from("first"),
            };
            record(&path, &count).unwrap();
        }
        assert_eq!(check(10_000).unwrap(), Passed { recorded: 10_000, over: 0.0 });
        assert!(check(10_200).is_ok());
        assert!(check(4000).unwrap().over < -59.0);
        let refused = check(10_201).unwrap_err().to_string();
        assert!(refused.contains("2.0 % above the recorded 10000"), "{refused}");
        assert!(refused.contains("--callgrind ringway-epoll --workload get-32 --record REASON"), "{refused}");
        fs::write(&path, "{}\n").unwrap();
        assert!(matches!(check(1), Err(Refused::Malformed { line: 1, .. })));
    }
}
