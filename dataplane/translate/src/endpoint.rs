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

use crate::{
    Rejected, fields,
    reject::{At, Fault, Reason},
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

/// An assignment of names that DNS resolves. A literal IP address is a name that resolves to itself.
pub(crate) fn names(value: &ClusterLoadAssignment, at: &At<'_>) -> Result<Assignment<DnsName>, Fault> {
    assignment(value, at, |value, at| match fields::place(value, at)? {
        fields::Place::Name(host, port) => Ok(DnsName { host: host.into(), port }),
        fields::Place::Address(Address::Socket(address)) => {
            Ok(DnsName { host: address.ip().to_string().into(), port: address.port() })
        }
        fields::Place::Address(Address::Pipe(_)) => Err(at.field("pipe").unsupported()),
    })
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

/// Accepted without effect: `metadata` (for balancers and transport sockets that are refused with their cluster),
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
        spec.hostname = Some(fields::single_line(&endpoint.hostname, &at)?.into());
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
    Ok(spec)
}

fn positive(value: u32, at: &At<'_>) -> Result<NonZeroU32, Fault> {
    NonZeroU32::new(value)
        .ok_or_else(|| at.fault(Reason::OutOfRange { value: 0, least: 1, most: u32::MAX.into() }))
}
