//! Streams and their connections that end before their time.

use std::time::Duration;

use sim::{Ask, Loss, Stream, StreamBehaviour, StreamConfig, Streams, Verdict, origin::LEDGER_ID};

use crate::mesh::{Ground, Mesh, Pairing, ok, refused};

const MS: Duration = Duration::from_millis(1);

async fn begin<I: Ground>(streams: &Streams<I>, count: usize) -> Vec<Stream<I>> {
    let mut begun = Vec::new();
    for id in 0..count {
        begun.push(streams.begin(&Ask::get("shop", "/", id)).await.unwrap());
    }
    begun
}

/// Answers a stream as an origin does.
async fn answer<I: Ground>(stream: &Stream<I>) {
    let request = stream.whole().await.unwrap();
    stream.respond(200, &[(LEDGER_ID, request.header(LEDGER_ID).unwrap())], true);
}

#[test]
fn a_client_that_resets_a_stream_takes_what_it_asked_for_with_it() {
    for up in [true, false] {
        let pairing = Pairing { down: true, up };
        pairing.setup(StreamBehaviour::default()).on_sim(async |mesh| {
            mesh.origins.iter().for_each(sim::Origin::hold);
            mesh.stream_origins.iter().for_each(sim::StreamOrigin::hold);
            let streams = mesh.streams().await;
            let begun = begin(&streams, 3).await;
            mesh.until("they run", |mesh| mesh.ledger().len() == 3).await;
            begun[1].reset(8);
            if up {
                mesh.until("upstream knows", |mesh| mesh.stream_origin().running() == 2).await;
                assert_eq!(mesh.stream_origin().connections()[0].lost, [Loss::Reset(8)]);
            }
            mesh.until("two are left", |mesh| mesh.http("downstream_rq_active") == 2).await;
            mesh.origins.iter().for_each(sim::Origin::release);
            mesh.stream_origins.iter().for_each(sim::StreamOrigin::release);
            for id in [0, 2] {
                ok(begun[id].verdict(&Ask::get("shop", "/", id)).await);
            }
        });
    }
}

#[test]
fn what_is_reset_as_soon_as_it_is_asked_is_not_asked_upstream() {
    for up in [true, false] {
        let pairing = Pairing { down: true, up };
        pairing.setup(StreamBehaviour::default()).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
            let streams = mesh.streams().await;
            ok(streams.ask(&Ask::get("shop", "/", "first")).await);
            mesh.pass(100 * MS).await;
            for stream in begin(&streams, 50).await {
                stream.reset(8);
            }
            mesh.until("they are over", |mesh| mesh.http("downstream_rq_rx_reset") == 50).await;
            mesh.pass(100 * MS).await;
            assert_eq!(mesh.ledger().into_keys().collect::<Vec<_>>(), ["first"]);
            assert_eq!(mesh.upstream("upstream_cx_total"), 1);
            ok(streams.ask(&Ask::get("shop", "/", "last")).await);
        });
    }
}

#[test]
fn a_client_connection_that_dies_leaves_nothing_of_its_streams() {
    for up in [true, false] {
        for is_reset in [true, false] {
            let pairing = Pairing { down: true, up };
            pairing.setup(StreamBehaviour::default()).on_sim(async |mesh| {
                mesh.origins.iter().for_each(sim::Origin::hold);
                mesh.stream_origins.iter().for_each(sim::StreamOrigin::hold);
                let streams = mesh.streams().await;
                let begun = begin(&streams, 50).await;
                mesh.until("they run", |mesh| mesh.http("downstream_rq_active") == 50).await;
                if is_reset {
                    streams.reset()
                } else {
                    streams.close()
                }
                mesh.until("none runs", |mesh| mesh.http("downstream_rq_active") == 0).await;
                mesh.until("upstream knows", |mesh| mesh.stream_origins.iter().all(|o| o.running() == 0))
                    .await;
                mesh.origins.iter().for_each(sim::Origin::release);
                drop(begun);
            });
        }
    }
}

#[test]
fn an_upstream_connection_that_dies_fails_its_streams_and_no_others() {
    for is_reset in [true, false] {
        Pairing { down: true, up: true }.played().on_sim(async |mesh| {
            let client = mesh.streams().await;
            let asks: Vec<Ask> = (0..50).map(|id| Ask::post("shop", "/", id, "pay")).collect();
            let mut begun = Vec::new();
            for ask in &asks {
                let stream = client.begin(ask).await.unwrap();
                stream.send(b"pay", true).await;
                begun.push(stream);
            }
            let origin = mesh.accept_streams(StreamConfig::default()).await;
            let mut arrived = Vec::new();
            while arrived.len() < 50 {
                arrived.push(origin.arrived().await.unwrap());
            }
            let mut first = None;
            for (at, stream) in arrived.iter().enumerate() {
                let request = stream.whole().await.unwrap();
                first = first.or((request.header(LEDGER_ID) == Some("0")).then_some(at));
            }
            answer(&arrived[first.unwrap()]).await;
            ok(begun[0].verdict(&asks[0]).await);
            if is_reset {
                origin.reset()
            } else {
                origin.close()
            }
            for (stream, ask) in begun.iter().zip(&asks).skip(1) {
                let (status, reason) = refused(stream.verdict(ask).await);
                assert_eq!((status, &reason[..]), (503, "upstream-closed"));
            }
            let ask = Ask::get("shop", "/", "next");
            let next = client.begin(&ask).await.unwrap();
            let origin = mesh.accept_streams(StreamConfig::default()).await;
            answer(&origin.arrived().await.unwrap()).await;
            ok(next.verdict(&ask).await);
        });
    }
}

#[test]
fn what_upstream_left_before_it_looked_goes_elsewhere_once() {
    for down in [true, false] {
        Pairing { down, up: true }.played().on_sim(async |mesh| {
            let client = mesh.streams().await;
            let first = client.begin(&Ask::get("shop", "/", 0)).await.unwrap();
            let origin = mesh.accept_streams(StreamConfig::default()).await;
            answer(&origin.arrived().await.unwrap()).await;
            first.whole().await.unwrap();
            // Stream 3 will be looked at; 5, 7 and 9 not.
            let asks = [
                Ask::get("shop", "/", 1),
                Ask::get("shop", "/", 2),
                Ask { method: "POST".to_owned(), ..Ask::get("shop", "/", 3) },
                Ask::post("shop", "/", 4, "pay"),
            ];
            let mut begun = Vec::new();
            let mut arrived = Vec::new();
            for ask in &asks {
                let stream = client.begin(ask).await.unwrap();
                if let Some(body) = &ask.body {
                    stream.send(body, true).await;
                }
                begun.push(stream);
                arrived.push(origin.arrived().await.unwrap());
                arrived.last().unwrap().whole().await.unwrap();
            }
            origin.go_away(3, 0);
            let second = mesh.accept_streams(StreamConfig::default()).await;
            let again = [second.arrived().await.unwrap(), second.arrived().await.unwrap()];
            for stream in &again {
                answer(stream).await;
            }
            answer(&arrived[0]).await;
            for (stream, ask) in begun.iter().zip(&asks).take(3) {
                ok(stream.verdict(ask).await);
            }
            // Its body was taken.
            let (status, reason) = refused(begun[3].verdict(&asks[3]).await);
            assert_eq!((status, &reason[..]), (503, "upstream-closed"));
            assert_eq!(mesh.upstream("upstream_rq_retry"), 2);
            // Nothing new comes over the one that leaves, and it ends.
            arrived.clear();
            origin.ended().await;
        });
    }
}

#[test]
fn a_body_of_which_only_framing_came_is_not_read_from_its_middle() {
    for has_size in [false, true] {
        Pairing { down: false, up: true }.played().on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            peer.send(Ask::get("shop", "/", 0).bytes()).await;
            let origin = mesh.accept_streams(StreamConfig::default()).await;
            answer(&origin.arrived().await.unwrap()).await;
            peer.recv_until(b"\r\n\r\n").await;
            let ask = Ask::post("shop", "/", 1, "3\r\nabc").chunked(100).bytes();
            let head = ask.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            peer.send(&ask[..head]).await;
            let stream = origin.arrived().await.unwrap();
            if has_size {
                // Of the chunk, whose data looks like a chunk itself.
                peer.send(&ask[head..head + 3]).await;
                mesh.pass(50 * MS).await;
            }
            origin.go_away(1, 0);
            let expected: &[u8] = if has_size {
                b"HTTP/1.1 503 "
            } else {
                let second = mesh.accept_streams(StreamConfig::default()).await;
                peer.send(&ask[head..]).await;
                let stream = second.arrived().await.unwrap();
                assert_eq!(stream.whole().await.unwrap().body, b"3\r\nabc");
                answer(&stream).await;
                b"HTTP/1.1 200 "
            };
            let got = peer.recv_until(b"\r\n\r\n").await;
            assert!(got.starts_with(expected), "{}", got.escape_ascii());
            drop(stream);
        });
    }
}

#[test]
fn a_refused_stream_goes_to_another_endpoint() {
    let refuses = StreamBehaviour { refuses: Some(7), ..StreamBehaviour::default() };
    for down in [true, false] {
        let pairing = Pairing { down, up: true };
        pairing.setup(refuses.clone()).stream_origin(StreamBehaviour::default()).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            for id in 0..6 {
                ok(asker.ask(&Ask { method: "POST".to_owned(), ..Ask::get("shop", "/", id) }).await);
            }
            assert!(mesh.ledger().into_values().eq([1; 6]));
        });
        pairing.setup(refuses.clone()).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            let (status, reason) = refused(asker.ask(&Ask::get("shop", "/", 1)).await);
            assert_eq!((status, &reason[..]), (503, "upstream-refused"));
        });
        let resets = StreamBehaviour { refuses: Some(2), ..StreamBehaviour::default() };
        pairing.setup(resets).stream_origin(StreamBehaviour::default()).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            for id in 0..6 {
                match asker.ask(&Ask::get("shop", "/", id)).await {
                    Verdict::Ok(_) => {}
                    verdict => assert_eq!(refused(verdict), (503, "upstream-stream-reset".to_owned())),
                }
            }
            assert_eq!(mesh.upstream("upstream_rq_retry"), 0, "it may have been looked at");
        });
    }
}

#[test]
fn an_upload_that_its_client_gives_up_is_never_a_whole_request() {
    for up in [true, false] {
        Pairing { down: true, up }.setup(StreamBehaviour::default()).on_sim(async |mesh: &Mesh<_>| {
            let streams = mesh.streams().await;
            let ask = Ask::post("shop", "/", 1, "x".repeat(300)).chunked(100);
            let stream = streams.begin(&ask).await.unwrap();
            stream.send(&[b'x'; 200], false).await;
            mesh.pass(50 * MS).await;
            stream.reset(8);
            mesh.until("it is over", |mesh| mesh.http("downstream_rq_active") == 0).await;
            mesh.pass(50 * MS).await;
            assert!(mesh.ledger().is_empty());
            assert!(matches!(stream.gone(), Some(Loss::Reset(8))));
        });
    }
}
