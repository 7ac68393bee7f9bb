//! What was measured: one record per (subject, workload, round).

use bench::load::{Outcome, Pace, Window};

use super::report::median;

/// One measurement.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Record {
    /// The subject's name; the second of the two equal ones ends in `'`.
    pub(super) subject: String,
    pub(super) workload: String,
    pub(super) round: usize,
    /// Requests counted by the origin.
    pub(super) requests: u64,
    pub(super) seconds: f64,
    /// The part of the machine that others had meanwhile, 0–1. Above some hundredths, times are not the subject's alone.
    pub(super) others: f64,
    /// Processor time of all the subject's threads per request, in microseconds; absent without a process.
    pub(super) cpu_us_per_request: Option<f64>,
    /// Of a closed loop, so of saturation, unless `added` is there.
    #[serde(flatten)]
    pub(super) latency: Latency,
    /// Of the workload `latency`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) added: Option<Added>,
    /// Upstream connections opened during the measurement.
    pub(super) upstream_connections: u64,
    /// Of the workload `idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle: Option<Idle>,
    /// Of the workloads with several workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workers: Option<Workers>,
    /// Memory after start and the proof, before any load, in units of 1024 bytes.
    pub(super) idle_rss_kb: u64,
    pub(super) idle_pss_kb: u64,
    /// From the start of the process to its first good answer, in milliseconds.
    pub(super) ready_ms: f64,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
}

/// Memory while connections are held that say nothing.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Idle {
    pub(super) connections: usize,
    pub(super) rss_kb: u64,
    pub(super) pss_kb: u64,
}

/// What each worker of a subject had to do.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Workers {
    /// Its processor time, in milliseconds.
    pub(super) cpu_ms: Vec<f64>,
    /// Its downstream connections, where it tells them and they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<Vec<u64>>,
    /// Requests it served, where it tells them. Unlike processor time they do not depend on how fast its core was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requests: Option<Vec<u64>>,
}

/// What a subject adds to the latency of an open loop.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(super) struct Added {
    /// Requests per second when the subject was saturated, just before.
    pub(super) capacity: f64,
    /// Requests per second of the schedule.
    pub(super) rate: f64,
    /// The same load without a proxy, just afterwards.
    pub(super) direct: Latency,
    /// The 99th percentile of how late the load itself sent, in microseconds: what is not the subject's.
    pub(super) late_p99_us: f64,
    /// What is usual, which disturbances of the machine are not.
    pub(super) usual: Usual,
    pub(super) direct_usual: Usual,
}

/// Medians over the windows of a load, of the percentiles of each, in microseconds.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Usual {
    pub(super) windows: usize,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) late_p99_us: f64,
}

impl From<&[Window]> for Usual {
    fn from(windows: &[Window]) -> Self {
        let of = |value: fn(&Window) -> f64| median(windows.iter().map(value).collect()).unwrap_or_default();
        Self {
            windows: windows.len(),
            p50_us: of(|w| w.p50_us),
            p99_us: of(|w| w.p99_us),
            late_p99_us: of(|w| w.late_p99_us),
        }
    }
}

impl From<&Outcome> for Latency {
    fn from(outcome: &Outcome) -> Self {
        let [p50_us, p99_us, p999_us] = [0.5, 0.99, 0.999].map(|quantile| outcome.latency_us(quantile));
        Self { p50_us, p99_us, p999_us }
    }
}

impl Added {
    pub(super) fn new(outcome: &Outcome, direct: &Outcome, capacity: f64, pace: Pace) -> Self {
        let rate = match pace {
            Pace::Open(rate) => rate,
            Pace::Closed => capacity,
        };
        let late_p99_us = outcome.late.value_at_quantile(0.99) as f64 / 1e3;
        Self {
            capacity,
            rate,
            direct: direct.into(),
            late_p99_us,
            usual: outcome.windows[..].into(),
            direct_usual: direct.windows[..].into(),
        }
    }
}

impl Record {
    /// What a subject adds to the median and to the 99th percentile of a usual window, in microseconds.
    pub(super) fn added_usually_us(&self) -> Option<(f64, f64)> {
        let Added { usual, direct_usual, .. } = self.added?;
        (usual.windows > 0 && direct_usual.windows > 0)
            .then_some((usual.p50_us - direct_usual.p50_us, usual.p99_us - direct_usual.p99_us))
    }

    /// What a subject adds to the latencies of the same load without it, in microseconds.
    pub(super) fn added_us(&self) -> Option<Latency> {
        let direct = self.added.as_ref()?.direct;
        Some(Latency {
            p50_us: self.latency.p50_us - direct.p50_us,
            p99_us: self.latency.p99_us - direct.p99_us,
            p999_us: self.latency.p999_us - direct.p999_us,
        })
    }

    /// Processor time of the busiest worker to that of the idlest.
    pub(super) fn cpu_imbalance(&self) -> Option<f64> {
        imbalance(&self.workers.as_ref()?.cpu_ms)
    }

    /// Connections of the worker with most to those of the one with fewest.
    pub(super) fn connections_imbalance(&self) -> Option<f64> {
        imbalance_of_counts(self.workers.as_ref()?.connections.as_ref()?)
    }

    /// Requests of the worker with most to those of the one with fewest.
    pub(super) fn requests_imbalance(&self) -> Option<f64> {
        imbalance_of_counts(self.workers.as_ref()?.requests.as_ref()?)
    }

    /// Memory that one idle connection takes, in units of 1024 bytes.
    pub(super) fn kb_per_idle_connection(&self) -> Option<f64> {
        let idle = self.idle.as_ref()?;
        Some((idle.pss_kb as f64 - self.idle_pss_kb as f64) / idle.connections as f64)
    }
}

fn imbalance_of_counts(counts: &[u64]) -> Option<f64> {
    imbalance(&counts.iter().map(|count| *count as f64).collect::<Vec<_>>())
}

/// The largest to the smallest; infinite where one has nothing.
fn imbalance(shares: &[f64]) -> Option<f64> {
    let most = shares.iter().copied().max_by(f64::total_cmp)?;
    let least = shares.iter().copied().min_by(f64::total_cmp)?;
    (most > 0.0).then_some(most / least)
}
