//! Subjects measured beside one another, on equal work.
//!
//! Each round starts every subject anew in random order, one of them twice (that pair shows what a difference must
//! exceed to be one). The subject has one core for itself, origin and load share another. First equal work is proved,
//! then each workload is warmed up and measured: processor time of all threads of the subject from the kernel, divided
//! by the requests the origin counted. A single error ends the comparison: there are no numbers for wrong answers.

mod arguments;
mod balance;
mod config;
mod count;
mod foreign;
mod gate;
mod measure;
mod plan;
mod proof;
mod record;
mod report;
mod stand;
mod subject;
mod workload;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bench::load::Errors;
use bench::load::request::Random;

pub(crate) use self::arguments::Arguments;
pub(crate) use self::gate::Refused;
pub(crate) use self::proof::Difference;
use self::record::Record;
use self::stand::{Cores, Stand};
use self::subject::Subject;
use self::workload::Setup;
use crate::process;

/// Measures and prints, as the arguments say.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let baseline = arguments.baseline()?;
    foreign::look_for(&arguments.with)?;
    if let Some(subject) = &arguments.callgrind {
        return count::instructions(&Stand::start(arguments, Cores::Together)?, subject);
    }
    let apart = Stand::start(arguments, Cores::Apart)?;
    if let Some(subject) = &arguments.syscalls {
        return count::system_calls(&apart, subject);
    }
    let seed = arguments.seed.unwrap_or_else(clock_seed);
    let mut order = Random { state: seed };
    let mut subjects: Vec<(&Subject, String)> =
        arguments.subjects.iter().map(|s| (s, s.name.clone())).collect();
    subjects.push((baseline, report::twin_of(&baseline.name)));
    print_json(&apart.conditions(seed)?)?;
    let mixed = Stand::start(arguments, Cores::Mixed)?;
    let workloads = arguments.workloads();
    let (mut records, mut foreign_records) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        // Subjects take turns within a setup, so that those that are compared are measured within the same minute.
        for group in workloads.chunk_by(|a, b| a.setup() == b.setup()) {
            shuffle(&mut order, &mut subjects);
            let stand = if group[0].setup() == Setup::Workers { &mixed } else { &apart };
            for (subject, name) in &subjects {
                eprintln!("round {} of {}, {}: {name}", round + 1, arguments.rounds, names(group));
                let running = stand.launch(subject, group[0].setup(), &[])?;
                for workload in group.iter().copied().filter(|w| w.is_for(subject.kind)) {
                    let record =
                        undisturbed(arguments.others_max, || stand.measure(&running, workload, name, round))?;
                    print_json(&record)?;
                    records.push(record);
                    // They need no twin.
                    let is_first = *name == subject.name;
                    for tool in
                        arguments.with.iter().filter(|tool| is_first && foreign::can(**tool, workload))
                    {
                        let record = foreign::measure(stand, &running, workload, *tool, round)?;
                        print_json(&record)?;
                        foreign_records.push(record);
                    }
                }
            }
        }
    }
    eprint!("{}{}", report::tables(&records, &workloads, &baseline.name), foreign::table(&foreign_records));
    Ok(())
}

/// Tries for a measurement that others do not disturb.
const TRIES_MAX: usize = 10;
/// How long others are looked at before one.
const LOOK: Duration = Duration::from_millis(500);
/// Looks for a moment without them.
const LOOKS_MAX: usize = 240;

/// Measures when others have little of the machine, and again when they had more meanwhile; the last try counts in any
/// case, and its record says what they had. What decides is not the result.
fn undisturbed(
    others_max: Option<f64>,
    measure: impl Fn() -> Result<Record, Error>,
) -> Result<Record, Error> {
    let Some(most) = others_max.map(|percent| percent / 100.0) else { return measure() };
    let cores = process::cores_count()? as f64;
    for _ in 1..TRIES_MAX {
        for _ in 0..LOOKS_MAX {
            let before = process::machine_time()?;
            std::thread::sleep(LOOK);
            let busy = process::machine_time()? - before;
            if busy.as_secs_f64() / LOOK.as_secs_f64() / cores <= most {
                break;
            }
        }
        let record = measure()?;
        if record.others <= most {
            return Ok(record);
        }
    }
    measure()
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{subject} could not be started from {program}: {source}", program = program.display())]
    Start { subject: String, program: PathBuf, source: io::Error },
    #[error("{subject} gave no good answer within {waited:?}; it said:\n{said}")]
    NotReady { subject: String, waited: Duration, said: String },
    #[error("{subject} ended before it was ready; it said:\n{said}")]
    Ended { subject: String, said: String },
    #[error("{subject} does not do the same work: {source}")]
    Unequal { subject: String, source: Difference },
    #[error("{subject}, {workload}: {wrong}")]
    Wrong { subject: String, workload: String, wrong: Wrong },
    #[error("no subject is called {name}; there are: {subjects}")]
    NoBaseline { name: String, subjects: String },
    #[error("two subjects are called {name}; give one another name: NAME=KIND[@PROGRAM]")]
    SameName { name: String },
    #[error("{tool} gave no count for {subject}")]
    NoCount { subject: String, tool: &'static str },
    #[error("{tool} is not on the PATH; deploy/setup.sh load gets it")]
    NoTool { tool: &'static str },
    #[error("{tool} did not measure {subject}; it said:\n{said}")]
    ToolFailed { tool: &'static str, subject: String, said: String },
    #[error("{}", .0.iter().map(Refused::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refused>),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What went wrong under a load.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// Not every answer was a 200: how many there were of each status, and what else went wrong.
    Answers(Vec<(u16, u64)>, Errors),
    /// So many connections were closed by the subject, which must keep them.
    Closed(u64),
    /// The origin counted other requests than the load.
    Miscounted { requests: u64, answers: u64 },
    /// Upstream connections were not kept.
    NoKeepAlive { opened: u64, downstream: usize },
    /// Errors as a foreign tool counts them.
    Foreign { tool: &'static str, errors: u64 },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Answers(statuses, errors) => {
                let statuses = statuses.iter().map(|(status, count)| format!("{count} × {status}"));
                let errors = errors.by_name().into_iter().filter(|(_, count)| *count > 0);
                let all: Vec<String> =
                    statuses.chain(errors.map(|(name, count)| format!("{count} {name}"))).collect();
                write!(f, "not every answer was good: {}", all.join(", "))
            }
            Wrong::Closed(count) => write!(f, "{count} connections were closed that should have been kept"),
            Wrong::Miscounted { requests, answers } => {
                write!(f, "the origin counted {requests} requests, the load {answers} answers")
            }
            Wrong::NoKeepAlive { opened, downstream } => {
                write!(f, "{opened} upstream connections for {downstream} downstream ones, no keep-alive")
            }
            Wrong::Foreign { tool, errors } => write!(f, "{tool} counted {errors} errors"),
        }
    }
}

fn names(workloads: &[workload::Workload]) -> String {
    workloads.iter().map(|workload| workload.name()).collect::<Vec<_>>().join(" ")
}

/// Fisher and Yates's permutation.
fn shuffle<T>(random: &mut Random, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, (random.draw() % (last as u64 + 1)) as usize);
    }
}

fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|t| t.as_nanos() as u64).unwrap_or(0)
}

fn print_json(value: &impl serde::Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_and_comes_again_from_its_seed() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..20).collect();
            shuffle(&mut Random { state: seed }, &mut items);
            items
        };
        let mut sorted = shuffled(7);
        assert_eq!(sorted, shuffled(7));
        assert_ne!(sorted, shuffled(8));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<u32>>());
    }
}
