//! Resources of one model that do not depend on the client: encoded once, when first asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use policy::peer::SpiffeId;

use super::{Resource, cluster, endpoint, route_table};
use crate::model::{Gateway, GatewayPort, Model, Name, PortTls, Protocol, Target};

/// A cluster with its endpoints.
type Encoded = (Arc<Resource>, Arc<Resource>);
/// Route tables with the targets they lead to.
type Tables = Arc<(Vec<Arc<Resource>>, BTreeSet<Target>)>;

/// Resources of one model that do not depend on the client, encoded when first asked for.
#[derive(Debug, Default)]
pub struct Shared {
    targets: OnceLock<BTreeMap<Target, Encoded>>,
    /// Clusters as proxies with an identity get them; all identities are of one trust domain.
    secured: Mutex<BTreeMap<Target, Arc<Resource>>>,
    gateways: Mutex<BTreeMap<Name, Tables>>,
    namespaces: Mutex<BTreeMap<String, Tables>>,
    outside: OnceLock<Arc<Resource>>,
}

impl Shared {
    /// The cluster of a port of a service, and its endpoints.
    pub(super) fn target(&self, model: &Model, target: &Target, own: Option<&SpiffeId>) -> Encoded {
        let (cluster, endpoints) = self.plain_target(model, target);
        match own {
            None => (cluster, endpoints),
            Some(own) => (self.secured(model, target, own), endpoints),
        }
    }

    fn secured(&self, model: &Model, target: &Target, own: &SpiffeId) -> Arc<Resource> {
        let mut secured = self.secured.lock().unwrap_or_else(PoisonError::into_inner);
        let encode = || {
            let port = model.services.get(&target.service).and_then(|service| service.port(target.port));
            let protocol = port.map_or(Protocol::Http, |port| port.protocol);
            cluster::outbound(target, protocol, port.and_then(|port| port.tls.as_ref()), Some(own))
        };
        Arc::clone(secured.entry(target.clone()).or_insert_with(encode))
    }

    fn plain_target(&self, model: &Model, target: &Target) -> Encoded {
        let encode = |target: &Target, protocol, tls: Option<&PortTls>, endpoints: &[_]| {
            (cluster::outbound(target, protocol, tls, None), endpoint::outbound(target, endpoints))
        };
        let all = self.targets.get_or_init(|| {
            let services = model.services.iter();
            let ports =
                services.flat_map(|(name, service)| service.ports.iter().map(move |port| (name, port)));
            ports
                .map(|(name, port)| {
                    let target = Target { service: name.clone(), port: port.port };
                    let encoded = encode(&target, port.protocol, port.tls.as_ref(), &port.endpoints);
                    (target, encoded)
                })
                .collect()
        });
        // One that is declared and not known yet has no endpoints.
        all.get(target).cloned().unwrap_or_else(|| encode(target, Protocol::Http, None, &[]))
    }

    /// The cluster of all hosts outside the mesh.
    pub(super) fn outside(&self) -> Arc<Resource> {
        Arc::clone(self.outside.get_or_init(cluster::outside))
    }

    /// The routes of the HTTP proxies in `namespace`, and where they lead.
    pub(super) fn outbound(&self, model: &Model, namespace: &str) -> (Arc<Resource>, BTreeSet<Target>) {
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

    /// The routes of a gateway's ports, and where its ports lead.
    pub(super) fn gateway(&self, name: &Name, gateway: &Gateway) -> Tables {
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
                GatewayPort::Tls(listeners) => {
                    for listener in listeners {
                        let (table, used) = route_table::gateway_listener(name, *number, listener);
                        routes.extend(table);
                        targets.extend(used);
                    }
                }
            }
        }
        let tables = Arc::new((routes, targets));
        gateways.insert(name.clone(), Arc::clone(&tables));
        tables
    }

    /// The same, for a model that differs in these endpoints only.
    pub(super) fn with_endpoints(&self, changed: &[(Target, Arc<Resource>)]) -> Shared {
        let targets = OnceLock::new();
        if let Some(encoded) = self.targets.get() {
            let mut encoded = encoded.clone();
            for (target, endpoints) in changed {
                if let Some((_, old)) = encoded.get_mut(target) {
                    *old = Arc::clone(endpoints);
                }
            }
            // It is new, so nobody else can have set it.
            let _ = targets.set(encoded);
        }
        let gateways = self.gateways.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let secured = self.secured.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Shared {
            targets,
            secured: secured.into(),
            gateways: gateways.into(),
            namespaces: namespaces.into(),
            outside: self.outside.clone(),
        }
    }
}
