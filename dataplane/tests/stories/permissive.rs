//! Listeners that take plain text beside TLS that ends there, for those who have no certificates yet.

use std::time::Duration;

use dataplane::telemetry::access_log::AccessLog;
use policy::{
    client_cert::{ClientCertDetails, ForwardClientCert},
    snapshot::ListenerFilters,
    tls::DownstreamTls,
};
use rustls::ClientConnection;
use sim::{Ask, Behaviour};

use crate::{
    access_log::lines_of,
    mesh::{Setup, answers},
    secured::Identity,
    tls::{MS, WEB, World, asks},
};

/// By which a ClientHello asks for the TLS that ends here.
const MESH: &str = "http/1.1";

/// What `setup` serves, secured, and to others if `is_else_taken`.
fn secured(world: &World, setup: Setup, is_else_taken: bool) -> Setup {
    let mut setup = world.behind_tls(setup);
    // Tickets would wait for a client that receives nothing before its server is there.
    setup.config.tls =
        setup.config.tls.map(|tls| DownstreamTls { resumption: false, ..(*tls).clone() }.into());
    setup.config.tls_by = Some((MESH, is_else_taken));
    setup.config.listener_filters = ListenerFilters {
        tls_inspector: true,
        // A rough network may carry a byte at a time.
        timeout: Some(Duration::from_secs(300)),
        continue_on_timeout: true,
        ..ListenerFilters::default()
    };
    setup
}

#[test]
fn who_comes_in_plain_text_is_served_as_nobody_and_counted() {
    let world = World::new();
    let setup = Setup::new(Behaviour::default()).manager(|manager| {
        manager.forward_client_cert = ForwardClientCert::SanitizeSet;
        manager.client_cert_details = ClientCertDetails { uri: true, ..ClientCertDetails::default() };
    });
    secured(&world, setup, true).on_sim(async |mesh| {
        let lie = format!("GET / HTTP/1.1\r\nhost: shop\r\nx-forwarded-client-cert: URI={WEB}\r\n\r\n");
        for count in 1..=2 {
            let mut peer = mesh.peer().await;
            peer.send(lie.as_bytes()).await;
            assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
            assert_eq!(mesh.plaintext(), (count, vec![count]));
        }
        let mut client = world.client(mesh, &[MESH]).await;
        client.handshake().await.unwrap();
        assert!(asks(&mut client, lie).await.starts_with("http/1.1 200"));
        client.close().await;
        let told: Vec<_> = mesh.origin().requests();
        let told: Vec<_> = told.iter().map(|request| request.header("x-forwarded-client-cert")).collect();
        assert_eq!(told[..2], [None, None]);
        assert!(told[2].unwrap().ends_with(&format!(";URI={WEB}")) && told.len() == 3, "{told:?}");
        assert_eq!(mesh.plaintext(), (2, vec![2]));
    });
}

#[test]
fn where_it_is_not_taken_it_is_refused_with_a_reason() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut setup = secured(&world, Setup::new(Behaviour::default()), false);
    setup.access_log = AccessLog::start(&path).unwrap();
    setup.on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        assert!(peer.recv_to_end().await.bytes.is_empty());
        assert_eq!(mesh.listener("no_filter_chain_match"), 1);
        assert_eq!(mesh.plaintext(), (0, Vec::new()));
    });
    let lines = lines_of(&path, 1);
    let wanted = "\"reason\":\"no-filter-chain\",\"detail\":\"it is in plain text, and what is served here is secured\"";
    assert!(lines.iter().all(|line| line.contains(wanted)), "{lines:?}");
}

#[test]
fn a_connection_that_is_secured_goes_on_whether_others_must_be_or_not() {
    let world = World::new();
    for is_tcp in [false, true] {
        let setup = Setup::new(Behaviour::default());
        let setup = if is_tcp { setup.tcp(None) } else { setup };
        secured(&world, setup, false).on_sim(async |mesh| {
            let mut client = world.client(mesh, &[MESH]).await;
            client.handshake().await.unwrap();
            for (id, is_else_taken) in [false, true, false].into_iter().enumerate() {
                mesh.adopt(|config| config.tls_by = Some((MESH, is_else_taken))).await;
                let request = format!("GET / HTTP/1.1\r\nhost: shop\r\nx-id: {id}\r\n\r\n");
                assert!(asks(&mut client, request).await.starts_with("http/1.1 200"));
            }
            client.close().await;
            mesh.until("it is over", |mesh| mesh.worker.is_idle()).await;
        });
    }
}

#[test]
fn a_connection_in_plain_text_ends_soon_when_all_must_be_secured() {
    let world = World::new();
    secured(&world, Setup::new(Behaviour::default()), true).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
        mesh.adopt(|config| config.tls_by = Some((MESH, false))).await;
        peer.send(Ask::get("shop", "/", 2).bytes()).await;
        // What was on its way by then may be answered, and nothing after it.
        peer.recv_to_end().await;
        assert!(mesh.origin().requests().len() <= 2);
    });
}

#[test]
fn a_server_may_speak_first_to_those_in_plain_text_and_others_are_still_understood() {
    let world = World::new();
    let setup = Setup::new(Behaviour::default()).without_origins().played(1).tcp(None);
    secured(&world, setup, true).on_sim(async |mesh| {
        for silence in [0, 50] {
            let (mut client, mut server) = (mesh.peer().await, mesh.accept().await);
            server.send("220 hello\r\n").await;
            assert_eq!(client.recv_until(b"\r\n").await, b"220 hello\r\n");
            client.send("QUIT\r\n").await;
            assert_eq!(server.recv_until(b"\r\n").await, b"QUIT\r\n");

            // That the server speaks first is known now; it says nothing of one whose ClientHello is on its way.
            let mut client = world.client(mesh, &[MESH]).await;
            mesh.pass(silence * MS).await;
            client.handshake().await.unwrap();
            let mut server = mesh.accept().await;
            server.send("220 hello\r\n").await;
            assert_eq!(client.recv_until(b"\r\n").await.unwrap(), b"220 hello\r\n");
            client.close().await;
        }
        assert_eq!(mesh.plaintext(), (2, vec![2]));
    });
}

#[test]
fn tls_that_the_application_ends_is_handed_on_and_counted() {
    let world = World::new();
    let setup = Setup::new(Behaviour::default()).without_origins().played(1).tcp(None);
    secured(&world, setup, true).on_sim(async |mesh| {
        // The start of a ClientHello that asks for no protocol.
        let config = Identity::client(None, &world.authority, &[]);
        let mut client = ClientConnection::new(config.into(), "shop.example".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut peer = mesh.peer().await;
        peer.send(&hello[..]).await;
        assert_eq!(mesh.accept().await.recv_exactly(hello.len()).await, hello);
        assert_eq!(mesh.plaintext(), (1, vec![1]));
    });
}
