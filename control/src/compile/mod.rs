//! From the [`Model`] and one client to the xDS resources that client gets. Pure: the same inputs give the same
//! bytes on every replica, so a resource's version is the hash of its content.
//!
//! What does not depend on the client (clusters, endpoints, the routes of a gateway or of a namespace) is encoded
//! once per model and shared by the views of all clients. Only what a client uses is in its view: a gateway has the
//! clusters of its own routes, however large the mesh is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::peer::SpiffeId;

use crate::model::{Model, Name, Rule, Target};

mod authorization;
mod backend_tls;
mod carry;
mod client;
mod cluster;
mod dynamic_forward;
mod endpoint;
mod gateway;
mod listener;
mod mesh_tls;
mod name;
mod resource;
mod resource_type;
mod route;
mod route_table;
mod shared;

pub use authorization::{rule_name, rule_of_name};
pub use carry::carry_over;
pub use client::{Client, ClientError, GatewayClient, Sidecar, To};
pub use mesh_tls::identity;
pub use resource::Resource;
pub use resource_type::ResourceType;
pub use shared::Shared;

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
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`: what the listeners show.
    pub secrets: Resources,
}

impl View {
    /// The resources of one type.
    pub fn of(&self, kind: ResourceType) -> &Resources {
        match kind {
            ResourceType::Cluster => &self.clusters,
            ResourceType::Endpoint => &self.endpoints,
            ResourceType::Listener => &self.listeners,
            ResourceType::Route => &self.routes,
            ResourceType::Secret => &self.secrets,
        }
    }

    fn add_targets(
        &mut self,
        model: &Model,
        shared: &Shared,
        identity: Option<&SpiffeId>,
        targets: &BTreeSet<Target>,
    ) {
        for target in targets {
            let (cluster, endpoints) = shared.target(model, target, identity);
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
        Client::Gateway(client) => gateway::view(model, shared, client),
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
    let own = cluster::inbound(sidecar.app, sidecar.protocol());
    let service = Name::new(sidecar.namespace.as_str(), sidecar.service.as_str());
    let mode = model.peer_authentications.mode_of(&service);
    view.add_listener(listener::inbound(sidecar, &model.authorization.of(&service), mode));
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
    view.add_targets(model, shared, sidecar.identity.as_ref(), &targets);
    view
}

/// A local port for one port of a service. It opens even while the service is not known: who declared it may start
/// first.
fn dependency(model: &Model, sidecar: &Sidecar, to: &To, view: &mut View, targets: &mut BTreeSet<Target>) {
    let target = Target { service: Name::new(to.namespace.as_str(), to.service.as_str()), port: to.port };
    let port = model.services.get(&target.service).and_then(|service| service.port(to.port));
    match port {
        Some(port) if port.protocol.is_http() => {
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
