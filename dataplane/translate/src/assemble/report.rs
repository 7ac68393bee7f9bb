//! What an [`Assembler`](super::Assembler) says about itself to the control plane and to people.

use std::sync::Arc;

use proto::{control, type_url};
use xxhash_rust::xxh3::Xxh3Default;

use super::{Accepted, Assembler, Type};
use crate::Origin;

/// The state of one resource type. Resources of the bootstrap file are not counted: no control plane knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// xxh3-64 over `name NUL version LF` of every active resource in order of name.
    pub hash: u64,
    /// How many are active.
    pub active_count: usize,
    /// The control plane's word for the last accepted state of the whole.
    pub revision: String,
    /// Names of those whose newest version is accepted and not active yet.
    pub warming: Vec<Arc<str>>,
    /// Those whose newest version was refused, by name.
    pub rejected: Vec<(Arc<str>, RejectedVersion)>,
}

/// A version that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedVersion {
    /// The control plane's word for it.
    pub version: String,
    /// `field path: reason`.
    pub reason: String,
}

impl Assembler {
    /// Names of a type that something refers to, and of which no version is here; nor is it known that there is none. Route tables and assignments only.
    pub fn missing(&self, type_url: &str) -> Vec<Arc<str>> {
        let is_here = |name: &Arc<str>| match type_url {
            type_url::ROUTE_CONFIGURATION => self.route_tables.has(name),
            type_url::CLUSTER_LOAD_ASSIGNMENT => self.assignments.has(name),
            _ => true,
        };
        self.wanted(type_url).into_keys().filter(|name| !is_here(name)).collect()
    }
}

impl TypeStatus {
    /// As it is reported to the control plane.
    pub fn to_report(&self, type_url: &str) -> control::ActiveType {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let rejected = self.rejected.iter().map(|(name, rejected)| control::RejectedResource {
            name: name.to_string(),
            version: rejected.version.clone(),
            reason: rejected.reason.clone(),
        });
        control::ActiveType {
            type_url: type_url.to_owned(),
            hash: format!("{:016x}", self.hash),
            revision: self.revision.clone(),
            resources_count: count(self.active_count),
            warming_count: count(self.warming.len()),
            rejected: rejected.collect(),
        }
    }
}

/// The hash of a set of resources, given in order of name: what proxy and control plane compare.
pub fn hash_of<'a>(resources: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hash = Xxh3Default::new();
    for (name, version) in resources {
        for part in [name, "\0", version, "\n"] {
            hash.update(part.as_bytes());
        }
    }
    hash.digest()
}

impl<T> Type<T> {
    pub(super) fn active_versions(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let dynamic = self.active.values().filter(|resource| resource.origin == Origin::Dynamic);
        dynamic.map(|resource| (resource.name.clone(), resource.version.clone())).collect()
    }

    pub(super) fn status(&self) -> TypeStatus {
        let dynamic = |resource: &&Accepted<T>| resource.origin == Origin::Dynamic;
        let active = || self.active.values().filter(dynamic);
        let is_active = |resource: &&Accepted<T>| {
            self.active.get(&resource.name).is_some_and(|active| Arc::ptr_eq(&active.value, &resource.value))
        };
        let warming = self.received.values().filter(dynamic).filter(|resource| !is_active(resource));
        TypeStatus {
            hash: hash_of(active().map(|resource| (&*resource.name, &*resource.version))),
            active_count: active().count(),
            revision: self.revision.clone(),
            warming: warming.map(|resource| resource.name.clone()).collect(),
            rejected: self.rejected.iter().map(|(name, version)| (name.clone(), version.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_over_name_nul_version_lf() {
        let whole = xxhash_rust::xxh3::xxh3_64(b"a\x001\nb\x002\n");
        assert_eq!(hash_of([("a", "1"), ("b", "2")]), whole);
        assert_ne!(hash_of([("a", "1"), ("b", "3")]), whole);
        assert_eq!(hash_of([]), xxhash_rust::xxh3::xxh3_64(b""));
    }
}
