//! Configuration that changes under connections, and draining.

use std::time::Duration;

use dataplane::worker::Order;
use policy::snapshot::ListenerFilters;
use sim::{Ask, Behaviour, End, Peer};

use crate::mesh::{APP, Ground, Mesh, Setup, answers, ok};

const MS: Duration = Duration::from_millis(1);

pub(crate) fn named(name: &str) -> Behaviour {
    Behaviour { headers: vec![("x-origin".to_owned(), name.to_owned())], ..Behaviour::default() }
}

/// Leaves only one origin in the cluster.
async fn only<I: Ground>(mesh: &Mesh<I>, origin: usize) {
    let address = mesh.origins[origin].address();
    mesh.adopt(|config| config.clusters.get_mut(APP).unwrap().1 = vec![address]).await;
}

pub(crate) async fn change_under_a_connection<I: Ground>(mesh: &Mesh<I>) {
    only(mesh, 0).await;
    let mut client = mesh.client().await;
    let ask = [Ask::get("shop", "/", 1), Ask::get("shop", "/", 2)];
    mesh.origin().hold();
    let change = async {
        mesh.until("the first request runs", |mesh| mesh.upstream("upstream_rq_total") == 1).await;
        only(mesh, 1).await;
        assert_eq!(mesh.http("downstream_rq_active"), 1, "the request still runs");
        mesh.origin().release();
    };
    let (verdict, ()) = sim::both(client.ask(&ask[0]), change).await;
    assert_eq!(ok(verdict).header("x-origin"), Some("first"), "what runs keeps its snapshot");
    assert_eq!(ok(client.ask(&ask[1]).await).header("x-origin"), Some("second"), "the next has the new one");
    assert!(!client.is_over());
    mesh.until("connections to the removed endpoint are closed", |mesh| {
        mesh.origins[0].connections().iter().all(|connection| connection.is_over)
    })
    .await;
}

#[test]
fn a_running_exchange_keeps_its_snapshot_and_the_next_one_uses_the_new() {
    Setup::new(named("first")).origin(named("second")).on_sim(change_under_a_connection);
}

#[test]
fn pooled_connections_to_a_removed_endpoint_are_closed() {
    Setup::new(named("first")).origin(named("second")).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        for id in 0..2 {
            ok(client.ask(&Ask::get("shop", "/", id)).await);
        }
        assert_eq!(mesh.worker.pools.idle_count(), 2);
        only(mesh, 1).await;
        assert_eq!(mesh.worker.pools.idle_count(), 1);
        mesh.until("it is closed", |mesh| mesh.origins[0].connections()[0].is_over).await;
    });
}

#[test]
fn connections_that_wait_keep_no_old_snapshot_alive() {
    Setup::new(Behaviour::default()).on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let _fresh = mesh.peer().await;
        ok(client.ask(&Ask::get("shop", "/", 1)).await);
        let old = std::sync::Arc::downgrade(&mesh.worker.bound().snapshot);
        mesh.adopt(|config| config.manager.reason_header = false).await;
        // The fixture itself keeps the one before, to carry over from.
        mesh.adopt(|config| config.manager.reason_header = true).await;
        mesh.until("nobody holds it", |_| old.upgrade().is_none()).await;
        ok(client.ask(&Ask::get("shop", "/", 2)).await);
    });
}

pub(crate) async fn removed_listener<I: Ground>(mesh: &Mesh<I>) {
    let mut idle = mesh.peer().await;
    let mut waiting = mesh.peer().await;
    for peer in [&mut idle, &mut waiting] {
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        answers(peer, &["GET"]).await;
    }
    let mut client = mesh.client().await;
    let ask = Ask::get("shop", "/", 2);
    mesh.origin().hold();
    let change = async {
        mesh.until("the request runs", |mesh| mesh.upstream("upstream_rq_total") == 3).await;
        // Behind the change on its way to the proxy: it is answered all the same.
        waiting.send(Ask::get("shop", "/", 3).bytes()).await;
        mesh.adopt(|config| config.is_listening = false).await;
        mesh.origin().release();
    };
    let (verdict, ()) = sim::both(client.ask(&ask), change).await;
    ok(verdict);
    assert_eq!(answers(&mut waiting, &["GET"]).await[0].status(), 200);
    idle.expect_close().await;
    assert!(Peer::try_connect(&mesh.io, mesh.proxy).await.is_err(), "nobody listens any more");
}

#[test]
fn a_removed_listener_accepts_no_more_and_what_is_in_flight_is_unharmed() {
    Setup::new(Behaviour { think: 300 * MS, ..Behaviour::default() }).on_sim(removed_listener);
}

pub(crate) async fn drain<I: Ground>(mesh: &Mesh<I>) {
    let (mut fresh, mut idle, mut long_idle) = (mesh.peer().await, mesh.peer().await, mesh.peer().await);
    long_idle.send(Ask::get("shop", "/", 1).bytes()).await;
    answers(&mut long_idle, &["GET"]).await;
    mesh.pass(1500 * MS).await;
    idle.send(Ask::get("shop", "/", 2).bytes()).await;
    answers(&mut idle, &["GET"]).await;
    let mut client = mesh.client().await;
    let ask = Ask::post("shop", "/", 3, vec![1; 1000]);
    mesh.origin().hold();
    let order = async {
        mesh.until("the request runs", |mesh| mesh.upstream("upstream_rq_active") == 1).await;
        mesh.order(|| Order::Drain);
        mesh.until("the worker drains", |mesh| mesh.worker.is_draining()).await;
        mesh.origin().release();
    };
    let (verdict, ()) = sim::both(client.ask(&ask), order).await;
    assert_eq!(ok(verdict).header("connection"), Some("close"));
    for peer in [&mut fresh, &mut idle, &mut long_idle] {
        peer.expect_close().await;
    }
    assert!(Peer::try_connect(&mesh.io, mesh.proxy).await.is_err(), "nobody listens any more");
}

#[test]
fn a_draining_worker_ends_what_runs_and_closes_what_waits() {
    Setup::new(Behaviour { think: 300 * MS, ..Behaviour::default() }).on_sim(drain);
}

#[test]
fn a_drain_does_not_cut_an_upload() {
    Setup::new(Behaviour::default()).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        let ask = Ask::post("shop", "/", 1, vec![1; 1000]).bytes();
        peer.send(&ask[..600]).await;
        mesh.until("the upload runs", |mesh| mesh.upstream("upstream_rq_total") == 1).await;
        mesh.order(|| Order::Drain);
        mesh.pass(500 * MS).await;
        peer.send(&ask[600..]).await;
        assert_eq!(answers(&mut peer, &["POST"]).await[0].status(), 200);
        assert_eq!(peer.recv_to_end().await.end, End::Close);
    });
}

/// Longer than a connection that waits lives on in a drain: it retires, then lingers for a client that does not close.
const WAITING_MAX: Duration = Duration::from_millis(3100);

#[test]
fn a_connection_without_a_request_does_not_hold_a_drain() {
    Setup::new(Behaviour::default()).on_sim(async |mesh| {
        let (_fresh, mut idle) = (mesh.peer().await, mesh.peer().await);
        idle.send(Ask::get("shop", "/", 1).bytes()).await;
        answers(&mut idle, &["GET"]).await;
        mesh.until("idle connections hold no buffer", |mesh| mesh.worker.buffers.out_count() == 0).await;
        mesh.order(|| Order::Drain);
        mesh.pass(WAITING_MAX).await;
        assert!(mesh.worker.is_idle());
    });
}

#[test]
fn a_connection_whose_first_bytes_are_waited_for_does_not_hold_a_drain() {
    for continue_on_timeout in [false, true] {
        let mut setup = Setup::new(Behaviour::default());
        setup.config.listener_filters =
            ListenerFilters { tls_inspector: true, continue_on_timeout, ..ListenerFilters::default() };
        setup.on_sim(async |mesh| {
            let (_fresh, mut half, mut late) = (mesh.peer().await, mesh.peer().await, mesh.peer().await);
            half.send([0x16, 3, 1]).await;
            mesh.pass(100 * MS).await;
            mesh.order(|| Order::Drain);
            mesh.pass(400 * MS).await;
            late.send(Ask::get("shop", "/", 1).bytes()).await;
            let answer = answers(&mut late, &["GET"]).await.remove(0);
            assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
            mesh.pass(WAITING_MAX - 400 * MS).await;
            assert!(mesh.worker.is_idle());
            assert_eq!(mesh.worker.bound().listeners[0].counters.downstream_pre_cx_timeout.get(), 0);
        });
    }
}

#[test]
fn a_drain_leaves_tcp_connections_alone_and_ends_with_the_last_of_them() {
    Setup::new(Behaviour::default()).played(1).tcp(None).on_sim(async |mesh| {
        let (mut client, mut server) = (mesh.peer().await, mesh.accept().await);
        mesh.order(|| Order::Drain);
        mesh.pass(WAITING_MAX).await;
        assert!(!mesh.worker.is_idle());
        client.send("last words").await;
        client.shutdown();
        assert_eq!(server.recv_to_end().await.bytes, b"last words");
        mesh.pass(100 * MS).await;
        assert!(!mesh.worker.is_idle(), "the other direction lives");
        server.shutdown();
        mesh.pass(100 * MS).await;
        assert!(mesh.worker.is_idle());
    });
}

#[test]
fn accepting_goes_on_after_every_error_but_the_listeners_end() {
    // EMFILE, ENFILE, ECONNABORTED, EPROTO, ENETDOWN, EPERM.
    for error in [24, 23, 103, 71, 100, 1] {
        let sim = sim::Sim::with_seed(0);
        Setup::new(Behaviour::default()).on(&sim, &async |mesh: &Mesh<_>| {
            sim.fail_accepts(mesh.proxy, error, 3);
            ok(mesh.client().await.ask(&Ask::get("shop", "/", 1)).await);
        });
    }
}
