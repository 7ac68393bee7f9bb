//! A proxy that has too little of something: of descriptors, of turns.

use std::{net::SocketAddr, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    static_file::bootstrap,
    support::{Client, Home, Proxy, origin, soon},
};

async fn open(proxy: &Proxy) -> f64 {
    proxy.metric("envoy_server_total_connections{}").await
}

/// Connects and asks; who is in the queue of the kernel has no answer yet.
async fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    stream
}

#[tokio::test]
async fn descriptors_that_run_out_pause_accepting_and_harm_nobody_who_is_there() {
    for io in ["auto", "epoll"] {
        let home = Home::new();
        let upstream = origin("app").await;
        let runner = ["prlimit", "--nofile=256:256"];
        let text = bootstrap(&home, "127.0.0.1:0", upstream);
        let mut proxy = home.start_under(&runner, &text, &["--workers", "2", "--io", io]);
        proxy.is_ready().await;
        let mut known = proxy.connect("in").await;
        assert_eq!(known.get("/").await.unwrap().0, 200);
        let address = proxy.address("in").await;
        let mut waiting = Vec::new();
        for _ in 0..5000 {
            waiting.push(ask(address).await);
        }
        soon("a pause", async {
            let paused = "envoy_listener_downstream_cx_accept_paused{envoy_listener_address=\"127.0.0.1_0\"}";
            while proxy.metric(paused).await == 0.0 {}
        })
        .await;
        // Who is there is served, the admin listener answers, and descriptors are left.
        for _ in 0..20 {
            assert_eq!(known.get("/").await.unwrap().0, 200);
        }
        let connections = open(&proxy).await;
        assert!((50.0..70.0).contains(&connections), "{connections}");
        assert_eq!(
            proxy.metric("envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=\"app\"}").await,
            0.0
        );
        // When they go, whoever comes next is served within a second.
        waiting.clear();
        let begun = std::time::Instant::now();
        let mut next = Client::to(address).await;
        assert_eq!(next.get("/").await.unwrap().0, 200);
        // First come the requests of those who went, up to 4,096 of them, which takes a program that is not optimised a second.
        assert!(begun.elapsed() < 5 * Duration::from_secs(1), "{io}: {:?}", begun.elapsed());
        soon("all others to be gone", async { while open(&proxy).await > 2.0 {} }).await;
        assert_eq!(known.get("/").await.unwrap().0, 200);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn workers_with_nothing_to_do_end_turns_when_asked_and_none_counts_as_stuck() {
    let home = Home::new();
    let mut proxy = home.start(&bootstrap(&home, "127.0.0.1:0", origin("app").await), &["--workers", "2"]);
    proxy.is_ready().await;
    let turns =
        async |worker: usize| proxy.metric(&format!("ringway_worker_turns{{worker=\"{worker}\"}}")).await;
    for worker in [0, 1] {
        let before = turns(worker).await;
        soon("turns without traffic", async { while turns(worker).await < before + 3.0 {} }).await;
    }
    assert_eq!(proxy.metric("envoy_server_watchdog_miss{}").await, 0.0);
    proxy.stop().await;
}
