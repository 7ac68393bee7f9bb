//! Who is at the other end of a connection, and whom of them anything is served to.
//!
//! Only the unix socket is listened on, so the kernel says who it is (unix(7), `SO_PEERCRED`). TCP proves nobody, not even on
//! loopback: whoever can make a proxy connect to an address would be taken for the user that the proxy runs as.

use tonic::service::Interceptor;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Extensions, Request, Status};

use crate::store::Token;

/// What proves who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A process of this machine, of this user.
    User(u32),
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
    #[error("the kernel does not say whose process it is")]
    Nobody,
}

impl Caller {
    /// Of a call. A token that is shown is what counts, whoever shows it.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Caller, Unproved> {
        match request.metadata().get("authorization") {
            None => user(request.extensions()).map(Caller::User),
            Some(value) => {
                let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
                token.and_then(Token::parse).map(Caller::Token).ok_or(Unproved::Token)
            }
        }
    }
}

fn user(connection: &Extensions) -> Result<u32, Unproved> {
    let credentials = connection.get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    credentials.map(|of| of.uid()).ok_or(Unproved::Nobody)
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
}

/// Refuses a call of everybody else before its service sees it.
impl Interceptor for Users {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let refused = match user(request.extensions()) {
            Ok(uid) if self.may_be_anybody(uid) => return Ok(request),
            Ok(uid) => (
                Code::PermissionDenied,
                format!(
                    "user {uid} is not served; only root and the user who runs the control plane (user {}) are",
                    self.ours
                ),
            ),
            Err(unproved) => (Code::Unauthenticated, format!("who asks is not proved: {unproved}")),
        };
        tracing::warn!(refused = refused.1, "a call is refused");
        Err(Status::new(refused.0, refused.1))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use tonic::transport::server::Connected as _;

    use super::*;

    /// A call over a unix socket, whose other end is this process.
    async fn call_of_ours() -> Request<()> {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut request = Request::new(());
        request.extensions_mut().insert(ours.connect_info());
        request
    }

    #[tokio::test]
    async fn a_service_is_called_by_its_user_and_root_only() {
        let uid = rustix::process::getuid().as_raw();
        assert!(Users::of(uid).call(call_of_ours().await).is_ok());
        let somebody_elses = Users::of(uid + 1).call(call_of_ours().await);
        match uid {
            0 => assert!(somebody_elses.is_ok(), "root may be anybody"),
            _ => assert_eq!(somebody_elses.unwrap_err().code(), Code::PermissionDenied),
        }
        let unproved = Users::of(uid).call(Request::new(())).unwrap_err();
        assert_eq!(unproved.code(), Code::Unauthenticated);
    }

    #[tokio::test]
    async fn the_kernel_says_who_calls_and_a_token_counts_before_that() {
        let token = Token::new().unwrap();
        let with = |value: &[u8], mut request: Request<()>| {
            let value = tonic::metadata::MetadataValue::try_from(value).unwrap();
            request.metadata_mut().insert("authorization", value);
            Caller::of(&request)
        };
        let good = format!("Bearer {}", token.reveal());
        assert_eq!(with(good.as_bytes(), call_of_ours().await), Ok(Caller::Token(token.clone())));
        for wrong in [&b"Bearer x"[..], token.reveal().as_bytes(), b"Basic eA==", b"", b"Bearer \xff"] {
            assert_eq!(with(wrong, call_of_ours().await), Err(Unproved::Token), "{wrong:?}");
        }
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(Caller::of(&call_of_ours().await), Ok(Caller::User(uid)));
        assert_eq!(Caller::of(&Request::new(())), Err(Unproved::Nobody));
    }
}
