//! Envoy 1.40 as a client: what it is sent, it accepts; what is routed, arrives; nothing is lost in a change.
//!
//! `deploy/setup.sh test` fetches Envoy into `.cache/` at the root of the repository (`RINGWAY_CACHE` moves it). If
//! that fails, so does the test.

#[path = "support/process.rs"]
mod process;
mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use process::Port;
use ringway::report::SyncState;
use support::{Plane, Workload, envoy_program::envoy_program, eventually, registration, route, service};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// Envoy with a stream to the control plane; killed when dropped.
struct Envoy {
    process: Child,
    log: PathBuf,
}

impl Envoy {
    /// As the proxy that `metadata` describes.
    fn start(control: &Path, dir: &Path, metadata: &serde_json::Value) -> Envoy {
        let bootstrap = dir.join("envoy.json");
        let ads = serde_json::json!({
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}],
        });
        let endpoint = serde_json::json!({"address": {"pipe": {"path": control}}});
        let content = serde_json::json!({
            "node": {
                "id": "envoy-1",
                "cluster": "edge",
                "metadata": {"ringway": metadata},
            },
            "dynamic_resources": {
                "ads_config": ads,
                "cds_config": {"ads": {}, "resource_api_version": "V3"},
                "lds_config": {"ads": {}, "resource_api_version": "V3"},
            },
            "static_resources": {"clusters": [{
                "name": "control",
                "connect_timeout": "1s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {
                    "cluster_name": "control",
                    "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
                },
            }]},
        });
        std::fs::write(&bootstrap, content.to_string()).unwrap();
        let log = dir.join("envoy.log");
        let mut command = Command::new(envoy_program());
        command.arg("-c").arg(&bootstrap).arg("--log-path").arg(&log);
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "info"]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        Envoy { process, log }
    }

    /// What it logged that matters.
    fn warnings(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let matters = |line: &&str| {
            line.contains("[warning]") || line.contains("[error]") || line.contains("[critical]")
        };
        log.lines().filter(matters).map(str::to_owned).collect()
    }
}

/// An HTTP server that answers with its name.
async fn origin(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = axum::Router::new().fallback(async move || name);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    port
}

struct Caller {
    client: Client<HttpConnector, Empty<Bytes>>,
    url: String,
    host: String,
}

impl Caller {
    /// A caller of `host` at a port of this machine.
    fn new(port: u16, host: &str) -> Caller {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Caller { client, url: format!("http://127.0.0.1:{port}/"), host: host.to_owned() }
    }

    /// Status and body, or why there is none.
    async fn get(&self) -> Result<(u16, String), String> {
        let request = Request::get(&self.url).header("host", &self.host).body(Empty::new()).unwrap();
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn eventually_gets(&self, body: &str, envoy: &Envoy) {
        eventually(async || match self.get().await {
            Ok((200, text)) if text == body => Ok(()),
            instead => Err((instead, envoy.warnings())),
        })
        .await;
    }
}

fn gateway(port: u16) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  gatewayClassName: ringway
  listeners: [{{name: web, port: {port}, protocol: HTTP}}]
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_routes_by_our_configuration_and_loses_nothing_when_it_changes() {
    let (pay, cart, reserved) = (origin("pay").await, origin("cart").await, Port::any());
    let port = reserved.number();
    let documents =
        [("gateway.yaml", &gateway(port)), ("route.yaml", &route("pay")), ("pay.yaml", &service("pay", pay))];
    let plane = Plane::start(&documents.map(|(file, content)| (file, content.as_str()))).await;
    let edge =
        serde_json::json!({"role": "gateway", "namespace": "shop", "name": "edge", "bind": "127.0.0.1"});
    let mut envoy = Envoy::start(plane.socket(), plane.dir.path(), &edge);
    let caller = Caller::new(port, "edge");
    caller.eventually_gets("pay", &envoy).await;
    let status = plane.synced(1).await;
    assert!(status.proxies[0].version.starts_with("envoy 1.40"), "{}", status.proxies[0].version);

    // A new cluster, its endpoints, then the route to it, and the old cluster goes: at no moment is an answer lost.
    plane.write("cart.yaml", &service("cart", cart));
    plane.write("route.yaml", &route("cart"));
    eventually(async || match caller.get().await {
        Ok((200, text)) if text == "cart" => Ok(()),
        Ok((200, text)) if text == "pay" => Err("pay"),
        lost => panic!("{lost:?} while the route changed; Envoy: {:?}", envoy.warnings()),
    })
    .await;
    plane.synced(1).await;

    // Only an endpoint changes: the fast lane.
    let second = origin("cart-2").await;
    let address = format!("127.0.0.1:{second}");
    let (workload, told) = Workload::register(plane.socket(), registration("cart-2", "cart", &address)).await;
    assert_eq!(told.refused, "");
    caller.eventually_gets("cart-2", &envoy).await;
    workload.unregister().await;
    eventually(async || {
        for _ in 0..20 {
            match caller.get().await {
                Ok((200, text)) if text == "cart" => {}
                Ok((200, text)) if text == "cart-2" => return Err("cart-2"),
                lost => panic!("{lost:?} while an endpoint went; Envoy: {:?}", envoy.warnings()),
            }
        }
        Ok(())
    })
    .await;
    plane.synced(1).await;

    // A document that is wrong changes nothing; neither does the end of the control plane.
    plane.write("route.yaml", "kind: HTTPRoute");
    let status = plane.status(|status| status.document_errors > 0 && status.synced).await;
    assert_eq!(status.proxies[0].state, SyncState::Synced);
    assert_eq!(caller.get().await, Ok((200, "cart".to_owned())));
    plane.server.stop().await;
    for _ in 0..20 {
        assert_eq!(caller.get().await, Ok((200, "cart".to_owned())));
    }
    let refusals: Vec<_> = envoy.warnings().into_iter().filter(|line| line.contains("rejected")).collect();
    assert_eq!(refusals, [""; 0]);
    assert!(envoy.process.try_wait().unwrap().is_none(), "Envoy ended: {:?}", envoy.warnings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_as_a_sidecar_reaches_services_and_hosts_outside_the_mesh() {
    let (pay, outside) = (origin("pay").await, origin("outside").await);
    let reserved = [Port::any(), Port::any()];
    let [inbound, outbound] = reserved.each_ref().map(Port::number);
    let plane = Plane::start(&[("pay.yaml", service("pay", pay).as_str())]).await;
    let web = serde_json::json!({
        "role": "sidecar", "namespace": "shop", "service": "web", "instance": "web-1", "app_protocol": "http",
        "inbound": format!("127.0.0.1:{inbound}"), "app": "127.0.0.1:1", "outbound": format!("127.0.0.1:{outbound}"),
    });
    let envoy = Envoy::start(plane.socket(), plane.dir.path(), &web);
    Caller::new(outbound, "pay.mesh").eventually_gets("pay", &envoy).await;
    Caller::new(outbound, &format!("localhost:{outside}")).eventually_gets("outside", &envoy).await;
    let nobody = Caller::new(outbound, "nobody.mesh").get().await;
    assert_eq!(nobody, Ok((404, "no service of the mesh has this name\n".to_owned())));
    let refusals: Vec<_> = envoy.warnings().into_iter().filter(|line| line.contains("rejected")).collect();
    assert_eq!(refusals, [""; 0]);
}
