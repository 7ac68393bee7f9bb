//! Gateways: which are ours, which of their listeners can be served, and, once routes are attached, what is served on
//! each port.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::host::HostPattern;
use super::request_route::{GRPC_ROUTE, HTTP_ROUTE};
use super::rule::{Backend, older_first};
use super::virtual_host::{Attached, virtual_hosts};
use super::{Gateway, GatewayPort, Name};
use crate::conditions::{CONTROLLER, Condition, Conditions, Say};
use crate::document::{
    Documents, Envelope, GATEWAY_GROUP, GatewaySpec, Listener, Object, ObjectKey, RouteGroupKind,
};

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
    /// TCPRoutes, of which the first serves.
    pub(super) tcp: Vec<TcpAttached>,
    /// Kinds in `allowedRoutes` that the protocol cannot carry.
    invalid_kinds: Vec<String>,
    problem: Option<Problem>,
}

/// A TCPRoute at a listener.
pub(super) struct TcpAttached {
    pub(super) created: Option<Timestamp>,
    pub(super) route: Name,
    pub(super) backends: Vec<Backend>,
}

/// Why a listener is not served.
enum Problem {
    Protocol,
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
pub(super) fn collect(documents: &Documents) -> BTreeMap<Name, Draft<'_>> {
    let mut drafts = BTreeMap::new();
    for (key, document) in &documents.objects {
        let Object::Gateway(gateway) = &document.object else { continue };
        let class = class(documents, &gateway.spec.gateway_class_name);
        let mut listeners: Vec<_> = gateway.spec.listeners.iter().map(ListenerDraft::new).collect();
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
            "TCP" => (&["TCPRoute"], true),
            "HTTPS" => (&[HTTP_ROUTE, GRPC_ROUTE], false),
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
        Self {
            listener,
            http: Attached { host: Some(host.clone()), routes: Vec::new() },
            host,
            kinds,
            attached: BTreeSet::new(),
            taken: Vec::new(),
            tcp: Vec::new(),
            invalid_kinds,
            problem: (!served).then_some(Problem::Protocol),
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
        self.problem.is_none() && self.invalid_kinds.len() < self.listener.allowed_routes.kinds.len().max(1)
    }
}

/// Listeners of one port must differ in what a connection or a request shows before any route is looked at. All of
/// those that do not are out; none is picked as the winner.
fn mark_conflicts(listeners: &mut [ListenerDraft<'_>]) {
    let mut problems = Vec::new();
    for (i, one) in listeners.iter().enumerate() {
        let conflict = listeners.iter().enumerate().find_map(|(j, other)| {
            let (a, b) = (one.listener, other.listener);
            if i == j || a.port != b.port || (a.protocol == "UDP") != (b.protocol == "UDP") {
                return None;
            }
            let by_host = matches!(a.protocol.as_str(), "HTTP" | "HTTPS" | "TLS");
            let reason = if a.protocol != b.protocol {
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
                conditions.objects.insert(draft.key.clone(), status(&draft));
                gateways.insert(name, Gateway { ports: ports(draft.listeners) });
            }
        }
    }
    gateways
}

fn ports(listeners: Vec<ListenerDraft<'_>>) -> BTreeMap<u16, GatewayPort> {
    let mut http: BTreeMap<u16, Vec<Attached>> = BTreeMap::new();
    let mut ports = BTreeMap::new();
    for mut listener in listeners.into_iter().filter(ListenerDraft::is_served) {
        let port = listener.listener.port.get();
        if listener.listener.protocol == "HTTP" {
            http.entry(port).or_default().push(listener.http);
        } else {
            listener
                .tcp
                .sort_by(|a, b| older_first(a.created, b.created).then_with(|| a.route.cmp(&b.route)));
            let backends = listener.tcp.into_iter().next().map(|first| first.backends).unwrap_or_default();
            ports.insert(port, GatewayPort::Tcp(backends));
        }
    }
    ports.extend(
        http.into_iter().map(|(port, listeners)| (port, GatewayPort::Http(virtual_hosts(&listeners)))),
    );
    ports
}

fn status(draft: &Draft<'_>) -> Value {
    let say = Say::of(&draft.document.metadata);
    let served = draft.listeners.iter().filter(|listener| listener.is_served()).count();
    let valid = draft.listeners.iter().filter(|l| l.problem.is_none() && l.invalid_kinds.is_empty()).count();
    let unserved: Vec<_> = draft
        .listeners
        .iter()
        .filter(|listener| !listener.is_served())
        .map(|listener| listener.listener.name.as_str())
        .collect();
    let unserved = format!("not served: {}", unserved.join(", "));
    let accepted = match (served, valid == draft.listeners.len()) {
        _ if draft.wants_parameters() => {
            say.no("Accepted", "InvalidParameters", "there are no parameters for a Gateway".to_owned())
        }
        (0, _) => say.no("Accepted", "ListenersNotValid", unserved),
        (_, true) => say.yes("Accepted", "Accepted", "every listener is valid"),
        (_, false) => say.yes("Accepted", "ListenersNotValid", &unserved),
    };
    let programmed = match served {
        0 => say.no("Programmed", "Invalid", "no listener can be served".to_owned()),
        _ => say.yes("Programmed", "Programmed", "the configuration for its proxies is made"),
    };
    let listeners: Vec<_> = draft.listeners.iter().map(|listener| listener_status(listener, say)).collect();
    json!({ "conditions": [accepted, programmed], "listeners": listeners })
}

fn listener_status(draft: &ListenerDraft<'_>, say: Say) -> Value {
    let kinds: Vec<_> = match draft.problem {
        Some(Problem::Protocol) => Vec::new(),
        _ => draft.kinds.iter().map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind })).collect(),
    };
    json!({
        "name": draft.listener.name,
        "supportedKinds": kinds,
        "attachedRoutes": draft.attached.len(),
        "conditions": listener_conditions(draft, say),
    })
}

fn listener_conditions(draft: &ListenerDraft<'_>, say: Say) -> Vec<Condition> {
    let (accepted, conflicted) = match &draft.problem {
        None | Some(Problem::Gateway) => (
            say.yes("Accepted", "Accepted", "the listener is valid"),
            say.no("Conflicted", "NoConflicts", String::new()),
        ),
        Some(Problem::Protocol) => (
            say.no(
                "Accepted",
                "UnsupportedProtocol",
                format!("protocol {} is not served yet", draft.listener.protocol),
            ),
            say.no("Conflicted", "NoConflicts", String::new()),
        ),
        Some(Problem::Conflict { reason, with }) => {
            let message = format!("port {} cannot tell it from listener {with}", draft.listener.port);
            (say.no("Accepted", reason, message.clone()), say.yes("Conflicted", reason, &message))
        }
    };
    let resolved = match draft.invalid_kinds.is_empty() {
        true => say.yes("ResolvedRefs", "ResolvedRefs", "every kind of route is supported"),
        false => say.no(
            "ResolvedRefs",
            "InvalidRouteKinds",
            format!("protocol {} has no {}", draft.listener.protocol, draft.invalid_kinds.join(", ")),
        ),
    };
    let programmed = match draft.is_served() {
        true => say.yes("Programmed", "Programmed", "the configuration for its proxies is made"),
        false => say.no("Programmed", "Invalid", "the listener is not served".to_owned()),
    };
    vec![accepted, resolved, programmed, conflicted]
}
