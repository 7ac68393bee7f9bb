//! References from routes to backends: where they lead, and whether they may.

use std::collections::BTreeMap;

use super::rule::Target;
use super::{Name, Service};
use crate::document::{
    DEFAULT_NAMESPACE, Documents, GATEWAY_GROUP, Object, ReferenceGrantFrom, ReferenceGrantTo,
};

/// A reference to a backend as a route writes it.
pub(super) struct Reference<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) port: Option<u16>,
}

/// The route that refers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Referrer<'a> {
    pub(super) route: &'a Name,
    pub(super) kind: &'static str,
    pub(super) side: Side,
}

/// Whose requests a route is for at a parent. It decides whether a reference to another namespace needs a
/// ReferenceGrant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// Those that come in through a Gateway: a reference opens a service to callers that could not reach it, so its
    /// namespace must have agreed.
    Gateway,
    /// Calls to a Service of the mesh: the caller reaches the other service by its name just as well, so there is
    /// nothing to agree to (GEP-1294).
    Mesh,
}

/// Why a reference leads nowhere: reason and message of the route's `ResolvedRefs`.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Everything that decides where references lead.
pub(super) struct Backends<'a> {
    services: &'a BTreeMap<Name, Service>,
    /// Who may refer to what, with the namespace of the grant.
    grants: Vec<(&'a str, &'a [ReferenceGrantFrom], &'a [ReferenceGrantTo])>,
}

impl<'a> Backends<'a> {
    pub(super) fn new(documents: &'a Documents, services: &'a BTreeMap<Name, Service>) -> Self {
        let grants = documents
            .objects
            .iter()
            .filter_map(|(key, document)| match &document.object {
                Object::ReferenceGrant(grant) => Some((&*key.namespace, &*grant.spec.from, &*grant.spec.to)),
                _ => None,
            })
            .collect();
        Self { services, grants }
    }

    /// Where `reference` of a route leads.
    pub(super) fn resolve(
        &self,
        reference: &Reference<'_>,
        referrer: Referrer<'_>,
    ) -> Result<Target, Broken> {
        let namespace = match reference.namespace {
            None | Some("") => &referrer.route.namespace,
            Some(namespace) => namespace,
        };
        let service = Name::new(namespace, reference.name);
        let broken = |reason, message| Err(Broken { reason, message });
        if !reference.group.unwrap_or("").is_empty() || reference.kind.unwrap_or("Service") != "Service" {
            let kind = reference.kind.unwrap_or("Service");
            return broken("InvalidKind", format!("a backend of kind {kind} cannot be forwarded to"));
        }
        // Before anything is said of what is there: without a grant that is nobody's business.
        let abroad = service.namespace != referrer.route.namespace;
        if abroad && referrer.side == Side::Gateway && !self.granted(&service, referrer) {
            let message =
                format!("no ReferenceGrant in {namespace} lets this route refer to Service {service}");
            return broken("RefNotPermitted", message);
        }
        let Some(known) = self.services.get(&service) else {
            return broken("BackendNotFound", format!("Service {service} does not exist"));
        };
        let Some(port) = reference.port else {
            return broken("BackendNotFound", format!("the reference to Service {service} names no port"));
        };
        if known.external {
            return broken("UnsupportedProtocol", format!("Service {service} has no endpoints of its own"));
        }
        if known.port(port).is_none() {
            return broken("BackendNotFound", format!("Service {service} has no port {port}"));
        }
        Ok(Target { service, port })
    }

    fn granted(&self, service: &Name, referrer: Referrer<'_>) -> bool {
        self.grants.iter().any(|(namespace, from, to)| {
            **namespace == *service.namespace
                && from.iter().any(|from| {
                    from.group == GATEWAY_GROUP
                        && from.kind == referrer.kind
                        && *from.namespace == *referrer.route.namespace
                })
                && to.iter().any(|to| {
                    to.group.is_empty()
                        && to.kind == "Service"
                        && to.name.as_deref().is_none_or(|name| name == &*service.name)
                })
        })
    }
}

/// A namespace as documents write it.
pub(super) fn namespace_or_default(written: Option<&str>) -> &str {
    written.filter(|namespace| !namespace.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
}
