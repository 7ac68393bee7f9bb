//! Clusters: one per port of a service, a sidecar's own application, and everything outside the mesh.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::peer::SpiffeId;
use proto::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use proto::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use proto::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use proto::pb::envoy::config::core::v3::Http2ProtocolOptions;
use proto::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::pb::envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource};
use proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use proto::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use proto::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use proto::pb::google::protobuf::{Any, UInt32Value};
use proto::well_known::to_duration;

use super::resource::any;
use super::{Resource, backend_tls, dynamic_forward, endpoint, mesh_tls, name};
use crate::model::{PortTls, Protocol, Target};

/// How long connecting may take. A lost SYN is sent again after one second, so two cover one loss.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where Envoy looks for [`HttpProtocolOptions`].
const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster of a port of a service. Its endpoints are a resource of their own: they change most.
///
/// A proxy that is somebody speaks TLS with those that are; others are spoken to as a policy says, or in plain text.
pub(super) fn outbound(
    target: &Target,
    protocol: Protocol,
    tls: Option<&PortTls>,
    own: Option<&SpiffeId>,
) -> Arc<Resource> {
    let speaks = match protocol {
        Protocol::Http2 => speaks(http2()),
        // HTTP/1.1 is what is spoken without a word.
        Protocol::Http | Protocol::Http1 | Protocol::Tcp => HashMap::new(),
    };
    let name = name::service_port(target);
    let own_tls = match tls {
        None => None,
        Some(PortTls::Verified(tls)) => Some(backend_tls::socket(tls, protocol)),
        // Without an endpoint there is nobody to be mistaken for another.
        Some(PortTls::Nobody) => {
            let cluster = Cluster {
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
                load_assignment: Some(ClusterLoadAssignment {
                    cluster_name: name.clone(),
                    ..ClusterLoadAssignment::default()
                }),
                ..base(&name)
            };
            return Resource::encode(name, &cluster);
        }
    };
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() }),
        lb_policy: LbPolicy::LeastRequest as i32,
        typed_extension_protocol_options: speaks,
        transport_socket_matches: own
            .map(|own| mesh_tls::to_service(own, target, own_tls.clone()))
            .unwrap_or_default(),
        transport_socket: own_tls.filter(|_| own.is_none()),
        ..base(&name)
    };
    Resource::encode(name, &cluster)
}

/// The cluster of all hosts outside the mesh.
pub(super) fn outside() -> Arc<Resource> {
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(dynamic_forward::cluster_type())),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..base(name::OUTSIDE)
    };
    Resource::encode(name::OUTSIDE.to_owned(), &cluster)
}

/// The cluster of the application a sidecar is beside. Where nobody said which HTTP it speaks, the callers know: they speak
/// HTTP/2 to it only if its Service or a GRPCRoute says so.
pub(super) fn inbound(application: SocketAddr, protocol: Protocol) -> Arc<Resource> {
    let speaks = match protocol {
        Protocol::Http => {
            let options = UseDownstreamHttpConfig {
                http2_protocol_options: Some(Http2ProtocolOptions::default()),
                ..UseDownstreamHttpConfig::default()
            };
            speaks(UpstreamProtocolOptions::UseDownstreamProtocolConfig(options))
        }
        Protocol::Http2 => speaks(http2()),
        Protocol::Http1 | Protocol::Tcp => HashMap::new(),
    };
    let name = name::application(application);
    let cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(endpoint::single(&name, application)),
        typed_extension_protocol_options: speaks,
        ..base(&name)
    };
    Resource::encode(name, &cluster)
}

/// HTTP/2 and nothing else.
fn http2() -> UpstreamProtocolOptions {
    let protocol_config = Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default()));
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config })
}

fn speaks(protocol: UpstreamProtocolOptions) -> HashMap<String, Any> {
    let options =
        HttpProtocolOptions { upstream_protocol_options: Some(protocol), ..HttpProtocolOptions::default() };
    HashMap::from([(PROTOCOL_OPTIONS.to_owned(), any(&options))])
}

/// What all clusters have in common.
fn base(name: &str) -> Cluster {
    let unlimited = Some(UInt32Value { value: u32::MAX });
    Cluster {
        name: name.to_owned(),
        connect_timeout: Some(to_duration(CONNECT_TIMEOUT)),
        // Envoy's default is 1024 of each, which nobody asked for.
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: unlimited,
                max_pending_requests: unlimited,
                max_requests: unlimited,
                max_retries: unlimited,
                ..Thresholds::default()
            }],
            ..CircuitBreakers::default()
        }),
        ..Cluster::default()
    }
}

/// Resources that come on the stream this one came on.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3 as i32,
        // For ever: a resource that is late is better than one that is taken for absent.
        initial_fetch_timeout: Some(to_duration(Duration::ZERO)),
        ..ConfigSource::default()
    }
}
