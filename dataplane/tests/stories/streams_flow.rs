//! Who does not read stops its own stream and no other; what is held is bounded, and given back.

use std::time::Duration;

use runtime::Io;
use sim::{
    Ask, Behaviour, Cut, End, Faults, Loss, Pieces, Sim, StreamBehaviour, StreamConfig, Streams, Verdict, Way,
};

use crate::mesh::{Mesh, Pairing, Setup, ok};

const MS: Duration = Duration::from_millis(1);

fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Tells a story where tasks and completions come in any order, but bytes in large pieces: for stories with many.
fn brisk(setup: &Setup, story: impl AsyncFn(&Sim, &Mesh<sim::SimIo>)) {
    for seed in 0..6 {
        let sim = Sim::with_seed(seed);
        if seed > 0 {
            sim.shuffle_tasks(true);
            sim.late_completions(150);
            sim.faults(|_, _| Faults::both(Way { recv: Pieces::UpTo(9000), ..Way::default() }));
        }
        setup.on(&sim, &async |mesh: &Mesh<_>| story(&sim, mesh).await);
    }
}

#[test]
fn a_stream_that_is_not_read_stops_no_other() {
    for up in [true, false] {
        let pairing = Pairing { down: true, up };
        let behaviour = StreamBehaviour { body: body(300_000), ..StreamBehaviour::default() };
        brisk(&pairing.setup(behaviour), async |_, mesh| {
            let streams = mesh.streams().await;
            let slow = Ask::get("shop", "/", "slow");
            let held = streams.begin(&slow).await.unwrap();
            held.hold();
            for id in 0..3 {
                ok(streams.ask(&Ask::get("shop", "/", id)).await);
            }
            mesh.pass(500 * MS).await;
            assert_eq!(held.body().len(), 65_535, "its window and no more");
            // What came of it beyond that waits: its window upstream, and a receive.
            let out = mesh.worker.buffers.out_count();
            assert!(out <= 8, "{pairing:?}: {out} buffers");
            held.read_on();
            ok(held.verdict(&slow).await);
        });
    }
}

#[test]
fn windows_are_given_back_for_what_nobody_read() {
    // Towards us: uploads that no origin takes, whose clients give up. The connection's window is no larger than a stream's.
    let behaviour = StreamBehaviour {
        config: StreamConfig { window_bytes: 1000, ..StreamConfig::default() },
        holds: true,
        ..StreamBehaviour::default()
    };
    let setup = Setup::streams(behaviour).manager(|m| m.http2.connection_window_bytes = 65_535);
    brisk(&setup, async |_, mesh| {
        let streams = mesh.streams().await;
        for id in 0..8 {
            let ask = Ask::post("shop", "/", id, body(60_000));
            let stream = streams.begin(&ask).await.unwrap();
            assert!(stream.send(&body(20_000), false).await);
            mesh.pass(5 * MS).await;
            stream.reset(8);
        }
        mesh.stream_origin().behave(StreamBehaviour::default());
        ok(streams.ask(&Ask::post("shop", "/", "last", body(100_000))).await);
    });
    // And from upstream: downloads that no client takes.
    let behaviour = StreamBehaviour { body: body(60_000), ..StreamBehaviour::default() };
    let setup = Setup::streams(behaviour).cluster(|c| c.http2.connection_window_bytes = 65_535);
    brisk(&setup, async |_, mesh| {
        let streams = mesh.streams().await;
        for id in 0..8 {
            let config = StreamConfig { window_bytes: 10_000, ..StreamConfig::default() };
            let held = Streams::connect(&mesh.io, mesh.proxy, config).await;
            let stream = held.begin(&Ask::get("shop", "/", id)).await.unwrap();
            stream.hold();
            mesh.pass(5 * MS).await;
            stream.reset(8);
            held.close();
        }
        ok(streams.ask(&Ask::get("shop", "/", "last")).await);
    });
}

#[test]
fn downloads_share_a_connection_that_is_slower_than_they() {
    for up in [true, false] {
        let pairing = Pairing { down: true, up };
        let setup = pairing.setup(StreamBehaviour { body: body(1_000_000), ..StreamBehaviour::default() });
        brisk(&setup, async |sim, mesh| {
            let proxy = mesh.proxy;
            sim.faults(move |link, _| match link.to == proxy {
                true => Faults {
                    down: Way { buffer_bytes: 4096, latency_min: MS, latency_max: MS, ..Way::default() },
                    ..Faults::default()
                },
                false => Faults::default(),
            });
            let streams = mesh.streams().await;
            let mut begun = Vec::new();
            for id in 0..4 {
                begun.push(streams.begin(&Ask::get("shop", "/", id)).await.unwrap());
            }
            let came = || begun.iter().map(|stream| stream.body().len()).collect::<Vec<_>>();
            while came().iter().sum::<usize>() < 600_000 {
                mesh.pass(5 * MS).await;
            }
            let came = came();
            let (least, most) = (came.iter().min().unwrap(), came.iter().max().unwrap());
            assert!(least * 4 > *most, "{pairing:?}: {came:?}");
            streams.reset();
        });
    }
}

#[test]
fn uploads_share_a_connection_that_is_slower_than_they() {
    let setup = Setup::streams(StreamBehaviour::default());
    brisk(&setup, async |sim, mesh| {
        let origin = mesh.stream_origin().address();
        sim.faults(move |link, _| match link.to == origin {
            true => Faults {
                up: Way { buffer_bytes: 4096, latency_min: MS, latency_max: MS, ..Way::default() },
                ..Faults::default()
            },
            false => Faults::default(),
        });
        let mut clients = Vec::new();
        for id in 0..4 {
            let mut peer = mesh.peer().await;
            let io = mesh.io.clone();
            let ended = std::rc::Rc::new(std::cell::Cell::new(0));
            let end = ended.clone();
            mesh.io.spawn(async move {
                peer.send(Ask::post("shop", "/", id, body(300_000)).bytes()).await;
                peer.recv_until(b"ok\n").await;
                end.set(io.now());
            });
            clients.push(ended);
        }
        mesh.until("all are answered", |_| clients.iter().all(|end| end.get() > 0)).await;
        let ends: Vec<u64> = clients.iter().map(|end| end.get() / 1_000_000).collect();
        let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
        assert!(first * 3 > last * 2, "{ends:?}");
    });
}

#[test]
fn a_cut_answer_is_never_taken_for_a_whole_one() {
    for down in [true, false] {
        for (resets, ends) in [
            (Some((0, 2)), None),
            (Some((700, 8)), None),
            (None, Some((700, End::Close))),
            (None, Some((700, End::Reset))),
        ] {
            // Without a length only the end of the stream says that it is whole.
            let behaviour = StreamBehaviour {
                body: body(2000),
                has_length: false,
                resets,
                ends,
                ..StreamBehaviour::default()
            };
            let pairing = Pairing { down, up: true };
            pairing.setup(behaviour).on_sim(async |mesh| {
                let mut asker = pairing.asker(mesh).await;
                let verdict = asker.ask(&Ask::post("shop", "/", 1, "")).await;
                let is_told = match &verdict {
                    Verdict::Lost(Loss::Reset(_)) => down,
                    Verdict::Lost(Loss::Ended(_)) => !down,
                    // Nothing of it had come.
                    Verdict::Refused(answer) => answer.status() == 503,
                    _ => false,
                };
                assert!(is_told, "{resets:?} {ends:?}: {verdict:?}");
            });
        }
    }
    let cut = Some(Cut { bytes: 700, end: End::Reset });
    Setup::new(Behaviour { body: body(2000), answer_cut: cut, ..Behaviour::default() }).on_sim(
        async |mesh| {
            let streams = mesh.streams().await;
            let verdict = streams.ask(&Ask::post("shop", "/", 1, "")).await;
            assert!(matches!(verdict, Verdict::Lost(Loss::Reset(_))), "{verdict:?}");
        },
    );
}

#[test]
fn who_sends_on_after_an_error_is_read_no_further_than_a_window() {
    const WINDOW: usize = 200_000;
    let setup = Pairing { down: true, up: true }.setup(StreamBehaviour::default()).manager(|m| {
        m.delayed_close_timeout = Duration::from_secs(60);
        m.http2.connection_window_bytes = WINDOW as u32;
    });
    brisk(&setup, async |_, mesh| {
        let mut peer = mesh.peer().await;
        peer.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        // SETTINGS; DATA on no stream.
        peer.send([0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7]).await;
        let (begun, mut sent) = (mesh.io.now(), 0);
        while peer.try_send([7; 10_000]).await.is_ok() {
            sent += 10_000;
            assert!(sent < 10 * WINDOW, "it reads on");
        }
        assert!(sent >= WINDOW, "{sent}");
        assert!(mesh.io.now() - begun < 30_000_000_000);
    });
}
