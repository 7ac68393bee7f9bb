//! Bodies of every framing, both ways, and answers that come before a request is whole.

use std::time::Duration;

use runtime::Io;
use sim::{
    Ask, Behaviour, End, Faults, Pieces, Sim, Way,
    origin::{AnswerFraming, Then},
};

use crate::mesh::{Ground, Mesh, Setup, answers, ok, refused};

const MS: Duration = Duration::from_millis(1);

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n % 251) as u8).collect()
}

pub(crate) async fn request_bodies<I: Ground>(mesh: &Mesh<I>, sizes: &[usize]) {
    let mut client = mesh.client().await;
    let mut id = 0;
    for size in sizes.iter().copied() {
        for chunk in [None, Some(1), Some(999), Some(usize::MAX)] {
            id += 1;
            let ask = Ask::post("shop", "/", id, bytes(size));
            ok(client.ask(&Ask { chunk_bytes: chunk, ..ask }).await);
        }
    }
    assert_eq!(mesh.origin().connections().len(), 1);
}

#[test]
fn request_bodies_of_every_framing_arrive_as_they_were_sent() {
    Setup::new(Behaviour::default()).on_sim(async |mesh| request_bodies(mesh, &[0, 1, 3000]).await);
    let large = async |mesh: &Mesh<_>| request_bodies(mesh, &[100_000]).await;
    Setup::new(Behaviour::default()).on(&sim::Sim::with_seed(0), &large);
}

pub(crate) async fn response_bodies<I: Ground>(mesh: &Mesh<I>, sizes: &[usize]) {
    let mut client = mesh.client().await;
    let mut id = 0;
    for framing in [
        AnswerFraming::Length,
        AnswerFraming::Chunked(1),
        AnswerFraming::Chunked(1000),
        AnswerFraming::UntilClose,
    ] {
        for size in sizes.iter().copied() {
            let then = if framing == AnswerFraming::UntilClose { Then::Close } else { Then::KeepAlive };
            mesh.origin().behave(Behaviour { framing, then, body: bytes(size), ..Behaviour::default() });
            for method in ["GET", "HEAD"] {
                id += 1;
                let ask = Ask { method: method.to_owned(), ..Ask::get("shop", "/", id) };
                let answer = ok(client.ask(&ask).await);
                assert_eq!(answer.body.len(), if method == "HEAD" { 0 } else { size });
                assert!(!client.is_over(), "{framing:?}: the end is known without a close");
            }
        }
    }
}

#[test]
fn response_bodies_of_every_framing_arrive_and_the_connection_lives_on() {
    Setup::new(Behaviour::default()).on_sim(async |mesh| response_bodies(mesh, &[0, 1, 3000]).await);
    let large = async |mesh: &Mesh<_>| response_bodies(mesh, &[100_000]).await;
    Setup::new(Behaviour::default()).on(&sim::Sim::with_seed(0), &large);
}

#[test]
fn a_response_that_has_no_body_ends_with_its_head() {
    for status in [204, 304] {
        let setup = Setup::new(Behaviour { status, body: Vec::new(), ..Behaviour::default() });
        setup.on_sim(async |mesh| {
            let mut client = mesh.client().await;
            for id in 0..3 {
                assert_eq!(ok(client.ask(&Ask::get("shop", "/", id)).await).status(), status);
            }
            assert_eq!(mesh.origin().connections().len(), 1);
        });
    }
}

#[test]
fn bytes_behind_a_response_that_has_none_never_reach_another_request() {
    let leftover = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for head in [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let setup = Setup::new(Behaviour::says(format!("{head}{leftover}")));
        setup.on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            for _ in 0..3 {
                peer.send(Ask::get("shop", "/", 1).bytes()).await;
                let answer = answers(&mut peer, &["GET"]).await.remove(0);
                assert!(answer.body.is_empty(), "{answer:?}");
                mesh.pass(50 * MS).await;
            }
            assert_eq!(mesh.origin().connections().len(), 3, "no such connection is used again");
        });
    }
}

#[test]
fn a_response_head_may_come_in_two_pieces_with_a_large_body_behind() {
    // The second piece fills a receive buffer by itself.
    Setup::new(Behaviour::default()).played(1).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        let mut origin = mesh.accept().await;
        origin.recv_until(b"\r\n\r\n").await;
        let answer = async {
            origin.send("HTTP/1.1 200 OK\r\nx-long: ").await;
            mesh.pass(20 * MS).await;
            let mut rest = b"v\r\ncontent-length: 70000\r\n\r\n".to_vec();
            rest.extend(bytes(70_000));
            origin.send(rest).await;
        };
        let (_, answers) = sim::both(answer, answers(&mut peer, &["GET"])).await;
        assert_eq!((answers[0].status(), answers[0].body == bytes(70_000)), (200, true));
    });
}

pub(crate) async fn early_answer<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.client().await;
    let ask = Ask::post("shop", "/upload", 1, bytes(40_000));
    let answer = ok(client.ask(&ask).await);
    assert_eq!(answer.status(), 413);
    if answer.header("connection") != Some("close") {
        ok(client.ask(&Ask::get("shop", "/", 2)).await);
    }
}

#[test]
fn an_early_answer_reaches_the_client_while_the_upload_goes_on() {
    Setup::new(Behaviour::answers_early(413)).on_sim(early_answer);
    Setup::new(Behaviour::answers_early_and_closes(413)).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        // The close of a socket with unread bytes sends RST, which may be faster than the answer.
        match client.ask(&Ask::post("shop", "/upload", 1, bytes(40_000))).await {
            sim::Verdict::Ok(answer) => assert_eq!(answer.status(), 413),
            verdict => assert_eq!(refused(verdict).0 / 100, 5),
        }
    });
}

#[test]
fn after_an_early_answer_the_upload_is_taken_and_the_connection_ends_with_fin() {
    Setup::new(Behaviour::answers_early(413)).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        let ask = Ask::post("shop", "/upload", 1, bytes(30_000)).bytes();
        peer.send(&ask[..1000]).await;
        let answer = answers(&mut peer, &["POST"]).await.remove(0);
        assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
        let _ = peer.try_send(&ask[1000..]).await;
        peer.shutdown();
        assert_eq!(peer.recv_to_end().await.end, End::Close);
    });
}

pub(crate) async fn sends_all_before_it_reads<I: Ground>(mesh: &Mesh<I>) {
    let mut peer = mesh.peer().await;
    peer.send(Ask::post("shop", "/upload", 1, bytes(6_000_000)).bytes()).await;
    let answer = answers(&mut peer, &["POST"]).await.remove(0);
    assert_eq!(answer.status(), 413);
    // A loop that is busy enough may have had the whole upload before it had the answer.
    if answer.header("connection") == Some("close") {
        peer.expect_close().await;
    }
}

#[test]
fn a_client_that_sends_everything_before_it_reads_still_gets_the_early_answer() {
    let setup = Setup::new(Behaviour::answers_early(413));
    setup.on(&sim::Sim::with_seed(1), &sends_all_before_it_reads);
}

#[test]
fn a_response_that_announced_a_close_is_followed_by_one() {
    // The answer begins before the request is whole, so a close is announced; then the request does become whole.
    Setup::new(Behaviour::default()).played(1).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 4\r\n\r\nab").await;
        let mut origin = mesh.accept().await;
        origin.recv_until(b"ab").await;
        origin.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n12").await;
        let head = peer.recv_until(b"\r\n\r\n").await;
        assert!(String::from_utf8(head).unwrap().to_lowercase().contains("connection: close"));
        peer.send("cd").await;
        origin.recv_until(b"cd").await;
        origin.send("34").await;
        assert_eq!(peer.recv_exactly(4).await, b"1234");
        peer.expect_close().await;
    });
}

pub(crate) async fn expect_continue<I: Ground>(mesh: &Mesh<I>) {
    let mut peer = mesh.peer().await;
    for id in 0..3 {
        let ask = Ask::post("shop", "/", id, "a body").header("expect", "100-continue").bytes();
        let (head, body) = ask.split_at(ask.len() - 6);
        peer.send(head).await;
        assert_eq!(peer.recv_until(b"\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
        peer.send(body).await;
        assert_eq!(answers(&mut peer, &["POST"]).await[0].status(), 200);
    }
    assert_eq!(mesh.origin().connections().len(), 1);
}

#[test]
fn a_client_that_expects_100_gets_it_from_the_origin_and_sends_its_body_then() {
    Setup::new(Behaviour::default()).on_sim(expect_continue);
}

#[test]
fn a_final_answer_in_place_of_100_ends_both_connections() {
    Setup::new(Behaviour::answers_early(417)).on_sim(async |mesh| {
        for id in 0..3 {
            let mut peer = mesh.peer().await;
            let ask = Ask::post("shop", "/", id, "a body").header("expect", "100-continue").bytes();
            peer.send(&ask[..ask.len() - 6]).await;
            let answer = answers(&mut peer, &["POST"]).await.remove(0);
            assert_eq!((answer.status(), answer.header("connection")), (417, Some("close")));
            peer.expect_close().await;
        }
        assert_eq!(mesh.origin().connections().len(), 3);
    });
}

#[test]
fn interim_responses_are_passed_on_up_to_a_bound() {
    let hints = |count| "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(count);
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    Setup::new(Behaviour::says(hints(16) + last)).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        let got = peer.recv_until(b"\r\n\r\nok").await;
        assert_eq!(String::from_utf8(got).unwrap().matches("103 Early Hints").count(), 16);
    });
    Setup::new(Behaviour::says(hints(17) + last)).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 502);
    });
}

#[test]
fn a_slow_reader_holds_back_the_origin_and_not_memory() {
    let behaviour = Behaviour { body: bytes(3_000_000), ..Behaviour::default() };
    Setup::new(behaviour).on(&sim::Sim::with_seed(3), &async |mesh: &Mesh<_>| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        mesh.pass(3000 * MS).await;
        assert!(mesh.upstream("upstream_cx_rx_bytes_total") < 400_000);
        assert!(mesh.worker.buffers.out_count() <= 4);
        assert_eq!(answers(&mut peer, &["GET"]).await[0].body, bytes(3_000_000));
    });
}

#[test]
fn a_slow_origin_holds_back_the_client_and_not_memory() {
    let behaviour = Behaviour::reads_slowly(4000, 20 * MS);
    Setup::new(behaviour).on(&sim::Sim::with_seed(3), &async |mesh: &Mesh<_>| {
        let mut client = mesh.client().await;
        let check = async {
            mesh.pass(1000 * MS).await;
            let taken = mesh.http("downstream_cx_rx_bytes_total");
            assert!((100_000..600_000).contains(&taken), "{taken}");
            assert!(mesh.worker.buffers.out_count() <= 4);
        };
        let ask = Ask::post("shop", "/", 1, bytes(1_000_000));
        let (verdict, ()) = sim::both(client.ask(&ask), check).await;
        ok(verdict);
    });
}

#[test]
fn bytes_of_an_upload_that_come_with_the_end_of_the_answer_do_not_hold_the_connection() {
    for seed in 0..40 {
        // Both arrive at one instant, the upload byte by byte, and completions are late: so a receive completes in the
        // very moment in which it is cancelled.
        let sim = sim::Sim::with_seed(seed);
        sim.late_completions(500);
        let by_byte = Faults::both(Way { recv: Pieces::Every(1), ..Way::default() });
        sim.faults(move |link, _| if link.number == 0 { by_byte.clone() } else { Faults::default() });
        Setup::new(Behaviour::default()).played(1).on(&sim, &async |mesh: &Mesh<_>| {
            let mut peer = mesh.peer().await;
            peer.send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 1000\r\n\r\nsome").await;
            let mut origin = mesh.accept().await;
            origin.recv_until(b"some").await;
            let answer = "HTTP/1.1 413 Enough\r\ncontent-length: 0\r\n\r\n";
            sim::both(peer.send("more ".repeat(20)), origin.send(answer)).await;
            let answer = answers(&mut peer, &["POST"]).await.remove(0);
            assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
            peer.expect_close().await;
        });
    }
}

#[test]
fn an_early_answer_is_taken_from_an_upstream_that_takes_nothing_before_it() {
    // It reads on when its answer is out, and neither fits between the two.
    let behaviour = Behaviour { body: vec![7; 20_000], ..Behaviour::answers_early(200) };
    let sim = Sim::with_seed(1);
    sim.faults(|link, _| match link.number {
        0 => Faults::default(),
        _ => Faults::both(Way { buffer_bytes: 512, ..Way::default() }),
    });
    Setup::new(behaviour).on(&sim, &async |mesh: &Mesh<_>| {
        let begun = mesh.io.now();
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::post("shop", "/", 1, vec![3; 20_000])).await);
        assert!(mesh.io.now() - begun < 2_000_000_000, "nothing waited for a timeout");
    });
}
