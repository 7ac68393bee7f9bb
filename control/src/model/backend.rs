//! References from routes to backends: where they lead, and whether they may.

use std::collections::BTreeMap;

use super::grant::Grants;
use super::rule::Target;
use super::{Name, Service};
use crate::document::DEFAULT_NAMESPACE;

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
    grants: &'a Grants<'a>,
}

impl<'a> Backends<'a> {
    pub(super) fn new(services: &'a BTreeMap<Name, Service>, grants: &'a Grants<'a>) -> Self {
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
        let from = (referrer.kind, &*referrer.route.namespace);
        if referrer.side == Side::Gateway && !self.grants.allow(from, ("Service", &service)) {
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
}

/// A namespace as documents write it.
pub(super) fn namespace_or_default(written: Option<&str>) -> &str {
    written.filter(|namespace| !namespace.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
}
