//! AuthorizationPolicies and their targets: which of them say who may call the workloads of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Name, Protocol, Service};
use crate::conditions::{Condition, Conditions, Say, status};
use crate::document::{
    AuthorizationAction, AuthorizationPolicySpec, AuthorizationRule, AuthorizationTarget,
    AuthorizationTargetKind, Documents, Enforcement, Envelope, Object, ObjectKey,
};

/// Every policy, by whose callers it is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Authorization {
    /// Those of the workloads of a service.
    of_services: BTreeMap<Name, Policies>,
    /// Those of all workloads of a namespace.
    of_namespaces: BTreeMap<Arc<str>, Policies>,
}

/// By name, so that every replica has them in one order.
type Policies = BTreeMap<Arc<str>, Arc<AuthorizationPolicy>>;

/// A policy as it is written; its targets are where it is found.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizationPolicy {
    /// Its name, and the namespace that its sources are of where they name none.
    pub name: Name,
    /// What becomes of those that match.
    pub action: AuthorizationAction,
    /// Whether it is done, or only counted and logged.
    pub enforcement: Enforcement,
    /// One of them must match.
    pub rules: Vec<AuthorizationRule>,
}

impl Authorization {
    /// The policies about callers of the workloads of `service`, each once, in order of their names.
    pub fn of(&self, service: &Name) -> Vec<&AuthorizationPolicy> {
        let own = self.of_services.get(service).into_iter().flatten();
        let all = self.of_namespaces.get(&service.namespace).into_iter().flatten();
        let by_name: BTreeMap<_, _> = own.chain(all).collect();
        by_name.into_values().map(Arc::as_ref).collect()
    }
}

/// Collects the policies and says their conditions.
pub(super) fn collect(
    documents: &Documents,
    services: &BTreeMap<Name, Service>,
    conditions: &mut Conditions,
) -> Authorization {
    let mut all = Authorization::default();
    for (key, document) in &documents.objects {
        let Object::AuthorizationPolicy(policy) = &document.object else { continue };
        conditions.objects.insert(key.clone(), status(&judge(key, policy, services)));
        all.add(key, &policy.spec);
    }
    all
}

impl Authorization {
    fn add(&mut self, key: &ObjectKey, spec: &AuthorizationPolicySpec) {
        let policy = Arc::new(AuthorizationPolicy {
            name: key.into(),
            action: spec.action,
            enforcement: spec.enforcement,
            rules: spec.rules.clone(),
        });
        for target in targets(key, &spec.target_refs) {
            let policies = match target {
                Some(service) => self.of_services.entry(service).or_default(),
                None => self.of_namespaces.entry(Arc::clone(&key.namespace)).or_default(),
            };
            policies.insert(Arc::clone(&key.name), Arc::clone(&policy));
        }
    }
}

/// Services, or `None` for all workloads of the namespace.
pub(super) fn targets(key: &ObjectKey, targets: &[AuthorizationTarget]) -> BTreeSet<Option<Name>> {
    let targets = targets.iter().map(|target| match target.kind {
        AuthorizationTargetKind::Service => {
            Some(Name::new(Arc::clone(&key.namespace), target.name.as_deref().unwrap_or_default()))
        }
        AuthorizationTargetKind::Pod => None,
    });
    targets.collect()
}

/// Those of them that are not there; `None` if all are.
pub(super) fn missing_targets(
    targets: &BTreeSet<Option<Name>>,
    services: &BTreeMap<Name, Service>,
) -> Option<String> {
    let named = targets.iter().flatten();
    let missing: Vec<_> = named.filter(|name| !services.contains_key(*name)).map(Name::to_string).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// A policy is in force whatever is said here: a Service may come later, or never have been a document.
fn judge(
    key: &ObjectKey,
    policy: &Envelope<AuthorizationPolicySpec>,
    services: &BTreeMap<Name, Service>,
) -> [Condition; 2] {
    let say = Say::of(&policy.metadata);
    let targets = targets(key, &policy.spec.target_refs);
    let resolved = match missing_targets(&targets, services) {
        None => say.yes("ResolvedRefs", "ResolvedRefs", ""),
        Some(missing) => say.no(
            "ResolvedRefs",
            "TargetNotFound",
            format!("there is no Service {missing} yet; the policy holds as soon as there is"),
        ),
    };
    let speaks_tcp = |name: &&Name| {
        let ports = services.get(*name).map(|service| &*service.ports).unwrap_or_default();
        ports.iter().any(|port| port.protocol == Protocol::Tcp)
    };
    let of_requests = policy.spec.rules.iter().any(|rule| rule.http_attributes.is_some());
    let message = match targets.iter().flatten().find(speaks_tcp) {
        Some(name) if of_requests => {
            let what = match policy.spec.action {
                AuthorizationAction::Allow => "allow nothing",
                AuthorizationAction::Deny => "deny without them",
            };
            format!("a port of Service {name} is not HTTP: there rules with httpAttributes {what}")
        }
        _ => String::new(),
    };
    [say.yes("Accepted", "Accepted", &message), resolved]
}
