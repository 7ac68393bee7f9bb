//! What is counted rather than timed: instructions and system calls per request.
//!
//! Instructions are exact and repeatable where a clock is not: the subject runs twice under valgrind with different
//! numbers of requests, and the difference of instructions by the difference of requests leaves out start and end. It
//! shares its core with the load, so that neither runs while the other does: on two cores the counts differ by three
//! percent with how busy the machine is, on one by three thousandths. The kernel's instructions are not seen. Valgrind
//! offers no io_uring worth its name (count `ringway-epoll`), does not know the relay's system calls, cannot run Envoy's
//! allocator, and gets no count from nginx's worker.
//!
//! System calls are counted by strace while it slows the subject down. A slow subject finds more work ready at once, so
//! what is printed is what it does under full load; compare only numbers of the same workload.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bench::load::Until;

use super::gate::{self, Count};
use super::stand::{Stand, commit, processor};
use super::subject::Subject;
use super::workload::Workload;
use super::{Error, print_json};
use crate::process::Process;

/// Requests of the shorter and of the longer run under valgrind: their difference is what is counted. With fewer, what the
/// first turns of the loop find makes a percent.
const REQUESTS: [u64; 2] = [4_000, 24_000];
/// Requests under strace.
const TRACED_REQUESTS: u64 = 20_000;

/// Prints one JSON object with the instructions per request for each workload; checks or records them when that is asked
/// for.
pub(super) fn instructions(stand: &Stand<'_>, subject: &Subject) -> Result<(), Error> {
    let mut refused = Vec::new();
    for workload in stand.arguments.workloads() {
        let [short, long] = [0, 1].map(|run| run_under_valgrind(stand, subject, workload, run));
        let (short, long) = (short?, long?);
        if long <= short {
            return Err(Error::NoCount { subject: subject.name.clone(), tool: "valgrind" });
        }
        let count = Count {
            subject: subject.name.clone(),
            workload: workload.name(),
            instructions_per_request: (long - short) / (REQUESTS[1] - REQUESTS[0]),
            commit: commit(),
            machine: gate::machine(&processor()),
            reason: stand.arguments.record.clone().unwrap_or_default(),
        };
        print_json(&serde_json::json!({
            "subject": count.subject,
            "workload": count.workload,
            "instructions_per_request": count.instructions_per_request,
        }))?;
        let (path, now) = (&stand.arguments.instructions, count.instructions_per_request);
        if stand.arguments.record.is_some() {
            gate::record(path, &count)?;
        } else if stand.arguments.check {
            match gate::check(path, &count) {
                Ok(passed) => {
                    let (recorded, over) = (passed.recorded, passed.over);
                    eprintln!(
                        "{}: {now} instructions per request, {over:+.1} % of {recorded}",
                        count.workload
                    );
                }
                Err(error) => refused.push(error),
            }
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(Error::Refused(refused)) }
}

/// Instructions of a whole run, from start to end.
fn run_under_valgrind(
    stand: &Stand<'_>,
    subject: &Subject,
    workload: Workload,
    run: usize,
) -> Result<u64, Error> {
    let folder = stand.folder.path().join(format!("callgrind-{}-{run}", workload.name()));
    fs::create_dir_all(&folder)?;
    let out = format!("--callgrind-out-file={}/%p", folder.display());
    let wrapper = ["valgrind", "--tool=callgrind", "--trace-children=yes", &out].map(str::to_owned);
    eprintln!("{}, {}: {} requests under valgrind", subject.name, workload.name(), REQUESTS[run]);
    let mut running = stand.launch(subject, workload.setup(), &wrapper)?;
    let _held = stand.hold_idle(&running, workload)?;
    let load = workload.load(running.address, &running.plan, Until::Requests(REQUESTS[run]));
    stand.put(&running, workload, &load)?;
    if let Some(process) = &mut running.process {
        // The count is written when the subject leaves.
        process.end()?;
    }
    total_of(&folder)?.ok_or(Error::NoCount { subject: subject.name.clone(), tool: "valgrind" })
}

/// The sum over all processes' files of what each calls its `totals:` (`summary:` in older versions).
fn total_of(folder: &Path) -> Result<Option<u64>, Error> {
    let mut total = None;
    for file in fs::read_dir(folder)? {
        let text = fs::read_to_string(file?.path())?;
        let line =
            text.lines().find_map(|l| l.strip_prefix("totals:").or_else(|| l.strip_prefix("summary:")));
        if let Some(count) = line.and_then(|count| count.trim().parse::<u64>().ok()) {
            total = Some(total.unwrap_or(0) + count);
        }
    }
    Ok(total)
}

/// Prints one JSON object with the system calls per request for each workload, by name.
pub(super) fn system_calls(stand: &Stand<'_>, subject: &Subject) -> Result<(), Error> {
    let no_count = || Error::NoCount { subject: subject.name.clone(), tool: "strace" };
    for workload in stand.arguments.workloads() {
        let running = stand.launch(subject, workload.setup(), &[])?;
        let _held = stand.hold_idle(&running, workload)?;
        let load = workload.load(running.address, &running.plan, Until::Requests(TRACED_REQUESTS));
        stand.put(&running, workload, &load)?;
        let file = stand.folder.path().join(format!("strace-{}", workload.name()));
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-U", "name,calls", "-o"]).arg(&file);
        for pid in running.process.as_ref().ok_or_else(no_count)?.family() {
            command.arg("-p").arg(pid.to_string());
        }
        // It says on stderr that it is attached, which is nobody's business here.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let cores = [stand.arguments.load_core];
        let mut strace = Process::start(&mut command, &cores, &cores).map_err(|source| Error::Start {
            subject: String::from("strace"),
            program: "strace".into(),
            source,
        })?;
        running.process.as_ref().ok_or_else(no_count)?.wait_until_traced()?;
        stand.put(&running, workload, &load)?;
        strace.end()?;
        let calls = calls_in(&fs::read_to_string(&file)?);
        let per_request = |calls: u64| (1e3 * calls as f64 / TRACED_REQUESTS as f64).round() / 1e3;
        let total = calls.iter().map(|(_, calls)| calls).sum();
        if total == 0 {
            return Err(no_count());
        }
        let by_name: serde_json::Map<String, serde_json::Value> =
            calls.into_iter().map(|(name, calls)| (name, per_request(calls).into())).collect();
        print_json(&serde_json::json!({
            "subject": subject.name,
            "workload": workload.name(),
            "system_calls_per_request": per_request(total),
            "by_name": by_name,
        }))?;
    }
    Ok(())
}

/// Name and count of each system call in a summary of strace's with the columns name and calls.
fn calls_in(summary: &str) -> Vec<(String, u64)> {
    let rows = summary.lines().filter_map(|line| {
        let (name, calls) = line.trim().split_once(char::is_whitespace)?;
        Some((name.to_owned(), calls.trim().parse().ok()?))
    });
    rows.filter(|(name, _)| name != "total").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_gives_each_call_but_not_their_total() {
        let summary = "syscall              calls\n---------------- ---------\nread                    20\n\
                       epoll_wait               3\n---------------- ---------\ntotal                   23\n";
        assert_eq!(calls_in(summary), [("read".to_owned(), 20), ("epoll_wait".to_owned(), 3)]);
    }

    #[test]
    fn instructions_are_summed_over_the_files_of_all_processes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(total_of(folder.path()).unwrap().is_none());
        fs::write(folder.path().join("1"), "version: 1\nsummary: 30\n").unwrap();
        fs::write(folder.path().join("2"), "version: 1\ntotals: 12\n").unwrap();
        fs::write(folder.path().join("3"), "cut off").unwrap();
        assert_eq!(total_of(folder.path()).unwrap(), Some(42));
    }
}
