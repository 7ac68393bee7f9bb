//! Both ends of a connection between machines: who is let in as whom, and who is taken for the control plane.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use policy::peer::SpiffeId;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::Connected as _;

use super::tls::{Connector, Trust};
use super::token::RootHash;
use crate::ca::{AuthoritySource, CurrentAuthority, SVID_LIFE_DEFAULT, SVID_LIFE_MIN};
use crate::metrics::Metrics;
use crate::transport::{self, Connection, OtherEnd, TlsIdentity};

const VM1: &str = "spiffe://mesh.local/host/vm1";

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn authority(folder: &Path, svid_life: Duration) -> Arc<CurrentAuthority> {
    let (data_dir, trust_domain) = (folder.to_owned(), "mesh.local".to_owned());
    CurrentAuthority::open(AuthoritySource { given: None, data_dir, trust_domain, svid_life }).unwrap().into()
}

/// A certificate that was made at `when`, and its key.
fn own(authority: &CurrentAuthority, id: &str, when: SystemTime) -> Own {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let signed = authority.get().sign(request.der(), &SpiffeId::parse(id).unwrap(), when).unwrap();
    let chain = signed.chain.into_iter().map(CertificateDer::from).collect();
    (chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

fn bundle(authority: &CurrentAuthority, trust_domain: &str) -> Trust {
    let mut roots = RootCertStore::empty();
    for root in authority.get().bundle() {
        roots.add(root.into()).unwrap();
    }
    Trust::Bundle { roots: roots.into(), trust_domain: trust_domain.to_owned() }
}

/// A control plane that takes connections and does nothing with them.
struct Plane {
    address: Arc<str>,
    metrics: Arc<Metrics>,
    connections: mpsc::Receiver<std::io::Result<Connection>>,
}

async fn plane(authority: &Arc<CurrentAuthority>) -> Plane {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().into();
    let identity = TlsIdentity::new(authority.clone(), SystemTime::now()).unwrap();
    let metrics = Arc::new(Metrics::default());
    let (sender, connections) = mpsc::channel(1);
    tokio::spawn(transport::accept(listener, identity.into(), metrics.clone(), sender));
    Plane { address, metrics, connections }
}

impl Plane {
    /// As whom the control plane takes somebody who trusts it; `None` if it is not taken.
    async fn takes(&mut self, trust: Trust, own: Option<Own>) -> Option<OtherEnd> {
        let connector = Connector::new(self.address.clone(), trust, own).unwrap();
        let mut stream = connector.connect().await.ok()?;
        let _ = stream.write_all(b"x").await;
        tokio::select! {
            taken = self.connections.recv() => Some(taken.unwrap().unwrap().connect_info()),
            // A client of TLS 1.3 hears only after its handshake that it is refused.
            refused = stream.read_u8() => {
                refused.unwrap_err();
                None
            }
        }
    }
}

#[tokio::test]
async fn hosts_of_the_mesh_are_let_in_as_what_they_are_and_nobody_else_as_anybody() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, others) =
        (authority(folder.path(), SVID_LIFE_DEFAULT), authority(other.path(), SVID_LIFE_DEFAULT));
    let mut plane = plane(&ours).await;
    let trust = || bundle(&ours, "mesh.local");
    let now = SystemTime::now();
    assert_eq!(plane.takes(trust(), None).await, Some(OtherEnd::Stranger));
    assert_eq!(plane.takes(trust(), Some(own(&ours, VM1, now))).await, Some(OtherEnd::Host("vm1".into())));
    let ended = now - SVID_LIFE_DEFAULT - Duration::from_secs(120);
    let refused = [
        own(&ours, "spiffe://mesh.local/ns/shop/sa/web", now),
        own(&ours, "spiffe://mesh.local/control-plane", now),
        own(&ours, "spiffe://mesh.local/hosts/vm1", now),
        own(&others, VM1, now),
        own(&ours, VM1, ended),
    ];
    let count = refused.len() as u64;
    for (row, own) in refused.into_iter().enumerate() {
        assert_eq!(plane.takes(trust(), Some(own)).await, None, "row {row}");
    }
    assert_eq!(plane.metrics.handshakes_refused.load(Relaxed), count);
}

#[tokio::test]
async fn only_the_control_plane_of_the_mesh_is_taken_for_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, others) =
        (authority(folder.path(), SVID_LIFE_DEFAULT), authority(other.path(), SVID_LIFE_DEFAULT));
    let mut plane = plane(&ours).await;
    let root = |of: &CurrentAuthority| Trust::Root(RootHash::of(&of.get().bundle()[0]));
    assert!(plane.takes(root(&ours), None).await.is_some());
    assert_eq!(plane.takes(root(&others), None).await, None, "another root");
    assert_eq!(plane.takes(bundle(&others, "mesh.local"), None).await, None, "other roots");
    assert_eq!(plane.takes(bundle(&ours, "mesh.other"), None).await, None, "another trust domain");

    // A host that says that it is the control plane.
    let (chain, key) = own(&ours, VM1, SystemTime::now());
    let config = ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
    let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
    let shown = chain.into_iter().chain(ours.get().bundle().into_iter().map(CertificateDer::from)).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.with_single_cert(shown, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Arc<str> = listener.local_addr().unwrap().to_string().into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    for trust in [root(&ours), bundle(&ours, "mesh.local")] {
        let connector = Connector::new(address.clone(), trust, None).unwrap();
        let error = connector.connect().await.unwrap_err().to_string();
        assert!(
            error.contains("spiffe://mesh.local/host/vm1 is not the control plane of this mesh"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_that_it_was_made_with() {
    let folder = tempfile::tempdir().unwrap();
    let ours = authority(folder.path(), SVID_LIFE_MIN);
    let mut plane = plane(&ours).await;
    let nearly_over = SystemTime::now() - (SVID_LIFE_MIN - Duration::from_secs(2));
    let own = own(&ours, VM1, nearly_over);
    let connector = Connector::new(plane.address.clone(), bundle(&ours, "mesh.local"), Some(own)).unwrap();
    let _stream = connector.connect().await.unwrap();
    let mut taken = plane.connections.recv().await.unwrap().unwrap();
    assert_eq!(taken.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}
