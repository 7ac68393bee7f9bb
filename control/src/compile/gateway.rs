//! What the proxy of a gateway gets: a listener for each of its ports, what these show to clients, and where their requests
//! and connections go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::alpn;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::config::core::v3::{DataSource, TrafficDirection, TransportSocket};
use proto::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, SetCurrentClientCertDetails,
};
use proto::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
    TlsCertificate, secret,
};
use proto::pb::google::protobuf::BoolValue;
use proto::well_known::to_duration;

use super::cluster::ads;
use super::resource::any;
use super::{GatewayClient, Resource, Resources, Shared, View, listener, mesh_tls, name};
use crate::model::{
    Backend, Certificate, ClientValidation, Gateway, GatewayPort, HostPattern, Model, Name, TlsListener,
    TlsTraffic,
};

/// How long a head may take to arrive at a gateway, where anybody may connect.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A cluster that never exists: what a broken reference of a route of connections leads to. They are closed.
const BROKEN_REFERENCE: &str = "broken-reference";

pub(super) fn view(model: &Model, shared: &Shared, client: &GatewayClient) -> View {
    let mut view = View::default();
    let name = Name::new(client.namespace.as_str(), client.name.as_str());
    let Some(gateway) = model.gateways.get(&name) else { return view };
    for (number, port) in &gateway.ports {
        let address = SocketAddr::new(client.bind, *number);
        view.add_listener(match port {
            GatewayPort::Http(_) => http(address, &name),
            GatewayPort::Tcp(backends) => tcp(address, &name, backends),
            GatewayPort::Tls(listeners) => tls(address, &name, listeners),
        });
    }
    let tables = shared.gateway(&name, gateway);
    for routes in &tables.0 {
        view.add_routes(Arc::clone(routes));
    }
    view.secrets = secrets(&name, gateway);
    view.add_targets(model, shared, client.identity.as_ref(), &tables.1);
    view
}

fn http(address: SocketAddr, gateway: &Name) -> Arc<Resource> {
    let name = name::gateway_port(gateway, address.port());
    let filter = requests(&name, false);
    listener::listener(name, address, TrafficDirection::Inbound, filter)
}

fn tcp(address: SocketAddr, gateway: &Name, backends: &[Backend]) -> Arc<Resource> {
    let name = name::gateway_port(gateway, address.port());
    let filter = connections(&name, backends);
    listener::listener(name, address, TrafficDirection::Inbound, filter)
}

fn tls(address: SocketAddr, gateway: &Name, listeners: &[TlsListener]) -> Arc<Resource> {
    let chains = listeners.iter().flat_map(|of| {
        let name = name::gateway_listener(gateway, address.port(), &of.name);
        let socket = (!of.certificates.is_empty()).then(|| of_listener(of, gateway, address.port()));
        let chain = move |name: String, host: &HostPattern, filter: Filter| FilterChain {
            name,
            filter_chain_match: Some(asking_for(host)),
            filters: vec![filter],
            transport_socket: socket.clone(),
            ..FilterChain::default()
        };
        match &of.traffic {
            TlsTraffic::Http { .. } => {
                let knows_clients = of.clients.as_ref().is_some_and(ClientValidation::is_strict);
                vec![chain(name.clone(), &of.host, requests(&name, knows_clients))]
            }
            TlsTraffic::Tcp(routes) => {
                let of_route = |(host, backends): &(HostPattern, Vec<Backend>)| {
                    chain(format!("{name}|{host}"), host, connections(&name, backends))
                };
                routes.iter().map(of_route).collect()
            }
        }
    });
    let name = name::gateway_port(gateway, address.port());
    listener::encoded(name, address, TrafficDirection::Inbound, chains.collect())
}

/// Requests of whoever can connect; if clients are known by their certificates, backends are told whose these are.
fn requests(name: &str, knows_clients: bool) -> Filter {
    let mut manager = HttpConnectionManager {
        // The downstream is the client itself: what it says of who it is does not count.
        use_remote_address: Some(BoolValue { value: true }),
        request_headers_timeout: Some(to_duration(HEAD_TIMEOUT)),
        ..listener::manager(name, listener::rds(name))
    };
    if knows_clients {
        manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet as i32;
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: Some(BoolValue { value: true }),
            uri: true,
            dns: true,
            ..SetCurrentClientCertDetails::default()
        });
    }
    listener::filter("http_connection_manager", &manager)
}

fn connections(name: &str, backends: &[Backend]) -> Filter {
    let cluster = |backend: &Backend| match &backend.target {
        Some(target) => name::service_port(target),
        None => BROKEN_REFERENCE.to_owned(),
    };
    let to = match backends {
        [] => ClusterSpecifier::Cluster(BROKEN_REFERENCE.to_owned()),
        [one] => ClusterSpecifier::Cluster(cluster(one)),
        several => {
            let weight = |backend: &Backend| ClusterWeight {
                name: cluster(backend),
                weight: backend.weight,
                metadata_match: None,
            };
            ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: several.iter().map(weight).collect(),
            })
        }
    };
    listener::tcp(name, to)
}

/// Connections with TLS that ask for such a host.
fn asking_for(host: &HostPattern) -> FilterChainMatch {
    let server_names = match host {
        HostPattern::Any => Vec::new(),
        HostPattern::Below(_) | HostPattern::Exact(_) => vec![host.to_string()],
    };
    FilterChainMatch { transport_protocol: "tls".to_owned(), server_names, ..FilterChainMatch::default() }
}

/// TLS as a listener of a port of a gateway ends it.
fn of_listener(of: &TlsListener, gateway: &Name, port: u16) -> TransportSocket {
    let secret = |name| SdsSecretConfig { name, sds_config: Some(ads()) };
    let certificates = of.certificates.iter().map(|of| secret(name::certificate(&of.secret)));
    let protocols: &[&[u8]] = match of.traffic {
        TlsTraffic::Http { .. } => &[alpn::HTTP2, alpn::HTTP1],
        // What is in it is for client and server to agree on.
        TlsTraffic::Tcp(_) => &[],
    };
    let common = CommonTlsContext {
        tls_certificate_sds_secret_configs: certificates.collect(),
        alpn_protocols: protocols.iter().map(|protocol| mesh_tls::text(protocol)).collect(),
        validation_context_type: of.clients.as_ref().map(|_| {
            ValidationContextType::ValidationContextSdsSecretConfig(secret(name::authorities(gateway, port)))
        }),
        ..CommonTlsContext::default()
    };
    let tls = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: of.clients.as_ref().map(|of| BoolValue { value: of.is_strict() }),
        ..DownstreamTlsContext::default()
    };
    mesh_tls::socket(any(&tls))
}

/// What the listeners of a gateway show, and whom they believe. They are resources of their own, so that a new certificate
/// ends no connection.
fn secrets(name: &Name, gateway: &Gateway) -> Resources {
    let listeners = gateway.ports.iter().flat_map(|(number, port)| {
        let listeners = match port {
            GatewayPort::Tls(listeners) => listeners.as_slice(),
            GatewayPort::Http(_) | GatewayPort::Tcp(_) => &[],
        };
        listeners.iter().map(move |listener| (*number, listener))
    });
    // A certificate of several listeners is one, and so is what clients of a port have to show.
    let mut secrets = BTreeMap::new();
    for (port, listener) in listeners {
        for certificate in &listener.certificates {
            let of = secret::Type::TlsCertificate(shown(certificate));
            secrets.insert(name::certificate(&certificate.secret), of);
        }
        if let Some(clients) = &listener.clients {
            let of = secret::Type::ValidationContext(believed(clients));
            secrets.insert(name::authorities(name, port), of);
        }
    }
    let encode = |(name, of): (String, secret::Type)| {
        let resource = Resource::encode(name.clone(), &Secret { name, r#type: Some(of) });
        (Arc::clone(&resource.name), resource)
    };
    secrets.into_iter().map(encode).collect()
}

fn shown(certificate: &Certificate) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: Some(bytes(certificate.pair.chain.reveal())),
        private_key: Some(bytes(certificate.pair.key.reveal())),
        ..TlsCertificate::default()
    }
}

fn believed(clients: &ClientValidation) -> CertificateValidationContext {
    let verification = match clients.is_strict() {
        true => TrustChainVerification::VerifyTrustChain,
        false => TrustChainVerification::AcceptUntrusted,
    };
    CertificateValidationContext {
        trusted_ca: Some(bytes(clients.authorities.as_bytes())),
        trust_chain_verification: verification as i32,
        ..CertificateValidationContext::default()
    }
}

fn bytes(bytes: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), watched_directory: None }
}
