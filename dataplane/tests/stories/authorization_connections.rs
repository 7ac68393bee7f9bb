//! Who may connect, whatever is spoken then.

use std::time::Duration;

use policy::{
    network_filter::NetworkRbac,
    rbac::{Action, Condition, Rules},
};
use sim::{Ask, Behaviour, End};

use crate::{
    authorization::{WEB, World, enforced, only, rules},
    mesh::{Ground, Mesh, Pairing, Setup, ok},
};

const SECOND: Duration = Duration::from_secs(1);

/// Who may connect.
fn connecting(rules: Rules) -> NetworkRbac {
    NetworkRbac { stat_prefix: "who".into(), rbac: enforced(rules), delay_deny: Default::default() }
}

#[test]
fn a_connection_is_allowed_by_who_makes_it() {
    let world = World::new();
    for is_tcp in [false, true] {
        let mut setup = world.guarding(Setup::new(Behaviour::default()));
        setup.config.rbac = vec![connecting(only(WEB))];
        let setup = if is_tcp { setup.tcp(None) } else { setup };
        setup.on_sim(async |mesh| {
            let mut client = world.client(mesh, &world.web).await;
            client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            client.recv_until(b"\r\n\r\n").await.unwrap();
            client.peer.reset();
            let mut client = world.client(mesh, &world.pay).await;
            client.send("GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
            assert!(client.recv_until(b"\r\n\r\n").await.is_err(), "it was closed");
            assert_eq!(mesh.origin().requests().len(), 1);
            assert_eq!((mesh.connecting("allowed"), mesh.connecting("denied")), (1, 1));
        });
    }
}

/// Rules by which nobody may connect, or everybody.
fn nobody() -> Rules {
    rules(Action::Deny, Condition::Always, Condition::Always)
}

fn everybody() -> Rules {
    rules(Action::Allow, Condition::Always, Condition::Always)
}

#[test]
fn who_may_not_connect_is_kept_for_a_while_and_no_server_hears_of_it() {
    let mut setup = Setup::new(Behaviour::default()).played(1).tcp(None);
    setup.config.rbac = vec![NetworkRbac { delay_deny: 5 * SECOND, ..connecting(nobody()) }];
    // Where the server may speak first it is connected to before it is known who the client is.
    for waits_for_the_server in [false, true] {
        setup.config.listener_filters.tls_inspector = waits_for_the_server;
        setup.config.listener_filters.continue_on_timeout = waits_for_the_server;
        setup.config.listener_filters.timeout = Some(SECOND);
        setup.on_sim(async |mesh| {
            let begun = runtime::Io::now(&mesh.io);
            let mut client = mesh.peer().await;
            client.recv_to_end().await;
            let took = Duration::from_nanos(runtime::Io::now(&mesh.io) - begun);
            assert!(took >= 5 * SECOND, "{took:?}");
            assert_eq!(mesh.upstream("upstream_cx_total"), 0);
            assert_eq!(mesh.connecting("denied"), 1);
        });
    }
}

pub(crate) async fn new_rules_for_what_lives<I: Ground>(mesh: &Mesh<I>) {
    let (mut client, mut server) = (mesh.peer().await, mesh.accept().await);
    client.send("hello").await;
    assert_eq!(server.recv_exactly(5).await, b"hello");
    mesh.adopt(|config| config.rbac = vec![connecting(everybody())]).await;
    server.send("hello").await;
    assert_eq!(client.recv_exactly(5).await, b"hello", "it is allowed, and lives on");
    mesh.adopt(|config| config.rbac = vec![connecting(nobody())]).await;
    assert_eq!(client.recv_to_end().await.end, End::Reset);
    assert_eq!(server.recv_to_end().await.end, End::Reset);
    assert_eq!(mesh.connecting("denied"), 1);
}

#[test]
fn new_rules_end_a_connection_that_only_carries_bytes() {
    Setup::new(Behaviour::default()).played(1).tcp(None).on_sim(new_rules_for_what_lives);
}

#[test]
fn a_connection_that_may_not_be_any_more_carries_no_other_request() {
    for pairing in Pairing::all() {
        pairing.setup(Default::default()).on_sim(async |mesh| {
            let mut asker = pairing.asker(mesh).await;
            ok(asker.ask(&Ask::get("shop", "/", 1)).await);
            mesh.adopt(|config| config.rbac = vec![connecting(nobody())]).await;
            let verdict = asker.ask(&Ask::get("shop", "/", 2)).await;
            assert!(!matches!(verdict, sim::Verdict::Ok(_)), "{verdict:?}");
            assert_eq!(mesh.ledger().into_keys().collect::<Vec<_>>(), ["1"]);
            assert_ne!(mesh.connecting("denied"), 0);
        });
    }
}
