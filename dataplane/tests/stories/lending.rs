//! Idle upstream connections that go from one worker to another.

use std::{cell::Cell, num::NonZeroU32, time::Duration};

use runtime::{Deadline, Io};
use sim::{Ask, Behaviour, Client, Peer, Rng, Sim, SimIo, Verdict, both};
use wire::proxy_protocol::Version;

use crate::mesh::{APP, Mesh, Setup, answers, ok, refused};

const MS: Duration = Duration::from_millis(1);

fn two_workers() -> Setup {
    Setup::new(Behaviour::default()).workers(2)
}

/// Two clients of one worker.
type Pair = Vec<Client<SimIo>>;

/// Two clients for each of two workers. Each has carried one request.
async fn pairs(mesh: &Mesh<SimIo>) -> [Pair; 2] {
    let mut pairs = [Vec::new(), Vec::new()];
    for number in 0..4 {
        let served = |mesh: &Mesh<SimIo>| mesh.workers[1].stats.counters.requests.get();
        let before = served(mesh);
        let mut client = mesh.client().await;
        ok(client.ask(&Ask::get("shop", "/", format!("first {number}"))).await);
        pairs[usize::from(served(mesh) > before)].push(client);
    }
    assert_eq!([pairs[0].len(), pairs[1].len()], [2, 2]);
    pairs
}

/// Both clients ask at once, so that their worker needs two connections at a time.
async fn ask(mesh: &Mesh<SimIo>, pair: &mut Pair, id: &str) {
    let [first, second] = &mut pair[..] else { panic!("a pair is two") };
    mesh.origin().hold();
    let before = mesh.origin().requests().len();
    let release = async {
        mesh.until("both requests run", |mesh| mesh.origin().requests().len() == before + 2).await;
        mesh.origin().release();
    };
    let asks = ["a", "b"].map(|which| Ask::get("shop", "/", format!("{id} {which}")));
    let ((one, other), ()) = both(both(first.ask(&asks[0]), second.ask(&asks[1])), release).await;
    ok(one);
    ok(other);
}

async fn are_idle(mesh: &Mesh<SimIo>, counts: [usize; 2]) {
    let idle = |mesh: &Mesh<SimIo>| mesh.workers.iter().map(|w| w.pools.idle_count()).eq(counts);
    mesh.until(&format!("{counts:?} are idle"), idle).await;
}

/// What the workers say that they have idle to the first endpoint.
fn told_idle(mesh: &Mesh<SimIo>) -> Vec<usize> {
    let bound = mesh.worker.bound();
    let (cluster, _) = bound.cluster(APP).unwrap();
    cluster.all_endpoints().next().unwrap().state.idle().collect()
}

/// Connections lent and borrowed by all workers.
fn lent(mesh: &Mesh<SimIo>) -> [u64; 2] {
    let counters = || mesh.workers.iter().map(|worker| &worker.stats.counters);
    [
        counters().map(|of| of.upstream_cx_lent.get()).sum(),
        counters().map(|of| of.upstream_cx_borrowed.get()).sum(),
    ]
}

#[test]
fn who_has_none_takes_one_that_another_has_idle_but_not_its_last() {
    two_workers().on_sim(async |mesh| {
        let [mut here, mut there] = pairs(mesh).await;
        ask(mesh, &mut here, "1").await;
        are_idle(mesh, [2, 1]).await;
        assert_eq!((mesh.origin().connections().len(), lent(mesh)), (3, [0, 0]), "one is nothing to spare");
        for turn in 0..5 {
            ask(mesh, &mut there, &format!("there {turn}")).await;
            are_idle(mesh, [1, 2]).await;
            assert_eq!(told_idle(mesh), [1, 2]);
            ask(mesh, &mut here, &format!("here {turn}")).await;
            are_idle(mesh, [2, 1]).await;
        }
        assert_eq!((mesh.origin().connections().len(), lent(mesh)), (3, [10, 10]));
        assert_eq!((mesh.upstream("upstream_cx_total"), mesh.upstream("upstream_cx_active")), (3, 3));
        assert_eq!(mesh.upstream("upstream_cx_destroy_local"), 0);
        assert!(mesh.ledger().into_values().all(|count| count == 1));
    });
}

#[test]
fn what_a_lent_connection_may_carry_and_how_long_it_waits_goes_with_it() {
    let setup = two_workers().cluster(|cluster| {
        cluster.max_requests_per_connection = NonZeroU32::new(4);
        cluster.idle_timeout = Some(1000 * MS);
    });
    setup.on_sim(async |mesh| {
        let [mut here, mut there] = pairs(mesh).await;
        for turn in 0..6 {
            let pair = if turn % 2 == 0 { &mut here } else { &mut there };
            ask(mesh, pair, &turn.to_string()).await;
            mesh.pass(20 * MS).await;
        }
        assert!(lent(mesh)[0] > 0);
        let carried = |mesh: &Mesh<SimIo>| -> Vec<usize> {
            mesh.origin().connections().iter().map(|connection| connection.requests.len()).collect()
        };
        assert!(carried(mesh).iter().all(|count| *count <= 4), "{:?}", carried(mesh));
        mesh.pass(1100 * MS).await;
        are_idle(mesh, [0, 0]).await;
        assert!(mesh.origin().connections().iter().all(|connection| connection.is_over));
    });
}

#[test]
fn one_that_is_anybodys_is_not_lent_where_each_must_belong_to_a_downstream_connection() {
    two_workers().played(1).on_sim(async |mesh| {
        let (mut clients, mut upstreams) = (Vec::new(), Vec::new());
        // All at once, so that each worker has two idle ones then.
        for _ in 0..4 {
            let mut client = mesh.peer().await;
            client.send(Ask::get("shop", "/", 1).bytes()).await;
            clients.push(client);
            upstreams.push(mesh.accept().await);
        }
        for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
            answer(client, upstream, b"GET").await;
        }
        are_idle(mesh, [2, 2]).await;
        mesh.adopt(|config| {
            config.clusters.get_mut(APP).unwrap().0.proxy_protocol = Some(Version::V1);
        })
        .await;
        for client in &mut clients {
            client.send(Ask::get("shop", "/", 2).bytes()).await;
            let mut upstream = mesh.accept().await;
            answer(client, &mut upstream, b"PROXY").await;
            upstreams.push(upstream);
        }
        assert_eq!(lent(mesh), [0, 0]);
    });
}

/// Answers what a client asked over a connection that begins, or goes on, with this.
async fn answer(client: &mut Peer<SimIo>, upstream: &mut Peer<SimIo>, start: &[u8]) {
    let asked = upstream.recv_exactly(start.len()).await;
    assert_eq!(asked.escape_ascii().to_string(), start.escape_ascii().to_string());
    upstream.send(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    answers(client, &["GET"]).await;
}

/// The worker that shall lend sees no completion for a while, which may be very short.
async fn stops_for_a_while(mesh: &Mesh<SimIo>) {
    let io = &mesh.workers[0].io;
    io.overflows(1000, 10_000 * MS);
    io.sleep_until(Deadline::after(io.now(), MS)).await;
    io.overflows(0, MS);
}

#[test]
fn a_lender_that_is_late_is_not_waited_for_and_what_it_lends_is_kept() {
    let late = Cell::new(0);
    two_workers().on_sim(async |mesh| {
        let [mut here, mut there] = pairs(mesh).await;
        ask(mesh, &mut here, "1").await;
        are_idle(mesh, [2, 1]).await;
        stops_for_a_while(mesh).await;
        ask(mesh, &mut there, "2").await;
        mesh.until("it has come", |mesh| lent(mesh) == [1, 1]).await;
        // It came in time when the lender stopped for a moment only.
        let connections = mesh.origin().connections().len();
        are_idle(mesh, [1, connections - 1]).await;
        late.set(late.get() + usize::from(connections == 4));
    });
    assert!(late.get() > 0);
}

#[test]
fn an_ask_that_is_read_too_late_moves_nothing() {
    let late = Cell::new(0);
    two_workers().on_sim(async |mesh| {
        let [mut here, mut there] = pairs(mesh).await;
        ask(mesh, &mut here, "1").await;
        are_idle(mesh, [2, 1]).await;
        mesh.workers[0].io.late_bells(1000, 10_000 * MS);
        ask(mesh, &mut there, "2").await;
        mesh.pass(10_000 * MS).await;
        // Something else may have made the lender look in time.
        let connections = mesh.origin().connections().len();
        assert_eq!(lent(mesh), [4 - connections as u64; 2]);
        are_idle(mesh, [connections - 2, 2]).await;
        late.set(late.get() + usize::from(connections == 4));
    });
    assert!(late.get() > 0);
}

#[test]
fn one_whose_endpoint_goes_while_it_is_on_its_way_is_closed() {
    let setup = two_workers().origin(Behaviour::default());
    setup.on_sim(async |mesh| {
        let only = async |origin: usize| {
            let address = mesh.origins[origin].address();
            mesh.adopt(|config| config.clusters.get_mut(APP).unwrap().1 = vec![address]).await;
        };
        only(0).await;
        let [mut here, mut there] = pairs(mesh).await;
        ask(mesh, &mut here, "1").await;
        are_idle(mesh, [2, 1]).await;
        stops_for_a_while(mesh).await;
        let old = mesh.worker.bound();
        let requests = |mesh: &Mesh<SimIo>| mesh.workers[1].stats.counters.requests.get();
        let before = requests(mesh);
        let goes = async {
            mesh.until("both requests run", |mesh| requests(mesh) == before + 2).await;
            only(1).await;
        };
        both(ask(mesh, &mut there, "2"), goes).await;
        mesh.until("it has come", |mesh| lent(mesh) == [1, 1]).await;
        are_idle(mesh, [0, 0]).await;
        let endpoints = old.snapshot.clusters.iter().flat_map(|(_, cluster)| cluster.all_endpoints());
        let told = endpoints.flat_map(|endpoint| endpoint.state.idle());
        assert!(told.sum::<usize>() == 0, "nobody is asked for what is gone");
        mesh.until("all are closed", |mesh| mesh.origin().connections().iter().all(|of| of.is_over)).await;
        ok(there[0].ask(&Ask::get("shop", "/", "3")).await);
        assert_eq!(mesh.origins[1].requests().len(), 1);
    });
}

/// FAILURES UP-01 once more: the origin closes idle connections when they are about to be lent, on their way or just there.
#[test]
fn in_a_race_of_a_loan_with_a_close_a_get_never_fails_and_a_post_is_never_sent_twice() {
    let (idle, all_lent) = (20 * MS, Cell::new(0));
    for seed in 0..100 {
        let sim = if seed % 4 == 0 { Sim::with_seed(seed) } else { Sim::rough(seed) };
        sim.late_cancels(300);
        let behaviour = Behaviour { idle_max: Some(idle), think: 5 * MS, ..Behaviour::default() };
        Setup::new(behaviour).workers(2).on(&sim, &async |mesh: &Mesh<_>| {
            let mut rng = Rng::new(seed);
            let mut pairs = pairs(mesh).await;
            for turn in 0..30 {
                let is_post = turn % 3 == 0;
                let asks = [0, 1].map(|which| match is_post {
                    true => Ask::post("shop", "/", format!("{turn} {which}"), "pay"),
                    false => Ask::get("shop", "/", format!("{turn} {which}")),
                });
                let pair = &mut pairs[turn % 2];
                let (mut first, mut second) = (pair.remove(0), pair.remove(0));
                let verdicts = both(first.ask(&asks[0]), second.ask(&asks[1])).await;
                for (verdict, client) in [(verdicts.0, first), (verdicts.1, second)] {
                    match verdict {
                        Verdict::Ok(_) => pair.push(client),
                        verdict if is_post => {
                            let (status, reason) = refused(verdict);
                            assert!(status == 503 && reason.starts_with("upstream-"), "{status} {reason}");
                            pair.push(mesh.client().await);
                        }
                        verdict => panic!("seed {seed}: a GET failed: {verdict:?}"),
                    }
                }
                mesh.pass(idle - 6 * MS + Duration::from_micros(rng.below(12_000))).await;
            }
            assert!(mesh.ledger().into_values().all(|count| count == 1), "seed {seed}");
            all_lent.set(all_lent.get() + lent(mesh)[0]);
        });
    }
    assert!(all_lent.get() > 100, "{}", all_lent.get());
}
