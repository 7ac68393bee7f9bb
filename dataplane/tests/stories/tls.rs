//! TLS on both sides of the proxy, against rustls as it comes.

use std::{io::Write as _, sync::Arc, time::Duration};

use policy::{
    client_cert::{ClientCertDetails, ForwardClientCert},
    cluster::UpstreamProtocol,
    tls::{DownstreamTls, Secret, Source, Transports},
};
use runtime::Io;
use rustls::HandshakeKind;
use sim::{Ask, Behaviour};

use crate::{
    mesh::{Ground, Mesh, Setup},
    secured::{Authority, Identity, TlsPeer, downstream, upstream, uri},
};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const WEB: &str = "spiffe://m/ns/shop/sa/web";
pub(crate) const PAY: &str = "spiffe://m/ns/shop/sa/pay";

/// A proxy that is `pay` at its listener and `web` towards its upstream, and those who may be on the other ends.
pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) web: Identity,
    pub(crate) pay: Identity,
}

impl World {
    pub(crate) fn new() -> World {
        let authority = Authority::new();
        let (web, pay) = (authority.workload(WEB), authority.workload(PAY));
        World { authority, web, pay }
    }

    /// Mutual TLS at the listener.
    pub(crate) fn behind_tls(&self, mut setup: Setup) -> Setup {
        setup.config.tls = Some(Arc::new(downstream(&self.pay, self.authority.bundle())));
        setup
    }

    /// Mutual TLS to the upstream, which must be `pay`.
    pub(crate) fn before_tls(&self, setup: Setup) -> Setup {
        let tls = Arc::new(upstream(&self.web, self.authority.bundle(), PAY));
        setup.cluster(|cluster| {
            cluster.transport = Transports { default: Some(tls), ..Transports::default() };
            // A rough network may carry a byte at a time.
            cluster.connect_timeout = Duration::from_secs(300);
        })
    }

    pub(crate) async fn client<I: Ground>(&self, mesh: &Mesh<I>, alpn: &[&str]) -> TlsPeer<I> {
        let config = Identity::client(Some(&self.web), &self.authority, alpn);
        TlsPeer::client(mesh.peer().await, config)
    }
}

pub(crate) const OK: &[u8] = b"\r\n\r\n";

/// A request by a client that is done with its handshake; the head of the answer, whose body is received, too.
pub(crate) async fn asks<I: Io>(client: &mut TlsPeer<I>, request: impl AsRef<[u8]>) -> String {
    client.send(request).await;
    let head = String::from_utf8(client.recv_until(OK).await.unwrap()).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    client.recv_exactly(length.map_or(0, |length| length.parse().unwrap())).await;
    head
}

#[test]
fn a_client_that_is_somebody_is_served_and_upstream_is_told_who_it_is() {
    let world = World::new();
    let setup = world.behind_tls(Setup::new(Behaviour::default())).manager(|manager| {
        manager.forward_client_cert = ForwardClientCert::SanitizeSet;
        manager.client_cert_details = ClientCertDetails { uri: true, ..ClientCertDetails::default() };
    });
    setup.on_sim(async |mesh| {
        for step in [usize::MAX, 1] {
            let mut client = world.client(mesh, &["http/1.1"]).await;
            client.step = step;
            client.handshake().await.unwrap();
            assert_eq!(client.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
            let lie = "x-forwarded-client-cert: By=me;URI=spiffe://m/ns/shop/sa/admin\r\n";
            for id in 0..2 {
                let request = format!("GET / HTTP/1.1\r\nhost: shop\r\n{lie}x-id: {id}\r\n\r\n");
                assert!(asks(&mut client, request).await.starts_with("http/1.1 200"));
            }
            client.close().await;
        }
        for request in mesh.origin().requests() {
            assert_eq!(request.header("x-forwarded-proto"), Some("https"));
            let told = request.header("x-forwarded-client-cert").unwrap();
            assert!(
                told.starts_with(&format!("By={PAY};Hash=")) && told.ends_with(&format!(";URI={WEB}")),
                "{told}"
            );
            assert!(!told.contains("admin"), "{told}");
        }
        assert_eq!(mesh.origin().requests().len(), 4);
    });
}

#[test]
fn who_is_nobody_or_somebody_elses_is_refused_and_it_is_counted() {
    let world = World::new();
    let stranger = Authority::new();
    let of = |change: fn(&mut rcgen::CertificateParams)| Some(world.authority.certificate(change));
    let cases: [(&str, Option<Identity>, &str); 9] = [
        ("nobody", None, "fail_verify_no_cert"),
        ("of another authority", Some(stranger.workload(WEB)), "fail_verify_error"),
        (
            "two URIs",
            of(|of| of.subject_alt_names = vec![uri(WEB), uri("spiffe://m/b")]),
            "fail_verify_error",
        ),
        (
            "a URI beside it",
            of(|of| of.subject_alt_names = vec![uri(WEB), uri("https://a/")]),
            "fail_verify_error",
        ),
        (
            "upper case",
            of(|of| of.subject_alt_names = vec![uri("spiffe://M/ns/a/sa/b")]),
            "fail_verify_error",
        ),
        ("dots", of(|of| of.subject_alt_names = vec![uri("spiffe://m/ns/../sa/b")]), "fail_verify_error"),
        ("escaped", of(|of| of.subject_alt_names = vec![uri("spiffe://m/%2e")]), "fail_verify_error"),
        (
            "no usage",
            of(|of| {
                of.subject_alt_names = vec![uri(WEB)];
                of.key_usages.clear();
            }),
            "fail_verify_error",
        ),
        (
            "expired",
            of(|of| {
                of.subject_alt_names = vec![uri(WEB)];
                of.not_after = rcgen::date_time_ymd(2020, 1, 1);
            }),
            "fail_verify_error",
        ),
    ];
    world.behind_tls(Setup::new(Behaviour::default())).on_sim(async |mesh| {
        for (number, (what, identity, counter)) in cases.iter().enumerate() {
            let config = Identity::client(identity.as_ref(), &world.authority, &[]);
            let mut client = TlsPeer::client(mesh.peer().await, config);
            let before = mesh.secured(counter);
            // In TLS 1.3 a client is done before the server has looked at it.
            let _ = client.handshake().await;
            assert!(client.recv_until(OK).await.is_err(), "{what} is served");
            mesh.until(what, |mesh| mesh.secured("connection_error") == number as u64 + 1).await;
            assert_eq!(mesh.secured(counter), before + 1, "{what}");
        }
        assert!(mesh.origin().requests().is_empty());
        assert_eq!(mesh.secured("handshake"), 0);
    });
}

#[test]
fn bodies_go_both_ways_through_tls_on_both_sides() {
    let world = World::new();
    let mut setup =
        world.before_tls(world.behind_tls(Setup::new(Behaviour::default()).without_origins().played(1)));
    // This client reads nothing while it sends, and a rough network does not hold a ticket meanwhile.
    let tls = downstream(&world.pay, world.authority.bundle());
    setup.config.tls = Some(Arc::new(DownstreamTls { resumption: false, ..tls }));
    setup.on_sim(async |mesh| {
        let body = vec![b'x'; 300_000];
        let mut client = world.client(mesh, &[]).await;
        client.handshake().await.unwrap();
        let upload = async {
            let head = format!("POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: {}\r\n\r\n", body.len());
            client.send(head).await;
            client.send(&body).await;
            let head = client.recv_until(OK).await.unwrap();
            assert!(head.starts_with(b"HTTP/1.1 200"));
            assert_eq!(client.recv_exactly(body.len()).await, body);
        };
        let echo = async {
            let mut server = TlsPeer::server(mesh.accept().await, world.pay.server(&world.authority));
            server.handshake().await.unwrap();
            server.recv_until(OK).await.unwrap();
            let received = server.recv_exactly(body.len()).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", received.len());
            server.send(head).await;
            server.send(received).await;
            server
        };
        let (_, mut server) = tokio::join!(upload, echo);
        server.close().await;
    });
}

#[test]
fn a_body_that_is_cut_never_looks_whole_and_one_that_ends_does() {
    let world = World::new();
    for (is_said, whole) in [(true, true), (false, false)] {
        let setup = world.before_tls(Setup::new(Behaviour::default()).without_origins().played(1));
        setup.on_sim(async |mesh| {
            let mut client = mesh.peer().await;
            client.send(Ask::get("shop", "/", 1).bytes()).await;
            let mut server = TlsPeer::server(mesh.accept().await, world.pay.server(&world.authority));
            server.handshake().await.unwrap();
            server.recv_until(OK).await.unwrap();
            server.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf").await;
            match is_said {
                true => server.close().await,
                false => server.peer.shutdown(),
            }
            client.recv_until(b"half").await;
            // In chunks, since its length was not known: the last one is the end.
            match whole {
                true => drop(client.recv_until(b"\r\n0\r\n\r\n").await),
                false => assert!(!client.recv_to_end().await.bytes.ends_with(b"0\r\n\r\n")),
            }
        });
    }
}

#[test]
fn an_upstream_that_is_not_who_it_must_be_gets_no_byte_of_a_request() {
    let world = World::new();
    let stranger = Authority::new();
    for (what, other) in [
        ("another workload", Some(world.web.clone())),
        ("of another authority", Some(stranger.workload(PAY))),
        ("plain text", None),
    ] {
        let setup = world.before_tls(Setup::new(Behaviour::default()).without_origins().played(1));
        setup.on_sim(async |mesh| {
            let mut client = mesh.peer().await;
            client.send(Ask::get("shop", "/secret", 1).bytes()).await;
            let mut server = mesh.accept().await;
            match &other {
                Some(identity) => {
                    let mut server = TlsPeer::server(server, identity.server(&world.authority));
                    let failed = server.handshake().await;
                    assert!(failed.is_err() || server.recv_until(OK).await.is_err(), "{what}");
                }
                None => {
                    server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    server.recv_to_end().await;
                    assert!(!server.waiting().windows(7).any(|part| part == b"/secret"), "{what}");
                }
            }
            let answer = client.recv_until(b"no TLS with upstream").await;
            assert!(answer.starts_with(b"HTTP/1.1 503"), "{what}");
            assert_eq!(mesh.upstream("upstream_cx_connect_fail"), 1, "{what}");
        });
    }
}

#[test]
fn another_certificate_is_shown_at_once_and_ends_all_sessions_before_it() {
    let world = World::new();
    let mut setup = world.behind_tls(Setup::new(Behaviour::default()));
    let mut tls = downstream(&world.pay, world.authority.bundle());
    tls.common.certificates = vec![Source::Named("own".into())];
    setup.config.tls = Some(Arc::new(tls));
    let own = |identity: &Identity| Arc::new(Secret::Certificate(identity.chain.clone()));
    setup.config.secrets.insert("own".into(), own(&world.pay));
    setup.on_sim(async |mesh| {
        let config = Arc::new(Identity::client(Some(&world.web), &world.authority, &[]));
        let once = async || {
            let mut client = TlsPeer::client(mesh.peer().await, config.clone());
            client.handshake().await.unwrap();
            assert!(asks(&mut client, Ask::get("shop", "/", 1).bytes()).await.starts_with("http/1.1 200"));
            let shown = client.tls.peer_certificates().unwrap()[0].to_vec();
            let is_resumed = client.tls.handshake_kind() == Some(HandshakeKind::Resumed);
            client.close().await;
            (shown, is_resumed)
        };
        let first = once().await;
        assert_eq!((first.1, once().await.1), (false, true), "a session is gone on with");
        let other = world.authority.workload(PAY);
        mesh.adopt(|config| drop(config.secrets.insert("own".into(), own(&other)))).await;
        let second = once().await;
        assert_eq!(second, (other.chain.chain[0].to_vec(), false));
        mesh.adopt(|config| drop(config.secrets.remove("own"))).await;
        let mut client = TlsPeer::client(mesh.peer().await, config.clone());
        assert!(client.handshake().await.is_err(), "without a certificate nobody is taken");
        assert_eq!(mesh.secured("no_certificate"), 1);
    });
}

#[test]
fn a_pooled_connection_is_not_used_under_another_configuration() {
    let world = World::new();
    let setup = world.before_tls(Setup::new(Behaviour::default()).without_origins().played(1));
    setup.on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        let serve = async || {
            let mut server = TlsPeer::server(mesh.accept().await, world.pay.server(&world.authority));
            server.handshake().await.unwrap();
            server.recv_until(OK).await.unwrap();
            server.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            server
        };
        client.send(Ask::get("shop", "/", 1).bytes()).await;
        let _kept = serve().await;
        client.recv_until(OK).await;
        mesh.adopt(|config| {
            let (cluster, _) = config.clusters.values_mut().next().unwrap();
            let tls = upstream(&world.web, world.authority.bundle(), PAY);
            cluster.transport.default = Some(Arc::new(tls));
        })
        .await;
        client.send(Ask::get("shop", "/", 2).bytes()).await;
        let _other = serve().await;
        client.recv_until(OK).await;
        assert_eq!(mesh.upstream("upstream_cx_total"), 2);
    });
}

#[test]
fn what_is_agreed_on_is_what_is_spoken() {
    let world = World::new();
    let setup = world.behind_tls(Setup::new(Behaviour::default()));
    setup.on_sim(async |mesh| {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let mut client = world.client(mesh, &["h2", "http/1.1"]).await;
        client.handshake().await.unwrap();
        assert_eq!(client.tls.alpn_protocol(), Some(&b"h2"[..]));
        client.send(PREFACE).await;
        // SETTINGS come first.
        assert_eq!(client.recv_exactly(4).await[3], 4);
        client.close().await;

        let mut wrong = world.client(mesh, &["http/1.1"]).await;
        wrong.handshake().await.unwrap();
        assert!(
            asks(&mut wrong, PREFACE).await.starts_with("http/1.1 505"),
            "HTTP/2 where HTTP/1.1 was agreed on"
        );

        let mut wrong = world.client(mesh, &["h2"]).await;
        wrong.handshake().await.unwrap();
        wrong.send(Ask::get("shop", "/", 1).bytes()).await;
        let answer = wrong.recv_until(b"HTTP/1.1 200").await;
        assert!(answer.is_err(), "HTTP/1.1 where HTTP/2 was agreed on");

        let mut other = world.client(mesh, &["spdy"]).await;
        // The alert stands behind what the proxy had to say before.
        let told = other.handshake().await.unwrap_err();
        assert!(told.contains("NoApplicationProtocol"), "nothing in common: {told}");
        assert!(mesh.origin().requests().is_empty());
    });
}

#[test]
fn a_client_may_ask_and_change_its_keys_with_the_end_of_its_handshake() {
    let world = World::new();
    let request = Ask::get("shop", "/", 1).bytes();
    for changes in [0, 1, 3] {
        world.behind_tls(Setup::new(Behaviour::default())).on_sim(async |mesh| {
            let mut client = world.client(mesh, &[]).await;
            client
                .handshake_then(|tls| {
                    for piece in request.chunks(request.len().div_ceil(changes + 1)) {
                        tls.writer().write_all(piece).unwrap();
                        if changes > 0 {
                            tls.refresh_traffic_keys().unwrap();
                        }
                    }
                })
                .await;
            assert!(client.recv_until(OK).await.unwrap().starts_with(b"HTTP/1.1 200"));
        });
    }
}

#[test]
fn a_handshake_has_its_time_and_what_is_none_has_no_answer() {
    let world = World::new();
    let mut setup = world.behind_tls(Setup::new(Behaviour::default()));
    let mut tls = downstream(&world.pay, world.authority.bundle());
    tls.handshake_timeout = 500 * MS;
    setup.config.tls = Some(Arc::new(tls));
    setup.on_sim(async |mesh| {
        let mut silent = mesh.peer().await;
        let mut half = mesh.peer().await;
        half.send(b"\x16\x03\x01\x02\0\x01").await;
        let mut plain = mesh.peer().await;
        plain.send(Ask::get("shop", "/", 1).bytes()).await;
        plain.recv_to_end().await;
        assert!(!plain.waiting().starts_with(b"HTTP"));
        mesh.pass(600 * MS).await;
        silent.recv_to_end().await;
        half.recv_to_end().await;
        mesh.until("both", |mesh| mesh.secured("handshake_timeout") == 2).await;
    });
}

#[test]
fn an_upstream_may_choose_what_it_speaks() {
    let world = World::new();
    let setup = world.before_tls(Setup::new(Behaviour::default()).without_origins().played(1));
    let setup = setup.cluster(|cluster| cluster.protocol = UpstreamProtocol::Auto);
    setup.on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        for id in 0..2 {
            client.send(Ask::get("shop", "/", id).bytes()).await;
            let mut config = world.pay.server(&world.authority);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let mut server = TlsPeer::server(mesh.accept().await, config);
            server.handshake().await.unwrap();
            assert_eq!(server.tls.alpn_protocol(), Some(&b"http/1.1"[..]));
            server.recv_until(OK).await.unwrap();
            server.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
            client.recv_until(OK).await;
            server.close().await;
        }
    });
}
