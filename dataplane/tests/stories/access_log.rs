//! One line per exchange, whatever becomes of it.

use std::time::Duration;

use dataplane::telemetry::access_log::AccessLog;
use sim::{Ask, Behaviour, Cut, End, Sim};

use crate::mesh::{Mesh, Setup, answers, forward_to, route};

#[test]
fn every_exchange_has_one_line_that_tells_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let mut setup = Setup::new(Behaviour::default());
    setup.access_log = AccessLog::start(&path).unwrap();
    let setup = setup
        .manager(|manager| manager.access_log = true)
        .routes(|| vec![route("/nobody", forward_to("unknown")), route("/app", forward_to("app"))]);
    setup.on(&Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut peer = mesh.peer().await;
        for (number, target) in ["/app/ok", "/nobody", "/none"].into_iter().enumerate() {
            peer.send(Ask::get("shop", target, number).bytes()).await;
            answers(&mut peer, &["GET"]).await;
        }
        mesh.origin().behave(Behaviour::ends_after_answer_bytes(0, End::Close));
        mesh.client().await.ask(&Ask::post("shop", "/app/closed", 3, "pay")).await;
        let cut = Some(Cut { bytes: 200, end: End::Reset });
        mesh.origin().behave(Behaviour { answer_cut: cut, body: vec![1; 1000], ..Behaviour::default() });
        mesh.client().await.ask(&Ask::post("shop", "/app/cut", 4, "pay")).await;
        mesh.origin().behave(Behaviour { body: vec![1; 2_000_000], ..Behaviour::default() });
        let mut gone = mesh.peer().await;
        gone.send(Ask::get("shop", "/app/gone", 5).bytes()).await;
        gone.recv_exactly(1000).await;
        gone.reset();
        mesh.until("it is noticed", |mesh| mesh.http("downstream_rq_active") == 0).await;
        mesh.origin().behave(Behaviour::never_answers());
        let mut left = mesh.peer().await;
        left.send(Ask::get("shop", "/app/left", 6).bytes()).await;
        mesh.until("it waits", |mesh| mesh.ledger().contains_key("6")).await;
        left.reset();
        mesh.until("it is noticed", |mesh| mesh.http("downstream_rq_active") == 0).await;
        let mut malformed = mesh.peer().await;
        malformed.send("GET / HTTP/1.1\r\n\r\n").await;
        answers(&mut malformed, &["GET"]).await;
    });
    let lines = lines_of(&path, 8);
    let told: Vec<String> = lines
        .iter()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            format!("{} {} {} {}", text("target"), line["status"], text("flags"), text("reason"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "/app/ok 200 - -",
            "/nobody 503 NC unknown-cluster",
            "/none 404 NR no-route",
            "/app/closed 503 UC upstream-closed",
            "/app/cut 200 UC response-truncated",
            "/app/gone 200 DC downstream-closed",
            "/app/left 0 DC downstream-closed",
            "/ 400 DPE host-missing",
        ]
    );
}

/// The lines of a file once there are so many; another thread writes them.
pub(crate) fn lines_of(path: &std::path::Path, count: usize) -> Vec<String> {
    let begun = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() >= count && text.ends_with('\n') {
            return lines;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "only {lines:?}");
        std::thread::yield_now();
    }
}
