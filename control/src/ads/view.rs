//! The set of resources one client should have, in a form in which two sets compare fast.
//!
//! Not here: how a resource is made (`compile`), what a client has of it (`session`).

use std::collections::BTreeSet;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::compile::{self, Resource, ResourceType, Resources};

/// All resources of one type for one client.
#[derive(Debug)]
pub struct TypeView {
    /// By name.
    pub resources: Resources,
    /// What a proxy reports as `ActiveType.hash` once it has all it should: clusters and listeners, and the
    /// endpoints and routes that those refer to. What nothing refers to is not asked for.
    pub active_hash: String,
    /// Over all of it; equal for equal content.
    hash: u64,
}

impl TypeView {
    fn new(resources: Resources, parents: Option<&Resources>) -> TypeView {
        let hash = active_hash(resources.values());
        let active = parents.map_or(hash, |parents| {
            let referred: BTreeSet<_> = parents.values().flat_map(|parent| &parent.children).collect();
            active_hash(resources.values().filter(|resource| referred.contains(&resource.name)))
        });
        TypeView { resources, active_hash: format!("{active:016x}"), hash }
    }
}

/// `ActiveType.hash` as `proxy.proto` defines it; the resources come in order of name.
fn active_hash<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> u64 {
    let mut hash = Xxh3::new();
    for resource in resources {
        hash.update(resource.name.as_bytes());
        hash.update(b"\0");
        hash.update(resource.version.as_bytes());
        hash.update(b"\n");
    }
    hash.digest()
}

/// Everything one client should have. A part that did not change is the same `Arc` as before, which is how a
/// stream sees in one comparison that a change does not concern it.
#[derive(Debug, Clone)]
pub struct View {
    /// Identifier of the configuration this was made from, sent as `system_version_info`.
    pub revision: Arc<str>,
    types: [Arc<TypeView>; ResourceType::COUNT],
}

impl View {
    /// The view of what was compiled for one client, its parts taken from `before` where they are equal.
    pub fn new(revision: Arc<str>, compiled: compile::View, before: Option<&View>) -> View {
        let compile::View { clusters, endpoints, listeners, routes, secrets } = compiled;
        let endpoints = TypeView::new(endpoints, Some(&clusters));
        let routes = TypeView::new(routes, Some(&listeners));
        let (clusters, listeners) = (TypeView::new(clusters, None), TypeView::new(listeners, None));
        let secrets = TypeView::new(secrets, None);
        let mut types = [clusters, endpoints, listeners, routes, secrets].map(Arc::new);
        if let Some(before) = before {
            for (new, old) in types.iter_mut().zip(&before.types) {
                if new.hash == old.hash && new.active_hash == old.active_hash {
                    *new = old.clone();
                }
            }
        }
        View { revision, types }
    }

    /// This view with other endpoints. Those that are not in it do not concern this client and are left out; if none
    /// of them does, every part is the same `Arc` as before.
    pub fn with_endpoints<'a>(
        &self,
        revision: Arc<str>,
        changed: impl Iterator<Item = &'a Arc<Resource>>,
    ) -> View {
        let mut types = self.types.clone();
        let mut concerning = changed.filter(|resource| self.is_endpoint(&resource.name)).peekable();
        if concerning.peek().is_some() {
            let mut resources = self.of(ResourceType::Endpoint).resources.clone();
            // The newest of several comes last.
            resources.extend(concerning.map(|resource| (resource.name.clone(), resource.clone())));
            let clusters = &self.of(ResourceType::Cluster).resources;
            types[ResourceType::Endpoint as usize] = Arc::new(TypeView::new(resources, Some(clusters)));
        }
        View { revision, types }
    }

    fn is_endpoint(&self, name: &str) -> bool {
        self.of(ResourceType::Endpoint).resources.contains_key(name)
    }

    /// See [`TypeView::active_hash`], by type.
    pub fn active_hashes(&self) -> [String; ResourceType::COUNT] {
        ResourceType::ALL.map(|kind| self.of(kind).active_hash.clone())
    }

    /// The resources of one type.
    pub fn of(&self, kind: ResourceType) -> &Arc<TypeView> {
        &self.types[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn the_active_hash_is_the_documented_one() {
        let view = TypeView::new(resources(&[("b", "2"), ("a", "1")]), None);
        assert_eq!(view.active_hash, format!("{:016x}", xxh3_64(b"a\x001\nb\x002\n")));
        assert_eq!(TypeView::new(Resources::new(), None).active_hash, format!("{:016x}", xxh3_64(b"")));
        let mut parents = resources(&[("parent", "1")]);
        for parent in parents.values_mut() {
            Arc::make_mut(parent).children = vec!["b".into(), "elsewhere".into()];
        }
        let view = TypeView::new(resources(&[("b", "2"), ("a", "1")]), Some(&parents));
        assert_eq!(view.active_hash, format!("{:016x}", xxh3_64(b"b\x002\n")), "nobody asks for a");
    }

    #[test]
    fn a_view_keeps_the_parts_that_did_not_change() {
        let compiled = |version| compile::View {
            endpoints: resources(&[("pay", version)]),
            clusters: resources(&[("pay", "1")]),
            ..compile::View::default()
        };
        let before = View::new("r1".into(), compiled("1"), None);
        let after = View::new("r2".into(), compiled("2"), Some(&before));
        for kind in ResourceType::ALL {
            let shared = Arc::ptr_eq(before.of(kind), after.of(kind));
            assert_eq!(shared, kind != ResourceType::Endpoint, "{kind:?}");
        }
    }

    #[test]
    fn other_endpoints_replace_those_that_the_client_has_and_touch_nothing_else() {
        let compiled = compile::View {
            endpoints: resources(&[("cart", "1"), ("pay", "1")]),
            clusters: resources(&[("cart", "1"), ("pay", "1")]),
            ..compile::View::default()
        };
        let before = View::new("r1".into(), compiled, None);
        let version = |view: &View, name: &str| {
            view.of(ResourceType::Endpoint).resources.get(name).map(|r| r.version.to_string())
        };
        let changes: Vec<_> = [("pay", "2"), ("other", "2"), ("pay", "3")]
            .iter()
            .flat_map(|change| resources(&[*change]).into_values())
            .collect();
        let after = before.with_endpoints("r1".into(), changes.iter());
        assert_eq!(version(&after, "pay").as_deref(), Some("3"));
        assert_eq!(version(&after, "cart").as_deref(), Some("1"));
        assert_eq!(version(&after, "other"), None);
        assert!(Arc::ptr_eq(before.of(ResourceType::Cluster), after.of(ResourceType::Cluster)));
        let untouched = before.with_endpoints("r2".into(), changes[1..2].iter());
        assert!(Arc::ptr_eq(before.of(ResourceType::Endpoint), untouched.of(ResourceType::Endpoint)));
    }

    fn resources(versions: &[(&str, &str)]) -> Resources {
        let resource = |name: &str, version: &str| Resource {
            name: name.into(),
            version: version.into(),
            bytes: Bytes::new(),
            envelope: Bytes::new(),
            children: Vec::new(),
        };
        versions.iter().map(|(name, version)| (Arc::from(*name), Arc::new(resource(name, version)))).collect()
    }
}
