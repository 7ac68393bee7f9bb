//! Whom anything is served to, and for whom they may speak.
//!
//! On TCP nobody is believed without a certificate, not even on loopback: whoever can make a proxy connect to an address would be
//! taken for the user that the proxy runs as.

use std::sync::Arc;

use policy::peer::SpiffeId;
use tonic::service::Interceptor;
use tonic::{Code, Extensions, Request, Status};

use crate::store::{Store, Token};
use crate::transport::OtherEnd;

/// What proves who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A process of this machine, of this user.
    User(u32),
    /// A machine that has joined the mesh.
    Host(Arc<str>),
    /// Whoever was given this.
    Token(Token),
}

/// Why nobody knows who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unproved {
    /// There is a token, and it is none of ours by its form.
    #[error("what it brought is no token")]
    Token,
    /// There is nothing.
    #[error("it has shown neither a certificate nor a token")]
    Nothing,
    /// The kernel does not know.
    #[error("the kernel does not say whose process it is")]
    Nobody,
}

impl Caller {
    /// Of a call. A token that is shown is what counts, whoever shows it.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Caller, Unproved> {
        match request.metadata().get("authorization") {
            None => Caller::connected(request.extensions()),
            Some(value) => {
                let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
                token.and_then(Token::parse).map(Caller::Token).ok_or(Unproved::Token)
            }
        }
    }

    /// Of the connection alone.
    fn connected(connection: &Extensions) -> Result<Caller, Unproved> {
        match connection.get::<OtherEnd>() {
            Some(OtherEnd::User(Some(uid))) => Ok(Caller::User(*uid)),
            Some(OtherEnd::Host(name)) => Ok(Caller::Host(Arc::clone(name))),
            Some(OtherEnd::Stranger) => Err(Unproved::Nothing),
            Some(OtherEnd::User(None)) | None => Err(Unproved::Nobody),
        }
    }
}

/// Users of this machine who may ask for everything and be anybody of the mesh: they could take the authority's key as well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Users {
    ours: u32,
}

impl Users {
    /// Root, and the user of this process.
    pub(crate) fn ours() -> Users {
        Users { ours: rustix::process::geteuid().as_raw() }
    }

    #[cfg(test)]
    pub(crate) fn of(ours: u32) -> Users {
        Users { ours }
    }

    /// Whether `uid` is one of them.
    pub(crate) fn may_be_anybody(self, uid: u32) -> bool {
        uid == 0 || uid == self.ours
    }

    /// Why somebody else is refused.
    pub(crate) fn refusal(self, uid: u32) -> String {
        let ours = self.ours;
        format!("user {uid} is not served; only root and the user who runs this (user {ours}) are")
    }
}

/// For whom a caller may speak: what a service is told of each call that it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SpeaksFor {
    /// The whole mesh.
    Everybody,
    /// Workloads of one host.
    Host {
        /// Its name.
        name: Arc<str>,
        /// Who may run there.
        allowed: Arc<[SpiffeId]>,
    },
}

impl SpeaksFor {
    /// What [`Callers`] found out of a call. It is on every call that they let pass.
    pub(crate) fn of(extensions: &Extensions) -> Result<SpeaksFor, Status> {
        let found = extensions.get().cloned();
        found.ok_or_else(|| Status::internal("nobody found out who calls"))
    }

    /// Refuses whoever may not speak for the workload `identity`.
    pub(crate) fn check(&self, identity: &str) -> Result<(), NotAllowed> {
        match self {
            Self::Everybody => Ok(()),
            Self::Host { allowed, .. } if allowed.iter().any(|of| of.as_str() == identity) => Ok(()),
            Self::Host { name, .. } => {
                Err(NotAllowed { host: Arc::clone(name), identity: identity.to_owned() })
            }
        }
    }
}

/// A workload may not run where it does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{identity} may not run on host {host}; a token with --allow for it, spent there, says otherwise")]
pub(crate) struct NotAllowed {
    host: Arc<str>,
    identity: String,
}

/// Refuses calls of those who are nobody here before a service sees them, and says of the others for whom they may speak.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    users: Users,
    store: Arc<Store>,
}

impl Callers {
    /// Hosts may speak for whom `store` says.
    pub(crate) fn new(users: Users, store: Arc<Store>) -> Callers {
        Callers { users, store }
    }

    fn speaks_for(&self, connection: &Extensions) -> Result<SpeaksFor, (Code, String)> {
        match Caller::connected(connection) {
            Ok(Caller::User(uid)) if self.users.may_be_anybody(uid) => Ok(SpeaksFor::Everybody),
            Ok(Caller::User(uid)) => Err((Code::PermissionDenied, self.users.refusal(uid))),
            Ok(Caller::Host(name)) => match self.store.grant_of_host(&name) {
                Ok(grant) => {
                    let allowed = grant.map(|grant| grant.allowed).unwrap_or_default().into();
                    Ok(SpeaksFor::Host { name, allowed })
                }
                Err(error) => Err((Code::Unavailable, format!("who may run there is not known: {error}"))),
            },
            Ok(Caller::Token(_)) => Err((Code::Unauthenticated, "a token buys an identity only".to_owned())),
            Err(unproved) => Err((Code::Unauthenticated, format!("who asks is not proved: {unproved}"))),
        }
    }
}

impl Interceptor for Callers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match self.speaks_for(request.extensions()) {
            Ok(speaks_for) => {
                request.extensions_mut().insert(speaks_for);
                Ok(request)
            }
            Err((code, reason)) => {
                tracing::warn!(reason, "a call is refused");
                Err(Status::new(code, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::store::{Grant, Issue};

    fn call_of(other_end: Option<OtherEnd>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(other_end) = other_end {
            request.extensions_mut().insert(other_end);
        }
        request
    }

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    /// A host that may run shop/web.
    fn store(folder: &std::path::Path) -> Arc<Store> {
        let store = Store::open(folder).unwrap();
        let (token, now) = (Token::new().unwrap(), SystemTime::now());
        let allowed = vec![id("spiffe://mesh.local/ns/shop/sa/web")];
        store
            .add_token(&token, &Grant { host: "vm1".into(), allowed }, now, now + Duration::from_secs(9))
            .unwrap();
        let issue = Issue {
            serial: vec![1],
            identity: "spiffe://mesh.local/host/vm1".into(),
            not_before: now,
            not_after: now,
            issued_at: now,
            issued_to: String::new(),
        };
        assert!(store.add_issue(&issue, Some(&token)).unwrap());
        store.into()
    }

    #[test]
    fn a_call_is_served_to_its_users_and_to_hosts_for_their_workloads() {
        let folder = tempfile::tempdir().unwrap();
        let callers = Callers::new(Users::of(1000), store(folder.path()));
        let told = |other_end| {
            let mut callers = callers.clone();
            callers.call(call_of(other_end)).map(|call| SpeaksFor::of(call.extensions()).unwrap())
        };
        let host = |name: &str| Some(OtherEnd::Host(name.into()));
        for uid in [0, 1000] {
            assert_eq!(told(Some(OtherEnd::User(Some(uid)))).unwrap(), SpeaksFor::Everybody);
        }
        let refused = [
            (Some(OtherEnd::User(Some(1001))), Code::PermissionDenied),
            (Some(OtherEnd::User(None)), Code::Unauthenticated),
            (Some(OtherEnd::Stranger), Code::Unauthenticated),
            (None, Code::Unauthenticated),
        ];
        for (other_end, code) in refused {
            assert_eq!(told(other_end.clone()).unwrap_err().code(), code, "{other_end:?}");
        }
        let vm1 = told(host("vm1")).unwrap();
        assert_eq!(vm1.check("spiffe://mesh.local/ns/shop/sa/web"), Ok(()));
        for other in ["spiffe://mesh.local/ns/shop/sa/webs", "spiffe://mesh.local/host/vm1", ""] {
            assert!(vm1.check(other).is_err(), "{other}");
        }
        let unknown = told(host("vm2")).unwrap();
        assert!(unknown.check("spiffe://mesh.local/ns/shop/sa/web").is_err());
        assert!(SpeaksFor::of(call_of(host("vm1")).extensions()).is_err(), "nobody asked");
    }

    #[test]
    fn the_connection_says_who_calls_and_a_token_counts_before_that() {
        let token = Token::new().unwrap();
        let ours = || call_of(Some(OtherEnd::User(Some(7))));
        let with = |value: &[u8], mut request: Request<()>| {
            let value = tonic::metadata::MetadataValue::try_from(value).unwrap();
            request.metadata_mut().insert("authorization", value);
            Caller::of(&request)
        };
        let good = format!("Bearer {}", token.reveal());
        for other_end in [OtherEnd::User(Some(7)), OtherEnd::Stranger, OtherEnd::Host("vm1".into())] {
            assert_eq!(with(good.as_bytes(), call_of(Some(other_end))), Ok(Caller::Token(token.clone())));
        }
        for wrong in [&b"Bearer x"[..], token.reveal().as_bytes(), b"Basic eA==", b"", b"Bearer \xff"] {
            assert_eq!(with(wrong, ours()), Err(Unproved::Token), "{wrong:?}");
        }
        assert_eq!(Caller::of(&ours()), Ok(Caller::User(7)));
        assert_eq!(Caller::of(&call_of(Some(OtherEnd::Host("vm1".into())))), Ok(Caller::Host("vm1".into())));
        assert_eq!(Caller::of(&call_of(Some(OtherEnd::Stranger))), Err(Unproved::Nothing));
        assert_eq!(Caller::of(&call_of(None)), Err(Unproved::Nobody));
    }
}
