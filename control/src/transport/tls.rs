//! What the control plane shows to other machines, and what it asks of them: TLS 1.3, its own identity, and the certificate of a
//! host, which one that has only a token does not have yet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use policy::peer::NotSpiffe;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::ca::{Authority, CurrentAuthority, SignError, Signed};
use crate::svid;

/// What is spoken within it.
const ALPN: &[u8] = b"h2";

/// The identity of the control plane, made anew before it ends.
#[derive(Debug)]
pub(crate) struct TlsIdentity {
    authority: Arc<CurrentAuthority>,
    trust_domain: String,
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    config: Arc<ServerConfig>,
    /// Who vouches for it.
    by: Arc<Authority>,
    renew_at: SystemTime,
}

/// Why there is no identity to show.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    #[error("the trust domain is none: {0}")]
    TrustDomain(#[from] NotSpiffe),
    #[error("nobody can be trusted")]
    Roots(#[from] VerifierBuilderError),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl TlsIdentity {
    /// Signed by `authority`.
    ///
    /// # Errors
    /// When nothing can be signed.
    pub(crate) fn new(authority: Arc<CurrentAuthority>, now: SystemTime) -> Result<TlsIdentity, TlsError> {
        let trust_domain = authority.get().trust_domain().to_owned();
        let identity = TlsIdentity { authority, trust_domain, made: Mutex::default() };
        identity.config(now)?;
        Ok(identity)
    }

    /// Of which hosts have to be.
    pub(crate) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// For a handshake at `now`.
    pub(crate) fn config(&self, now: SystemTime) -> Result<Arc<ServerConfig>, TlsError> {
        let by = self.authority.get();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| Arc::ptr_eq(&made.by, &by) && now < made.renew_at) {
            return Ok(Arc::clone(&made.config));
        }
        let (config, not_after) = make(&by, now)?;
        let renew_at = now + not_after.duration_since(now).unwrap_or_default() / 2;
        *made = Some(Made { config: Arc::clone(&config), by, renew_at });
        Ok(config)
    }
}

fn make(authority: &Authority, now: SystemTime) -> Result<(Arc<ServerConfig>, SystemTime), TlsError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let id = svid::control_plane(authority.trust_domain())?;
    let Signed { chain, not_after, .. } = authority.sign(request.der(), &id, now)?;
    let mut roots = RootCertStore::empty();
    for root in authority.bundle() {
        roots.add(CertificateDer::from(root))?;
    }
    // Who has only a token knows a root by its hash alone, so the roots are shown as well.
    let shown = chain.into_iter().chain(authority.bundle()).map(CertificateDer::from).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let hosts = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(hosts.allow_unauthenticated().build()?)
        .with_single_cert(shown, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A session that is resumed would outlive its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), not_after))
}
