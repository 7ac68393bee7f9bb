//! Gateways: which are ours, which of their listeners can be served, and, once routes are attached, what is served on
//! each port.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;

use super::authorities::Authorities;
use super::backend::Broken;
use super::certificate::Certificates;
use super::host::HostPattern;
use super::request_route::{GRPC_ROUTE, HTTP_ROUTE};
use super::rule::Backend;
use super::virtual_host::Attached;
use super::{Certificate, ClientValidation, Gateway, Name};
use crate::conditions::{CONTROLLER, Conditions, Say};
use crate::document::{
    Documents, Envelope, FrontendValidation, GATEWAY_GROUP, GatewaySpec, Listener, Object, ObjectKey,
    RouteGroupKind, TlsMode,
};

mod ports;
mod status;

/// The class that exists without a document.
const BUILT_IN_CLASS: &str = "ringway";

/// A Gateway while routes are attached to it.
pub(super) struct Draft<'a> {
    key: &'a ObjectKey,
    document: &'a Envelope<GatewaySpec>,
    /// One of our classes; nothing is served, or said, otherwise.
    class: Class,
    pub(super) listeners: Vec<ListenerDraft<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Ours,
    /// Another controller's: ours neither to serve nor to judge.
    Foreign,
    Unknown,
}

/// A listener while routes are attached to it.
pub(super) struct ListenerDraft<'a> {
    pub(super) listener: &'a Listener,
    pub(super) host: HostPattern,
    /// The kinds of routes that may attach.
    pub(super) kinds: Vec<&'static str>,
    /// Routes that are attached and accepted; counted even where the listener is not served.
    pub(super) attached: BTreeSet<(&'static str, Name)>,
    /// HTTPRoutes and GRPCRoutes, as far as hosts are in common.
    pub(super) http: Attached,
    /// The kind of each of those, and these hosts.
    pub(super) taken: Vec<(&'static str, Vec<HostPattern>)>,
    /// TCPRoutes and TLSRoutes; of those for one host the first serves.
    pub(super) connections: Vec<ConnectionsAttached>,
    /// What it shows of what it should.
    certificates: Vec<Certificate>,
    /// What its clients have to show.
    clients: Option<ClientValidation>,
    /// What it should show or believe, and cannot.
    broken: Vec<Broken>,
    /// Kinds in `allowedRoutes` that the protocol cannot carry.
    invalid_kinds: Vec<String>,
    problem: Option<Problem>,
}

/// A TCPRoute or a TLSRoute at a listener.
pub(super) struct ConnectionsAttached {
    pub(super) created: Option<Timestamp>,
    pub(super) route: Name,
    /// What it has in common with the listener.
    pub(super) hosts: Vec<HostPattern>,
    pub(super) backends: Vec<Backend>,
}

/// Why a listener is not served.
enum Problem {
    Protocol,
    /// Options that nobody knows may mean anything.
    Options(String),
    /// Nobody is left to vouch for clients.
    Authorities,
    Conflict {
        reason: &'static str,
        with: String,
    },
    /// Nothing is wrong with the listener; its Gateway is not accepted.
    Gateway,
}

impl Draft<'_> {
    pub(super) fn is_ours(&self) -> bool {
        self.class == Class::Ours
    }

    /// What the parameters say cannot be known, so serving without them may be wrong in any way.
    fn wants_parameters(&self) -> bool {
        let infrastructure = self.document.spec.infrastructure.as_ref();
        infrastructure.is_some_and(|infrastructure| infrastructure.parameters_ref.is_some())
    }
}

/// Every Gateway with its listeners judged.
pub(super) fn collect<'a>(
    documents: &'a Documents,
    certificates: &Certificates<'_>,
    authorities: &Authorities<'_>,
) -> BTreeMap<Name, Draft<'a>> {
    let mut drafts = BTreeMap::new();
    for (key, document) in &documents.objects {
        let Object::Gateway(gateway) = &document.object else { continue };
        let class = class(documents, &gateway.spec.gateway_class_name);
        let frontend = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
        let draft = |listener| {
            let mut draft = ListenerDraft::new(listener);
            draft.show(&key.namespace, certificates);
            let validation = frontend.and_then(|frontend| frontend.validation(listener.port));
            if let (Some(validation), true) = (validation, draft.ends_tls()) {
                draft.ask_clients(validation, &key.namespace, authorities);
            }
            draft
        };
        let mut listeners: Vec<_> = gateway.spec.listeners.iter().map(draft).collect();
        mark_conflicts(&mut listeners);
        let mut draft = Draft { key, document: gateway, class, listeners };
        if draft.wants_parameters() {
            draft.listeners.iter_mut().for_each(|listener| {
                listener.problem.get_or_insert(Problem::Gateway);
            });
        }
        drafts.insert(key.into(), draft);
    }
    drafts
}

fn class(documents: &Documents, name: &str) -> Class {
    let key = ObjectKey {
        group: GATEWAY_GROUP.into(),
        kind: "GatewayClass".into(),
        namespace: "".into(),
        name: name.into(),
    };
    match documents.objects.get(&key).map(|document| &document.object) {
        Some(Object::GatewayClass(class)) if class.spec.controller_name != CONTROLLER => Class::Foreign,
        Some(Object::GatewayClass(class)) if class.spec.parameters_ref.is_some() => Class::Unknown,
        Some(_) => Class::Ours,
        None if name == BUILT_IN_CLASS => Class::Ours,
        None => Class::Unknown,
    }
}

impl<'a> ListenerDraft<'a> {
    fn new(listener: &'a Listener) -> Self {
        let (possible, served): (&[&'static str], bool) = match listener.protocol.as_str() {
            "HTTP" => (&[HTTP_ROUTE, GRPC_ROUTE], true),
            "HTTPS" => (&[HTTP_ROUTE, GRPC_ROUTE], true),
            "TCP" => (&["TCPRoute"], true),
            "TLS" => (&["TLSRoute"], true),
            _ => (&[], false),
        };
        let wanted = &listener.allowed_routes.kinds;
        let is = |wanted: &RouteGroupKind, kind: &str| {
            wanted.kind == kind && wanted.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
        };
        let kinds = possible
            .iter()
            .copied()
            .filter(|kind| wanted.is_empty() || wanted.iter().any(|wanted| is(wanted, kind)))
            .collect();
        let invalid_kinds = wanted
            .iter()
            .filter(|wanted| !possible.iter().any(|kind| is(wanted, kind)))
            .map(|wanted| wanted.kind.clone())
            .collect();
        let host = HostPattern::parse(listener.hostname.as_deref());
        let option = listener.tls.as_ref().and_then(|tls| tls.options.keys().next().cloned());
        Self {
            listener,
            http: Attached { host: Some(host.clone()), routes: Vec::new() },
            host,
            kinds,
            attached: BTreeSet::new(),
            taken: Vec::new(),
            connections: Vec::new(),
            certificates: Vec::new(),
            clients: None,
            broken: Vec::new(),
            invalid_kinds,
            problem: match (served, option) {
                (false, _) => Some(Problem::Protocol),
                (true, Some(option)) => Some(Problem::Options(option)),
                (true, None) => None,
            },
        }
    }

    fn ends_tls(&self) -> bool {
        self.listener.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Terminate)
    }

    /// Takes the certificates that it should show.
    fn show(&mut self, namespace: &str, certificates: &Certificates<'_>) {
        let Some(tls) = self.listener.tls.as_ref().filter(|_| self.ends_tls()) else { return };
        for reference in &tls.certificate_refs {
            match certificates.resolve(reference, namespace) {
                Ok(certificate) => self.certificates.push(certificate),
                Err(error) => self.broken.push(error),
            }
        }
    }

    /// Takes whom it should believe of its clients. Without anybody it is not served: it would take nobody, or everybody.
    fn ask_clients(
        &mut self,
        validation: &FrontendValidation,
        namespace: &str,
        authorities: &Authorities<'_>,
    ) {
        let mut all = String::new();
        for reference in &validation.ca_certificate_refs {
            match authorities.resolve(reference, namespace) {
                Ok(pem) => {
                    all += pem.trim_end();
                    all.push('\n');
                }
                Err(error) => self.broken.push(error),
            }
        }
        match all.is_empty() {
            true => self.problem = self.problem.take().or(Some(Problem::Authorities)),
            false => {
                self.clients = Some(ClientValidation { authorities: all.into(), mode: validation.mode });
            }
        }
    }

    /// The kind of a route that has some of `hosts` already, if it is not `kind`.
    pub(super) fn taken_by_other_kind(&self, kind: &str, hosts: &[HostPattern]) -> Option<&'static str> {
        let in_common = |theirs: &[HostPattern]| {
            theirs.iter().any(|theirs| hosts.iter().any(|ours| ours.intersect(theirs).is_some()))
        };
        let other = self.taken.iter().find(|(other, theirs)| *other != kind && in_common(theirs));
        other.map(|(kind, _)| *kind)
    }

    fn is_served(&self) -> bool {
        self.problem.is_none()
            && self.invalid_kinds.len() < self.listener.allowed_routes.kinds.len().max(1)
            && (!self.ends_tls() || !self.certificates.is_empty())
    }

    fn is_valid(&self) -> bool {
        self.problem.is_none() && self.invalid_kinds.is_empty() && self.broken.is_empty()
    }
}

/// Listeners of one port must differ in what a connection or a request shows before any route is looked at. All of
/// those that do not are out; none is picked as the winner.
fn mark_conflicts<'a>(listeners: &mut [ListenerDraft<'a>]) {
    let mut problems = Vec::new();
    for (i, one) in listeners.iter().enumerate() {
        let conflict = listeners.iter().enumerate().find_map(|(j, other)| {
            let (a, b) = (one.listener, other.listener);
            if i == j || a.port != b.port || (a.protocol == "UDP") != (b.protocol == "UDP") {
                return None;
            }
            // Where TLS begins with the host that is asked for, what is in it may differ.
            let family = |protocol: &'a str| if protocol == "HTTPS" { "TLS" } else { protocol };
            let by_host = matches!(family(&a.protocol), "HTTP" | "TLS");
            let reason = if family(&a.protocol) != family(&b.protocol) {
                "ProtocolConflict"
            } else if !by_host || one.host == other.host {
                "HostnameConflict"
            } else {
                return None;
            };
            Some(Problem::Conflict { reason, with: b.name.clone() })
        });
        problems.push(conflict);
    }
    for (listener, problem) in listeners.iter_mut().zip(problems) {
        listener.problem = problem.or(listener.problem.take());
    }
}

/// What is served, once every route had its turn; says the conditions of the Gateways.
pub(super) fn finish(
    drafts: BTreeMap<Name, Draft<'_>>,
    conditions: &mut Conditions,
) -> BTreeMap<Name, Gateway> {
    let mut gateways = BTreeMap::new();
    for (name, draft) in drafts {
        match draft.class {
            Class::Foreign => {}
            Class::Unknown => {
                let say = Say::of(&draft.document.metadata);
                let message = format!(
                    "GatewayClass {} does not exist or is not valid",
                    draft.document.spec.gateway_class_name
                );
                let accepted = say.no("Accepted", "Pending", message);
                let programmed = say.no("Programmed", "Pending", String::new());
                conditions.objects.insert(draft.key.clone(), json!({ "conditions": [accepted, programmed] }));
            }
            Class::Ours => {
                conditions.objects.insert(draft.key.clone(), status::of(&draft));
                gateways.insert(name, Gateway { ports: ports::of(draft.listeners) });
            }
        }
    }
    gateways
}
