//! Routes and their parents: which listeners of which Gateways, or which ports of which Services, take which routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::backend::{Backends, Broken, Referrer, Side};
use super::gateway::{Draft, ListenerDraft};
use super::host::HostPattern;
use super::http_route::Rules;
use super::request_route::{GRPC_ROUTE, HTTP_ROUTE, RequestRoute};
use super::rule::{Action, Rule, Target, older_first};
use super::{Name, Refusal, Scope, Service};
use crate::conditions::{CONTROLLER, Condition, Conditions, Say};
use crate::document::{Documents, FromNamespaces, GATEWAY_GROUP, ObjectKey, ParentRef};

mod connection;

use connection::ConnectionRoute;

/// What routes mean beside what is attached to Gateways.
#[derive(Default)]
pub(super) struct Routed {
    /// Rules that are for calls to a port of a service, and whose calls.
    pub(super) mesh: Vec<(Target, Scope, Vec<Rule>)>,
    /// Where GRPCRoutes lead.
    pub(super) called_by_grpc: BTreeSet<Target>,
}

/// Gateway API wants one of two conflicting routes not to be accepted, and has no reason for it.
const CONFLICT: &str = "RouteConflict";

/// Why a parent does not take a route: reason and message of the route's `Accepted`.
struct Refused {
    reason: &'static str,
    message: String,
}

impl Refused {
    fn no_hostname() -> Self {
        Self {
            reason: "NoMatchingListenerHostname",
            message: "no listener has a hostname in common with the route".to_owned(),
        }
    }
}

/// Attaches every route to its parents; says the conditions of the routes.
pub(super) fn attach(
    documents: &Documents,
    services: &BTreeMap<Name, Service>,
    backends: &Backends<'_>,
    gateways: &mut BTreeMap<Name, Draft<'_>>,
    refusal: Refusal,
    conditions: &mut Conditions,
) -> Routed {
    let mut routes: Vec<_> = documents
        .objects
        .iter()
        .filter_map(|(key, document)| Some((key, RequestRoute::of(&document.object)?)))
        .collect();
    // Of an HTTPRoute and a GRPCRoute for the same hosts the older is attached; of two equally old ones the first by
    // namespace and name.
    routes.sort_by(|(a_key, a), (b_key, b)| {
        let name =
            |key: &ObjectKey| (Arc::clone(&key.namespace), Arc::clone(&key.name), Arc::clone(&key.kind));
        older_first(a.created(), b.created()).then_with(|| name(a_key).cmp(&name(b_key)))
    });
    let mut attacher = Attacher {
        documents,
        services,
        gateways,
        refusal,
        routed: Routed::default(),
        ports_of_grpc: BTreeSet::new(),
    };
    attacher.ports_of_grpc = attacher.ports_of_grpc(&routes, backends);
    for (key, route) in routes {
        conditions.objects.insert(key.clone(), attacher.request_route(key, route, backends));
    }
    for (key, document) in &documents.objects {
        if let Some(route) = ConnectionRoute::of(&document.object) {
            conditions.objects.insert(key.clone(), attacher.connection_route(key, route, backends));
        }
    }
    attacher.routed
}

struct Attacher<'a, 'd> {
    documents: &'a Documents,
    services: &'a BTreeMap<Name, Service>,
    gateways: &'a mut BTreeMap<Name, Draft<'d>>,
    refusal: Refusal,
    routed: Routed,
    /// The ports of Services, for these callers, that GRPCRoutes are attached to: those of HTTPRoutes give way.
    ports_of_grpc: BTreeSet<(Target, Scope)>,
}

/// What is the same for all parents of a route.
struct Route<'a> {
    name: Name,
    kind: &'static str,
    hostnames: &'a [String],
}

/// The rules of a route for one side, and what is wrong with them.
struct Judged {
    rules: Vec<Rule>,
    broken: Vec<Broken>,
    /// What is not served, by rule.
    dropped: Vec<String>,
    /// No rule is served.
    nothing_left: bool,
}

impl Judged {
    fn new(Rules { rules, broken, unsupported }: Rules, rules_count: usize) -> Self {
        let nothing_left = !unsupported.is_empty() && unsupported.len() == rules_count;
        let dropped =
            unsupported.iter().map(|(position, what)| format!("spec.rules[{position}]: {what}")).collect();
        Self { rules, broken, dropped, nothing_left }
    }
}

impl<'d> Attacher<'_, 'd> {
    fn request_route(
        &mut self,
        key: &ObjectKey,
        document: RequestRoute<'_>,
        backends: &Backends<'_>,
    ) -> Value {
        let route = Route { name: key.into(), kind: document.kind(), hostnames: document.hostnames() };
        let say = Say::of(document.metadata());
        let mut sides = BTreeMap::new();
        let mut statuses = Vec::new();
        for parent in document.parents() {
            let side = if is_service(parent) { Side::Mesh } else { Side::Gateway };
            let judged = sides.entry(side).or_insert_with(|| self.judge(&route, document, side, backends));
            let Judged { rules, broken, dropped, nothing_left } = judged;
            let attached = match nothing_left {
                true => Err(Refused { reason: "UnsupportedValue", message: dropped.join("; ") }),
                false => self.request_parent(&route, parent, rules),
            };
            if let Some(attached) = attached.transpose() {
                if attached.is_ok() && route.kind == GRPC_ROUTE {
                    self.routed.called_by_grpc.extend(targets(rules));
                }
                let mut conditions = route_conditions(say, attached, broken);
                if conditions[0].status && !dropped.is_empty() {
                    let message = format!("Dropped Rule: {}", dropped.join("; "));
                    conditions.push(say.yes("PartiallyInvalid", "UnsupportedValue", &message));
                }
                statuses.push(parent_status(parent, &conditions));
            }
        }
        json!({ "parents": statuses })
    }

    fn judge(
        &self,
        route: &Route<'_>,
        document: RequestRoute<'_>,
        side: Side,
        backends: &Backends<'_>,
    ) -> Judged {
        let referrer = Referrer { route: &route.name, kind: route.kind, side };
        Judged::new(document.rules(referrer, backends, self.refusal), document.rules_count())
    }

    /// Every port of a Service, and for which callers, that some GRPCRoute of `routes` will be attached to.
    fn ports_of_grpc(
        &self,
        routes: &[(&ObjectKey, RequestRoute<'_>)],
        backends: &Backends<'_>,
    ) -> BTreeSet<(Target, Scope)> {
        let mut ports = BTreeSet::new();
        for (key, document) in routes.iter().filter(|(_, document)| document.kind() == GRPC_ROUTE) {
            let route = Route { name: (*key).into(), kind: GRPC_ROUTE, hostnames: document.hostnames() };
            let mut parents = document.parents().iter().filter(|parent| is_service(parent)).peekable();
            if parents.peek().is_none() || self.judge(&route, *document, Side::Mesh, backends).nothing_left {
                continue;
            }
            let of_parents = parents.filter_map(|parent| self.service_ports(&route, parent).ok());
            ports.extend(
                of_parents.flat_map(|(targets, scope)| {
                    targets.into_iter().map(move |target| (target, scope.clone()))
                }),
            );
        }
        ports
    }

    /// Attaches to one parent. `None` for a parent that is another controller's.
    fn request_parent(
        &mut self,
        route: &Route<'_>,
        parent: &ParentRef,
        rules: &[Rule],
    ) -> Result<Option<String>, Refused> {
        if is_service(parent) {
            let message = self.service_parent(route, parent, rules)?;
            return Ok(Some(message));
        }
        let Some(listeners) = self.listeners(route, parent)? else { return Ok(None) };
        let mut is_attached = false;
        let mut taken_by = None;
        for listener in listeners {
            let common = hosts_in_common(route, listener);
            if common.is_empty() {
                continue;
            }
            if let Some(other) = listener.taken_by_other_kind(route.kind, &common) {
                taken_by = Some(other);
                continue;
            }
            is_attached = true;
            listener.attached.insert((route.kind, route.name.clone()));
            listener.taken.push((route.kind, common.clone()));
            listener.http.routes.push((common, rules.to_vec()));
        }
        match (is_attached, taken_by) {
            (true, _) => Ok(Some("attached".to_owned())),
            (false, Some(other)) => {
                let message = format!(
                    "a {other} that goes before it has hostnames of the route, and they are not merged"
                );
                Err(Refused { reason: CONFLICT, message })
            }
            (false, None) => Err(Refused::no_hostname()),
        }
    }

    /// The listeners that `parent` names and that let the route attach. `None` for another controller's Gateway.
    fn listeners(
        &mut self,
        route: &Route<'_>,
        parent: &ParentRef,
    ) -> Result<Option<Vec<&mut ListenerDraft<'d>>>, Refused> {
        let kind = parent.kind.as_deref().unwrap_or("Gateway");
        let refused = |reason, message| Err(Refused { reason, message });
        if kind != "Gateway" || parent.group.as_deref().unwrap_or(GATEWAY_GROUP) != GATEWAY_GROUP {
            return refused("NoMatchingParent", format!("a parent of kind {kind} takes no routes here"));
        }
        let name = parent_name(route, parent);
        let documents = self.documents;
        let Some(gateway) = self.gateways.get_mut(&name) else {
            return refused("NoMatchingParent", format!("Gateway {name} does not exist"));
        };
        if !gateway.is_ours() {
            return Ok(None);
        }
        let named: Vec<_> = gateway
            .listeners
            .iter_mut()
            .filter(|draft| {
                let listener = draft.listener;
                parent.section_name.as_ref().is_none_or(|section| *section == listener.name)
                    && parent.port.is_none_or(|port| port == listener.port)
            })
            .collect();
        if named.is_empty() {
            return refused("NoMatchingParent", format!("Gateway {name} has no such listener"));
        }
        let allowed: Vec<_> = named
            .into_iter()
            .filter(|draft| {
                draft.kinds.contains(&route.kind) && allows_namespace(documents, draft, &name, &route.name)
            })
            .collect();
        match allowed.is_empty() {
            true => refused(
                "NotAllowedByListeners",
                format!(
                    "no listener of Gateway {name} allows {} from namespace {}",
                    route.kind, route.name.namespace
                ),
            ),
            false => Ok(Some(allowed)),
        }
    }

    /// Attaches to ports of a Service of the mesh.
    fn service_parent(
        &mut self,
        route: &Route<'_>,
        parent: &ParentRef,
        rules: &[Rule],
    ) -> Result<String, Refused> {
        let (mut targets, scope) = self.service_ports(route, parent)?;
        if route.kind == HTTP_ROUTE {
            targets.retain(|target| !self.ports_of_grpc.contains(&(target.clone(), scope.clone())));
        }
        if targets.is_empty() {
            let message = "a GRPCRoute is attached to the same ports, and they are not merged".to_owned();
            return Err(Refused { reason: CONFLICT, message });
        }
        let message = match &scope {
            Scope::Producer => "attached for callers of every namespace".to_owned(),
            Scope::Consumer(namespace) => format!("attached for callers in namespace {namespace}"),
        };
        let attached = targets.into_iter().map(|target| (target, scope.clone(), rules.to_vec()));
        self.routed.mesh.extend(attached);
        Ok(message)
    }

    /// The ports of a Service of the mesh that `parent` names, and for which callers.
    fn service_ports(&self, route: &Route<'_>, parent: &ParentRef) -> Result<(Vec<Target>, Scope), Refused> {
        let name = parent_name(route, parent);
        let refused = |message| Err(Refused { reason: "NoMatchingParent", message });
        let Some(service) = self.services.get(&name) else {
            return refused(format!("Service {name} does not exist"));
        };
        let ports: Vec<u16> = service
            .ports
            .iter()
            .map(|port| port.port)
            .filter(|port| parent.port.is_none_or(|wanted| wanted.get() == *port))
            .collect();
        if ports.is_empty() || parent.section_name.is_some() {
            return refused(format!("Service {name} has no such port"));
        }
        let scope = match name.namespace == route.name.namespace {
            true => Scope::Producer,
            false => Scope::Consumer(Arc::clone(&route.name.namespace)),
        };
        let target = |port| Target { service: name.clone(), port };
        Ok((ports.into_iter().map(target).collect(), scope))
    }
}

/// Where rules lead.
fn targets(rules: &[Rule]) -> impl Iterator<Item = Target> {
    let forwards = rules.iter().filter_map(|rule| match &*rule.action {
        Action::Forward(forward) => Some(forward),
        Action::Redirect { .. } | Action::Fail => None,
    });
    forwards.flat_map(|forward| &forward.backends).filter_map(|backend| backend.target.clone())
}

/// The hosts of a listener that a route is for.
fn hosts_in_common(route: &Route<'_>, listener: &ListenerDraft<'_>) -> Vec<HostPattern> {
    if route.hostnames.is_empty() {
        return vec![listener.host.clone()];
    }
    let own = route.hostnames.iter().map(|name| HostPattern::parse(Some(name)));
    own.filter_map(|host| listener.host.intersect(&host).cloned()).collect()
}

fn is_service(parent: &ParentRef) -> bool {
    parent.kind.as_deref() == Some("Service") && parent.group.as_deref().unwrap_or("").is_empty()
}

fn parent_name(route: &Route<'_>, parent: &ParentRef) -> Name {
    let namespace = parent.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    Name::new(namespace.unwrap_or(&route.name.namespace), parent.name.as_str())
}

fn allows_namespace(documents: &Documents, draft: &ListenerDraft<'_>, gateway: &Name, route: &Name) -> bool {
    let namespaces = &draft.listener.allowed_routes.namespaces;
    match namespaces.from {
        FromNamespaces::All => true,
        FromNamespaces::None => false,
        FromNamespaces::Same => gateway.namespace == route.namespace,
        FromNamespaces::Selector => {
            let selector = namespaces.selector.clone().unwrap_or_default();
            selector.matches(&namespace_labels(documents, &route.namespace))
        }
    }
}

/// The labels of a namespace: those of its document, and its name, which Kubernetes adds to each.
fn namespace_labels(documents: &Documents, namespace: &Arc<str>) -> BTreeMap<String, String> {
    let key = ObjectKey {
        group: "".into(),
        kind: "Namespace".into(),
        namespace: "".into(),
        name: Arc::clone(namespace),
    };
    let document = documents.objects.get(&key);
    let mut labels = document.map(|document| document.object.metadata().labels.clone()).unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_string());
    labels
}

fn route_conditions(say: Say, attached: Result<String, Refused>, broken: &[Broken]) -> Vec<Condition> {
    let accepted = match attached {
        Ok(message) => say.yes("Accepted", "Accepted", &message),
        Err(Refused { reason, message }) => say.no("Accepted", reason, message),
    };
    let resolved = match broken.first() {
        None => say.yes("ResolvedRefs", "ResolvedRefs", "every reference leads to a backend"),
        Some(first) => {
            let messages: Vec<_> = broken.iter().map(|broken| broken.message.as_str()).collect();
            say.no("ResolvedRefs", first.reason, messages.join("; "))
        }
    };
    vec![accepted, resolved]
}

pub(super) fn parent_status(parent: &ParentRef, conditions: &[Condition]) -> Value {
    // As written, without the fields that are absent.
    let mut reference = json!(parent);
    if let Value::Object(fields) = &mut reference {
        fields.retain(|_, value| !value.is_null());
    }
    json!({ "parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions })
}
