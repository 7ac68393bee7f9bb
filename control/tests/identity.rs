//! Identities over the wire: who is signed for on which way in, and that no secret is shown but once.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use hyper_util::rt::TokioIo;
use proto::ads::client::AggregatedDiscoveryServiceClient;
use proto::control::identity_client::IdentityClient;
use proto::control::proxy_client::ProxyClient;
use proto::control::registry_client::RegistryClient;
use proto::control::{RegisterRequest, SignRequest, SignResponse};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use support::{Plane, channel};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tower::service_fn;

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

#[tokio::test]
async fn the_user_who_runs_the_control_plane_may_be_anybody() {
    let plane = Plane::start(&[]).await;
    let channel = channel(plane.socket()).await;
    let signed = sign(channel.clone(), WEB, None).await.unwrap();
    assert_eq!((signed.chain.len(), signed.bundle.len()), (2, 1));
    let wrong = "ringway-token-".to_owned() + &"0".repeat(64);
    let refused = sign(channel, WEB, Some(&wrong)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "a token counts before the user does");
}

/// What another user of this machine connects to: the thread that does is that user, by which the kernel judges.
fn as_nobody<T: Send>(connect: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let nobody = Uid::from_raw(65534);
    let connect = || {
        set_thread_res_uid(nobody, nobody, nobody)?;
        connect()
    };
    std::thread::scope(|scope| scope.spawn(connect).join().unwrap())
}

/// gRPC over a connection that is open already.
async fn over<T>(connection: T) -> Channel
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = Some(TokioIo::new(connection));
    let connector = service_fn(move |_: Uri| {
        let taken = connection.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(taken)
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn another_user_of_the_machine_is_served_nothing() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let plane = Plane::start(&[]).await;
    let socket = plane.socket();
    // However carelessly the way to the socket is left open.
    for (path, mode) in [(plane.dir.path(), 0o755), (socket, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let unix = as_nobody(|| std::os::unix::net::UnixStream::connect(socket)).unwrap();
    unix.set_nonblocking(true).unwrap();
    let nobody = over(tokio::net::UnixStream::from_std(unix).unwrap()).await;

    let refused = sign(nobody.clone(), WEB, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().starts_with("user 65534 is not served"), "{}", refused.message());
    let nothing = tokio_stream::empty::<RegisterRequest>;
    let refused = [
        RegistryClient::new(nobody.clone()).register(nothing()).await.map(drop),
        ProxyClient::new(nobody.clone()).report(tokio_stream::empty()).await.map(drop),
        AggregatedDiscoveryServiceClient::new(nobody)
            .delta_aggregated_resources(tokio_stream::empty())
            .await
            .map(drop),
    ];
    for status in refused.map(Result::unwrap_err) {
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().starts_with("user 65534 is not served"), "{}", status.message());
    }
    // It has not become anybody for those who ask after it.
    sign(channel(socket).await, WEB, None).await.unwrap();
}

fn ringway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    for variable in ["RINGWAY_API", "RINGWAY_SOCKET", "RINGWAY_DATA_DIR", "RINGWAY_TRUST_DOMAIN"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a command that must succeed prints.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `ringway serve`, ended when dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_token_buys_one_host_its_identity_once_and_no_secret_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (config, data, log) =
        (folder.path().join("mesh"), folder.path().join("data"), folder.path().join("log"));
    std::fs::create_dir(&config).unwrap();
    let mut serve = ringway(&["serve", "--api", "127.0.0.1:0", "--log", "debug"]);
    serve.arg("--config").arg(&config).arg("--data-dir").arg(&data).stdout(Stdio::null());
    let mut serving = Serving(serve.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    let (begun, socket) = (Instant::now(), data.join("control.sock"));
    while !socket.exists() {
        assert!(begun.elapsed() < PATIENCE && serving.0.try_wait().unwrap().is_none(), "it does not serve");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut make = ringway(&["token", "--host", "vm1", "--allow", "shop/web,shop/pay"]);
    let token = printed(make.arg("--data-dir").arg(&data)).trim().to_owned();
    // The root beside it is for whoever comes over TLS.
    let (token, _) = token.split_once('.').unwrap();
    let vm1 = "spiffe://mesh.local/host/vm1";
    let asked = async |identity| sign(channel(&socket).await, identity, Some(token)).await;
    assert_eq!(asked(WEB).await.unwrap_err().code(), Code::PermissionDenied);
    let signed = asked(vm1).await.unwrap();
    assert_eq!(signed.chain.len(), 2);
    assert_eq!(asked(vm1).await.unwrap_err().code(), Code::Unauthenticated);
    let secret = token.strip_prefix("ringway-token-").unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    for part in ["identity issued", "token of host vm1", "not_allowed", "not signed"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let mut keys: Vec<String> = vec![secret.to_owned(), "PRIVATE".to_owned()];
    for name in ["root.key", "intermediate.key"] {
        let pem = std::fs::read_to_string(data.join("ca").join(name)).unwrap();
        keys.extend(pem.lines().filter(|line| !line.starts_with("---")).map(str::to_owned));
    }
    assert!(keys.iter().all(|key| !said.contains(key)), "a secret is in {said}");
}

#[tokio::test]
async fn every_certificate_that_is_good_is_listed() {
    let plane = Plane::start(&[]).await;
    let url = plane.api_url();
    let listed = async |more: &'static [&'static str]| {
        let mut command = ringway(&["id", "certs", "--api", &url]);
        command.args(more);
        tokio::task::spawn_blocking(move || printed(&mut command)).await.unwrap()
    };
    assert_eq!(listed(&[]).await, "no certificate is good now\n");
    for identity in [WEB, WEB, "spiffe://mesh.local/ns/shop/sa/pay"] {
        sign(channel(plane.socket()).await, identity, None).await.unwrap();
    }
    let table = listed(&[]).await;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("IDENTITY "), "{table}");
    assert!(lines[1].starts_with("spiffe://mesh.local/ns/shop/sa/pay  "), "{table}");
    assert!(
        lines[3].starts_with(WEB) && lines[3].contains(" 23 h ") && lines[3].contains("  user "),
        "{table}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&listed(&["-o", "json", "--identity", WEB]).await).unwrap();
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(
        rows.iter().all(|row| row["identity"] == WEB && row["left_seconds"].as_u64() > Some(86_000)),
        "{json}"
    );
    assert_ne!(rows[0]["serial"], rows[1]["serial"]);
}
