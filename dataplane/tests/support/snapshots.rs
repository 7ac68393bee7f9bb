//! Snapshots for the fixture: from a [`Config`] to what workers adopt, carried over by name as the control thread does.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};

use dataplane::{
    telemetry::{metrics::Kind, registry::Registry},
    worker::Bound,
};
use policy::{
    Rng, Weighted,
    cluster::{Cluster, ClusterConfig, Discovery},
    endpoint::{Assignment, EndpointIds, EndpointSpec},
    filter_chain::{FilterChain, FilterChainMatch, FilterChains, TransportProtocol},
    limits,
    network_filter::{
        ConnectionLimit, HttpConnectionManager, NetworkFilter, NetworkRbac, RouteSource, TcpProxy,
    },
    route::{
        Forward, PathMatch, RouteActionSpec, RouteMatch, RouteSpec, RouteTable, RouteTableSpec, TargetSpec,
        VirtualHostSpec,
    },
    snapshot::{Address, Listener, ListenerFilters, Named, Snapshot},
    tls::{DownstreamTls, Secret},
};

use super::LISTENER;

/// Whether connections are taken that do not ask for the TLS that ends at the listener.
pub(crate) type IsElseTaken = bool;

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
    /// Speak HTTP where HTTP is seen, TCP elsewhere.
    pub(crate) detects: bool,
    /// The listener is there.
    pub(crate) is_listening: bool,
    /// How many connections it takes at a time.
    pub(crate) connection_limit: Option<ConnectionLimit>,
    /// Who may connect.
    pub(crate) rbac: Vec<NetworkRbac>,
    /// What is read before a filter chain is picked.
    pub(crate) listener_filters: ListenerFilters,
    /// TLS that ends at the listener.
    pub(crate) tls: Option<Arc<DownstreamTls>>,
    /// The application protocol by which a ClientHello asks for that; other connections find no place there, or that of
    /// everything else.
    pub(crate) tls_by: Option<(&'static str, IsElseTaken)>,
    /// What certificates and trust come from, by name.
    pub(crate) secrets: BTreeMap<Arc<str>, Arc<Secret>>,
}

/// Makes snapshots and each worker's part of them, carrying over what the ones before had by name.
pub(crate) struct Binder {
    workers: usize,
    version: u64,
    ids: EndpointIds,
    previous: Option<Arc<Snapshot>>,
    pub(crate) registry: Registry,
}

/// A counter: name, kind, value.
pub(crate) type Row = (&'static str, Kind, u64);

impl Binder {
    pub(crate) fn new(workers: usize) -> Binder {
        let registry = Registry::new(workers);
        Binder { workers, version: 0, ids: EndpointIds::default(), previous: None, registry }
    }

    /// One for each worker.
    pub(crate) fn bind(&mut self, config: &Config) -> impl Iterator<Item = Box<Bound>> + use<> {
        let snapshot = Arc::new(self.snapshot(config));
        self.previous = Some(snapshot.clone());
        self.registry.bind(&snapshot, &mut Rng::new(self.version)).into_iter()
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
                    Cluster::assemble_dynamic(config, hosts.collect(), previous, ids, (self.workers, 3))
                }
                _ => Cluster::assemble(config, &assignment(endpoints), previous, ids, self.workers),
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
            secrets: Named::new(config.secrets.clone(), 3),
        }
    }

    /// Gauges that are not 0.
    pub(crate) fn gauges(&self) -> Vec<(String, u64)> {
        let Registry { clusters, listeners, http, .. } = &self.registry;
        let named = |name: &Arc<str>, rows: Vec<Row>| {
            let gauges = rows.into_iter().filter(|(_, kind, value)| *kind == Kind::Gauge && *value != 0);
            gauges.map(|(counter, _, value)| (format!("{name}.{counter}"), value)).collect::<Vec<_>>()
        };
        let clusters =
            clusters.iter().map(|(name, of)| named(name, sum(of, |block| block.counters.each().collect())));
        let listeners =
            listeners.iter().map(|(name, of)| named(name, sum(of, |block| block.counters.each().collect())));
        let http =
            http.iter().map(|(name, of)| named(name, sum(of, |block| block.counters.each().collect())));
        clusters.chain(listeners).chain(http).flatten().collect()
    }
}

/// The counters of all workers' blocks, added up.
pub(crate) fn sum<T>(blocks: &[Arc<T>], rows: impl Fn(&T) -> Vec<Row>) -> Vec<Row> {
    let of_workers: Vec<Vec<Row>> = blocks.iter().map(|block| rows(block)).collect();
    let added = |at: usize| of_workers.iter().map(|rows| rows[at].2).fold(0, u64::wrapping_add);
    of_workers[0].iter().enumerate().map(|(at, (name, kind, _))| (*name, *kind, added(at))).collect()
}

fn assignment(addresses: &[SocketAddr]) -> Assignment {
    let spec = |address: &SocketAddr| EndpointSpec::new(Address::Socket(*address));
    Assignment {
        endpoints: addresses.iter().map(spec).collect(),
        overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT,
    }
}

fn listener(config: &Config) -> Listener {
    let chain = |protocols: &[&str], filter| FilterChain {
        name: "".into(),
        matches: FilterChainMatch {
            application_protocols: protocols.iter().map(|protocol| protocol.as_bytes().into()).collect(),
            ..FilterChainMatch::default()
        },
        connection_limit: config.connection_limit.clone(),
        rbac: config.rbac.clone().into(),
        tls: config.tls.clone(),
        filter,
    };
    let tcp = |tcp: &TcpProxy| chain(&[], NetworkFilter::TcpProxy(Arc::new(tcp.clone())));
    let mut chains = match &config.tcp {
        Some(proxy) if config.detects => vec![chain(&["http/1.1", "h2c"], http(config)), tcp(proxy)],
        Some(proxy) => vec![tcp(proxy)],
        None => vec![chain(&[], http(config))],
    };
    let mut default = None;
    if let (Some((protocol, is_else_taken)), [chain]) = (config.tls_by, &mut chains[..]) {
        default = is_else_taken.then(|| FilterChain { tls: None, ..chain.clone() });
        chain.matches.transport_protocol = Some(TransportProtocol::Tls);
        chain.matches.application_protocols = vec![protocol.as_bytes().into()];
    }
    Listener {
        name: LISTENER.into(),
        addresses: Vec::new(),
        bind_to_port: true,
        unsent_bytes_max: limits::UNSENT_BYTES_DEFAULT,
        stat_prefix: LISTENER.into(),
        listener_filters: config.listener_filters,
        filter_chains: FilterChains::new(chains, default).unwrap(),
    }
}

fn http(config: &Config) -> NetworkFilter {
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
    NetworkFilter::HttpConnectionManager(Arc::new(HttpConnectionManager { routes, ..config.manager.clone() }))
}

/// A route by prefix.
pub(crate) fn route(prefix: &str, forward: Forward<TargetSpec>) -> RouteSpec {
    RouteSpec {
        name: prefix.into(),
        matches: RouteMatch::path(PathMatch::Prefix(prefix.as_bytes().into())),
        action: RouteActionSpec::Forward(forward),
        request_headers: Default::default(),
        response_headers: Default::default(),
        filters: Default::default(),
    }
}

/// Forwards to a cluster.
pub(crate) fn forward_to(cluster: &str) -> Forward<TargetSpec> {
    Forward::new(Weighted::one(TargetSpec { cluster: cluster.into(), ..TargetSpec::default() }))
}
