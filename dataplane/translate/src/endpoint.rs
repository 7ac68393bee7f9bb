//! `ClusterLoadAssignment` to endpoints.

use std::{num::NonZeroU32, sync::Arc};

use policy::{
    endpoint::{Assignment, DnsName, EndpointSpec, Health, Locality},
    limits,
    snapshot::Address,
};
use proto::pb::envoy::config::{
    core::v3 as core,
    endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
};

use wire::http1::encode;

use crate::{
    Rejected, fields,
    reject::{At, Fault, Reason},
    transport_socket,
};

/// Priorities above this are a mistake; Envoy refuses them too.
const PRIORITY_MAX: u32 = 128;

/// Translates an assignment that comes by EDS.
pub fn translate(value: &ClusterLoadAssignment) -> Result<Assignment, Rejected> {
    addresses(value, &At::ROOT).map_err(|fault| fault.of(&value.cluster_name))
}

/// An assignment of literal addresses.
pub(crate) fn addresses(value: &ClusterLoadAssignment, at: &At<'_>) -> Result<Assignment<Address>, Fault> {
    assignment(value, at, fields::address)
}

/// An assignment of names that DNS resolves. A literal IP address is a name that resolves to itself. The names are the
/// endpoints' hostnames, too, so they must be fit for `Host`.
pub(crate) fn names(value: &ClusterLoadAssignment, at: &At<'_>) -> Result<Assignment<DnsName>, Fault> {
    let mut names = assignment(value, at, |value, at| match fields::place(value, at)? {
        fields::Place::Name(host, port) => {
            let at = at.field("socket_address");
            if host.contains(':') || !encode::is_authority(host.as_bytes()) {
                let value = host.escape_debug().to_string();
                return Err(at.field("address").fault(Reason::Invalid { value, expected: "a host name" }));
            }
            Ok(DnsName { host: host.into(), port })
        }
        fields::Place::Address(Address::Socket(address)) => {
            Ok(DnsName { host: address.ip().to_string().into(), port: address.port() })
        }
        fields::Place::Address(Address::Pipe(_)) => Err(at.field("pipe").unsupported()),
    })?;
    for spec in &mut names.endpoints {
        // An IPv6 address is a `Host` only in brackets.
        if spec.hostname.is_none() && spec.address.host.contains(':') {
            spec.hostname = Some(format!("[{}]", spec.address.host).into());
        }
    }
    Ok(names)
}

/// Accepted without effect: `endpoint_stale_after` (a control plane that is away makes nothing stale, on purpose).
fn assignment<A>(
    value: &ClusterLoadAssignment,
    at: &At<'_>,
    address: impl Fn(Option<&core::Address>, &At<'_>) -> Result<A, Fault>,
) -> Result<Assignment<A>, Fault> {
    fields::name(&value.cluster_name, &at.field("cluster_name"))?;
    at.refuse("named_endpoints", !value.named_endpoints.is_empty())?;
    let mut overprovisioning_percent = limits::OVERPROVISIONING_PERCENT_DEFAULT;
    if let Some(policy) = &value.policy {
        let at = at.field("policy");
        at.refuse_all(&[
            ("drop_overloads", !policy.drop_overloads.is_empty()),
            ("weighted_priority_health", policy.weighted_priority_health),
        ])?;
        if let Some(factor) = &policy.overprovisioning_factor {
            let at = at.field("overprovisioning_factor");
            overprovisioning_percent = fields::between(factor.value, 1, u32::MAX, &at)?;
        }
    }
    let mut endpoints = Vec::new();
    let localities_at = at.field("endpoints");
    for (index, group) in value.endpoints.iter().enumerate() {
        let at = localities_at.index(index);
        let locality = Arc::new(locality(group, &at)?);
        let priority = fields::between(group.priority, 0, PRIORITY_MAX, &at.field("priority"))?;
        let endpoints_at = at.field("lb_endpoints");
        for (index, endpoint) in group.lb_endpoints.iter().enumerate() {
            let (locality, at) = (locality.clone(), endpoints_at.index(index));
            let spec = self::endpoint(endpoint, &at, &address)?;
            endpoints.push(EndpointSpec { locality, priority, ..spec });
        }
    }
    if endpoints.len() > limits::ENDPOINTS_PER_CLUSTER_MAX {
        let (value, most) = (endpoints.len() as u64, limits::ENDPOINTS_PER_CLUSTER_MAX as u64);
        return Err(localities_at.fault(Reason::OutOfRange { value, least: 0, most }));
    }
    Ok(Assignment { endpoints, overprovisioning_percent })
}

/// Accepted without effect: `metadata` and `proximity` (for balancers that are refused with their cluster).
fn locality(value: &LocalityLbEndpoints, at: &At<'_>) -> Result<Locality, Fault> {
    at.refuse("lb_config", value.lb_config.is_some())?;
    let weight = match &value.load_balancing_weight {
        None => None,
        Some(weight) => Some(positive(weight.value, &at.field("load_balancing_weight"))?),
    };
    let place = value.locality.as_ref();
    let part = |of: fn(&core::Locality) -> &str| place.map(of).unwrap_or_default().into();
    Ok(Locality {
        region: part(|place| &place.region),
        zone: part(|place| &place.zone),
        sub_zone: part(|place| &place.sub_zone),
        weight,
    })
}

/// Accepted without effect: `metadata` but for what transport sockets are chosen by,
/// `health_check_config` (for active health checks, likewise), `additional_addresses` (the first address is used),
/// `observability_name`.
fn endpoint<A>(
    value: &LbEndpoint,
    at: &At<'_>,
    address: impl Fn(Option<&core::Address>, &At<'_>) -> Result<A, Fault>,
) -> Result<EndpointSpec<A>, Fault> {
    let endpoint = match at.field("host_identifier").require(value.host_identifier.as_ref())? {
        HostIdentifier::Endpoint(endpoint) => endpoint,
        HostIdentifier::EndpointName(_) => return Err(at.field("endpoint_name").unsupported()),
    };
    let endpoint_at = at.field("endpoint");
    let mut spec = EndpointSpec::new(address(endpoint.address.as_ref(), &endpoint_at.field("address"))?);
    if !endpoint.hostname.is_empty() {
        let at = endpoint_at.field("hostname");
        // It goes into `Host` where a route has `auto_host_rewrite`: what makes none would fail every such request.
        if !encode::is_authority(endpoint.hostname.as_bytes()) {
            let value = endpoint.hostname.escape_debug().to_string();
            return Err(at.fault(Reason::Invalid { value, expected: "`host` or `host:port`" }));
        }
        spec.hostname = Some(endpoint.hostname.as_str().into());
    }
    if let Some(weight) = &value.load_balancing_weight {
        spec.weight = positive(weight.value, &at.field("load_balancing_weight"))?;
    }
    spec.health = match fields::enumeration(value.health_status, &at.field("health_status"))? {
        core::HealthStatus::Unknown => Health::Unknown,
        core::HealthStatus::Healthy => Health::Healthy,
        core::HealthStatus::Unhealthy => Health::Unhealthy,
        core::HealthStatus::Draining => Health::Draining,
        core::HealthStatus::Timeout => Health::Timeout,
        core::HealthStatus::Degraded => Health::Degraded,
    };
    let metadata = value.metadata.as_ref();
    if let Some(labels) = metadata.and_then(|of| of.filter_metadata.get(TRANSPORT_SOCKET_MATCH)) {
        spec.labels = transport_socket::labels(labels, &at.field("metadata"))?;
    }
    Ok(spec)
}

/// Below this key an endpoint says which transport socket is for it.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

fn positive(value: u32, at: &At<'_>) -> Result<NonZeroU32, Fault> {
    NonZeroU32::new(value)
        .ok_or_else(|| at.fault(Reason::OutOfRange { value: 0, least: 1, most: u32::MAX.into() }))
}

#[cfg(test)]
mod tests {
    use proto::pb::envoy::config::{core::v3 as core, endpoint::v3::Endpoint};

    use super::*;

    #[test]
    fn an_ipv6_address_among_names_has_a_hostname_that_is_fit_for_host() {
        let hostname_of = |address: &str| {
            let socket = core::SocketAddress {
                address: address.to_owned(),
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
                ..core::SocketAddress::default()
            };
            let address = Some(core::address::Address::SocketAddress(socket));
            let endpoint = Endpoint { address: Some(core::Address { address }), ..Endpoint::default() };
            let endpoint = LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
                ..LbEndpoint::default()
            };
            let group =
                LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
            let value = ClusterLoadAssignment {
                cluster_name: "a".to_owned(),
                endpoints: vec![group],
                ..ClusterLoadAssignment::default()
            };
            let names = names(&value, &At::ROOT).unwrap();
            let resolved = names.endpoints[0].resolved("10.0.0.1:80".parse().unwrap());
            resolved.hostname.unwrap().to_string()
        };
        for (address, hostname) in [("pay.test", "pay.test"), ("10.0.0.7", "10.0.0.7"), ("::1", "[::1]")] {
            assert_eq!(hostname_of(address), hostname);
        }
    }
}
