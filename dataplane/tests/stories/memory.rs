//! What connections hold of the worker's memory, and what happens when that is too much; a worker that stands still, and one
//! that the kernel tells late.

use std::time::{Duration, Instant};

use dataplane::watchdog::{Finding, Watchdog};
use policy::limits;
use runtime::Io;
use sim::{Ask, Behaviour, End, Peer};

use crate::mesh::{Ground, Mesh, Setup, answers, ok, refused};

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
    let held = mesh.worker.buffers.out_count();
    // Half of what may be is held, and the next one is too much.
    mesh.worker.stats.buffers_allowed.set(2 * held as u64);
    let (mut client, mut peer) = (mesh.client().await, mesh.peer().await);
    assert_eq!(refused(client.ask(&Ask::get("shop", "/", 10)).await), (503, "overloaded".to_owned()));
    assert!(client.is_over(), "its connection is closed");
    assert_eq!(mesh.http("downstream_rq_overload_close"), 1);
    assert_eq!(mesh.ledger().len(), 4, "nothing was sent");
    // Whose head is not whole is not waited for.
    peer.send("GET / HTTP/1.1\r\nhost: sh").await;
    let told = peer.recv_to_end().await;
    assert!(told.bytes.starts_with(b"HTTP/1.1 503 ") && told.end == End::Close, "{told:?}");
    assert_eq!(mesh.http("downstream_rq_overload_close"), 2);
    // Two go, and there is memory for the next.
    mesh.origin().behave(Behaviour::default());
    let mut peers = peers.into_iter();
    peers.by_ref().take(2).for_each(Peer::reset);
    drop(client);
    mesh.until("there is memory", |mesh| mesh.worker.buffers.out_count() < held).await;
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

/// Exchanges that have begun when there are no buffers any more.
async fn end_in_small_buffers<I: Ground>(mesh: &Mesh<I>, bytes: usize) {
    let head = "x".repeat(6_000);
    let (mut up, mut down) = (mesh.peer().await, mesh.peer().await);
    up.send("POST /up HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let mut taking = mesh.accept().await;
    taking.recv_until(b"\r\n\r\n").await;
    down.send("GET /down HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    let mut giving = mesh.accept().await;
    giving.recv_until(b"\r\n\r\n").await;
    mesh.worker.stats.buffers_allowed.set(0);
    mesh.pass(20 * MS).await;
    let upload = async {
        // A line of the trailers is longer than a small buffer, too.
        up.send(format!("{bytes:x}\r\n").into_bytes()).await;
        up.send(vec![b'u'; bytes]).await;
        up.send(format!("\r\n0\r\nx-long: {head}\r\n\r\n").into_bytes()).await;
    };
    let taken = async {
        let got = taking.recv_until(format!("x-long: {head}\r\n\r\n").as_bytes()).await;
        assert_eq!(got.iter().filter(|byte| **byte == b'u').count(), bytes);
        taking.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    };
    let given = async {
        let answer = format!("HTTP/1.1 200 OK\r\nx-long: {head}\r\ncontent-length: {bytes}\r\n\r\n");
        giving.send(answer.into_bytes()).await;
        giving.send(vec![b'd'; bytes]).await;
    };
    let download = answers(&mut down, &["GET"]);
    let ((), (), (), got) = tokio::join!(upload, taken, given, download);
    assert_eq!((got[0].header("x-long"), got[0].body.len()), (Some(&*head), bytes));
    answers(&mut up, &["POST"]).await;
    mesh.worker.stats.buffers_allowed.set(u64::MAX);
}

#[test]
fn exchanges_that_have_begun_end_when_there_are_no_buffers_any_more() {
    let setup = Setup::new(Behaviour::default()).played(1);
    for seed in 0..8 {
        let sim = sim::Sim::with_seed(seed);
        sim.shuffle_tasks(true);
        sim.late_completions(150);
        setup.on(&sim, &async |mesh: &Mesh<_>| end_in_small_buffers(mesh, 100_000).await);
    }
}

#[test]
fn what_came_behind_a_request_is_kept_when_there_are_no_buffers_any_more() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    Setup::new(Behaviour::default()).played(1).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut peer = mesh.peer().await;
        let head = "POST /1 HTTP/1.1\r\nhost: shop\r\ncontent-length: 20001\r\n\r\n";
        let mut bytes = [&Ask::get("shop", "/0", 0).bytes(), head.as_bytes()].concat();
        bytes.resize(bytes.len() + 20_000, b'a');
        peer.send(bytes).await;
        let mut origin = mesh.accept().await;
        origin.recv_until(b"\r\n\r\n").await;
        mesh.worker.stats.buffers_allowed.set(0);
        // The answer is slow, so the client is looked at, and has sent more.
        mesh.pass(1000 * MS).await;
        peer.send("b").await;
        mesh.pass(1000 * MS).await;
        mesh.worker.stats.buffers_allowed.set(u64::MAX);
        mesh.pass(MS).await;
        origin.send(ANSWER).await;
        origin.recv_until(b"\r\n\r\n").await;
        let body = origin.recv_exactly(20_001).await;
        assert!(body.starts_with(&[b'a'; 20_000]) && body.ends_with(b"b"));
        origin.send(ANSWER).await;
        answers(&mut peer, &["GET", "POST"]).await;
    });
}

#[test]
fn who_takes_nothing_is_given_up_soon_when_others_need_the_memory() {
    let large = Behaviour { body: vec![1; 2_000_000], ..Behaviour::default() };
    Setup::new(large).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        let mut deaf = mesh.peer().await;
        deaf.send(Ask::get("shop", "/", 0).bytes()).await;
        mesh.pass(1000 * MS).await;
        assert_eq!(mesh.worker.buffers.out_count(), 2);
        // More than a quarter is held by the next one's exchange, and no more than half.
        mesh.worker.stats.buffers_allowed.set(8);
        let mut late = mesh.peer().await;
        late.send(Ask::get("shop", "/", 1).bytes()).await;
        mesh.pass(limits::SEND_TIME_WHEN_TIGHT / 2).await;
        assert_eq!(mesh.worker.buffers.out_count(), 4, "not yet");
        mesh.until("it is given up", |mesh| mesh.worker.buffers.out_count() == 2).await;
        let got = late.recv_to_end().await;
        assert!(got.end == End::Reset && got.bytes.len() < 2_000_000, "{:?}", got.end);
        // The first one began to send when there was enough.
        deaf.recv_exactly(2_000_000).await;
    });
}

#[test]
fn an_upload_holds_no_buffer_while_nothing_comes_when_others_need_the_memory() {
    Setup::new(Behaviour::default()).on(&sim::Sim::with_seed(0), &async |mesh: &Mesh<_>| {
        mesh.worker.stats.buffers_allowed.set(4);
        let mut slow = mesh.peer().await;
        slow.send("POST / HTTP/1.1\r\nhost: shop\r\nx-ledger-id: 0\r\ncontent-length: 6\r\n\r\nabc").await;
        mesh.pass(100 * MS).await;
        slow.send("d").await;
        mesh.until("only its head is held", |mesh| mesh.worker.buffers.out_count() == 1).await;
        slow.send("ef").await;
        assert_eq!(answers(&mut slow, &["POST"]).await[0].status(), 200);
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
