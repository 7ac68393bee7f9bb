//! How a sidecar reaches hosts outside the mesh: at the addresses that DNS has for the name in a request. Envoy needs a
//! filter and a cluster for it, which must say the same.

use proto::pb::envoy::config::cluster::v3::cluster::{CustomClusterType, DnsLookupFamily};
use proto::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig, cluster_config::ClusterImplementationSpecifier,
};
use proto::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use proto::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, filter_config::ImplementationSpecifier,
};

use super::resource::any;

/// The type of the cluster.
pub(super) fn cluster_type() -> CustomClusterType {
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(dns_cache())),
        ..ClusterConfig::default()
    };
    let name = "envoy.clusters.dynamic_forward_proxy".to_owned();
    CustomClusterType { name, typed_config: Some(any(&config)) }
}

/// The filter, which stands before the router.
pub(super) fn filter() -> FilterConfig {
    FilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(dns_cache())),
        ..FilterConfig::default()
    }
}

fn dns_cache() -> DnsCacheConfig {
    DnsCacheConfig {
        name: "outside".to_owned(),
        // Many networks have IPv6 addresses in DNS and no route to them.
        dns_lookup_family: DnsLookupFamily::V4Preferred as i32,
        ..DnsCacheConfig::default()
    }
}
