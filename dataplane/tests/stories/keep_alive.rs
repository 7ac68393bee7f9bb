//! Many requests over one connection on each side, and what becomes of connections that wait.

use std::time::Duration;

use sim::{Ask, Behaviour, Cut, End, Ended, Rng, Sim, Verdict, origin::Then};

use crate::mesh::{Ground, Mesh, Setup, answers, ok, refused};

const MS: Duration = Duration::from_millis(1);

pub(crate) async fn requests_share_connections<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.client().await;
    for id in 0..20 {
        ok(client.ask(&Ask::get("shop", "/a", id)).await);
    }
    assert!(!client.is_over());
    assert_eq!(mesh.origin().connections().len(), 1, "one upstream connection carries them all");
    assert!(mesh.ledger().into_values().eq([1; 20]));
}

#[test]
fn requests_of_one_connection_share_one_upstream_connection() {
    Setup::new(Behaviour::default()).on_sim(requests_share_connections);
}

pub(crate) async fn pipelined_requests<I: Ground>(mesh: &Mesh<I>) {
    let mut peer = mesh.peer().await;
    let asks = [
        Ask::get("shop", "/0", 0),
        Ask::post("shop", "/1", 1, "a body"),
        Ask::post("shop", "/2", 2, vec![7; 3000]).chunked(100),
        Ask { method: "HEAD".to_owned(), ..Ask::get("shop", "/3", 3) },
        Ask::get("shop", "/4", 4),
    ];
    let bytes: Vec<u8> = asks.iter().flat_map(Ask::bytes).collect();
    peer.send(bytes).await;
    peer.shutdown();
    let answers = answers(&mut peer, &["GET", "POST", "POST", "HEAD", "GET"]).await;
    let ids: Vec<_> = answers.iter().map(|answer| answer.header("x-ledger-id").unwrap()).collect();
    assert_eq!(ids, ["0", "1", "2", "3", "4"]);
    peer.expect_close().await;
    assert!(mesh.ledger().into_values().eq([1; 5]));
}

#[test]
fn pipelined_requests_are_answered_in_order_also_behind_a_half_close() {
    Setup::new(Behaviour::default()).on_sim(pipelined_requests);
}

pub(crate) async fn half_close_after_the_request<I: Ground>(mesh: &Mesh<I>) {
    for ask in [Ask::get("shop", "/", 1), Ask::post("shop", "/", 2, vec![1; 5000])] {
        let mut peer = mesh.peer().await;
        peer.send(ask.bytes()).await;
        peer.shutdown();
        let Ended { bytes, end } = peer.recv_to_end().await;
        assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"ok\n"), "{}", bytes.escape_ascii());
        assert_eq!(end, End::Close);
    }
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_the_response() {
    Setup::new(Behaviour { think: 50 * MS, ..Behaviour::default() }).on_sim(half_close_after_the_request);
}

#[test]
fn a_pooled_connection_that_upstream_closes_is_gone_before_the_next_request() {
    let closing = [
        Behaviour { idle_max: Some(100 * MS), ..Behaviour::default() },
        Behaviour { then: Then::CloseUnannounced, ..Behaviour::default() },
    ];
    for behaviour in closing {
        // Before and after the moment in which an idle connection gives up its buffer.
        for pause in [200 * MS, 3000 * MS] {
            Setup::new(behaviour.clone()).on_sim(async |mesh| {
                let mut client = mesh.client().await;
                for id in 0..5 {
                    ok(client.ask(&Ask::post("shop", "/", id, "pay")).await);
                    mesh.pass(pause).await;
                    assert_eq!(mesh.worker.pools.idle_count(), 0);
                }
                assert_eq!(mesh.upstream("upstream_rq_retry"), 0);
                assert_eq!(mesh.origin().connections().len(), 5);
            });
        }
    }
}

#[test]
fn a_pooled_connection_is_used_again_after_it_gave_up_its_buffer() {
    Setup::new(Behaviour::default()).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        for id in 0..4 {
            ok(client.ask(&Ask::get("shop", "/", id)).await);
            mesh.until("idle connections hold no buffer", |mesh| mesh.worker.buffers.out_count() == 0).await;
        }
        assert_eq!(mesh.origin().connections().len(), 1);
    });
}

#[test]
fn a_pooled_connection_is_closed_after_its_idle_timeout() {
    for timeout in [300 * MS, 5000 * MS] {
        Setup::new(Behaviour::default()).cluster(|c| c.idle_timeout = Some(timeout)).on_sim(async |mesh| {
            let mut client = mesh.client().await;
            ok(client.ask(&Ask::get("shop", "/", 1)).await);
            mesh.pass(timeout * 9 / 10).await;
            assert_eq!(mesh.worker.pools.idle_count(), 1);
            mesh.pass(timeout / 5 + 20 * MS).await;
            assert_eq!(mesh.worker.pools.idle_count(), 0);
            ok(client.ask(&Ask::get("shop", "/", 2)).await);
        });
    }
}

/// FAILURES UP-01: the origin closes idle connections at the moment at which requests come.
#[test]
fn in_a_race_with_a_close_a_get_never_fails_and_a_post_is_never_sent_twice() {
    let idle = 20 * MS;
    for seed in 0..200 {
        let sim = if seed % 4 == 0 { Sim::with_seed(seed) } else { Sim::rough(seed) };
        let setup = Setup::new(Behaviour { idle_max: Some(idle), ..Behaviour::default() });
        setup.on(&sim, &async |mesh: &Mesh<_>| {
            let mut rng = Rng::new(seed);
            let mut client = mesh.client().await;
            for id in 0..20 {
                let is_post = id % 2 == 0;
                let ask = match is_post {
                    true => Ask::post("shop", "/", id, "pay"),
                    false => Ask::get("shop", "/", id),
                };
                match client.ask(&ask).await {
                    Verdict::Ok(_) => {}
                    verdict if is_post => {
                        let (status, reason) = refused(verdict);
                        assert!(status == 503 && reason.starts_with("upstream-"), "{status} {reason}");
                        client = mesh.client().await;
                    }
                    verdict => panic!("seed {seed}: a GET failed: {verdict:?}"),
                }
                mesh.pass(idle - 6 * MS + Duration::from_micros(rng.below(12_000))).await;
            }
            assert!(mesh.ledger().into_values().all(|count| count == 1), "seed {seed}");
        });
    }
}

/// Thousands of requests through connections that break anywhere.
#[test]
fn whatever_the_origins_do_no_answer_is_crossed_or_cut_and_no_post_is_doubled() {
    for seed in 0..40 {
        let sim = if seed % 4 == 0 { Sim::with_seed(seed) } else { Sim::rough(seed) };
        let setup = Setup::new(Behaviour::default()).origin(Behaviour::default());
        setup.on(&sim, &async |mesh: &Mesh<_>| {
            let mut rng = Rng::new(seed);
            let mut clients = Vec::new();
            for _ in 0..4 {
                clients.push(mesh.client().await);
            }
            for id in 0..100 {
                let at = rng.below(4) as usize;
                if clients[at].is_over() {
                    clients[at] = mesh.client().await;
                }
                mesh.origins[rng.below(2) as usize].behave(any_behaviour(&mut rng));
                let size = rng.pick(&[0usize, 3, 500, 4000]);
                let ask = match rng.below(3) {
                    0 => Ask::get("shop", "/", format!("g{id}")),
                    1 => Ask::post("shop", "/", id, vec![id as u8; size]),
                    _ => Ask::post("shop", "/", id, vec![id as u8; size]).chunked(1 + size / 3),
                };
                let verdict = clients[at].ask(&ask).await;
                let is_bad = matches!(verdict, Verdict::Cross(_) | Verdict::Truncated(_));
                assert!(!is_bad, "seed {seed}, request {id}: {verdict:?}");
            }
            for (id, count) in mesh.ledger() {
                assert!(count == 1 || id.starts_with('g'), "seed {seed}: {id} ran {count} times");
            }
        });
    }
}

fn any_behaviour(rng: &mut Rng) -> Behaviour {
    let end = rng.pick(&[End::Close, End::Reset]);
    let body = vec![9; rng.pick(&[0usize, 3, 1000])];
    let behaviour = Behaviour { body, ..Behaviour::default() };
    match rng.below(8) {
        0 => Behaviour { then: Then::Close, ..behaviour },
        1 => Behaviour { then: Then::CloseUnannounced, ..behaviour },
        2 => Behaviour { answer_cut: Some(Cut { bytes: rng.below(400), end }), ..behaviour },
        3 => Behaviour { request_cut: Some(Cut { bytes: rng.below(1000), end }), ..behaviour },
        4 => Behaviour { then: Then::HalfClose, ..behaviour },
        5 => Behaviour { framing: sim::origin::AnswerFraming::Chunked(7), ..behaviour },
        6 => Behaviour { answer: sim::origin::Answer::AtHead, ..behaviour },
        _ => behaviour,
    }
}
