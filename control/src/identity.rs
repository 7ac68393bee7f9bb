//! `ringway.control.v1.Identity`: signs what proxies ask for.
//!
//! Who reaches this is believed to be whom it asks to be, as for everything else that is served here: loopback and unix sockets
//! only, so it is somebody on this machine. The identities of another trust domain are nobody's here.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use policy::peer::SpiffeId;
use proto::control::identity_server::Identity;
use proto::control::{SignRequest, SignResponse};
use tonic::{Request, Response, Status};

use crate::ca::{Authority, SignError};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct IdentityService(Arc<Authority>);

impl IdentityService {
    /// Signs with `authority`.
    pub(crate) fn new(authority: Arc<Authority>) -> Self {
        Self(authority)
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let SignRequest { csr, identity } = request.into_inner();
        let signed = sign(&self.0, &csr, &identity, SystemTime::now());
        if let Err(status) = &signed {
            // Whoever asks may ask for anything: it is shown with what would end the line escaped.
            tracing::warn!(?identity, reason = status.message(), "not signed");
        }
        signed.map(Response::new)
    }
}

fn sign(authority: &Authority, csr: &[u8], identity: &str, now: SystemTime) -> Result<SignResponse, Status> {
    let id = SpiffeId::parse(identity).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let signed = authority.sign(csr, &id, now).map_err(|error| match error {
        SignError::Request(_) => Status::invalid_argument(error.to_string()),
        SignError::TrustDomain { .. } => Status::permission_denied(error.to_string()),
        SignError::Sign(_) => Status::internal(error.to_string()),
    })?;
    let not_after = signed.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    tracing::info!(%id, not_after, "identity issued");
    Ok(SignResponse {
        chain: signed.chain,
        bundle: authority.bundle(),
        not_after_unix_seconds: i64::try_from(not_after).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tonic::Code;

    use crate::ca::SVID_LIFE_DEFAULT;

    use super::*;

    #[test]
    fn only_what_is_ours_to_give_is_given_and_a_refusal_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), "mesh.local", SVID_LIFE_DEFAULT).unwrap();
        let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let asked = |csr: &[u8], identity: &str| sign(&authority, csr, identity, SystemTime::now());
        let signed = asked(request.der(), "spiffe://mesh.local/ns/shop/sa/web").unwrap();
        assert_eq!((signed.chain.len(), signed.bundle), (2, authority.bundle()));
        for (csr, identity, code, said) in [
            (&request.der()[..], "web", Code::InvalidArgument, "a SPIFFE ID begins with `spiffe://`"),
            (&request.der()[..], "spiffe://other/a", Code::PermissionDenied, "is not of the trust domain"),
            (b"x", "spiffe://mesh.local/a", Code::InvalidArgument, "the certificate request cannot be used"),
        ] {
            let status = asked(csr, identity).unwrap_err();
            assert_eq!(status.code(), code, "{identity}");
            assert!(status.message().contains(said), "{}", status.message());
        }
    }
}
