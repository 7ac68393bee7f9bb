//! The pages themselves: pure functions from what the control thread knows to text.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use policy::{cluster::Discovery, endpoint::Health, snapshot::Snapshot};
use serde_json::{Value, json};
use translate::assemble::TypeStatus;

use crate::{bootstrap::Bootstrap, telemetry::metrics::WorkerStats, workers::Thread, xds::Kind};

/// What the proxy is doing, in Envoy's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The control plane has not answered yet.
    PreInitializing,
    /// Parts of the configuration are still missing or warming.
    Initializing,
    /// It serves.
    Live,
    /// It ends when its connections have ended.
    Draining,
}

impl State {
    /// Envoy's word.
    pub fn word(self) -> &'static str {
        match self {
            State::PreInitializing => "PRE_INITIALIZING",
            State::Initializing => "INITIALIZING",
            State::Live => "LIVE",
            State::Draining => "DRAINING",
        }
    }

    /// Envoy's number (`server.state`).
    pub fn number(self) -> u8 {
        match self {
            State::Live => 0,
            State::Draining => 1,
            State::PreInitializing => 2,
            State::Initializing => 3,
        }
    }
}

/// One worker for `/cores`.
#[derive(Clone, Debug)]
pub struct Core {
    /// Its thread.
    pub thread: Thread,
    /// Its figures.
    pub stats: Arc<WorkerStats>,
    /// Share of one CPU since the page was last looked at (or since the start), 0–1; `None` when the kernel does not say.
    pub cpu_share: Option<f64>,
}

/// `/cores`.
pub fn cores(cores: &[Core], io_driver: &str, io_driver_reason: &str) -> String {
    let core = |(worker, core): (usize, &Core)| {
        let counters = &core.stats.counters;
        json!({
            "worker": worker,
            "cpu": core.thread.cpu,
            "cpu_share": core.cpu_share.map(|share| (share * 1000.0).round() / 1000.0),
            "connections": counters.connections.get(),
            "handed_over": counters.handed_over.get(),
            "taken_over": counters.taken_over.get(),
            "upstream_cx_lent": counters.upstream_cx_lent.get(),
            "upstream_cx_borrowed": counters.upstream_cx_borrowed.get(),
            "requests": counters.requests.get(),
            "turns": counters.turns.get(),
            "completion_overflows": counters.completion_overflows.get(),
            "turn_us": {
                "p50": core.stats.turn_quantile_us(0.5),
                "p99": core.stats.turn_quantile_us(0.99),
                "max": core.stats.turn_quantile_us(1.0),
            },
            "snapshot_version": counters.snapshot_version.get(),
        })
    };
    let connections = cores.iter().map(|core| core.stats.counters.connections.get() as f64);
    pretty(&json!({
        "io_driver": io_driver,
        "io_driver_reason": io_driver_reason,
        "imbalance": {
            "connections": imbalance(connections),
            "cpu_share": imbalance(cores.iter().filter_map(|core| core.cpu_share)),
        },
        "cores": cores.iter().enumerate().map(core).collect::<Vec<_>>(),
    }))
}

/// How much more than its even share the core with most has: 1 is even; `None` where none has anything.
fn imbalance(shares: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let (count, total) =
        shares.clone().fold((0.0, 0.0), |(count, total), share| (count + 1.0, total + share));
    let most = shares.fold(0.0, f64::max);
    (total > 0.0).then(|| (most * count / total * 100.0).round() / 100.0)
}

/// `/clusters`, in Envoy's format. `is_static` tells the clusters of the bootstrap file from the others.
pub fn clusters(snapshot: &Snapshot, is_static: impl Fn(&str) -> bool) -> String {
    let mut page = String::new();
    for (name, cluster) in snapshot.clusters.iter() {
        let _ = writeln!(page, "{name}::observability_name::{name}");
        let _ = writeln!(page, "{name}::added_via_api::{}", !is_static(name));
        if let Discovery::Eds { service_name } = &cluster.config.discovery {
            let _ = writeln!(page, "{name}::eds_service_name::{service_name}");
        }
        for endpoint in cluster.all_endpoints() {
            let spec = &endpoint.spec;
            let mut line = |field: &str, value: &dyn std::fmt::Display| {
                let _ = writeln!(page, "{name}::{}::{field}::{value}", spec.address);
            };
            line("rq_active", &endpoint.state.in_flight());
            line("hostname", &spec.hostname.as_deref().unwrap_or_default());
            line("health_flags", &health_flags(spec.health));
            line("weight", &spec.weight);
            line("region", &spec.locality.region);
            line("zone", &spec.locality.zone);
            line("sub_zone", &spec.locality.sub_zone);
            line("priority", &spec.priority);
        }
    }
    page
}

fn health_flags(health: Health) -> &'static str {
    match health {
        Health::Unknown | Health::Healthy => "healthy",
        Health::Degraded => "/degraded_eds_health",
        Health::Unhealthy | Health::Draining | Health::Timeout => "/failed_eds_health",
    }
}

/// `/listeners`, in Envoy's format.
pub fn listeners<'a>(serving: impl Iterator<Item = (&'a str, SocketAddr)>) -> String {
    serving.fold(String::new(), |mut page, (name, address)| {
        let _ = writeln!(page, "{name}::{address}");
        page
    })
}

/// One resource type for `/config_dump`.
#[derive(Debug)]
pub struct Dumped {
    /// The type.
    pub kind: Kind,
    /// Names of the bootstrap file's own, that serve.
    pub fixed: Vec<Arc<str>>,
    /// What serves of the control plane's: name and version.
    pub active: Vec<(Arc<str>, Arc<str>)>,
    /// The rest.
    pub status: TypeStatus,
}

/// `/config_dump`: what serves and what does not, with versions and reasons.
pub fn config_dump(snapshot_version: u64, types: &[Dumped]) -> String {
    let resource = |(name, version): &(Arc<str>, Arc<str>)| json!({"name": **name, "version": **version});
    let of_type = |dumped: &Dumped| {
        let status = &dumped.status;
        let rejected = status.rejected.iter().map(|(name, rejected)| {
            json!({"name": **name, "version": rejected.version, "reason": rejected.reason})
        });
        json!({
            "type_url": dumped.kind.type_url(),
            "revision": status.revision,
            "hash": format!("{:016x}", status.hash),
            "static": dumped.fixed.iter().map(|name| &**name).collect::<Vec<_>>(),
            "active": dumped.active.iter().map(resource).collect::<Vec<_>>(),
            "warming": status.warming.iter().map(|name| &**name).collect::<Vec<_>>(),
            "rejected": rejected.collect::<Vec<_>>(),
        })
    };
    pretty(&json!({
        "snapshot_version": snapshot_version,
        "types": types.iter().map(of_type).collect::<Vec<_>>(),
    }))
}

/// What `/server_info` says beside the node.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    /// What it is doing.
    pub state: State,
    /// Since its start.
    pub uptime: Duration,
    /// How many workers there are.
    pub workers: usize,
    /// The bootstrap file.
    pub config_path: &'a str,
    /// `io_uring` or `epoll`.
    pub io_driver: &'a str,
    /// Control plane's address, and whether it is connected.
    pub control_plane: Option<(String, bool)>,
    /// The file of the last good configuration.
    pub state_file: Option<String>,
}

/// `/server_info`.
pub fn server_info(server: &Server<'_>, bootstrap: &Bootstrap) -> String {
    let control_plane = server.control_plane.as_ref();
    pretty(&json!({
        "version": format!("ringway-proxy/{}", env!("CARGO_PKG_VERSION")),
        "state": server.state.word(),
        "uptime_current_epoch": format!("{}s", server.uptime.as_secs()),
        "uptime_all_epochs": format!("{}s", server.uptime.as_secs()),
        "command_line_options": {"concurrency": server.workers, "config_path": server.config_path},
        "node": {"id": bootstrap.node.id, "cluster": bootstrap.node.cluster},
        "io_driver": server.io_driver,
        "control_plane": control_plane.map(|(address, connected)| json!({"address": address, "connected": connected})),
        "state_file": server.state_file,
    }))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use policy::{
        cluster::{Cluster, ClusterConfig},
        endpoint::{Assignment, EndpointIds, EndpointSpec},
        snapshot::{Address, Named},
    };
    use translate::assemble::RejectedVersion;

    use super::*;

    #[test]
    fn clusters_are_listed_as_envoy_lists_them() {
        let mut spec = EndpointSpec::new(Address::Socket("10.0.0.7:80".parse().unwrap()));
        spec.health = Health::Draining;
        let assignment = Assignment { endpoints: vec![spec], overprovisioning_percent: 140 };
        let discovery = Discovery::Eds { service_name: "pay.shop".into() };
        let config = Arc::new(ClusterConfig::new("pay".into(), discovery));
        let cluster = Cluster::assemble(config, &assignment, None, &mut EndpointIds::default(), 1);
        let snapshot = Snapshot {
            version: 1,
            listeners: Named::default(),
            route_tables: Named::default(),
            clusters: Named::new([(Arc::from("pay"), Arc::new(cluster))].into(), 0),
            secrets: Named::default(),
        };
        assert_eq!(
            clusters(&snapshot, |_| false),
            "pay::observability_name::pay\npay::added_via_api::true\npay::eds_service_name::pay.shop\n\
             pay::10.0.0.7:80::rq_active::0\npay::10.0.0.7:80::hostname::\n\
             pay::10.0.0.7:80::health_flags::/failed_eds_health\npay::10.0.0.7:80::weight::1\n\
             pay::10.0.0.7:80::region::\npay::10.0.0.7:80::zone::\npay::10.0.0.7:80::sub_zone::\n\
             pay::10.0.0.7:80::priority::0\n"
        );
    }

    #[test]
    fn the_dump_says_what_serves_what_waits_and_what_was_refused_and_why() {
        let rejected =
            RejectedVersion { version: "3".into(), reason: "lb_policy: MAGLEV is not supported".into() };
        let status = TypeStatus {
            hash: 0xab,
            active_count: 1,
            revision: "r7".into(),
            warming: vec!["cart".into()],
            rejected: vec![("pay".into(), rejected)],
        };
        let active = vec![("pay".into(), "2".into())];
        let dumped = Dumped { kind: Kind::Cluster, fixed: vec!["local".into()], active, status };
        let page: Value = serde_json::from_str(&config_dump(5, &[dumped])).unwrap();
        assert_eq!(
            page,
            json!({"snapshot_version": 5, "types": [{
                "type_url": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "revision": "r7", "hash": "00000000000000ab", "static": ["local"],
                "active": [{"name": "pay", "version": "2"}], "warming": ["cart"],
                "rejected": [{"name": "pay", "version": "3", "reason": "lb_policy: MAGLEV is not supported"}],
            }]})
        );
    }

    #[test]
    fn cores_tell_how_uneven_they_are_loaded() {
        let core = |connections: u64, cpu_share: Option<f64>| {
            let stats = Arc::new(WorkerStats::default());
            stats.counters.connections.set(connections);
            Core { thread: Thread { id: 1, cpu: None }, stats, cpu_share }
        };
        for (cores_are, connections, cpu_share) in [
            (vec![core(4, Some(0.5)), core(4, Some(0.1))], json!(1.0), json!(1.67)),
            (vec![core(6, None), core(1, None), core(2, None)], json!(2.0), json!(null)),
            (vec![core(0, Some(0.0))], json!(null), json!(null)),
        ] {
            let page: Value = serde_json::from_str(&cores(&cores_are, "epoll", "")).unwrap();
            assert_eq!(page["imbalance"], json!({"connections": connections, "cpu_share": cpu_share}));
        }
    }

    #[test]
    fn cores_show_each_worker_with_its_turns() {
        let stats = Arc::new(WorkerStats::default());
        stats.turn(Duration::from_micros(3));
        stats.counters.requests.add(7);
        stats.counters.completion_overflows.set(9);
        let thread = Thread { id: 1, cpu: Some(2) };
        let page = cores(&[Core { thread, stats, cpu_share: Some(0.12345) }], "epoll", "EPERM");
        let page: Value = serde_json::from_str(&page).unwrap();
        assert_eq!(page["io_driver_reason"], "EPERM");
        let core = &page["cores"][0];
        assert_eq!(
            (&core["cpu"], &core["requests"], &core["cpu_share"]),
            (&json!(2), &json!(7), &json!(0.123))
        );
        assert_eq!((&core["turns"], &core["completion_overflows"]), (&json!(1), &json!(9)));
        assert_eq!(core["turn_us"], json!({"p50": 4, "p99": 4, "max": 4}));
    }
}
