//! Route configurations: the virtual hosts of a gateway's port, of a sidecar's HTTP proxy, of a local port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::pb::envoy::config::core::v3::DataSource;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use super::{Resource, name, route};
use crate::model::{
    self, Action, HostPattern, Model, Name, Rule, ServicePort, Target, TlsListener, TlsTraffic,
};

/// A form of a service's name, and whether only callers of its own namespace may use it.
type Form = (bool, fn(&Name) -> String);

/// The port that a name without a port means.
const HTTP_PORT: u16 = 80;

/// The routes of a port of a gateway, and where they lead.
pub(super) fn gateway(
    gateway: &Name,
    port: u16,
    hosts: &[model::VirtualHost],
) -> (Arc<Resource>, BTreeSet<Target>) {
    of_hosts(name::gateway_port(gateway, port), port, hosts, &[])
}

/// The routes of a listener of a gateway on which TLS begins, if it takes requests, and where it leads.
pub(super) fn gateway_listener(
    gateway: &Name,
    port: u16,
    listener: &TlsListener,
) -> (Option<Arc<Resource>>, BTreeSet<Target>) {
    match &listener.traffic {
        TlsTraffic::Http { hosts, misdirected } => {
            let name = name::gateway_listener(gateway, port, &listener.name);
            let (table, targets) = of_hosts(name, port, hosts, misdirected);
            (Some(table), targets)
        }
        TlsTraffic::Tcp(routes) => {
            let backends = routes.iter().flat_map(|(_, backends)| backends);
            (None, backends.filter_map(|backend| backend.target.clone()).collect())
        }
    }
}

fn of_hosts(
    name: String,
    port: u16,
    hosts: &[model::VirtualHost],
    misdirected: &[HostPattern],
) -> (Arc<Resource>, BTreeSet<Target>) {
    let virtual_host = |host: &HostPattern, routes| VirtualHost {
        name: host.to_string(),
        domains: vec![host.to_string()],
        routes,
        ..VirtualHost::default()
    };
    let own = hosts.iter().map(|of| {
        let routes = of.rules.iter().flat_map(|rule| route::routes(rule, port)).collect();
        virtual_host(&of.host, routes)
    });
    let elsewhere = misdirected.iter().filter(|host| !hosts.iter().any(|own| own.host == **host));
    let elsewhere = elsewhere.map(|host| virtual_host(host, vec![route::everything_answered(421, None)]));
    let table = RouteConfiguration {
        name: name.clone(),
        virtual_hosts: own.chain(elsewhere).collect(),
        // A gateway is reached on ports it does not know of; hosts are meant without.
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    };
    (Resource::encode(name, &table), hosts.iter().flat_map(|host| targets(&host.rules)).collect())
}

/// A table of one rule alone, to see whether it can be translated.
pub(super) fn of_rule(rule: &Rule) -> RouteConfiguration {
    let virtual_host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: route::routes(rule, HTTP_PORT),
        ..VirtualHost::default()
    };
    RouteConfiguration { virtual_hosts: vec![virtual_host], ..RouteConfiguration::default() }
}

/// The routes of the HTTP proxy of every sidecar in `namespace`, and where they lead: every HTTP service under each
/// of its names.
pub(super) fn outbound(model: &Model, namespace: &str) -> (Arc<Resource>, BTreeSet<Target>) {
    let mut domains = Domains::default();
    // The forms in the order of who wins where one name has two meanings, as `a.mesh` of a namespace called `mesh`.
    let forms: [Form; 6] = [
        (true, |service| format!("{}.mesh", service.name)),
        (false, |service| format!("{}.{}.mesh", service.name, service.namespace)),
        (true, |service| service.name.to_string()),
        (false, |service| format!("{}.{}", service.name, service.namespace)),
        (false, |service| format!("{}.{}.svc", service.name, service.namespace)),
        (false, |service| format!("{}.{}.svc.cluster.local", service.name, service.namespace)),
    ];
    for (own_namespace_only, form) in forms {
        for (name, service) in &model.services {
            if !own_namespace_only || *name.namespace == *namespace {
                domains.add(name, &service.ports, &form(name));
            }
        }
    }
    let mut used = BTreeSet::new();
    let mut virtual_hosts = Vec::new();
    for (target, domains) in domains.of_targets {
        let port = model.services.get(&target.service).and_then(|service| service.port(target.port));
        let Some(port) = port else { continue };
        let (routes, leads_to) = mesh_routes(port, &target, namespace);
        used.extend(leads_to);
        let name = format!("{}.{}:{}", target.service.name, target.service.namespace, target.port);
        virtual_hosts.push(VirtualHost { name, domains, routes, ..VirtualHost::default() });
    }
    virtual_hosts.extend(elsewhere());
    let name = name::http_proxy_routes(namespace);
    let table = RouteConfiguration { name: name.clone(), virtual_hosts, ..RouteConfiguration::default() };
    (Resource::encode(name, &table), used)
}

/// Which domains mean which port of which service; no domain twice.
#[derive(Default)]
struct Domains {
    taken: BTreeSet<String>,
    of_targets: BTreeMap<Target, Vec<String>>,
}

impl Domains {
    fn add(&mut self, service: &Name, ports: &[ServicePort], domain: &str) {
        let http = || ports.iter().filter(|port| port.protocol.is_http()).map(|port| port.port);
        let default = http().find(|port| *port == HTTP_PORT).or_else(|| http().min());
        for port in http() {
            let plain = (default == Some(port)).then(|| domain.to_owned());
            for domain in plain.into_iter().chain([format!("{domain}:{port}")]) {
                if self.taken.insert(domain.clone()) {
                    let target = Target { service: service.clone(), port };
                    self.of_targets.entry(target).or_default().push(domain);
                }
            }
        }
    }
}

/// What becomes of requests for hosts that are not of the mesh: names that can only be of the mesh are answered, others go
/// where DNS says.
fn elsewhere() -> [VirtualHost; 2] {
    let body = "no service of the mesh has this name\n".to_owned();
    let body = DataSource { specifier: Some(Specifier::InlineString(body)), watched_directory: None };
    let virtual_host = |name: &str, domain: &str, route| VirtualHost {
        name: name.to_owned(),
        domains: vec![domain.to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    [
        virtual_host("unknown", "*.mesh", route::everything_answered(404, Some(body))),
        virtual_host("outside", "*", route::everything_to(name::OUTSIDE)),
    ]
}

/// The routes of a local port for `target` in a sidecar in `namespace`, and where they lead. Any host means it.
pub(super) fn dependency(
    port: &ServicePort,
    target: &Target,
    namespace: &str,
) -> (Arc<Resource>, BTreeSet<Target>) {
    let (routes, used) = mesh_routes(port, target, namespace);
    let name = name::dependency_routes(target, namespace);
    let virtual_host = VirtualHost {
        name: name::service_port(target),
        domains: vec!["*".to_owned()],
        routes,
        ..VirtualHost::default()
    };
    let table = RouteConfiguration {
        name: name.clone(),
        virtual_hosts: vec![virtual_host],
        ..RouteConfiguration::default()
    };
    (Resource::encode(name, &table), used)
}

/// The routes to a port of a service for callers in `namespace`, and where they lead: to its endpoints, unless
/// HTTPRoutes say otherwise.
fn mesh_routes(
    port: &ServicePort,
    target: &Target,
    namespace: &str,
) -> (Vec<proto::pb::envoy::config::route::v3::Route>, BTreeSet<Target>) {
    match port.rules_for(namespace) {
        None => (vec![route::everything_to(&name::service_port(target))], BTreeSet::from([target.clone()])),
        Some(rules) => (
            rules.iter().flat_map(|rule| route::routes(rule, target.port)).collect(),
            targets(rules).collect(),
        ),
    }
}

fn targets(rules: &[Rule]) -> impl Iterator<Item = Target> {
    rules
        .iter()
        .filter_map(|rule| match &*rule.action {
            Action::Forward(forward) => Some(&forward.backends),
            Action::Redirect { .. } | Action::Fail => None,
        })
        .flatten()
        .filter_map(|backend| backend.target.clone())
}
