//! Connections that speak HTTP/2: how many there are, and how they end when nothing is wrong.

use std::{num::NonZeroU32, time::Duration};

use dataplane::worker::Order;
use policy::{http2::Keepalive, limits};
use runtime::Io;
use sim::{
    Ask, Faults, Loss, Reach, Sim, Stream, StreamBehaviour, StreamConfig, Streams, Verdict, Way,
    origin::LEDGER_ID,
};

use crate::mesh::{APP, Ground, Mesh, Pairing, Setup, forward_to, ok, refused, route};

const MS: Duration = Duration::from_millis(1);
const STREAMS: Pairing = Pairing { down: true, up: true };

async fn begin<I: Ground>(streams: &Streams<I>, count: usize) -> Vec<(Stream<I>, Ask)> {
    let mut begun = Vec::new();
    for id in 0..count {
        let ask = Ask::get("shop", "/", id);
        begun.push((streams.begin(&ask).await.unwrap(), ask));
    }
    begun
}

async fn all_ok<I: Ground>(begun: &[(Stream<I>, Ask)]) {
    for (stream, ask) in begun {
        ok(stream.verdict(ask).await);
    }
}

#[test]
fn exchanges_at_once_share_one_connection() {
    STREAMS.setup(StreamBehaviour::default()).on_sim(async |mesh| {
        mesh.stream_origin().hold();
        let streams = mesh.streams().await;
        let begun = begin(&streams, 100).await;
        mesh.until("all of them run", |mesh| mesh.stream_origin().running() == 100).await;
        assert_eq!(mesh.stream_origin().connections().len(), 1);
        mesh.stream_origin().release();
        all_ok(&begun).await;
        assert_eq!(mesh.upstream("upstream_cx_total"), 1);
        assert!(mesh.ledger().into_values().eq([1; 100]));
    });
}

#[test]
fn what_one_connection_may_not_carry_goes_over_another() {
    let config = StreamConfig { streams_max: 10, ..StreamConfig::default() };
    STREAMS.setup(StreamBehaviour { config, ..StreamBehaviour::default() }).on_sim(async |mesh| {
        let streams = mesh.streams().await;
        // Upstream says with its first frame how many it takes.
        ok(streams.ask(&Ask::get("shop", "/", "first")).await);
        mesh.stream_origin().hold();
        let begun = begin(&streams, 10).await;
        mesh.until("ten run", |mesh| mesh.stream_origin().running() == 10).await;
        assert_eq!(mesh.stream_origin().connections().len(), 1);
        let ask = Ask::get("shop", "/", "one more");
        let eleventh = streams.begin(&ask).await.unwrap();
        mesh.until("another", |mesh| mesh.stream_origin().running() == 11).await;
        assert_eq!(mesh.stream_origin().connections().len(), 2);
        mesh.stream_origin().release();
        all_ok(&begun).await;
        ok(eleventh.verdict(&ask).await);
    });
}

#[test]
fn an_endpoint_that_takes_few_streams_costs_no_connection_for_each_request() {
    let config = StreamConfig { streams_max: 1, ..StreamConfig::default() };
    STREAMS.setup(StreamBehaviour { config, ..StreamBehaviour::default() }).on(
        &Sim::with_seed(0),
        &async |mesh: &Mesh<_>| {
            const MOST: usize = limits::HTTP2_CONNECTIONS_PER_ENDPOINT_MAX;
            mesh.stream_origin().hold();
            let streams = mesh.streams().await;
            let begun = begin(&streams, MOST).await;
            mesh.until("as many run", |mesh| mesh.stream_origin().running() == MOST).await;
            for id in MOST..MOST + 10 {
                let told = refused(streams.ask(&Ask::get("shop", "/", id)).await);
                assert_eq!(told, (503, "local-shortage".to_owned()));
            }
            assert_eq!(mesh.stream_origin().connections().len(), MOST);
            mesh.stream_origin().release();
            all_ok(&begun).await;
            drop(begun);
            // Those that there are carry the next.
            all_ok(&begin(&streams, MOST).await).await;
            assert_eq!(mesh.upstream("upstream_cx_total"), MOST as u64);
        },
    );
}

#[test]
fn a_connection_carries_no_more_requests_than_it_may() {
    let setup = STREAMS.setup(StreamBehaviour::default());
    setup.cluster(|c| c.max_requests_per_connection = NonZeroU32::new(3)).on_sim(async |mesh| {
        let streams = mesh.streams().await;
        for id in 0..7 {
            ok(streams.ask(&Ask::get("shop", "/", id)).await);
        }
        let carried: Vec<usize> = mesh.stream_origin().connections().iter().map(|c| c.begun).collect();
        assert_eq!(carried, [3, 3, 1]);
        mesh.until("two have ended", |mesh| mesh.upstream("upstream_cx_active") == 1).await;
    });
}

#[test]
fn exchanges_at_once_do_not_break_the_limit_of_an_upstream_that_was_not_heard_yet() {
    let config = StreamConfig { streams_max: 10, ..StreamConfig::default() };
    STREAMS.setup(StreamBehaviour { config, ..StreamBehaviour::default() }).on_sim(async |mesh| {
        let streams = mesh.streams().await;
        let mut begun = begin(&streams, 25).await;
        for id in 25..30 {
            let ask = Ask::post("shop", "/", id, "pay");
            let stream = streams.begin(&ask).await.unwrap();
            stream.send(b"pay", true).await;
            begun.push((stream, ask));
        }
        all_ok(&begun).await;
        assert!(mesh.ledger().into_values().eq([1; 30]));
    });
}

#[test]
fn who_waits_for_a_connection_is_told_when_it_cannot_be_made() {
    let setup = Setup::streams(StreamBehaviour::default());
    let setup = Setup { stream_origins: Vec::new(), ..setup }.nobodies(1);
    setup.on_sim(async |mesh| {
        let streams = mesh.streams().await;
        for (stream, ask) in begin(&streams, 30).await {
            let (status, reason) = refused(stream.verdict(&ask).await);
            assert_eq!((status, &reason[..]), (503, "connect-failed"));
        }
        assert!(mesh.upstream("upstream_cx_total") < 30, "they share what is found out");
    });
}

#[test]
fn one_without_time_does_not_fail_those_that_wait_with_it() {
    let setup = Setup::streams(StreamBehaviour::default()).routes(|| {
        let mut short = forward_to(APP);
        short.timeout = Some(100 * MS);
        vec![route("/short", short), route("/", forward_to(APP))]
    });
    Sim::each(|sim| {
        setup.on(sim, &async |mesh: &Mesh<_>| {
            let origin = mesh.stream_origin().address();
            sim.reach(origin, Reach::Unanswered);
            let streams = mesh.streams().await;
            let short = Ask::get("shop", "/short", 0);
            let first = streams.begin(&short).await.unwrap();
            mesh.until("it connects", |mesh| mesh.upstream("upstream_cx_total") == 1).await;
            let others = begin(&streams, 5).await;
            mesh.pass(20 * MS).await;
            sim.reach(origin, Reach::Normal);
            let (status, reason) = refused(first.verdict(&short).await);
            assert_eq!((status, &reason[..]), (504, "upstream-timeout"));
            all_ok(&others).await;
            assert_eq!(mesh.stream_origin().connections().len(), 1);
        });
    });
}

#[test]
fn a_drain_lets_streams_finish_and_takes_no_new_ones() {
    for up in [true, false] {
        Pairing { down: true, up }.setup(StreamBehaviour::default()).on_sim(async |mesh| {
            mesh.origins.iter().for_each(sim::Origin::hold);
            mesh.stream_origins.iter().for_each(sim::StreamOrigin::hold);
            let streams = mesh.streams().await;
            let begun = begin(&streams, 5).await;
            mesh.until("they run", |mesh| mesh.http("downstream_rq_active") == 5).await;
            mesh.order(|| Order::Drain);
            mesh.until("the client is told", |_| streams.is_left()).await;
            assert_eq!(streams.begin(&Ask::get("shop", "/", 9)).await.err(), Some(Loss::Left));
            mesh.pass(3000 * MS).await;
            assert_eq!(streams.loss(), None, "they run on");
            mesh.origins.iter().for_each(sim::Origin::release);
            mesh.stream_origins.iter().for_each(sim::StreamOrigin::release);
            all_ok(&begun).await;
            assert_eq!(streams.ended().await, Loss::Closed);
        });
    }
}

#[test]
fn a_drain_does_not_wait_for_a_client_that_reads_nothing() {
    let behaviour = StreamBehaviour { body: vec![1; 500_000], ..StreamBehaviour::default() };
    let setup = STREAMS.setup(behaviour).manager(|m| m.stream_idle_timeout = Some(2000 * MS));
    setup.on(&Sim::with_seed(3), &async |mesh: &Mesh<_>| {
        let config = StreamConfig { window_bytes: 1 << 20, ..StreamConfig::default() };
        let streams = Streams::connect(&mesh.io, mesh.proxy, config).await;
        let begun = begin(&streams, 3).await;
        mesh.pass(1 * MS).await;
        streams.deafen(true);
        mesh.pass(100 * MS).await;
        mesh.order(|| Order::Drain);
        mesh.until("it is over", |mesh| mesh.http("downstream_cx_http2_active") == 0).await;
        streams.deafen(false);
        drop(begun);
    });
}

#[test]
fn a_listener_that_goes_ends_its_connections_when_their_streams_have() {
    STREAMS.setup(StreamBehaviour::default()).on_sim(async |mesh| {
        mesh.stream_origin().hold();
        let streams = mesh.streams().await;
        let begun = begin(&streams, 3).await;
        mesh.until("they run", |mesh| mesh.stream_origin().running() == 3).await;
        mesh.adopt(|config| config.is_listening = false).await;
        mesh.until("the client is told", |_| streams.is_left()).await;
        mesh.stream_origin().release();
        all_ok(&begun).await;
        assert_eq!(streams.ended().await, Loss::Closed);
    });
}

#[test]
fn an_endpoint_that_goes_lets_its_streams_finish() {
    STREAMS.setup(StreamBehaviour::default()).stream_origin(StreamBehaviour::default()).on_sim(
        async |mesh| {
            mesh.stream_origins.iter().for_each(sim::StreamOrigin::hold);
            let streams = mesh.streams().await;
            let begun = begin(&streams, 10).await;
            let running =
                |mesh: &Mesh<_>| mesh.stream_origins.iter().map(sim::StreamOrigin::running).sum::<usize>();
            mesh.until("they run", |mesh| running(mesh) == 10).await;
            let gone = mesh.stream_origin().address();
            mesh.adopt(|config| config.clusters.get_mut(APP).unwrap().1.retain(|address| *address != gone))
                .await;
            mesh.stream_origins.iter().for_each(sim::StreamOrigin::release);
            all_ok(&begun).await;
            mesh.until("its connection ends", |mesh| {
                mesh.stream_origin().connections().iter().all(|c| c.is_over)
            })
            .await;
            ok(streams.ask(&Ask::get("shop", "/", "next")).await);
        },
    );
}

#[test]
fn a_connection_that_is_made_for_an_endpoint_that_goes_meanwhile_ends_with_its_streams() {
    Sim::each(|sim| {
        STREAMS.setup(StreamBehaviour::default()).on(sim, &async |mesh: &Mesh<_>| {
            let streams = mesh.streams().await;
            // What is sent for a connection is dropped, and sent again after a second.
            sim.backlog(0);
            let begun = begin(&streams, 2).await;
            mesh.until("they wait", |mesh| mesh.upstream("upstream_cx_total") == 1).await;
            let change = |config: &mut crate::mesh::Config| config.clusters.get_mut(APP).unwrap().1.clear();
            mesh.adopt(change).await;
            sim.backlog(128);
            for (stream, ask) in &begun {
                match stream.verdict(ask).await {
                    Verdict::Ok(_) => {}
                    // The one that had begun to connect ran out of its time.
                    verdict => assert_eq!(refused(verdict).0, 503),
                }
            }
            mesh.until("its connections end", |mesh| mesh.upstream("upstream_cx_active") == 0).await;
        });
    });
}

#[test]
fn after_its_last_request_a_connection_ends() {
    let setup = STREAMS.setup(StreamBehaviour::default());
    setup.manager(|m| m.max_requests_per_connection = NonZeroU32::new(3)).on_sim(async |mesh| {
        let streams = mesh.streams().await;
        for id in 0..3 {
            ok(streams.ask(&Ask::get("shop", "/", id)).await);
        }
        assert_eq!(streams.ended().await, Loss::Closed);
        assert!(streams.is_left());
        ok(mesh.streams().await.ask(&Ask::get("shop", "/", 4)).await);
    });
}

#[test]
fn a_connection_without_streams_ends_after_the_idle_timeout() {
    let setup = STREAMS.setup(StreamBehaviour { think: 2000 * MS, ..StreamBehaviour::default() });
    let setup =
        setup.manager(|m| m.idle_timeout = Some(500 * MS)).cluster(|c| c.idle_timeout = Some(500 * MS));
    setup.on_sim(async |mesh| {
        let streams = mesh.streams().await;
        ok(streams.ask(&Ask::get("shop", "/", 1)).await);
        let begun = mesh.io.now();
        assert_eq!(streams.ended().await, Loss::Closed);
        let took = mesh.io.now() - begun;
        assert!((400_000_000..2_000_000_000).contains(&took), "{took}");
        mesh.until("upstream's too", |mesh| mesh.upstream("upstream_cx_active") == 0).await;
    });
}

#[test]
fn an_end_that_gives_no_sign_of_life_is_given_up() {
    let keepalive =
        Keepalive { interval: Some(1000 * MS), jitter_percent: 0, idle_interval: None, timeout: 500 * MS };
    let setup = STREAMS.setup(StreamBehaviour::default()).manager(|m| m.http2.keepalive = Some(keepalive));
    setup.on_sim(async |mesh| {
        mesh.stream_origin().hold();
        let streams = mesh.streams().await;
        let begun = begin(&streams, 3).await;
        mesh.until("they run", |mesh| mesh.stream_origin().running() == 3).await;
        mesh.pass(5000 * MS).await;
        assert_eq!(mesh.stream_origin().running(), 3, "it answers");
        streams.deafen(true);
        mesh.until("it is given up", |mesh| mesh.stream_origin().running() == 0).await;
        mesh.stream_origin().release();
        streams.deafen(false);
        drop(begun);
    });
    let setup = STREAMS.played().cluster(|c| c.http2.keepalive = Some(keepalive));
    setup.on_sim(async |mesh| {
        let streams = mesh.streams().await;
        let ask = Ask::post("shop", "/", 1, "");
        let stream = streams.begin(&ask).await.unwrap();
        stream.send_end(&[]);
        let origin = mesh.accept_streams(StreamConfig::default()).await;
        let arrived = origin.arrived().await.unwrap();
        origin.deafen(true);
        let (status, reason) = refused(stream.verdict(&ask).await);
        assert_eq!((status, &reason[..]), (503, "upstream-closed"));
        origin.deafen(false);
        assert!(arrived.head().await.unwrap().header(LEDGER_ID).is_some());
    });
}

#[test]
fn the_last_response_arrives_whole_however_slow_its_client_is() {
    let body = vec![7; 120_000];
    let setup = STREAMS.setup(StreamBehaviour { body, ..StreamBehaviour::default() });
    let setup = setup.manager(|m| m.max_requests_per_connection = NonZeroU32::new(1));
    for seed in 0..4 {
        let sim = Sim::with_seed(seed);
        setup.on(&sim, &async |mesh: &Mesh<_>| {
            let proxy = mesh.proxy;
            // 40 kB in a second.
            let (buffer_bytes, latency) = (4096, 100 * MS);
            let slow = Way { buffer_bytes, latency_min: latency, latency_max: latency, ..Way::default() };
            sim.faults(move |link, _| match link.to == proxy {
                true => Faults { down: slow.clone(), ..Faults::default() },
                false => Faults::default(),
            });
            let config = StreamConfig { window_bytes: 1 << 20, ..StreamConfig::default() };
            let streams = Streams::connect(&mesh.io, mesh.proxy, config).await;
            ok(streams.ask(&Ask::get("shop", "/", 1)).await);
            assert_eq!(streams.ended().await, Loss::Closed);
        });
    }
}
