//! Who the other end is, and whether it may be that.
//!
//! That somebody who is trusted vouches for a certificate is found out by rustls's own verifier. What is judged here is what
//! the certificate says: an identity of a workload must be one in every respect (SPIFFE X509-SVID §4, §5), and a name that is
//! demanded must be there.
//!
//! Faces certificates of strangers.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use policy::{
    peer::{NotSpiffe, Peer, SpiffeId},
    tls::TrustBundle,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

/// Why a certificate that somebody vouches for is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It is not valid now.
    #[error("the certificate is not valid at this time")]
    Expired,
    /// A SPIFFE identity stands beside another URI (X509-SVID §2).
    #[error("the certificate has a SPIFFE identity and another URI")]
    SeveralUris,
    /// It has a URI that looks like a SPIFFE identity and is none.
    #[error("the certificate's SPIFFE identity is none: {0}")]
    NotSpiffe(#[from] NotSpiffe),
    /// A workload's certificate may vouch for others, or may not sign a handshake (X509-SVID §4).
    #[error("the certificate of a workload may not be used for what it is used")]
    Usage,
    /// A name in it has a character that no name has.
    #[error("a name in the certificate has a NUL in it")]
    Nul,
    /// None of the names that are demanded is in it.
    #[error("the certificate has none of the names that are demanded ({0})")]
    Name(Names),
    /// It is none of the certificates that are taken.
    #[error("the certificate is not one of those that are taken")]
    Fingerprint,
}

/// Names of a certificate, to be shown: those of the kind that policy goes by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names(Vec<Box<str>>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            // Debug: a stranger's name may have any character in it.
            write!(f, "{}{name:?}", if at == 0 { "it has " } else { ", " })?;
        }
        Ok(())
    }
}

/// What a certificate of ours says of whom it is for. Whether it is valid now is for others to judge.
///
/// # Errors
/// When it says something that cannot be.
pub(crate) fn of_own(der: &[u8]) -> Result<Peer, Refused> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Refused::Unreadable)?;
    read(&certificate, der)
}

/// What a certificate says of whom it is for.
///
/// # Errors
/// When it says something that cannot be, or is not valid at `now`.
pub(super) fn peer(der: &[u8], now: SystemTime) -> Result<Peer, Refused> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Refused::Unreadable)?;
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let now = i64::try_from(since_epoch).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return Err(Refused::Expired);
    }
    read(&certificate, der)
}

fn read(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<Peer, Refused> {
    let mut peer = Peer {
        subject: certificate.subject().to_string().into(),
        fingerprint: digest::digest(&digest::SHA256, der)
            .as_ref()
            .try_into()
            .map_err(|_| Refused::Unreadable)?,
        ..Peer::default()
    };
    let names = certificate.subject_alternative_name().map_err(|_| Refused::Unreadable)?;
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        let (names, name) = match name {
            GeneralName::URI(uri) => (&mut peer.uri_sans, uri),
            GeneralName::DNSName(dns) => (&mut peer.dns_sans, dns),
            GeneralName::Invalid(..) => return Err(Refused::Unreadable),
            _ => continue,
        };
        if name.contains('\0') {
            return Err(Refused::Nul);
        }
        names.push(Box::from(*name));
    }
    let is_spiffe = |uri: &str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    peer.spiffe = match &*peer.uri_sans {
        [uri] if is_spiffe(uri) => Some(SpiffeId::parse(uri)?),
        uris if uris.iter().any(|uri| is_spiffe(uri)) => return Err(Refused::SeveralUris),
        _ => None,
    };
    if peer.spiffe.is_some() && !is_leaf(certificate) {
        return Err(Refused::Usage);
    }
    Ok(peer)
}

/// Whether a certificate may be a workload's: it vouches for nobody, and signs handshakes (X509-SVID §4.3, §5).
fn is_leaf(certificate: &X509Certificate<'_>) -> bool {
    let usage = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::KeyUsage(usage) => Some(usage),
        _ => None,
    });
    !certificate.is_ca()
        && usage.is_some_and(|usage| usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign())
}

/// Judges the certificates of the other end, as configured.
pub(super) struct Verifier {
    trust: TrustBundle,
    provider: Arc<CryptoProvider>,
    roots: RootCertStore,
    /// Finds out whether somebody vouches for a client; `None` where nobody is believed.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    is_required: bool,
}

impl Verifier {
    /// For what is configured. Without an anchor nobody is believed.
    ///
    /// # Errors
    /// When an anchor is no certificate.
    pub(super) fn new(
        trust: TrustBundle,
        is_required: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for anchor in &trust.anchors {
            roots.add(CertificateDer::from(anchor.to_vec()))?;
        }
        let clients = match roots.is_empty() {
            true => None,
            false => {
                let builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone());
                Some(builder.build().map_err(|error| rustls::Error::General(error.to_string()))?)
            }
        };
        Ok(Verifier { trust, provider, roots, clients, is_required })
    }

    /// Whether what the certificate says is what must be.
    fn judge(&self, leaf: &[u8], now: UnixTime) -> Result<(), rustls::Error> {
        let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let refused = match peer(leaf, now) {
            Ok(peer) if !self.trust.takes(&peer) => {
                let names = peer.principals().filter(|name| !name.is_empty());
                Refused::Name(Names(names.map(Box::from).collect()))
            }
            Ok(peer)
                if !self.trust.fingerprints.is_empty()
                    && !self.trust.fingerprints.contains(&peer.fingerprint) =>
            {
                Refused::Fingerprint
            }
            Ok(_) => return Ok(()),
            Err(refused) => refused,
        };
        Err(CertificateError::Other(OtherError(Arc::new(refused))).into())
    }

    /// Whether a client whose certificates these are, and who was taken, is who they say it is. Where an untrusted one is
    /// taken as well, what it says of itself is nobody's identity.
    pub(super) fn is_client_known(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        // A fingerprint is one certificate's, and was looked at.
        if !self.trust.accepts_untrusted || !self.trust.fingerprints.is_empty() {
            return true;
        }
        let vouched =
            |clients: &Arc<dyn ClientCertVerifier>| clients.verify_client_cert(leaf, intermediates, now);
        self.clients.as_ref().is_some_and(|clients| vouched(clients).is_ok())
    }

    /// Without anchors, and where that matters, nobody is.
    fn is_believing_nobody(&self) -> bool {
        self.roots.is_empty() && !self.trust.accepts_untrusted && self.trust.fingerprints.is_empty()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} anchors, {} names)", self.roots.len(), self.trust.names.len())
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Whom we believe is nobody's business, and a client of a mesh has one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if self.is_believing_nobody() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        if let Some(clients) = self.clients.as_ref().filter(|_| !self.trust.accepts_untrusted) {
            clients.verify_client_cert(leaf, intermediates, now)?;
        }
        self.judge(leaf, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.is_believing_nobody() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        if !self.roots.is_empty() && !self.trust.accepts_untrusted {
            let certificate = ParsedCertificate::try_from(leaf)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        self.judge(leaf, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
