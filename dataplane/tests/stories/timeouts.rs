//! Every timeout, exact to a tenth where time is simulated; a kernel may stop us for as long as it likes.

use std::time::Duration;

use sim::{Ask, Behaviour, End, Loss, Verdict};

use crate::mesh::{Ground, Mesh, Setup, answers, ok, refused};

const MS: Duration = Duration::from_millis(1);

/// How long something took in simulated time.
async fn timed<I: Ground, T>(mesh: &Mesh<I>, what: impl Future<Output = T>) -> (Duration, T) {
    let begun = mesh.io.now();
    let result = what.await;
    (Duration::from_nanos(mesh.io.now() - begun), result)
}

/// Within a tenth, and what a rough network and a tick of the timer wheel add.
#[track_caller]
fn about(took: Duration, expected: Duration) {
    assert!(took + 10 * MS >= expected, "{took:?} is before {expected:?}");
    assert!(took <= expected * 11 / 10 + 150 * MS, "{took:?} is long after {expected:?}");
}

pub(crate) async fn route_timeout<I: Ground>(mesh: &Mesh<I>) -> Duration {
    let mut client = mesh.client().await;
    let (took, verdict) = timed(mesh, client.ask(&Ask::get("shop", "/", 1))).await;
    assert_eq!(refused(verdict), (504, "upstream-timeout".to_owned()));
    assert!(took + 10 * MS >= 500 * MS, "{took:?} is too soon");
    mesh.origin().behave(Behaviour::default());
    ok(client.ask(&Ask::get("shop", "/", 2)).await);
    assert_eq!(mesh.upstream("upstream_rq_timeout"), 1);
    took
}

#[test]
fn an_origin_that_never_answers_is_given_up_at_the_route_timeout() {
    let setup = Setup::new(Behaviour::never_answers()).forward(|f| f.timeout = Some(500 * MS));
    setup.on_sim(async |mesh| about(route_timeout(mesh).await, 500 * MS));
}

#[test]
fn the_route_timeout_runs_from_the_end_of_the_request() {
    let setup = Setup::new(Behaviour::never_answers()).forward(|f| f.timeout = Some(500 * MS));
    setup.on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        let ask = Ask::post("shop", "/", 1, vec![1; 1000]).bytes();
        let (took, ()) = timed(mesh, async {
            for piece in ask.chunks(200) {
                peer.send(piece).await;
                mesh.pass(200 * MS).await;
            }
            let answer = answers(&mut peer, &["POST"]).await.remove(0);
            assert_eq!((answer.status(), answer.header("x-ringway-reason")), (504, Some("upstream-timeout")));
        })
        .await;
        about(took, ask.chunks(200).len() as u32 * 200 * MS + 300 * MS);
    });
}

#[test]
fn the_route_timeout_covers_connecting() {
    let setup = Setup::new(Behaviour::default()).without_origins().silent(2);
    setup.forward(|f| f.timeout = Some(500 * MS)).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let (took, verdict) = timed(mesh, client.ask(&Ask::get("shop", "/", 1))).await;
        assert_eq!(refused(verdict), (504, "upstream-timeout".to_owned()));
        about(took, 500 * MS);
    });
}

#[test]
fn a_connect_that_is_not_answered_in_time_moves_to_another_endpoint() {
    let setup = Setup::new(Behaviour::default()).cluster(|c| c.connect_timeout = 200 * MS);
    setup.clone().silent(1).on_sim(async |mesh| {
        for id in 0..2 {
            let mut client = mesh.client().await;
            let (took, verdict) = timed(mesh, client.ask(&Ask::post("shop", "/", id, "pay"))).await;
            ok(verdict);
            assert!(took < 500 * MS, "{took:?}");
        }
        assert!(mesh.ledger().into_values().eq([1; 2]));
    });
    setup.without_origins().silent(1).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let (took, verdict) = timed(mesh, client.ask(&Ask::get("shop", "/", 1))).await;
        assert_eq!(refused(verdict), (503, "connect-timeout".to_owned()));
        about(took, 200 * MS);
    });
}

pub(crate) async fn dripping_head<I: Ground>(mesh: &Mesh<I>) {
    let mut peer = mesh.peer().await;
    let (took, ()) = timed(mesh, async {
        for byte in b"GET / HTTP/1.1\r\nhost: shop\r\nx-drip: 0123456789" {
            if peer.try_send([*byte]).await.is_err() {
                break;
            }
            mesh.pass(20 * MS).await;
        }
    })
    .await;
    assert!(took > 600 * MS);
    let ended = peer.recv_to_end().await;
    assert!(ended.bytes.starts_with(b"HTTP/1.1 408 "), "{}", ended.bytes.escape_ascii());
    assert_eq!(mesh.http("downstream_rq_header_timeout"), 1);
    assert!(mesh.origin().connections().is_empty());
}

#[test]
fn a_head_that_drips_is_given_up_and_no_byte_prolongs_it() {
    let setup = Setup::new(Behaviour::default());
    setup.manager(|m| m.request_headers_timeout = Some(500 * MS)).on_sim(async |mesh| {
        dripping_head(mesh).await;
        let mut peer = mesh.peer().await;
        peer.send("GET / HT").await;
        let (took, answers) = timed(mesh, answers(&mut peer, &["GET"])).await;
        assert_eq!(answers[0].status(), 408);
        about(took, 500 * MS);
    });
}

#[test]
fn a_connection_without_a_request_is_closed_after_the_idle_timeout() {
    for timeout in [300 * MS, 4000 * MS] {
        let setup = Setup::new(Behaviour::default()).manager(|m| m.idle_timeout = Some(timeout));
        setup.on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            about(timed(mesh, peer.expect_close()).await.0, timeout);
            let mut peer = mesh.peer().await;
            peer.send(Ask::get("shop", "/", 1).bytes()).await;
            answers(&mut peer, &["GET"]).await;
            about(timed(mesh, peer.expect_close()).await.0 + 20 * MS, timeout);
            assert_eq!(mesh.http("downstream_cx_idle_timeout"), 2);
        });
    }
}

#[test]
fn an_exchange_in_which_nothing_moves_ends_after_the_stream_idle_timeout() {
    let setup = |behaviour| {
        let setup = Setup::new(behaviour).forward(|f| f.timeout = None);
        setup.manager(|m| m.stream_idle_timeout = Some(500 * MS))
    };
    // No answer.
    setup(Behaviour::never_answers()).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let (took, verdict) = timed(mesh, client.ask(&Ask::get("shop", "/", 1))).await;
        assert_eq!(refused(verdict), (504, "stream-idle".to_owned()));
        about(took, 500 * MS);
    });
    // Half an answer.
    setup(Behaviour::says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let (took, verdict) = timed(mesh, client.ask(&Ask::get("shop", "/", 1))).await;
        assert!(matches!(verdict, Verdict::Lost(Loss::Ended(_))), "{verdict:?}");
        about(took, 500 * MS);
    });
    // Half a request.
    setup(Behaviour::default()).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 100\r\n\r\nhalf").await;
        let (took, answers) = timed(mesh, answers(&mut peer, &["POST"])).await;
        let reason = answers[0].header("x-ringway-reason");
        assert_eq!((answers[0].status(), reason), (408, Some("body-timeout")));
        about(took, 500 * MS);
        assert_eq!(peer.recv_to_end().await.end, End::Close);
    });
}

#[test]
fn one_direction_that_moves_keeps_the_exchange_alive() {
    let setup = Setup::new(Behaviour::default()).forward(|f| f.timeout = None).played(1);
    setup.manager(|m| m.stream_idle_timeout = Some(500 * MS)).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 20\r\n\r\n").await;
        let mut origin = mesh.accept().await;
        // Two seconds of upload without an answer.
        for _ in 0..10 {
            peer.send("u").await;
            mesh.pass(200 * MS).await;
        }
        origin.recv_until(b"\r\n\r\nuuuuuuuuuu").await;
        // Two seconds of answer without upload.
        origin.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
        for _ in 0..9 {
            origin.send("d").await;
            mesh.pass(200 * MS).await;
        }
        peer.send("uuuuuuuuuu").await;
        origin.recv_until(b"uuuuuuuuuu").await;
        origin.send("d").await;
        peer.recv_until(b"\r\n\r\ndddddddddd").await;
        // It was announced before the request was whole.
        peer.expect_close().await;
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up_after_the_stream_idle_timeout() {
    let behaviour = Behaviour { body: vec![1; 2_000_000], ..Behaviour::default() };
    let setup = Setup::new(behaviour).forward(|f| f.timeout = None);
    let setup = setup.manager(|m| m.stream_idle_timeout = Some(500 * MS));
    setup.on(&sim::Sim::with_seed(2), &async |mesh: &Mesh<_>| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        mesh.pass(1000 * MS).await;
        mesh.until("the exchange is over", |mesh| mesh.http("downstream_rq_active") == 0).await;
        assert!(peer.recv_to_end().await.bytes.len() < 500_000, "it is cut");
    });
}
