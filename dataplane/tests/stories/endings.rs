//! Upstream connections that cannot be made, or end where they should not.

use std::time::Duration;

use sim::{
    Ask, Behaviour, Cut, End, Faults, Loss, Sim, SimIo, Verdict, Way,
    origin::{AnswerFraming, Origin},
};

use crate::mesh::{Ground, Mesh, Setup, forward_to, ok, refused, route};

const MS: Duration = Duration::from_millis(1);

/// A client's view of an answer that upstream cut after `cut` bytes, of which the first `head_bytes` are the head.
fn check_cut(verdict: Verdict, cut: u64, head_bytes: u64, end: End) {
    match (verdict, cut) {
        (Verdict::Refused(answer), 0) => {
            let reason = answer.header("x-ringway-reason").unwrap().to_owned();
            let expected = if end == End::Close { "upstream-closed" } else { "upstream-reset" };
            assert_eq!((answer.status(), &reason[..]), (503, expected));
        }
        (Verdict::Refused(answer), cut) if cut < head_bytes => {
            let reason = answer.header("x-ringway-reason");
            assert_eq!((answer.status(), reason), (502, Some("response-malformed")), "cut after {cut}");
        }
        (Verdict::Lost(Loss::Ended(_)), cut) if cut >= head_bytes => {}
        (verdict, cut) => panic!("cut after {cut} of {head_bytes} by {end:?}: {verdict:?}"),
    }
}

#[test]
fn an_answer_that_is_cut_anywhere_is_never_taken_for_a_whole_one() {
    for framing in [AnswerFraming::Length, AnswerFraming::Chunked(4)] {
        let whole = Behaviour { framing, body: b"0123456789".to_vec(), ..Behaviour::default() };
        for end in [End::Close, End::Reset] {
            let mut head_bytes = 0;
            let mut cut = 0;
            loop {
                let behaviour = Behaviour { answer_cut: Some(sim::Cut { bytes: cut, end }), ..whole.clone() };
                let mut is_whole = false;
                let seeds = if cut % 16 == 0 { 0..8 } else { 0..2 };
                for seed in seeds {
                    let sim = if seed == 0 { Sim::with_seed(0) } else { Sim::rough(seed) };
                    let told = std::cell::Cell::new((head_bytes, false));
                    Setup::new(behaviour.clone()).on(&sim, &async |mesh: &Mesh<_>| {
                        let mut client = mesh.client().await;
                        if head_bytes == 0 {
                            mesh.origin().behave(whole.clone());
                            let mut peer = mesh.peer().await;
                            peer.send(Ask::get("shop", "/", 1).bytes()).await;
                            let head = peer.recv_until(b"\r\n\r\n").await;
                            told.set((head.len() as u64, false));
                            mesh.origin().behave(behaviour.clone());
                            peer.recv_some().await;
                            drop(peer);
                            // A connection of its own, so that nothing is tried again.
                            mesh.origin().behave(Behaviour { idle_max: Some(MS), ..behaviour.clone() });
                            mesh.pass(10 * MS).await;
                        }
                        let head_bytes = told.get().0;
                        match client.ask(&Ask::post("shop", "/", 1, "")).await {
                            Verdict::Ok(_) => told.set((head_bytes, true)),
                            verdict => check_cut(verdict, cut, head_bytes, end),
                        }
                        assert!(mesh.ledger()["1"] <= 2);
                    });
                    head_bytes = told.get().0;
                    is_whole |= told.get().1;
                }
                if is_whole {
                    break;
                }
                cut += 1;
            }
            assert!(head_bytes > 100 && cut > head_bytes, "every byte was tried");
        }
    }
}

#[test]
fn a_body_until_close_that_is_reset_is_never_taken_for_a_whole_one() {
    for cut in [150, 160, 170] {
        let behaviour = Behaviour {
            framing: AnswerFraming::UntilClose,
            then: sim::origin::Then::Close,
            body: vec![1; 1000],
            ..Behaviour::ends_after_answer_bytes(cut, End::Reset)
        };
        Setup::new(behaviour).on_sim(async |mesh| {
            let mut client = mesh.client().await;
            let verdict = client.ask(&Ask::get("shop", "/", 1)).await;
            assert!(matches!(verdict, Verdict::Lost(Loss::Ended(_))), "{cut}: {verdict:?}");
        });
    }
}

#[test]
fn a_request_that_upstream_cuts_is_answered_and_not_repeated() {
    for end in [End::Close, End::Reset] {
        for bytes in [1, 50, 5000] {
            Setup::new(Behaviour::ends_after_request_bytes(bytes, end)).on_sim(async |mesh| {
                let mut client = mesh.client().await;
                let (status, reason) = refused(client.ask(&Ask::post("shop", "/", 1, vec![3; 20_000])).await);
                assert!(status == 503 && reason.starts_with("upstream-"), "{status} {reason}");
                assert_eq!(mesh.origin().connections().len(), 1);
            });
        }
    }
}

pub(crate) async fn moves_to_another_endpoint<I: Ground>(mesh: &Mesh<I>) {
    for id in 0..6 {
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::post("shop", "/", id, "pay")).await);
        mesh.origin().behave(Behaviour { then: sim::origin::Then::Close, ..Behaviour::default() });
    }
    assert!(mesh.upstream("upstream_rq_retry") > 0);
    assert!(mesh.ledger().into_values().eq([1; 6]));
}

#[test]
fn a_connect_that_fails_moves_the_request_to_another_endpoint() {
    Setup::new(Behaviour::default()).nobodies(1).on_sim(moves_to_another_endpoint);
}

pub(crate) async fn nobody_is_there<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.client().await;
    for id in 0..3 {
        let verdict = client.ask(&Ask::get("shop", "/", id)).await;
        assert_eq!(refused(verdict), (503, "connect-failed".to_owned()));
    }
    assert!(!client.is_over(), "a request without body leaves the connection whole");
    let verdict = client.ask(&Ask::post("shop", "/", 4, "pay")).await;
    assert_eq!(refused(verdict), (503, "connect-failed".to_owned()));
    // Three endpoints, and the route allows two more tries after the first.
    assert_eq!(mesh.upstream("upstream_cx_connect_fail"), 4 * 3);
    assert_eq!(mesh.upstream("upstream_rq_retry"), 4 * 2);
}

#[test]
fn when_no_endpoint_can_be_reached_the_answer_is_503() {
    Setup::new(Behaviour::default()).without_origins().nobodies(3).on_sim(nobody_is_there);
}

/// Breaks every new connection to the first `count` origins before a byte has passed.
fn break_at_connect(sim: &Sim, mesh: &Mesh<SimIo>, count: usize, end: End) {
    let broken: Vec<_> = mesh.origins.iter().take(count).map(Origin::address).collect();
    sim.faults(move |link, _| match broken.contains(&link.to) {
        true => {
            Faults { up: Way { cut: Some(Cut { bytes: 0, end }), ..Way::default() }, ..Faults::default() }
        }
        false => Faults::default(),
    });
}

#[test]
fn a_new_connection_that_breaks_before_it_takes_a_byte_is_like_one_that_cannot_be_made() {
    // No connection is pooled, so that each exchange begins with a new one.
    let closes = || Behaviour { then: sim::origin::Then::Close, ..Behaviour::default() };
    let setup = Setup::new(closes()).origin(closes()).origin(closes());
    Sim::each(|sim| {
        setup.on(sim, &async |mesh| {
            break_at_connect(sim, mesh, 2, End::Reset);
            for id in 0..6 {
                ok(mesh.client().await.ask(&Ask::post("shop", "/", id, "pay")).await);
            }
            assert!(mesh.upstream("upstream_rq_retry") > 0);
            assert!(mesh.ledger().into_values().eq([1; 6]));
        });
    });
    Sim::each(|sim| {
        setup.on(sim, &async |mesh| {
            break_at_connect(sim, mesh, 3, End::Reset);
            let mut client = mesh.client().await;
            let verdict = client.ask(&Ask::post("shop", "/", 1, "pay")).await;
            assert_eq!(refused(verdict), (503, "upstream-reset".to_owned()));
            // The route allows two more tries after the first, as where no connection can be made.
            assert_eq!(mesh.upstream("upstream_cx_total"), 3);
            assert_eq!(mesh.upstream("upstream_rq_retry"), 2);
        });
    });
}

#[test]
fn bytes_that_a_new_connection_took_are_no_proof_that_nobody_saw_them() {
    for bytes in [1, 10] {
        let cut = Behaviour { request_cut: Some(Cut { bytes, end: End::Close }), ..Behaviour::default() };
        Sim::each(|sim| {
            Setup::new(cut.clone()).origin(cut.clone()).on(sim, &async |mesh| {
                let verdict = mesh.client().await.ask(&Ask::post("shop", "/", 1, "pay")).await;
                // A close in the face of bytes may be seen as either.
                let (status, reason) = refused(verdict);
                assert!(status == 503 && ["upstream-closed", "upstream-reset"].contains(&&*reason));
                assert_eq!(mesh.upstream("upstream_cx_total"), 1);
            });
        });
    }
}

#[test]
fn what_the_configuration_does_not_know_is_answered_as_such() {
    let setup = Setup::new(Behaviour::default()).without_origins();
    setup.clone().on_sim(async |mesh| {
        let verdict = mesh.client().await.ask(&Ask::get("shop", "/", 1)).await;
        assert_eq!(refused(verdict), (503, "no-healthy-endpoint".to_owned()));
    });
    setup.routes(|| vec![route("/known", forward_to("unknown"))]).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let verdict = client.ask(&Ask::get("shop", "/known", 1)).await;
        assert_eq!(refused(verdict), (503, "unknown-cluster".to_owned()));
        let verdict = client.ask(&Ask::get("shop", "/", 2)).await;
        assert_eq!(refused(verdict), (404, "no-route".to_owned()));
        assert!(!client.is_over());
    });
}

#[test]
fn a_client_that_goes_away_takes_its_upstream_connection_with_it() {
    let behaviour = Behaviour { body: vec![5; 2_000_000], ..Behaviour::default() };
    Setup::new(behaviour).on(&Sim::with_seed(5), &async |mesh: &Mesh<_>| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        peer.recv_exactly(1000).await;
        peer.reset();
        mesh.until("upstream closed", |mesh| mesh.origin().connections()[0].is_over).await;
    });
}

#[test]
fn a_client_that_goes_away_during_its_upload_takes_its_upstream_connection_with_it() {
    for end in [End::Close, End::Reset] {
        Setup::new(Behaviour::default()).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            let ask = Ask::post("shop", "/", 1, vec![5; 10_000]).bytes();
            peer.send(&ask[..5000]).await;
            mesh.until("the upload begins", |mesh| !mesh.origin().connections().is_empty()).await;
            match end {
                End::Reset => peer.reset(),
                End::Close => {
                    peer.shutdown();
                    let got = peer.recv_to_end().await;
                    assert!(got.bytes.starts_with(b"HTTP/1.1 400 "), "{}", got.bytes.escape_ascii());
                    assert_eq!(got.end, End::Close);
                }
            }
            mesh.until("upstream closed", |mesh| mesh.origin().connections()[0].is_over).await;
            assert!(mesh.origin().connections()[0].requests.is_empty());
        });
    }
}

#[test]
fn a_cut_is_a_reset_also_where_the_end_of_a_body_is_the_end_of_the_connection() {
    for end in [End::Close, End::Reset] {
        let behaviour =
            Behaviour { framing: AnswerFraming::Chunked(100), body: vec![7; 1000], ..Behaviour::default() };
        Setup::new(behaviour.clone()).on_sim(async |mesh| {
            mesh.origin().behave(behaviour.clone());
            let ask = "GET / HTTP/1.0\r\nhost: shop\r\n\r\n";
            let mut peer = mesh.peer().await;
            peer.send(ask).await;
            let whole = peer.recv_to_end().await;
            assert!(whole.bytes.ends_with(&[7; 1000]) && whole.end == End::Close, "{whole:?}");
            let cut = Some(sim::Cut { bytes: 700, end });
            mesh.origin().behave(Behaviour { answer_cut: cut, ..behaviour.clone() });
            let mut peer = mesh.peer().await;
            peer.send(ask).await;
            let got = peer.recv_to_end().await;
            assert!(got.bytes.len() < whole.bytes.len() && got.end == End::Reset, "{got:?}");
        });
    }
}
