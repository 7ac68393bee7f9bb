//! The identity of a host: bought with a token, renewed with itself, and kept for the next start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use policy::peer::SpiffeId;
use proto::control::identity_client::IdentityClient;
use proto::control::{SignRequest, SignResponse};
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

use super::tls::{Connector, Trust};
use super::token::JoinToken;
use crate::files::{self, Readers};
use crate::svid::{self, NotSvid};

/// The file in the data directory.
const FILE: &str = "host.json";

/// How long the control plane may take to sign.
const SIGN_WAIT: Duration = Duration::from_secs(10);

/// Who a host is, and whom it trusts.
pub(super) struct HostIdentity {
    pub(super) id: SpiffeId,
    pub(super) not_after: SystemTime,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    bundle: Vec<CertificateDer<'static>>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The control plane cannot be reached, or is another one.
    #[error("cannot reach the control plane")]
    Connect(#[source] tonic::transport::Error),
    /// It refuses.
    #[error("the control plane refuses: {0}")]
    Refused(String),
    /// What it sent is no identity of a host.
    #[error("what the control plane sent cannot be used: {0}")]
    Answer(&'static str),
    /// Or no SVID at all.
    #[error("what the control plane sent cannot be used")]
    Svid(#[from] NotSvid),
    /// No key can be made.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The file cannot be read or written.
    #[error("cannot {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file: PEM in JSON, so that it is replaced as a whole.
#[derive(Serialize, Deserialize)]
struct Kept {
    certificate: String,
    key: String,
    bundle: String,
}

impl HostIdentity {
    /// Spends a token for it.
    pub(super) async fn buy(control: &Arc<str>, token: &JoinToken) -> Result<HostIdentity, IdentityError> {
        let connector = Connector::new(Arc::clone(control), Trust::Root(token.root), None)?;
        // A token is hexadecimal, which every header may be.
        let secret = format!("Bearer {}", token.token.reveal()).parse::<MetadataValue<Ascii>>();
        let secret = secret.map_err(|_| IdentityError::Answer("the token cannot be shown"))?;
        ask(connector, "", Some(secret)).await
    }

    /// Another one for the same host, with a new key.
    pub(super) async fn renew(&self, control: &Arc<str>) -> Result<HostIdentity, IdentityError> {
        ask(self.connector(control)?, self.id.as_str(), None).await
    }

    /// Connects as this host.
    pub(super) fn connector(&self, control: &Arc<str>) -> Result<Connector, IdentityError> {
        let mut roots = RootCertStore::empty();
        for root in &self.bundle {
            roots.add(root.clone())?;
        }
        let trust_domain = self.id.trust_domain().to_owned();
        let trust = Trust::Bundle { roots: roots.into(), trust_domain };
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        Ok(Connector::new(Arc::clone(control), trust, Some((self.chain.clone(), key)))?)
    }

    /// What an earlier start kept, if it did.
    pub(super) fn read(data_dir: &Path) -> Result<Option<HostIdentity>, IdentityError> {
        let path = data_dir.join(FILE);
        let failed = |source| IdentityError::File { verb: "read", path: path.clone(), source };
        let content = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            content => content.map_err(failed)?,
        };
        let kept: Kept = serde_json::from_slice(&content).map_err(|error| failed(error.into()))?;
        let certificates = |pem: &str| {
            let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            all.map_err(|error| failed(io::Error::other(error)))
        };
        let key = KeyPair::from_pem(&kept.key)?;
        HostIdentity::of(certificates(&kept.certificate)?, key, certificates(&kept.bundle)?).map(Some)
    }

    /// Keeps it for the next start.
    pub(super) fn keep(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let path = data_dir.join(FILE);
        let pem = |certificates: &[CertificateDer<'_>]| {
            let block = |of: &CertificateDer<'_>| pem::encode(&pem::Pem::new("CERTIFICATE", of.to_vec()));
            certificates.iter().map(block).collect::<String>()
        };
        let kept =
            Kept { certificate: pem(&self.chain), key: self.key.serialize_pem(), bundle: pem(&self.bundle) };
        let failed = |source| IdentityError::File { verb: "write", path: path.clone(), source };
        let content = serde_json::to_vec_pretty(&kept).map_err(|error| failed(error.into()))?;
        files::replace(&path, &content, Readers::Owner).map_err(failed)
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: KeyPair,
        bundle: Vec<CertificateDer<'static>>,
    ) -> Result<HostIdentity, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Answer("there is no certificate"))?;
        let svid = svid::read(leaf)?;
        if svid::host_name(&svid.id).is_none() {
            return Err(IdentityError::Answer("it is not the identity of a host"));
        }
        Ok(HostIdentity { id: svid.id, not_after: svid.not_after, chain, key, bundle })
    }
}

async fn ask(
    connector: Connector,
    identity: &str,
    secret: Option<MetadataValue<Ascii>>,
) -> Result<HostIdentity, IdentityError> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
    let channel = channel(connector).await.map_err(IdentityError::Connect)?;
    let mut request = Request::new(SignRequest { csr, identity: identity.to_owned() });
    if let Some(secret) = secret {
        request.metadata_mut().insert("authorization", secret);
    }
    let answer = IdentityClient::new(channel).sign(request).await;
    let answer = answer.map_err(|status| IdentityError::Refused(status.message().to_owned()))?;
    let SignResponse { chain, bundle, .. } = answer.into_inner();
    let certificates = |all: Vec<Vec<u8>>| all.into_iter().map(CertificateDer::from).collect();
    HostIdentity::of(certificates(chain), key, certificates(bundle))
}

async fn channel(connector: Connector) -> Result<Channel, tonic::transport::Error> {
    // The connector knows where it is.
    let endpoint = Endpoint::from_static("http://control-plane").timeout(SIGN_WAIT);
    let connect = move |_: Uri| {
        let connector = connector.clone();
        async move { connector.connect().await.map(TokioIo::new) }
    };
    endpoint.connect_with_connector(tower::service_fn(connect)).await
}
