//! `ringway-load`: puts HTTP/1.1 load on a server, and tells the latency its users would see.

mod target;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::load::{self, Load, Outcome, Pace, Protocol, Requests, Until, request};
use clap::{Parser, ValueEnum};

use crate::target::Target;

/// Puts HTTP/1.1 load on a server and tells the latency its users would see.
///
/// With --rate, requests have a schedule that no slow answer delays, and latency counts from the moment a request was
/// meant to be sent: a server that stalls for a second shows in the latency of every request of that second. Without it,
/// each connection sends when it has its answer, which finds what a server can do, but hides its stalls.
#[derive(Parser)]
#[command(name = "ringway-load", version, after_long_help = EXAMPLES)]
struct Arguments {
    #[arg(help = "http://HOST[:PORT][/PATH]")]
    url: Target,
    /// Requests per second [default: as many as the connections can]
    #[arg(short, long, value_parser = positive)]
    rate: Option<f64>,
    /// How long
    #[arg(short, long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// This many requests, however long it takes
    #[arg(short = 'n', long, conflicts_with = "duration")]
    requests: Option<u64>,
    /// Connections, and so requests at a time
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Each request on a connection of its own
    #[arg(long)]
    new_connections: bool,
    /// [default: GET, POST with a body]
    #[arg(short = 'X', long)]
    method: Option<String>,
    /// `name: value`; may be given again
    #[arg(short = 'H', long, value_parser = header)]
    header: Vec<(String, String)>,
    /// A body of this many bytes
    #[arg(long, value_name = "BYTES", conflicts_with = "body")]
    body_bytes: Option<usize>,
    /// A file that is the body
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Longest time that an answer may take
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The same load for this long beforehand, not counted
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Which latencies to tell
    #[arg(short, long, value_delimiter = ',', default_values = ["50", "90", "99", "99.9", "99.99"], value_parser = percentile)]
    percentiles: Vec<f64>,
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

const EXAMPLES: &str = "Examples:
  ringway-load http://127.0.0.1:8000/ --rate 5000                    latency at 5,000 requests a second
  ringway-load http://127.0.0.1:8000/                                what can it do?
  ringway-load http://orders:9000/pay -r 200 -d 1m -H 'x-a: 1' --body pay.json -o json
  ringway-load http://127.0.0.1:8000/ -r 500 --new-connections -n 10000

The exit code is 0 when every request had a good answer (a status below 400), else 1.
One thread does it all. `late` tells how late it sent: when that is a large part of the latency, the machine or the
number of connections is the limit, not the server.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments).and_then(|outcome| {
        let text = match arguments.output {
            Output::Text => text(&arguments, &outcome),
            Output::Json => json(&arguments, &outcome).to_string(),
        };
        writeln!(io::stdout(), "{}", text.trim_end())?;
        Ok(outcome)
    }) {
        Ok(outcome) if outcome.errors.all() == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringway-load: {}: {error}", arguments.url);
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<Outcome> {
    let body = match (&arguments.body, arguments.body_bytes) {
        (Some(file), _) => Some(std::fs::read(file)?),
        (None, Some(length)) => Some(vec![b'x'; length]),
        (None, None) => None,
    };
    let method = arguments.method.as_deref().unwrap_or(if body.is_some() { "POST" } else { "GET" });
    let mut headers = vec![(String::from("user-agent"), String::from("ringway-load"))];
    headers.extend(arguments.header.iter().cloned());
    if arguments.new_connections {
        headers.push((String::from("connection"), String::from("close")));
    }
    let (host, path) = (&arguments.url.host, &arguments.url.path);
    let load = Load {
        target: arguments.url.resolve()?,
        connections_count: usize::from(arguments.connections),
        protocol: Protocol::Http1,
        requests: Requests::one(request::build(method, host, path, &headers, body.as_deref())),
        pace: arguments.rate.map_or(Pace::Closed, Pace::Open),
        until: arguments.requests.map_or(Until::Elapsed(arguments.duration), Until::Requests),
        is_connecting_anew: arguments.new_connections,
        answer_max: arguments.timeout,
    };
    if !arguments.warm_up.is_zero() {
        load::run(&Load { until: Until::Elapsed(arguments.warm_up), ..load.clone() })?;
    }
    load::run(&load)
}

fn text(arguments: &Arguments, outcome: &Outcome) -> String {
    let pace = match arguments.rate {
        Some(rate) => format!("open loop, {rate} requests/s"),
        None => String::from("closed loop"),
    };
    let seconds = outcome.elapsed.as_secs_f64();
    let mut text = format!("{}: {pace}, {} connections\n", arguments.url, arguments.connections);
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        "answers   {} good in {seconds:.2} s, {:.0}/s",
        outcome.answers,
        outcome.answers as f64 / seconds
    );
    let _ = writeln!(
        text,
        "statuses  {}",
        list(outcome.statuses.iter().map(|(status, n)| format!("{status}: {n}")))
    );
    let errors = outcome.errors.by_name().into_iter().filter(|(_, count)| *count > 0);
    let _ = writeln!(text, "errors    {}", list(errors.map(|(name, count)| format!("{name}: {count}"))));
    let from = if arguments.rate.is_some() {
        "from when it was meant to be sent"
    } else {
        "closed loop: hides stalls"
    };
    let _ = writeln!(text, "latency   ({from})");
    for percentile in &arguments.percentiles {
        let _ = writeln!(
            text,
            "  {:<7} {}",
            format!("p{percentile}"),
            time(outcome.latency_us(percentile / 100.0))
        );
    }
    let _ = writeln!(text, "  {:<7} {}", "max", time(outcome.latency.max() as f64 / 1e3));
    if arguments.rate.is_some() {
        let late = |quantile| time(outcome.late.value_at_quantile(quantile) as f64 / 1e3);
        let _ = writeln!(text, "late      p50 {}, p99 {}, p99.9 {}", late(0.5), late(0.99), late(0.999));
    }
    let _ = writeln!(text, "own CPU   {:.2} µs per request", outcome.own_us_per_request());
    if outcome.closed_by_peer > 0 {
        let _ =
            writeln!(text, "closed    {} connections, by the other side; replaced", outcome.closed_by_peer);
    }
    text
}

fn json(arguments: &Arguments, outcome: &Outcome) -> serde_json::Value {
    let latency =
        arguments.percentiles.iter().map(|p| (format!("p{p}"), outcome.latency_us(p / 100.0).into()));
    let late = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map(|(name, quantile)| {
        (name.to_owned(), (outcome.late.value_at_quantile(quantile) as f64 / 1e3).into())
    });
    let object =
        |entries: Vec<(String, serde_json::Value)>| serde_json::Value::Object(entries.into_iter().collect());
    let counts =
        |counts: Vec<(String, u64)>| object(counts.into_iter().map(|(name, n)| (name, n.into())).collect());
    serde_json::json!({
        "url": arguments.url.to_string(),
        "rate": arguments.rate,
        "connections": arguments.connections,
        "seconds": outcome.elapsed.as_secs_f64(),
        "answers": outcome.answers,
        "answers_per_second": outcome.answers as f64 / outcome.elapsed.as_secs_f64(),
        "statuses": counts(outcome.statuses.iter().map(|(status, n)| (status.to_string(), *n)).collect()),
        "errors": counts(outcome.errors.by_name().map(|(name, n)| (name.to_owned(), n)).into()),
        "closed_by_peer": outcome.closed_by_peer,
        "latency_us": object(latency.collect()),
        "latency_max_us": outcome.latency.max() as f64 / 1e3,
        "late_us": object(late.into()),
        "own_cpu_us_per_request": outcome.own_us_per_request(),
    })
}

fn list(items: impl Iterator<Item = String>) -> String {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() { String::from("none") } else { text }
}

/// Microseconds, in the unit that reads best.
fn time(microseconds: f64) -> String {
    match microseconds {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n: &f64| *n > 0.0 && n.is_finite()).ok_or(String::from("not a number above 0"))
}

fn percentile(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n| (0.0..=100.0).contains(n)).ok_or(String::from("not a number from 0 to 100"))
}

fn header(text: &str) -> Result<(String, String), String> {
    let is_one_line = !text.contains(['\r', '\n']);
    let parts = text.split_once(':').filter(|(name, _)| is_one_line && !name.trim().is_empty());
    let (name, value) = parts.ok_or(String::from("not `name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_refuses_nonsense() {
        Arguments::command().debug_assert();
        let url = "http://127.0.0.1:1/";
        for bad in [
            &["--rate", "0"][..],
            &["-c", "0"],
            &["-H", "no colon"],
            &["-H", "a: b\r\nc: d"],
            &["-p", "101"],
            &["-n", "1", "-d", "1s"],
            &["--body", "x", "--body-bytes", "1"],
        ] {
            assert!(Arguments::try_parse_from([&["ringway-load", url], bad].concat()).is_err(), "{bad:?}");
        }
        assert!(Arguments::try_parse_from(["ringway-load", "https://127.0.0.1/"]).is_err());
    }

    #[test]
    fn a_load_on_an_origin_is_reported_as_text_and_as_json() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || bench::origin::serve(&[listener], &bench::origin::Counts::default()));
        let url = format!("http://{address}/bytes/10");
        for (more, rate) in
            [(&["-r", "2000"][..], true), (&["--body-bytes", "5", "--new-connections"], false)]
        {
            let words = [&["ringway-load", &url, "-n", "100", "-c", "4"], more].concat();
            let arguments = Arguments::try_parse_from(words).unwrap();
            let outcome = measure(&arguments).unwrap();
            let json = json(&arguments, &outcome);
            assert_eq!((&json["answers"], &json["statuses"]["200"]), (&100.into(), &100.into()));
            assert_eq!(json["errors"]["broken"], 0);
            assert!(json["latency_us"]["p99.9"].as_f64() > Some(0.0), "{json}");
            let text = text(&arguments, &outcome);
            assert!(text.contains("answers   100 good") && text.contains("errors    none"), "{text}");
            assert_eq!(text.contains("meant to be sent"), rate, "{text}");
        }
    }
}
