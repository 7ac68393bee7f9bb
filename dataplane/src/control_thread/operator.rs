//! What operators ask on the admin listener.

use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

use super::ControlThread;
use crate::{
    admin::{
        Answer, JSON, PROMETHEUS, Page, Question, TEXT,
        pages::{self, Core, Dumped, Server, State},
    },
    memory::resident_bytes,
    telemetry::{
        metrics::Kind as Metric,
        render::{Process, prometheus},
    },
    xds::Kind,
};

/// Shares of CPU are of at least this span; a shorter one would be noise.
const SPAN_MIN: Duration = Duration::from_millis(100);

/// CPU time of the workers at two points of time.
#[derive(Debug)]
pub(super) struct CpuTimes {
    /// The point that shares are counted from.
    from: (Instant, Vec<Option<Duration>>),
    /// The latest one.
    last: (Instant, Vec<Option<Duration>>),
}

impl CpuTimes {
    pub(super) fn new(workers: usize) -> CpuTimes {
        let start = (Instant::now(), vec![Some(Duration::ZERO); workers]);
        CpuTimes { from: start.clone(), last: start }
    }

    /// Each worker's share of a CPU since the look before, given their CPU times now.
    fn shares(&mut self, now: Instant, times: Vec<Option<Duration>>) -> Vec<Option<f64>> {
        if now.duration_since(self.last.0) >= SPAN_MIN {
            self.from = std::mem::replace(&mut self.last, (now, times.clone()));
        }
        let span = now.duration_since(self.from.0).as_secs_f64();
        let share = |(time, before): (&Option<Duration>, &Option<Duration>)| {
            let used = (*time)?.saturating_sub((*before)?);
            (span > 0.0).then(|| used.as_secs_f64() / span)
        };
        times.iter().zip(&self.from.1).map(share).collect()
    }
}

/// On the CPU so far; `None` when the kernel keeps no such statistics.
fn cpu_time(thread_id: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread_id}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

impl ControlThread {
    pub(super) fn on_question(&mut self, question: Question) {
        let answer = self.answer(question.page);
        // Whoever asked may have gone.
        let _ = question.answer.send(answer);
    }

    fn answer(&mut self, page: Page) -> Answer {
        let (media_type, body) = match page {
            Page::Ready => {
                let state = self.state();
                let status = if state == State::Live { 200 } else { 503 };
                return Answer { status, media_type: TEXT, body: format!("{}\n", state.word()) };
            }
            Page::Metrics => (PROMETHEUS, self.metrics()),
            Page::Cores => (JSON, self.cores()),
            Page::Clusters => {
                let is_static = |name: &str| self.assembler.is_static(Kind::Cluster.type_url(), name);
                (TEXT, pages::clusters(&self.snapshot, is_static))
            }
            Page::Listeners => (TEXT, pages::listeners(self.sockets.serving())),
            Page::ConfigDump => (JSON, self.config_dump()),
            Page::ServerInfo => (JSON, self.server_info()),
        };
        Answer { status: 200, media_type, body }
    }

    fn metrics(&self) -> String {
        let warming = |kind: Kind| self.assembler.status(kind.type_url()).warming.len() as f64;
        let discovered = |kind: Kind| {
            let found = self.discovery.iter().find(|(of, _)| *of == kind);
            found.map(|(_, discovered)| *discovered).unwrap_or_default()
        };
        let (clusters, listeners) = (discovered(Kind::Cluster), discovered(Kind::Listener));
        let flag = |is: bool| f64::from(u8::from(is));
        let figures = [
            ("envoy_server_live", Metric::Gauge, flag(self.state() == State::Live)),
            ("envoy_server_state", Metric::Gauge, f64::from(self.state().number())),
            ("envoy_server_uptime", Metric::Gauge, self.started.elapsed().as_secs() as f64),
            ("envoy_server_concurrency", Metric::Gauge, self.workers.count() as f64),
            ("envoy_server_total_connections", Metric::Gauge, self.workers.connections() as f64),
            ("envoy_server_memory_physical_size", Metric::Gauge, resident_bytes() as f64),
            ("envoy_control_plane_connected_state", Metric::Gauge, flag(self.is_connected())),
            ("envoy_cluster_manager_active_clusters", Metric::Gauge, self.snapshot.clusters.len() as f64),
            ("envoy_cluster_manager_warming_clusters", Metric::Gauge, warming(Kind::Cluster)),
            ("envoy_cluster_manager_cds_update_attempt", Metric::Counter, clusters.responses as f64),
            ("envoy_cluster_manager_cds_update_rejected", Metric::Counter, clusters.refused as f64),
            (
                "envoy_listener_manager_total_listeners_active",
                Metric::Gauge,
                self.snapshot.listeners.len() as f64,
            ),
            ("envoy_listener_manager_total_listeners_warming", Metric::Gauge, warming(Kind::Listener)),
            ("envoy_listener_manager_lds_update_attempt", Metric::Counter, listeners.responses as f64),
            ("envoy_listener_manager_lds_update_rejected", Metric::Counter, listeners.refused as f64),
            ("ringway_eds_update_attempt", Metric::Counter, discovered(Kind::Endpoints).responses as f64),
            ("ringway_eds_update_rejected", Metric::Counter, discovered(Kind::Endpoints).refused as f64),
            ("ringway_rds_update_attempt", Metric::Counter, discovered(Kind::RouteTable).responses as f64),
            ("ringway_rds_update_rejected", Metric::Counter, discovered(Kind::RouteTable).refused as f64),
            ("ringway_sds_update_attempt", Metric::Counter, discovered(Kind::Secret).responses as f64),
            ("ringway_sds_update_rejected", Metric::Counter, discovered(Kind::Secret).refused as f64),
            ("ringway_identity_life_left_seconds", Metric::Gauge, self.identity_left().as_secs_f64()),
            ("ringway_snapshot_version", Metric::Gauge, self.snapshot.version as f64),
            ("ringway_access_log_dropped", Metric::Counter, self.access_log.dropped() as f64),
            ("envoy_server_watchdog_miss", Metric::Counter, self.care.watchdog.misses() as f64),
            ("ringway_workers_stuck", Metric::Gauge, self.care.watchdog.stuck().count() as f64),
            (
                "ringway_memory_limit_bytes",
                Metric::Gauge,
                self.care.budget.as_ref().map_or(0.0, |(budget, _)| budget.limit_bytes as f64),
            ),
        ];
        let process = Process {
            snapshot: &self.snapshot,
            workers: self.workers.stats(),
            figures: &figures,
            io_driver: self.driver.driver.name(),
            io_driver_reason: self.driver.fallback_reason.as_deref().unwrap_or_default(),
        };
        prometheus(&self.registry, &process)
    }

    fn cores(&mut self) -> String {
        let times = self.workers.threads().map(|thread| cpu_time(thread.id)).collect();
        let shares = self.cpu_times.shares(Instant::now(), times);
        let core = |((thread, stats), cpu_share)| Core { thread, stats, cpu_share };
        let threads = self.workers.threads().zip(self.workers.stats().iter().cloned());
        let cores: Vec<_> = threads.zip(shares).map(core).collect();
        let reason = self.driver.fallback_reason.as_deref().unwrap_or_default();
        pages::cores(&cores, self.driver.driver.name(), reason)
    }

    fn identity_left(&self) -> Duration {
        self.identity_life.map(|life| life.left(SystemTime::now())).unwrap_or_default()
    }

    fn config_dump(&self) -> String {
        let dumped = |kind: Kind| {
            let type_url = kind.type_url();
            let names: Vec<_> = match kind {
                Kind::Listener => self.snapshot.listeners.iter().map(|(name, _)| name.clone()).collect(),
                Kind::Cluster => self.snapshot.clusters.iter().map(|(name, _)| name.clone()).collect(),
                Kind::Secret => self.snapshot.secrets.iter().map(|(name, _)| name.clone()).collect(),
                // The bootstrap file has these only inside the others.
                Kind::RouteTable | Kind::Endpoints => Vec::new(),
            };
            let fixed = names.into_iter().filter(|name| self.assembler.is_static(type_url, name)).collect();
            let (active, status) = (self.assembler.active(type_url), self.assembler.status(type_url));
            Dumped { kind, fixed, active, status }
        };
        pages::config_dump(self.snapshot.version, &Kind::ALL.map(dumped))
    }

    fn server_info(&self) -> String {
        let control_plane = self.bootstrap.control_plane.as_ref();
        let places =
            control_plane.map(|of| of.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        let server = Server {
            state: self.state(),
            uptime: self.started.elapsed(),
            workers: self.workers.count(),
            config_path: &self.config_path,
            io_driver: self.driver.driver.name(),
            control_plane: places.map(|places| (places, self.is_connected())),
            state_file: self.state_file.as_ref().map(|file| file.path().display().to_string()),
        };
        pages::server_info(&server, &self.bootstrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_span_since_the_look_before() {
        let mut times = CpuTimes::new(2);
        let start = times.from.0;
        let ms = Duration::from_millis;
        let at = |after| start + ms(after);
        let near = |shares: Vec<Option<f64>>, expected: [Option<f64>; 2]| {
            let rounded: Vec<_> =
                shares.iter().map(|share| share.map(|share| (share * 100.0).round() / 100.0)).collect();
            assert_eq!(rounded, expected);
        };
        near(times.shares(at(1000), vec![Some(ms(500)), None]), [Some(0.5), None]);
        near(times.shares(at(2000), vec![Some(ms(1500)), Some(ms(0))]), [Some(1.0), None]);
        // Looked at again too soon: still of the span before.
        near(times.shares(at(2050), vec![Some(ms(1550)), Some(ms(50))]), [Some(1.0), None]);
    }

    #[test]
    fn the_kernel_tells_how_long_a_thread_ran() {
        assert!(resident_bytes() > 0);
        assert_eq!(cpu_time(u32::MAX), None);
    }
}
