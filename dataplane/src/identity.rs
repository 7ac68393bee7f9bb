//! Who this proxy is towards others: it makes a key, has the control plane sign it, and has it renewed in time.
//!
//! A task of the control thread. The key never leaves this process but for the file from which it starts again while the
//! control plane is away. What was issued serves until something newer was; after its end nobody takes it any more, and this
//! goes on asking.
//!
//! The control plane is authenticated as far as its address is; what it sends is tried before it is used.

mod schedule;
mod store;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use policy::{
    Rng,
    peer::SpiffeId,
    tls::{CertificateChain, PrivateKey, Secret, TrustBundle},
};
use proto::control::{SignRequest, SignResponse, identity_client::IdentityClient};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;
use translate::{
    Origin,
    assemble::{Accepted, Update},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

pub use self::{schedule::Life, store::IdentityFile};
use crate::{
    bootstrap::ControlPlane,
    xds::{
        backoff::Backoff,
        transport::{self, CloseReason, chain},
    },
};

/// What resources call the certificate of this proxy, and whom it trusts.
const OWN_CERTIFICATE: &str = "default";
const TRUST_BUNDLE: &str = "ROOTCA";

/// How long signing may take.
const SIGN_TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest time between two certificates.
const RENEWAL_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest sleep, after which the wall clock is looked at again: it may have been set, or the machine have slept.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);

/// A certificate with its key, and whom to trust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issued {
    /// The certificate, what vouches for it, and the key.
    pub chain: Arc<CertificateChain>,
    /// Whom to trust.
    pub bundle: Arc<TrustBundle>,
    /// How long it is good for.
    pub life: Life,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    #[error("the control plane does not answer in time")]
    TimedOut,
    #[error("cannot reach the control plane")]
    Unreachable(#[source] CloseReason),
    #[error("the control plane refuses: {}", .0.message())]
    Refused(Box<tonic::Status>),
    #[error("the control plane sent a certificate that cannot be used: {0}")]
    Unusable(String),
}

/// Asks for the identity `id`, tells `issued` whenever there is one, and renews it. `file` keeps it. Ends when nobody listens.
pub async fn run(
    control_plane: ControlPlane,
    id: SpiffeId,
    file: Option<IdentityFile>,
    mut rng: Rng,
    issued: mpsc::Sender<Issued>,
) {
    let mut current = file.as_ref().and_then(|file| restored(file, &id));
    if let Some(restored) = &current
        && issued.send(restored.clone()).await.is_err()
    {
        return;
    }
    let mut alarmed = None;
    loop {
        if let Some(current) = &current {
            let renews_at = current.life.renews_at(&mut rng);
            // Clocks that are far apart must not make this a loop without a pause.
            tokio::time::sleep(RENEWAL_PAUSE_MIN).await;
            sleep_until(renews_at).await;
        }
        let mut backoff = Backoff::default();
        let new = loop {
            let begun = Instant::now();
            match sign(&control_plane, &id).await {
                Ok(new) => break new,
                Err(error) => {
                    let alarm = current.as_ref().and_then(|current| current.life.alarm(SystemTime::now()));
                    tell(&id, &error, current.as_ref().map(|of| of.life), alarm != alarmed);
                    alarmed = alarm;
                    tokio::time::sleep(backoff.after(begun.elapsed(), false, &mut rng)).await;
                }
            }
            if issued.is_closed() {
                return;
            }
        };
        alarmed = None;
        tracing::info!(%id, life = ?new.life.left(SystemTime::now()), "identity issued");
        if let Some(file) = &file {
            file.write(&new).await;
        }
        if issued.send(new.clone()).await.is_err() {
            return;
        }
        current = Some(new);
    }
}

/// What is on disk, where it is of use.
fn restored(file: &IdentityFile, id: &SpiffeId) -> Option<Issued> {
    match file.read() {
        Ok(stored) => {
            let stored = stored?;
            match ends_at(&stored.chain, id) {
                Ok(_) if stored.life.left(SystemTime::now()) > Duration::ZERO => Some(stored),
                Ok(_) => {
                    tracing::warn!(%id, "the identity on disk has ended");
                    None
                }
                Err(reason) => {
                    tracing::warn!(%id, reason, "the identity on disk is ignored");
                    None
                }
            }
        }
        Err(error) => {
            tracing::warn!(%id, error = chain(&error), "the identity on disk is ignored");
            None
        }
    }
}

/// Says that nothing was issued: loudly when it becomes urgent.
fn tell(id: &SpiffeId, error: &SignError, life: Option<Life>, is_new_alarm: bool) {
    let error = chain(error);
    let left = life.map(|life| life.left(SystemTime::now()));
    match left {
        Some(Duration::ZERO) if is_new_alarm => tracing::error!(%id, error, "the identity has ended"),
        Some(left) if is_new_alarm => tracing::error!(%id, error, ?left, "the identity is not renewed"),
        None => tracing::warn!(%id, error, "no identity yet"),
        Some(left) => tracing::debug!(%id, error, ?left, "the identity is not renewed yet"),
    }
}

async fn sleep_until(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK_AT_CLOCK)).await;
    }
}

async fn sign(control_plane: &ControlPlane, id: &SpiffeId) -> Result<Issued, SignError> {
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let request = SignRequest { csr: request.der().to_vec(), identity: id.to_string() };
    let answer = tokio::time::timeout(SIGN_TIMEOUT, ask(control_plane, request)).await;
    let answer = answer.map_err(|_| SignError::TimedOut)??;
    let key = PrivateKey::Pkcs8(key.serialize_der().into());
    issued(answer, key, id).map_err(SignError::Unusable)
}

async fn ask(control_plane: &ControlPlane, request: SignRequest) -> Result<SignResponse, SignError> {
    let channel = transport::connect_any(control_plane).await.map_err(SignError::Unreachable)?;
    let call = transport::authorized(control_plane, request);
    let answer = IdentityClient::new(channel).sign(call).await;
    answer.map(tonic::Response::into_inner).map_err(|status| SignError::Refused(Box::new(status)))
}

fn issued(answer: SignResponse, key: PrivateKey, id: &SpiffeId) -> Result<Issued, String> {
    let of = |certificates: Vec<Vec<u8>>| certificates.into_iter().map(Vec::into_boxed_slice).collect();
    let chain = CertificateChain { chain: of(answer.chain), key };
    // Counted from now: the certificate begins a little earlier, for the sake of other machines' clocks.
    let life = Life { not_before: SystemTime::now(), not_after: ends_at(&chain, id)? };
    let bundle = TrustBundle { anchors: of(answer.bundle), ..TrustBundle::default() };
    if bundle.anchors.is_empty() {
        return Err("it names nobody to trust".to_owned());
    }
    Ok(Issued { chain: Arc::new(chain), bundle: Arc::new(bundle), life })
}

/// When a certificate ends, if it is for our key and the identity that was asked for.
fn ends_at(chain: &CertificateChain, id: &SpiffeId) -> Result<SystemTime, String> {
    translate::tls::certified_key(chain).map_err(|error| error.to_string())?;
    let leaf = chain.chain.first().ok_or("it is empty")?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| "it cannot be read")?;
    let peer = crate::tls::peer(leaf.as_raw()).map_err(|refused| refused.to_string())?;
    if peer.spiffe.as_ref() != Some(id) {
        return Err(format!("it is for {:?}", peer.uri_sans));
    }
    let seconds = leaf.validity().not_after.timestamp().try_into().unwrap_or_default();
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or_else(|| "it never ends".to_owned())
}

impl Issued {
    /// As resources that nobody else can replace.
    pub fn updates(self) -> [Update; 2] {
        let of = |name: &str, secret| {
            Update::Secret(Accepted {
                name: name.into(),
                version: "".into(),
                origin: Origin::Static,
                value: Arc::new(secret),
            })
        };
        [of(OWN_CERTIFICATE, Secret::Certificate(self.chain)), of(TRUST_BUNDLE, Secret::Trust(self.bundle))]
    }
}

#[cfg(test)]
mod tests;
