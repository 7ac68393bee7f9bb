//! Routes of connections: TCPRoutes, and TLSRoutes, which are for the hosts that connections ask for.

use serde_json::{Value, json};

use super::{Attacher, Refused, Route, hosts_in_common, is_service, parent_status, route_conditions};
use crate::conditions::Say;
use crate::document::{
    BackendRef, Envelope, HeaderModifier, Metadata, Object, ObjectKey, ParentRef, Port, TcpRouteRule,
    TcpRouteSpec, TlsRouteSpec,
};
use crate::model::backend::{Backends, Broken, Reference, Referrer, Side};
use crate::model::gateway::ConnectionsAttached;
use crate::model::rule::Backend;

/// A route of connections as it is written.
#[derive(Clone, Copy)]
pub(super) enum ConnectionRoute<'a> {
    Tcp(&'a Envelope<TcpRouteSpec>),
    Tls(&'a Envelope<TlsRouteSpec>),
}

impl<'a> ConnectionRoute<'a> {
    /// `None` for any other kind of document.
    pub(super) fn of(object: &'a Object) -> Option<Self> {
        match object {
            Object::TcpRoute(route) => Some(Self::Tcp(route)),
            Object::TlsRoute(route) => Some(Self::Tls(route)),
            _ => None,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Tcp(_) => "TCPRoute",
            Self::Tls(_) => "TLSRoute",
        }
    }

    fn metadata(self) -> &'a Metadata {
        match self {
            Self::Tcp(route) => &route.metadata,
            Self::Tls(route) => &route.metadata,
        }
    }

    fn parents(self) -> &'a [ParentRef] {
        match self {
            Self::Tcp(route) => &route.spec.parent_refs,
            Self::Tls(route) => &route.spec.parent_refs,
        }
    }

    fn hostnames(self) -> &'a [String] {
        match self {
            Self::Tcp(_) => &[],
            Self::Tls(route) => &route.spec.hostnames,
        }
    }

    fn rules(self) -> &'a [TcpRouteRule] {
        match self {
            Self::Tcp(route) => &route.spec.rules,
            Self::Tls(route) => &route.spec.rules,
        }
    }
}

impl Attacher<'_, '_> {
    pub(super) fn connection_route(
        &mut self,
        key: &ObjectKey,
        document: ConnectionRoute<'_>,
        backends: &Backends<'_>,
    ) -> Value {
        let route = Route { name: key.into(), kind: document.kind(), hostnames: document.hostnames() };
        let referrer = Referrer { route: &route.name, kind: route.kind, side: Side::Gateway };
        let mut broken = Vec::new();
        let refs = document.rules().iter().flat_map(|rule| &rule.backend_refs);
        let resolved: Vec<_> =
            refs.map(|backend| resolve(backend, referrer, backends, &mut broken)).collect();
        let resolved: Vec<_> = resolved.into_iter().filter(|backend| backend.weight > 0).collect();
        let mut statuses = Vec::new();
        for parent in document.parents() {
            let attached = self.connection_parent(&route, parent, document, &resolved);
            if let Some(attached) = attached.transpose() {
                let conditions = route_conditions(Say::of(document.metadata()), attached, &broken);
                statuses.push(parent_status(parent, &conditions));
            }
        }
        json!({ "parents": statuses })
    }

    /// Attaches to one parent. `None` for a parent that is another controller's.
    fn connection_parent(
        &mut self,
        route: &Route<'_>,
        parent: &ParentRef,
        document: ConnectionRoute<'_>,
        backends: &[Backend],
    ) -> Result<Option<String>, Refused> {
        if is_service(parent) {
            let message = format!("a {} of a Service is not served yet", route.kind);
            return Err(Refused { reason: "UnsupportedValue", message });
        }
        let Some(listeners) = self.listeners(route, parent)? else { return Ok(None) };
        let mut is_attached = false;
        for listener in listeners {
            let hosts = hosts_in_common(route, listener);
            if hosts.is_empty() {
                continue;
            }
            is_attached = true;
            listener.attached.insert((route.kind, route.name.clone()));
            listener.connections.push(ConnectionsAttached {
                created: document.metadata().creation_timestamp,
                route: route.name.clone(),
                hosts,
                backends: backends.to_vec(),
            });
        }
        match is_attached {
            true => Ok(Some("attached".to_owned())),
            false => Err(Refused::no_hostname()),
        }
    }
}

fn resolve(
    backend: &BackendRef,
    referrer: Referrer<'_>,
    backends: &Backends<'_>,
    broken: &mut Vec<Broken>,
) -> Backend {
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
}
