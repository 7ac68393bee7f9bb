//! BackendTLSPolicies: which port of which Service is spoken to by TLS, and whom that says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::authorities::Authorities;
use super::backend::Broken;
use super::rule::{Action, older_first};
use super::{BackendTls, Gateway, GatewayPort, Name, PortTls, Service, Target, TlsTraffic, VirtualHost};
use crate::conditions::{CONTROLLER, Condition, Conditions, Say};
use crate::document::{
    BackendTlsPolicySpec, BackendTlsTarget, Documents, Envelope, GATEWAY_GROUP, Object, ObjectKey, ObjectRef,
};

/// A policy and what it comes to.
struct Draft<'a> {
    key: &'a ObjectKey,
    document: &'a Envelope<BackendTlsPolicySpec>,
    tls: PortTls,
    /// Authorities that cannot be believed.
    broken: Vec<Broken>,
    /// What of it is not known here.
    unsupported: Option<&'static str>,
    /// A policy that has one of its targets before it.
    loses_to: Option<Name>,
}

/// Gives the ports of `services` the TLS that policies want, and says the conditions of these.
pub(super) fn attach(
    documents: &Documents,
    authorities: &Authorities<'_>,
    services: &mut BTreeMap<Name, Service>,
    gateways: &BTreeMap<Name, Gateway>,
    conditions: &mut Conditions,
) {
    let mut drafts: Vec<_> = documents
        .objects
        .iter()
        .filter_map(|(key, document)| match &document.object {
            Object::BackendTlsPolicy(policy) => Some(Draft::new(key, policy, authorities)),
            _ => None,
        })
        .collect();
    drafts.sort_by(|a, b| {
        let created = |draft: &Draft<'_>| draft.document.metadata.creation_timestamp;
        older_first(created(a), created(b)).then_with(|| a.key.cmp(b.key))
    });
    let mut taken: BTreeMap<(Name, Option<&str>), (Name, PortTls)> = BTreeMap::new();
    for draft in &mut drafts {
        for target in &draft.document.spec.target_refs {
            let at = (draft.service(target), target.section_name.as_deref());
            match taken.get(&at) {
                Some((first, _)) => draft.loses_to = Some(first.clone()),
                None => drop(taken.insert(at, (draft.key.into(), draft.tls.clone()))),
            }
        }
    }
    for (name, service) in &mut *services {
        for port in &mut service.ports {
            let by_port = port.name.as_deref().and_then(|port| taken.get(&(name.clone(), Some(port))));
            let policy = by_port.or_else(|| taken.get(&(name.clone(), None)));
            port.tls = policy.map(|(_, tls)| tls.clone());
        }
    }
    for draft in &drafts {
        conditions.objects.insert(draft.key.clone(), draft.status(services, gateways));
    }
}

impl<'a> Draft<'a> {
    fn new(
        key: &'a ObjectKey,
        document: &'a Envelope<BackendTlsPolicySpec>,
        authorities: &Authorities<'_>,
    ) -> Self {
        let BackendTlsPolicySpec { validation, options, .. } = &document.spec;
        let mut pem = String::new();
        let mut broken = Vec::new();
        for reference in &validation.ca_certificate_refs {
            let reference = ObjectRef {
                group: reference.group.clone(),
                kind: reference.kind.clone(),
                name: reference.name.clone(),
                namespace: None,
            };
            match authorities.resolve(&reference, &key.namespace) {
                Ok(more) => {
                    pem += more.trim_end();
                    pem.push('\n');
                }
                Err(error) => broken.push(error),
            }
        }
        let unsupported = match (&validation.well_known_ca_certificates, options.is_empty()) {
            (Some(_), _) => Some("wellKnownCACertificates is not known here yet"),
            (None, false) => Some("an option is not known"),
            (None, true) => None,
        };
        let tls = match pem.is_empty() || unsupported.is_some() {
            true => PortTls::Nobody,
            false => PortTls::Verified(Arc::new(BackendTls {
                host: validation.hostname.clone(),
                authorities: pem,
                names: validation.subject_alt_names.clone(),
            })),
        };
        Self { key, document, tls, broken, unsupported, loses_to: None }
    }

    fn service(&self, target: &BackendTlsTarget) -> Name {
        Name::new(Arc::clone(&self.key.namespace), target.name.as_str())
    }

    /// Gateway API has the conditions of a policy by who is concerned: the Gateways that lead to its Services, and the
    /// Services themselves where no Gateway does.
    fn status(&self, services: &BTreeMap<Name, Service>, gateways: &BTreeMap<Name, Gateway>) -> Value {
        let conditions = self.conditions(services);
        let targets: BTreeSet<_> =
            self.document.spec.target_refs.iter().map(|target| self.service(target)).collect();
        let concerned = gateways
            .iter()
            .filter(|(_, gateway)| leads_to(gateway).iter().any(|target| targets.contains(&target.service)));
        let mut ancestors: Vec<_> = concerned
            .map(|(name, _)| {
                json!({ "group": GATEWAY_GROUP, "kind": "Gateway", "namespace": *name.namespace, "name": *name.name })
            })
            .collect();
        if ancestors.is_empty() {
            ancestors.extend(targets.iter().map(|name| {
                json!({ "group": "", "kind": "Service", "namespace": *name.namespace, "name": *name.name })
            }));
        }
        let status = |ancestor| json!({ "ancestorRef": ancestor, "controllerName": CONTROLLER, "conditions": conditions });
        json!({ "ancestors": ancestors.into_iter().map(status).collect::<Vec<_>>() })
    }

    fn conditions(&self, services: &BTreeMap<Name, Service>) -> [Condition; 2] {
        let say = Say::of(&self.document.metadata);
        let exists = |target: &&BackendTlsTarget| services.contains_key(&self.service(target));
        let accepted = match (&self.loses_to, self.unsupported, &self.tls) {
            (Some(first), _, _) => say.no(
                "Accepted",
                "Conflicted",
                format!("BackendTLSPolicy {first} has a target of it before it"),
            ),
            (None, Some(what), _) => say.no("Accepted", "Invalid", what.to_owned()),
            (None, None, PortTls::Nobody) => say.no(
                "Accepted",
                "NoValidCACertificate",
                "nobody is left to vouch for its Services, and nobody speaks to them".to_owned(),
            ),
            (None, None, PortTls::Verified(_))
                if self.document.spec.target_refs.iter().any(|of| !exists(&of)) =>
            {
                say.no("Accepted", "TargetNotFound", "a Service of it does not exist".to_owned())
            }
            (None, None, PortTls::Verified(_)) => {
                say.yes("Accepted", "Accepted", "its Services are spoken to by TLS")
            }
        };
        let resolved = match self.broken.first() {
            None => say.yes("ResolvedRefs", "ResolvedRefs", ""),
            Some(first) => {
                let reason = match first.reason {
                    "InvalidCACertificateKind" => "InvalidKind",
                    reason => reason,
                };
                let messages: Vec<_> = self.broken.iter().map(|broken| broken.message.as_str()).collect();
                say.no("ResolvedRefs", reason, messages.join("; "))
            }
        };
        [accepted, resolved]
    }
}

/// Where a gateway leads.
fn leads_to(gateway: &Gateway) -> BTreeSet<&Target> {
    fn of_hosts(hosts: &[VirtualHost]) -> impl Iterator<Item = &super::Backend> {
        let rules = hosts.iter().flat_map(|host| &host.rules);
        rules.flat_map(|rule| match &*rule.action {
            Action::Forward(forward) => forward.backends.as_slice(),
            Action::Redirect { .. } | Action::Fail => &[],
        })
    }
    let backends = gateway.ports.values().flat_map(|port| -> Vec<&super::Backend> {
        match port {
            GatewayPort::Http(hosts) => of_hosts(hosts).collect(),
            GatewayPort::Tcp(backends) => backends.iter().collect(),
            GatewayPort::Tls(listeners) => listeners
                .iter()
                .flat_map(|listener| -> Vec<&super::Backend> {
                    match &listener.traffic {
                        TlsTraffic::Http { hosts, .. } => of_hosts(hosts).collect(),
                        TlsTraffic::Tcp(routes) => routes.iter().flat_map(|(_, backends)| backends).collect(),
                    }
                })
                .collect(),
        }
    });
    backends.filter_map(|backend| backend.target.as_ref()).collect()
}
