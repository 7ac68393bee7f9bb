//! What a connection suffers when it is told to, and that a run is a function of its seed.

use std::time::Duration;

use runtime::{Buffer, Deadline, Io, Listener, RecvHalf};
use sim::{Cut, End, Ended, Faults, Peer, Pieces, Sim, Way};

/// Sends `bytes` over a connection with these faults; gives what each receive got.
fn pieces(way: Way, bytes: &[u8]) -> Vec<usize> {
    let sim = Sim::with_seed(3);
    sim.faults(move |_, _| Faults::both(way.clone()));
    let io = sim.io();
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut peer = Peer::connect(&io, listener.local_addr()).await;
        let mut accepted = listener.accept().await.unwrap();
        peer.send(bytes).await;
        peer.shutdown();
        let (mut all, mut pieces) = (Vec::new(), Vec::new());
        loop {
            // Everything is there before the first receive.
            io.sleep_until(Deadline::after(io.now(), Duration::from_millis(20))).await;
            let mut buffer = Buffer::new(1000);
            let count = accepted.recv.recv(&mut buffer, Deadline::NEVER).await;
            match count.unwrap() {
                0 => break,
                count => pieces.push(count),
            }
            all.extend_from_slice(buffer.filled());
        }
        assert_eq!(all, bytes);
        pieces
    })
}

#[test]
fn receives_give_the_pieces_they_are_told_to() {
    let recv = |recv| Way { recv, ..Way::default() };
    assert_eq!(pieces(recv(Pieces::Whole), b"0123456789"), [10]);
    assert_eq!(pieces(recv(Pieces::Every(4)), b"0123456789"), [4, 4, 2]);
    assert_eq!(pieces(recv(Pieces::Every(1)), b"0123456789"), [1; 10]);
    assert_eq!(pieces(recv(Pieces::SplitAt(7)), b"0123456789"), [7, 3]);
    let random = pieces(recv(Pieces::UpTo(5)), &[b'x'; 100]);
    assert!(random.iter().all(|count| (1..=5).contains(count)) && random.len() > 20, "{random:?}");
}

#[test]
fn a_cut_lets_so_many_bytes_through_and_then_ends_both_ends() {
    for (end, bytes) in [(End::Close, 0), (End::Close, 5), (End::Reset, 0), (End::Reset, 5), (End::Reset, 10)]
    {
        let sim = Sim::with_seed(3);
        sim.faults(move |_, _| Faults {
            up: Way { cut: Some(Cut { bytes, end }), ..Way::default() },
            down: Way::default(),
        });
        let io = sim.io();
        let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
        sim.run(async {
            let mut peer = Peer::connect(&io, listener.local_addr()).await;
            let mut accepted = Peer::accept(&io, &mut listener).await;
            let _ = peer.try_send(b"0123456789").await;
            assert_eq!(peer.recv_to_end().await, Ended { bytes: Vec::new(), end }, "{end:?} after {bytes}");
            let expected = Ended { bytes: b"0123456789"[..bytes as usize].to_vec(), end };
            assert_eq!(accepted.recv_to_end().await, expected);
        });
        drop(listener);
        sim.settle();
        assert_eq!(sim.leaks(), []);
    }
}

#[test]
fn a_slow_reader_holds_the_sender_back() {
    let sim = Sim::with_seed(3);
    sim.faults(|_, _| Faults::both(Way { buffer_bytes: 100, ..Way::default() }));
    let io = sim.io();
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    let waited = sim.run(async {
        let mut peer = Peer::connect(&io, listener.local_addr()).await;
        let mut accepted = listener.accept().await.unwrap();
        let reader = io.clone();
        io.spawn(async move {
            loop {
                reader.sleep_until(Deadline::after(reader.now(), Duration::from_millis(100))).await;
                if accepted.recv.recv(&mut Buffer::new(10), Deadline::NEVER).await.unwrap() == 0 {
                    return;
                }
            }
        });
        let before = io.now();
        peer.send([0; 300]).await;
        Duration::from_nanos(io.now() - before)
    });
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_millis(2200), "{waited:?}");
}

#[test]
fn accepts_fail_as_told_and_then_go_on() {
    let sim = Sim::with_seed(3);
    let io = sim.io();
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.fail_accepts(listener.local_addr(), 24, 2);
    sim.run(async {
        let _peer = Peer::connect(&io, listener.local_addr()).await;
        for _ in 0..2 {
            assert_eq!(listener.accept().await.err().unwrap().raw_os_error(), Some(24));
        }
        listener.accept().await.unwrap();
    });
}

/// An echo of many connections at once, as a trace.
fn echo(sim: Sim) -> u64 {
    let io = sim.io();
    let socket = sim.bind("10.0.0.1:80".parse().unwrap());
    let server = io.clone();
    io.spawn(async move {
        let mut listener = server.listener(socket).unwrap();
        loop {
            let mut peer = Peer::accept(&server, &mut listener).await;
            server.spawn(async move {
                let received = peer.recv_to_end().await;
                peer.send(received.bytes).await;
            });
        }
    });
    let clients: Vec<_> = (0..10).map(|_| sim.io()).collect();
    for client in clients {
        client.clone().spawn(async move {
            let mut peer = Peer::connect(&client, "10.0.0.1:80".parse().unwrap()).await;
            for n in 1..20 {
                peer.send([n; 50]).await;
            }
            peer.shutdown();
            let bytes = (1..20).flat_map(|n| [n; 50]).collect();
            assert_eq!(peer.recv_to_end().await, Ended { bytes, end: End::Close });
        });
    }
    sim.run(io.sleep_until(Deadline::after(sim.now(), Duration::from_secs(60))));
    assert_eq!(sim.tasks_count(), 1, "only the accepting task is left");
    sim.trace_hash()
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 0..8 {
        assert_eq!(echo(Sim::rough(seed)), echo(Sim::rough(seed)), "seed {seed}");
    }
    assert_ne!(echo(Sim::rough(1)), echo(Sim::rough(2)));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_story_that_waits_for_what_cannot_happen_is_told_so() {
    let sim = Sim::with_seed(3);
    let io = sim.io();
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let _ = listener.accept().await;
    });
}

#[test]
#[should_panic(expected = "did not end within 10s")]
fn a_story_that_takes_too_long_is_told_so() {
    let sim = Sim::with_seed(3);
    sim.time_max(Duration::from_secs(10));
    let io = sim.io();
    sim.run(async {
        loop {
            io.sleep_until(Deadline::after(io.now(), Duration::from_secs(1))).await;
        }
    });
}

#[test]
fn what_is_forgotten_is_told() {
    let sim = Sim::with_seed(3);
    let io = sim.io();
    let socket = sim.bind("10.0.0.1:80".parse().unwrap());
    let kept = sim.run(Peer::connect(&io, socket.address()));
    assert_eq!(sim.leaks().len(), 3, "{:?}", sim.leaks());
    drop((kept, socket));
    sim.settle();
    assert_eq!(sim.leaks(), []);
}
