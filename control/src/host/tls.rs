//! A connection to the control plane from another machine: TLS 1.3, with the host's certificate where it has one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::token::RootHash;
use crate::svid;

/// Longest wait for a connection and its handshake.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// Not sent: who answers is known by its identity, wherever it is.
const ANY_NAME: &str = "control-plane";

/// Who vouches for the control plane.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// The root of this hash, which it has to show.
    Root(RootHash),
    /// One of these roots, for the control plane of this trust domain.
    Bundle { roots: Arc<RootCertStore>, trust_domain: String },
}

/// How connections to the control plane are made.
#[derive(Clone)]
pub(super) struct Connector {
    /// `HOST:PORT`.
    address: Arc<str>,
    tls: TlsConnector,
}

impl Connector {
    /// To the control plane at `address`, if `trust` vouches for it; `own` is the host's certificate, with what is above it, and
    /// its key.
    pub(super) fn new(
        address: Arc<str>,
        trust: Trust,
        own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Connector, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Arc::new(ControlPlane { trust, provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Connector { address, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// One more connection.
    pub(super) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let connected = timeout(CONNECT_WAIT, async {
            let stream = TcpStream::connect(&*self.address).await?;
            let _ = stream.set_nodelay(true);
            let name = ServerName::try_from(ANY_NAME).map_err(io::Error::other)?;
            self.tls.connect(name, stream).await
        });
        connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Verifies that the other end is the control plane of the mesh.
#[derive(Debug)]
struct ControlPlane {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ControlPlane {
    fn roots(&self, shown: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, rustls::Error> {
        match &self.trust {
            Trust::Bundle { roots, .. } => Ok(Arc::clone(roots)),
            Trust::Root(hash) => {
                let root = shown.iter().find(|certificate| RootHash::of(certificate) == *hash);
                let mut roots = RootCertStore::empty();
                roots.add(root.ok_or(CertificateError::UnknownIssuer)?.clone().into_owned())?;
                Ok(Arc::new(roots))
            }
        }
    }
}

impl ServerCertVerifier for ControlPlane {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = self.roots(intermediates)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, intermediates, now, algorithms)?;
        let other = |reason: String| rustls::Error::General(reason);
        let id = svid::read(end_entity).map_err(|error| other(error.to_string()))?.id;
        let is_ours = match &self.trust {
            Trust::Root(_) => true,
            Trust::Bundle { trust_domain, .. } => id.trust_domain() == trust_domain,
        };
        match is_ours && svid::is_control_plane(&id) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(other(format!("{id} is not the control plane of this mesh"))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
