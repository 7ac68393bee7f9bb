//! Connections that are left while they are used: by an upstream, and by a proxy that drains.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustix::process::Signal;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    ask::{Ask, ask_over, connect, read_body, send_body},
    origin::{self, exchange_http2},
    programs::{DRIVERS, proxy},
    support::{Home, soon},
};

/// Requests that are on their way at a time.
const AT_ONCE: usize = 16;

/// How many each of these asks, one after the other.
const IN_A_ROW: usize = 125;

/// Requests after which the origin leaves a connection.
const REQUESTS_PER_CONNECTION: usize = 20;

#[tokio::test]
async fn no_request_is_lost_on_connections_that_upstream_leaves() {
    for driver in DRIVERS {
        let home = Home::new();
        let [http1, _] = origin::start().await;
        let (proxy, address) = proxy(&home, driver, "AUTO", [http1, restless().await]).await;
        let requests = connect(address).await;
        let mut asking = JoinSet::new();
        for _ in 0..AT_ONCE {
            let requests = requests.clone();
            asking.spawn(async move {
                let post = Ask { method: "POST", body: "hello".into(), ..Ask::get("/echo") };
                // What may be sent again whatever became of it, and what may not.
                let asks = [Ask::get("/hello"), post];
                for ask in asks.iter().cycle().take(IN_A_ROW) {
                    let answer = ask_over(requests.clone(), ask).await.unwrap();
                    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]), "{answer:?}");
                }
            });
        }
        soon("all answers", asking.join_all()).await;
        let connections =
            proxy.metric("envoy_cluster_upstream_cx_http2_total{envoy_cluster_name=\"two\"}").await;
        let least = AT_ONCE * IN_A_ROW / (REQUESTS_PER_CONNECTION + AT_ONCE) / 2;
        assert!(connections >= least as f64, "{driver}: only {connections} connections were left");
        proxy.stop().await;
    }
}

/// An origin that leaves each connection after a few requests, as one does that is about to be replaced.
async fn restless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve_few(stream));
        }
    });
    address
}

async fn serve_few(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut count = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(async { exchange_http2(request, respond).await.expect("the proxy waits for it") });
        count += 1;
        if count == REQUESTS_PER_CONNECTION {
            connection.graceful_shutdown();
        }
    }
}

#[tokio::test]
async fn a_proxy_that_drains_answers_all_that_it_was_asked() {
    for driver in DRIVERS {
        for upstream in ["/1", "/2"] {
            let home = Home::new();
            let (proxy, address) = proxy(&home, driver, "AUTO", origin::start().await).await;
            // One request is sent in part: the rest of it follows when the proxy has begun to leave.
            let requests = connect(address).await;
            let mut slow = requests.clone().ready().await.unwrap();
            let uri = format!("http://a{upstream}/echo");
            let request = Request::builder().method("POST").uri(uri).body(()).unwrap();
            let (response, mut body) = slow.send_request(request, false).unwrap();
            body.send_data("first ".into(), false).unwrap();

            let (begun, mut all_have_begun) = watch::channel(0);
            let mut asking = JoinSet::new();
            for _ in 0..AT_ONCE {
                let (requests, begun) = (requests.clone(), begun.clone());
                asking.spawn(ask_until_left(requests, format!("{upstream}/hello"), begun));
            }
            soon("load", all_have_begun.wait_for(|count| *count >= AT_ONCE * 10)).await.unwrap();
            proxy.signal(Signal::TERM);
            let counts = soon("the end of all that ask", asking.join_all()).await;
            assert!(counts.iter().sum::<usize>() >= AT_ONCE * 10, "{counts:?}");

            send_body(body, "last".into(), &Vec::new()).await.unwrap();
            let response = soon("the answer to the slow one", response).await.unwrap();
            assert_eq!(response.status(), 200, "{driver}, {upstream}");
            let (echo, _) = soon("its body", read_body(response.into_body())).await.unwrap();
            assert_eq!(echo, "first last", "{driver}, {upstream}");
            let (status, log) = proxy.end().await;
            assert!(status.success(), "{driver}, {upstream}: {status}:\n{}", log.join("\n"));
        }
    }
}

/// Asks until the other end takes no more; gives how often it was answered. What was sent must be answered.
async fn ask_until_left(requests: SendRequest<Bytes>, path: String, begun: watch::Sender<usize>) -> usize {
    let mut count = 0;
    loop {
        if requests.clone().ready().await.is_err() {
            return count;
        }
        let answer = ask_over(requests.clone(), &Ask::get(&path)).await;
        match answer {
            Ok(answer) => assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]), "{answer:?}"),
            // Told that it was not looked at, so it may go elsewhere.
            Err(error) if error.is_go_away() && requests.clone().ready().await.is_err() => return count,
            Err(error) => panic!("lost after {count}: {error}"),
        }
        count += 1;
        begun.send_modify(|count| *count += 1);
    }
}
