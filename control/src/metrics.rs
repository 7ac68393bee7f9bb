//! The control plane's own numbers, as Prometheus text. Labels are fixed sets, so the number of series is, too.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::compile::ResourceType;
use crate::identity::Refused;

/// Counters of one control plane. What can be counted when asked for (streams, registrations, document errors) is
/// not kept here but given to [`Metrics::render`].
#[derive(Debug, Default)]
pub struct Metrics {
    /// Responses sent, by type.
    pub pushes: PerType,
    /// Resources in them, by type.
    pub resources: PerType,
    /// Responses a client refused, at least in part, by type.
    pub nacks: PerType,
    /// Bytes of resources sent.
    pub resource_bytes: AtomicU64,
    /// ADS streams opened.
    pub streams: AtomicU64,
    /// Requests and streams that were ended for an error of the client.
    pub refused_streams: AtomicU64,
    /// Certificates issued to workloads and hosts.
    pub identities_issued: AtomicU64,
    /// Certificates refused, by reason.
    pub identities_refused: [AtomicU64; Refused::LABELS.len()],
    /// Handshakes of other machines that came to nothing.
    pub handshakes_refused: AtomicU64,
    /// From the moment a change was noticed until one proxy that it concerns had it active.
    pub apply_to_active: Histogram,
}

/// One counter per resource type.
#[derive(Debug, Default)]
pub struct PerType([AtomicU64; ResourceType::COUNT]);

impl PerType {
    /// Adds `count`.
    pub fn add(&self, kind: ResourceType, count: u64) {
        self.0[kind as usize].fetch_add(count, Relaxed);
    }
}

/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Durations in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last one is for what is longer than every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Adds one.
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(took.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }
}

/// What is counted when the metrics are asked for.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Proxies by state: synced, pending, nack, offline.
    pub proxies: [(&'static str, u64); 4],
    /// Registrations by state: used, refused.
    pub registrations: [(&'static str, u64); 2],
    /// Documents that serve.
    pub documents: u64,
    /// Documents that could not be used.
    pub document_errors: u64,
    /// Number of the newest change, those of endpoints too.
    pub sequence: u64,
}

impl Metrics {
    /// Prometheus text, format 0.0.4.
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut out = Text(String::new());
        out.head("ringway_control_proxies", "gauge", "Proxies by state");
        for (state, count) in gauges.proxies {
            out.line("ringway_control_proxies", &format!("{{state=\"{state}\"}}"), count);
        }
        out.head("ringway_control_registrations", "gauge", "Registered workloads by state");
        for (state, count) in gauges.registrations {
            out.line("ringway_control_registrations", &format!("{{state=\"{state}\"}}"), count);
        }
        out.single("ringway_control_documents", "gauge", "Documents that serve", gauges.documents);
        let errors = gauges.document_errors;
        out.single("ringway_control_document_errors", "gauge", "Documents that could not be used", errors);
        let changes = gauges.sequence;
        out.single(
            "ringway_control_changes_total",
            "counter",
            "Changes of configuration or endpoints",
            changes,
        );
        let streams = self.streams.load(Relaxed);
        out.single("ringway_control_ads_streams_total", "counter", "ADS streams opened", streams);
        let refused = self.refused_streams.load(Relaxed);
        out.single(
            "ringway_control_ads_streams_refused_total",
            "counter",
            "ADS streams ended as invalid",
            refused,
        );
        for (name, help, counters) in [
            ("ringway_control_ads_pushes_total", "Responses sent", &self.pushes),
            ("ringway_control_ads_resources_total", "Resources sent", &self.resources),
            ("ringway_control_ads_nacks_total", "Responses refused, at least in part", &self.nacks),
        ] {
            out.head(name, "counter", help);
            for kind in ResourceType::ALL {
                let count = counters.0[kind as usize].load(Relaxed);
                out.line(name, &format!("{{type=\"{}\"}}", kind.short()), count);
            }
        }
        let bytes = self.resource_bytes.load(Relaxed);
        out.single("ringway_control_ads_resource_bytes_total", "counter", "Bytes of resources sent", bytes);
        self.render_identities(&mut out);
        self.render_apply_to_active(&mut out);
        out.0
    }

    fn render_identities(&self, out: &mut Text) {
        let (name, refused) =
            ("ringway_control_handshakes_refused_total", self.handshakes_refused.load(Relaxed));
        out.single(name, "counter", "Handshakes of other machines that came to nothing", refused);
        let issued = self.identities_issued.load(Relaxed);
        out.single("ringway_control_identities_issued_total", "counter", "Certificates issued", issued);
        let name = "ringway_control_identities_refused_total";
        out.head(name, "counter", "Certificates that were asked for and refused");
        for (reason, count) in Refused::LABELS.iter().zip(&self.identities_refused) {
            out.line(name, &format!("{{reason=\"{reason}\"}}"), count.load(Relaxed));
        }
    }

    fn render_apply_to_active(&self, out: &mut Text) {
        let name = "ringway_control_apply_to_active_seconds";
        out.head(name, "histogram", "From a change until it is active, once per proxy it concerns");
        let mut count = 0;
        for (bucket, bound) in self.apply_to_active.buckets.iter().zip(BOUNDS) {
            count += bucket.load(Relaxed);
            out.line(&format!("{name}_bucket"), &format!("{{le=\"{bound}\"}}"), count);
        }
        count += self.apply_to_active.buckets[BOUNDS.len()].load(Relaxed);
        out.line(&format!("{name}_bucket"), "{le=\"+Inf\"}", count);
        let sum = Duration::from_micros(self.apply_to_active.sum_micros.load(Relaxed)).as_secs_f64();
        out.line(&format!("{name}_sum"), "", sum);
        out.line(&format!("{name}_count"), "", count);
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let metrics = Metrics::default();
        for millis in [5, 6, 40, 60_000] {
            metrics.apply_to_active.observe(Duration::from_millis(millis));
        }
        let text = metrics.render(&Gauges::default());
        for line in [
            "ringway_control_apply_to_active_seconds_bucket{le=\"0.005\"} 1",
            "ringway_control_apply_to_active_seconds_bucket{le=\"0.01\"} 2",
            "ringway_control_apply_to_active_seconds_bucket{le=\"0.025\"} 2",
            "ringway_control_apply_to_active_seconds_bucket{le=\"30\"} 3",
            "ringway_control_apply_to_active_seconds_bucket{le=\"+Inf\"} 4",
            "ringway_control_apply_to_active_seconds_sum 60.051",
            "ringway_control_apply_to_active_seconds_count 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_series_has_a_type_and_no_name_comes_twice() {
        let text = Metrics::default().render(&Gauges::default());
        let types: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut names: Vec<_> = types.iter().filter_map(|line| line.split(' ').next()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(names.iter().any(|name| line.starts_with(name)), "{line}");
        }
    }
}
