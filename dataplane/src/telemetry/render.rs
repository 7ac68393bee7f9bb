//! Counters as Prometheus text: Envoy's names and labels, so that dashboards move over; what Envoy has no name for begins
//! with `ringway_`. Pure, on the control thread: a scrape never runs on a worker.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::Arc,
};

use policy::snapshot::Snapshot;

use crate::admission::Gate;

use super::{
    metrics::{self, BUCKETS_MS, ClusterStats, Counter, Histogram, Kind, ListenerStats, WorkerStats},
    registry::{Blocks, Registry},
};

/// What is rendered beside the blocks of counters.
#[derive(Debug)]
pub struct Process<'a> {
    /// What serves.
    pub snapshot: &'a Snapshot,
    /// The workers' own figures, by worker.
    pub workers: &'a [Arc<WorkerStats>],
    /// Numbers of the process as a whole: name, kind, help-free value.
    pub figures: &'a [(&'static str, Kind, f64)],
    /// `io_uring` or `epoll`.
    pub io_driver: &'a str,
    /// Why it is not io_uring.
    pub io_driver_reason: &'a str,
}

/// The whole page.
pub fn prometheus(registry: &Registry, process: &Process<'_>) -> String {
    let mut page = Page(String::with_capacity(64 * 1024));
    let clusters = Family { prefix: "envoy_cluster_", label: "envoy_cluster_name" };
    page.counters(&clusters, &registry.clusters, |block| block.counters.each().collect());
    page.classes(&clusters, "upstream_rq_xx", &registry.clusters, |block| &block.classes);
    page.membership(&clusters, process.snapshot);
    page.histogram(&clusters, "upstream_rq_time", &registry.clusters, |block| &block.rq_time);
    page.histogram(&clusters, "upstream_cx_connect_ms", &registry.clusters, |block| &block.cx_connect);

    let secured = Family { prefix: "envoy_cluster_ssl_", label: "envoy_cluster_name" };
    page.counters(&secured, &registry.clusters, |block| block.tls.each().collect());
    page.grpc(&registry.clusters);

    let http = Family { prefix: "envoy_http_", label: "envoy_http_conn_manager_prefix" };
    page.counters(&http, &registry.http, |block| block.counters.each().collect());
    page.classes(&http, "downstream_rq_xx", &registry.http, |block| &block.classes);
    page.histogram(&http, "downstream_rq_time", &registry.http, |block| &block.rq_time);
    let rbac = Family { prefix: "envoy_http_rbac_", label: "envoy_http_conn_manager_prefix" };
    page.counters(&rbac, &registry.http, |block| block.rbac.each().collect());
    let ours = Family { prefix: "ringway_", label: "envoy_http_conn_manager_prefix" };
    page.histogram(&ours, "proxy_added_time", &registry.http, |block| &block.added_time);

    let listeners = Family { prefix: "envoy_listener_", label: "envoy_listener_address" };
    page.counters(&listeners, &registry.listeners, |block| block.counters.each().collect());
    let secured = Family { prefix: "envoy_listener_ssl_", label: "envoy_listener_address" };
    page.counters(&secured, &registry.listeners, |block| block.tls.each().collect());
    page.plaintext(&registry.listeners);
    let tcp = Family { prefix: "envoy_tcp_", label: "envoy_tcp_prefix" };
    page.counters(&tcp, &registry.tcp, |block| block.each().collect());
    let rbac = Family { prefix: "envoy_rbac_", label: "envoy_rbac_prefix" };
    page.counters(&rbac, &registry.rbac, |block| block.each().collect());

    page.gates(registry);
    page.workers(process.workers);
    for (name, kind, value) in process.figures {
        page.head(name, kind_word(*kind));
        page.sample(name, &[], value);
    }
    let driver = [("driver", process.io_driver), ("reason", process.io_driver_reason)];
    page.head("ringway_io_driver", "gauge");
    page.sample("ringway_io_driver", &driver, &1);
    page.0
}

/// A counter of a block: name, kind, value.
type Row = (&'static str, Kind, u64);

/// Metrics of one kind of block.
struct Family {
    prefix: &'static str,
    /// What Envoy calls the block's name.
    label: &'static str,
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &dyn Display) {
        self.0.push_str(name);
        self.0.push('{');
        for (position, (label, value)) in labels.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let _ = write!(self.0, "{comma}{label}=\"{}\"", escape(value));
        }
        let _ = writeln!(self.0, "}} {value}");
    }

    /// Plain counters, summed over the workers.
    fn counters<T>(&mut self, family: &Family, blocks: &Blocks<T>, rows: impl Fn(&T) -> Vec<Row>) {
        let sums: Vec<(Cow<'_, str>, Vec<Row>)> =
            blocks.iter().map(|(name, blocks)| (block_name(name), sum(blocks, &rows))).collect();
        let names = sums.first().map(|(_, sums)| sums.as_slice()).unwrap_or_default();
        for (position, (name, kind, _)) in names.iter().enumerate() {
            let name = format!("{}{name}", family.prefix);
            self.head(&name, kind_word(*kind));
            for (block, sums) in &sums {
                if let Some((_, _, value)) = sums.get(position) {
                    self.sample(&name, &[(family.label, block)], value);
                }
            }
        }
    }

    /// gRPC calls by method, as Envoy's `grpc_stats` names them: one family for each status, and for what they come to.
    fn grpc(&mut self, blocks: &Blocks<ClusterStats>) {
        let mut calls: BTreeMap<(Cow<'_, str>, &str, &str), Vec<u64>> = BTreeMap::new();
        for (cluster, blocks) in blocks {
            for method in blocks.iter().flat_map(|block| block.grpc.methods()) {
                let (service, name) = method.names();
                let sums = calls
                    .entry((block_name(cluster), service, name))
                    .or_insert_with(|| vec![0; method.statuses.len()]);
                sums.iter_mut().zip(&method.statuses).for_each(|(sum, of)| *sum = sum.wrapping_add(of.get()));
            }
        }
        let statuses = calls.values().next().map_or(0, Vec::len);
        let known = (0..statuses.saturating_sub(1)).map(|status| (status.to_string(), status..status + 1));
        let failed = 1..statuses;
        let families =
            [("total".to_owned(), 0..statuses), ("success".to_owned(), 0..1), ("failure".to_owned(), failed)];
        for (name, range) in families.into_iter().chain(known) {
            let sum = |sums: &[u64]| sums.get(range.clone()).unwrap_or_default().iter().sum::<u64>();
            let name = format!("envoy_cluster_grpc_{name}");
            let mut has_head = false;
            for ((cluster, service, method), sums) in &calls {
                let value = sum(sums);
                if value > 0 {
                    if !std::mem::replace(&mut has_head, true) {
                        self.head(&name, "counter");
                    }
                    let labels = [
                        ("envoy_cluster_name", &**cluster),
                        ("envoy_grpc_bridge_service", *service),
                        ("envoy_grpc_bridge_method", *method),
                    ];
                    self.sample(&name, &labels, &value);
                }
            }
        }
    }

    /// Connections in plain text to listeners whose other connections are secured, and whom they are from.
    fn plaintext(&mut self, listeners: &Blocks<ListenerStats>) {
        if listeners.is_empty() {
            return;
        }
        let name = "ringway_plaintext_connections_total";
        self.head(name, "counter");
        for (listener, workers) in listeners {
            let count = |stats: &Arc<ListenerStats>| stats.plaintext.connections.get();
            let sum = workers.iter().map(count).fold(0, u64::wrapping_add);
            self.sample(name, &[("listener", &block_name(listener))], &sum);
        }
        let name = "ringway_plaintext_source_connections_total";
        let mut has_head = false;
        for (listener, workers) in listeners {
            for source in metrics::sources(workers) {
                if !std::mem::replace(&mut has_head, true) {
                    self.head(name, "counter");
                }
                let address = source.address.to_string();
                let labels = [("listener", &*block_name(listener)), ("source", &*address)];
                self.sample(name, &labels, &source.connections);
            }
        }
    }

    /// Responses by class of their status.
    fn classes<T>(
        &mut self,
        family: &Family,
        name: &str,
        blocks: &Blocks<T>,
        of: impl Fn(&T) -> &[Counter; 5],
    ) {
        if blocks.is_empty() {
            return;
        }
        let name = format!("{}{name}", family.prefix);
        self.head(&name, "counter");
        for (block, blocks) in blocks {
            let block = block_name(block);
            for (position, class) in ["1", "2", "3", "4", "5"].into_iter().enumerate() {
                let count = |block: &Arc<T>| of(block).get(position).map_or(0, Counter::get);
                let value = blocks.iter().map(count).fold(0, u64::wrapping_add);
                self.sample(&name, &[("envoy_response_code_class", class), (family.label, &block)], &value);
            }
        }
    }

    /// Milliseconds, as Envoy has them.
    fn histogram<T>(
        &mut self,
        family: &Family,
        name: &str,
        blocks: &Blocks<T>,
        of: impl Fn(&T) -> &Histogram,
    ) {
        if blocks.is_empty() {
            return;
        }
        let name = format!("{}{name}", family.prefix);
        self.head(&name, "histogram");
        let (bucket, sum_name, count_name) =
            (format!("{name}_bucket"), format!("{name}_sum"), format!("{name}_count"));
        for (block, blocks) in blocks {
            let block = block_name(block);
            let mut counts = [0u64; BUCKETS_MS.len() + 1];
            let mut sum_ns = 0u64;
            for histogram in blocks.iter().map(|block| of(block)) {
                counts
                    .iter_mut()
                    .zip(histogram.counts())
                    .for_each(|(sum, count)| *sum = sum.wrapping_add(count));
                sum_ns = sum_ns.wrapping_add(histogram.sum_ns());
            }
            let bounds = BUCKETS_MS.iter().map(f64::to_string).chain(std::iter::once("+Inf".to_owned()));
            let mut so_far = 0u64;
            for (bound, count) in bounds.zip(counts) {
                so_far = so_far.wrapping_add(count);
                self.sample(&bucket, &[(family.label, &block), ("le", &bound)], &so_far);
            }
            self.sample(&sum_name, &[(family.label, &block)], &(sum_ns as f64 / 1e6));
            self.sample(&count_name, &[(family.label, &block)], &so_far);
        }
    }

    /// How many endpoints there are and how many of them are healthy.
    fn membership(&mut self, family: &Family, snapshot: &Snapshot) {
        for (name, is_healthy_only) in [("membership_total", false), ("membership_healthy", true)] {
            if snapshot.clusters.is_empty() {
                return;
            }
            let name = format!("{}{name}", family.prefix);
            self.head(&name, "gauge");
            for (cluster, value) in snapshot.clusters.iter() {
                let endpoints = value.all_endpoints();
                let count = endpoints.filter(|of| !is_healthy_only || of.spec.health.is_healthy()).count();
                self.sample(&name, &[(family.label, &block_name(cluster))], &count);
            }
        }
    }

    /// Connection limits.
    fn gates(&mut self, registry: &Registry) {
        for (name, kind, of) in [
            ("envoy_connection_limit_active_connections", "gauge", Gate::open as fn(&Gate) -> u64),
            ("envoy_connection_limit_limited_connections", "counter", Gate::refused),
        ] {
            let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
            for (prefix, gate) in registry.gates.values() {
                *sums.entry(prefix).or_default() += of(gate);
            }
            if !sums.is_empty() {
                self.head(name, kind);
            }
            for (prefix, sum) in sums {
                self.sample(name, &[("envoy_connection_limit_prefix", &block_name(prefix))], &sum);
            }
        }
    }

    fn workers(&mut self, workers: &[Arc<WorkerStats>]) {
        let rows: Vec<Vec<_>> = workers.iter().map(|worker| worker.counters.each().collect()).collect();
        let names = rows.first().map(Vec::as_slice).unwrap_or_default();
        for (position, (name, kind, _)) in names.iter().enumerate() {
            let name = format!("ringway_worker_{name}");
            self.head(&name, kind_word(*kind));
            for (worker, row) in rows.iter().enumerate() {
                if let Some((_, _, value)) = row.get(position) {
                    self.sample(&name, &[("worker", &worker.to_string())], value);
                }
            }
        }
        self.head("ringway_worker_busy_seconds", "counter");
        for (worker, stats) in workers.iter().enumerate() {
            let seconds = stats.busy_ns.get() as f64 / 1e9;
            self.sample("ringway_worker_busy_seconds", &[("worker", &worker.to_string())], &seconds);
        }
    }
}

fn sum<T>(blocks: &[Arc<T>], rows: impl Fn(&T) -> Vec<Row>) -> Vec<Row> {
    let mut sums: Vec<Row> = Vec::new();
    for block in blocks {
        for (position, (name, kind, value)) in rows(block).into_iter().enumerate() {
            match sums.get_mut(position) {
                // A gauge that one worker raised and another lowered wraps in each and is right in the sum.
                Some((_, _, sum)) => *sum = sum.wrapping_add(value),
                None => sums.push((name, kind, value)),
            }
        }
    }
    sums
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    }
}

/// Envoy keeps colons out of the names of statistics, in addresses as in cluster names.
fn block_name(name: &str) -> Cow<'_, str> {
    if name.contains(':') { name.replace(':', "_").into() } else { name.into() }
}

fn escape(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::snapshot::Named;

    use super::*;
    use crate::telemetry::metrics::{ClusterStats, HttpStats, ListenerStats};

    fn two<T: Default>() -> Vec<Arc<T>> {
        vec![Arc::default(), Arc::default()]
    }

    fn page() -> String {
        let mut registry = Registry::new(2);
        let pay: Vec<Arc<ClusterStats>> = two();
        pay[0].response(200, Duration::from_micros(700));
        pay[1].response(503, Duration::from_millis(2));
        pay[1].counters.upstream_rq_total.add(2);
        pay[0].grpc.count(b"/shop.Cart/Add", Some(0));
        pay[1].grpc.count(b"/shop.Cart/Add", Some(0));
        pay[1].grpc.count(b"/shop.Cart/Add", Some(14));
        registry.clusters.insert("outbound|tcp|a.b:80".into(), pay);
        let ingress: Vec<Arc<HttpStats>> = two();
        ingress[0].response(204, Duration::from_millis(3), Duration::from_micros(50));
        ingress[0].counters.downstream_cx_active.inc();
        registry.http.insert("in\"gress".into(), ingress);
        let listener: Vec<Arc<ListenerStats>> = two();
        listener[1].counters.downstream_cx_total.inc();
        registry.listeners.insert("[::1]:8080".into(), listener);
        let snapshot = Snapshot {
            version: 1,
            listeners: Named::default(),
            route_tables: Named::default(),
            clusters: Named::default(),
            secrets: Named::default(),
        };
        let process = Process {
            snapshot: &snapshot,
            workers: &two(),
            figures: &[("envoy_server_live", Kind::Gauge, 1.0)],
            io_driver: "epoll",
            io_driver_reason: "no\nio_uring",
        };
        prometheus(&registry, &process)
    }

    #[test]
    fn lines_are_as_envoy_writes_them() {
        let page = page();
        for line in [
            "# TYPE envoy_cluster_upstream_rq_total counter",
            "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"outbound|tcp|a.b_80\"} 2",
            "envoy_cluster_upstream_rq_completed{envoy_cluster_name=\"outbound|tcp|a.b_80\"} 2",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|tcp|a.b_80\"} 1",
            "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"5\",envoy_cluster_name=\"outbound|tcp|a.b_80\"} 1",
            "# TYPE envoy_cluster_upstream_rq_time histogram",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|tcp|a.b_80\",le=\"0.5\"} 0",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|tcp|a.b_80\",le=\"1\"} 1",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|tcp|a.b_80\",le=\"3600000\"} 2",
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"outbound|tcp|a.b_80\",le=\"+Inf\"} 2",
            "envoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"outbound|tcp|a.b_80\"} 2.7",
            "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"outbound|tcp|a.b_80\"} 2",
            "# TYPE envoy_cluster_grpc_total counter",
            "envoy_cluster_grpc_total{envoy_cluster_name=\"outbound|tcp|a.b_80\",envoy_grpc_bridge_service=\"shop.Cart\",envoy_grpc_bridge_method=\"Add\"} 3",
            "envoy_cluster_grpc_success{envoy_cluster_name=\"outbound|tcp|a.b_80\",envoy_grpc_bridge_service=\"shop.Cart\",envoy_grpc_bridge_method=\"Add\"} 2",
            "envoy_cluster_grpc_14{envoy_cluster_name=\"outbound|tcp|a.b_80\",envoy_grpc_bridge_service=\"shop.Cart\",envoy_grpc_bridge_method=\"Add\"} 1",
            "# TYPE envoy_http_downstream_cx_active gauge",
            "envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"in\\\"gress\"} 1",
            "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"in\\\"gress\"} 1",
            "ringway_proxy_added_time_sum{envoy_http_conn_manager_prefix=\"in\\\"gress\"} 0.05",
            "envoy_listener_downstream_cx_total{envoy_listener_address=\"[__1]_8080\"} 1",
            "envoy_server_live{} 1",
            "ringway_worker_requests{worker=\"1\"} 0",
            "ringway_io_driver{driver=\"epoll\",reason=\"no\\nio_uring\"} 1",
        ] {
            assert!(page.lines().any(|known| known == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn every_name_has_one_type_and_stands_under_it() {
        let page = page();
        let mut types = std::collections::BTreeSet::new();
        let mut current = "";
        for line in page.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(head) => {
                    current = head.split_once(' ').unwrap().0;
                    assert!(types.insert(current), "{current} has two types");
                }
                None => assert!(line.starts_with(current), "{line} stands under {current}"),
            }
        }
        assert!(types.len() > 50, "{}", types.len());
    }
}
