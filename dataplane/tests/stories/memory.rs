//! What connections hold of the worker's memory, and what happens when that is too much; a worker that stands still, and one
//! that the kernel tells late.

use std::time::{Duration, Instant};

use dataplane::watchdog::{Finding, Watchdog};
use runtime::Io;
use sim::{Ask, Behaviour, Peer};

use crate::mesh::{Ground, Mesh, Setup, ok, refused};

const MS: Duration = Duration::from_millis(1);

/// Connections whose requests are not answered.
async fn unanswered<I: Ground>(mesh: &Mesh<I>, count: usize) -> Vec<Peer<I>> {
    let mut peers = Vec::new();
    for id in 0..count {
        let mut peer = mesh.peer().await;
        peer.send(Ask::get("shop", "/", id).bytes()).await;
        peers.push(peer);
    }
    mesh.until("all are with the origin", |mesh| mesh.ledger().len() == count).await;
    mesh.pass(20 * MS).await;
    peers
}

#[test]
fn connections_that_wait_hold_nothing_and_exchanges_a_buffer_each_way() {
    Setup::new(Behaviour::default()).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut idle = Vec::new();
        for id in 0..50 {
            let mut client = mesh.client().await;
            ok(client.ask(&Ask::get("shop", "/", id)).await);
            idle.push(client);
        }
        mesh.until("none holds a buffer", |mesh| mesh.worker.buffers.out_count() == 0).await;
    });
    Setup::new(Behaviour::never_answers()).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let peers = unanswered(mesh, 20).await;
        let held = mesh.worker.buffers.out_count();
        assert!((20..=40).contains(&held), "{held}");
        peers.into_iter().for_each(Peer::reset);
    });
    // A client that takes nothing of a large answer.
    let large = Behaviour { body: vec![1; 2_000_000], ..Behaviour::default() };
    Setup::new(large).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut peers = Vec::new();
        for id in 0..10 {
            let mut peer = mesh.peer().await;
            peer.send(Ask::get("shop", "/", id).bytes()).await;
            peers.push(peer);
        }
        mesh.pass(2000 * MS).await;
        assert!(mesh.worker.buffers.out_count() <= 20, "{}", mesh.worker.buffers.out_count());
        peers.into_iter().for_each(Peer::reset);
    });
}

pub(crate) async fn sheds<I: Ground>(mesh: &Mesh<I>) {
    let peers = unanswered(mesh, 4).await;
    let allowed = mesh.worker.buffers.out_count();
    mesh.worker.stats.buffers_allowed.set(allowed as u64);
    let mut client = mesh.client().await;
    assert_eq!(refused(client.ask(&Ask::get("shop", "/", 10)).await), (503, "overloaded".to_owned()));
    assert!(client.is_over(), "its connection is closed");
    assert_eq!(mesh.http("downstream_rq_overload_close"), 1);
    assert_eq!(mesh.ledger().len(), 4, "nothing was sent");
    // Two go, and there is memory for the next.
    mesh.origin().behave(Behaviour::default());
    let mut peers = peers.into_iter();
    peers.by_ref().take(2).for_each(Peer::reset);
    drop(client);
    mesh.until("there is memory", |mesh| mesh.worker.buffers.out_count() + 1 < allowed).await;
    ok(mesh.client().await.ask(&Ask::get("shop", "/", 11)).await);
    peers.for_each(Peer::reset);
}

#[test]
fn a_request_that_finds_no_memory_is_refused_and_who_is_served_stays_served() {
    Setup::new(Behaviour::never_answers()).on(&sim::Sim::with_seed(0), &sheds);
    let tcp = Setup::new(Behaviour::default()).played(1).tcp(None);
    tcp.on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut client = mesh.peer().await;
        let mut server = mesh.accept().await;
        server.send("hello").await;
        client.recv_exactly(5).await;
        mesh.until("both directions wait", |mesh| mesh.worker.buffers.out_count() > 0).await;
        mesh.worker.stats.buffers_allowed.set(0);
        mesh.peer().await.expect_reset().await;
        server.send("more").await;
        assert_eq!(client.recv_exactly(4).await, b"more");
        client.reset();
        server.expect_reset().await;
    });
}

#[test]
fn a_worker_that_stands_still_is_seen_and_seen_to_go_on() {
    Setup::new(Behaviour::default()).on_kernel(async |mesh| {
        let stats = mesh.worker.stats.clone();
        let watching = std::thread::spawn(move || {
            let mut watchdog = Watchdog::new(1, Instant::now());
            let (begun, mut seen) = (Instant::now(), Vec::new());
            while seen.len() < 2 && begun.elapsed() < Duration::from_secs(30) {
                std::thread::park_timeout(100 * MS);
                let found = watchdog.look(Instant::now(), std::iter::once(stats.counters.turns.get()));
                seen.extend(found.into_iter().filter(|finding| !matches!(finding, Finding::Ask { .. })));
            }
            (seen, watchdog.misses())
        });
        // Its turns end while it has something to do; then one does not for a while.
        for _ in 0..30 {
            mesh.pass(10 * MS).await;
        }
        mesh.io.spawn(async {
            let begun = Instant::now();
            while begun.elapsed() < 1800 * MS {
                std::hint::spin_loop();
            }
        });
        while !watching.is_finished() {
            mesh.pass(10 * MS).await;
        }
        let (seen, misses) = watching.join().unwrap();
        assert!(matches!(seen[..], [Finding::Stuck { .. }, Finding::Well { .. }]), "{seen:?}");
        assert_eq!(misses, 1);
    });
}

#[test]
fn iu_03_turns_in_which_completions_did_not_fit_are_counted_and_requests_answered() {
    Setup::new(Behaviour::default()).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let counted = || mesh.worker.stats.counters.completion_overflows.get();
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::get("shop", "/", 0)).await);
        assert_eq!(counted(), 0);
        mesh.worker.io.overflows(300, MS);
        for id in 1..10 {
            ok(client.ask(&Ask::get("shop", "/", id)).await);
        }
        mesh.worker.io.overflows(0, MS);
        mesh.until("all are counted", |mesh| counted() == mesh.worker.io.overflow_count()).await;
        assert_ne!(counted(), 0);
    });
}
