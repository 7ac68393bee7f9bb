//! A TLS end that is rustls alone, with its own record layer, over a connection in a test's own hands; and certificates of a
//! small world: one trust domain, one stranger.

use std::{
    io::{Read as _, Write as _},
    sync::Arc,
    time::Duration,
};

use policy::tls::{
    CertificateChain, CommonTls, DownstreamTls, NameKind, NameMatch, NamePattern, PrivateKey, Source,
    TrustBundle, UpstreamTls, Validation,
};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, string::Ia5String,
};
use runtime::Io;
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use sim::Peer;

/// Who vouches for others.
pub(crate) struct Authority {
    pub(crate) der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Arc<CertificateChain>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Authority { der, issuer: Issuer::new(params, key) }
    }

    /// A workload's certificate.
    pub(crate) fn workload(&self, id: &str) -> Identity {
        self.certificate(|params| params.subject_alt_names = vec![uri(id)])
    }

    /// One that `change` makes of a workload's without a name.
    pub(crate) fn certificate(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKey::Pkcs8(key.serialize_der().into());
        Identity { chain: Arc::new(CertificateChain { chain: vec![leaf.der()[..].into()], key }) }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle { anchors: vec![self.der[..].into()], ..TrustBundle::default() }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.der.clone())).unwrap();
        Arc::new(roots)
    }
}

pub(crate) fn uri(id: &str) -> SanType {
    SanType::URI(Ia5String::try_from(id).unwrap())
}

/// TLS of a listener: it shows `own` and demands a certificate that `trust` vouches for.
pub(crate) fn downstream(own: &Identity, trust: TrustBundle) -> DownstreamTls {
    DownstreamTls {
        common: CommonTls {
            alpn: vec![Box::from(*b"h2"), Box::from(*b"http/1.1")],
            certificates: vec![Source::Inline(own.chain.clone())],
            validation: Some(Validation { own: trust, named: None }),
            ..CommonTls::default()
        },
        require_client_certificate: true,
        resumption: true,
        // A rough network may carry a byte at a time.
        handshake_timeout: Duration::from_secs(300),
    }
}

/// TLS to an upstream that must be `id`.
pub(crate) fn upstream(own: &Identity, trust: TrustBundle, id: &str) -> UpstreamTls {
    let names = vec![NameMatch { kind: NameKind::Uri, pattern: NamePattern::Exact(id.into()) }];
    UpstreamTls {
        common: CommonTls {
            certificates: vec![Source::Inline(own.chain.clone())],
            validation: Some(Validation { own: TrustBundle { names, ..trust }, named: None }),
            ..CommonTls::default()
        },
        sni: Some("app.mesh".into()),
        resumption: true,
    }
}

impl Identity {
    fn parts(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let PrivateKey::Pkcs8(key) = &self.chain.key else { panic!("keys are PKCS #8 here") };
        let chain = self.chain.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        (chain, PrivateKeyDer::Pkcs8(key.to_vec().into()))
    }

    /// As a client's. `None` shows nothing.
    pub(crate) fn client(own: Option<&Identity>, authority: &Authority, alpn: &[&str]) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(authority.roots(), provider)));
        let mut config = match own.map(Identity::parts) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// As a server's, which demands a certificate.
    pub(crate) fn server(&self, authority: &Authority) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider.clone());
        let (chain, key) = self.parts();
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap()
    }
}

/// Trusts whom the authority vouches for, whatever his name.
#[derive(Debug)]
struct AnyName(Arc<RootCertStore>, Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        let leaf = rustls::server::ParsedCertificate::try_from(leaf)?;
        let all = self.1.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, &self.0, between, now, all)?;
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            leaf,
            signed,
            &self.1.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            leaf,
            signed,
            &self.1.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// One end of a TLS connection.
pub(crate) struct TlsPeer<I: Io> {
    pub(crate) peer: Peer<I>,
    pub(crate) tls: Connection,
    /// Opened and not asked for yet.
    opened: Vec<u8>,
    /// How many bytes go out at a time.
    pub(crate) step: usize,
}

impl<I: Io> TlsPeer<I> {
    /// A client, before its handshake.
    pub(crate) fn client(peer: Peer<I>, config: impl Into<Arc<ClientConfig>>) -> TlsPeer<I> {
        let name = ServerName::try_from("app.mesh").unwrap();
        TlsPeer::new(peer, ClientConnection::new(config.into(), name).unwrap().into())
    }

    /// A server, before its handshake.
    pub(crate) fn server(peer: Peer<I>, config: impl Into<Arc<ServerConfig>>) -> TlsPeer<I> {
        TlsPeer::new(peer, ServerConnection::new(config.into()).unwrap().into())
    }

    fn new(peer: Peer<I>, tls: Connection) -> TlsPeer<I> {
        TlsPeer { peer, tls, opened: Vec::new(), step: usize::MAX }
    }

    /// Sends what is to be sent; `false` when the other end takes nothing.
    async fn flush(&mut self) -> bool {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        for part in out.chunks(self.step.min(out.len().max(1))) {
            if self.peer.try_send(part).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Receives once and opens what came; an error, or the end, is why not.
    async fn receive(&mut self) -> Result<(), String> {
        let Some(bytes) = self.peer.recv_some().await else { return Err("it ended".to_owned()) };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest).unwrap();
            let state = self.tls.process_new_packets().map_err(|error| error.to_string());
            self.flush().await;
            let mut opened = vec![0; state?.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut opened).unwrap();
            self.opened.extend(opened);
        }
        Ok(())
    }

    /// Does the handshake; why it failed.
    pub(crate) async fn handshake(&mut self) -> Result<(), String> {
        while self.tls.is_handshaking() {
            self.flush().await;
            self.receive().await?;
        }
        self.flush().await;
        Ok(())
    }

    /// Does a client's handshake; what `then` has to say goes in one piece with the end of it.
    pub(crate) async fn handshake_then(&mut self, then: impl FnOnce(&mut Connection)) {
        while self.tls.is_handshaking() {
            self.flush().await;
            let bytes = self.peer.recv_some().await.unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                self.tls.read_tls(&mut rest).unwrap();
                self.tls.process_new_packets().unwrap();
            }
        }
        then(&mut self.tls);
        self.flush().await;
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        for part in bytes.as_ref().chunks(8192) {
            self.tls.writer().write_all(part).unwrap();
            assert!(self.flush().await, "the other end takes nothing");
        }
    }

    /// Receives up to and with `mark`, or tells what came before an end or an error.
    pub(crate) async fn recv_until(&mut self, mark: &[u8]) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = self.opened.windows(mark.len()).position(|window| window == mark) {
                return Ok(self.opened.drain(..at + mark.len()).collect());
            }
            self.receive().await.map_err(|why| format!("{why} after {}", self.opened.escape_ascii()))?;
        }
    }

    pub(crate) async fn recv_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.opened.len() < count {
            self.receive().await.unwrap();
        }
        self.opened.drain(..count).collect()
    }

    /// Says that nothing more comes, and ends.
    pub(crate) async fn close(&mut self) {
        self.tls.send_close_notify();
        self.flush().await;
        self.peer.shutdown();
    }
}
