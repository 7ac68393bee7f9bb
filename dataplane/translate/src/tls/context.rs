//! What a TLS context says of one side of a connection.

use std::{sync::Arc, time::Duration};

use policy::{
    limits,
    tls::{
        CertificateChain, CipherSuite, CommonTls, DownstreamTls, KeyExchange, Source, UpstreamTls,
        Validation, Versions,
    },
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::{
    self as tls, SdsSecretConfig, TlsParameters, common_tls_context::ValidationContextType,
    downstream_tls_context::SessionTicketKeysType, tls_parameters::TlsProtocol,
};

use super::{Named, certificate, trust};
use crate::{
    config_source, fields,
    reject::{At, Fault, Reason},
};

/// TLS as a server. Accepted without effect: `session_timeout`, `disable_stateful_session_resumption` and
/// `session_ticket_keys` (sessions are kept in tickets alone, sealed with keys of our own, which change),
/// `full_scan_certs_on_sni_mismatch` and `prefer_client_ciphers` (which of several good ones is taken).
pub(crate) fn downstream(
    value: &tls::DownstreamTlsContext,
    handshake_timeout: Option<Duration>,
    named: &mut Named,
    at: &At<'_>,
) -> Result<DownstreamTls, Fault> {
    at.refuse_all(&[
        ("require_sni", value.require_sni.is_some_and(|on| on.value)),
        ("ocsp_staple_policy", value.ocsp_staple_policy != 0),
    ])?;
    let resumption = match &value.session_ticket_keys_type {
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(is_off)) => !is_off,
        _ => true,
    };
    let common_at = at.field("common_tls_context");
    let common = common(common_at.require(value.common_tls_context.as_ref())?, named, &common_at)?;
    if common.certificates.is_empty() {
        return Err(common_at.field("tls_certificates").fault(Reason::Missing));
    }
    let require_client_certificate = value.require_client_certificate.is_some_and(|on| on.value);
    if require_client_certificate && common.validation.is_none() {
        let reason = "a certificate that nothing validates says nothing; set validation_context";
        return Err(at.field("require_client_certificate").fault(Reason::Conflict(reason)));
    }
    let handshake_timeout = handshake_timeout.unwrap_or(limits::TLS_HANDSHAKE_TIMEOUT_DEFAULT);
    Ok(DownstreamTls { common, require_client_certificate, resumption, handshake_timeout })
}

/// TLS as a client. Accepted without effect: `allow_renegotiation` (nobody is allowed to), `enforce_rsa_key_usage` (usage is
/// always looked at).
pub(crate) fn upstream(
    value: &tls::UpstreamTlsContext,
    named: &mut Named,
    at: &At<'_>,
) -> Result<UpstreamTls, Fault> {
    at.refuse_all(&[
        ("auto_host_sni", value.auto_host_sni),
        ("auto_sni_san_validation", value.auto_sni_san_validation),
    ])?;
    let sni_at = at.field("sni");
    let sni = match &*value.sni {
        "" => None,
        sni if rustls::pki_types::DnsName::try_from(sni).is_ok() => Some(sni.into()),
        sni => {
            let value = sni.escape_debug().to_string();
            return Err(sni_at.fault(Reason::Invalid { value, expected: "a DNS name" }));
        }
    };
    let common_at = at.field("common_tls_context");
    let common = match &value.common_tls_context {
        None => CommonTls::default(),
        Some(value) => common(value, named, &common_at)?,
    };
    let resumption = value.max_session_keys.is_none_or(|most| most.value > 0);
    Ok(UpstreamTls { common, sni, resumption })
}

#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn common(value: &tls::CommonTlsContext, named: &mut Named, at: &At<'_>) -> Result<CommonTls, Fault> {
    at.refuse_all(&[
        ("tls_certificate_provider_instance", value.tls_certificate_provider_instance.is_some()),
        ("custom_tls_certificate_selector", value.custom_tls_certificate_selector.is_some()),
        ("tls_certificate_certificate_provider", value.tls_certificate_certificate_provider.is_some()),
        (
            "tls_certificate_certificate_provider_instance",
            value.tls_certificate_certificate_provider_instance.is_some(),
        ),
        ("custom_handshaker", value.custom_handshaker.is_some()),
        ("key_log", value.key_log.is_some()),
    ])?;
    let mut common = CommonTls::default();
    if let Some(params) = &value.tls_params {
        parameters(params, &mut common, &at.field("tls_params"))?;
    }
    let protocols_at = at.field("alpn_protocols");
    for (index, protocol) in value.alpn_protocols.iter().enumerate() {
        let at = protocols_at.index(index);
        fields::between(protocol.len().try_into().unwrap_or(u32::MAX), 1, u8::MAX.into(), &at)?;
        common.alpn.push(protocol.as_bytes().into());
    }
    let certificates_at = at.field("tls_certificates");
    for (index, value) in value.tls_certificates.iter().enumerate() {
        let chain = certificate(value, &certificates_at.index(index))?;
        common.certificates.push(Source::Inline(Arc::new(chain)));
    }
    let named_at = at.field("tls_certificate_sds_secret_configs");
    for (index, value) in value.tls_certificate_sds_secret_configs.iter().enumerate() {
        let name = secret_name(value, named, &named_at.index(index))?;
        common.certificates.push(Source::<CertificateChain>::Named(name));
    }
    common.validation = match &value.validation_context_type {
        None => None,
        Some(of) => Some(validation(of, named, at)?),
    };
    Ok(common)
}

#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn validation(value: &ValidationContextType, named: &mut Named, at: &At<'_>) -> Result<Validation, Fault> {
    match value {
        ValidationContextType::ValidationContext(context) => {
            let at = at.field("validation_context");
            let own = trust(context, &at)?;
            if !own.names.is_empty() && own.anchors.is_empty() {
                let reason = "names in a certificate that nobody vouches for say nothing; set trusted_ca";
                return Err(at.fault(Reason::Conflict(reason)));
            }
            Ok(Validation { own, named: None })
        }
        ValidationContextType::ValidationContextSdsSecretConfig(config) => {
            let at = at.field("validation_context_sds_secret_config");
            Ok(Validation { named: Some(secret_name(config, named, &at)?), ..Validation::default() })
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            at.refuse_all(&[
                (
                    "validation_context_certificate_provider",
                    combined.validation_context_certificate_provider.is_some(),
                ),
                (
                    "validation_context_certificate_provider_instance",
                    combined.validation_context_certificate_provider_instance.is_some(),
                ),
            ])?;
            let own = combined.default_validation_context.clone().unwrap_or_default();
            let own = trust(&own, &at.field("default_validation_context"))?;
            let at = at.field("validation_context_sds_secret_config");
            let config = at.require(combined.validation_context_sds_secret_config.as_ref())?;
            Ok(Validation { own, named: Some(secret_name(config, named, &at)?) })
        }
        ValidationContextType::ValidationContextCertificateProvider(_) => {
            Err(at.field("validation_context_certificate_provider").unsupported())
        }
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
            Err(at.field("validation_context_certificate_provider_instance").unsupported())
        }
    }
}

/// The name of a secret. Without a source it is one that the proxy has by itself: of the bootstrap file, or its identity.
fn secret_name(value: &SdsSecretConfig, named: &mut Named, at: &At<'_>) -> Result<Arc<str>, Fault> {
    let name: Arc<str> = fields::name(&value.name, &at.field("name"))?.into();
    if value.sds_config.is_some() {
        let at = at.field("sds_config");
        config_source::check(value.sds_config.as_ref(), &at)?;
        crate::want(named, &name, config_source::fetch_timeout(value.sds_config.as_ref(), &at)?);
    }
    Ok(name)
}

/// Versions below 1.2 are never spoken, so a lower minimum is none. Ciphers, curves: those of the list that are safe.
fn parameters(value: &TlsParameters, common: &mut CommonTls, at: &At<'_>) -> Result<(), Fault> {
    at.refuse_all(&[
        ("signature_algorithms", !value.signature_algorithms.is_empty()),
        ("compliance_policies", !value.compliance_policies.is_empty()),
    ])?;
    let least_at = at.field("tls_minimum_protocol_version");
    let most_at = at.field("tls_maximum_protocol_version");
    let least: TlsProtocol = fields::enumeration(value.tls_minimum_protocol_version, &least_at)?;
    let most: TlsProtocol = fields::enumeration(value.tls_maximum_protocol_version, &most_at)?;
    common.versions = Versions {
        tls12: least != TlsProtocol::TlSv13,
        tls13: matches!(most, TlsProtocol::TlsAuto | TlsProtocol::TlSv13),
    };
    if matches!(most, TlsProtocol::TlSv10 | TlsProtocol::TlSv11) {
        let reason = Reason::UnsupportedValue {
            value: most.as_str_name().to_owned(),
            supported: "TLS_AUTO, TLSv1_2, TLSv1_3",
        };
        return Err(most_at.fault(reason));
    }
    if !common.versions.tls12 && !common.versions.tls13 {
        return Err(most_at.fault(Reason::Conflict("no version is left")));
    }
    common.tls12_suites = chosen(&value.cipher_suites, &SUITES, &at.field("cipher_suites"))?;
    common.key_exchanges = chosen(&value.ecdh_curves, &CURVES, &at.field("ecdh_curves"))?;
    Ok(())
}

/// By the names of OpenSSL, which Envoy's documentation has.
const SUITES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::EcdsaAes128),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::EcdsaAes256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::EcdsaChacha20),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::RsaAes128),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::RsaAes256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::RsaChacha20),
];

const CURVES: [(&str, KeyExchange); 4] = [
    ("X25519MLKEM768", KeyExchange::X25519MlKem768),
    ("X25519", KeyExchange::X25519),
    ("P-256", KeyExchange::P256),
    ("P-384", KeyExchange::P384),
];

/// Those of a list that are known; an empty list is all. A list may name what is no longer safe beside what is, and groups
/// of equal worth (`[A|B]`).
fn chosen<T: Copy>(names: &[String], known: &[(&str, T)], at: &At<'_>) -> Result<Vec<T>, Fault> {
    fn parts(name: &str) -> impl Iterator<Item = &str> {
        name.trim_matches(['[', ']']).split('|')
    }
    for (index, name) in names.iter().enumerate() {
        // OpenSSL takes these out of the list, or puts them last: passed over, they would be what they must not.
        if parts(name).any(|part| part.starts_with(['!', '-'])) {
            let value = name.escape_debug().to_string();
            return Err(at.index(index).fault(Reason::UnsupportedValue { value, supported: "names alone" }));
        }
    }
    let chosen: Vec<T> = names
        .iter()
        .flat_map(|name| parts(name))
        .filter_map(|name| known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
        .collect();
    if chosen.is_empty() && !names.is_empty() {
        return Err(at.fault(Reason::Conflict("none of these is one that is still safe")));
    }
    Ok(chosen)
}
