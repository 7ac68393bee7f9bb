//! An identity from its beginning to after its end, with a control plane that comes and goes.

use std::{
    io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use proto::control::identity_server::{Identity, IdentityServer};
use rcgen::{
    BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer, KeyUsagePurpose, SanType,
    string::Ia5String,
};
use tokio::{net::UnixListener, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::bootstrap::Place;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a certificate here is good for: its end is waited for, and a renewal must come before it on a busy machine.
const LIFE: Duration = Duration::from_secs(5);

const REFUSAL: &str = "no signature today";

/// Signs, or says that it does not.
#[derive(Clone)]
struct Signer {
    signs: Arc<AtomicBool>,
    authority: Arc<Issuer<'static, KeyPair>>,
    root: Vec<u8>,
}

impl Signer {
    fn start(socket: &Path) -> Signer {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().to_vec();
        let authority = Arc::new(Issuer::new(params, key));
        let signer = Signer { signs: Arc::new(AtomicBool::new(true)), authority, root };
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let service = IdentityServer::new(signer.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        signer
    }
}

#[tonic::async_trait]
impl Identity for Signer {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        if !self.signs.load(Relaxed) {
            return Err(Status::unavailable(REFUSAL));
        }
        let SignRequest { csr, identity } = request.into_inner();
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let now = SystemTime::now();
        request.params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity).unwrap())];
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.not_before = (now - LIFE).into();
        request.params.not_after = (now + LIFE).into();
        let leaf = request.signed_by(&self.authority).unwrap();
        Ok(Response::new(SignResponse {
            chain: vec![leaf.der().to_vec()],
            bundle: vec![self.root.clone()],
            not_after_unix_seconds: 0,
        }))
    }
}

/// Everything that is logged, debug lines as well. Every test here has one: `tracing` asks only the first thread that comes by
/// a line whether anybody wants it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Of the current thread, which is the only one that a test of tokio has.
    fn start() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn count(&self, what: &str) -> usize {
        self.text().matches(what).count()
    }

    async fn until(&self, what: &str) {
        let seen = async {
            while self.count(what) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{what} in\n{}", self.text()));
    }
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://mesh.local/ns/shop/sa/web").unwrap()
}

fn start(folder: &Path) -> (mpsc::Receiver<Issued>, JoinHandle<()>) {
    let control_plane = ControlPlane {
        cluster: "control".to_owned(),
        places: vec![Place::Unix(folder.join("xds.sock"))],
        authority: None,
        metadata: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        keep_alive_interval: Duration::from_secs(30),
        keep_alive_timeout: Duration::from_secs(10),
        tls: None,
    };
    let (sender, receiver) = mpsc::channel(1);
    let file = Some(IdentityFile::of(folder, &id()));
    (receiver, tokio::spawn(run(control_plane, id(), file, Rng::new(5), sender)))
}

async fn next(issued: &mut mpsc::Receiver<Issued>) -> Issued {
    timeout(PATIENCE, issued.recv()).await.unwrap().unwrap()
}

/// The key as somebody might print it.
fn canaries(issued: &Issued) -> [String; 4] {
    let PrivateKey::Pkcs8(key) = &issued.chain.key else { panic!("not as we make keys") };
    // What every key of this kind begins with says nothing of one; its secret number is the 32 bytes after that.
    let secret = &key[36..68];
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{:?}", &secret[..16]);
    let base64 = BASE64_STANDARD.encode(&key[36..66]);
    [hex.to_uppercase(), hex, list.trim_matches(['[', ']']).to_owned(), base64]
}

#[tokio::test]
async fn an_identity_is_renewed_outlives_its_control_plane_ends_loudly_and_comes_back() {
    let (log, _guard) = Log::start();
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::start(&folder.path().join("xds.sock"));
    let (mut issued, task) = start(folder.path());

    let first = next(&mut issued).await;
    let second = next(&mut issued).await;
    assert!(first.life.left(SystemTime::now()) > Duration::ZERO, "renewed before its end");
    assert_ne!(first.chain.key, second.chain.key, "a new certificate has a new key");

    signer.signs.store(false, Relaxed);
    log.until("the identity is not renewed").await;
    log.until("the identity has ended").await;
    assert!(second.life.left(SystemTime::now()).is_zero() && issued.try_recv().is_err());
    // What is on disk has ended as well, and is not used by the next process.
    let (mut other, other_task) = start(folder.path());
    log.until("the identity on disk has ended").await;
    log.until("no identity yet").await;
    assert!(other.try_recv().is_err());
    other_task.abort();

    signer.signs.store(true, Relaxed);
    let third = next(&mut issued).await;
    assert!(third.life.left(SystemTime::now()) > Duration::ZERO && !task.is_finished());
    assert_eq!(log.count("the identity has ended"), 1, "said once in\n{}", log.text());
    assert_eq!(log.count("identity issued"), 3, "in\n{}", log.text());
    assert!(log.count(REFUSAL) > 1, "each attempt says why in\n{}", log.text());
    for issued in [first, second, third] {
        for canary in canaries(&issued) {
            assert!(!log.text().contains(&canary), "a key is never logged");
            assert!(!format!("{issued:?} {issued:#?}").contains(&canary), "nor shown");
        }
    }
    drop(issued);
    task.abort();
}

#[tokio::test]
async fn a_proxy_starts_with_what_it_had_while_the_control_plane_is_away() {
    let (log, _guard) = Log::start();
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::start(&folder.path().join("xds.sock"));
    let (mut issued, task) = start(folder.path());
    let had = next(&mut issued).await;
    signer.signs.store(false, Relaxed);
    task.abort();
    let (mut issued, task) = start(folder.path());
    let has = next(&mut issued).await;
    assert_eq!((has.chain, has.bundle), (had.chain, had.bundle));
    task.abort();
    assert_eq!(log.count("identity issued"), 1, "in\n{}", log.text());

    // Somebody else's is none of ours, wherever it lies.
    let other = SpiffeId::parse("spiffe://mesh.local/ns/shop/sa/pay").unwrap();
    assert!(restored(&IdentityFile::of(folder.path(), &id()), &id()).is_some());
    assert!(restored(&IdentityFile::of(folder.path(), &id()), &other).is_none());
}
