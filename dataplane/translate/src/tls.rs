//! TLS contexts of listeners and clusters, and secrets.
//!
//! What they say narrows who is trusted, so nothing here is ignored that would widen it: a field without a counterpart
//! refuses its resource. Keys and certificates are tried as they will be used, by rustls: what comes out of here can be.

mod context;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use policy::tls::{CertificateChain, NameKind, NameMatch, NamePattern, PrivateKey, Secret, TrustBundle};
use proto::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3 as tls,
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use crate::{
    Rejected, fields,
    reject::{At, Fault, Reason},
};

pub(crate) use context::{downstream, upstream};

/// Secrets that a resource names, each with how long its first version is waited for.
pub(crate) type Named = BTreeMap<Arc<str>, Option<Duration>>;

/// Translates a secret.
pub fn secret(value: &tls::Secret) -> Result<Secret, Rejected> {
    self::secret_at(value, &At::ROOT).map_err(|fault| fault.of(&value.name))
}

fn secret_at(value: &tls::Secret, at: &At<'_>) -> Result<Secret, Fault> {
    use tls::secret::Type;
    fields::name(&value.name, &at.field("name"))?;
    match at.field("type").require(value.r#type.as_ref())? {
        Type::TlsCertificate(value) => {
            Ok(Secret::Certificate(Arc::new(certificate(value, &at.field("tls_certificate"))?)))
        }
        Type::ValidationContext(value) => {
            Ok(Secret::Trust(Arc::new(trust(value, &at.field("validation_context"))?)))
        }
        Type::SessionTicketKeys(_) => Err(at.field("session_ticket_keys").unsupported()),
        Type::GenericSecret(_) => Err(at.field("generic_secret").unsupported()),
    }
}

/// A certificate with its key, which belong together. Accepted without effect: `ocsp_staple` and
/// `signed_certificate_timestamp`, which the other end may do without.
fn certificate(value: &tls::TlsCertificate, at: &At<'_>) -> Result<CertificateChain, Fault> {
    at.refuse_all(&[
        ("pkcs12", value.pkcs12.is_some()),
        ("watched_directory", value.watched_directory.is_some()),
        ("private_key_provider", value.private_key_provider.is_some()),
        ("password", value.password.is_some()),
        ("tls_params", value.tls_params.is_some()),
    ])?;
    let chain_at = at.field("certificate_chain");
    let chain = certificates(chain_at.require(value.certificate_chain.as_ref())?, &chain_at)?;
    let key_at = at.field("private_key");
    let key = data(key_at.require(value.private_key.as_ref())?, &key_at)?;
    let key = match PrivateKeyDer::from_pem_slice(key) {
        Ok(PrivateKeyDer::Pkcs8(key)) => PrivateKey::Pkcs8(key.secret_pkcs8_der().into()),
        Ok(PrivateKeyDer::Pkcs1(key)) => PrivateKey::Pkcs1(key.secret_pkcs1_der().into()),
        Ok(PrivateKeyDer::Sec1(key)) => PrivateKey::Sec1(key.secret_sec1_der().into()),
        Ok(_) | Err(_) => return Err(key_at.fault(Reason::NotPem("a private key that is not encrypted"))),
    };
    let chain = CertificateChain { chain, key };
    // What rustls says of a key has nothing of the key in it.
    certified_key(&chain).map_err(|error| at.fault(Reason::Tls { error: error.to_string() }))?;
    Ok(chain)
}

/// A certificate and its key as rustls uses them.
///
/// # Errors
/// When the key is of a kind that is not known, or belongs to another certificate.
pub fn certified_key(of: &CertificateChain) -> Result<CertifiedKey, rustls::Error> {
    let chain = of.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let key = match &of.key {
        PrivateKey::Pkcs8(der) => PrivateKeyDer::Pkcs8(der.to_vec().into()),
        PrivateKey::Pkcs1(der) => PrivateKeyDer::Pkcs1(der.to_vec().into()),
        PrivateKey::Sec1(der) => PrivateKeyDer::Sec1(der.to_vec().into()),
    };
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
}

/// Whom to trust. Accepted without effect: `suppress_client_ca_list` (the list is never sent),
/// `only_verify_leaf_cert_crl` (there are no revocation lists).
fn trust(value: &tls::CertificateValidationContext, at: &At<'_>) -> Result<TrustBundle, Fault> {
    use tls::certificate_validation_context::TrustChainVerification;
    at.refuse_all(&[
        ("ca_certificate_provider_instance", value.ca_certificate_provider_instance.is_some()),
        ("system_root_certs", value.system_root_certs.is_some()),
        ("watched_directory", value.watched_directory.is_some()),
        ("verify_certificate_spki", !value.verify_certificate_spki.is_empty()),
        (
            "require_signed_certificate_timestamp",
            value.require_signed_certificate_timestamp.is_some_and(|on| on.value),
        ),
        ("crl", value.crl.is_some()),
        ("allow_expired_certificate", value.allow_expired_certificate),
        ("custom_validator_config", value.custom_validator_config.is_some()),
        ("max_verify_depth", value.max_verify_depth.is_some()),
    ])?;
    let anchors_at = at.field("trusted_ca");
    let anchors = match &value.trusted_ca {
        None => Vec::new(),
        Some(source) => certificates(source, &anchors_at)?,
    };
    let mut roots = RootCertStore::empty();
    for anchor in &anchors {
        let added = roots.add(CertificateDer::from_slice(anchor));
        added.map_err(|error| anchors_at.fault(Reason::Tls { error: error.to_string() }))?;
    }
    let verification: TrustChainVerification =
        fields::enumeration(value.trust_chain_verification, &at.field("trust_chain_verification"))?;
    let hashes_at = at.field("verify_certificate_hash");
    let hashes = value.verify_certificate_hash.iter().enumerate();
    Ok(TrustBundle {
        anchors,
        names: names(value, at)?,
        accepts_untrusted: verification == TrustChainVerification::AcceptUntrusted,
        fingerprints: hashes
            .map(|(index, hash)| fingerprint(hash, &hashes_at.index(index)))
            .collect::<Result<_, _>>()?,
    })
}

/// SHA-256 in hexadecimal, with or without colons.
fn fingerprint(text: &str, at: &At<'_>) -> Result<[u8; 32], Fault> {
    let digits: Vec<u32> = text.chars().filter(|of| *of != ':').map_while(|of| of.to_digit(16)).collect();
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() || text.chars().any(|of| of != ':' && !of.is_ascii_hexdigit()) {
        let value = text.escape_debug().to_string();
        return Err(at.fault(Reason::Invalid { value, expected: "a SHA-256 in hexadecimal" }));
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |high, digit| high << 4 | *digit as u8);
    }
    Ok(bytes)
}

/// The names that are demanded. The older field looks at names of every kind.
#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn names(value: &tls::CertificateValidationContext, at: &At<'_>) -> Result<Vec<NameMatch>, Fault> {
    use tls::subject_alt_name_matcher::SanType;
    let mut names = Vec::new();
    let typed_at = at.field("match_typed_subject_alt_names");
    for (index, of) in value.match_typed_subject_alt_names.iter().enumerate() {
        let at = typed_at.index(index);
        let kind = match fields::enumeration(of.san_type, &at.field("san_type"))? {
            SanType::Uri => NameKind::Uri,
            SanType::Dns => NameKind::Dns,
            other => {
                let value = other.as_str_name().to_owned();
                let reason = Reason::UnsupportedValue { value, supported: "URI, DNS" };
                return Err(at.field("san_type").fault(reason));
            }
        };
        let matcher_at = at.field("matcher");
        let pattern = name_pattern(matcher_at.require(of.matcher.as_ref())?, &matcher_at)?;
        names.push(NameMatch { kind, pattern });
    }
    let untyped_at = at.field("match_subject_alt_names");
    for (index, of) in value.match_subject_alt_names.iter().enumerate() {
        let pattern = name_pattern(of, &untyped_at.index(index))?;
        names.push(NameMatch { kind: NameKind::Uri, pattern: pattern.clone() });
        names.push(NameMatch { kind: NameKind::Dns, pattern });
    }
    Ok(names)
}

fn name_pattern(value: &StringMatcher, at: &At<'_>) -> Result<NamePattern, Fault> {
    at.refuse("ignore_case", value.ignore_case)?;
    match at.field("match_pattern").require(value.match_pattern.as_ref())? {
        MatchPattern::Exact(text) => Ok(NamePattern::Exact(text.as_str().into())),
        MatchPattern::Prefix(text) => {
            Ok(NamePattern::Prefix(fields::name(text, &at.field("prefix"))?.into()))
        }
        MatchPattern::Suffix(_) => Err(at.field("suffix").unsupported()),
        MatchPattern::Contains(_) => Err(at.field("contains").unsupported()),
        MatchPattern::SafeRegex(_) => Err(at.field("safe_regex").unsupported()),
        MatchPattern::Custom(_) => Err(at.field("custom").unsupported()),
    }
}

/// Certificates in PEM, one at least.
fn certificates(source: &DataSource, at: &At<'_>) -> Result<Vec<Box<[u8]>>, Fault> {
    let wrong = || at.fault(Reason::NotPem("certificates"));
    let certificates = CertificateDer::pem_slice_iter(data(source, at)?)
        .map(|certificate| certificate.map(|certificate| certificate.as_ref().into()))
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|_| wrong())?;
    if certificates.is_empty() { Err(wrong()) } else { Ok(certificates) }
}

/// Bytes that are in the configuration itself.
fn data<'a>(source: &'a DataSource, at: &At<'_>) -> Result<&'a [u8], Fault> {
    at.refuse("watched_directory", source.watched_directory.is_some())?;
    match at.field("specifier").require(source.specifier.as_ref())? {
        Specifier::InlineBytes(bytes) => Ok(bytes),
        Specifier::InlineString(text) => Ok(text.as_bytes()),
        Specifier::Filename(_) => Err(at.field("filename").unsupported()),
        Specifier::EnvironmentVariable(_) => Err(at.field("environment_variable").unsupported()),
    }
}
