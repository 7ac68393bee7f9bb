//! Identities over the wire: who is signed for on which way in, and that no secret is shown but once.

mod support;

use std::path::Path;

use proto::control::identity_client::IdentityClient;
use proto::control::{SignRequest, SignResponse};
use rcgen::{CertificateParams, KeyPair};
use support::{Plane, channel};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const WEB: &str = "spiffe://mesh.local/ns/shop/sa/web";

async fn sign(channel: Channel, identity: &str, token: Option<&str>) -> Result<SignResponse, Status> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let mut request = Request::new(SignRequest { csr, identity: identity.into() });
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    IdentityClient::new(channel).sign(request).await.map(tonic::Response::into_inner)
}

async fn over_socket(path: &Path) -> Channel {
    let uri = format!("unix:{}", path.display());
    tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn the_user_who_runs_the_control_plane_may_be_anybody_on_either_way_in() {
    let plane = Plane::start(&[]).await;
    let socket = plane.dir.path().join("data/control.sock");
    for channel in [channel(plane.address()).await, over_socket(&socket).await] {
        let signed = sign(channel.clone(), WEB, None).await.unwrap();
        assert_eq!((signed.chain.len(), signed.bundle.len()), (2, 1));
        let wrong = "ringway-token-".to_owned() + &"0".repeat(64);
        let refused = sign(channel, WEB, Some(&wrong)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "a token counts before the user does");
    }
    plane.server.stop().await;
    assert!(!socket.exists());
}
