//! Connections that are one too many: for a filter chain, for the process, for its descriptors.

use std::{sync::Arc, time::Duration};

use dataplane::admission::Admission;
use policy::network_filter::ConnectionLimit;
use sim::{Ask, Behaviour};

use crate::mesh::{Ground, Mesh, Setup, answers};

const MS: Duration = Duration::from_millis(1);

async fn is_served<I: Ground>(mesh: &Mesh<I>) -> sim::Peer<I> {
    let mut peer = mesh.peer().await;
    peer.send(Ask::get("shop", "/", 1).bytes()).await;
    assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
    peer
}

async fn is_closed<I: Ground>(mesh: &Mesh<I>) {
    let mut peer = mesh.peer().await;
    // Closed with our bytes unread, so by FIN or RST.
    let _ = peer.try_send(Ask::get("shop", "/", 2).bytes()).await;
    assert!(peer.recv_to_end().await.bytes.is_empty());
}

async fn leaves<I: Ground>(mut peer: sim::Peer<I>) {
    peer.shutdown();
    peer.expect_close().await;
}

async fn goes<I: Ground>(mesh: &Mesh<I>, peer: sim::Peer<I>) {
    let before = mesh.worker.stats.counters.connections.get();
    leaves(peer).await;
    mesh.until("it has gone", |mesh| mesh.worker.stats.counters.connections.get() < before).await;
}

fn limited(connections_max: u64, delay: Duration) -> Setup {
    let mut setup = Setup::new(Behaviour::default());
    let limit = ConnectionLimit { key: "limit".into(), stat_prefix: "limit".into(), connections_max, delay };
    setup.config.connection_limit = Some(limit);
    setup
}

pub(crate) async fn one_too_many<I: Ground>(mesh: &Mesh<I>) {
    let first = is_served(mesh).await;
    let second = is_served(mesh).await;
    is_closed(mesh).await;
    is_closed(mesh).await;
    goes(mesh, first).await;
    let third = is_served(mesh).await;
    is_closed(mesh).await;
    goes(mesh, second).await;
    goes(mesh, third).await;
    assert_eq!(mesh.origin().requests().len(), 3);
}

#[test]
fn a_filter_chain_takes_as_many_connections_as_it_may_and_one_more_when_one_goes() {
    limited(2, Duration::ZERO).on_sim(one_too_many);
    let mut tcp = limited(1, Duration::ZERO).played(1).tcp(None);
    tcp.config.connection_limit.as_mut().unwrap().connections_max = 1;
    tcp.on_sim(async |mesh| {
        let mut client = mesh.peer().await;
        client.send("hello").await;
        let mut server = mesh.accept().await;
        server.recv_exactly(5).await;
        is_closed(mesh).await;
        client.reset();
        server.expect_reset().await;
    });
}

#[test]
fn a_connection_beyond_the_limit_is_kept_for_the_delay_and_never_served() {
    limited(1, 300 * MS).on_sim(async |mesh| {
        let first = is_served(mesh).await;
        let mut late = mesh.peer().await;
        late.expect_silence(250 * MS).await;
        goes_before(mesh, first).await;
        assert!(late.recv_to_end().await.bytes.is_empty());
    });
}

async fn goes_before<I: Ground>(_: &Mesh<I>, mut peer: sim::Peer<I>) {
    peer.shutdown();
    peer.expect_close().await;
}

#[test]
fn the_process_takes_as_many_connections_as_it_may() {
    let mut setup = Setup::new(Behaviour::default());
    setup.admission = Arc::new(Admission::new(Some(2), u64::MAX));
    setup.on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        one_too_many(mesh).await;
        assert_eq!(mesh.worker.admission.refused(), 3);
        assert_eq!(mesh.worker.bound().listeners[0].counters.downstream_global_cx_overflow.get(), 3);
    });
}

pub(crate) fn little_room() -> Setup {
    let mut setup = Setup::new(Behaviour::default());
    // Two connections at work may need six, and a third one nine.
    setup.admission = Arc::new(Admission::new(None, 8));
    setup
}

pub(crate) async fn waits_for_room<I: Ground>(mesh: &Mesh<I>) {
    let first = is_served(mesh).await;
    let mut second = is_served(mesh).await;
    // One may be accepted already when the room is looked for.
    let mut queued = Vec::new();
    for id in 10..15 {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", id).bytes()).await;
        queued.push(peer);
    }
    mesh.pass(300 * MS).await;
    assert!(mesh.origin().requests().len() <= 3, "the others wait");
    second.send(Ask::get("shop", "/", 2).bytes()).await;
    assert_eq!(answers(&mut second, &["GET"]).await[0].status(), 200, "who is there is served");
    // Who waits may have taken the place before it is seen to be free.
    leaves(first).await;
    leaves(second).await;
    for mut peer in queued {
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
        leaves(peer).await;
    }
    assert!(mesh.worker.bound().listeners[0].counters.downstream_cx_accept_paused.get() > 0);
}

#[test]
fn who_comes_while_descriptors_are_short_waits_and_is_served_when_there_is_room() {
    little_room().on(&sim::Sim::with_seed(0), &waits_for_room);
}
