//! ReferenceGrants: who may refer to what of another namespace.

use super::Name;
use crate::document::{Documents, GATEWAY_GROUP, Object, ReferenceGrantFrom, ReferenceGrantTo};

/// Every ReferenceGrant.
pub(super) struct Grants<'a> {
    /// With the namespace of the grant.
    all: Vec<(&'a str, &'a [ReferenceGrantFrom], &'a [ReferenceGrantTo])>,
}

impl<'a> Grants<'a> {
    pub(super) fn new(documents: &'a Documents) -> Self {
        let all = documents.objects.iter().filter_map(|(key, document)| match &document.object {
            Object::ReferenceGrant(grant) => Some((&*key.namespace, &*grant.spec.from, &*grant.spec.to)),
            _ => None,
        });
        Self { all: all.collect() }
    }

    /// Whether an object of Gateway API of the kind `kind` in `namespace` may refer to `to`, which is of Kubernetes' core
    /// kind `to_kind`. Within a namespace it always may.
    pub(super) fn allow(&self, (kind, namespace): (&str, &str), (to_kind, to): (&str, &Name)) -> bool {
        *to.namespace == *namespace
            || self.all.iter().any(|(granting, from, targets)| {
                **granting == *to.namespace
                    && from.iter().any(|from| {
                        from.group == GATEWAY_GROUP && from.kind == kind && from.namespace == namespace
                    })
                    && targets.iter().any(|target| {
                        target.group.is_empty()
                            && target.kind == to_kind
                            && target.name.as_deref().is_none_or(|name| *name == *to.name)
                    })
            })
    }
}
