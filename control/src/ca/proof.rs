//! Whether a certificate may sign others, and whether what it signs is trusted: found out when the control plane starts, not by
//! every proxy of the mesh.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::peer::SpiffeId;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Authority;

/// When a certificate that may sign others ends (RFC 5280 §4.2.1.3, §4.2.1.9); otherwise what it lacks.
pub(super) fn may_sign(certificate: &[u8]) -> Result<SystemTime, &'static str> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| "it cannot be read")?;
    let constraints = certificate.basic_constraints().ok().flatten();
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err("its basic constraints are not CA");
    }
    let usage = certificate.key_usage().map_err(|_| "its key usage cannot be read")?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("its key may not sign certificates");
    }
    let seconds = certificate.validity().not_after.timestamp().try_into().unwrap_or_default();
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or("its end cannot be told")
}

/// Whether nobody else vouches for a certificate.
pub(super) fn is_root(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, of)| of.subject() == of.issuer())
}

/// Signs one certificate for a key that is forgotten, and verifies it as a proxy would; otherwise what a verifier says.
pub(super) fn is_trusted(authority: &Authority) -> Result<(), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.bundle() {
        roots.add(root.into()).map_err(|error| error.to_string())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let request = CertificateParams::default().serialize_request(&key).map_err(|error| error.to_string())?;
    let id = format!("spiffe://{}/trial", authority.trust_domain());
    let id = SpiffeId::parse(&id).map_err(|error| error.to_string())?;
    let signed = authority.sign(request.der(), &id, SystemTime::now()).map_err(|error| error.to_string())?;
    let mut chain = signed.chain.into_iter().map(CertificateDer::from);
    let leaf = chain.next().ok_or("nothing is signed")?;
    let above: Vec<_> = chain.collect();
    verifier.verify_client_cert(&leaf, &above, UnixTime::now()).map(drop).map_err(|error| error.to_string())
}
