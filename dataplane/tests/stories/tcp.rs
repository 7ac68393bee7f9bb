//! Plain TCP: bytes both ways, ends passed on as what they are.

use std::time::Duration;

use sim::{Behaviour, End, Ended, Peer};

use crate::mesh::{Ground, Mesh, Setup};

const MS: Duration = Duration::from_millis(1);

fn setup() -> Setup {
    Setup::new(Behaviour::default()).played(1).tcp(None)
}

async fn pair<I: Ground>(mesh: &Mesh<I>) -> (Peer<I>, Peer<I>) {
    (mesh.peer().await, mesh.accept().await)
}

pub(crate) async fn both_ways<I: Ground>(mesh: &Mesh<I>) {
    let (mut client, mut server) = pair(mesh).await;
    server.send("220 server first\r\n").await;
    client.recv_until(b"\r\n").await;
    let bytes: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
    let up = sim::both(client.send(&bytes), server.recv_exactly(bytes.len()));
    let ((), got) = up.await;
    assert!(got == bytes);
    let ((), got) = sim::both(server.send(&bytes), client.recv_exactly(bytes.len())).await;
    assert!(got == bytes);
}

#[test]
fn bytes_go_both_ways_and_a_server_may_speak_first() {
    setup().on_sim(both_ways);
}

pub(crate) async fn half_closes<I: Ground>(mesh: &Mesh<I>) {
    let (mut client, mut server) = pair(mesh).await;
    client.send("the whole question").await;
    client.shutdown();
    let asked = server.recv_to_end().await;
    assert_eq!(asked, Ended { bytes: b"the whole question".to_vec(), end: End::Close });
    mesh.pass(100 * MS).await;
    server.send("the answer").await;
    client.recv_exactly(10).await;
    server.shutdown();
    client.expect_close().await;

    let (mut client, mut server) = pair(mesh).await;
    server.send("bye").await;
    server.shutdown();
    assert_eq!(client.recv_to_end().await, Ended { bytes: b"bye".to_vec(), end: End::Close });
    client.send("more").await;
    client.shutdown();
    assert_eq!(server.recv_to_end().await, Ended { bytes: b"more".to_vec(), end: End::Close });
}

#[test]
fn each_half_close_is_passed_on_and_the_other_direction_lives() {
    setup().on_sim(half_closes);
}

pub(crate) async fn resets<I: Ground>(mesh: &Mesh<I>) {
    let (client, mut server) = pair(mesh).await;
    client.reset();
    server.expect_reset().await;
    let (mut client, server) = pair(mesh).await;
    server.reset();
    client.expect_reset().await;
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    setup().on_sim(resets);
}

#[test]
fn a_connect_that_fails_moves_to_another_endpoint_and_then_resets() {
    setup().nobodies(2).on_sim(async |mesh| {
        for _ in 0..3 {
            let (mut client, mut server) = pair(mesh).await;
            client.send("x").await;
            server.recv_exactly(1).await;
        }
    });
    Setup::new(Behaviour::default()).without_origins().nobodies(2).tcp(None).on_sim(async |mesh| {
        mesh.peer().await.expect_reset().await;
    });
}

#[test]
fn an_idle_connection_is_closed_and_one_that_moves_in_one_direction_is_not() {
    let setup = Setup::new(Behaviour::default()).played(1).tcp(Some(500 * MS));
    setup.on_sim(async |mesh| {
        let (mut client, mut server) = pair(mesh).await;
        for _ in 0..10 {
            server.send("x").await;
            mesh.pass(200 * MS).await;
        }
        client.recv_exactly(10).await;
        mesh.pass(700 * MS).await;
        assert_eq!(client.recv_to_end().await.end, End::Reset);
        assert_eq!(server.recv_to_end().await.end, End::Reset);
    });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    setup().on_sim(async |mesh| {
        let (mut client, mut server) = pair(mesh).await;
        client.send("x").await;
        server.recv_exactly(1).await;
        mesh.until("no buffer is held", |mesh| mesh.worker.buffers.out_count() == 0).await;
        server.send("y").await;
        client.recv_exactly(1).await;
        mesh.until("no buffer is held", |mesh| mesh.worker.buffers.out_count() == 0).await;
        client.shutdown();
        server.expect_close().await;
    });
}

#[test]
fn a_slow_receiver_holds_back_the_sender_and_not_memory() {
    setup().on(&sim::Sim::with_seed(1), &async |mesh: &Mesh<_>| {
        let (mut client, mut server) = pair(mesh).await;
        let bytes = vec![3; 1_000_000];
        let check = async {
            mesh.pass(1000 * MS).await;
            assert!(mesh.worker.buffers.out_count() <= 2);
            server.recv_exactly(bytes.len()).await
        };
        let ((), got) = sim::both(client.send(&bytes), check).await;
        assert!(got == bytes);
    });
}

pub(crate) fn soon_idle() -> Setup {
    Setup::new(Behaviour::default()).played(1).tcp(Some(500 * MS))
}

pub(crate) async fn idle_behind_a_slow_receiver<I: Ground>(mesh: &Mesh<I>) {
    let (mut client, mut server) = pair(mesh).await;
    // More than fits on the way: the proxy waits in the middle of sending, until it has waited too long.
    server.try_send(vec![3; 20_000_000]).await.unwrap_err();
    let is_over = |mesh: &Mesh<I>| mesh.worker.stats.counters.connections.get() == 0;
    mesh.until("both connections are over", is_over).await;
    assert_eq!(client.recv_to_end().await.end, End::Reset, "what it got is not all");
}

#[test]
fn a_stream_that_is_given_up_in_the_middle_never_looks_whole() {
    soon_idle().on_sim(idle_behind_a_slow_receiver);
}
