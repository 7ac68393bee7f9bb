//! Load generators of others, run as their users run them: what they say of a subject beside what we say.
//!
//! They are closed loops here, on the load's core. Processor time and requests are counted as for our own load.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bench::http2::grpc_message;
use clap::ValueEnum;

use super::report::median;
use super::stand::{Running, Stand};
use super::workload::{self, GRPC_PATH, Workload};
use super::{Error, Wrong};
use crate::process::Process;

/// A load generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Tool {
    Wrk,
    H2load,
    Fortio,
}

/// What a tool says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    requests_per_second: f64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    /// Answers other than 200, and failures.
    errors: u64,
}

/// One measurement with a tool.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct ForeignRecord {
    tool: &'static str,
    subject: String,
    workload: String,
    round: usize,
    /// Counted by the origin.
    requests: u64,
    cpu_us_per_request: Option<f64>,
    /// As the tool says.
    requests_per_second: f64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Wrk => "wrk",
            Tool::H2load => "h2load",
            Tool::Fortio => "fortio",
        }
    }

    /// Where it is.
    fn find(self) -> Result<PathBuf, Error> {
        let path = env::var_os("PATH").unwrap_or_default();
        let found =
            env::split_paths(&path).map(|folder| folder.join(self.name())).find(|file| file.is_file());
        found.ok_or(Error::NoTool { tool: self.name() })
    }

    fn arguments(self, workload: Workload, seconds: f64, url: &str) -> Vec<String> {
        let connections = workload.connections_count();
        // wrk and h2load take whole seconds.
        let whole = seconds.ceil().max(1.0) as u64;
        let text = match self {
            Tool::Wrk => format!("-t1 -c{connections} -d{whole}s --latency {url}"),
            Tool::H2load if workload.is_http2() => {
                format!("-t1 -c{connections} -m{} -D{whole} {url}", workload.streams_count())
            }
            Tool::H2load => format!("--h1 -t1 -c{connections} -D{whole} {url}"),
            Tool::Fortio => format!(
                "load -c {connections} -qps 0 -t {seconds}s -r 0.00001 -p 50,99 -loglevel error -json - {url}"
            ),
        };
        text.split(' ').map(str::to_owned).collect()
    }

    /// What its output says; `None` when that is not understood.
    fn read(self, output: &str) -> Option<Said> {
        match self {
            Tool::Wrk => read_wrk(output),
            Tool::H2load => read_h2load(output),
            Tool::Fortio => read_fortio(output),
        }
    }
}

/// Whether all tools are there, before time is spent on the first.
pub(super) fn look_for(tools: &[Tool]) -> Result<(), Error> {
    tools.iter().try_for_each(|tool| tool.find().map(|_| ()))
}

/// Whether a tool can put this workload on a subject: one request, again and again, as fast as can be.
pub(super) fn can(tool: Tool, workload: Workload) -> bool {
    match workload {
        Workload::Get32 | Workload::Get128 | Workload::Get64k | Workload::Prefixes => true,
        Workload::Http2Shared | Workload::Http2Alone | Workload::GrpcUnary => tool == Tool::H2load,
        _ => false,
    }
}

/// Has a tool put one workload on a running subject.
pub(super) fn measure(
    stand: &Stand<'_>,
    running: &Running,
    workload: Workload,
    tool: Tool,
    round: usize,
) -> Result<ForeignRecord, Error> {
    let asked = match workload {
        Workload::Get64k => "bytes/65536",
        Workload::GrpcUnary => GRPC_PATH,
        _ => "bytes/128",
    };
    let url = format!("http://{}{}", running.address, running.plan.path(asked));
    let mut arguments = tool.arguments(workload, stand.arguments.seconds, &url);
    if workload == Workload::GrpcUnary {
        let message = stand.folder.path().join("message");
        fs::write(&message, grpc_message(&workload::grpc_message()))?;
        for header in ["content-type: application/grpc", "te: trailers"] {
            arguments.extend([String::from("-H"), header.to_owned()]);
        }
        arguments.extend([String::from("-d"), message.to_string_lossy().into_owned()]);
    }
    let before = running.process.as_ref().map(Process::processor_time).transpose()?;
    let requests_before = stand.counts.requests();
    let output = Command::new(tool.find()?).args(&arguments).stdin(Stdio::null()).output()?;
    let requests = stand.counts.requests() - requests_before;
    let after = running.process.as_ref().map(Process::processor_time).transpose()?;
    let (name, workload) = (running.subject.name.clone(), workload.name());
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(said) = tool.read(&text) else {
        let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        return Err(Error::ToolFailed { tool: tool.name(), subject: name, said });
    };
    if said.errors > 0 || requests == 0 {
        let wrong = Wrong::Foreign { tool: tool.name(), errors: said.errors };
        return Err(Error::Wrong { subject: name, workload, wrong });
    }
    let cpu = after.zip(before).map(|(after, before)| after.since(&before));
    Ok(ForeignRecord {
        tool: tool.name(),
        subject: name,
        workload,
        round,
        requests,
        cpu_us_per_request: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests as f64),
        requests_per_second: said.requests_per_second,
        p50_us: said.p50_us,
        p99_us: said.p99_us,
    })
}

/// The table of all of them, medians over the rounds.
pub(super) fn table(records: &[ForeignRecord]) -> String {
    let mut rows: Vec<(&str, &str, &str)> =
        records.iter().map(|r| (r.workload.as_str(), r.tool, r.subject.as_str())).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str("\nthe tools of others, closed loops; what each says, and the CPU counted beside it\n");
        text.push_str("workload   tool    subject         CPU µs/req    req/s  p50 µs  p99 µs\n");
    }
    for (workload, tool, subject) in rows {
        let of = |value: fn(&ForeignRecord) -> Option<f64>, digits: usize| {
            let own =
                records.iter().filter(|r| r.workload == workload && r.tool == tool && r.subject == subject);
            median(own.filter_map(value).collect()).map_or(String::from("-"), |m| format!("{m:.digits$}"))
        };
        text.push_str(&format!(
            "{workload:<10} {tool:<7} {subject:<15} {:>10} {:>8} {:>7} {:>7}\n",
            of(|r| r.cpu_us_per_request, 2),
            of(|r| Some(r.requests_per_second), 0),
            of(|r| r.p50_us, 0),
            of(|r| r.p99_us, 0),
        ));
    }
    text
}

fn read_wrk(output: &str) -> Option<Said> {
    let after = |start: &str| output.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let failures = after("Socket errors:").map_or(0, |text| {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum()
    });
    let bad = after("Non-2xx or 3xx responses:").and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(Said {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p50_us: microseconds(after("50%")?),
        p99_us: microseconds(after("99%")?),
        errors: failures + bad,
    })
}

fn read_h2load(output: &str) -> Option<Said> {
    let line = |start: &str| output.lines().find(|line| line.starts_with(start));
    let number_before = |line: &str, word: &str| -> Option<u64> {
        line.split(',').find_map(|part| part.strip_suffix(word)?.split_whitespace().last()?.parse().ok())
    };
    let requests = line("requests:")?;
    let failed = number_before(requests, " failed")? + number_before(requests, " errored")?;
    let codes = line("status codes:")?;
    let bad = number_before(codes, " 4xx")? + number_before(codes, " 5xx")?;
    let rate = line("finished in")?.split(',').find_map(|part| part.trim().strip_suffix(" req/s"))?;
    // It tells no percentiles.
    Some(Said { requests_per_second: rate.parse().ok()?, p50_us: None, p99_us: None, errors: failed + bad })
}

fn read_fortio(output: &str) -> Option<Said> {
    let said: serde_json::Value = serde_json::from_str(output).ok()?;
    let percentile = |of: f64| {
        let all = said["DurationHistogram"]["Percentiles"].as_array()?;
        let found = all.iter().find(|p| p["Percentile"].as_f64() == Some(of))?;
        Some(found["Value"].as_f64()? * 1e6)
    };
    let bad = said["RetCodes"].as_object()?.iter().filter(|(code, _)| *code != "200");
    Some(Said {
        requests_per_second: said["ActualQPS"].as_f64()?,
        p50_us: percentile(50.0),
        p99_us: percentile(99.0),
        errors: bad.filter_map(|(_, count)| count.as_u64()).sum(),
    })
}

/// A time as wrk writes it: `401.00us`, `1.02ms`, `2.00s`.
fn microseconds(text: &str) -> Option<f64> {
    let (number, factor) = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.trim().parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read_with_its_units_and_its_errors() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%   52.00us\n     90%    2.94ms\n\
                    \x20    99%   12.29ms\n  65894 requests in 1.03s, 14.08MB read\nRequests/sec:  63850.59\n";
        let expected =
            Said { requests_per_second: 63850.59, p50_us: Some(52.0), p99_us: Some(12_290.0), errors: 0 };
        assert_eq!(Tool::Wrk.read(text), Some(expected));
        let bad = format!(
            "{text}  Socket errors: connect 0, read 1, write 0, timeout 2\n  Non-2xx or 3xx responses: 4\n"
        );
        assert_eq!(Tool::Wrk.read(&bad).map(|said| said.errors), Some(7));
        assert_eq!(Tool::Wrk.read("unable to connect"), None);
    }

    #[test]
    fn h2load_is_read_with_its_errors() {
        let text = "finished in 1.00s, 61238.00 req/s, 13.08MB/s\n\
                    requests: 61238 total, 61246 started, 61238 done, 61230 succeeded, 5 failed, 2 errored, 0 timeout\n\
                    status codes: 61230 2xx, 0 3xx, 1 4xx, 3 5xx\n";
        let expected = Said { requests_per_second: 61238.0, p50_us: None, p99_us: None, errors: 11 };
        assert_eq!(Tool::H2load.read(text), Some(expected));
    }

    #[test]
    fn fortio_is_read_with_its_errors() {
        let text = r#"{"ActualQPS": 9661.5, "RetCodes": {"200": 90, "503": 2, "-1": 1}, "DurationHistogram":
            {"Percentiles": [{"Percentile": 50, "Value": 0.0005}, {"Percentile": 99, "Value": 0.001}]}}"#;
        let expected =
            Said { requests_per_second: 9661.5, p50_us: Some(500.0), p99_us: Some(1000.0), errors: 3 };
        assert_eq!(Tool::Fortio.read(text), Some(expected));
    }
}
