//! The PROXY protocol: a header before the first byte says who the client is, and says it on to upstream.

use std::time::Duration;

use policy::snapshot::ListenerFilters;
use runtime::Io;
use sim::{Ask, Behaviour, End, Ended};
use wire::proxy_protocol::{Accepted, Version};

use crate::mesh::{APP, Ground, Mesh, Setup, answers};

const MS: Duration = Duration::from_millis(1);

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 80\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\xc3\x50\0\x50";
const HEALTH: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A listener that takes headers, at the edge.
pub(crate) fn taking(accepted: Accepted) -> Setup {
    let mut setup = Setup::new(Behaviour::default()).manager(|m| m.forwarded.use_remote_address = true);
    setup.config.listener_filters = ListenerFilters {
        proxy_protocol: Some(accepted),
        timeout: Some(500 * MS),
        ..ListenerFilters::default()
    };
    setup
}

/// A listener that takes headers, and endpoints that the story plays and that get them.
pub(crate) fn telling(version: Version) -> Setup {
    taking(Accepted::ALL).played(1).cluster(|cluster| cluster.proxy_protocol = Some(version))
}

pub(crate) async fn tells_the_client<I: Ground>(mesh: &Mesh<I>) {
    for (id, header) in [V1, V2].into_iter().enumerate() {
        let bytes = [header, &Ask::get("shop", "/", id).bytes()].concat();
        let mut at_once = mesh.peer().await;
        at_once.send(&bytes).await;
        assert_eq!(answers(&mut at_once, &["GET"]).await[0].status(), 200);
        let mut in_bytes = mesh.peer().await;
        for byte in bytes {
            in_bytes.send([byte]).await;
        }
        assert_eq!(answers(&mut in_bytes, &["GET"]).await[0].status(), 200);
    }
    let requests = mesh.origin().requests();
    let told: Vec<_> = requests.iter().map(|request| request.header("x-forwarded-for")).collect();
    assert_eq!(told, [Some("192.0.2.1"); 4]);
}

#[test]
fn a_header_says_who_the_client_is_however_it_comes() {
    taking(Accepted::ALL).on_sim(tells_the_client);
}

#[test]
fn a_proxy_that_asks_for_itself_is_the_client() {
    taking(Accepted::ALL).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send([HEALTH, &Ask::get("shop", "/", 1).bytes()].concat()).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
        let told = mesh.origin().requests()[0].header("x-forwarded-for").map(str::to_owned);
        assert_eq!(told, Some(mesh.io.ip().to_string()));
    });
}

#[test]
fn without_a_good_header_nothing_is_served() {
    let ask = Ask::get("shop", "/", 1).bytes();
    for (start, accepted) in [
        (&b""[..], Accepted::ALL),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 99999\r\n", Accepted::ALL),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 99999\r\n", Accepted { absent: true, ..Accepted::ALL }),
        (b"\r\n\r\n\0\r\nQUIT\n\x41", Accepted::ALL),
        (V1, Accepted { v1: false, ..Accepted::ALL }),
        (V2, Accepted { v2: false, ..Accepted::ALL }),
    ] {
        let bytes = [start, &ask].concat();
        taking(accepted).on_sim(async move |mesh| {
            let mut peer = mesh.peer().await;
            // It may be over before all is sent.
            let _ = peer.try_send(&bytes).await;
            assert_eq!(peer.recv_to_end().await.bytes, b"");
            assert!(mesh.origin().connections().is_empty());
            assert_eq!(mesh.worker.bound().listeners[0].counters.downstream_cx_proxy_proto_error.get(), 1);
        });
    }
}

#[test]
fn where_headers_are_optional_a_connection_without_one_is_served() {
    taking(Accepted { absent: true, ..Accepted::ALL }).on_sim(async |mesh| {
        for ask in [Ask::get("shop", "/", 1), Ask::post("shop", "/", 2, "body")] {
            let mut peer = mesh.peer().await;
            peer.send(ask.bytes()).await;
            assert_eq!(answers(&mut peer, &[&*ask.method]).await[0].status(), 200);
        }
    });
    // A disallowed version is then no header but what the application makes of it.
    taking(Accepted { absent: true, v1: false, ..Accepted::ALL }).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send([V1, &Ask::get("shop", "/", 1).bytes()].concat()).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 400);
        assert!(mesh.origin().connections().is_empty());
    });
}

#[test]
fn a_header_that_drips_is_given_up_and_no_byte_prolongs_it() {
    taking(Accepted::ALL).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        let begun = mesh.io.now();
        for byte in V1.iter().cycle() {
            if peer.try_send([*byte]).await.is_err() {
                break;
            }
            mesh.pass(30 * MS).await;
        }
        let took = Duration::from_nanos(mesh.io.now() - begun);
        assert!(took > 490 * MS && took < 1000 * MS, "{took:?}");
        assert_eq!(mesh.worker.bound().listeners[0].counters.downstream_pre_cx_timeout.get(), 1);
    });
}

async fn asks<I: Ground>(mesh: &Mesh<I>, header: &[u8]) -> (sim::Peer<I>, sim::Peer<I>) {
    let mut client = mesh.peer().await;
    client.send([header, b"GET /1 HTTP/1.1\r\nHost: shop\r\n\r\n"].concat()).await;
    let server = mesh.accept().await;
    (client, server)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

pub(crate) async fn one_client_one_connection<I: Ground>(mesh: &Mesh<I>) {
    let told = mesh.config.borrow().clusters[APP].0.proxy_protocol;
    let expected = if told == Some(Version::V1) { V1 } else { V2 };
    let (mut client, mut server) = asks(mesh, V1).await;
    assert_eq!(server.recv_exactly(expected.len()).await, expected);
    server.recv_until(b"\r\n\r\n").await;
    server.send(ANSWER).await;
    answers(&mut client, &["GET"]).await;
    // The next request comes over the same connection, and the header only once.
    client.send("GET /2 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(server.recv_until(b"\r\n\r\n").await.starts_with(b"GET /2 "));
    server.send(ANSWER).await;
    answers(&mut client, &["GET"]).await;
    // Of another client it is never, idle as it is; and its own closes when that client goes.
    let (mut other, mut second) = asks(mesh, V2).await;
    assert_eq!(second.recv_exactly(expected.len()).await, expected);
    second.recv_until(b"\r\n\r\n").await;
    second.send(ANSWER).await;
    answers(&mut other, &["GET"]).await;
    client.shutdown();
    client.expect_close().await;
    assert_eq!(server.recv_to_end().await, Ended { bytes: Vec::new(), end: End::Close });
    // What upstream closes while it is idle is not used again, and the new one begins with the header.
    second.shutdown();
    second.expect_close().await;
    other.send("GET /3 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut third = mesh.accept().await;
    assert_eq!(third.recv_exactly(expected.len()).await, expected);
    assert!(third.recv_until(b"\r\n\r\n").await.starts_with(b"GET /3 "));
    third.send(ANSWER).await;
    answers(&mut other, &["GET"]).await;
}

#[test]
fn an_upstream_connection_that_says_whom_it_is_for_is_used_for_nobody_else_and_ends_with_it() {
    telling(Version::V1).on_sim(one_client_one_connection);
    telling(Version::V2).on_sim(one_client_one_connection);
}

#[test]
fn an_endpoint_that_goes_takes_the_idle_connections_of_clients_with_it() {
    telling(Version::V1).on_sim(async |mesh| {
        let (mut client, mut server) = asks(mesh, V1).await;
        server.recv_until(b"\r\n\r\n").await;
        server.send(ANSWER).await;
        answers(&mut client, &["GET"]).await;
        mesh.until("it is idle", |mesh| mesh.worker.pools.idle_count() == 1).await;
        mesh.adopt(|config| config.clusters.get_mut(APP).unwrap().1.clear()).await;
        server.expect_close().await;
    });
}

pub(crate) async fn before_a_server_that_speaks_first<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.peer().await;
    client.send(V2).await;
    let mut server = mesh.accept().await;
    assert_eq!(server.recv_exactly(V1.len()).await, V1);
    server.send("220 hello\r\n").await;
    assert_eq!(client.recv_until(b"\r\n").await, b"220 hello\r\n");
    client.send("EHLO").await;
    assert_eq!(server.recv_exactly(4).await, b"EHLO");
    client.shutdown();
    server.expect_close().await;
    server.shutdown();
    client.expect_close().await;
}

#[test]
fn a_tcp_connection_begins_with_the_header_before_anybody_speaks() {
    telling(Version::V1).tcp(None).on_sim(before_a_server_that_speaks_first);
}
