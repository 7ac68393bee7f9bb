//! `Cluster` to what a worker needs of it, its endpoints aside.

mod balance;
mod protocol;

use std::{collections::BTreeMap, sync::Arc};

use policy::{
    cluster::{ClusterConfig, Discovery, Dns, UpstreamProtocol},
    limits,
    tls::Transports,
};
use proto::pb::envoy::config::cluster::v3 as cluster;

use crate::{
    Origin, Rejected, config_source, dynamic_forward, endpoint, fields,
    reject::{At, Fault, Reason},
    transport_socket,
};

/// Translates a cluster. One that carries the control plane's own connection is none of these: it may speak TLS and
/// HTTP/2, and no request is routed to it.
pub fn translate(value: &cluster::Cluster, origin: Origin) -> Result<ClusterConfig, Rejected> {
    self::cluster(value, origin, &At::ROOT).map_err(|fault| fault.of(&value.name))
}

/// Accepted without effect: telemetry (`alt_stat_name`, `stats_matcher`, `lrs_server`, `track_*`), `metadata`,
/// what only tunes (`preconnect_policy`, `upstream_connection_options`, `cleanup_interval`, `wait_for_warm_on_init`,
/// `dns_failure_refresh_rate`, `dns_jitter`), what only concerns active health checks, which are refused themselves
/// (`ignore_health_on_host_removal`), and configuration of balancers that are not chosen.
pub(crate) fn cluster(value: &cluster::Cluster, origin: Origin, at: &At<'_>) -> Result<ClusterConfig, Fault> {
    let name: Arc<str> = fields::name(&value.name, &at.field("name"))?.into();
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    at.refuse_all(&[
        ("transport_socket_matcher", value.transport_socket_matcher.is_some()),
        ("health_checks", !value.health_checks.is_empty()),
        ("dns_resolvers", !value.dns_resolvers.is_empty()),
        ("use_tcp_for_dns_lookups", value.use_tcp_for_dns_lookups),
        ("dns_resolution_config", value.dns_resolution_config.is_some()),
        ("typed_dns_resolver_config", value.typed_dns_resolver_config.is_some()),
        ("outlier_detection", value.outlier_detection.is_some()),
        ("upstream_bind_config", value.upstream_bind_config.is_some()),
        ("lb_subset_config", value.lb_subset_config.is_some()),
        ("close_connections_on_host_health_failure", value.close_connections_on_host_health_failure),
        ("filters", !value.filters.is_empty()),
        ("upstream_config", value.upstream_config.is_some()),
        ("connection_pool_per_downstream_connection", value.connection_pool_per_downstream_connection),
        ("queuing_policies", value.queuing_policies.is_some()),
    ])?;
    circuit_breakers(value, at)?;
    let mut secrets = BTreeMap::new();
    let (transport, proxy_protocol) = transport_socket::of_cluster(value, &mut secrets, at)?;
    let mut config = ClusterConfig::new(name.clone(), discovery(value, &name, &transport, at)?);
    (config.transport, config.proxy_protocol, config.secrets) = (transport, proxy_protocol, secrets);
    if let Some(timeout) = &value.connect_timeout {
        config.connect_timeout = fields::positive(timeout, &at.field("connect_timeout"))?;
    }
    if let Some(eds) = &value.eds_cluster_config {
        let at = at.field("eds_cluster_config");
        config.fetch_timeout =
            config_source::fetch_timeout(eds.eds_config.as_ref(), &at.field("eds_config"))?;
    }
    if let Some(limit) = &value.per_connection_buffer_limit_bytes {
        config.unsent_bytes_max = limit.value;
    }
    balance::apply(value, &mut config, at)?;
    protocol::apply(value, origin, &mut config, at)?;
    if config.proxy_protocol.is_some() && config.protocol != UpstreamProtocol::Http1 {
        let reason =
            "connections that speak HTTP/2 are shared, so their beginning cannot say whom they are from";
        return Err(at.field("transport_socket").fault(Reason::Conflict(reason)));
    }
    Ok(config)
}

fn discovery(
    value: &cluster::Cluster,
    name: &Arc<str>,
    transports: &Transports,
    at: &At<'_>,
) -> Result<Discovery, Fault> {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = match &value.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => fields::enumeration(*kind, &at.field("type"))?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => return custom_type(value, custom, transports, at),
    };
    let assignment_at = at.field("load_assignment");
    let assignment = || assignment_at.require(value.load_assignment.as_ref());
    match kind {
        DiscoveryType::Static => Ok(Discovery::Static(endpoint::addresses(assignment()?, &assignment_at)?)),
        DiscoveryType::StrictDns => Ok(Discovery::StrictDns(dns(value, assignment()?, at)?)),
        DiscoveryType::LogicalDns => {
            let dns = dns(value, assignment()?, at)?;
            if dns.assignment.endpoints.len() != 1 {
                let reason = Reason::Conflict("a LOGICAL_DNS cluster has exactly one endpoint");
                return Err(assignment_at.fault(reason));
            }
            Ok(Discovery::LogicalDns(dns))
        }
        DiscoveryType::Eds => {
            if value.load_assignment.is_some() {
                let reason = Reason::Conflict("an EDS cluster gets its endpoints by EDS");
                return Err(assignment_at.fault(reason));
            }
            let at = at.field("eds_cluster_config");
            let config = at.require(value.eds_cluster_config.as_ref())?;
            config_source::check(config.eds_config.as_ref(), &at.field("eds_config"))?;
            let service_name = match &*config.service_name {
                "" => name.clone(),
                service_name => service_name.into(),
            };
            Ok(Discovery::Eds { service_name })
        }
        DiscoveryType::OriginalDst => {
            let reason = Reason::UnsupportedValue {
                value: "ORIGINAL_DST".to_owned(),
                supported: "STATIC, STRICT_DNS, LOGICAL_DNS, EDS",
            };
            Err(at.field("type").fault(reason))
        }
    }
}

/// Of Envoy's clusters that are extensions there is one. Its endpoints are what requests name.
fn custom_type(
    value: &cluster::Cluster,
    custom: &cluster::cluster::CustomClusterType,
    transports: &Transports,
    at: &At<'_>,
) -> Result<Discovery, Fault> {
    let type_at = at.field("cluster_type");
    let config_at = type_at.field("typed_config");
    let any = config_at.require(custom.typed_config.as_ref())?;
    if !dynamic_forward::CLUSTER.contains(&fields::type_name(any)) {
        return Err(fields::unknown_extension(&any.type_url, dynamic_forward::CLUSTER, &config_at));
    }
    if value.load_assignment.is_some() {
        let reason = Reason::Conflict("a dynamic forward cluster gets its endpoints from requests");
        return Err(at.field("load_assignment").fault(reason));
    }
    let lb_policy = cluster::cluster::LbPolicy::ClusterProvided;
    if value.lb_policy != lb_policy as i32 {
        let reason = Reason::Conflict("a dynamic forward cluster has lb_policy CLUSTER_PROVIDED");
        return Err(at.field("lb_policy").fault(reason));
    }
    Ok(Discovery::DynamicForward(dynamic_forward::cluster(any, transports, &config_at)?))
}

#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn dns(
    value: &cluster::Cluster,
    assignment: &proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment,
    at: &At<'_>,
) -> Result<Dns, Fault> {
    let refresh_rate = match &value.dns_refresh_rate {
        None => limits::DNS_REFRESH_RATE_DEFAULT,
        Some(rate) => fields::positive(rate, &at.field("dns_refresh_rate"))?,
    };
    let family = fields::dns_family(value.dns_lookup_family, at)?;
    Ok(Dns {
        assignment: endpoint::names(assignment, &at.field("load_assignment"))?,
        refresh_rate,
        respect_ttl: value.respect_dns_ttl,
        family,
    })
}

/// Ringway has no fixed limits. Envoy's defaults are what most configurations raise, so a limit at its default or above
/// means "not limited" and is accepted; a lower one is meant, and would be broken. Retry budgets are accepted: they
/// limit retries that are not made.
fn circuit_breakers(value: &cluster::Cluster, at: &At<'_>) -> Result<(), Fault> {
    const LIMIT_DEFAULT: u32 = 1024;
    const RETRIES_DEFAULT: u32 = 3;
    let Some(breakers) = &value.circuit_breakers else { return Ok(()) };
    let at = at.field("circuit_breakers");
    at.refuse("per_host_thresholds", !breakers.per_host_thresholds.is_empty())?;
    let thresholds_at = at.field("thresholds");
    for (index, threshold) in breakers.thresholds.iter().enumerate() {
        let at = thresholds_at.index(index);
        for (name, limit, default) in [
            ("max_connections", &threshold.max_connections, LIMIT_DEFAULT),
            ("max_pending_requests", &threshold.max_pending_requests, LIMIT_DEFAULT),
            ("max_requests", &threshold.max_requests, LIMIT_DEFAULT),
            ("max_retries", &threshold.max_retries, RETRIES_DEFAULT),
            ("max_connection_pools", &threshold.max_connection_pools, LIMIT_DEFAULT),
        ] {
            if let Some(limit) = limit {
                fields::between(limit.value, default, u32::MAX, &at.field(name))?;
            }
        }
    }
    Ok(())
}
