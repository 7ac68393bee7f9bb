//! Instructions per request: exact where wall-clock time is not. The subject runs twice under valgrind with different
//! numbers of requests; the difference of instructions by the difference of requests leaves out start and end.
//!
//! Instructions of the kernel are not seen, and valgrind offers no io_uring worth its name: count `ringway-epoll`.

use std::fs;
use std::path::Path;

use super::subject::Subject;
use super::workload::Workload;
use super::{Bench, Error, print_json};
use crate::load::Until;

/// Requests of the shorter and of the longer run.
const REQUESTS: [u64; 2] = [2_000, 6_000];

/// Prints one JSON object for each workload.
pub(super) fn run(bench: &Bench<'_>, subject: Subject) -> Result<(), Error> {
    for workload in &bench.arguments.workload {
        let [short, long] = [count(bench, subject, *workload, 0)?, count(bench, subject, *workload, 1)?];
        let requests = long.requests.saturating_sub(short.requests).max(1);
        print_json(&serde_json::json!({
            "subject": subject.name(),
            "workload": workload.name(),
            "instructions_per_request": long.instructions.saturating_sub(short.instructions) / requests,
        }))?;
    }
    Ok(())
}

struct Count {
    instructions: u64,
    requests: u64,
}

fn count(bench: &Bench<'_>, subject: Subject, workload: Workload, run: usize) -> Result<Count, Error> {
    let folder = bench.folder.path().join(format!("callgrind-{}-{run}", workload.name()));
    fs::create_dir_all(&folder)?;
    let out = format!("--callgrind-out-file={}/%p", folder.display());
    let wrapper = ["valgrind", "--tool=callgrind", "--trace-children=yes", &out].map(str::to_owned);
    eprintln!("{}, {}: {} requests under valgrind", subject.name(), workload.name(), REQUESTS[run]);
    let mut running = bench.launch(subject, &wrapper)?;
    let before = bench.counts.requests();
    bench.put_load(&running, workload, Until::Answers(REQUESTS[run]))?;
    let requests = bench.counts.requests() - before;
    if let Some(process) = &mut running.process {
        // The count is written when the subject leaves.
        process.end()?;
    }
    Ok(Count { instructions: total_of(&folder)?, requests })
}

/// The sum over all processes' files of what each calls its `totals:` (`summary:` in older versions).
fn total_of(folder: &Path) -> Result<u64, Error> {
    let mut total = 0;
    for file in fs::read_dir(folder)? {
        let text = fs::read_to_string(file?.path())?;
        let line =
            text.lines().find_map(|l| l.strip_prefix("totals:").or_else(|| l.strip_prefix("summary:")));
        total += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    if total == 0 {
        return Err(Error::NoCount { folder: folder.to_owned() });
    }
    Ok(total)
}
