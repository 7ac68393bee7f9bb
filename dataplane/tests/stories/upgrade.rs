//! Upgrades (H1-16): granted in every pairing, bytes in both directions, every way to end; and all that is no upgrade.

use std::time::Duration;

use policy::{
    route::{PathMatch, RouteMatch, RouteSpec},
    upgrade::{Connect, Upgrades},
};
use sim::{Ask, End, Loss, Peer, SimIo, Stream, StreamConfig, Streams};

use crate::mesh::{APP, Mesh, Pairing, Setup, answers, forward_to, route};

const MS: Duration = Duration::from_millis(1);

/// RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One end of a tunnel. What holds its connection is kept with it.
enum Tunnel {
    Connection(Peer<SimIo>),
    Stream(Stream<SimIo>, Streams<SimIo>, usize),
}

impl Tunnel {
    async fn send(&mut self, bytes: &[u8]) {
        match self {
            Tunnel::Connection(peer) => peer.send(bytes).await,
            Tunnel::Stream(stream, ..) => assert!(stream.send(bytes, false).await, "{:?}", stream.gone()),
        }
    }

    async fn expect(&mut self, bytes: &[u8]) {
        let got = match self {
            Tunnel::Connection(peer) => peer.recv_exactly(bytes.len()).await,
            Tunnel::Stream(stream, _, taken) => {
                let body = stream.body_of(*taken + bytes.len()).await.unwrap();
                let got = body[*taken..*taken + bytes.len()].to_vec();
                *taken += bytes.len();
                got
            }
        };
        assert_eq!(got, bytes, "{}", got.escape_ascii());
    }

    async fn expect_silence(&mut self, mesh: &Mesh<SimIo>) {
        match self {
            Tunnel::Connection(peer) => peer.expect_silence(100 * MS).await,
            Tunnel::Stream(stream, _, taken) => {
                mesh.pass(100 * MS).await;
                assert_eq!(stream.body().len(), *taken, "{}", stream.body().escape_ascii());
                assert!(!stream.is_ended() && stream.gone().is_none());
            }
        }
    }

    fn finish(&mut self) {
        match self {
            Tunnel::Connection(peer) => peer.shutdown(),
            Tunnel::Stream(stream, ..) => stream.send_end(&[]),
        }
    }

    async fn expect_end(&mut self) {
        match self {
            Tunnel::Connection(peer) => peer.expect_close().await,
            Tunnel::Stream(stream, _, taken) => {
                stream.end().await.unwrap();
                assert_eq!(stream.body().len(), *taken);
            }
        }
    }

    fn reset(self) {
        match self {
            Tunnel::Connection(peer) => peer.reset(),
            Tunnel::Stream(stream, streams, _) => {
                stream.reset(8);
                // It ends with the mesh.
                drop((stream, streams));
            }
        }
    }

    async fn expect_reset(&mut self) {
        match self {
            Tunnel::Connection(peer) => assert_eq!(peer.recv_to_end().await.end, End::Reset),
            Tunnel::Stream(stream, ..) => {
                let loss = stream.until_gone().await;
                assert!(matches!(loss, Loss::Reset(_)), "{loss:?}");
            }
        }
    }
}

fn allowing(setup: Setup, kinds: &[&str]) -> Setup {
    let kinds = kinds.iter().map(|kind| (kind.as_bytes(), true));
    let upgrades = Upgrades::new(kinds, Connect::Forward).unwrap();
    setup.manager(|m| m.upgrades = upgrades)
}

fn websockets(pairing: Pairing) -> Setup {
    allowing(pairing.played(), &["websocket"])
}

fn ask(kind: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nhost: shop\r\nconnection: keep-alive, Upgrade\r\nupgrade: {kind}\r\n\
         sec-websocket-key: {KEY}\r\nsec-websocket-version: 13\r\n\r\n"
    )
}

/// Asks for a WebSocket.
async fn begin(pairing: Pairing, mesh: &Mesh<SimIo>) -> Tunnel {
    if !pairing.down {
        let mut peer = mesh.peer().await;
        peer.send(ask("websocket")).await;
        return Tunnel::Connection(peer);
    }
    let streams = mesh.streams().await;
    let ask = Ask::get("shop", "/chat", 1)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13");
    Tunnel::Stream(streams.begin(&ask).await.unwrap(), streams, 0)
}

/// The request as the endpoint gets it.
async fn arrive(pairing: Pairing, mesh: &Mesh<SimIo>) -> Tunnel {
    if !pairing.up {
        let mut peer = mesh.accept().await;
        let head = String::from_utf8(peer.recv_until(b"\r\n\r\n").await).unwrap().to_ascii_lowercase();
        assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nsec-websocket-key: "), "{head}");
        return Tunnel::Connection(peer);
    }
    let streams = mesh.accept_streams(StreamConfig::default()).await;
    let stream = streams.arrived().await.unwrap();
    let head = stream.head().await.unwrap();
    assert_eq!(head.header("upgrade"), Some("websocket"));
    assert_eq!(head.header("sec-websocket-key"), None, "{head:?}");
    assert_eq!(head.header("sec-websocket-version"), Some("13"));
    Tunnel::Stream(stream, streams, 0)
}

/// The endpoint grants it, and the client sees that.
async fn grant(pairing: Pairing, client: &mut Tunnel, origin: &mut Tunnel) {
    match origin {
        Tunnel::Connection(peer) => {
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
            peer.send(format!("{head}sec-websocket-accept: {ACCEPT}\r\n\r\n")).await;
        }
        Tunnel::Stream(stream, ..) => stream.respond(101, &[("x-from", "origin")], false),
    }
    match client {
        Tunnel::Connection(peer) => {
            let head = String::from_utf8(peer.recv_until(b"\r\n\r\n").await).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 101 "), "{head}");
            assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
            let accept = format!("\r\nsec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase());
            assert!(head.contains(&accept), "{pairing:?}: {head}");
        }
        Tunnel::Stream(stream, ..) => {
            let head = stream.head().await.unwrap();
            assert!(matches!(head.status(), 200 | 101), "{head:?}");
            assert_eq!(head.header("sec-websocket-accept"), None);
        }
    }
}

/// Tells a story between the two ends of a tunnel, in every pairing.
fn between(change: impl Fn(Setup) -> Setup, story: impl AsyncFn(&Mesh<SimIo>, Tunnel, Tunnel)) {
    for pairing in Pairing::all() {
        change(websockets(pairing)).on_sim(async |mesh| {
            let mut client = begin(pairing, mesh).await;
            let mut origin = arrive(pairing, mesh).await;
            grant(pairing, &mut client, &mut origin).await;
            story(mesh, client, origin).await;
        });
    }
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    between(
        |setup| setup,
        async |_, mut client, mut origin| {
            client.send(b"hello").await;
            origin.expect(b"hello").await;
            origin.send(&[7; 300]).await;
            client.expect(&[7; 300]).await;
            client.finish();
            origin.expect_end().await;
            origin.send(b"the rest").await;
            client.expect(b"the rest").await;
            origin.finish();
            client.expect_end().await;
        },
    );
    between(
        |setup| setup,
        async |_, mut client, mut origin| {
            origin.send(b"bye").await;
            origin.finish();
            client.expect(b"bye").await;
            client.expect_end().await;
            client.send(b"one more").await;
            origin.expect(b"one more").await;
            client.finish();
            origin.expect_end().await;
        },
    );
}

#[test]
fn what_breaks_on_one_side_breaks_on_the_other() {
    between(
        |setup| setup,
        async |_, mut client, mut origin| {
            client.send(b"hello").await;
            origin.expect(b"hello").await;
            client.reset();
            origin.expect_reset().await;
        },
    );
    between(
        |setup| setup,
        async |_, mut client, mut origin| {
            origin.send(b"hello").await;
            client.expect(b"hello").await;
            origin.reset();
            client.expect_reset().await;
        },
    );
}

#[test]
fn only_silence_ends_it() {
    let timeouts = |setup: Setup| {
        let setup = setup.forward(|f| f.timeout = Some(300 * MS));
        setup.manager(|m| {
            m.stream_idle_timeout = Some(500 * MS);
            m.request_timeout = Some(300 * MS);
        })
    };
    between(timeouts, async |mesh, mut client, mut origin| {
        for _ in 0..10 {
            mesh.pass(150 * MS).await;
            client.send(b"ping").await;
            origin.expect(b"ping").await;
            mesh.pass(150 * MS).await;
            origin.send(b"pong").await;
            client.expect(b"pong").await;
        }
        mesh.pass(400 * MS).await;
        client.send(b"!").await;
        origin.expect(b"!").await;
        let begun = runtime::Io::now(&mesh.io);
        origin.expect_reset().await;
        let took = runtime::Io::now(&mesh.io) - begun;
        assert!((400_000_000..800_000_000).contains(&took), "{took}");
        client.expect_reset().await;
    });
}

#[test]
fn up_10_an_hour_of_silence_ends_nothing_where_no_timeout_is_set() {
    const HOUR: Duration = Duration::from_secs(3600);
    for pairing in Pairing::all() {
        let setup = websockets(pairing).manager(|m| m.stream_idle_timeout = None);
        let sim = sim::Sim::with_seed(0);
        sim.time_max(2 * HOUR);
        setup.on(&sim, &async |mesh: &Mesh<_>| {
            let mut client = begin(pairing, mesh).await;
            let mut origin = arrive(pairing, mesh).await;
            grant(pairing, &mut client, &mut origin).await;
            client.send(b"hello").await;
            origin.expect(b"hello").await;
            mesh.pass(HOUR).await;
            origin.send(b"still there").await;
            client.expect(b"still there").await;
            client.finish();
            origin.expect_end().await;
            origin.finish();
            client.expect_end().await;
        });
    }
}

#[test]
fn nothing_goes_through_before_it_is_granted() {
    for pairing in Pairing::all() {
        websockets(pairing).on_sim(async |mesh| {
            let mut client = begin(pairing, mesh).await;
            client.send(b"early ").await;
            let mut origin = arrive(pairing, mesh).await;
            client.send(b"bytes").await;
            origin.expect_silence(mesh).await;
            grant(pairing, &mut client, &mut origin).await;
            origin.expect(b"early bytes").await;
            client.finish();
            origin.expect_end().await;
            origin.finish();
            client.expect_end().await;
        });
    }
}

#[test]
fn what_follows_an_upgrade_that_is_not_granted_is_the_next_request() {
    for (up, status) in [(false, 200), (false, 401), (true, 401)] {
        let pairing = Pairing { down: false, up };
        websockets(pairing).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            peer.send(ask("websocket") + "GET /admin HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            let mut origin = arrive(pairing, mesh).await;
            origin.expect_silence(mesh).await;
            match &mut origin {
                Tunnel::Connection(peer) => {
                    peer.send(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno")).await;
                    let next = peer.recv_until(b"\r\n\r\n").await;
                    assert!(next.starts_with(b"GET /admin "), "{}", next.escape_ascii());
                    peer.send("HTTP/1.1 200 Yes\r\ncontent-length: 3\r\n\r\nyes").await;
                }
                Tunnel::Stream(stream, streams, _) => {
                    stream.respond(status, &[("content-length", "2")], false);
                    stream.send(b"no", true).await;
                    let next = streams.arrived().await.unwrap();
                    assert_eq!(next.head().await.unwrap().target(), "/admin");
                    next.respond(200, &[("content-length", "3")], false);
                    next.send(b"yes", true).await;
                }
            }
            let got = answers(&mut peer, &["GET", "GET"]).await;
            let told: Vec<_> = got.iter().map(|answer| (answer.status(), &answer.body[..])).collect();
            assert_eq!(told, [(status, &b"no"[..]), (200, b"yes")]);
        });
    }
}

#[test]
fn on_a_stream_what_is_not_granted_is_a_plain_answer() {
    for up in [false, true] {
        let pairing = Pairing { down: true, up };
        websockets(pairing).on_sim(async |mesh| {
            let client = begin(pairing, mesh).await;
            let mut origin = arrive(pairing, mesh).await;
            match &mut origin {
                Tunnel::Connection(peer) => {
                    peer.send("HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno").await;
                }
                Tunnel::Stream(stream, ..) => {
                    stream.respond(401, &[("content-length", "2")], false);
                    stream.send(b"no", true).await;
                }
            }
            let Tunnel::Stream(stream, streams, _) = &client else { unreachable!() };
            let answer = stream.whole().await.unwrap();
            assert_eq!((answer.status(), &answer.body[..]), (401, &b"no"[..]));
            assert!(!streams.is_over());
        });
    }
}

#[test]
fn what_is_not_allowed_is_passed_over_or_refused() {
    // On a connection the wish is left out, whoever is upstream; also where one of several is allowed.
    for up in [false, true] {
        for kind in ["foo", "websocket, foo", "h2c"] {
            let pairing = Pairing { down: false, up };
            let setup = pairing.setup(sim::StreamBehaviour::default());
            allowing(setup, &["websocket"]).on_sim(async |mesh| {
                let mut peer = mesh.peer().await;
                peer.send(ask(kind) + "GET /next HTTP/1.1\r\nhost: shop\r\n\r\n").await;
                let got = answers(&mut peer, &["GET", "GET"]).await;
                assert!(got.iter().all(|answer| answer.status() == 200), "{kind}: {got:?}");
                let requests = match up {
                    true => mesh.stream_origin().requests(),
                    false => mesh.origin().requests(),
                };
                assert_eq!(requests.len(), 2);
                assert!(requests.iter().all(|request| request.header("upgrade").is_none()), "{requests:?}");
            });
        }
    }
    // A stream has no other meaning.
    let setup = Pairing { down: true, up: true }.setup(sim::StreamBehaviour::default());
    allowing(setup, &["websocket"]).on_sim(async |mesh| {
        let streams = mesh.streams().await;
        let ask = Ask::get("shop", "/", 1).header("connection", "upgrade").header("upgrade", "foo");
        let stream = streams.begin(&ask).await.unwrap();
        let answer = stream.whole().await.unwrap();
        assert_eq!((answer.status(), answer.header("x-ringway-reason")), (403, Some("upgrade-not-allowed")));
        assert!(mesh.ledger().is_empty());
    });
}

#[test]
fn an_upstream_that_takes_no_protocols_gets_none() {
    let config = StreamConfig { takes_protocols: false, ..StreamConfig::default() };
    let behaviour = sim::StreamBehaviour { config, ..sim::StreamBehaviour::default() };
    for down in [true, false] {
        let pairing = Pairing { down, up: true };
        allowing(pairing.setup(behaviour.clone()), &["websocket"]).on_sim(async |mesh| {
            let status = match &mut begin(pairing, mesh).await {
                Tunnel::Connection(peer) => answers(peer, &["GET"]).await[0].status(),
                Tunnel::Stream(stream, ..) => stream.whole().await.unwrap().status(),
            };
            assert_eq!(status, 403);
            assert!(mesh.ledger().is_empty());
        });
    }
}

#[test]
fn an_upgrade_with_a_body_is_a_plain_request() {
    for up in [false, true] {
        let pairing = Pairing { down: false, up };
        let setup = pairing.setup(sim::StreamBehaviour::default());
        allowing(setup, &["websocket"]).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            let head = ask("websocket").replace("\r\n\r\n", "\r\ncontent-length: 4\r\n\r\n");
            peer.send(head + "bodyGET /next HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            let got = answers(&mut peer, &["GET", "GET"]).await;
            assert!(got.iter().all(|answer| answer.status() == 200), "{got:?}");
            let requests = match up {
                true => mesh.stream_origin().requests(),
                false => mesh.origin().requests(),
            };
            assert_eq!(requests[0].body, b"body");
            assert_eq!((requests[1].target(), &requests[1].body[..]), ("/next", &b""[..]));
            assert!(requests.iter().all(|request| request.header("upgrade").is_none()), "{requests:?}");
        });
    }
}

#[test]
fn what_stands_behind_connect_is_no_request_when_there_is_no_tunnel() {
    let connect =
        || vec![RouteSpec { matches: RouteMatch::path(PathMatch::Connect), ..route("/", forward_to(APP)) }];
    for (kinds, status) in [(&[][..], 403), (&["CONNECT"], 503)] {
        let setup = Pairing { down: false, up: false }.setup(sim::StreamBehaviour::default());
        let setup = setup
            .without_origins()
            .nobodies(1)
            .routes(move || connect().into_iter().chain([route("/", forward_to(APP))]).collect());
        allowing(setup, kinds).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            let ask = "CONNECT shop:80 HTTP/1.1\r\nhost: shop:80\r\n\r\n";
            let _ = peer.try_send(format!("{ask}GET /behind HTTP/1.1\r\nhost: shop\r\n\r\n")).await;
            let answer = answers(&mut peer, &["CONNECT"]).await.remove(0);
            assert_eq!((answer.status(), answer.header("connection")), (status, Some("close")));
            peer.expect_close().await;
            assert_eq!(mesh.http("downstream_rq_total"), 1);
        });
    }
}
