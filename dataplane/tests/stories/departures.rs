//! A client that goes away while its response is waited for, and one that only stops sending.

use std::time::Duration;

use sim::{Ask, Behaviour, End, Ended, Sim};

use crate::mesh::{Ground, Mesh, Setup, answers};

const MS: Duration = Duration::from_millis(1);

/// Longer than an exchange lasts before anybody looks whether its client is still there.
const SLOW: Duration = Duration::from_millis(400);

/// An origin that takes its time.
pub(crate) fn slow() -> Setup {
    Setup::new(Behaviour { think: 3 * SLOW, ..Behaviour::default() })
}

async fn ends_when_noticed<I: Ground>(mesh: &Mesh<I>) {
    mesh.until("the exchange ends", |mesh| mesh.http("downstream_rq_active") == 0).await;
    mesh.until("upstream closed", |mesh| mesh.origin().connections().iter().all(|one| one.is_over)).await;
    assert_eq!(mesh.worker.pools.idle_count(), 0);
}

pub(crate) async fn reset_while_it_waits<I: Ground>(mesh: &Mesh<I>) {
    let asks = [
        (Ask::get("shop", "/", 0), Duration::ZERO),
        (Ask::get("shop", "/", 1), SLOW),
        (Ask::post("shop", "/", 2, vec![1; 5000]), Duration::ZERO),
        (Ask::post("shop", "/", 3, vec![1; 5000]), SLOW),
    ];
    for (id, (ask, pause)) in asks.into_iter().enumerate() {
        let mut peer = mesh.peer().await;
        peer.send(ask.bytes()).await;
        mesh.until("it waits for the response", |mesh| mesh.ledger().contains_key(&id.to_string())).await;
        mesh.pass(pause).await;
        peer.reset();
        ends_when_noticed(mesh).await;
    }
    assert_eq!(mesh.http("downstream_rq_rx_reset"), 4);
    assert_eq!(mesh.http("downstream_cx_destroy_active_rq"), 4);
    assert_eq!(mesh.upstream("upstream_rq_tx_reset"), 4);
    assert_eq!(mesh.upstream("upstream_rq_retry"), 0);
}

#[test]
fn a_client_that_resets_while_it_waits_ends_its_exchange() {
    Setup::new(Behaviour::never_answers()).on_sim(reset_while_it_waits);
}

#[test]
fn a_client_that_resets_while_a_response_stands_still_ends_its_exchange() {
    Setup::new(Behaviour::default()).played(1).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        let mut upstream = mesh.accept().await;
        upstream.recv_until(b"\r\n\r\n").await;
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        peer.recv_until(b"half").await;
        mesh.pass(SLOW).await;
        peer.reset();
        upstream.patience(100 * MS).expect_close().await;
    });
}

pub(crate) async fn half_close_and_wait<I: Ground>(mesh: &Mesh<I>) {
    for pause in [Duration::ZERO, SLOW] {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        mesh.pass(pause).await;
        peer.shutdown();
        let Ended { bytes, end } = peer.recv_to_end().await;
        assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"ok\n"), "{}", bytes.escape_ascii());
        assert_eq!(end, End::Close);
    }
    assert_eq!(mesh.http("downstream_rq_rx_reset"), 0);
}

#[test]
fn a_client_that_half_closes_and_waits_long_gets_the_response() {
    slow().on_sim(half_close_and_wait);
}

/// Requests that come while the first is slow, in pieces, with or without a FIN behind them.
pub(crate) async fn pipelined_behind_a_slow_one<I: Ground>(mesh: &Mesh<I>) {
    for half_closes in [false, true] {
        let mut peer = mesh.peer().await;
        let asks = [
            Ask::get("shop", "/0", 0),
            Ask::get("shop", "/1", 1),
            Ask::post("shop", "/2", 2, vec![7; 300]),
            Ask::get("shop", "/3", 3),
        ];
        let bytes: Vec<u8> = asks.iter().flat_map(Ask::bytes).collect();
        let first = asks[0].bytes().len();
        for piece in [&bytes[..first], &bytes[first..first + 20], &bytes[first + 20..]] {
            peer.send(piece).await;
            mesh.pass(SLOW).await;
        }
        if half_closes {
            peer.shutdown();
        }
        let answers = answers(&mut peer, &["GET", "GET", "POST", "GET"]).await;
        let ids: Vec<_> = answers.iter().map(|answer| answer.header("x-ledger-id").unwrap()).collect();
        assert_eq!(ids, ["0", "1", "2", "3"]);
        if half_closes {
            peer.expect_close().await;
        }
    }
    assert!(mesh.ledger().into_values().eq([2; 4]));
}

#[test]
fn requests_behind_a_slow_one_are_answered_in_order() {
    slow().on_sim(pipelined_behind_a_slow_one);
}

/// The end of a body that came in two pieces is read once, however often the client is looked at while the answer is slow.
async fn the_end_of_a_body_in_two_pieces(mesh: &Mesh<sim::SimIo>) {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let mut peer = mesh.peer().await;
    let head = "POST /0 HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
    // Half a line of the trailers has to wait for its other half, after the rest was sent.
    peer.send(format!("{head}1\r\nz\r\n0\r\nx-a: b")).await;
    let mut origin = mesh.accept().await;
    origin.recv_until(b"z\r\n").await;
    peer.send("c\r\n\r\n").await;
    let end = origin.recv_until(b"\r\n\r\n").await;
    assert!(end.ends_with(b"x-a: bc\r\n\r\n"), "{}", end.escape_ascii());
    // Long enough to be looked at and for a buffer that stays empty to be given up.
    mesh.pass(10 * SLOW).await;
    peer.send(Ask::get("shop", "/1", 1).bytes()).await;
    mesh.pass(SLOW).await;
    origin.send(ANSWER).await;
    let next = origin.recv_until(b"\r\n\r\n").await;
    assert!(next.starts_with(b"GET /1 "), "{}", next.escape_ascii());
    origin.send(ANSWER).await;
    answers(&mut peer, &["POST", "GET"]).await;
}

#[test]
fn what_was_read_of_a_slow_request_is_not_read_again() {
    let setup = Setup::new(Behaviour::default()).played(1);
    setup.on_sim(the_end_of_a_body_in_two_pieces);
    for seed in 0..16 {
        let sim = Sim::with_seed(seed);
        sim.late_completions(500);
        setup.on(&sim, &the_end_of_a_body_in_two_pieces);
    }
}

#[test]
fn more_than_a_buffer_behind_a_slow_request_waits_in_the_kernel() {
    slow().on(&Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut peer = mesh.peer().await;
        let asks: Vec<Ask> = (0..3).map(|id| Ask::post("shop", "/", id, vec![id as u8; 100_000])).collect();
        let mut bytes = Ask::get("shop", "/", "first").bytes();
        asks.iter().for_each(|ask| bytes.extend(ask.bytes()));
        peer.send(&bytes).await;
        let answers = answers(&mut peer, &["GET", "POST", "POST", "POST"]).await;
        assert!(answers.iter().all(|answer| answer.status() == 200));
        assert!(mesh.ledger().into_values().eq([1; 4]));
    });
}

#[test]
fn a_slow_request_that_is_repeated_keeps_what_came_behind_it() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    Setup::new(Behaviour::default()).played(1).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/0", 0).bytes()).await;
        let mut pooled = mesh.accept().await;
        pooled.recv_until(b"\r\n\r\n").await;
        pooled.send(ANSWER).await;
        answers(&mut peer, &["GET"]).await;
        peer.send(Ask::get("shop", "/1", 1).bytes()).await;
        pooled.recv_until(b"\r\n\r\n").await;
        mesh.pass(SLOW).await;
        peer.send(Ask::get("shop", "/2", 2).bytes()).await;
        mesh.pass(SLOW).await;
        drop(pooled);
        let mut fresh = mesh.accept().await;
        for target in ["/1", "/2"] {
            let head = fresh.recv_until(b"\r\n\r\n").await;
            assert!(head.starts_with(format!("GET {target} ").as_bytes()), "{}", head.escape_ascii());
            fresh.send(ANSWER).await;
        }
        answers(&mut peer, &["GET", "GET"]).await;
    });
}
