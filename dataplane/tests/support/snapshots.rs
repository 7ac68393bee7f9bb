//! Snapshots for the fixture: from a [`Config`] to what a worker adopts, carried over by name as the control thread does.

use std::{cell::RefCell, collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};

use dataplane::{
    admission::Gate,
    telemetry::metrics::{ClusterStats, HttpStats, Kind, ListenerCounters, TcpCounters},
    worker::{Bound, BoundCluster},
};
use policy::{
    Rng, Weighted,
    balance::PickState,
    cluster::{Cluster, ClusterConfig, Discovery},
    endpoint::{Assignment, EndpointIds, EndpointSpec},
    filter_chain::{FilterChain, FilterChainMatch, FilterChains},
    limits,
    network_filter::{ConnectionLimit, HttpConnectionManager, NetworkFilter, RouteSource, TcpProxy},
    route::{
        Forward, PathMatch, RouteActionSpec, RouteMatch, RouteScratch, RouteSpec, RouteTable, RouteTableSpec,
        TargetSpec, VirtualHostSpec,
    },
    snapshot::{Address, Listener, ListenerFilters, Named, Snapshot},
};

use super::LISTENER;

/// The configuration that snapshots are made of.
#[derive(Clone)]
pub(crate) struct Config {
    /// The listener's connection manager; its routes are replaced.
    pub(crate) manager: HttpConnectionManager,
    /// The routes of the one virtual host, made anew for each snapshot.
    pub(crate) routes: Rc<dyn Fn() -> Vec<RouteSpec>>,
    /// The clusters with the addresses of their endpoints.
    pub(crate) clusters: BTreeMap<Arc<str>, (ClusterConfig, Vec<SocketAddr>)>,
    /// What was looked up of the hosts of dynamic forward clusters.
    pub(crate) hosts: BTreeMap<Arc<str>, Vec<SocketAddr>>,
    /// Speak TCP instead, to [`APP`].
    pub(crate) tcp: Option<TcpProxy>,
    /// The listener is there.
    pub(crate) is_listening: bool,
    /// How many connections it takes at a time.
    pub(crate) connection_limit: Option<ConnectionLimit>,
    /// What is read before a filter chain is picked.
    pub(crate) listener_filters: ListenerFilters,
}

/// Makes snapshots and a worker's part of them, carrying over what the ones before had by name.
#[derive(Default)]
pub(crate) struct Binder {
    version: u64,
    ids: EndpointIds,
    previous: Option<Arc<Snapshot>>,
    pub(crate) clusters: BTreeMap<Arc<str>, Arc<ClusterStats>>,
    listeners: BTreeMap<Arc<str>, Arc<ListenerCounters>>,
    pub(crate) http: BTreeMap<Arc<str>, Arc<HttpStats>>,
    tcp: BTreeMap<Arc<str>, Arc<TcpCounters>>,
    gate: Arc<Gate>,
}

impl Binder {
    pub(crate) fn bind(&mut self, config: &Config) -> Box<Bound> {
        let snapshot = Arc::new(self.snapshot(config));
        let mut rng = Rng::new(self.version);
        let clusters = snapshot.clusters.iter().map(|(name, cluster)| BoundCluster {
            stats: self.clusters.entry(name.clone()).or_default().clone(),
            pick: RefCell::new(PickState::new(&cluster.endpoints, &mut rng)),
        });
        let clusters = clusters.collect();
        let listeners = snapshot.listeners.iter();
        let listeners =
            listeners.map(|(name, _)| self.listeners.entry(name.clone()).or_default().clone()).collect();
        let http_prefix = config.manager.stat_prefix.clone();
        let http = self.http.entry(http_prefix.clone()).or_default().clone();
        let tcp = self.tcp.entry("tcp".into()).or_default().clone();
        self.previous = Some(snapshot.clone());
        Box::new(Bound {
            snapshot,
            clusters,
            listeners,
            http: [(http_prefix, http)].into_iter().collect(),
            tcp: [("tcp".into(), tcp)].into_iter().collect(),
            gates: [("limit".into(), self.gate.clone())].into_iter().collect(),
            scratch: RefCell::new(RouteScratch::default()),
        })
    }

    fn snapshot(&mut self, config: &Config) -> Snapshot {
        self.version += 1;
        let mut clusters = BTreeMap::new();
        for (name, (cluster, endpoints)) in &config.clusters {
            let previous = self.previous.as_ref().and_then(|snapshot| snapshot.clusters.get(name));
            let previous = previous.map(|cluster| &**cluster);
            let hosts = config.hosts.iter().map(|(name, addresses)| (name.clone(), assignment(addresses)));
            let (config, ids) = (Arc::new(cluster.clone()), &mut self.ids);
            let cluster = match &config.discovery {
                Discovery::DynamicForward(_) => {
                    Cluster::assemble_dynamic(config, hosts.collect(), previous, ids, (1, 3))
                }
                _ => Cluster::assemble(config, &assignment(endpoints), previous, ids, 1),
            };
            clusters.insert(name.clone(), Arc::new(cluster));
        }
        let mut listeners = BTreeMap::new();
        if config.is_listening {
            listeners.insert(Arc::from(LISTENER), Arc::new(listener(config)));
        }
        Snapshot {
            version: self.version,
            listeners: Named::new(listeners, 1),
            route_tables: Named::default(),
            clusters: Named::new(clusters, 2),
        }
    }

    /// Gauges that are not 0.
    pub(crate) fn gauges(&self) -> Vec<(String, u64)> {
        let named = |name: &str, (counter, kind, value)| (name.to_owned() + "." + counter, kind, value);
        let clusters =
            self.clusters.iter().flat_map(|(name, stats)| stats.counters.each().map(|c| named(name, c)));
        let listeners = self.listeners.iter().flat_map(|(name, stats)| stats.each().map(|c| named(name, c)));
        let http = self.http.iter().flat_map(|(name, stats)| stats.counters.each().map(|c| named(name, c)));
        let all = clusters.chain(listeners).chain(http);
        all.filter(|(_, kind, value)| *kind == Kind::Gauge && *value != 0)
            .map(|(name, _, value)| (name, value))
            .collect()
    }
}

fn assignment(addresses: &[SocketAddr]) -> Assignment {
    let spec = |address: &SocketAddr| EndpointSpec::new(Address::Socket(*address));
    Assignment {
        endpoints: addresses.iter().map(spec).collect(),
        overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT,
    }
}

fn listener(config: &Config) -> Listener {
    let filter = match &config.tcp {
        Some(tcp) => NetworkFilter::TcpProxy(Arc::new(tcp.clone())),
        None => {
            let table = RouteTableSpec {
                virtual_hosts: vec![VirtualHostSpec {
                    name: "all".into(),
                    domains: vec!["*".into()],
                    routes: (config.routes)(),
                    ..VirtualHostSpec::default()
                }],
                ..RouteTableSpec::default()
            };
            let routes = RouteSource::Inline(Arc::new(RouteTable::new(table).unwrap()));
            let manager = HttpConnectionManager { routes, ..config.manager.clone() };
            NetworkFilter::HttpConnectionManager(Arc::new(manager))
        }
    };
    let limit = config.connection_limit.clone();
    let matches = FilterChainMatch::default();
    let chain = FilterChain { name: "".into(), matches, connection_limit: limit, filter };
    Listener {
        name: LISTENER.into(),
        addresses: Vec::new(),
        bind_to_port: true,
        stat_prefix: LISTENER.into(),
        listener_filters: config.listener_filters,
        filter_chains: FilterChains::new(vec![chain], None).unwrap(),
    }
}

/// A route by prefix.
pub(crate) fn route(prefix: &str, forward: Forward<TargetSpec>) -> RouteSpec {
    RouteSpec {
        name: prefix.into(),
        matches: RouteMatch::path(PathMatch::Prefix(prefix.as_bytes().into())),
        action: RouteActionSpec::Forward(forward),
        request_headers: Default::default(),
        response_headers: Default::default(),
    }
}

/// Forwards to a cluster.
pub(crate) fn forward_to(cluster: &str) -> Forward<TargetSpec> {
    Forward::new(Weighted::one(TargetSpec { cluster: cluster.into(), ..TargetSpec::default() }))
}
