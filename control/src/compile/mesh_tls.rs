//! Mutual TLS between the proxies of a mesh: what one shows, whom it believes, and how it tells the mesh's TLS from an
//! application's.
//!
//! Certificates and trust are secrets that a proxy has by these names, wherever it gets them from.

use policy::{alpn, peer::SpiffeId};
use proto::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use proto::pb::envoy::config::core::v3::{Metadata, TransportSocket, transport_socket};
use proto::pb::envoy::config::listener::v3::FilterChainMatch;
use proto::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
};
use proto::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use proto::pb::google::protobuf::BoolValue;
use proto::well_known::{string, structure};

use super::resource::any;
use crate::model::{Name, Target};

/// A proxy's own certificate and key.
pub(super) const OWN_CERTIFICATE: &str = "default";
/// Whom the proxies of the mesh believe.
pub(super) const TRUST_BUNDLE: &str = "ROOTCA";

/// Where an endpoint says what carries the bytes to it.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// The key below it, and what it says of an endpoint behind a proxy of the mesh.
const LABEL: (&str, &str) = ("tls", "mesh");

/// The identity of the workloads of a service.
pub fn identity(trust_domain: &str, service: &Name) -> String {
    format!("spiffe://{trust_domain}/ns/{}/sa/{}", service.namespace, service.name)
}

/// What carries the bytes to the endpoints of a service: mutual TLS where a proxy of the mesh is before them, and elsewhere
/// `otherwise`, or nothing.
pub(super) fn to_service(
    own: &SpiffeId,
    target: &Target,
    otherwise: Option<TransportSocket>,
) -> Vec<TransportSocketMatch> {
    let id = identity(own.trust_domain(), &target.service);
    let tls = UpstreamTlsContext {
        sni: format!("{}.{}.mesh", target.service.name, target.service.namespace),
        common_tls_context: Some(common(exactly(&id))),
        ..UpstreamTlsContext::default()
    };
    let of = |name: &str, labels: &[(&str, &str)], socket| TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(structure(labels.iter().map(|(key, value)| (key.to_owned(), string(*value))))),
        transport_socket: Some(socket),
    };
    let otherwise = match otherwise {
        Some(socket) => of("own", &[], socket),
        None => of("plain", &[], socket(any(&RawBuffer::default()))),
    };
    vec![of("mesh", &[LABEL], socket(any(&tls))), otherwise]
}

/// What an endpoint before which a proxy of the mesh is says of itself.
pub(super) fn of_endpoint() -> Metadata {
    let labels = structure([(LABEL.0, string(LABEL.1))]);
    Metadata { filter_metadata: [(SOCKET_MATCH.to_owned(), labels)].into(), ..Metadata::default() }
}

/// TLS as the proxy of a workload ends it: whoever comes shows who he is, and is of the same trust domain.
pub(super) fn inbound(own: &SpiffeId) -> TransportSocket {
    let everybody = MatchPattern::Prefix(format!("spiffe://{}/", own.trust_domain()));
    let tls = DownstreamTlsContext {
        common_tls_context: Some(common(uri(everybody))),
        require_client_certificate: Some(BoolValue { value: true }),
        ..DownstreamTlsContext::default()
    };
    socket(any(&tls))
}

/// The connections whose TLS is the mesh's: those that say so among their application protocols, and those that ask for a
/// name of the mesh, since others may speak plain HTTP in it.
pub(super) fn matches() -> [FilterChainMatch; 2] {
    let tls = FilterChainMatch { transport_protocol: "tls".to_owned(), ..FilterChainMatch::default() };
    let protocols = [alpn::MESH_HTTP2, alpn::MESH_HTTP1, alpn::MESH_TCP];
    [
        FilterChainMatch { application_protocols: protocols.into_iter().map(text).collect(), ..tls.clone() },
        FilterChainMatch { server_names: vec!["*.mesh".to_owned()], ..tls },
    ]
}

fn common(validation: CertificateValidationContext) -> CommonTlsContext {
    let combined = CombinedCertificateValidationContext {
        default_validation_context: Some(validation),
        validation_context_sds_secret_config: Some(secret(TRUST_BUNDLE)),
        ..CombinedCertificateValidationContext::default()
    };
    let protocols = [alpn::MESH_HTTP2, alpn::MESH_HTTP1, alpn::MESH_TCP, alpn::HTTP2, alpn::HTTP1];
    CommonTlsContext {
        // Between our own there is nobody who needs less.
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13 as i32,
            tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(OWN_CERTIFICATE)],
        alpn_protocols: protocols.into_iter().map(text).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        ..CommonTlsContext::default()
    }
}

/// A secret that the proxy has by itself.
fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: None }
}

fn exactly(id: &str) -> CertificateValidationContext {
    uri(MatchPattern::Exact(id.to_owned()))
}

fn uri(pattern: MatchPattern) -> CertificateValidationContext {
    let matcher = StringMatcher { match_pattern: Some(pattern), ignore_case: false };
    CertificateValidationContext {
        match_typed_subject_alt_names: vec![SubjectAltNameMatcher {
            san_type: SanType::Uri as i32,
            matcher: Some(matcher),
            ..SubjectAltNameMatcher::default()
        }],
        ..CertificateValidationContext::default()
    }
}

pub(super) fn socket(config: proto::pb::google::protobuf::Any) -> TransportSocket {
    TransportSocket {
        name: "tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    }
}

pub(super) fn text(protocol: &[u8]) -> String {
    String::from_utf8_lossy(protocol).into_owned()
}
