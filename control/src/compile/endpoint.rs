//! Endpoints of clusters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use proto::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::pb::envoy::config::core::v3::{Address, HealthStatus, Locality, SocketAddress, address};
use proto::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use proto::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use proto::pb::google::protobuf::UInt32Value;

use super::{Resource, mesh_tls, name};
use crate::model::{self, Target};

/// The endpoints of a port of a service, by zone.
pub(super) fn outbound(target: &Target, endpoints: &[model::Endpoint]) -> Arc<Resource> {
    let name = name::service_port(target);
    let mut zones: BTreeMap<&str, Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let health = if endpoint.draining { HealthStatus::Draining } else { HealthStatus::Unknown };
        let weight = (endpoint.weight != 1).then(|| UInt32Value { value: endpoint.weight.into() });
        zones.entry(&endpoint.zone).or_default().push(LbEndpoint {
            health_status: health as i32,
            load_balancing_weight: weight,
            metadata: endpoint.speaks_mesh_tls.then(mesh_tls::of_endpoint),
            ..lb_endpoint(endpoint.address)
        });
    }
    let localities = zones.into_iter().map(|(zone, lb_endpoints)| LocalityLbEndpoints {
        locality: (!zone.is_empty()).then(|| Locality { zone: zone.to_owned(), ..Locality::default() }),
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    });
    let assignment = ClusterLoadAssignment {
        cluster_name: name.clone(),
        endpoints: localities.collect(),
        ..ClusterLoadAssignment::default()
    };
    Resource::encode(name, &assignment)
}

/// A cluster that has one endpoint for ever.
pub(super) fn single(cluster: &str, address: SocketAddr) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint(address)],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(address: SocketAddr) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(self::address(address)), ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}

/// An address of TCP.
pub(super) fn address(address: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}
