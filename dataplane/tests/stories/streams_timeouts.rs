//! Timeouts where HTTP/2 is spoken, and what gRPC is told.

use std::time::Duration;

use policy::route::GrpcTimeout;
use sim::{Ask, Loss, StreamBehaviour, StreamConfig, Streams, Verdict, http::Message, origin::Answer};

use crate::mesh::{Ground, Mesh, Pairing, Setup, ok, refused};

const MS: Duration = Duration::from_millis(1);

fn never() -> StreamBehaviour {
    StreamBehaviour { answer: Answer::Never, ..StreamBehaviour::default() }
}

/// How long something took.
async fn timed<I: Ground, T>(mesh: &Mesh<I>, what: impl Future<Output = T>) -> (Duration, T) {
    let begun = mesh.io.now();
    let result = what.await;
    (Duration::from_nanos(mesh.io.now() - begun), result)
}

#[track_caller]
fn about(took: Duration, expected: Duration) {
    assert!(took + 10 * MS >= expected, "{took:?} is before {expected:?}");
    assert!(took <= expected * 11 / 10 + 150 * MS, "{took:?} is long after {expected:?}");
}

#[test]
fn an_origin_that_never_answers_is_given_up_in_every_pairing() {
    for pairing in Pairing::with_streams() {
        pairing.setup(never()).forward(|f| f.timeout = Some(500 * MS)).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            let (took, verdict) = timed(mesh, asker.ask(&Ask::post("shop", "/", 1, "pay"))).await;
            assert_eq!(refused(verdict), (504, "upstream-timeout".to_owned()));
            about(took, 500 * MS);
            if pairing.up {
                mesh.until("upstream knows", |mesh| mesh.stream_origin().running() == 0).await;
                assert!(!mesh.stream_origin().connections()[0].is_over, "the connection lives on");
                mesh.stream_origin().behave(StreamBehaviour::default());
            } else {
                mesh.origin().behave(sim::Behaviour::default());
            }
            // A request with a body ends a connection of HTTP/1.1.
            let mut asker = pairing.asker(mesh).await;
            ok(asker.ask(&Ask::get("shop", "/", 2)).await);
        });
    }
}

#[test]
fn an_upload_that_does_not_come_is_given_up() {
    for up in [true, false] {
        let setup = Pairing { down: true, up }.setup(StreamBehaviour::default());
        setup.clone().manager(|m| m.request_timeout = Some(500 * MS)).on_sim(async |mesh| {
            let streams = mesh.streams().await;
            let ask = Ask::post("shop", "/", 1, "pay");
            let stream = streams.begin(&ask).await.unwrap();
            stream.send(b"p", false).await;
            let (took, verdict) = timed(mesh, stream.verdict(&ask)).await;
            assert_eq!(refused(verdict), (408, "body-timeout".to_owned()));
            about(took, 500 * MS);
            ok(streams.ask(&Ask::post("shop", "/", 2, "pay")).await);
            assert_eq!(mesh.ledger().len(), 1);
        });
        setup.manager(|m| m.stream_idle_timeout = Some(500 * MS)).on_sim(async |mesh| {
            let streams = mesh.streams().await;
            let ask = Ask::post("shop", "/", 1, "pay");
            let stream = streams.begin(&ask).await.unwrap();
            let (took, verdict) = timed(mesh, stream.verdict(&ask)).await;
            assert_eq!(refused(verdict), (504, "stream-idle".to_owned()));
            about(took, 500 * MS);
        });
    }
}

#[test]
fn a_window_that_stays_shut_ends_its_stream_and_no_other() {
    for pairing in [Pairing { down: true, up: true }, Pairing { down: true, up: false }] {
        // All of it has come from upstream; only the client's window is in its way.
        let setup = pairing.setup(StreamBehaviour { body: vec![7; 5000], ..StreamBehaviour::default() });
        let setup = setup.forward(|f| f.timeout = None);
        setup.manager(|m| m.stream_idle_timeout = Some(500 * MS)).on_sim(async |mesh| {
            let config = StreamConfig { window_bytes: 1000, ..StreamConfig::default() };
            let streams = Streams::connect(&mesh.io, mesh.proxy, config).await;
            let stream = streams.begin(&Ask::get("shop", "/", 1)).await.unwrap();
            stream.hold();
            let (took, loss) = timed(mesh, stream.until_gone()).await;
            assert!(matches!(loss, Loss::Reset(_)), "{loss:?}");
            about(took, 500 * MS);
            assert_eq!(stream.body().len(), 1000);
            ok(streams.ask(&Ask::get("shop", "/", 2)).await);
        });
    }
}

#[test]
fn an_answer_of_our_own_waits_for_no_window_for_ever() {
    let setup = Pairing { down: true, up: true }.setup(StreamBehaviour::default()).routes(Vec::new);
    setup.on_sim(async |mesh| {
        let config = StreamConfig { window_bytes: 0, ..StreamConfig::default() };
        let streams = Streams::connect(&mesh.io, mesh.proxy, config).await;
        let begun = [
            streams.begin(&Ask::get("shop", "/", 1)).await.unwrap(),
            streams.begin(&Ask::get("shop", "/", 2)).await.unwrap(),
        ];
        for stream in &begun {
            assert_eq!(stream.head().await.unwrap().status(), 404);
            assert!(matches!(stream.until_gone().await, Loss::Reset(_)));
        }
        mesh.until("they are over", |mesh| mesh.http("downstream_rq_active") == 0).await;
    });
}

#[test]
fn a_stream_lasts_no_longer_than_it_may_whatever_moves() {
    for pairing in Pairing::with_streams() {
        let setup = pairing.played().forward(|f| f.timeout = None);
        setup.manager(|m| m.max_stream_duration = Some(500 * MS)).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            let asking = async { asker.ask(&Ask::get("shop", "/", 1)).await };
            let playing = async {
                if pairing.up {
                    let origin = mesh.accept_streams(StreamConfig::default()).await;
                    let stream = origin.arrived().await.unwrap();
                    stream.respond(200, &[], false);
                    while stream.gone().is_none() {
                        stream.send(b"x", false).await;
                        mesh.pass(50 * MS).await;
                    }
                } else {
                    let mut origin = mesh.accept().await;
                    origin.recv_until(b"\r\n\r\n").await;
                    origin.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                    while origin.try_send("1\r\nx\r\n").await.is_ok() {
                        mesh.pass(50 * MS).await;
                    }
                }
            };
            let (took, (verdict, ())) = timed(mesh, sim::both(asking, playing)).await;
            assert!(matches!(verdict, Verdict::Lost(Loss::Reset(_) | Loss::Ended(_))), "{verdict:?}");
            assert!(took < 900 * MS, "{took:?}");
        });
    }
}

/// GOAWAY of a connection without a stream, SETTINGS_TIMEOUT.
const NOT_HEARD: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4];

#[test]
fn an_upstream_that_never_says_what_it_takes_is_as_one_that_cannot_be_reached() {
    for has_other in [false, true] {
        let setup = Pairing { down: true, up: true }.played().forward(|f| f.timeout = None);
        let setup = setup.cluster(|cluster| cluster.connect_timeout = 500 * MS);
        let setup = if has_other { setup.stream_origin(StreamBehaviour::default()) } else { setup };
        setup.on_sim(async |mesh| {
            let streams = mesh.streams().await;
            let ask = |id| Ask::get("shop", "/", id);
            let mut begun = Vec::new();
            for id in 0..20 {
                begun.push(streams.begin(&ask(id)).await.unwrap());
            }
            let mut silent = mesh.accept().await;
            let (took, verdicts) = timed(mesh, async {
                let mut verdicts = Vec::new();
                for (id, stream) in begun.iter().enumerate() {
                    verdicts.push(stream.verdict(&ask(id)).await);
                }
                verdicts
            })
            .await;
            about(took, 500 * MS);
            // The one that the connection was made for is on its way; who waited for it goes elsewhere.
            let lost: Vec<_> =
                verdicts.into_iter().filter(|v| !matches!(v, Verdict::Ok(_))).map(refused).collect();
            let (sent, waited): (Vec<_>, Vec<_>) =
                lost.into_iter().partition(|(_, reason)| reason == "upstream-closed");
            assert_eq!(sent.len(), 1, "{sent:?}");
            let expected = if has_other { 0 } else { 19 };
            assert_eq!(waited, vec![(503, "connect-timeout".to_owned()); expected]);
            let told = silent.recv_to_end().await.bytes;
            assert!(told.windows(NOT_HEARD.len()).any(|frame| frame == NOT_HEARD), "{told:?}");
            assert_eq!(mesh.upstream("upstream_cx_protocol_error"), 1);
        });
    }
}

#[test]
fn a_client_that_never_says_what_it_takes_is_given_up() {
    let setup = Pairing { down: true, up: true }.setup(StreamBehaviour::default());
    setup.manager(|m| m.request_headers_timeout = Some(500 * MS)).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        let (took, told) = timed(mesh, async {
            peer.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            peer.recv_to_end().await
        })
        .await;
        about(took, 500 * MS);
        assert!(told.bytes.ends_with(&NOT_HEARD), "{told:?}");
    });
}

fn grpc(id: u32) -> Ask {
    Ask::post("shop", "/cart.Cart/Add", id, "pay")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// The `grpc-status` of an answer, which must be one that gRPC knows.
fn grpc_status(answer: &Message) -> (String, String) {
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    let field = |name: &str| {
        let trailer =
            answer.trailers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        answer.header(name).or(trailer).unwrap_or_default().to_owned()
    };
    (field("grpc-status"), field("grpc-message"))
}

#[test]
fn grpc_is_told_in_its_own_words() {
    let asked = |setup: Setup, expected: &'static str| {
        setup.on_sim(async |mesh| {
            let streams = mesh.streams().await;
            for ask in [grpc(1), grpc(2).header("grpc-timeout", "400m")] {
                let stream = streams.begin(&ask).await.unwrap();
                stream.send(b"pay", true).await;
                let answer = stream.whole().await.unwrap();
                let (status, message) = grpc_status(&answer);
                assert_eq!(status, expected, "{message}");
                assert!(!message.is_empty());
            }
        });
    };
    let streams = || Setup::streams(never());
    asked(streams().routes(Vec::new), "12");
    asked(Setup { stream_origins: Vec::new(), ..streams() }.nobodies(1), "14");
    asked(streams().forward(|f| f.timeout = Some(500 * MS)), "4");
}

#[test]
fn the_timeout_of_a_grpc_client_ends_its_call() {
    let setup = Setup::streams(never()).forward(|f| {
        f.timeout = None;
        f.stream_duration.grpc_timeout = Some(GrpcTimeout { max: None, offset: Duration::ZERO });
    });
    setup.on_sim(async |mesh| {
        let streams = mesh.streams().await;
        let ask = grpc(1).header("grpc-timeout", "300m");
        let (took, answer) = timed(mesh, async {
            let stream = streams.begin(&ask).await.unwrap();
            stream.send(b"pay", true).await;
            stream.whole().await.unwrap()
        })
        .await;
        assert_eq!(grpc_status(&answer).0, "4");
        about(took, 300 * MS);
        mesh.until("upstream knows", |mesh| mesh.stream_origin().running() == 0).await;
        // The answer of a server goes through as it is.
        let trailers = vec![("grpc-status".to_owned(), "5".to_owned())];
        let headers = vec![("content-type".to_owned(), "application/grpc".to_owned())];
        mesh.stream_origin().behave(StreamBehaviour {
            trailers,
            headers,
            has_length: false,
            ..StreamBehaviour::default()
        });
        let answer = ok(streams.ask(&grpc(2)).await);
        assert_eq!(grpc_status(&answer).0, "5");
    });
}
