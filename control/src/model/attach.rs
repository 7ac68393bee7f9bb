//! Routes and their parents: which listeners of which Gateways, or which ports of which Services, take which routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::backend::{Backends, Broken, Reference, Referrer, Side};
use super::gateway::{Draft, ListenerDraft, TcpAttached};
use super::host::HostPattern;
use super::http_route::{self, Rules};
use super::rule::{Backend, Rule, Target};
use super::{Name, Refusal, Scope, Service};
use crate::conditions::{CONTROLLER, Condition, Conditions, Say};
use crate::document::{
    Documents, Envelope, FromNamespaces, GATEWAY_GROUP, HeaderModifier, HttpRouteSpec, Object, ObjectKey,
    ParentRef, Port, TcpRouteSpec,
};

/// Rules that are for calls to a port of a service, and whose calls.
pub(super) type MeshRules = Vec<(Target, Scope, Vec<Rule>)>;

/// Why a parent does not take a route: reason and message of the route's `Accepted`.
struct Refused {
    reason: &'static str,
    message: String,
}

/// Attaches every route to its parents; says the conditions of the routes.
pub(super) fn attach(
    documents: &Documents,
    services: &BTreeMap<Name, Service>,
    gateways: &mut BTreeMap<Name, Draft<'_>>,
    refusal: Refusal,
    conditions: &mut Conditions,
) -> MeshRules {
    let backends = Backends::new(documents, services);
    let mut attacher = Attacher { documents, services, gateways, refusal, mesh: Vec::new() };
    for (key, document) in &documents.objects {
        let status = match &document.object {
            Object::HttpRoute(route) => attacher.http_route(key, route, &backends),
            Object::TcpRoute(route) => attacher.tcp_route(key, route, &backends),
            _ => continue,
        };
        conditions.objects.insert(key.clone(), status);
    }
    attacher.mesh
}

struct Attacher<'a, 'd> {
    documents: &'a Documents,
    services: &'a BTreeMap<Name, Service>,
    gateways: &'a mut BTreeMap<Name, Draft<'d>>,
    refusal: Refusal,
    mesh: MeshRules,
}

/// What is the same for all parents of a route.
struct Route<'a> {
    name: Name,
    kind: &'static str,
    hostnames: &'a [String],
}

/// The rules of an HTTPRoute for one side, and what is wrong with them.
struct Judged {
    rules: Vec<Rule>,
    broken: Vec<Broken>,
    /// What is not served, by rule.
    dropped: Vec<String>,
    /// No rule is served.
    nothing_left: bool,
}

impl Judged {
    fn new(Rules { rules, broken, unsupported }: Rules, document: &Envelope<HttpRouteSpec>) -> Self {
        let nothing_left = !unsupported.is_empty() && unsupported.len() == document.spec.rules.len();
        let dropped =
            unsupported.iter().map(|(position, what)| format!("spec.rules[{position}]: {what}")).collect();
        Self { rules, broken, dropped, nothing_left }
    }
}

impl<'d> Attacher<'_, 'd> {
    fn http_route(
        &mut self,
        key: &ObjectKey,
        document: &Envelope<HttpRouteSpec>,
        backends: &Backends<'_>,
    ) -> Value {
        let route = Route { name: key.into(), kind: "HTTPRoute", hostnames: &document.spec.hostnames };
        let say = Say::of(&document.metadata);
        let refusal = self.refusal;
        let mut sides = BTreeMap::new();
        let mut statuses = Vec::new();
        for parent in &document.spec.parent_refs {
            let side = if is_service(parent) { Side::Mesh } else { Side::Gateway };
            let referrer = Referrer { route: &route.name, kind: route.kind, side };
            let Judged { rules, broken, dropped, nothing_left } = sides.entry(side).or_insert_with(|| {
                Judged::new(http_route::rules(referrer, document, backends, refusal), document)
            });
            let attached = match nothing_left {
                true => Err(Refused { reason: "UnsupportedValue", message: dropped.join("; ") }),
                false => self.http_parent(&route, parent, rules),
            };
            if let Some(attached) = attached.transpose() {
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

    /// Attaches to one parent. `None` for a parent that is another controller's.
    fn http_parent(
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
        let mut hosts_in_common = false;
        let own: Vec<_> = route.hostnames.iter().map(|name| HostPattern::parse(Some(name))).collect();
        for listener in listeners {
            let common: Vec<HostPattern> = match own.is_empty() {
                true => vec![listener.host.clone()],
                false => own.iter().filter_map(|host| listener.host.intersect(host).cloned()).collect(),
            };
            if !common.is_empty() {
                hosts_in_common = true;
                listener.attached.insert((route.kind, route.name.clone()));
                listener.http.routes.push((common, rules.to_vec()));
            }
        }
        match hosts_in_common {
            true => Ok(Some("attached".to_owned())),
            false => Err(Refused {
                reason: "NoMatchingListenerHostname",
                message: "no listener has a hostname in common with the route".to_owned(),
            }),
        }
    }

    fn tcp_route(
        &mut self,
        key: &ObjectKey,
        document: &Envelope<TcpRouteSpec>,
        backends: &Backends<'_>,
    ) -> Value {
        let route = Route { name: key.into(), kind: "TCPRoute", hostnames: &[] };
        let referrer = Referrer { route: &route.name, kind: route.kind, side: Side::Gateway };
        let mut broken = Vec::new();
        let resolved: Vec<Backend> = document
            .spec
            .rules
            .iter()
            .flat_map(|rule| &rule.backend_refs)
            .map(|backend| {
                let reference = Reference {
                    group: backend.group.as_deref(),
                    kind: backend.kind.as_deref(),
                    namespace: backend.namespace.as_deref(),
                    name: &backend.name,
                    port: backend.port.map(Port::get),
                };
                let target = backends.resolve(&reference, referrer);
                Backend {
                    target: target.map_err(|error| broken.push(error)).ok(),
                    weight: backend.weight,
                    request_headers: HeaderModifier::default(),
                    response_headers: HeaderModifier::default(),
                }
            })
            .filter(|backend| backend.weight > 0)
            .collect();
        let mut statuses = Vec::new();
        for parent in &document.spec.parent_refs {
            let attached = match is_service(parent) {
                true => Err(Refused {
                    reason: "UnsupportedValue",
                    message: "a TCPRoute of a Service is not served yet".to_owned(),
                }),
                false => self.listeners(&route, parent).map(|listeners| {
                    listeners.map(|listeners| {
                        for listener in listeners {
                            listener.attached.insert((route.kind, route.name.clone()));
                            listener.tcp.push(TcpAttached {
                                created: document.metadata.creation_timestamp,
                                route: route.name.clone(),
                                backends: resolved.clone(),
                            });
                        }
                        "attached".to_owned()
                    })
                }),
            };
            if let Some(attached) = attached.transpose() {
                let conditions = route_conditions(Say::of(&document.metadata), attached, &broken);
                statuses.push(parent_status(parent, &conditions));
            }
        }
        json!({ "parents": statuses })
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
        let message = match &scope {
            Scope::Producer => "attached for callers of every namespace".to_owned(),
            Scope::Consumer(namespace) => format!("attached for callers in namespace {namespace}"),
        };
        for port in ports {
            let target = Target { service: name.clone(), port };
            self.mesh.push((target, scope.clone(), rules.to_vec()));
        }
        Ok(message)
    }
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
