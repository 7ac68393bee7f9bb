//! TLS to Services that speak it themselves.

use policy::alpn;
use proto::pb::envoy::config::core::v3::data_source::Specifier;
use proto::pb::envoy::config::core::v3::{DataSource, TransportSocket};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, UpstreamTlsContext,
};
use proto::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use super::mesh_tls;
use super::resource::any;
use crate::document::SubjectAltName;
use crate::model::{BackendTls, Protocol};

/// What carries the bytes to a Service.
pub(super) fn socket(tls: &BackendTls, protocol: Protocol) -> TransportSocket {
    let protocols: &[&[u8]] = match protocol {
        Protocol::Http | Protocol::Http1 => &[alpn::HTTP1],
        Protocol::Http2 => &[alpn::HTTP2],
        Protocol::Tcp => &[],
    };
    let names = match tls.names.is_empty() {
        true => vec![name(SanType::Dns, &tls.host)],
        false => tls
            .names
            .iter()
            .map(|of| match of {
                SubjectAltName::Hostname { hostname } => name(SanType::Dns, hostname),
                SubjectAltName::Uri { uri } => name(SanType::Uri, uri),
            })
            .collect(),
    };
    let validation = CertificateValidationContext {
        trusted_ca: Some(DataSource {
            specifier: Some(Specifier::InlineString(tls.authorities.clone())),
            watched_directory: None,
        }),
        match_typed_subject_alt_names: names,
        ..CertificateValidationContext::default()
    };
    let common = CommonTlsContext {
        alpn_protocols: protocols.iter().map(|protocol| mesh_tls::text(protocol)).collect(),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..CommonTlsContext::default()
    };
    let tls = UpstreamTlsContext {
        sni: tls.host.clone(),
        common_tls_context: Some(common),
        ..UpstreamTlsContext::default()
    };
    mesh_tls::socket(any(&tls))
}

fn name(kind: SanType, exactly: &str) -> SubjectAltNameMatcher {
    let matcher =
        StringMatcher { match_pattern: Some(MatchPattern::Exact(exactly.to_owned())), ignore_case: false };
    SubjectAltNameMatcher {
        san_type: kind as i32,
        matcher: Some(matcher),
        ..SubjectAltNameMatcher::default()
    }
}
