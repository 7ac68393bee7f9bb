//! gRPC as its own interoperability tests speak it, through the proxy: the client in Go, one in Python and one in JavaScript,
//! which are three implementations that share no code.

use std::{net::SocketAddr, process::Stdio};

use tokio::{
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
};

use crate::{
    programs::{DRIVERS, fetched, good, proxy},
    support::{Home, soon},
};

/// The cases of gRPC's interoperability tests that need neither TLS nor the cloud.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

/// gRPC's own server, killed when dropped.
struct Server {
    address: SocketAddr,
    _child: Child,
    /// Bound beside it and not listening: nobody else gets the port.
    _port: TcpSocket,
}

impl Server {
    async fn start() -> Server {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap();
        let child = Command::new(fetched("grpc-interop-server"))
            .args(["-port", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        soon("gRPC's server", async { while TcpStream::connect(address).await.is_err() {} }).await;
        Server { address, _child: child, _port: port }
    }
}

#[tokio::test]
async fn the_client_in_go_passes_every_case() {
    let client = fetched("grpc-interop-client");
    let server = Server::start().await;
    for driver in DRIVERS {
        let home = Home::new();
        let (proxy, address) = proxy(&home, driver, "HTTP2", [server.address; 2]).await;
        let port = address.port().to_string();
        for case in CASES {
            let arguments =
                ["-server_host", "127.0.0.1", "-server_port", &port, "-test_case", case].map(str::to_owned);
            good(&client, &arguments.each_ref().map(|argument| &**argument)).await;
        }
        let metric = |name: &str| format!("envoy_cluster_{name}{{envoy_cluster_name=\"two\"}}");
        assert_eq!(proxy.metric(&metric("upstream_cx_http2_total")).await, 1.0, "all cases share one");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_in_python_passes_its_cases() {
    passes_its_cases("grpc-python", "grpc_client.py", "12 cases\n").await;
}

#[tokio::test]
async fn a_client_in_javascript_passes_its_cases() {
    passes_its_cases("grpc-node", "grpc_client.js", "15 cases\n").await;
}

async fn passes_its_cases(program: &str, script: &str, all: &str) {
    let program = fetched(program);
    let script = format!("{}/tests/http2/{script}", env!("CARGO_MANIFEST_DIR"));
    let server = Server::start().await;
    for driver in DRIVERS {
        let home = Home::new();
        let (proxy, address) = proxy(&home, driver, "AUTO", [server.address; 2]).await;
        let said = good(&program, &[&script, &address.to_string()]).await;
        assert_eq!(String::from_utf8_lossy(&said), all, "{driver}");
        proxy.stop().await;
    }
}
