//! From the [`Model`] and one client to the xDS resources that client gets. Pure: the same inputs give the same
//! bytes on every replica, so a resource's version is the hash of its content.
//!
//! What does not depend on the client (clusters, endpoints, the routes of a gateway or of a namespace) is encoded
//! once per model and shared by the views of all clients. Only what a client uses is in its view: a gateway has the
//! clusters of its own routes, however large the mesh is.
//!
//! | resource | name |
//! |---|---|
//! | cluster and endpoints of a service's port | `outbound\|PORT\|SERVICE.NAMESPACE` |
//! | cluster of a sidecar's own application | `inbound\|PORT` |
//! | a sidecar's listener for its application's callers | `inbound\|IP:PORT` |
//! | cluster of all hosts outside the mesh | `outbound\|outside` |
//! | a sidecar's HTTP proxy | `outbound\|http`, with routes `outbound\|http\|NAMESPACE` |
//! | a sidecar's port for a dependency | `outbound\|tcp\|SERVICE.NAMESPACE:PORT`, with routes `outbound\|PORT\|SERVICE.NAMESPACE\|CALLER-NAMESPACE` |
//! | a port of a gateway, and its routes | `gateway\|NAMESPACE/NAME\|PORT` |

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::model::{Gateway, GatewayPort, Model, Name, Protocol, Rule, Target};

mod carry;
mod client;
mod cluster;
mod dynamic_forward;
mod endpoint;
mod listener;
mod resource;
mod resource_type;
mod route;
mod route_table;

pub use carry::carry_over;
pub use client::{Client, ClientError, GatewayClient, Sidecar, To};
pub use resource::Resource;
pub use resource_type::ResourceType;

/// Resources of one type by name.
pub type Resources = BTreeMap<Arc<str>, Arc<Resource>>;

/// Everything one client may subscribe to: the whole answer to its wildcard subscriptions, and what its named ones
/// choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// `envoy.config.cluster.v3.Cluster`.
    pub clusters: Resources,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`, named as the cluster that uses it.
    pub endpoints: Resources,
    /// `envoy.config.listener.v3.Listener`.
    pub listeners: Resources,
    /// `envoy.config.route.v3.RouteConfiguration`.
    pub routes: Resources,
}

impl View {
    /// The resources of one type.
    pub fn of(&self, kind: ResourceType) -> &Resources {
        match kind {
            ResourceType::Cluster => &self.clusters,
            ResourceType::Endpoint => &self.endpoints,
            ResourceType::Listener => &self.listeners,
            ResourceType::Route => &self.routes,
        }
    }

    fn add_targets(&mut self, model: &Model, shared: &Shared, targets: &BTreeSet<Target>) {
        for target in targets {
            let (cluster, endpoints) = shared.target(model, target);
            self.clusters.insert(Arc::clone(&cluster.name), cluster);
            self.endpoints.insert(Arc::clone(&endpoints.name), endpoints);
        }
    }

    fn add_listener(&mut self, listener: Arc<Resource>) {
        self.listeners.insert(Arc::clone(&listener.name), listener);
    }

    fn add_routes(&mut self, routes: Arc<Resource>) {
        self.routes.insert(Arc::clone(&routes.name), routes);
    }
}

/// What `client` gets of `model`; `shared` is what is encoded of this very model already.
pub fn compile(model: &Model, shared: &Shared, client: &Client) -> View {
    match client {
        Client::Sidecar(sidecar) => self::sidecar(model, shared, sidecar),
        Client::Gateway(client) => gateway(model, shared, client),
    }
}

/// Why a proxy would not take the routes of `rule`, if it would not: the proxy's own code is asked.
pub fn refusal(rule: &Rule) -> Option<String> {
    if rule.is_plain() {
        return None;
    }
    let table = route_table::of_rule(rule);
    let translated = translate::route::translate(&table, translate::Origin::Dynamic);
    translated.err().map(|rejected| rejected.fault.reason.to_string())
}

fn sidecar(model: &Model, shared: &Shared, sidecar: &Sidecar) -> View {
    let mut view = View::default();
    let mut targets = BTreeSet::new();
    let own = cluster::inbound(sidecar.app);
    view.add_listener(listener::inbound(sidecar));
    view.clusters.insert(Arc::clone(&own.name), own);

    if let Some(address) = sidecar.outbound {
        let (routes, used) = shared.outbound(model, &sidecar.namespace);
        view.add_listener(listener::outbound_http(address, &routes.name));
        view.add_routes(routes);
        let outside = shared.outside();
        view.clusters.insert(Arc::clone(&outside.name), outside);
        targets.extend(used.iter().cloned());
    }
    for to in &sidecar.to {
        dependency(model, sidecar, to, &mut view, &mut targets);
    }
    view.add_targets(model, shared, &targets);
    view
}

/// A local port for one port of a service. It opens even while the service is not known: who declared it may start
/// first.
fn dependency(model: &Model, sidecar: &Sidecar, to: &To, view: &mut View, targets: &mut BTreeSet<Target>) {
    let target = Target { service: Name::new(to.namespace.as_str(), to.service.as_str()), port: to.port };
    let port = model.services.get(&target.service).and_then(|service| service.port(to.port));
    match port {
        Some(port) if port.protocol == Protocol::Http => {
            let (routes, used) = route_table::dependency(port, &target, &sidecar.namespace);
            view.add_listener(listener::dependency_http(to.local, &target, &routes.name));
            view.add_routes(routes);
            targets.extend(used);
        }
        Some(_) | None => {
            view.add_listener(listener::dependency_tcp(to.local, &target));
            targets.insert(target);
        }
    }
}

fn gateway(model: &Model, shared: &Shared, client: &GatewayClient) -> View {
    let mut view = View::default();
    let name = Name::new(client.namespace.as_str(), client.name.as_str());
    let Some(gateway) = model.gateways.get(&name) else { return view };
    for (number, port) in &gateway.ports {
        let address = SocketAddr::new(client.bind, *number);
        match port {
            GatewayPort::Http(_) => view.add_listener(listener::gateway_http(address, &name)),
            GatewayPort::Tcp(backends) => view.add_listener(listener::gateway_tcp(address, &name, backends)),
        }
    }
    let tables = shared.gateway(&name, gateway);
    for routes in &tables.0 {
        view.add_routes(Arc::clone(routes));
    }
    view.add_targets(model, shared, &tables.1);
    view
}

/// A cluster with its endpoints.
type Encoded = (Arc<Resource>, Arc<Resource>);
/// Route tables with the targets they lead to.
type Tables = Arc<(Vec<Arc<Resource>>, BTreeSet<Target>)>;

/// Resources of one model that do not depend on the client, encoded when first asked for.
#[derive(Debug, Default)]
pub struct Shared {
    targets: OnceLock<BTreeMap<Target, Encoded>>,
    gateways: Mutex<BTreeMap<Name, Tables>>,
    namespaces: Mutex<BTreeMap<String, Tables>>,
    outside: OnceLock<Arc<Resource>>,
}

impl Shared {
    fn target(&self, model: &Model, target: &Target) -> Encoded {
        let encode = |target: &Target, endpoints: &[_]| {
            (cluster::outbound(target), endpoint::outbound(target, endpoints))
        };
        let all = self.targets.get_or_init(|| {
            let services = model.services.iter();
            let ports =
                services.flat_map(|(name, service)| service.ports.iter().map(move |port| (name, port)));
            ports
                .map(|(name, port)| {
                    let target = Target { service: name.clone(), port: port.port };
                    let encoded = encode(&target, &port.endpoints);
                    (target, encoded)
                })
                .collect()
        });
        // One that is declared and not known yet has no endpoints.
        all.get(target).cloned().unwrap_or_else(|| encode(target, &[]))
    }

    fn outside(&self) -> Arc<Resource> {
        Arc::clone(self.outside.get_or_init(cluster::outside))
    }

    fn outbound(&self, model: &Model, namespace: &str) -> (Arc<Resource>, BTreeSet<Target>) {
        // A panic while the lock is held cannot leave the map half written: entries are made before.
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = match namespaces.get(namespace) {
            Some(tables) => Arc::clone(tables),
            None => {
                let (routes, targets) = route_table::outbound(model, namespace);
                let tables = Arc::new((vec![routes], targets));
                namespaces.insert(namespace.to_owned(), Arc::clone(&tables));
                tables
            }
        };
        (Arc::clone(&tables.0[0]), tables.1.clone())
    }

    fn gateway(&self, name: &Name, gateway: &Gateway) -> Tables {
        let mut gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tables) = gateways.get(name) {
            return Arc::clone(tables);
        }
        let mut routes = Vec::new();
        let mut targets = BTreeSet::new();
        for (number, port) in &gateway.ports {
            match port {
                GatewayPort::Http(hosts) => {
                    let (table, used) = route_table::gateway(name, *number, hosts);
                    routes.push(table);
                    targets.extend(used);
                }
                GatewayPort::Tcp(backends) => {
                    targets.extend(backends.iter().filter_map(|backend| backend.target.clone()));
                }
            }
        }
        let tables = Arc::new((routes, targets));
        gateways.insert(name.clone(), Arc::clone(&tables));
        tables
    }
}
