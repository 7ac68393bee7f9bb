//! The tables over all records: one for each workload, medians over the rounds.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::record::Record;
use super::workload::{Setup, Workload};

/// The name of the second of two equal subjects.
pub(super) fn twin_of(subject: &str) -> String {
    format!("{subject}'")
}

/// The tables of all workloads, in this order.
pub(super) fn tables(records: &[Record], workloads: &[Workload], baseline: &str) -> String {
    workloads.iter().fold(String::new(), |mut text, workload| {
        let records = Records { all: records, workload: workload.name(), baseline };
        let columns: Vec<Column> = COLUMNS.iter().filter(|c| (c.is_for)(*workload)).copied().collect();
        records.write(&columns, *workload, &mut text);
        text
    })
}

/// The records of one workload.
struct Records<'a> {
    all: &'a [Record],
    workload: String,
    baseline: &'a str,
}

/// A column of a table: its head, its width, the workloads that have it, and what it says of a subject.
#[derive(Clone, Copy)]
struct Column {
    head: &'static str,
    width: usize,
    is_for: fn(Workload) -> bool,
    cell: fn(&Records<'_>, &str) -> Option<String>,
}

const ANY: fn(Workload) -> bool = |_| true;

const COLUMNS: &[Column] = &[
    Column { head: "CPU µs/req", width: 10, is_for: ANY, cell: |r, s| Some(format!("{:.2}", r.cost(s)?)) },
    Column {
        head: "busy",
        width: 5,
        is_for: ANY,
        cell: |r, s| {
            Some(format!(
                "{:.0} %",
                100.0 * r.median(s, |r| Some(r.cost()? * 1e-6 * r.requests as f64 / r.seconds))?
            ))
        },
    },
    Column {
        head: "others",
        width: 6,
        is_for: ANY,
        cell: |r, s| Some(format!("{:.0} %", 100.0 * r.median(s, |r| Some(r.others))?)),
    },
    Column {
        head: "ratio",
        width: 6,
        is_for: |w| w != Workload::Latency,
        cell: |r, s| Some(format!("{:.3}", Spread::of(&r.ratios(s, Record::cost))?.median)),
    },
    Column {
        head: "(min–max)",
        width: 13,
        is_for: |w| w != Workload::Latency,
        cell: |r, s| Spread::of(&r.ratios(s, Record::cost)).map(|s| format!("({:.3}–{:.3})", s.min, s.max)),
    },
    Column {
        head: "to own get-32",
        width: 13,
        is_for: |w| w == Workload::Prefixes,
        cell: |r, s| Some(format!("{:.3}", r.to_own(s, Workload::Get32)?)),
    },
    Column {
        head: "req/s",
        width: 8,
        is_for: ANY,
        cell: |r, s| Some(format!("{:.0}", r.median(s, |r| Some(r.requests as f64 / r.seconds))?)),
    },
    Column { head: "p50 µs", width: 7, is_for: ANY, cell: |r, s| r.whole(s, |r| Some(r.latency.p50_us)) },
    Column { head: "p99 µs", width: 7, is_for: ANY, cell: |r, s| r.whole(s, |r| Some(r.latency.p99_us)) },
    Column { head: "p99.9 µs", width: 8, is_for: ANY, cell: |r, s| r.whole(s, |r| Some(r.latency.p999_us)) },
    Column {
        head: "added p50",
        width: 9,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| r.whole(s, |r| Some(r.added_usually_us()?.0)),
    },
    Column {
        head: "p99",
        width: 7,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| r.whole(s, Record::added_p99),
    },
    Column {
        head: "p99 ratio",
        width: 9,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| Some(format!("{:.2}", Spread::of(&r.ratios(s, Record::added_p99))?.median)),
    },
    Column {
        head: "(min–max)",
        width: 11,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| {
            Spread::of(&r.ratios(s, Record::added_p99)).map(|s| format!("({:.2}–{:.2})", s.min, s.max))
        },
    },
    Column {
        head: "direct p99",
        width: 10,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| r.whole(s, |r| Some(r.added?.direct_usual.p99_us)),
    },
    Column {
        head: "late p99",
        width: 8,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| r.whole(s, |r| Some(r.added?.usual.late_p99_us)),
    },
    Column {
        head: "all: p99",
        width: 8,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| r.whole(s, |r| Some(r.added_us()?.p99_us)),
    },
    Column {
        head: "p99.9",
        width: 7,
        is_for: |w| w == Workload::Latency,
        cell: |r, s| r.whole(s, |r| Some(r.added_us()?.p999_us)),
    },
    Column {
        head: "CPU uneven",
        width: 10,
        is_for: |w| w.setup() == Setup::Workers,
        cell: |r, s| Some(format!("{:.2}", r.median(s, Record::cpu_imbalance)?)),
    },
    Column {
        head: "(min–max)",
        width: 11,
        is_for: |w| w.setup() == Setup::Workers,
        cell: |r, s| {
            Spread::of(&r.values(s, Record::cpu_imbalance)).map(|s| format!("({:.2}–{:.2})", s.min, s.max))
        },
    },
    Column {
        head: "requests",
        width: 8,
        is_for: |w| w.setup() == Setup::Workers,
        cell: |r, s| Some(format!("{:.2}", r.median(s, Record::requests_imbalance)?)),
    },
    Column {
        head: "(min–max)",
        width: 11,
        is_for: |w| w.setup() == Setup::Workers,
        cell: |r, s| {
            Spread::of(&r.values(s, Record::requests_imbalance))
                .map(|s| format!("({:.2}–{:.2})", s.min, s.max))
        },
    },
    Column {
        head: "connections",
        width: 11,
        is_for: |w| matches!(w, Workload::WorkersEven | Workload::WorkersUneven),
        cell: |r, s| Some(format!("{:.2}", r.median(s, Record::connections_imbalance)?)),
    },
    Column {
        head: "upstream opened",
        width: 15,
        is_for: |w| matches!(w, Workload::Zipf | Workload::NewConnection),
        cell: |r, s| r.whole(s, |r| Some(r.upstream_connections as f64)),
    },
    Column {
        head: "idle conns",
        width: 10,
        is_for: |w| w == Workload::Idle,
        cell: |r, s| r.whole(s, |r| Some(r.idle?.connections as f64)),
    },
    Column {
        head: "kB each",
        width: 8,
        is_for: |w| w == Workload::Idle,
        cell: |r, s| {
            r.cost(s)?;
            Some(format!("{:.2}", r.median(s, Record::kb_per_idle_connection)?))
        },
    },
    Column {
        head: "held Pss MB",
        width: 11,
        is_for: |w| w == Workload::Idle,
        cell: |r, s| r.megabytes(s, |r| Some(r.idle?.pss_kb as f64)),
    },
    Column {
        head: "idle Pss MB",
        width: 11,
        is_for: ANY,
        cell: |r, s| r.megabytes(s, |r| Some(r.idle_pss_kb as f64)),
    },
    Column {
        head: "ready ms",
        width: 8,
        is_for: ANY,
        cell: |r, s| {
            r.cost(s)?;
            Some(format!("{:.1}", r.median(s, |r| Some(r.ready_ms))?))
        },
    },
];

impl Record {
    fn added_p99(&self) -> Option<f64> {
        Some(self.added_usually_us()?.1)
    }

    fn cost(&self) -> Option<f64> {
        self.cpu_us_per_request
    }
}

impl Records<'_> {
    fn write(&self, columns: &[Column], workload: Workload, text: &mut String) {
        let own: Vec<&Record> = self.of(&self.workload).collect();
        if own.is_empty() {
            return;
        }
        let rounds = own.iter().map(|r| r.round).collect::<BTreeSet<_>>().len();
        let names: BTreeSet<&str> = own.iter().map(|r| r.subject.as_str()).collect();
        let width = names.iter().map(|name| name.chars().count()).fold(13, usize::max);
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "\n{}, {rounds} rounds, medians; ratio to {} of the same round\n{}",
            self.workload,
            self.baseline,
            explanation(workload)
        );
        let _ = write!(text, "{:<width$}", "subject");
        for column in columns {
            let _ = write!(text, " {:>1$}", column.head, column.width);
        }
        text.push('\n');
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_by(|a, b| self.cost(a).unwrap_or(0.0).total_cmp(&self.cost(b).unwrap_or(0.0)));
        for name in names {
            let _ = write!(text, "{name:<width$}");
            for column in columns {
                let cell = (column.cell)(self, name).unwrap_or_else(|| String::from("-"));
                let _ = write!(text, " {cell:>0$}", column.width);
            }
            text.push('\n');
        }
        let (what, value): (_, fn(&Record) -> Option<f64>) = match workload {
            Workload::Latency => ("added p99", Record::added_p99),
            _ => ("CPU", Record::cost),
        };
        if let Some(spread) = Spread::of(&self.ratios(&twin_of(self.baseline), value)) {
            let _ = writeln!(
                text,
                "A/A: {what} of {} against itself {:.3} ({:.3}–{:.3}); a difference below {:.1} % is noise here",
                self.baseline,
                spread.median,
                spread.min,
                spread.max,
                200.0 * (spread.max - 1.0).abs().max((1.0 - spread.min).abs())
            );
        }
    }

    fn of(&self, workload: &str) -> impl Iterator<Item = &Record> {
        self.all.iter().filter(move |r| r.workload == workload)
    }

    fn median(&self, subject: &str, value: fn(&Record) -> Option<f64>) -> Option<f64> {
        median(self.values(subject, value))
    }

    fn values(&self, subject: &str, value: fn(&Record) -> Option<f64>) -> Vec<f64> {
        self.of(&self.workload).filter(|r| r.subject == subject).filter_map(value).collect()
    }

    fn cost(&self, subject: &str) -> Option<f64> {
        self.median(subject, Record::cost)
    }

    fn whole(&self, subject: &str, value: fn(&Record) -> Option<f64>) -> Option<String> {
        Some(format!("{:.0}", self.median(subject, value)?))
    }

    /// `None` for a subject without a process.
    fn megabytes(&self, subject: &str, kilobytes: fn(&Record) -> Option<f64>) -> Option<String> {
        self.cost(subject)?;
        Some(format!("{:.1}", self.median(subject, kilobytes)? / 1024.0))
    }

    /// A value of `subject` relative to the baseline's, round by round.
    fn ratios(&self, subject: &str, value: fn(&Record) -> Option<f64>) -> Vec<f64> {
        let of_baseline = |round| {
            self.of(&self.workload).find(|r| r.subject == self.baseline && r.round == round).and_then(value)
        };
        let own = self.of(&self.workload).filter(|r| r.subject == subject);
        own.filter_map(|r| Some(value(r)? / of_baseline(r.round)?)).collect()
    }

    /// The cost of `subject` relative to its own in another workload, round by round; the median.
    fn to_own(&self, subject: &str, other: Workload) -> Option<f64> {
        let other = other.name();
        let cost_there =
            |round| self.of(&other).find(|r| r.subject == subject && r.round == round).and_then(Record::cost);
        let own = self.of(&self.workload).filter(|r| r.subject == subject);
        median(own.filter_map(|r| Some(r.cost()? / cost_there(r.round)?)).collect())
    }
}

/// What a reader of the table must know.
fn explanation(workload: Workload) -> &'static str {
    match workload {
        Workload::Latency => {
            "each at its share of its own capacity; added = its latency less the same load's without a proxy (direct),\n\
             in the median quarter of a second; all = over everything; late = how late the load itself was"
        }
        Workload::Idle => {
            "a proxied idle connection is one descriptor; haproxy reserves two, the relay needs two:\n\
             they hold fewer where descriptors run out (idle conns)"
        }
        Workload::WorkersEven | Workload::WorkersUneven | Workload::WorkersShort => {
            "an open loop on all cores; uneven: the busiest worker's CPU, requests or connections to the idlest one's"
        }
        Workload::Zipf => "the relay does not route: one endpoint for all, the floor",
        Workload::NewConnection => "the relay opens an upstream connection for each; the others keep theirs",
        Workload::Prefixes => "haproxy: a map of prefixes; envoy: a matcher tree; the last route is hit",
        _ => {
            "a closed loop: latencies are not what a user would see; busy: of its core, and the rest is the load's limit"
        }
    }
}

pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let min = values.iter().copied().min_by(f64::total_cmp)?;
        let max = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(values.to_vec())?, min, max })
    }
}

pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
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
    use super::super::record::{Added, Idle, Latency, Usual, Workers};
    use super::*;

    fn record(subject: &str, workload: Workload, round: usize, cost: Option<f64>) -> Record {
        let latency = Latency { p50_us: 10.0, p99_us: 20.0, p999_us: 30.0 };
        Record {
            subject: subject.to_owned(),
            workload: workload.name(),
            round,
            requests: 1000,
            seconds: 1.0,
            others: 0.0,
            cpu_us_per_request: cost,
            latency,
            added: None,
            upstream_connections: 1,
            idle: None,
            workers: None,
            idle_rss_kb: 2048,
            idle_pss_kb: 1024,
            ready_ms: 5.0,
        }
    }

    fn get(subject: &str, round: usize, cost: Option<f64>) -> Record {
        record(subject, Workload::Get32, round, cost)
    }

    #[test]
    fn ratios_pair_subjects_within_a_round() {
        // The machine is twice as slow in round 1: the ratio of medians would be off, the median of ratios is not.
        let all = [
            get("haproxy", 0, Some(10.0)),
            get("ringway", 0, Some(8.0)),
            get("haproxy", 1, Some(20.0)),
            get("ringway", 1, Some(16.0)),
            get("haproxy", 2, Some(10.0)),
        ];
        let records = Records { all: &all, workload: Workload::Get32.name(), baseline: "haproxy" };
        assert_eq!(records.ratios("ringway", Record::cost), [0.8, 0.8]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn a_table_has_a_row_for_each_subject_and_says_what_is_noise() {
        let all = [
            get("haproxy", 0, Some(10.0)),
            get("haproxy'", 0, Some(10.5)),
            get("direct", 0, None),
            get("envoy", 0, Some(40.0)),
        ];
        let text = tables(&all, &[Workload::Get32, Workload::Get128], "haproxy");
        let starts: Vec<&str> = text.lines().skip(4).map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(starts, ["direct", "haproxy", "haproxy'", "envoy", "A/A:"]);
        assert!(text.contains("below 10.0 % is noise"), "{text}");
        assert!(text.contains("4.000 (4.000–4.000)"), "{text}");
    }

    #[test]
    fn special_workloads_have_columns_of_their_own() {
        let direct = Latency { p50_us: 4.0, p99_us: 5.0, p999_us: 6.0 };
        let usual = |p50_us, p99_us| Usual { windows: 8, p50_us, p99_us, late_p99_us: 1.0 };
        let added = Some(Added {
            capacity: 3.0,
            rate: 1.0,
            direct,
            late_p99_us: 2.0,
            usual: usual(9.0, 17.0),
            direct_usual: usual(2.0, 4.0),
        });
        let workers = Some(Workers {
            cpu_ms: vec![20.0, 25.0, 22.0],
            connections: Some(vec![3, 3, 2]),
            requests: Some(vec![30, 10, 20]),
        });
        let idle = Some(Idle { connections: 1000, rss_kb: 9000, pss_kb: 6024 });
        let all = [
            get("a", 0, Some(10.0)),
            record("a", Workload::Prefixes, 0, Some(11.0)),
            Record { added, ..record("a", Workload::Latency, 0, Some(12.0)) },
            Record { idle, ..record("a", Workload::Idle, 0, Some(13.0)) },
            Record { workers, ..record("a", Workload::WorkersEven, 0, Some(14.0)) },
        ];
        let row = |workload| {
            let text = tables(&all, &[workload], "a");
            let cells = |line: &str| {
                line.split("  ").filter(|c| !c.is_empty()).map(|c| c.trim().to_owned()).collect()
            };
            let lines: Vec<Vec<String>> = text.lines().map(cells).collect();
            let head =
                lines.iter().position(|l| l.first().is_some_and(|c| c.starts_with("subject"))).unwrap();
            format!("{:?}", lines[head + 1])
        };
        assert!(row(Workload::Prefixes).contains("\"1.100\""), "{}", row(Workload::Prefixes));
        let latency = row(Workload::Latency);
        assert!(latency.contains("\"7\", \"13\", \"1.00 (1.00–1.00)\""), "{latency}");
        assert!(latency.contains("\"4\", \"1\", \"15\", \"24\""), "{latency}");
        assert!(row(Workload::Idle).contains("\"1000\", \"5.00\", \"5.9\""), "{}", row(Workload::Idle));
        let workers = row(Workload::WorkersEven);
        assert!(workers.contains("\"1.25 (1.25–1.25)\", \"3.00 (3.00–3.00)\", \"1.50\""), "{workers}");
    }
}
