//! Listeners that look at the first bytes of a connection before they know what to do with it, and at who speaks first.

use std::time::Duration;

use policy::{network_filter::ConnectionLimit, snapshot::ListenerFilters};
use sim::{Ask, Behaviour, End, Peer, SimIo};

use crate::mesh::{Setup, answers};

const MS: Duration = Duration::from_millis(1);

fn setup(continue_on_timeout: bool) -> Setup {
    let mut setup = Setup::new(Behaviour::default());
    setup.config.listener_filters = ListenerFilters {
        tls_inspector: true,
        timeout: Some(500 * MS),
        continue_on_timeout,
        ..ListenerFilters::default()
    };
    setup
}

#[test]
fn plain_http_passes_a_listener_that_looks_for_tls() {
    setup(false).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send([Ask::get("shop", "/", 1).bytes(), Ask::get("shop", "/", 2).bytes()].concat()).await;
        let answers = answers(&mut peer, &["GET", "GET"]).await;
        assert!(answers.iter().all(|answer| answer.status() == 200));
    });
}

#[test]
fn a_connection_that_says_nothing_is_closed_in_time_or_goes_on_as_configured() {
    setup(false).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        assert!(peer.recv_to_end().await.bytes.is_empty());
    });
    setup(true).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        mesh.pass(700 * MS).await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
    });
}

#[test]
fn a_request_on_its_way_when_its_listener_goes_is_answered_and_the_connection_ends() {
    let mut setup = setup(false);
    setup.config.listener_filters.timeout = None;
    setup.on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        mesh.until("it is being looked at", |mesh| !mesh.worker.is_idle()).await;
        mesh.adopt(|config| config.is_listening = false).await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        let answer = &answers(&mut peer, &["GET"]).await[0];
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
        peer.expect_close().await;
    });
}

#[test]
fn a_connection_that_ends_before_it_is_known_leaves_nothing_behind() {
    for end in [End::Close, End::Reset] {
        setup(false).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            // The start of a record of TLS.
            peer.send([0x16, 3, 1]).await;
            match end {
                End::Close => peer.shutdown(),
                End::Reset => return peer.reset(),
            }
            assert!(peer.recv_to_end().await.bytes.is_empty());
        });
    }
}

/// HTTP where HTTP is seen, TCP elsewhere, both to an endpoint that the story plays.
fn detecting() -> Setup {
    let mut setup = Setup::new(Behaviour::default()).without_origins().played(1).tcp(None);
    setup.config.detects = true;
    setup.config.listener_filters = ListenerFilters {
        tls_inspector: true,
        http_inspector: true,
        timeout: Some(5000 * MS),
        continue_on_timeout: true,
        ..ListenerFilters::default()
    };
    setup
}

#[test]
fn what_is_not_declared_is_told_by_its_first_bytes_however_they_come() {
    // What the client sends, and what its server gets of it.
    for (sent, got) in [
        (
            "GET / HTTP/1.1\r\nhost: shop\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: shop\r\nx-forwarded-proto: http\r\n",
        ),
        ("GET / HTTP/3.7\r\n", "GET / HTTP/3.7\r\n"),
        ("\u{16}\u{1}x", "\u{16}\u{1}x"),
        ("SSH-2.0-client\r\n", "SSH-2.0-client\r\n"),
    ] {
        for step in [1, 7, 100] {
            detecting().on_sim(async |mesh| {
                let mut client = mesh.peer().await;
                for piece in sent.as_bytes().chunks(step) {
                    client.send(piece).await;
                    mesh.pass(MS).await;
                }
                let mut server = mesh.accept().await;
                assert_eq!(str::from_utf8(&server.recv_exactly(got.len()).await).unwrap(), got);
            });
        }
    }
}

#[test]
fn a_server_may_speak_first_and_its_destination_is_remembered() {
    detecting().on_sim(async |mesh| {
        for count in 1..=2 {
            let (mut client, mut server) = (mesh.peer().await, mesh.accept().await);
            server.send("220 hello\r\n").await;
            assert_eq!(client.recv_until(b"\r\n").await, b"220 hello\r\n");
            client.send("GET / HTTP/1.1\r\n\r\n").await;
            assert_eq!(server.recv_exactly(18).await, b"GET / HTTP/1.1\r\n\r\n");
            // The second time nobody waits for either.
            assert_eq!(mesh.listener("downstream_cx_server_first"), 1, "{count}");
        }
    });
}

#[test]
fn a_client_that_thinks_before_it_speaks_http_is_understood() {
    detecting().on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        mesh.pass(200 * MS).await;
        // Connected to in vain, since the server might have been the one that speaks.
        let mut silent = mesh.accept().await;
        client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        silent.expect_close().await;
        let mut server = mesh.accept().await;
        let asked = server.recv_until(b"\r\n\r\n").await;
        assert!(asked.starts_with(b"GET / HTTP/1.1\r\nhost: shop\r\nx-forwarded-proto: http\r\n"));
    });
}

#[test]
fn a_server_that_ends_without_a_word_has_not_spoken_first() {
    for end in [End::Close, End::Reset] {
        detecting().on_sim(async |mesh| {
            let mut client = mesh.peer().await;
            mesh.pass(200 * MS).await;
            let mut silent = mesh.accept().await;
            match end {
                End::Close => {
                    silent.shutdown();
                    silent.expect_close().await;
                }
                End::Reset => silent.reset(),
            }
            mesh.pass(200 * MS).await;
            client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            let asked = mesh.accept().await.recv_until(b"\r\n\r\n").await;
            assert!(asked.starts_with(b"GET / HTTP/1.1\r\nhost: shop\r\nx-forwarded-proto: http\r\n"));
            assert_eq!(mesh.listener("downstream_cx_server_first"), 0);
        });
    }
}

#[test]
fn when_neither_side_speaks_the_connection_goes_on_as_it_is() {
    detecting().on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        mesh.pass(6000 * MS).await;
        client.send("late").await;
        mesh.accept().await.expect_close().await;
        assert_eq!(mesh.accept().await.recv_exactly(4).await, b"late");
    });
}

#[test]
fn a_client_that_leaves_while_its_server_is_connected_to_leaves_nothing_behind() {
    for end in [End::Close, End::Reset] {
        detecting().on_sim(async |mesh| {
            let client = mesh.peer().await;
            mesh.pass(50 * MS).await;
            let mut server = mesh.accept().await;
            match end {
                End::Close => drop(client),
                End::Reset => client.reset(),
            }
            server.recv_to_end().await;
        });
    }
}

/// Closed, maybe with bytes of ours unread, and so by FIN or RST; nothing was served.
async fn is_ended(mut peer: Peer<SimIo>) {
    assert!(peer.recv_to_end().await.bytes.is_empty());
}

// When a story ends every buffer must be back.

#[test]
fn a_connection_too_many_gives_back_what_was_read_of_it() {
    let mut setup = detecting();
    let (key, stat_prefix) = ("limit".into(), "limit".into());
    let limit = ConnectionLimit { key, stat_prefix, connections_max: 1, delay: Duration::ZERO };
    setup.config.connection_limit = Some(limit);
    setup.on_sim(async |mesh| {
        let mut first = mesh.peer().await;
        first.send("SSH-2.0-client\r\n").await;
        let mut server = mesh.accept().await;
        server.recv_exactly(16).await;
        let mut second = mesh.peer().await;
        let _ = second.try_send("SSH-2.0-client\r\n").await;
        is_ended(second).await;
        let third = mesh.peer().await;
        let mut speaks_first = mesh.accept().await;
        let _ = speaks_first.try_send("220 hello\r\n").await;
        is_ended(third).await;
        is_ended(speaks_first).await;
        first.reset();
        server.expect_reset().await;
    });
}

#[test]
fn a_connection_without_a_server_gives_back_what_was_read_of_it() {
    let nowhere = Setup { played: 0, ..detecting() }.nobodies(1);
    nowhere.on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        client.send("SSH-2.0-client\r\n").await;
        client.expect_reset().await;
    });
}

#[test]
fn a_connection_for_which_there_is_no_memory_gives_back_what_was_read_of_it() {
    detecting().on_sim(async |mesh| {
        mesh.worker.stats.buffers_allowed.set(0);
        let mut client = mesh.peer().await;
        client.send("SSH-2.0-client\r\n").await;
        client.expect_reset().await;
        let client = mesh.peer().await;
        let mut server = mesh.accept().await;
        let _ = server.try_send("220 hello\r\n").await;
        is_ended(client).await;
        is_ended(server).await;
    });
}

#[test]
fn a_connection_whose_listener_speaks_something_else_by_then_gives_back_what_was_read_of_it() {
    detecting().on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        mesh.until("it is being looked at", |mesh| !mesh.worker.is_idle()).await;
        mesh.adopt(|config| config.tcp = None).await;
        client.send("SSH-2.0-client\r\n").await;
        client.expect_reset().await;
    });
    detecting().on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        mesh.until("it is being looked at", |mesh| !mesh.worker.is_idle()).await;
        mesh.adopt(|config| config.detects = false).await;
        client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
        is_ended(client).await;
    });
}
