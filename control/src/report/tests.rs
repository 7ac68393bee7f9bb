//! Stories of proxies that connect, report, refuse and go.

use super::*;
use crate::compile::{GatewayClient, ResourceType};

const RINGWAY: &str = "ringway-proxy";

/// Proxies at the first world.
struct Mesh {
    proxies: Arc<Proxies>,
    sequence: u64,
}

impl Mesh {
    fn new() -> Mesh {
        let mesh = Mesh { proxies: Proxies::new(Arc::default()), sequence: 0 };
        mesh.next_world("r1")
    }

    fn next_world(mut self, revision: &str) -> Mesh {
        self.sequence += 1;
        self.proxies.announce(self.sequence, &revision.into(), SystemTime::now());
        self
    }

    fn connect(&self, node: &str, agent: &str) -> Connected {
        let gateway = GatewayClient {
            namespace: "shop".into(),
            name: "edge".into(),
            bind: [0, 0, 0, 0].into(),
            identity: None,
        };
        let agent = UserAgent { name: agent.into(), version: "1.2.3".into() };
        self.proxies.connect(node, Arc::new(Client::Gateway(gateway)), agent)
    }

    fn row(&self) -> ProxyRow {
        self.proxies.status(0).proxies.pop().unwrap()
    }

    fn state(&self) -> SyncState {
        self.row().state
    }
}

/// What a proxy should have of world `sequence`.
fn wanted(sequence: u64, revision: &str) -> Wanted {
    let hashes = ResourceType::ALL.map(|kind| format!("all of {}", kind.short()));
    Wanted { sequence, revision: revision.into(), hashes }
}

/// The report of a proxy that has it.
fn active() -> Vec<ActiveType> {
    let of = |kind: ResourceType| ActiveType {
        type_url: kind.type_url().into(),
        hash: format!("all of {}", kind.short()),
        ..ActiveType::default()
    };
    ResourceType::ALL.map(of).into()
}

fn hello(node: &str) -> Hello {
    Hello {
        node_id: node.into(),
        version: "0.1.0".into(),
        host: "vm1".into(),
        workers: 2,
        ..Hello::default()
    }
}

#[test]
fn one_of_ours_is_synced_when_it_says_so_and_not_when_it_acknowledges() {
    let mesh = Mesh::new();
    let stream = mesh.connect("edge-1", RINGWAY);
    stream.want(wanted(1, "r1"), None);
    stream.accept(Accepted { settled: true, refused: Vec::new() });
    assert_eq!(mesh.state(), SyncState::Pending);
    let report = mesh.proxies.hello(hello("edge-1"));
    assert_eq!(mesh.state(), SyncState::Pending);
    report.active(active(), 7);
    let row = mesh.row();
    assert_eq!((row.state, row.revision_active.as_str(), row.snapshot), (SyncState::Synced, "r1", 7));
    assert_eq!((row.host.as_str(), row.version.as_str(), row.workers), ("vm1", "0.1.0", 2));
    let mut other = active();
    other[2].hash = "0".repeat(16);
    report.active(other, 8);
    assert_eq!(mesh.state(), SyncState::Pending);
}

#[test]
fn envoy_is_synced_when_it_has_acknowledged() {
    let mesh = Mesh::new();
    let stream = mesh.connect("edge-1", "envoy");
    stream.want(wanted(1, "r1"), None);
    assert_eq!(mesh.state(), SyncState::Pending);
    stream.accept(Accepted { settled: true, refused: Vec::new() });
    assert_eq!(mesh.state(), SyncState::Synced);
    assert_eq!(mesh.row().version, "envoy 1.2.3");
}

#[test]
fn a_new_world_is_pending_until_its_stream_has_compared_it() {
    let mesh = Mesh::new();
    let stream = mesh.connect("edge-1", "envoy");
    stream.want(wanted(1, "r1"), None);
    stream.accept(Accepted { settled: true, refused: Vec::new() });
    let mesh = mesh.next_world("r2");
    let row = mesh.row();
    assert_eq!(row.state, SyncState::Pending);
    assert_eq!((row.revision_wanted.as_str(), row.revision_active.as_str()), ("r2", "r1"));
    assert!(!mesh.proxies.status(0).synced);
    // It compared, and nothing of it concerns this proxy.
    stream.want(wanted(2, "r2"), None);
    assert_eq!(mesh.row().revision_active, "r2");
    assert!(mesh.proxies.status(0).synced);
}

#[test]
fn a_refusal_is_shown_with_its_reason_and_the_proxys_own_words_count_first() {
    let mesh = Mesh::new();
    let stream = mesh.connect("edge-1", RINGWAY);
    stream.want(wanted(1, "r1"), None);
    let refused = |name: &str| Refused {
        kind: ResourceType::Route,
        name: name.into(),
        version: "v".into(),
        reason: "by NACK".into(),
    };
    stream.accept(Accepted { settled: false, refused: vec![refused("http"), refused("other")] });
    assert_eq!(mesh.state(), SyncState::Nack);
    let report = mesh.proxies.hello(hello("edge-1"));
    let mut types = active();
    types[3].rejected = vec![proto::control::RejectedResource {
        name: "http".into(),
        version: "v".into(),
        reason: "routes[0].match: bad".into(),
    }];
    report.active(types, 1);
    let shown: Vec<_> = mesh.row().refused.into_iter().map(|r| (r.kind, r.name, r.reason)).collect();
    let row = |name: &str, reason: &str| ("rds".to_owned(), name.to_owned(), reason.to_owned());
    assert_eq!(shown, [row("http", "routes[0].match: bad"), row("other", "by NACK")]);
}

#[test]
fn a_report_may_come_before_its_stream_and_stay_after_it() {
    let mesh = Mesh::new();
    let report = mesh.proxies.hello(hello("edge-1"));
    report.active(active(), 1);
    assert!(mesh.proxies.status(0).proxies.is_empty());
    let stream = mesh.connect("edge-1", RINGWAY);
    stream.want(wanted(1, "r1"), None);
    assert_eq!(mesh.state(), SyncState::Synced);
    drop(stream);
    drop(report);
    let row = mesh.row();
    assert_eq!((row.state, row.host.as_str()), (SyncState::Offline, "vm1"));
    assert!(!mesh.proxies.status(0).synced);
}

#[test]
fn a_proxy_that_says_goodbye_is_not_missed_whichever_stream_ends_first() {
    for report_ends_first in [true, false] {
        let mesh = Mesh::new();
        let stream = mesh.connect("edge-1", RINGWAY);
        stream.want(wanted(1, "r1"), None);
        let report = mesh.proxies.hello(hello("edge-1"));
        report.active(active(), 1);
        if report_ends_first {
            report.leave();
            assert_eq!(mesh.state(), SyncState::Synced, "it still serves");
            drop(stream);
        } else {
            drop(stream);
            assert_eq!(mesh.state(), SyncState::Offline);
            report.leave();
        }
        let status = mesh.proxies.status(0);
        assert!(status.proxies.is_empty() && status.synced, "{status:?}");

        // It may come back, and what it said the time before is forgotten.
        let stream = mesh.connect("edge-1", RINGWAY);
        let report = mesh.proxies.hello(hello("edge-1"));
        drop((stream, report));
        assert_eq!(mesh.state(), SyncState::Offline);
    }
}

#[test]
fn a_second_stream_of_a_node_takes_over_and_the_end_of_the_first_changes_nothing() {
    let mesh = Mesh::new();
    let first = mesh.connect("edge-1", "envoy");
    let second = mesh.connect("edge-1", "envoy");
    second.want(wanted(1, "r1"), None);
    second.accept(Accepted { settled: true, refused: Vec::new() });
    first.accept(Accepted::default());
    drop(first);
    assert_eq!(mesh.state(), SyncState::Synced);
}

#[test]
fn the_time_from_change_to_active_is_counted_once_per_proxy_it_concerns() {
    let metrics = Arc::new(Metrics::default());
    let mesh = Mesh { proxies: Proxies::new(metrics.clone()), sequence: 0 }.next_world("r1");
    let stream = mesh.connect("edge-1", "envoy");
    stream.want(wanted(1, "r1"), None);
    stream.accept(Accepted { settled: true, refused: Vec::new() });
    let count = || {
        let text = metrics.render(&crate::metrics::Gauges::default());
        let line =
            text.lines().find(|line| line.starts_with("ringway_control_apply_to_active_seconds_count"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(count(), "0", "a first connection is no change");
    let mesh = mesh.next_world("r2");
    stream.accept(Accepted::default());
    stream.want(wanted(2, "r2"), Some(Instant::now()));
    assert_eq!(count(), "0");
    stream.accept(Accepted { settled: true, refused: Vec::new() });
    stream.accept(Accepted { settled: true, refused: Vec::new() });
    assert_eq!(count(), "1");
    assert!(mesh.proxies.status(0).synced);
}

/// The sidecar of a service of namespace shop.
fn sidecar(mesh: &Mesh, node: &str, service: &str) -> Connected {
    let sidecar = crate::compile::Sidecar {
        namespace: "shop".into(),
        service: service.into(),
        instance: node.into(),
        inbound: ([10, 0, 0, 1], 15006).into(),
        app: ([127, 0, 0, 1], 8080).into(),
        app_protocol: String::new(),
        identity: None,
        outbound: None,
        to: Vec::new(),
    };
    let agent = UserAgent { name: RINGWAY.into(), version: "1".into() };
    mesh.proxies.connect(node, Arc::new(Client::Sidecar(sidecar)), agent)
}

/// What a proxy tells that takes plain text since `since`: `(address, connections)`, seen just now.
fn told(since: i64, sources: &[(&str, u64)]) -> proto::control::Plaintext {
    let now = plaintext::unix_ms(SystemTime::now());
    let source = |(address, connections): &(&str, u64)| proto::control::PlaintextSource {
        address: (*address).to_owned(),
        connections: *connections,
        last_seen_unix_ms: now.try_into().unwrap(),
    };
    proto::control::Plaintext { open_since_unix_ms: since, sources: sources.iter().map(source).collect() }
}

/// Everybody who ever came in plain text: `service address host connections`.
fn callers(mesh: &Mesh) -> Vec<String> {
    let edges = mesh.proxies.plaintext_since(0).into_iter();
    let shown = edges.map(|(Edge { to, from, host }, seen)| {
        format!("{to} {from} {} {}", host.as_deref().unwrap_or("-"), seen.connections)
    });
    shown.collect()
}

#[test]
fn callers_in_plain_text_are_added_up_over_proxies_and_streams() {
    let mesh = Mesh::new();
    let hello = |node, started_unix_ms| Hello { started_unix_ms, ..hello(node) };
    // The report may come before the ADS stream.
    let report = mesh.proxies.hello(hello("pay-1", 1));
    report.plaintext(told(7, &[("10.0.0.9", 3)]));
    assert!(callers(&mesh).is_empty());
    let _stream = sidecar(&mesh, "pay-1", "pay");
    assert_eq!(callers(&mesh), ["shop/pay 10.0.0.9 - 3"]);
    // The same process tells again, more, and on another stream.
    report.plaintext(told(7, &[("10.0.0.9", 5), ("127.0.0.1", 1)]));
    let report = mesh.proxies.hello(hello("pay-1", 1));
    report.plaintext(told(7, &[("10.0.0.9", 6), ("127.0.0.1", 1)]));
    assert_eq!(callers(&mesh), ["shop/pay 10.0.0.9 - 6", "shop/pay 127.0.0.1 vm1 1"]);
    // It had forgotten the source; another process begins anew; another proxy knows others; none is an address.
    report.plaintext(told(7, &[("10.0.0.9", 2)]));
    let report = mesh.proxies.hello(hello("pay-1", 2));
    report.plaintext(told(9, &[("10.0.0.9", 2)]));
    let (_other, other) = (sidecar(&mesh, "pay-2", "pay"), mesh.proxies.hello(hello("pay-2", 1)));
    other.plaintext(told(8, &[("10.0.0.9", 1), ("10.0.0.10", 1), ("me", 1)]));
    assert_eq!(
        callers(&mesh),
        ["shop/pay 10.0.0.9 - 11", "shop/pay 10.0.0.10 - 1", "shop/pay 127.0.0.1 vm1 1"]
    );
    assert_eq!(mesh.proxies.plaintext_since(u64::MAX).len(), 0);
    // A gateway has no callers of a mesh.
    let _edge = mesh.connect("edge-1", RINGWAY);
    mesh.proxies.hello(hello("edge-1", 1)).plaintext(told(7, &[("10.0.0.1", 1)]));
    assert_eq!(callers(&mesh).len(), 3);
}

#[test]
fn a_service_is_watched_when_all_of_its_proxies_tell() {
    let mesh = Mesh::new();
    let pay = crate::model::Name::new("shop", "pay");
    let watched = || mesh.proxies.plaintext_watched(&pay);
    assert_eq!(watched(), Watched::Not);
    let _first = sidecar(&mesh, "pay-1", "pay");
    let _web = sidecar(&mesh, "web-1", "web");
    assert_eq!(watched(), Watched::Partly);
    let report = mesh.proxies.hello(hello("pay-1"));
    assert_eq!(watched(), Watched::Partly);
    report.plaintext(told(7, &[]));
    assert_eq!(watched(), Watched::Since(7));
    let second = sidecar(&mesh, "pay-2", "pay");
    assert_eq!(watched(), Watched::Partly);
    let other = mesh.proxies.hello(hello("pay-2"));
    other.plaintext(told(9, &[]));
    assert_eq!(watched(), Watched::Since(7));
    drop(second);
    assert_eq!(watched(), Watched::Partly, "it is offline, and may still take somebody");
    let _second = sidecar(&mesh, "pay-2", "pay");
    report.plaintext(told(0, &[]));
    assert_eq!(watched(), Watched::Partly);
    report.plaintext(told(20, &[]));
    assert_eq!(watched(), Watched::Since(20), "between, nobody was let in who could have come");
}
