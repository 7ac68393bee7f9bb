//! Every limit that configuration may set, at it and just beyond.

use std::{num::NonZeroU32, time::Duration};

use policy::network_filter::Underscores;
use runtime::Io;
use sim::{Ask, Behaviour, Client, End, Peer};

use crate::mesh::{Ground, Mesh, Setup, answers, ok, refused};

const MS: Duration = Duration::from_millis(1);

fn plain() -> Setup {
    Setup::new(Behaviour::default())
}

/// A request head with this many header lines, and of this many bytes.
fn head(lines: usize, bytes: Option<usize>) -> Vec<u8> {
    let mut text = "GET / HTTP/1.1\r\nhost: shop\r\n".to_owned();
    (1..lines).for_each(|n| text.push_str(&format!("x-{n}: 1\r\n")));
    if let Some(bytes) = bytes {
        text.push_str(&format!("x-pad: {}\r\n", "p".repeat(bytes - text.len() - "x-pad: \r\n\r\n".len())));
        assert_eq!(text.len() + 2, bytes);
    }
    (text + "\r\n").into_bytes()
}

fn response(lines: usize, bytes: Option<usize>) -> Vec<u8> {
    let mut text = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n".to_owned();
    (1..lines).for_each(|n| text.push_str(&format!("x-{n}: 1\r\n")));
    if let Some(bytes) = bytes {
        text.push_str(&format!("x-pad: {}\r\n", "p".repeat(bytes - text.len() - "x-pad: \r\n\r\n".len())));
    }
    (text + "\r\n").into_bytes()
}

/// What the answer was: its status, and the reason where it is the proxy's own.
async fn outcome<I: Ground>(mesh: &Mesh<I>, request: &[u8]) -> (u16, String) {
    let mut peer = mesh.peer().await;
    peer.send(request).await;
    let answer = answers(&mut peer, &["GET"]).await.remove(0);
    (answer.status(), answer.header("x-ringway-reason").unwrap_or("-").to_owned())
}

#[test]
fn heads_are_taken_up_to_their_limits_and_refused_one_beyond() {
    let bytes_max = |max: usize| plain().manager(move |m| m.request_head_bytes_max = max);
    let lines_max = |max: usize| plain().manager(move |m| m.headers_count_max = max);
    let most = policy::limits::HEADERS_COUNT_MAX;
    for (setup, request, expected) in [
        (bytes_max(1024), head(1, Some(1024)), (200, "-")),
        (bytes_max(1024), head(1, Some(1025)), (431, "head-too-large")),
        (bytes_max(60 * 1024), head(1, Some(60 * 1024)), (200, "-")),
        (bytes_max(60 * 1024), head(1, Some(60 * 1024 + 1)), (431, "head-too-large")),
        (plain(), head(100, None), (200, "-")),
        (plain(), head(101, None), (431, "too-many-headers")),
        (lines_max(5), head(5, None), (200, "-")),
        (lines_max(5), head(6, None), (431, "too-many-headers")),
        (lines_max(most), head(most, None), (200, "-")),
        (lines_max(most), head(most + 1, None), (431, "too-many-headers")),
    ] {
        setup.on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
            let outcome = outcome(mesh, &request).await;
            assert_eq!((outcome.0, &*outcome.1), expected, "{} bytes", request.len());
            assert_eq!(mesh.origin().requests().len(), usize::from(expected.0 == 200));
        });
    }
}

#[test]
fn response_heads_are_taken_up_to_their_limits_and_refused_one_beyond() {
    for (bytes_max, lines_max, response, expected) in [
        (1024, 100, response(1, Some(1024)), (200, "-")),
        (1024, 100, response(1, Some(1025)), (502, "response-malformed")),
        (60 * 1024, 4, response(4, None), (200, "-")),
        (60 * 1024, 4, response(5, None), (502, "response-malformed")),
    ] {
        let setup = Setup::new(Behaviour::says(response)).cluster(|cluster| {
            cluster.response_head_bytes_max = bytes_max;
            cluster.headers_count_max = lines_max;
        });
        setup.on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
            let outcome = outcome(mesh, &head(1, None)).await;
            assert_eq!((outcome.0, &*outcome.1), expected);
        });
    }
}

#[test]
fn header_names_with_an_underscore_are_taken_refused_or_left_out() {
    for (underscores, expected, forwarded) in [
        (Underscores::Allow, (200, "-"), Some("1")),
        (Underscores::Refuse, (400, "header-underscore"), None),
        (Underscores::Drop, (200, "-"), None),
    ] {
        plain().manager(|m| m.underscores = underscores).on_sim(async |mesh| {
            let outcome = outcome(mesh, b"GET / HTTP/1.1\r\nhost: a\r\nX_Id: 1\r\nx-a: b_c\r\n\r\n").await;
            assert_eq!((outcome.0, &*outcome.1), expected);
            let requests = mesh.origin().requests();
            assert_eq!(requests.first().and_then(|request| request.header("x_id")), forwarded);
            assert_eq!(
                requests.first().is_some_and(|request| request.header("x-a") == Some("b_c")),
                expected.0 == 200
            );
        });
    }
}

async fn ask_each<I: Ground>(mesh: &Mesh<I>, client: &mut Client<I>, ids: std::ops::Range<usize>) {
    for id in ids {
        ok(client.ask(&Ask::get("shop", "/", id)).await);
        assert!(!client.is_over(), "{id} of {}", mesh.ledger().len());
    }
}

pub(crate) async fn third_request_is_the_last<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.client().await;
    ask_each(mesh, &mut client, 0..2).await;
    let last = ok(client.ask(&Ask::get("shop", "/", 2)).await);
    assert_eq!(last.header("connection"), Some("close"));
    assert!(client.is_over());
    assert_eq!(mesh.http("downstream_cx_max_requests_reached"), 1);
    // What was pipelined behind it is not run.
    let mut peer = mesh.peer().await;
    peer.send((3..8).flat_map(|id| Ask::get("shop", "/", id).bytes()).collect::<Vec<u8>>()).await;
    assert_eq!(answers(&mut peer, &["GET", "GET", "GET"]).await.len(), 3);
    peer.expect_close().await;
    assert_eq!(mesh.ledger().len(), 6);
}

#[test]
fn a_connection_ends_with_the_last_request_that_it_may_carry() {
    plain().manager(|m| m.max_requests_per_connection = NonZeroU32::new(3)).on_sim(third_request_is_the_last);
}

#[test]
fn an_upstream_connection_carries_as_many_requests_as_it_may() {
    plain().cluster(|c| c.max_requests_per_connection = NonZeroU32::new(2)).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        for (id, connections) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3)] {
            ask_each(mesh, &mut client, id..id + 1).await;
            assert_eq!(mesh.origin().connections().len(), connections);
        }
        assert_eq!(mesh.upstream("upstream_cx_max_requests"), 2);
    });
}

#[test]
fn a_connection_that_has_lived_as_long_as_it_may_ends_between_two_requests_or_with_a_response() {
    let setup = plain().manager(|m| m.max_connection_duration = Some(1000 * MS));
    setup.on_sim(async |mesh| {
        // While it waits: not before, and a request on its way is still answered.
        let mut client = mesh.client().await;
        mesh.pass(800 * MS).await;
        ask_each(mesh, &mut client, 0..1).await;
        mesh.pass(400 * MS).await;
        let last = ok(client.ask(&Ask::get("shop", "/", 1)).await);
        assert_eq!(last.header("connection"), Some("close"));
        let mut peer = mesh.peer().await;
        let begun = mesh.io.now();
        peer.expect_close().await;
        let took = Duration::from_nanos(mesh.io.now() - begun);
        assert!(took >= 1400 * MS && took <= 2200 * MS, "{took:?}");
        // During an exchange: its response says so.
        mesh.origin().behave(Behaviour { think: 1200 * MS, ..Behaviour::default() });
        let mut client = mesh.client().await;
        let last = ok(client.ask(&Ask::get("shop", "/", 2)).await);
        assert_eq!(last.header("connection"), Some("close"));
        assert_eq!(mesh.http("downstream_cx_max_duration_reached"), 3);
    });
}

#[test]
fn an_upstream_connection_that_has_lived_as_long_as_it_may_is_not_used_again() {
    plain().cluster(|c| c.max_connection_duration = Some(1000 * MS)).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        ask_each(mesh, &mut client, 0..1).await;
        mesh.pass(700 * MS).await;
        ask_each(mesh, &mut client, 1..2).await;
        assert_eq!((mesh.origin().connections().len(), mesh.worker.pools.idle_count()), (1, 1));
        mesh.pass(500 * MS).await;
        assert_eq!(mesh.worker.pools.idle_count(), 0, "closed while it was idle");
        ask_each(mesh, &mut client, 2..3).await;
        // And one that is busy then ends with its response.
        mesh.origin().behave(Behaviour { think: 1200 * MS, ..Behaviour::default() });
        ask_each(mesh, &mut client, 3..4).await;
        assert_eq!((mesh.origin().connections().len(), mesh.worker.pools.idle_count()), (2, 0));
        assert_eq!(mesh.upstream("upstream_cx_max_duration_reached"), 1);
    });
}

pub(crate) async fn drips<I: Ground>(mesh: &Mesh<I>) {
    let started = "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 100\r\n\r\n";
    // A byte now and then keeps it alive for no longer.
    let mut peer = mesh.peer().await;
    let begun = mesh.io.now();
    peer.send(started).await;
    for _ in 0..20 {
        if peer.try_send("x").await.is_err() || mesh.http("downstream_rq_timeout") == 1 {
            break;
        }
        mesh.pass(50 * MS).await;
    }
    let took = Duration::from_nanos(mesh.io.now() - begun);
    assert!(took >= 490 * MS && took < 800 * MS, "{took:?}");
    let answer = answers(&mut peer, &["POST"]).await.remove(0);
    assert_eq!((answer.status(), answer.header("x-ringway-reason")), (408, Some("body-timeout")));
    // Nor does a head that takes its time leave the body more of it.
    let mut peer = mesh.peer().await;
    let (first, second) = started.split_at(20);
    peer.send(first).await;
    mesh.pass(300 * MS).await;
    peer.send(second).await;
    mesh.pass(300 * MS).await;
    assert_eq!(answers(&mut peer, &["POST"]).await[0].status(), 408);
    // Just in time is in time.
    let mut peer = mesh.peer().await;
    peer.send(started).await;
    mesh.pass(350 * MS).await;
    peer.send([b'x'; 100]).await;
    assert_eq!(answers(&mut peer, &["POST"]).await[0].status(), 200);
}

#[test]
fn a_request_that_drips_is_given_up_at_the_request_timeout_and_no_byte_prolongs_it() {
    plain().manager(|m| m.request_timeout = Some(500 * MS)).on_sim(drips);
}

#[test]
fn the_request_timeout_ends_with_the_request_or_the_beginning_of_its_response() {
    let setup = plain().manager(|m| m.request_timeout = Some(500 * MS)).played(1);
    setup.on_sim(async |mesh| {
        let mut peer: Peer<_> = mesh.peer().await;
        peer.send("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 4\r\n\r\nab").await;
        let mut server = mesh.accept().await;
        server.recv_until(b"ab").await;
        server.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await;
        peer.recv_until(b"\r\n\r\no").await;
        mesh.pass(800 * MS).await;
        peer.send("cd").await;
        server.recv_until(b"cd").await;
        mesh.pass(800 * MS).await;
        server.send("k").await;
        peer.recv_until(b"k").await;
        peer.expect_close().await;
    });
}

#[test]
fn a_connection_lingers_for_the_delayed_close_timeout_and_no_longer() {
    for timeout in [Duration::ZERO, 300 * MS, 1500 * MS] {
        plain().manager(|m| m.delayed_close_timeout = timeout).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            peer.send("GET / HTTP/1.1\r\n\r\n").await;
            let begun = mesh.io.now();
            assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 400);
            while peer.try_send("more").await.is_ok() && peer.ended() != Some(End::Reset) {
                mesh.pass(20 * MS).await;
                assert!(mesh.io.now() - begun < 10_000_000_000);
            }
            let took = Duration::from_nanos(mesh.io.now() - begun);
            assert!(took + 20 * MS >= timeout && took <= timeout + 400 * MS, "{took:?} for {timeout:?}");
        });
    }
}

#[test]
fn a_client_that_will_send_no_more_is_not_waited_for() {
    let request = |id, behind: &str| {
        let mut bytes = Ask::get("shop", "/", id).header("connection", "close").bytes();
        bytes.extend_from_slice(behind.as_bytes());
        bytes
    };
    plain().manager(|m| m.delayed_close_timeout = 3000 * MS).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(request(1, "")).await;
        answers(&mut peer, &["GET"]).await;
        let begun = mesh.io.now();
        mesh.until("it is closed", |mesh| mesh.worker.is_idle()).await;
        assert!(mesh.io.now() - begun < 1_000_000_000);

        // It does not keep its word: an answer that is on its way is not to be destroyed.
        mesh.origin().behave(Behaviour { think: 200 * MS, ..Behaviour::default() });
        let mut peer = mesh.peer().await;
        peer.send(request(2, "GET / HTTP/1.1\r\n")).await;
        answers(&mut peer, &["GET"]).await;
    });
}

#[test]
fn an_idle_connection_whose_listener_goes_waits_for_the_drain_timeout() {
    for timeout in [Duration::ZERO, 400 * MS, 4000 * MS] {
        plain().manager(|m| m.drain_timeout = timeout).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            peer.send(Ask::get("shop", "/", 1).bytes()).await;
            answers(&mut peer, &["GET"]).await;
            mesh.adopt(|config| config.is_listening = false).await;
            let begun = mesh.io.now();
            peer.expect_close().await;
            let took = Duration::from_nanos(mesh.io.now() - begun);
            assert!(took + 20 * MS >= timeout / 2 && took <= timeout + 200 * MS, "{took:?} for {timeout:?}");
        });
    }
}

/// What happens just before a time is over is in time, and what happens just after is not.
#[test]
fn what_is_in_time_is_served_and_what_is_late_is_not() {
    const T: Duration = Duration::from_millis(500);
    for (late, wait) in [(false, 350 * MS), (true, 700 * MS)] {
        // The head.
        plain().manager(|m| m.request_headers_timeout = Some(T)).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            peer.send("GET / HTTP/1.1\r\nhost: ").await;
            mesh.pass(wait).await;
            let _ = peer.try_send("shop\r\n\r\n").await;
            assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), if late { 408 } else { 200 });
        });
        // The next request.
        plain().manager(|m| m.idle_timeout = Some(T)).on_sim(async |mesh| {
            let mut client = mesh.client().await;
            ok(client.ask(&Ask::get("shop", "/", 1)).await);
            mesh.pass(wait).await;
            match late {
                false => drop(ok(client.ask(&Ask::get("shop", "/", 2)).await)),
                true => assert_eq!(mesh.http("downstream_cx_idle_timeout"), 1),
            }
        });
        // The response: at all, and without a pause.
        let thinks = Behaviour { think: wait, ..Behaviour::default() };
        for (setup, reason) in [
            (Setup::new(thinks.clone()).forward(|f| f.timeout = Some(T)), "upstream-timeout"),
            (
                Setup::new(thinks).forward(|f| f.timeout = None).manager(|m| m.stream_idle_timeout = Some(T)),
                "stream-idle",
            ),
        ] {
            setup.on_sim(async |mesh| {
                let verdict = mesh.client().await.ask(&Ask::get("shop", "/", 1)).await;
                match late {
                    false => drop(ok(verdict)),
                    true => assert_eq!(refused(verdict), (504, reason.to_owned())),
                }
            });
        }
    }
}
