//! `ringway.control.v1.Identity`: signs what proxies and hosts ask for, if they may be that.
//!
//! Who asks is what is proved, by the kernel, by a host's certificate or by its token. Everybody else is refused, and every refusal is one line and
//! one count. What was issued is in the store before it is given out.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use policy::peer::SpiffeId;
use proto::control::identity_server::Identity;
use proto::control::{SignRequest, SignResponse};
use tonic::{Code, Request, Response, Status};

use crate::ca::{CurrentAuthority, SignError, Signed};
use crate::caller::{Caller, NotAllowed, SpeaksFor, Unproved, Users};
use crate::metrics::Metrics;
use crate::store::{Grant, Issue, Store, StoreError, Token};
use crate::svid;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct IdentityService {
    authority: Arc<CurrentAuthority>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    users: Users,
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// What is asked for is no identity.
    #[error("{0}")]
    Identity(#[from] policy::peer::NotSpiffe),
    /// The request cannot be used, or asks for what nobody is given.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Nobody knows who asks.
    #[error("who asks is not proved: {0}")]
    Unproved(#[from] Unproved),
    /// The token is none, or none any more.
    #[error("the token is unknown, spent or expired; `ringway token` makes another")]
    Token,
    /// A user who may be nobody.
    #[error("{0}")]
    User(String),
    /// A host asks for what may not run there.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// A token is for one host.
    #[error("this token is for the identity of host {host}, not for {id}")]
    OtherHost {
        /// The host.
        host: String,
        /// What is asked for.
        id: SpiffeId,
    },
    /// Nothing is given out that is not kept.
    #[error("what is issued cannot be kept")]
    Store(#[from] StoreError),
}

impl Refused {
    /// Every [`Self::label`].
    pub(crate) const LABELS: [&str; 6] =
        ["request", "trust_domain", "unproved", "token", "not_allowed", "internal"];

    /// What it is counted as.
    fn label(&self) -> usize {
        match self {
            Refused::Identity(_) | Refused::Sign(SignError::Request(_)) => 0,
            Refused::Sign(SignError::TrustDomain { .. }) => 1,
            Refused::Unproved(_) => 2,
            Refused::Token => 3,
            Refused::User(_) | Refused::NotAllowed(_) | Refused::OtherHost { .. } => 4,
            Refused::Sign(SignError::Sign(_) | SignError::Ended) | Refused::Store(_) => 5,
        }
    }

    fn code(&self) -> Code {
        match self {
            Refused::Identity(_) | Refused::Sign(SignError::Request(_)) => Code::InvalidArgument,
            Refused::Unproved(_) | Refused::Token => Code::Unauthenticated,
            Refused::Sign(SignError::TrustDomain { .. })
            | Refused::User(_)
            | Refused::NotAllowed(_)
            | Refused::OtherHost { .. } => Code::PermissionDenied,
            // Not the fault of who asks, and it may be better a moment later.
            Refused::Sign(SignError::Sign(_) | SignError::Ended) | Refused::Store(_) => Code::Unavailable,
        }
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let caller = Caller::of(&request);
        let SignRequest { csr, identity } = request.into_inner();
        let service = self.clone();
        // A key's signature and a disk: nobody else on this thread waits for them.
        let answer = tokio::task::spawn_blocking(move || service.answer(caller, &csr, &identity)).await;
        answer.map_err(|_| Status::internal("signing ended"))?.map(Response::new)
    }
}

impl IdentityService {
    /// Signs with `authority`, and keeps what it signed in `store`.
    pub(crate) fn new(authority: Arc<CurrentAuthority>, store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Self { authority, store, metrics, users: Users::ours() }
    }

    fn answer(
        &self,
        caller: Result<Caller, Unproved>,
        csr: &[u8],
        identity: &str,
    ) -> Result<SignResponse, Status> {
        let caller = caller.map_err(Refused::Unproved);
        let issued = caller.and_then(|caller| self.issue(&caller, csr, identity, SystemTime::now()));
        issued.map_err(|refused| {
            self.metrics.identities_refused[refused.label()].fetch_add(1, Relaxed);
            let reason = Refused::LABELS[refused.label()];
            // Whoever asks may ask for anything: it is shown with what would end the line escaped.
            match std::error::Error::source(&refused) {
                Some(source) => tracing::warn!(?identity, reason, %refused, %source, "not signed"),
                None => tracing::warn!(?identity, reason, %refused, "not signed"),
            }
            Status::new(refused.code(), refused.to_string())
        })
    }

    /// Who may ask is found out first: a stranger learns nothing of what would be signed.
    fn issue(
        &self,
        caller: &Caller,
        csr: &[u8],
        identity: &str,
        now: SystemTime,
    ) -> Result<SignResponse, Refused> {
        let authority = self.authority.get();
        let (id, issued_to) = match caller {
            Caller::User(uid) => {
                if !self.users.may_be_anybody(*uid) {
                    return Err(Refused::User(self.users.refusal(*uid)));
                }
                (SpiffeId::parse(identity)?, format!("user {uid}"))
            }
            Caller::Host(name) => {
                let id = SpiffeId::parse(identity)?;
                // Its own it renews.
                if id != svid::host(authority.trust_domain(), name)? {
                    let allowed =
                        self.store.grant_of_host(name)?.map(|grant| grant.allowed).unwrap_or_default();
                    SpeaksFor::Host { name: Arc::clone(name), allowed: allowed.into() }.check(id.as_str())?;
                }
                (id, format!("host {name}"))
            }
            Caller::Token(token) => {
                let Grant { host, .. } = self.store.look_at_token(token, now)?.ok_or(Refused::Token)?;
                let own = svid::host(authority.trust_domain(), &host)?;
                // Who has a token need not know what it is for.
                let id = if identity.is_empty() { own.clone() } else { SpiffeId::parse(identity)? };
                if id != own {
                    return Err(Refused::OtherHost { host, id });
                }
                (id, format!("token of host {host}"))
            }
        };
        let signed = authority.sign(csr, &id, now)?;
        let token = match caller {
            Caller::Token(token) => Some(token),
            Caller::User(_) | Caller::Host(_) => None,
        };
        self.keep(&id, &signed, issued_to, token, now)?;
        let not_after = signed.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(SignResponse {
            chain: signed.chain,
            bundle: authority.bundle(),
            not_after_unix_seconds: i64::try_from(not_after).unwrap_or(i64::MAX),
        })
    }

    fn keep(
        &self,
        id: &SpiffeId,
        signed: &Signed,
        issued_to: String,
        token: Option<&Token>,
        now: SystemTime,
    ) -> Result<(), Refused> {
        let issue = Issue {
            serial: signed.serial.to_vec(),
            identity: id.to_string(),
            not_before: signed.not_before,
            not_after: signed.not_after,
            issued_at: now,
            issued_to,
        };
        if !self.store.add_issue(&issue, token)? {
            return Err(Refused::Token);
        }
        self.metrics.identities_issued.fetch_add(1, Relaxed);
        let life = signed.not_after.duration_since(now).unwrap_or_default();
        tracing::info!(%id, to = issue.issued_to, ?life, "identity issued");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
