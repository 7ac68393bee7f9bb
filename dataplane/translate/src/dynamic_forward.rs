//! Envoy's dynamic forward proxy: a cluster that sends each request to the host that it names, and the filter that in
//! Envoy must stand before the router for it.
//!
//! Here the cluster alone looks hosts up. The filter is checked, so that one file serves both, and has no effect.

use std::time::Duration;

use policy::{
    cluster::DnsCache,
    limits,
    tls::{Transports, TrustBundle, UpstreamTls},
};
use proto::pb::{
    envoy::extensions::{
        clusters::dynamic_forward_proxy::v3::{
            ClusterConfig, cluster_config::ClusterImplementationSpecifier as ClusterSpecifier,
        },
        common::dynamic_forward_proxy::v3::DnsCacheConfig,
        filters::http::dynamic_forward_proxy::v3::{
            FilterConfig, filter_config::ImplementationSpecifier as FilterSpecifier,
        },
    },
    google::protobuf::{self, Any},
};

use crate::{
    fields,
    reject::{At, Fault, Reason},
};

/// Type of the cluster's configuration.
pub(crate) const CLUSTER: &[&str] = &["envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"];
/// Type of the filter's.
pub(crate) const FILTER: &str = "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig";

/// The cluster's configuration; its connections are carried by one of `transports`.
pub(crate) fn cluster(any: &Any, transports: &Transports, at: &At<'_>) -> Result<DnsCache, Fault> {
    let config: ClusterConfig = fields::unpack(any, at)?;
    at.refuse("allow_coalesced_connections", config.allow_coalesced_connections)?;
    // Envoy demands `auto_san_validation` here, for which there is no counterpart yet.
    if !config.allow_insecure_cluster_options && !transports.all().all(|tls| tells_hosts_apart(tls)) {
        let reason = "anybody's certificate would do for whatever host a request names; demand names \
                      (match_typed_subject_alt_names), or set this";
        return Err(at.field("allow_insecure_cluster_options").fault(Reason::Conflict(reason)));
    }
    match &config.cluster_implementation_specifier {
        Some(ClusterSpecifier::DnsCacheConfig(cache)) => dns_cache(cache, &at.field("dns_cache_config")),
        Some(ClusterSpecifier::SubClustersConfig(_)) => Err(at.field("sub_clusters_config").unsupported()),
        None => Err(at.field("dns_cache_config").fault(Reason::Missing)),
    }
}

/// Whether a certificate that somebody vouches for is not enough by itself. What comes on its own cannot be counted on.
fn tells_hosts_apart(tls: &UpstreamTls) -> bool {
    let is_narrow =
        |own: &TrustBundle| !own.fingerprints.is_empty() || !own.names.is_empty() && !own.accepts_untrusted;
    tls.common.validation.as_ref().is_some_and(|validation| is_narrow(&validation.own))
}

/// Checks the filter's configuration.
pub(crate) fn filter(any: &Any, at: &At<'_>) -> Result<(), Fault> {
    let config: FilterConfig = fields::unpack(any, at)?;
    at.refuse_all(&[
        ("save_upstream_address", config.save_upstream_address),
        ("allow_dynamic_host_from_filter_state", config.allow_dynamic_host_from_filter_state),
    ])?;
    match &config.implementation_specifier {
        Some(FilterSpecifier::DnsCacheConfig(cache)) => {
            dns_cache(cache, &at.field("dns_cache_config")).map(drop)
        }
        Some(FilterSpecifier::SubClusterConfig(_)) => Err(at.field("sub_cluster_config").unsupported()),
        None => Err(at.field("dns_cache_config").fault(Reason::Missing)),
    }
}

/// Without effect: `name` (each cluster has hosts of its own), `dns_min_refresh_rate` (no time to live shortens ours),
/// `dns_failure_refresh_rate` and the circuit breaker for requests that wait (they end with the query timeout).
fn dns_cache(config: &DnsCacheConfig, at: &At<'_>) -> Result<DnsCache, Fault> {
    fields::name(&config.name, &at.field("name"))?;
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    at.refuse_all(&[
        ("disable_dns_refresh_on_failure", config.disable_dns_refresh_on_failure),
        ("use_tcp_for_dns_lookups", config.use_tcp_for_dns_lookups),
        ("dns_resolution_config", config.dns_resolution_config.is_some()),
        ("typed_dns_resolver_config", config.typed_dns_resolver_config.is_some()),
        ("preresolve_hostnames", !config.preresolve_hostnames.is_empty()),
        ("key_value_config", config.key_value_config.is_some()),
        ("resolved_address_filter", config.resolved_address_filter.is_some()),
    ])?;
    let duration = |value: &Option<protobuf::Duration>, name, default: Duration| match value {
        None => Ok(default),
        Some(value) => fields::positive(value, &at.field(name)),
    };
    let hosts_max = match &config.max_hosts {
        None => limits::DYNAMIC_HOSTS_DEFAULT,
        Some(max) => {
            fields::between(max.value, 1, limits::DYNAMIC_HOSTS_MAX as u32, &at.field("max_hosts"))? as usize
        }
    };
    Ok(DnsCache {
        refresh_rate: duration(
            &config.dns_refresh_rate,
            "dns_refresh_rate",
            limits::DYNAMIC_HOST_REFRESH_RATE_DEFAULT,
        )?,
        family: fields::dns_family(config.dns_lookup_family, at)?,
        host_ttl: duration(&config.host_ttl, "host_ttl", limits::DYNAMIC_HOST_TTL_DEFAULT)?,
        hosts_max,
        query_timeout: duration(
            &config.dns_query_timeout,
            "dns_query_timeout",
            limits::DNS_QUERY_TIMEOUT_DEFAULT,
        )?,
    })
}
