//! What becomes of connections that live when their listener asks for another security than they have.

use std::sync::Arc;

use policy::tls::{DownstreamTls, Secret, Source, TrustBundle};
use sim::{Ask, Behaviour, End, Verdict};

use crate::{
    mesh::{Ground, Mesh, Pairing, Setup, ok},
    secured::{Authority, Identity, TlsPeer, downstream},
    tls::{World, asks},
};

/// TLS without a certificate of the client's.
fn lax(world: &World) -> Arc<DownstreamTls> {
    let mut tls = downstream(&world.pay, TrustBundle::default());
    tls.common.validation = None;
    tls.require_client_certificate = false;
    Arc::new(tls)
}

#[test]
fn a_connection_in_plain_text_carries_nothing_more_where_tls_is_asked_for() {
    let world = World::new();
    for pairing in Pairing::all() {
        pairing.setup(Default::default()).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            ok(asker.ask(&Ask::get("shop", "/", 1)).await);
            mesh.adopt(|config| config.tls = Some(lax(&world))).await;
            let verdict = asker.ask(&Ask::get("shop", "/", 2)).await;
            assert!(!matches!(verdict, Verdict::Ok(_)), "{verdict:?}");
            assert_eq!(mesh.ledger().into_keys().collect::<Vec<_>>(), ["1"], "{pairing:?}");
        });
    }
}

#[test]
fn a_connection_that_only_carries_bytes_in_plain_text_ends_where_tls_is_asked_for() {
    let world = World::new();
    Setup::new(Behaviour::default()).played(1).tcp(None).on_sim(async |mesh| {
        let (mut client, mut server) = (mesh.peer().await, mesh.accept().await);
        client.send("hello").await;
        assert_eq!(server.recv_exactly(5).await, b"hello");
        mesh.adopt(|config| config.tls = Some(lax(&world))).await;
        assert_eq!(client.recv_to_end().await.end, End::Reset);
        assert_eq!(server.recv_to_end().await.end, End::Reset);
    });
}

/// A client that is somebody, over HTTP/1.1.
async fn somebody<I: Ground>(mesh: &Mesh<I>, world: &World) -> TlsPeer<I> {
    let config = Identity::client(Some(&world.web), &world.authority, &["http/1.1"]);
    let mut client = TlsPeer::client(mesh.peer().await, config);
    client.handshake().await.unwrap();
    client
}

/// Whether a request on a connection that lives is answered; the body of the answer before it may come first.
async fn is_served<I: Ground>(client: &mut TlsPeer<I>) -> bool {
    client.send(Ask::get("shop", "/", 1).bytes()).await;
    let answer = client.recv_until(b"\r\n\r\n").await.unwrap_or_default();
    String::from_utf8_lossy(&answer).to_lowercase().contains("http/1.1 200")
}

#[test]
fn whom_nobody_vouches_for_any_more_is_served_no_longer_and_more_authorities_end_nobody() {
    let world = World::new();
    let other = Authority::new();
    let trust = |all: &[&Authority]| {
        let anchors = all.iter().flat_map(|authority| authority.bundle().anchors).collect();
        Arc::new(Secret::Trust(Arc::new(TrustBundle { anchors, ..TrustBundle::default() })))
    };
    let mut setup = Setup::new(Behaviour::default());
    let mut tls = downstream(&world.pay, TrustBundle::default());
    tls.common.validation.as_mut().unwrap().named = Some("trust".into());
    tls.common.certificates.push(Source::Named("own".into()));
    setup.config.tls = Some(Arc::new(tls));
    let own = |identity: &Identity| Arc::new(Secret::Certificate(identity.chain.clone()));
    setup.config.secrets.insert("own".into(), own(&world.pay));
    setup.config.secrets.insert("trust".into(), trust(&[&world.authority]));
    setup.on_sim(async |mesh| {
        let mut client = somebody(mesh, &world).await;
        assert!(is_served(&mut client).await);
        let own = own(&world.web);
        mesh.adopt(|config| drop(config.secrets.insert("own".into(), own))).await;
        assert!(is_served(&mut client).await, "what we show is another thing");
        let both = trust(&[&other, &world.authority]);
        mesh.adopt(|config| drop(config.secrets.insert("trust".into(), both))).await;
        assert!(is_served(&mut client).await, "it would be taken still");
        let gone = trust(&[&other]);
        mesh.adopt(|config| drop(config.secrets.insert("trust".into(), gone))).await;
        assert!(!is_served(&mut client).await);
    });
}

#[test]
fn a_client_that_was_asked_for_nothing_is_served_no_longer_where_all_are_asked_who_they_are() {
    let world = World::new();
    let mut setup = Setup::new(Behaviour::default());
    setup.config.tls = Some(lax(&world));
    setup.on_sim(async |mesh| {
        let config = Identity::client(None, &world.authority, &["http/1.1"]);
        let mut client = TlsPeer::client(mesh.peer().await, config);
        client.handshake().await.unwrap();
        assert!(asks(&mut client, Ask::get("shop", "/", 1).bytes()).await.starts_with("http/1.1 200"));
        let strict = Arc::new(downstream(&world.pay, world.authority.bundle()));
        mesh.adopt(|config| config.tls = Some(strict)).await;
        assert!(!is_served(&mut client).await);
    });
}

#[test]
fn a_connection_of_streams_that_has_no_place_any_more_is_left() {
    Setup::streams(Default::default()).on_sim(async |mesh| {
        let streams = mesh.streams().await;
        ok(streams.ask(&Ask::get("shop", "/", 1)).await);
        let proxy = Setup::new(Behaviour::default()).tcp(None).config.tcp;
        mesh.adopt(|config| config.tcp = proxy).await;
        // It was on its way, for all that the client knew.
        ok(streams.ask(&Ask::get("shop", "/", 2)).await);
        mesh.until("the connection is left", |mesh| mesh.http("downstream_cx_http2_active") == 0).await;
        let verdict = streams.ask(&Ask::get("shop", "/", 3)).await;
        assert!(!matches!(verdict, Verdict::Ok(_)), "{verdict:?}");
        assert_eq!(mesh.ledger().len(), 2);
    });
}
