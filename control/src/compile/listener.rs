//! Listeners: where a sidecar takes connections, and what it does with them; and what these have in common with a gateway's.
//!
//! A changed listener drains the connections it had, so nothing that changes often is in one: routes are resources of
//! their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::peer::SpiffeId;
use prost::Message;
use proto::pb::envoy::config::core::v3::TrafficDirection;
use proto::pb::envoy::config::listener::v3::filter::ConfigType;
use proto::pb::envoy::config::listener::v3::{
    Filter, FilterChain, Listener, ListenerFilter, listener_filter,
};
use proto::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use proto::pb::envoy::extensions::filters::http::router::v3::Router;
use proto::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use proto::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use proto::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use proto::pb::google::protobuf::BoolValue;
use proto::well_known::to_duration;

use super::authorization::{self, Application};
use super::cluster::ads;
use super::resource::any;
use super::{Resource, Sidecar, dynamic_forward, endpoint, mesh_tls, name, route};
use crate::document::MtlsMode;
use crate::model::{AuthorizationPolicy, Protocol, Target};

/// How long it is waited for the first bytes of a connection that may be one of a protocol in which the server speaks first:
/// no client of such a one gives up sooner, and no proxy of the mesh is silent for as long. Ours find out much earlier.
const FIRST_BYTES_WAIT: Duration = Duration::from_secs(3);

/// Where other proxies reach the application of a sidecar, and who may. Changing the mode changes nothing but the last filter
/// chain, so that connections of the others go on.
pub(super) fn inbound(sidecar: &Sidecar, policies: &[&AuthorizationPolicy], mode: MtlsMode) -> Arc<Resource> {
    let listener = Listener {
        name: name::inbound(sidecar.inbound),
        address: Some(endpoint::address(sidecar.inbound)),
        traffic_direction: TrafficDirection::Inbound as i32,
        ..Listener::default()
    };
    let Some(own) = &sidecar.identity else {
        let filters = to_application(sidecar, policies, false);
        return listener_of(Listener {
            filter_chains: vec![FilterChain { filters, ..FilterChain::default() }],
            ..listener
        });
    };
    // Who is somebody takes nobody who is not, unless it is said: what is not the mesh's TLS finds none of these.
    let filters = to_application(sidecar, policies, false);
    let chain = |matches| FilterChain {
        filter_chain_match: Some(matches),
        filters: filters.clone(),
        transport_socket: Some(mesh_tls::inbound(own)),
        ..FilterChain::default()
    };
    let everything_else = (mode == MtlsMode::Permissive)
        .then(|| FilterChain { filters: to_application(sidecar, policies, true), ..FilterChain::default() });
    let wait = (!sidecar.protocol().is_http()).then(|| to_duration(FIRST_BYTES_WAIT));
    listener_of(Listener {
        filter_chains: mesh_tls::matches().map(chain).to_vec(),
        default_filter_chain: everything_else,
        listener_filters_timeout: wait,
        continue_on_listener_filters_timeout: true,
        ..listener
    })
}

/// What is done with connections to the application. Those that are `plain` show no identity.
fn to_application(sidecar: &Sidecar, policies: &[&AuthorizationPolicy], is_plain: bool) -> Vec<Filter> {
    let cluster = name::application(sidecar.app);
    let application = Application {
        trust_domain: sidecar.identity.as_ref().map(SpiffeId::trust_domain),
        is_plain,
        port: sidecar.app.port(),
        is_http: sidecar.protocol().is_http(),
    };
    match sidecar.protocol() {
        Protocol::Http | Protocol::Http1 | Protocol::Http2 => {
            let routes = RouteConfiguration {
                name: cluster.clone(),
                virtual_hosts: vec![VirtualHost {
                    name: cluster.clone(),
                    domains: vec!["*".to_owned()],
                    routes: vec![route::everything_to(&cluster)],
                    ..VirtualHost::default()
                }],
                ..RouteConfiguration::default()
            };
            let mut manager = manager(&cluster, RouteSpecifier::RouteConfig(routes));
            if sidecar.identity.is_some() {
                // Who calls is known; what callers say of that is not.
                manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet as i32;
                manager.set_current_client_cert_details =
                    Some(SetCurrentClientCertDetails { uri: true, ..SetCurrentClientCertDetails::default() });
            }
            if authorization::asks_for_hosts(policies) {
                // Who resolves `//a/b` against the URL of a request, as Node's documentation does, asks `a` for `/b`.
                manager.merge_slashes = true;
            }
            if authorization::asks_for_paths(policies) {
                // What a rule is asked about, a route takes and the application gets is one and the same path.
                manager.merge_slashes = true;
                manager.path_with_escaped_slashes_action =
                    PathWithEscapedSlashesAction::UnescapeAndForward as i32;
            }
            let guards = authorization::http_filters(policies, application);
            let guards = guards.into_iter().map(|(name, config)| HttpFilter {
                name: format!("envoy.filters.http.{name}"),
                config_type: Some(http_filter::ConfigType::TypedConfig(config)),
                ..HttpFilter::default()
            });
            manager.http_filters.splice(0..0, guards);
            vec![self::filter("http_connection_manager", &manager)]
        }
        Protocol::Tcp => {
            let guards = authorization::network_filters(policies, application, &cluster);
            let guards = guards.into_iter().map(|(name, config)| Filter {
                name: format!("envoy.filters.network.{name}"),
                config_type: Some(ConfigType::TypedConfig(config)),
            });
            guards.chain([tcp(&cluster, ClusterSpecifier::Cluster(cluster.clone()))]).collect()
        }
    }
}

/// The HTTP proxy for the calls of a sidecar's application.
pub(super) fn outbound_http(address: SocketAddr, routes: &str) -> Arc<Resource> {
    let name = name::HTTP_PROXY.to_owned();
    let mut manager = manager("outbound", rds(routes));
    let outside = http_filter("dynamic_forward_proxy", &dynamic_forward::filter());
    manager.http_filters.insert(0, outside);
    let filter = filter("http_connection_manager", &manager);
    listener(name, address, TrafficDirection::Outbound, filter)
}

/// A local port for a service that speaks HTTP.
pub(super) fn dependency_http(address: SocketAddr, target: &Target, routes: &str) -> Arc<Resource> {
    let filter = http(&name::service_port(target), rds(routes));
    listener(name::dependency(target), address, TrafficDirection::Outbound, filter)
}

/// A local port for a service that speaks anything else.
pub(super) fn dependency_tcp(address: SocketAddr, target: &Target) -> Arc<Resource> {
    let cluster = name::service_port(target);
    let filter = tcp(&cluster, ClusterSpecifier::Cluster(cluster.clone()));
    listener(name::dependency(target), address, TrafficDirection::Outbound, filter)
}

pub(super) fn listener(
    name: String,
    address: SocketAddr,
    direction: TrafficDirection,
    filter: Filter,
) -> Arc<Resource> {
    let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
    encoded(name, address, direction, vec![chain])
}

pub(super) fn encoded(
    name: String,
    address: SocketAddr,
    direction: TrafficDirection,
    filter_chains: Vec<FilterChain>,
) -> Arc<Resource> {
    listener_of(Listener {
        name,
        address: Some(endpoint::address(address)),
        filter_chains,
        traffic_direction: direction as i32,
        ..Listener::default()
    })
}

/// A listener, and what looks into its connections where its filter chains ask for that.
fn listener_of(mut listener: Listener) -> Arc<Resource> {
    let asks_tls = |chain: &FilterChain| {
        chain.filter_chain_match.as_ref().is_some_and(|matches| !matches.transport_protocol.is_empty())
    };
    let inspector = listener.filter_chains.iter().any(asks_tls).then(|| ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(&TlsInspector::default()))),
        ..ListenerFilter::default()
    });
    listener.listener_filters = inspector.into_iter().collect();
    Resource::encode(listener.name.clone(), &listener)
}

fn http(stat_prefix: &str, routes: RouteSpecifier) -> Filter {
    filter("http_connection_manager", &manager(stat_prefix, routes))
}

pub(super) fn manager(stat_prefix: &str, routes: RouteSpecifier) -> HttpConnectionManager {
    let router = Router { suppress_envoy_headers: true, ..Router::default() };
    HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters: vec![http_filter("router", &router)],
        // Envoy's five minutes would cut streams that are only quiet.
        stream_idle_timeout: Some(to_duration(Duration::ZERO)),
        server_header_transformation: ServerHeaderTransformation::PassThrough as i32,
        // `/open/../shut` is `/shut` to most applications, so it must be so to their routes.
        normalize_path: Some(BoolValue { value: true }),
        // Applications that speak it do so without a word to anybody.
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        ..HttpConnectionManager::default()
    }
}

pub(super) fn rds(name: &str) -> RouteSpecifier {
    RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: name.to_owned() })
}

pub(super) fn tcp(stat_prefix: &str, to: ClusterSpecifier) -> Filter {
    let proxy = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(to),
        // Envoy's hour would cut connections that are only quiet.
        idle_timeout: Some(to_duration(Duration::ZERO)),
        ..TcpProxy::default()
    };
    filter("tcp_proxy", &proxy)
}

pub(super) fn filter<M: Message + prost::Name>(name: &str, config: &M) -> Filter {
    Filter {
        name: format!("envoy.filters.network.{name}"),
        config_type: Some(ConfigType::TypedConfig(any(config))),
    }
}

fn http_filter<M: Message + prost::Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: format!("envoy.filters.http.{name}"),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}
