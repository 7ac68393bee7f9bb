//! Services and who is behind them: Service, EndpointSlice and Workload documents, and registrations.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::backend::namespace_or_default;
use super::{Endpoint, Name, Protocol, Registration, Registrations, Service, ServicePort};
use crate::conditions::{Condition, Conditions, Say, status};
use crate::document::{
    self, Documents, EndpointSlice, Envelope, Object, ObjectKey, PortOrName, ServiceSpec, ServiceType,
    Transport, WorkloadSpec,
};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The weight of an endpoint that says none.
const WEIGHT: u16 = 1;

/// Every service with its endpoints; says the conditions of the documents that made them.
pub(super) fn collect(
    documents: &Documents,
    registrations: &Registrations,
    conditions: &mut Conditions,
) -> BTreeMap<Name, Service> {
    let mut collector = Collector::default();
    for (key, document) in &documents.objects {
        if let Object::Service(service) = &document.object {
            collector.service(key, service, conditions);
        }
    }
    for (key, document) in &documents.objects {
        if let Object::EndpointSlice(slice) = &document.object {
            collector.slice(key, slice, conditions);
        }
    }
    for (key, document) in &documents.objects {
        if let Object::Workload(workload) = &document.object {
            collector.workload(key, workload, conditions);
        }
    }
    for registration in registrations.values() {
        collector.registration(registration, conditions);
    }
    collector.finish(conditions)
}

/// Services so far. `'a` are the documents.
#[derive(Default)]
struct Collector<'a> {
    services: BTreeMap<Name, Service>,
    /// The Service documents, which say what leads to which port.
    documents: BTreeMap<Name, &'a ServiceSpec>,
    /// Services by the first label of their selector, so that finding those of a workload does not look at all.
    selectors: BTreeMap<Selects<'a>, Vec<Name>>,
    /// Whose an address is; the first to claim it keeps it.
    owners: BTreeMap<SocketAddr, Owner>,
    /// The Workloads that share an address with another owner, and with whom.
    conflicts: Vec<(ObjectKey, String)>,
    /// What is said of Workloads; added to at the end, when all conflicts are known.
    workloads: BTreeMap<ObjectKey, (Say, Vec<Condition>)>,
}

/// One label that a selector demands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Selects<'a> {
    namespace: Arc<str>,
    label: &'a str,
    value: &'a str,
}

#[derive(Clone, PartialEq, Eq)]
enum Owner {
    Workload(ObjectKey),
    Instance(String),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(key) => key.fmt(f),
            Self::Instance(instance) => write!(f, "the registration of {instance}"),
        }
    }
}

/// What of a workload a port of a service leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LeadsTo {
    /// The port of this number.
    Port(u16),
    /// The port of this name.
    Name(String),
}

impl LeadsTo {
    fn of(port: &document::ServicePort) -> Self {
        match &port.target_port {
            None => Self::Port(port.port.get()),
            Some(PortOrName::Port(number)) => Self::Port(number.get()),
            Some(PortOrName::Name(name)) => Self::Name(name.clone()),
        }
    }
}

impl<'a> Collector<'a> {
    fn service(&mut self, key: &ObjectKey, service: &'a Envelope<ServiceSpec>, conditions: &mut Conditions) {
        let say = Say::of(&service.metadata);
        let external = service.spec.kind == Some(ServiceType::ExternalName);
        let tcp = service.spec.ports.iter().filter(|port| port.protocol == Transport::Tcp);
        let mut ports: Vec<ServicePort> = tcp.map(service_port).collect();
        ports.sort_by_key(|port| port.port);
        let left_out = service.spec.ports.len() - ports.len();
        let accepted = match (external, left_out) {
            (true, _) => say.no(
                "Accepted",
                "UnsupportedValue",
                "services of type ExternalName are not served yet".into(),
            ),
            (false, 0) => say.yes("Accepted", "Accepted", "every port is served"),
            (false, n) => say.yes(
                "Accepted",
                "Accepted",
                &format!("{n} of {} ports are not TCP and not served", service.spec.ports.len()),
            ),
        };
        conditions.objects.insert(key.clone(), status(&[accepted]));
        if let Some((label, value)) = service.spec.selector.first_key_value() {
            let selects = Selects { namespace: Arc::clone(&key.namespace), label, value };
            self.selectors.entry(selects).or_default().push(key.into());
        }
        self.documents.insert(key.into(), &service.spec);
        self.services.insert(key.into(), Service { ports, external });
    }

    fn slice(&mut self, key: &ObjectKey, slice: &EndpointSlice, conditions: &mut Conditions) {
        let say = Say::of(&slice.metadata);
        let service = slice.metadata.labels.get(SERVICE_NAME_LABEL);
        let service = service.map(|name| Name::new(&*key.namespace, name.as_str()));
        let known = service.and_then(|name| Some((self.services.get_mut(&name)?, name)));
        let resolved = match known {
            Some((service, name)) => {
                for port in &mut service.ports {
                    port.endpoints.extend(slice_endpoints(slice, port));
                }
                say.yes("ResolvedRefs", "ResolvedRefs", &format!("endpoints of Service {name}"))
            }
            None => {
                let message = format!("the label {SERVICE_NAME_LABEL} names no Service of the namespace");
                say.no("ResolvedRefs", "BackendNotFound", message)
            }
        };
        let accepted = match slice.address_type {
            document::AddressType::Fqdn => {
                say.no("Accepted", "UnsupportedValue", "addresses of type FQDN are not served yet".into())
            }
            _ => say.yes("Accepted", "Accepted", ""),
        };
        conditions.objects.insert(key.clone(), status(&[accepted, resolved]));
    }

    fn workload(&mut self, key: &ObjectKey, workload: &Envelope<WorkloadSpec>, conditions: &mut Conditions) {
        let say = Say::of(&workload.metadata);
        let spec = &workload.spec;
        let mut belongs_to = self.selected(&key.namespace, &workload.metadata.labels);
        if let Some(service) = &spec.service {
            let name = Name::new(&*key.namespace, service.as_str());
            if self.documents.contains_key(&name) {
                belongs_to.insert(name);
            } else {
                let created = self.services.entry(name.clone()).or_default();
                for port in &spec.ports {
                    created.ensure_port(port.port.get(), port.app_protocol.as_deref(), port.name.as_deref());
                }
                belongs_to.insert(name);
            }
        }
        let owner = Owner::Workload(key.clone());
        let mut reached = Vec::new();
        for name in &belongs_to {
            for (number, leads_to) in self.ports_of(name) {
                let port = spec.ports.iter().find(|port| match &leads_to {
                    LeadsTo::Port(number) => port.port.get() == *number,
                    LeadsTo::Name(name) => port.name.as_ref() == Some(name),
                });
                let Some(port) = port else { continue };
                reached.push(format!("{name}:{number}"));
                let endpoint = Endpoint {
                    address: SocketAddr::new(spec.address, port.proxy_port.unwrap_or(port.port).get()),
                    draining: false,
                    weight: spec.weight.map_or(WEIGHT, std::num::NonZeroU16::get),
                    zone: spec.zone.as_deref().unwrap_or_default().into(),
                    speaks_mesh_tls: port.proxy_port.is_some(),
                };
                self.add(name, number, endpoint, &owner, conditions);
            }
        }
        let resolved = match (reached.is_empty(), belongs_to.is_empty()) {
            (false, _) => {
                say.yes("ResolvedRefs", "ResolvedRefs", &format!("an endpoint of {}", reached.join(", ")))
            }
            (true, false) => say.no(
                "ResolvedRefs",
                "BackendNotFound",
                "no port of its Service leads to one of its ports".into(),
            ),
            (true, true) => say.no("ResolvedRefs", "BackendNotFound", "it belongs to no Service".into()),
        };
        let accepted = say.yes("Accepted", "Accepted", "");
        self.workloads.insert(key.clone(), (say, vec![accepted, resolved]));
    }

    fn registration(&mut self, registration: &Registration, conditions: &mut Conditions) {
        let namespace = namespace_or_default(Some(&registration.namespace));
        let name = Name::new(namespace, registration.service.as_str());
        let number = if self.documents.contains_key(&name) {
            let Some(number) = self.port_for(&name, registration.port) else {
                let reason = format!("no port of Service {name} leads to port {}", registration.port);
                conditions.refused_registrations.insert(registration.instance.clone(), reason);
                return;
            };
            number
        } else {
            let protocol = Some(registration.app_protocol.as_str()).filter(|protocol| !protocol.is_empty());
            self.services.entry(name.clone()).or_default().ensure_port(registration.port, protocol, None);
            registration.port
        };
        let endpoint = Endpoint {
            address: registration.address,
            draining: registration.draining,
            weight: WEIGHT,
            zone: "".into(),
            speaks_mesh_tls: true,
        };
        if registration.ready || registration.draining {
            self.add(&name, number, endpoint, &Owner::Instance(registration.instance.clone()), conditions);
        }
    }

    /// The Services of the namespace whose selector matches these labels.
    fn selected(&self, namespace: &Arc<str>, labels: &BTreeMap<String, String>) -> BTreeSet<Name> {
        let candidates = labels.iter().filter_map(|(label, value)| {
            self.selectors.get(&Selects { namespace: Arc::clone(namespace), label, value })
        });
        let matches = |name: &&Name| {
            let selector = self.documents.get(*name).map(|service| &service.selector);
            selector.is_some_and(|wanted| wanted.iter().all(|(k, v)| labels.get(k) == Some(v)))
        };
        candidates.flatten().filter(matches).cloned().collect()
    }

    /// Each port of a service and what of a workload it leads to.
    fn ports_of(&self, name: &Name) -> Vec<(u16, LeadsTo)> {
        if let Some(service) = self.documents.get(name) {
            let tcp = service.ports.iter().filter(|port| port.protocol == Transport::Tcp);
            return tcp.map(|port| (port.port.get(), LeadsTo::of(port))).collect();
        }
        // A service made from workloads has their ports.
        let made = self.services.get(name).map(|service| &*service.ports).unwrap_or_default();
        made.iter().map(|port| (port.port, LeadsTo::Port(port.port))).collect()
    }

    /// The port of a Service that leads to this port of an application. A Service with a single port that is led by
    /// name means whatever registers.
    fn port_for(&self, name: &Name, application: u16) -> Option<u16> {
        let ports = self.ports_of(name);
        let by_number = |(_, leads_to): &&(u16, LeadsTo)| *leads_to == LeadsTo::Port(application);
        let found =
            ports.iter().find(by_number).or_else(|| ports.iter().find(|(port, _)| *port == application));
        match (found, &ports[..]) {
            (Some((port, _)), _) | (None, [(port, LeadsTo::Name(_))]) => Some(*port),
            _ => None,
        }
    }

    /// Adds an endpoint unless its address is already another's.
    fn add(
        &mut self,
        name: &Name,
        port: u16,
        endpoint: Endpoint,
        owner: &Owner,
        conditions: &mut Conditions,
    ) {
        match self.owners.entry(endpoint.address) {
            Entry::Vacant(free) => {
                free.insert(owner.clone());
            }
            Entry::Occupied(taken) if taken.get() != owner => {
                let address = endpoint.address;
                for (who, other) in [(taken.get(), owner), (owner, taken.get())] {
                    let reason = format!("{address} is also the address of {other}");
                    match who {
                        Owner::Workload(key) => self.conflicts.push((key.clone(), reason)),
                        Owner::Instance(instance) => {
                            conditions.refused_registrations.entry(instance.clone()).or_insert(reason);
                        }
                    }
                }
                return;
            }
            Entry::Occupied(_) => {}
        }
        if let Some(port) = self.services.get_mut(name).and_then(|service| service.port_mut(port)) {
            port.endpoints.push(endpoint);
        }
    }

    fn finish(mut self, conditions: &mut Conditions) -> BTreeMap<Name, Service> {
        for (key, (say, mut said)) in std::mem::take(&mut self.workloads) {
            let conflicts: Vec<_> = self
                .conflicts
                .iter()
                .filter(|(of, _)| *of == key)
                .map(|(_, reason)| reason.as_str())
                .collect();
            if !conflicts.is_empty() {
                said.push(say.yes("Conflicted", "AddressConflict", &conflicts.join("; ")));
            }
            conditions.objects.insert(key, status(&said));
        }
        for service in self.services.values_mut() {
            for port in &mut service.ports {
                // One that drains anywhere drains: draining sorts after serving.
                port.endpoints.sort_by(|a, b| (a.address, b.draining).cmp(&(b.address, a.draining)));
                port.endpoints.dedup_by_key(|endpoint| endpoint.address);
            }
        }
        self.services
    }
}

impl Service {
    /// Adds a port to a service that no document describes.
    fn ensure_port(&mut self, number: u16, app_protocol: Option<&str>, name: Option<&str>) {
        if self.port(number).is_none() {
            let protocol = protocol(app_protocol, name);
            self.ports.push(ServicePort::new(number, name, protocol));
            self.ports.sort_by_key(|port| port.port);
        }
    }
}

impl ServicePort {
    fn new(port: u16, name: Option<&str>, protocol: Protocol) -> Self {
        Self {
            port,
            name: name.map(Into::into),
            protocol,
            endpoints: Vec::new(),
            producer_rules: None,
            consumer_rules: BTreeMap::new(),
            tls: None,
        }
    }
}

fn service_port(written: &document::ServicePort) -> ServicePort {
    let name = written.name.as_deref();
    ServicePort::new(written.port.get(), name, protocol(written.app_protocol.as_deref(), name))
}

/// What a port carries: what is declared, else what its name begins with, as is the custom, else HTTP.
fn protocol(app_protocol: Option<&str>, name: Option<&str>) -> Protocol {
    match app_protocol {
        // Declared, and not one of those we route: forwarded as it is.
        Some(declared) => Protocol::from_app_protocol(declared).unwrap_or(Protocol::Tcp),
        None => name.and_then(protocol_of_name).unwrap_or(Protocol::Http),
    }
}

/// A port is called `http` whichever version it carries.
fn protocol_of_name(name: &str) -> Option<Protocol> {
    let begins_with =
        |word: &str| name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if begins_with("http") {
        return Some(Protocol::Http);
    }
    if begins_with("grpc-web") {
        return Protocol::from_app_protocol("grpc-web");
    }
    Protocol::from_app_protocol(name.split('-').next()?)
}

fn slice_endpoints(slice: &EndpointSlice, port: &ServicePort) -> Vec<Endpoint> {
    let named = |name: &Option<String>| name.as_deref().unwrap_or("") == port.name.as_deref().unwrap_or("");
    let number = slice
        .ports
        .iter()
        .find(|slice_port| slice_port.protocol == Transport::Tcp && named(&slice_port.name))
        .and_then(|slice_port| slice_port.port);
    let Some(number) = number else { return Vec::new() };
    slice
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let state = &endpoint.conditions;
            let terminating = state.terminating.unwrap_or(false);
            let usable = match terminating {
                false => state.ready.unwrap_or(true),
                true => state.serving.unwrap_or(true),
            };
            let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
            usable.then(|| Endpoint {
                address: SocketAddr::new(address, number.get()),
                draining: terminating,
                weight: WEIGHT,
                zone: endpoint.zone.as_deref().unwrap_or_default().into(),
                speaks_mesh_tls: false,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_carries_what_is_declared_else_what_its_name_begins_with_else_http() {
        use Protocol::{Http, Http1, Http2, Tcp};
        for (declared, name, expected) in [
            (None, None, Http),
            (None, Some("web"), Http),
            (None, Some("http"), Http),
            (None, Some("http-api"), Http),
            (None, Some("httpbin"), Http),
            (None, Some("ws-chat"), Http1),
            (None, Some("grpc"), Http2),
            (None, Some("grpc-cart"), Http2),
            (None, Some("http2-cart"), Http2),
            (None, Some("grpc-web"), Http1),
            (None, Some("grpc-web-cart"), Http1),
            (None, Some("grpc-website"), Http2),
            (None, Some("tcp-sql"), Tcp),
            (None, Some("https"), Tcp),
            (Some("http"), Some("grpc"), Http1),
            (Some("kubernetes.io/ws"), None, Http1),
            (Some("kubernetes.io/h2c"), Some("http"), Http2),
            (Some("grpc"), None, Http2),
            (Some("kubernetes.io/wss"), None, Tcp),
            (Some("example.com/else"), Some("http"), Tcp),
        ] {
            assert_eq!(protocol(declared, name), expected, "{declared:?} {name:?}");
        }
    }
}
