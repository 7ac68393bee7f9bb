//! PeerAuthentications and their targets: how the workloads of a service take those who call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::authorization::{missing_targets, targets};
use super::{Name, Service};
use crate::conditions::{Conditions, Say, status};
use crate::document::{Documents, Envelope, MtlsMode, Object, ObjectKey, PeerAuthenticationSpec};

/// What is said of how callers are taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerAuthentications {
    /// Of the workloads of a service.
    of_services: BTreeMap<Name, MtlsMode>,
    /// Of all workloads of a namespace of which nothing else is said.
    of_namespaces: BTreeMap<Arc<str>, MtlsMode>,
}

impl PeerAuthentications {
    /// How the workloads of `service` take those who call.
    pub fn mode_of(&self, service: &Name) -> MtlsMode {
        let said = self.of_services.get(service).or_else(|| self.of_namespaces.get(&service.namespace));
        said.copied().unwrap_or(MtlsMode::Strict)
    }
}

/// A service, or `None` for all workloads of the namespace.
type Target = Option<Name>;

/// What is said of a target, each with who says it.
type Said<'a> = BTreeMap<(Arc<str>, Target), Vec<(MtlsMode, &'a ObjectKey)>>;

/// Collects what is said and says the conditions.
pub(super) fn collect(
    documents: &Documents,
    services: &BTreeMap<Name, Service>,
    conditions: &mut Conditions,
) -> PeerAuthentications {
    let those = || {
        documents.objects.iter().filter_map(|(key, document)| match &document.object {
            Object::PeerAuthentication(peers) => Some((key, peers)),
            _ => None,
        })
    };
    let mut said = Said::new();
    for (key, peers) in those() {
        for target in targets(key, &peers.spec.target_refs) {
            let of = said.entry((Arc::clone(&key.namespace), target)).or_default();
            of.push((peers.spec.mtls.mode, key));
        }
    }
    for (key, peers) in those() {
        conditions.objects.insert(key.clone(), judge(key, peers, &said, services));
    }
    let mut all = PeerAuthentications::default();
    for ((namespace, target), modes) in said {
        let Some(strictest) = modes.iter().map(|(mode, _)| *mode).max() else { continue };
        match target {
            Some(service) => all.of_services.insert(service, strictest),
            None => all.of_namespaces.insert(namespace, strictest),
        };
    }
    all
}

/// It is not accepted where another one holds instead, for whichever target: who reads its name must not think that it does.
fn judge(
    key: &ObjectKey,
    peers: &Envelope<PeerAuthenticationSpec>,
    said: &Said<'_>,
    services: &BTreeMap<Name, Service>,
) -> serde_json::Value {
    let say = Say::of(&peers.metadata);
    let targets: BTreeSet<Target> = targets(key, &peers.spec.target_refs);
    let stricter = targets.iter().find_map(|target| {
        let of = said.get(&(Arc::clone(&key.namespace), target.clone()))?;
        let (_, other) = of.iter().find(|(mode, _)| *mode > peers.spec.mtls.mode)?;
        Some((*other, target))
    });
    let accepted = match stricter {
        None => say.yes("Accepted", "Accepted", ""),
        Some((other, target)) => {
            let whose = match target {
                Some(service) => format!("Service {service}"),
                None => format!("the workloads of namespace {}", key.namespace),
            };
            say.no("Accepted", "Conflicted", format!("{other} is stricter for {whose}, and holds"))
        }
    };
    let missing = missing_targets(&targets, services);
    let resolved = match missing {
        None => say.yes("ResolvedRefs", "ResolvedRefs", ""),
        Some(missing) => {
            let message =
                format!("there is no Service {missing} yet; what is said here holds as soon as there is");
            say.no("ResolvedRefs", "TargetNotFound", message)
        }
    };
    status(&[accepted, resolved])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;
    use crate::model::{Registrations, build};

    /// What the model says of documents of `(name, targets, mode)` in namespace shop, and the first condition of each.
    fn judged(written: &[(&str, &str, &str)]) -> (PeerAuthentications, Vec<String>) {
        let mut documents = Documents::default();
        for (name, targets, mode) in written {
            let text = format!(
                "apiVersion: ringway.io/v1alpha1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: shop}}\n\
                 spec: {{targetRefs: [{targets}], mtls: {{mode: {mode}}}}}\n"
            );
            let document = parse(&"mesh.yaml".into(), &text).pop().unwrap().unwrap();
            documents.objects.insert(document.key.clone(), document.into());
        }
        let (model, conditions) = build(&documents, &Registrations::new(), |_| None);
        let said = conditions.objects.values().map(|status| {
            let of = &status["conditions"][0];
            format!("{} {}", of["reason"].as_str().unwrap(), of["message"].as_str().unwrap())
        });
        (model.peer_authentications, said.collect())
    }

    #[test]
    fn the_nearest_says_how_callers_are_taken_and_the_strictest_of_those() {
        const ALL: &str = "{kind: Pod, selector: {}}";
        const PAY: &str = "{kind: Service, name: pay}";
        let (pay, web) = (Name::new("shop", "pay"), Name::new("shop", "web"));
        let both = format!("{PAY}, {ALL}");
        use MtlsMode::{Permissive, Strict};
        for (written, wanted) in [
            (&[][..], (Strict, Strict)),
            (&[("a", ALL, "Permissive")], (Permissive, Permissive)),
            (&[("a", PAY, "Permissive")], (Permissive, Strict)),
            (&[("a", ALL, "Permissive"), ("b", PAY, "Strict")], (Strict, Permissive)),
            (&[("a", ALL, "Strict"), ("b", PAY, "Permissive")], (Permissive, Strict)),
            (&[("a", PAY, "Strict"), ("b", PAY, "Permissive")], (Strict, Strict)),
            (&[("a", PAY, "Permissive"), ("b", PAY, "Strict")], (Strict, Strict)),
            (&[("a", &*both, "Permissive"), ("b", ALL, "Strict")], (Permissive, Strict)),
        ] {
            let (said, _) = judged(written);
            assert_eq!((said.mode_of(&pay), said.mode_of(&web)), wanted, "{written:?}");
            assert_eq!(said.mode_of(&Name::new("other", "pay")), Strict, "{written:?}");
        }
    }

    #[test]
    fn one_that_does_not_hold_says_which_does() {
        let (_, said) = judged(&[
            ("a", "{kind: Service, name: pay}", "Permissive"),
            ("b", "{kind: Service, name: pay}, {kind: Pod, selector: {}}", "Strict"),
            ("c", "{kind: Pod, selector: {}}", "Permissive"),
            ("d", "{kind: Service, name: web}", "Permissive"),
            ("e", "{kind: Service, name: web}", "Permissive"),
        ]);
        assert_eq!(
            said,
            [
                "Conflicted PeerAuthentication shop/b is stricter for Service shop/pay, and holds",
                "Accepted ",
                "Conflicted PeerAuthentication shop/b is stricter for the workloads of namespace shop, and holds",
                "Accepted ",
                "Accepted ",
            ]
        );
    }
}
