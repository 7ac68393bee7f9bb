//! Stories of configuration changes: what is sent, and what serves after it.
//!
//! Longer than 500 lines: they are one list, and share how updates are made and snapshots described.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use policy::{
    Weighted,
    cluster::{ClusterConfig, Discovery, Dns, DnsCache, DnsFamily},
    endpoint::{Assignment, DnsName, Endpoint, EndpointSpec},
    filter_chain::{FilterChain, FilterChainMatch, FilterChains},
    limits,
    network_filter::{HttpConnectionManager, NetworkFilter, RouteSource},
    route::{
        Forward, PathMatch, RouteActionSpec, RouteMatch, RouteSpec, RouteTable, RouteTableSpec, TargetSpec,
        VirtualHostSpec,
    },
    snapshot::{Address, Listener, ListenerFilters, Named, Snapshot},
};
use proto::type_url;

use translate::{
    Origin, Referring, Wanted,
    assemble::{Accepted, Assembler, Options, RejectedVersion, Update, hash_of},
};

/// An assembler and the last snapshot it gave.
struct Proxy {
    assembler: Assembler,
    snapshot: Arc<Snapshot>,
}

impl Proxy {
    fn new() -> Proxy {
        let assembler = Assembler::new(Options { workers: 2, seed: 7 });
        let snapshot = Snapshot {
            version: 0,
            listeners: Named::default(),
            route_tables: Named::default(),
            clusters: Named::default(),
            secrets: Named::default(),
        };
        Proxy { assembler, snapshot: Arc::new(snapshot) }
    }

    /// What serves after `updates`, or "unchanged".
    fn after(&mut self, updates: impl IntoIterator<Item = Update>) -> String {
        match self.assembler.apply(updates) {
            None => "unchanged".to_owned(),
            Some(snapshot) => {
                self.snapshot = snapshot;
                describe(&self.snapshot)
            }
        }
    }

    fn wanted(&self, type_url: &str) -> BTreeSet<Arc<str>> {
        self.assembler.wanted(type_url).into_keys().collect()
    }

    fn warming(&self, type_url: &str) -> Vec<String> {
        self.assembler.status(type_url).warming.iter().map(ToString::to_string).collect()
    }

    fn endpoint(&self, cluster: &str, address: &str) -> Endpoint {
        let address = Address::Socket(address.parse().unwrap());
        let all = self.snapshot.clusters.get(cluster).unwrap().endpoints.all();
        all.iter().find(|endpoint| endpoint.spec.address == address).unwrap().clone()
    }
}

/// `listeners | route table>clusters | cluster=endpoints`, each list in order of name.
fn describe(snapshot: &Snapshot) -> String {
    let names: Vec<_> = snapshot.listeners.iter().map(|(name, _)| name.to_string()).collect();
    let tables = snapshot.route_tables.iter().map(|(name, table)| {
        let clusters: Vec<_> = table.clusters().map(ToString::to_string).collect();
        format!("{name}>{}", clusters.join("+"))
    });
    let clusters = snapshot.clusters.iter().map(|(name, cluster)| {
        let all = cluster.all_endpoints();
        let addresses: Vec<_> = all.map(|endpoint| endpoint.spec.address.to_string()).collect();
        format!("{name}={}", addresses.join("+"))
    });
    let (tables, clusters): (Vec<_>, Vec<_>) = (tables.collect(), clusters.collect());
    format!("{} | {} | {}", names.join(" "), tables.join(" "), clusters.join(" "))
}

fn accepted<T>(name: &str, version: &str, value: T) -> Accepted<T> {
    Accepted { name: name.into(), version: version.into(), origin: Origin::Dynamic, value: Arc::new(value) }
}

/// An EDS cluster; the service name is the cluster's.
fn eds(name: &str) -> Update {
    eds_of(name, name)
}

fn eds_of(name: &str, service_name: &str) -> Update {
    let discovery = Discovery::Eds { service_name: service_name.into() };
    Update::Cluster(accepted(name, "1", ClusterConfig::new(name.into(), discovery)))
}

fn endpoints_at(addresses: &[&str]) -> Assignment {
    let address = |text: &&str| EndpointSpec::new(Address::Socket(text.parse::<SocketAddr>().unwrap()));
    Assignment { endpoints: addresses.iter().map(address).collect(), overprovisioning_percent: 140 }
}

fn assignment(service_name: &str, addresses: &[&str]) -> Update {
    Update::Assignment(accepted(service_name, "1", endpoints_at(addresses)))
}

/// A route table that forwards to `clusters`.
fn table_of(name: &str, clusters: &[&str]) -> RouteTable {
    let route = |cluster: &&str| RouteSpec {
        name: Arc::default(),
        matches: RouteMatch::path(PathMatch::Prefix(cluster.as_bytes().into())),
        action: RouteActionSpec::Forward(Forward::new(Weighted::one(TargetSpec {
            cluster: (*cluster).into(),
            ..TargetSpec::default()
        }))),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: Default::default(),
    };
    let host = VirtualHostSpec {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: clusters.iter().map(route).collect(),
        ..VirtualHostSpec::default()
    };
    let spec = RouteTableSpec { name: name.into(), virtual_hosts: vec![host], ..RouteTableSpec::default() };
    RouteTable::new(spec).unwrap()
}

fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn table(name: &str, clusters: &[&str]) -> Update {
    let value = Arc::new(table_of(name, clusters));
    let referring =
        Referring { value, clusters: names(clusters), route_tables: Wanted::new(), secrets: Wanted::new() };
    Update::RouteTable(accepted(name, "1", referring))
}

fn listener_with(name: &str, routes: RouteSource, clusters: &[&str], route_tables: &[&str]) -> Update {
    let manager = HttpConnectionManager::new(name.into(), routes);
    let chain = FilterChain {
        connection_limit: None,
        rbac: Default::default(),
        tls: None,
        name: Arc::default(),
        matches: FilterChainMatch::default(),
        filter: NetworkFilter::HttpConnectionManager(Arc::new(manager)),
    };
    let listener = Listener {
        name: name.into(),
        addresses: vec![Address::Socket("127.0.0.1:80".parse().unwrap())],
        bind_to_port: true,
        unsent_bytes_max: limits::UNSENT_BYTES_DEFAULT,
        stat_prefix: name.into(),
        listener_filters: ListenerFilters::default(),
        filter_chains: FilterChains::new(vec![chain], None).unwrap(),
    };
    Update::Listener(accepted(
        name,
        "1",
        Referring {
            value: Arc::new(listener),
            clusters: names(clusters),
            route_tables: names(route_tables).into_iter().map(|name| (name, None)).collect(),
            secrets: Wanted::new(),
        },
    ))
}

/// A listener with a route table by RDS.
fn listener(name: &str, route_table: &str) -> Update {
    listener_with(name, RouteSource::Named(route_table.into()), &[], &[route_table])
}

/// A listener with its routes in it.
fn inline(name: &str, clusters: &[&str]) -> Update {
    listener_with(name, RouteSource::Inline(Arc::new(table_of("", clusters))), clusters, &[])
}

fn absent(type_url: &'static str, name: &str) -> Update {
    Update::Absent { type_url, name: name.to_owned() }
}

/// A proxy that serves `web` → `r` → `a`.
fn serving() -> Proxy {
    let mut proxy = Proxy::new();
    let updates = [eds("a"), assignment("a", &["10.0.0.1:80"]), listener("web", "r"), table("r", &["a"])];
    assert_eq!(proxy.after(updates), "web | r>a | a=10.0.0.1:80");
    proxy
}

#[test]
fn everything_warms_in_the_order_of_its_references() {
    let mut proxy = Proxy::new();
    assert_eq!(proxy.after([listener("web", "r")]), "unchanged");
    assert_eq!(proxy.warming(type_url::LISTENER), ["web"]);
    assert_eq!(proxy.after([eds("a")]), "unchanged");
    assert_eq!(proxy.warming(type_url::CLUSTER), ["a"]);
    assert_eq!(proxy.after([table("r", &["a"])]), "unchanged");
    assert_eq!(proxy.warming(type_url::ROUTE_CONFIGURATION), ["r"]);
    assert_eq!(proxy.after([assignment("a", &["10.0.0.1:80"])]), "web | r>a | a=10.0.0.1:80");
    for type_url in type_url::MAKE_ORDER {
        assert_eq!(proxy.warming(type_url), [""; 0], "{type_url}");
    }
}

#[test]
fn what_to_ask_for_follows_from_what_was_received() {
    let mut proxy = Proxy::new();
    proxy.after([listener("web", "r"), eds_of("a", "a.service")]);
    assert_eq!(proxy.wanted(type_url::ROUTE_CONFIGURATION), names(&["r"]));
    assert_eq!(proxy.wanted(type_url::CLUSTER_LOAD_ASSIGNMENT), names(&["a.service"]));
    proxy.after([absent(type_url::LISTENER, "web"), absent(type_url::CLUSTER, "a")]);
    assert_eq!(proxy.wanted(type_url::ROUTE_CONFIGURATION), names(&[]));
    assert_eq!(proxy.wanted(type_url::CLUSTER_LOAD_ASSIGNMENT), names(&[]));
}

#[test]
fn the_old_route_table_serves_until_the_clusters_of_the_new_one_are_warm() {
    let mut proxy = serving();
    // The control plane takes the old cluster away in the same breath.
    let updates = [eds("b"), table("r", &["b"]), absent(type_url::CLUSTER, "a")];
    assert_eq!(proxy.after(updates), "unchanged");
    assert_eq!(proxy.after([assignment("b", &["10.0.0.2:80"])]), "web | r>b | b=10.0.0.2:80");
}

#[test]
fn routes_to_a_cluster_that_nobody_announced_do_not_wait() {
    let mut proxy = serving();
    assert_eq!(proxy.after([table("r", &["a", "nowhere"])]), "web | r>a+nowhere | a=10.0.0.1:80");
}

#[test]
fn a_removed_cluster_stays_until_no_route_names_it() {
    let mut proxy = serving();
    assert_eq!(proxy.after([absent(type_url::CLUSTER, "a")]), "unchanged");
    let moved = assignment("a", &["10.0.0.9:80"]);
    assert_eq!(proxy.after([moved]), "web | r>a | a=10.0.0.9:80", "it still gets its endpoints");
    assert_eq!(proxy.after([table("r", &[])]), "web | r> | ");
    assert_eq!(proxy.wanted(type_url::CLUSTER_LOAD_ASSIGNMENT), names(&[]));
}

#[test]
fn a_removed_route_table_stays_until_no_listener_names_it() {
    let mut proxy = serving();
    assert_eq!(proxy.after([absent(type_url::ROUTE_CONFIGURATION, "r")]), "unchanged");
    assert_eq!(proxy.after([absent(type_url::LISTENER, "web")]), " |  | a=10.0.0.1:80");
}

#[test]
fn a_listener_changes_over_when_its_new_routes_are_there() {
    let mut proxy = serving();
    assert_eq!(proxy.after([listener("web", "s")]), "unchanged");
    assert_eq!(proxy.wanted(type_url::ROUTE_CONFIGURATION), names(&["r", "s"]));
    assert_eq!(proxy.after([table("s", &["a"])]), "web | s>a | a=10.0.0.1:80");
    assert_eq!(proxy.after([inline("web", &["b"]), eds("b")]), "unchanged");
    let there = assignment("b", &["10.0.0.2:80"]);
    assert_eq!(proxy.after([there]), "web |  | a=10.0.0.1:80 b=10.0.0.2:80");
}

#[test]
fn a_changed_cluster_uses_the_endpoints_that_are_known_unless_its_service_changes() {
    let mut proxy = serving();
    let before = proxy.endpoint("a", "10.0.0.1:80");
    assert_eq!(proxy.after([eds("a")]), "web | r>a | a=10.0.0.1:80", "no new EDS response is needed");
    assert!(Arc::ptr_eq(&before.state, &proxy.endpoint("a", "10.0.0.1:80").state));
    assert_eq!(proxy.after([eds_of("a", "other")]), "unchanged");
    assert_eq!(proxy.warming(type_url::CLUSTER), ["a"]);
    let old = assignment("a", &["10.0.0.1:80", "10.0.0.3:80"]);
    assert_eq!(
        proxy.after([old]),
        "web | r>a | a=10.0.0.1:80+10.0.0.3:80",
        "the old version lives meanwhile"
    );
    assert_eq!(proxy.after([assignment("other", &["10.0.0.4:80"])]), "web | r>a | a=10.0.0.4:80");
}

#[test]
fn an_endpoint_keeps_its_state_as_long_as_its_address_stays() {
    let mut proxy = serving();
    let before = proxy.endpoint("a", "10.0.0.1:80");
    proxy.after([assignment("a", &["10.0.0.2:80", "10.0.0.1:80"])]);
    assert!(Arc::ptr_eq(&before.state, &proxy.endpoint("a", "10.0.0.1:80").state));
    proxy.after([assignment("a", &["10.0.0.2:80"])]);
    proxy.after([assignment("a", &["10.0.0.1:80"])]);
    assert_ne!(before.state.id(), proxy.endpoint("a", "10.0.0.1:80").state.id(), "it came back as another");
}

#[test]
fn what_did_not_change_is_shared_with_the_snapshot_before() {
    let mut proxy = serving();
    proxy.after([eds("b"), assignment("b", &["10.0.0.2:80"])]);
    let before = proxy.snapshot.clone();
    proxy.after([assignment("b", &["10.0.0.3:80"])]);
    let after = &proxy.snapshot;
    assert!(Arc::ptr_eq(before.clusters.get("a").unwrap(), after.clusters.get("a").unwrap()));
    assert!(!Arc::ptr_eq(before.clusters.get("b").unwrap(), after.clusters.get("b").unwrap()));
    assert!(Arc::ptr_eq(before.listeners.get("web").unwrap(), after.listeners.get("web").unwrap()));
    assert!(Arc::ptr_eq(before.route_tables.get("r").unwrap(), after.route_tables.get("r").unwrap()));
    assert_eq!((before.version, after.version), (2, 3));
}

#[test]
fn snapshots_that_differ_in_endpoints_alone_share_their_configuration() {
    let mut proxy = serving();
    for (update, shares) in [
        (assignment("a", &["10.0.0.2:80"]), true),
        (table("r", &["a"]), false),
        (eds("a"), false),
        (eds("b"), false),
        (listener("web", "r"), false),
        (absent(type_url::CLUSTER, "b"), false),
    ] {
        let before = proxy.snapshot.clone();
        let text = format!("{update:?}");
        proxy.after([update, assignment("b", &["10.0.0.3:80"])]);
        assert_ne!(proxy.snapshot.version, before.version, "{text}");
        assert_eq!(proxy.snapshot.shares_configuration_with(&before), shares, "{text}");
    }
}

#[test]
fn what_does_not_exist_holds_nobody_back() {
    let mut proxy = Proxy::new();
    let updates = [eds("a"), table("r", &["a"]), listener("web", "r")];
    assert_eq!(proxy.after(updates), "unchanged");
    assert_eq!(proxy.after([absent(type_url::CLUSTER_LOAD_ASSIGNMENT, "a")]), "web | r>a | a=");
    proxy.after([listener("other", "s")]);
    assert_eq!(proxy.after([absent(type_url::ROUTE_CONFIGURATION, "s")]), "other web | r>a | a=");
    let late = assignment("a", &["10.0.0.1:80"]);
    assert_eq!(proxy.after([late]), "other web | r>a | a=10.0.0.1:80");
}

#[test]
fn a_refused_version_changes_nothing_and_its_neighbours_update() {
    let mut proxy = serving();
    let rejected = RejectedVersion { version: "2".into(), reason: "name: required".into() };
    let refused =
        Update::Rejected { type_url: type_url::CLUSTER, name: "a".into(), rejected: rejected.clone() };
    let updates = [refused, eds("b"), assignment("b", &["10.0.0.2:80"])];
    assert_eq!(proxy.after(updates), "web | r>a | a=10.0.0.1:80 b=10.0.0.2:80");
    assert_eq!(proxy.assembler.status(type_url::CLUSTER).rejected, [("a".into(), rejected)]);
    proxy.after([eds("a")]);
    assert_eq!(proxy.assembler.status(type_url::CLUSTER).rejected, []);
}

#[test]
fn a_refused_first_version_holds_back_no_neighbour_but_replaces_nothing_that_serves() {
    let refused = |type_url, name: &str| Update::Rejected {
        type_url,
        name: name.to_owned(),
        rejected: RejectedVersion { version: "1".into(), reason: "name: required".into() },
    };
    let mut proxy = Proxy::new();
    let cold = [eds("a"), eds("b"), listener("web", "r"), table("r", &["a", "b"])];
    assert_eq!(proxy.after(cold), "unchanged");
    assert_eq!(proxy.after([refused(type_url::CLUSTER_LOAD_ASSIGNMENT, "a")]), " |  | a=");
    let rest = assignment("b", &["10.0.0.2:80"]);
    assert_eq!(proxy.after([rest]), "web | r>a+b | a= b=10.0.0.2:80");
    let updates = [listener("other", "s"), refused(type_url::ROUTE_CONFIGURATION, "s")];
    assert_eq!(proxy.after(updates), "other web | r>a+b | a= b=10.0.0.2:80");
    let updates = [listener("web", "s"), eds_of("b", "c"), refused(type_url::CLUSTER_LOAD_ASSIGNMENT, "c")];
    assert_eq!(proxy.after(updates), "unchanged", "a former version serves");
    assert_eq!(proxy.warming(type_url::LISTENER), ["web"]);
}

#[test]
fn an_assignment_reaches_every_cluster_of_its_service_and_one_of_nobody_is_dropped() {
    let mut proxy = serving();
    assert_eq!(proxy.after([eds_of("a2", "a")]), "web | r>a | a=10.0.0.1:80 a2=10.0.0.1:80");
    let updates = [assignment("a", &["10.0.0.5:80"]), assignment("nobody", &["10.0.0.6:80"])];
    assert_eq!(proxy.after(updates), "web | r>a | a=10.0.0.5:80 a2=10.0.0.5:80");
    assert_eq!(proxy.assembler.status(type_url::CLUSTER_LOAD_ASSIGNMENT).warming, []);
    assert_eq!(proxy.after([eds("nobody")]), "unchanged", "it must be asked for first");
}

#[test]
fn a_removed_assignment_stays_until_no_cluster_names_it() {
    let mut proxy = serving();
    assert_eq!(proxy.after([absent(type_url::CLUSTER_LOAD_ASSIGNMENT, "a")]), "unchanged");
    assert_eq!(proxy.after([eds("a")]), "web | r>a | a=10.0.0.1:80");
    let back = assignment("a", &["10.0.0.2:80"]);
    assert_eq!(proxy.after([back]), "web | r>a | a=10.0.0.2:80");
}

#[test]
fn a_dns_cluster_is_warm_when_every_name_was_looked_up() {
    let name = |host: &str| EndpointSpec::new(DnsName { host: host.into(), port: 80 });
    let dns = |endpoints| Dns {
        assignment: Assignment { endpoints, overprovisioning_percent: 140 },
        refresh_rate: limits::DNS_REFRESH_RATE_DEFAULT,
        respect_ttl: false,
        family: Default::default(),
    };
    let cluster = |name: &str, discovery| {
        Update::Cluster(accepted(name, "1", ClusterConfig::new(name.into(), discovery)))
    };
    let found = |cluster: &str, host: &str, addresses: &[&str]| Update::Dns {
        cluster: cluster.into(),
        host: host.into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let mut proxy = Proxy::new();
    let strict = Discovery::StrictDns(dns(vec![name("one"), name("two")]));
    let logical = Discovery::LogicalDns(dns(vec![name("one")]));
    assert_eq!(proxy.after([cluster("s", strict), cluster("l", logical)]), "unchanged");
    let asked: Vec<_> =
        proxy.assembler.dns_clusters().map(|(name, dns)| (&**name, dns.assignment.endpoints.len())).collect();
    assert_eq!(asked, [("l", 1), ("s", 2)]);
    assert_eq!(proxy.after([found("s", "one", &["10.0.0.1", "10.0.0.2"])]), "unchanged");
    assert_eq!(proxy.after([found("s", "two", &[])]), " |  | s=10.0.0.1:80+10.0.0.2:80");
    let both = "l=10.0.0.1:80 s=10.0.0.1:80+10.0.0.2:80";
    assert_eq!(proxy.after([found("l", "one", &["10.0.0.1", "10.0.0.2"])]), format!(" |  | {both}"));
    let turned_round = [
        found("l", "one", &["10.0.0.1", "10.0.0.3"]),
        found("s", "one", &["10.0.0.2", "10.0.0.1", "10.0.0.2"]),
    ];
    assert_eq!(proxy.after(turned_round), "unchanged");
    assert_eq!(
        proxy.after([found("s", "two", &["::1"])]),
        " |  | l=10.0.0.1:80 s=10.0.0.1:80+10.0.0.2:80+[::1]:80"
    );
}

#[test]
fn a_dynamic_forward_cluster_serves_at_once_and_learns_its_hosts_from_answers() {
    let cluster = |query_timeout: u64| {
        let cache = DnsCache {
            refresh_rate: Duration::from_secs(60),
            family: DnsFamily::V4Preferred,
            host_ttl: Duration::from_secs(300),
            hosts_max: 10,
            query_timeout: Duration::from_secs(query_timeout),
        };
        let config = ClusterConfig::new("out".into(), Discovery::DynamicForward(cache));
        Update::Cluster(accepted("out", "1", config))
    };
    let answer = |host: &str, addresses: &[&str]| Update::Dns {
        cluster: "out".to_owned(),
        host: host.to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let mut proxy = Proxy::new();
    assert_eq!(proxy.after([cluster(5)]), " |  | out=");
    assert!(proxy.assembler.dns_cache("out").is_some() && proxy.assembler.dns_cache("other").is_none());
    assert_eq!(
        proxy.after([answer("a.example:80", &["10.0.0.2", "10.0.0.1"])]),
        " |  | out=10.0.0.1:80+10.0.0.2:80"
    );
    let turned = [answer("a.example:80", &["10.0.0.1", "10.0.0.2"])];
    assert_eq!(proxy.after(turned), "unchanged");
    let more = [answer("b.example:8080", &["::1"]), answer("no.example:80", &[])];
    assert_eq!(proxy.after(more), " |  | out=10.0.0.1:80+10.0.0.2:80+[::1]:8080");
    let hosts = |proxy: &Proxy| {
        let hosts = &proxy.snapshot.clusters.get("out").unwrap().hosts;
        hosts.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(hosts(&proxy), ["a.example:80", "b.example:8080", "no.example:80"]);
    assert_eq!(proxy.after([cluster(6)]), " |  | out=10.0.0.1:80+10.0.0.2:80+[::1]:8080");
    let unused = |host: &str| Update::HostUnused { cluster: "out".into(), host: host.into() };
    assert_eq!(proxy.after([unused("a.example:80"), unused("no.example:80")]), " |  | out=[::1]:8080");
    assert_eq!(hosts(&proxy), ["b.example:8080"]);
    assert_eq!(proxy.after([absent(type_url::CLUSTER, "out")]), " |  | ");
    assert_eq!(proxy.after([cluster(5)]), " |  | out=", "what was known went with the cluster");
}

#[test]
fn what_the_bootstrap_file_has_nobody_replaces() {
    let mut proxy = Proxy::new();
    let config = ClusterConfig::new("a".into(), Discovery::Static(endpoints_at(&["10.0.0.1:80"])));
    let mut of_file = accepted("a", "", config);
    of_file.origin = Origin::Static;
    assert_eq!(proxy.after([Update::Cluster(of_file)]), " |  | a=10.0.0.1:80");
    assert!(proxy.assembler.is_static(type_url::CLUSTER, "a"));
    let updates = [eds("a"), assignment("a", &["10.0.0.2:80"]), absent(type_url::CLUSTER, "a")];
    assert_eq!(proxy.after(updates), "unchanged");
    assert_eq!(proxy.assembler.status(type_url::CLUSTER).active_count, 0, "no control plane knows it");
}

#[test]
fn the_report_says_what_is_active_and_what_is_not() {
    let mut proxy = serving();
    let revision = Update::Revision { type_url: type_url::CLUSTER, revision: "r42".into() };
    proxy.after([eds("b"), revision]);
    let report = proxy.assembler.status(type_url::CLUSTER).to_report(type_url::CLUSTER);
    assert_eq!(report.hash, format!("{:016x}", hash_of([("a", "1")])));
    assert_eq!((report.resources_count, report.warming_count, &*report.revision), (1, 1, "r42"));
    let endpoints = proxy.assembler.status(type_url::CLUSTER_LOAD_ASSIGNMENT);
    assert_eq!((endpoints.active_count, endpoints.warming.len()), (1, 0));
}
