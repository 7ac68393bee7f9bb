//! What was measured: one record per (subject, workload, round), and the table over all of them.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::workload::Workload;

/// One measurement.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Record {
    /// The subject's name; the second of the two equal ones ends in `'`.
    pub(crate) subject: String,
    #[serde(serialize_with = "name")]
    pub(crate) workload: Workload,
    pub(crate) round: usize,
    /// Requests counted by the origin.
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Processor time of all the subject's threads per request, in microseconds; absent without a process.
    pub(crate) cpu_us_per_request: Option<f64>,
    /// Latencies in microseconds. Only those of `open` say what a user sees.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Upstream connections opened during the measurement.
    pub(crate) upstream_connections: u64,
    /// Memory after start and one request, before any load, in units of 1024 bytes.
    pub(crate) idle_rss_kb: u64,
    pub(crate) idle_pss_kb: u64,
    /// From the start of the process to its first good answer, in milliseconds.
    pub(crate) ready_ms: f64,
}

fn name<S: serde::Serializer>(workload: &Workload, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(workload.name())
}

/// The name of the second of two equal subjects.
pub(crate) fn twin_of(subject: &str) -> String {
    format!("{subject}'")
}

/// The table of all records: medians, and for the cost the ratio to `baseline` in the same round with its spread.
pub(crate) fn table(records: &[Record], baseline: &str) -> String {
    let mut table = String::new();
    let width = records.iter().map(|r| r.subject.chars().count()).fold(15, usize::max);
    let workloads: BTreeSet<Workload> = records.iter().map(|r| r.workload).collect();
    for workload in workloads {
        let of_workload: Vec<&Record> = records.iter().filter(|r| r.workload == workload).collect();
        let rounds = of_workload.iter().map(|r| r.round).collect::<BTreeSet<_>>().len();
        // Writing into a string cannot fail.
        let _ = writeln!(
            table,
            "\n{}, {rounds} rounds, medians; ratio = CPU per request to {baseline}'s of the same round\n\
             {:<width$} {:>10} {:>7} {:>13} {:>10} {:>9} {:>9} {:>9} {:>10} {:>9}",
            workload.name(),
            "subject",
            "CPU µs/req",
            "ratio",
            "(min–max)",
            "req/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "idle PssMB",
            "ready ms"
        );
        let subjects: BTreeSet<&str> = of_workload.iter().map(|r| r.subject.as_str()).collect();
        let mut rows: Vec<(f64, String)> =
            subjects.into_iter().map(|subject| row(subject, baseline, &of_workload, width)).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, row) in rows {
            table.push_str(&row);
        }
        if let Some(spread) = Spread::of(&ratios(&twin_of(baseline), baseline, &of_workload)) {
            let _ = writeln!(
                table,
                "A/A: {baseline} against itself {:.3} ({:.3}–{:.3}); a difference below {:.1} % is noise here",
                spread.median,
                spread.min,
                spread.max,
                200.0 * (spread.max - 1.0).abs().max((1.0 - spread.min).abs())
            );
        }
    }
    table
}

/// A line of the table, and its cost to sort by.
fn row(subject: &str, baseline: &str, records: &[&Record], width: usize) -> (f64, String) {
    let own: Vec<&Record> = records.iter().copied().filter(|r| r.subject == subject).collect();
    let median_of =
        |value: fn(&Record) -> f64| median(own.iter().map(|r| value(r)).collect()).unwrap_or(f64::NAN);
    let cost = median(own.iter().filter_map(|r| r.cpu_us_per_request).collect());
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| String::from("-"));
    let ratio = Spread::of(&ratios(subject, baseline, records));
    let line = format!(
        "{subject:<width$} {:>10} {:>7} {:>13} {:>10.0} {:>9.0} {:>9.0} {:>9.0} {:>10} {:>9}\n",
        or_dash(cost.map(|c| format!("{c:.2}"))),
        or_dash(ratio.as_ref().map(|s| format!("{:.3}", s.median))),
        or_dash(ratio.as_ref().map(|s| format!("({:.3}–{:.3})", s.min, s.max))),
        median_of(|r| r.requests as f64 / r.seconds),
        median_of(|r| r.p50_us),
        median_of(|r| r.p99_us),
        median_of(|r| r.p999_us),
        or_dash(cost.map(|_| format!("{:.1}", median_of(|r| r.idle_pss_kb as f64 / 1024.0)))),
        or_dash(cost.map(|_| format!("{:.1}", median_of(|r| r.ready_ms)))),
    );
    (cost.unwrap_or(0.0), line)
}

/// The cost of `subject` relative to `baseline`, round by round.
fn ratios(subject: &str, baseline: &str, records: &[&Record]) -> Vec<f64> {
    let cost = |name: &str, round: usize| {
        records.iter().find(|r| r.subject == name && r.round == round).and_then(|r| r.cpu_us_per_request)
    };
    let rounds: BTreeSet<usize> = records.iter().map(|r| r.round).collect();
    rounds.into_iter().filter_map(|round| Some(cost(subject, round)? / cost(baseline, round)?)).collect()
}

struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let min = values.iter().copied().min_by(f64::total_cmp)?;
        let max = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(values.to_vec())?, min, max })
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(subject: &str, round: usize, cost: Option<f64>) -> Record {
        Record {
            subject: subject.to_owned(),
            workload: Workload::Get32,
            round,
            requests: 1000,
            seconds: 1.0,
            cpu_us_per_request: cost,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            upstream_connections: 1,
            idle_rss_kb: 2048,
            idle_pss_kb: 1024,
            ready_ms: 5.0,
        }
    }

    #[test]
    fn ratios_pair_subjects_within_a_round() {
        // The machine is twice as slow in round 1: the ratio of medians would be off, the median of ratios is not.
        let records = [
            record("haproxy", 0, Some(10.0)),
            record("ringway", 0, Some(8.0)),
            record("haproxy", 1, Some(20.0)),
            record("ringway", 1, Some(16.0)),
            record("haproxy", 2, Some(10.0)),
        ];
        let all: Vec<&Record> = records.iter().collect();
        assert_eq!(ratios("ringway", "haproxy", &all), [0.8, 0.8]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn the_table_has_a_row_for_each_subject_and_says_what_is_noise() {
        let records = [
            record("haproxy", 0, Some(10.0)),
            record("haproxy'", 0, Some(10.5)),
            record("direct", 0, None),
            record("envoy", 0, Some(40.0)),
        ];
        let table = table(&records, "haproxy");
        let starts: Vec<&str> = table.lines().skip(3).map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(starts, ["direct", "haproxy", "haproxy'", "envoy", "A/A:"]);
        assert!(table.contains("below 10.0 % is noise"), "{table}");
        assert!(table.contains("4.000 (4.000–4.000)"), "{table}");
    }
}
