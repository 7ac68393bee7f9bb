//! The set of resources one client should have, in a form in which two sets compare fast.
//!
//! Not here: how a resource is made (`compile`), what a client has of it (`session`).

use std::sync::Arc;

use proto::type_url;
use xxhash_rust::xxh3::Xxh3;

use crate::compile::{self, Resources};

/// The four types Ringway serves, in the order in which they are made known: what is referred to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoint,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    Route,
}

impl ResourceType {
    /// Every type, in order.
    pub const ALL: [ResourceType; 4] =
        [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route];

    /// The type URL on the wire.
    pub fn type_url(self) -> &'static str {
        match self {
            ResourceType::Cluster => type_url::CLUSTER,
            ResourceType::Endpoint => type_url::CLUSTER_LOAD_ASSIGNMENT,
            ResourceType::Listener => type_url::LISTENER,
            ResourceType::Route => type_url::ROUTE_CONFIGURATION,
        }
    }

    /// The type with this URL, if it is one that is served.
    pub fn from_type_url(type_url: &str) -> Option<ResourceType> {
        ResourceType::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Short name for logs, metrics and tables: `cds`, `eds`, `lds`, `rds`.
    pub fn short(self) -> &'static str {
        match self {
            ResourceType::Cluster => "cds",
            ResourceType::Endpoint => "eds",
            ResourceType::Listener => "lds",
            ResourceType::Route => "rds",
        }
    }

    /// The type of the resources that a resource of this type refers to by name and a client then asks for.
    pub(super) fn child(self) -> Option<ResourceType> {
        match self {
            ResourceType::Cluster => Some(ResourceType::Endpoint),
            ResourceType::Listener => Some(ResourceType::Route),
            ResourceType::Endpoint | ResourceType::Route => None,
        }
    }
}

/// All resources of one type for one client, with the hash a proxy reports once exactly these are active.
#[derive(Debug)]
pub struct TypeView {
    /// By name.
    pub resources: Resources,
    /// `ActiveType.hash` as `proxy.proto` defines it.
    pub hash: String,
}

impl From<Resources> for TypeView {
    fn from(resources: Resources) -> TypeView {
        let mut hash = Xxh3::new();
        for resource in resources.values() {
            hash.update(resource.name.as_bytes());
            hash.update(b"\0");
            hash.update(resource.version.as_bytes());
            hash.update(b"\n");
        }
        TypeView { resources, hash: format!("{:016x}", hash.digest()) }
    }
}

/// Everything one client should have. A part that did not change is the same `Arc` as before, which is how a
/// stream sees in one comparison that a change does not concern it.
#[derive(Debug, Clone)]
pub struct View {
    /// Identifier of the configuration this was made from, sent as `system_version_info`.
    pub revision: Arc<str>,
    types: [Arc<TypeView>; 4],
}

impl View {
    /// The view of what was compiled for one client, its parts taken from `before` where they are equal.
    pub fn new(revision: Arc<str>, compiled: compile::View, before: Option<&View>) -> View {
        let compile::View { clusters, endpoints, listeners, routes } = compiled;
        let mut types = [clusters, endpoints, listeners, routes].map(|all| Arc::new(TypeView::from(all)));
        if let Some(before) = before {
            for (new, old) in types.iter_mut().zip(&before.types) {
                if new.hash == old.hash {
                    *new = old.clone();
                }
            }
        }
        View { revision, types }
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
    use crate::compile::Resource;

    #[test]
    fn the_active_hash_is_the_documented_one() {
        let view = TypeView::from(resources(&[("b", "2"), ("a", "1")]));
        assert_eq!(view.hash, format!("{:016x}", xxh3_64(b"a\x001\nb\x002\n")));
        assert_eq!(TypeView::from(Resources::new()).hash, format!("{:016x}", xxh3_64(b"")));
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
