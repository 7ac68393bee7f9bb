//! What came of a load: answers by status, errors by kind, times as histograms.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Answers with a status below 400.
    pub answers: u64,
    /// How many answers of each status, the bad ones too.
    pub statuses: Vec<(u16, u64)>,
    /// Requests without a good answer.
    pub errors: Errors,
    /// Connections that the other side closed between requests, or said it would; they were replaced.
    pub closed_by_peer: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Processor time of the load's own thread.
    pub own_time: Duration,
    /// Time from when a request was meant to be sent until its good answer was complete, in nanoseconds.
    pub latency: Histogram<u64>,
    /// How long after it was meant to be sent a request's turn came, in nanoseconds. In a closed loop it is 0.
    pub late: Histogram<u64>,
    /// The same, window by window, for those that were over before the load was.
    pub windows: Vec<Window>,
    /// Of the window that is not over.
    window_latency: Histogram<u64>,
    window_late: Histogram<u64>,
}

/// Percentiles of one [`WINDOW`], in microseconds; an answer belongs to the one in which it came.
///
/// What disturbs a machine from outside for some milliseconds, a few times a second, is in every percentile of a whole
/// load that is high enough, but not in most windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Of the latency.
    pub p50_us: f64,
    /// Of the latency.
    pub p99_us: f64,
    /// Of how late requests were sent.
    pub late_p99_us: f64,
}

/// Length of a window: at a few thousand requests a second long enough for its 99th percentile to be more than one
/// request, and short enough for a second to have several.
pub const WINDOW: Duration = Duration::from_millis(250);

/// Requests without a good answer, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Answered with a status of 400 or above.
    pub status: u64,
    /// No connection.
    pub connect: u64,
    /// The connection broke before the answer was complete.
    pub broken: u64,
    /// What came was no answer, or more than one.
    pub malformed: u64,
    /// No answer in the time that one may take.
    pub unanswered: u64,
    /// Of an open loop, never sent: all connections were busy until the end and as long after it as an answer may take.
    pub unsent: u64,
}

/// Longest latency that is told from a longer one.
const LATENCY_MAX: Duration = Duration::from_secs(100);

impl Default for Outcome {
    /// Of no request.
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3)
                .expect("three digits up to some minutes are valid bounds")
        };
        Self {
            answers: 0,
            statuses: Vec::new(),
            errors: Errors::default(),
            closed_by_peer: 0,
            elapsed: Duration::ZERO,
            own_time: Duration::ZERO,
            latency: histogram(),
            late: histogram(),
            windows: Vec::new(),
            window_latency: histogram(),
            window_late: histogram(),
        }
    }
}

impl Outcome {
    pub(super) fn answered(&mut self, status: u16, latency: Duration) {
        match self.statuses.iter_mut().find(|(of, _)| *of == status) {
            Some((_, count)) => *count += 1,
            None => self.statuses.push((status, 1)),
        }
        if status >= 400 {
            self.errors.status += 1;
            return;
        }
        self.answers += 1;
        self.latency.saturating_record(nanoseconds(latency));
        self.window_latency.saturating_record(nanoseconds(latency));
    }

    /// Adds what came of another load that ran beside this one. Its windows are its own.
    pub fn add(&mut self, other: &Outcome) {
        for (status, count) in &other.statuses {
            match self.statuses.iter_mut().find(|(of, _)| of == status) {
                Some((_, sum)) => *sum += count,
                None => self.statuses.push((*status, *count)),
            }
        }
        self.answers += other.answers;
        self.errors.add(other.errors);
        self.closed_by_peer += other.closed_by_peer;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.own_time += other.own_time;
        self.latency += &other.latency;
        self.late += &other.late;
    }

    pub(super) fn began(&mut self, late: Duration) {
        self.late.saturating_record(nanoseconds(late));
        self.window_late.saturating_record(nanoseconds(late));
    }

    /// A window is over. One without an answer has nothing to tell.
    pub(super) fn end_window(&mut self) {
        if !self.window_latency.is_empty() {
            self.windows.push(Window {
                p50_us: at(&self.window_latency, 0.5),
                p99_us: at(&self.window_latency, 0.99),
                late_p99_us: at(&self.window_late, 0.99),
            });
        }
        self.window_latency.reset();
        self.window_late.reset();
    }

    /// Whether every answer had this status, and nothing went wrong.
    pub fn is_all(&self, status: u16) -> bool {
        self.errors.all() == 0 && self.statuses.iter().all(|(of, _)| *of == status)
    }

    /// Latency at a quantile (0.5 is the median), in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        at(&self.latency, quantile)
    }

    /// Processor time of the load's own thread for each request, in microseconds.
    pub fn own_us_per_request(&self) -> f64 {
        self.own_time.as_secs_f64() * 1e6 / (self.answers + self.errors.all()).max(1) as f64
    }
}

impl Errors {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.by_name().into_iter().map(|(_, count)| count).sum()
    }

    fn add(&mut self, other: Self) {
        self.status += other.status;
        self.connect += other.connect;
        self.broken += other.broken;
        self.malformed += other.malformed;
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
    }

    /// Each with what it is called in reports.
    pub fn by_name(&self) -> [(&'static str, u64); 6] {
        [
            ("status", self.status),
            ("connect", self.connect),
            ("broken", self.broken),
            ("malformed", self.malformed),
            ("unanswered", self.unanswered),
            ("unsent", self.unsent),
        ]
    }
}

/// In microseconds.
fn at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_true_to_three_digits_over_the_whole_range_and_saturate_above() {
        for nanoseconds in [1, 999, 70_123, 1_234_567, 9_876_543_210, 99_999_999_999] {
            let mut outcome = Outcome::default();
            outcome.answered(200, Duration::from_nanos(nanoseconds));
            let off = outcome.latency_us(1.0) * 1e3 / nanoseconds as f64 - 1.0;
            assert!(off.abs() < 0.001, "{nanoseconds} ns is off by {off}");
        }
        let mut outcome = Outcome::default();
        outcome.answered(200, Duration::from_secs(1000));
        assert!((outcome.latency_us(1.0) - 1e8).abs() < 1e5);
    }

    #[test]
    fn percentiles_are_those_of_the_good_answers() {
        let mut outcome = Outcome::default();
        for n in 1..=1000 {
            outcome.answered(200, Duration::from_micros(n));
        }
        outcome.answered(503, Duration::from_secs(9));
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let got = outcome.latency_us(quantile);
            assert!((got / expected - 1.0).abs() < 0.002, "{quantile}: {got}");
        }
        assert_eq!((outcome.answers, outcome.errors.all(), outcome.errors.status), (1000, 1, 1));
        assert_eq!(outcome.statuses, [(200, 1000), (503, 1)]);
        assert!(!outcome.is_all(200));
    }

    #[test]
    fn a_window_has_the_answers_that_came_in_it_and_an_empty_one_says_nothing() {
        let mut outcome = Outcome::default();
        for (answers, latency, late) in [(10, 100, 5), (0, 0, 7), (3, 900, 1)] {
            outcome.began(Duration::from_micros(late));
            (0..answers).for_each(|_| outcome.answered(200, Duration::from_micros(latency)));
            outcome.end_window();
        }
        outcome.answered(200, Duration::from_secs(1));
        let windows: Vec<[f64; 3]> =
            outcome.windows.iter().map(|w| [w.p50_us, w.p99_us, w.late_p99_us].map(f64::round)).collect();
        assert_eq!(windows, [[100.0, 100.0, 5.0], [900.0, 900.0, 1.0]]);
        assert_eq!(outcome.latency.len(), 14);
    }
}
