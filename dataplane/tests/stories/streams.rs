//! HTTP/2 on one side or both: what is asked arrives, and what is answered.

use std::time::Duration;

use sim::{
    Ask, Behaviour, Cut, End, Loss, StreamBehaviour, StreamConfig, Verdict,
    origin::{Answer, AnswerFraming, Then},
};

use crate::mesh::{Asker, Pairing, Setup, ok};

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn bodies_go_both_ways_whole_in_every_pairing() {
    for pairing in Pairing::with_streams() {
        // The windows are smaller than what goes through them.
        for (has_length, window_bytes) in [(true, 65_535), (false, 1000)] {
            let config = StreamConfig { window_bytes, ..StreamConfig::default() };
            let behaviour =
                StreamBehaviour { body: body(2500), has_length, config, ..StreamBehaviour::default() };
            pairing.setup(behaviour).on_sim(async |mesh| {
                let mut asker = pairing.asker(mesh).await;
                ok(asker.ask(&Ask::get("shop", "/", 1)).await);
                ok(asker.ask(&Ask::post("shop", "/", 2, body(3000))).await);
                ok(asker.ask(&Ask::post("shop", "/", 3, body(1000)).chunked(100)).await);
                ok(asker.ask(&Ask::post("shop", "/", 4, "")).await);
                let head = Ask { method: "HEAD".to_owned(), ..Ask::get("shop", "/", 5) };
                assert_eq!(ok(asker.ask(&head).await).body, b"");
                assert!(mesh.ledger().into_values().eq([1; 5]), "{pairing:?}");
            });
        }
    }
}

#[test]
fn an_early_answer_is_given_while_the_upload_goes_on() {
    for pairing in Pairing::with_streams() {
        let behaviour = StreamBehaviour { answer: Answer::AtHead, status: 413, ..StreamBehaviour::default() };
        pairing.setup(behaviour).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            let answer = ok(asker.ask(&Ask::post("shop", "/", 1, body(10_000))).await);
            assert_eq!(answer.status(), 413);
        });
    }
}

#[test]
fn requests_side_by_side_get_their_own_answers() {
    for up in [true, false] {
        let pairing = Pairing { down: true, up };
        let behaviour = StreamBehaviour { body: body(300), ..StreamBehaviour::default() };
        pairing.setup(behaviour).on_sim(async |mesh| {
            let streams = mesh.streams().await;
            let asks: Vec<Ask> = (0..20).map(|id| Ask::post("shop", "/", id, body(id * 50))).collect();
            let mut begun = Vec::new();
            for ask in &asks {
                begun.push(streams.begin(ask).await.unwrap());
            }
            mesh.pass(Duration::from_millis(1)).await;
            for (stream, ask) in begun.iter().zip(&asks).rev() {
                stream.send(ask.body.as_ref().unwrap(), true).await;
            }
            for (stream, ask) in begun.iter().zip(&asks) {
                ok(stream.verdict(ask).await);
            }
            assert!(mesh.ledger().into_values().eq([1; 20]), "{pairing:?}");
        });
    }
}

#[test]
fn interim_heads_and_trailers_go_through() {
    for down in [true, false] {
        let behaviour = StreamBehaviour {
            interims: vec![103, 103],
            trailers: vec![("x-sum".to_owned(), "12".to_owned())],
            has_length: false,
            ..StreamBehaviour::default()
        };
        let pairing = Pairing { down, up: true };
        pairing.setup(behaviour).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            if let Asker::Streams(streams) = &asker {
                let ask = Ask::get("shop", "/", 0).header("te", "trailers");
                let stream = streams.begin(&ask).await.unwrap();
                ok(stream.verdict(&ask).await);
                assert_eq!(stream.interims(), [103, 103]);
            }
            let answer = ok(asker.ask(&Ask::get("shop", "/", 1).header("te", "trailers")).await);
            assert_eq!(answer.trailers, [("x-sum".to_owned(), "12".to_owned())]);
        });
    }
}

#[test]
fn trailers_of_a_request_go_up_with_it() {
    for up in [true, false] {
        let pairing = Pairing { down: true, up };
        pairing.setup(StreamBehaviour::default()).on_sim(async |mesh| {
            let streams = mesh.streams().await;
            let ask = Ask::post("shop", "/", 1, "pay").chunked(1);
            let stream = streams.begin(&ask).await.unwrap();
            assert!(stream.send(b"pay", false).await);
            stream.send_end(&[("x-sum", "12")]);
            ok(stream.verdict(&ask).await);
            let requests = if up { mesh.stream_origin().requests() } else { mesh.origin().requests() };
            assert_eq!(requests[0].trailers, [("x-sum".to_owned(), "12".to_owned())]);
        });
    }
}

#[test]
fn what_nobody_knows_of_a_length_ends_where_its_stream_does() {
    // A response until close, and one in chunks, over a connection; without a length on a stream.
    for framing in [AnswerFraming::UntilClose, AnswerFraming::Chunked(7)] {
        let then = if framing == AnswerFraming::UntilClose { Then::Close } else { Then::KeepAlive };
        let behaviour = Behaviour { framing, then, body: body(500), ..Behaviour::default() };
        Setup::new(behaviour).on_sim(async |mesh| {
            let streams = mesh.streams().await;
            for id in 0..3 {
                ok(streams.ask(&Ask::get("shop", "/", id)).await);
            }
            mesh.origin().behave(Behaviour {
                framing,
                then,
                body: body(500),
                answer_cut: Some(Cut { bytes: 400, end: End::Reset }),
                ..Behaviour::default()
            });
            let verdict = streams.ask(&Ask::post("shop", "/", 4, "")).await;
            assert!(matches!(verdict, Verdict::Lost(Loss::Reset(_))), "{verdict:?}");
            assert!(!streams.is_over(), "the others go on");
        });
    }
}
