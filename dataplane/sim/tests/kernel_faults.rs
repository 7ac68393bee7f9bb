//! What a kernel does to the operations of one machine: errors, late completions of what was given up, completions that do not
//! fit, no buffers; lost SYNs, a clock that jumps; and a connection that goes from one loop to another.

use std::{cell::RefCell, collections::BTreeSet, io::ErrorKind, rc::Rc, time::Duration};

use runtime::{Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf};
use sim::{End, Peer, Sim, SimIo};

const MS: Duration = Duration::from_millis(1);

fn soon(io: &SimIo, wait: Duration) -> Deadline {
    Deadline::after(io.now(), wait)
}

/// What `tries` operations on a machine gave of which every other fails.
fn failing<T>(tries: usize, operation: impl AsyncFn(&Sim, &SimIo, &mut Peer<SimIo>, usize) -> T) -> Vec<T> {
    let sim = Sim::with_seed(5);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = other.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut peer = Peer::connect(&other, listener.local_addr()).await;
        let mut all = Vec::new();
        let mut kept = Vec::new();
        for number in 0..tries {
            kept.push(listener.accept().await.unwrap());
            all.push(operation(&sim, &io, &mut peer, number).await);
            io.fail_operations(0);
            peer = Peer::connect(&other, listener.local_addr()).await;
        }
        all
    })
}

#[test]
fn connects_fail_with_every_error_that_linux_has_for_them() {
    let errors = failing(200, async |_, io, _, _| {
        io.fail_operations(500);
        let result = io.connect("10.0.0.1:80".parse().unwrap(), soon(io, 100 * MS)).await;
        result.err().and_then(|error| error.raw_os_error())
    });
    let told: BTreeSet<i32> = errors.iter().flatten().copied().collect();
    assert!(
        told.is_superset(&BTreeSet::from([1, 12, 13, 23, 24, 98, 99, 101, 104, 110, 111, 113])),
        "{told:?}"
    );
    assert!(errors.contains(&None), "others succeed");
}

#[test]
fn an_accept_fails_and_the_connection_is_still_there_unless_it_was_aborted() {
    let sim = Sim::with_seed(5);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        io.fail_operations(600);
        let mut told = BTreeSet::new();
        for _ in 0..60 {
            let mut peer = Peer::connect(&other, listener.local_addr()).await;
            let is_aborted = loop {
                match listener.accept().await {
                    Ok(_) => break false,
                    Err(error) => {
                        told.insert(error.raw_os_error().unwrap());
                        if error.kind() == ErrorKind::ConnectionAborted {
                            break true;
                        }
                    }
                }
            };
            if is_aborted {
                peer.expect_reset().await;
            }
        }
        assert_eq!(told, BTreeSet::from([1, 12, 23, 24, 71, 100, 103, 105, 113]));
    });
}

#[test]
fn a_receive_or_a_send_fails_and_the_connection_with_it_unless_only_memory_was_short() {
    let sim = Sim::with_seed(9);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut told = [BTreeSet::new(), BTreeSet::new()];
        for number in 0..200 {
            let mut peer = Peer::connect(&other, listener.local_addr()).await;
            let mut accepted = listener.accept().await.unwrap();
            peer.send(b"1").await;
            io.fail_operations(1000);
            let is_send = number % 2 == 1;
            let error = if is_send {
                let mut gather = Gather::new();
                gather.insert(b"2");
                accepted.send.send(&mut gather, Deadline::NEVER).await.unwrap_err()
            } else {
                accepted.recv.recv(&mut Buffer::new(8), Deadline::NEVER).await.unwrap_err()
            };
            io.fail_operations(0);
            let is_short = matches!(error.raw_os_error(), Some(12 | 105));
            let next = accepted.recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
            if is_short {
                assert_eq!(next.unwrap(), 1, "the connection lives after {error}");
            } else {
                assert_eq!(next.unwrap_err().kind(), ErrorKind::ConnectionReset, "after {error}");
                peer.expect_reset().await;
            }
            // Not of a deadline, nor of a cancel: there was none.
            assert!(!matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted), "{error}");
            told[usize::from(is_send)].insert(error.to_string());
        }
        assert_eq!(told.map(|told| told.len()), [6, 7]);
    });
}

#[test]
fn a_receive_that_is_given_up_may_still_get_what_comes() {
    let sim = Sim::with_seed(3);
    sim.late_cancels(700);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut outcomes = BTreeSet::new();
        for _ in 0..50 {
            let mut peer = Peer::connect(&other, listener.local_addr()).await;
            let mut accepted = listener.accept().await.unwrap();
            let (timers, at) = (other.clone(), soon(&io, 20 * MS));
            let sending = async {
                timers.sleep_until(at).await;
                peer.send(b"1").await;
            };
            let mut buffer = Buffer::new(8);
            let (result, ()) = sim::both(accepted.recv.recv(&mut buffer, at), sending).await;
            match result {
                Ok(1) => drop(outcomes.insert("bytes")),
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    outcomes.insert("late");
                    let count = accepted.recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
                    assert_eq!(count.unwrap(), 1, "nothing is lost");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(outcomes, BTreeSet::from(["bytes", "late"]));
    });
}

#[test]
fn a_send_that_is_given_up_may_have_sent_something_and_breaks_the_connection() {
    let sim = Sim::with_seed(3);
    sim.late_cancels(1000);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = other.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let (mut recv, mut send) = io.connect(listener.local_addr(), Deadline::NEVER).await.unwrap();
        let mut peer = Peer::accept(&other, &mut listener).await;
        let mut gather = Gather::new();
        gather.insert(&[7; 100_000]);
        let first = send.send(&mut gather, soon(&io, 50 * MS)).await;
        let second = send.send(&mut gather, soon(&io, 50 * MS)).await;
        assert_eq!(second.unwrap(), 1, "the kernel had taken it");
        assert_eq!(send.send(&mut gather, Deadline::NEVER).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(
            recv.recv(&mut Buffer::new(8), Deadline::NEVER).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        let got = peer.recv_to_end().await;
        assert_eq!((got.bytes.len(), got.end), (first.unwrap() + 1, End::Reset), "what it got is not all");
    });
}

#[test]
fn a_connect_whose_syns_are_lost_succeeds_seconds_later() {
    let sim = Sim::with_seed(4);
    sim.lost_syns(300);
    let io = sim.io();
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut seconds = BTreeSet::new();
        for _ in 0..40 {
            let before = io.now();
            drop(Peer::connect(&io, listener.local_addr()).await);
            drop(listener.accept().await.unwrap());
            seconds.insert((io.now() - before) / 1_000_000_000);
        }
        assert!(seconds.is_superset(&BTreeSet::from([0, 1, 3])), "{seconds:?}");
    });
}

#[test]
fn a_clock_that_jumps_shows_at_once_what_happened_meanwhile() {
    let sim = Sim::with_seed(4);
    sim.clock_jumps(1000, Duration::from_secs(60));
    let io = sim.io();
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut peer = Peer::connect(&io, listener.local_addr()).await;
        let mut accepted = listener.accept().await.unwrap();
        let before = io.now();
        peer.send(b"1").await;
        // Bytes and deadline are there together, and bytes go first.
        let count = accepted.recv.recv(&mut Buffer::new(8), soon(&io, MS)).await;
        assert_eq!(count.unwrap(), 1);
        assert!(io.now() - before > 1_000_000_000, "the clock jumped");
    });
}

#[test]
fn completions_that_do_not_fit_come_all_at_once_and_none_is_lost() {
    let sim = Sim::with_seed(4);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let received_at: Rc<RefCell<Vec<u64>>> = Rc::default();
        let mut peers = Vec::new();
        for _ in 0..8 {
            peers.push(Peer::connect(&other, listener.local_addr()).await);
            let mut accepted = listener.accept().await.unwrap();
            let (io, received_at) = (io.clone(), received_at.clone());
            io.clone().spawn(async move {
                // A deadline is no completion, and of a receive that it ends nothing is lost.
                let mut buffer = Buffer::new(8);
                let result = accepted.recv.recv(&mut buffer, soon(&io, 5 * MS)).await;
                assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
                assert!(accepted.recv.try_recv(&mut Buffer::new(8)).is_none());
                assert_eq!(accepted.recv.recv(&mut buffer, Deadline::NEVER).await.unwrap(), 1);
                received_at.borrow_mut().push(io.now());
            });
        }
        io.overflows(1000, 80 * MS);
        io.sleep_until(soon(&io, MS)).await;
        io.overflows(0, MS);
        let begun = io.now();
        for peer in &mut peers {
            peer.send(b"1").await;
            other.sleep_until(soon(&other, MS / 2)).await;
        }
        other.sleep_until(soon(&other, 100 * MS)).await;
        let received_at = received_at.borrow();
        assert_eq!((received_at.len(), received_at.iter().collect::<BTreeSet<_>>().len()), (8, 1));
        let waited = Duration::from_nanos(received_at[0] - begun);
        assert!((10 * MS..=81 * MS).contains(&waited), "{waited:?}");
        assert!(io.overflow_count() > 0 && other.overflow_count() == 0);
    });
}

#[test]
fn a_send_whose_completion_is_not_seen_has_sent_and_is_ended_by_its_deadline() {
    let sim = Sim::with_seed(4);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = other.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let (mut recv, mut send) = io.connect(listener.local_addr(), Deadline::NEVER).await.unwrap();
        let mut peer = Peer::accept(&other, &mut listener).await;
        io.overflows(1000, 50 * MS);
        io.sleep_until(soon(&io, MS)).await;
        let mut gather = Gather::new();
        gather.insert(b"whole");
        let sending = send.send(&mut gather, soon(&io, MS));
        let (result, got) = sim::both(sending, peer.recv_exactly(5)).await;
        assert_eq!((result.unwrap(), gather.is_sent(), &got[..]), (5, true, &b"whole"[..]));
        peer.expect_reset().await;
        assert_eq!(
            recv.recv(&mut Buffer::new(8), Deadline::NEVER).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    });
}

#[test]
fn a_receive_that_finds_no_buffer_gets_the_bytes_when_it_asks_again() {
    let sim = Sim::with_seed(4);
    let (io, other) = (sim.io(), sim.io());
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut peer = Peer::connect(&other, listener.local_addr()).await;
        let mut accepted = listener.accept().await.unwrap();
        io.short_of_buffers(500);
        let mut tries = [0; 2];
        for _ in 0..100 {
            peer.send(b"1").await;
            let mut buffer = Buffer::new(8);
            loop {
                accepted.recv.readable(Deadline::NEVER).await.unwrap();
                let tried = accepted.recv.try_recv(&mut buffer);
                tries[usize::from(tried.is_some())] += 1;
                if let Some(count) = tried {
                    break assert_eq!(count.unwrap(), 1);
                }
            }
            peer.send(b"2").await;
            assert_eq!(accepted.recv.recv(&mut Buffer::new(8), Deadline::NEVER).await.unwrap(), 1);
        }
        assert!(tries[0] > 20 && tries[1] == 100, "{tries:?}");
    });
}

#[test]
fn a_connection_goes_to_another_loop_or_ends_on_the_way() {
    let sim = Sim::with_seed(4);
    let (io, colleague, other) = (sim.io(), sim.io(), sim.io());
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let mut peer = Peer::connect(&other, listener.local_addr()).await;
        let accepted = listener.accept().await.unwrap();
        peer.send(b"1").await;
        let stream = io.detach(accepted.recv, accepted.send).await.ok().unwrap();
        let (recv, send) = colleague.attach(stream).unwrap();
        let mut taken = Peer::new(&colleague, recv, send);
        assert_eq!(taken.recv_exactly(1).await, b"1");
        taken.send(b"2").await;
        assert_eq!(peer.recv_exactly(1).await, b"2");
        drop(taken);
        peer.expect_close().await;

        for fails_at in ["the way", "its end", "its begin"] {
            let mut peer = Peer::connect(&other, listener.local_addr()).await;
            let accepted = listener.accept().await.unwrap();
            io.fail_operations(if fails_at == "its begin" { 1000 } else { 0 });
            match io.detach(accepted.recv, accepted.send).await {
                Ok(stream) if fails_at == "its end" => {
                    colleague.fail_operations(1000);
                    let number = colleague.attach(stream).err().unwrap().raw_os_error();
                    assert!(matches!(number, Some(12 | 28)), "{number:?}");
                }
                Ok(stream) => drop(stream),
                Err(halves) => {
                    assert_eq!(fails_at, "its begin");
                    drop(halves);
                }
            }
            peer.expect_close().await;
        }
    });
    drop(listener);
    sim.settle();
    assert_eq!(sim.leaks(), []);
}

#[test]
fn a_connection_whose_receive_is_told_to_end_stays_with_what_came_or_goes_with_it() {
    let sim = Sim::with_seed(4);
    sim.late_cancels(500);
    sim.late_completions(200);
    let (io, colleague, other) = (sim.io(), sim.io(), sim.io());
    let mut listener = io.listener(sim.bind("10.0.0.1:80".parse().unwrap())).unwrap();
    sim.run(async {
        let (mut outcomes, mut kept) = (BTreeSet::new(), Vec::new());
        for number in 0..300 {
            let mut peer = Peer::connect(&other, listener.local_addr()).await;
            let mut accepted = listener.accept().await.unwrap();
            let _ = accepted.recv.readable(soon(&io, MS)).await;
            let (comes, is_there) = (["bytes", "a FIN", "a RST"][number % 3], number % 2 == 0);
            let coming = async {
                match comes {
                    "bytes" => peer.send(b"1").await,
                    "a FIN" => peer.shutdown(),
                    _ => return peer.reset(),
                }
                kept.push(peer);
            };
            let leaving = async {
                if is_there {
                    io.sleep_until(soon(&io, 10 * MS)).await;
                }
                io.detach(accepted.recv, accepted.send).await
            };
            let (left, ()) = sim::both(leaving, coming).await;
            outcomes.insert((comes, is_there, left.is_ok()));
            let halves = left.map_or_else(|halves| halves, |stream| colleague.attach(stream).unwrap());
            let (mut recv, _send) = halves;
            let count = recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
            match comes {
                "bytes" => assert_eq!(count.unwrap(), 1),
                "a FIN" => assert_eq!(count.unwrap(), 0),
                _ => assert_eq!(count.unwrap_err().kind(), ErrorKind::ConnectionReset),
            }
        }
        assert_eq!(outcomes.len(), 12, "{outcomes:?}");
    });
}

#[test]
fn a_bell_that_is_heard_late_makes_its_turn_later() {
    let sim = Sim::with_seed(4);
    let (io, other) = (sim.io(), sim.io());
    io.late_bells(500, 80 * MS);
    let turns = Rc::new(RefCell::new(Vec::new()));
    let (turning, seen) = (io.clone(), turns.clone());
    io.spawn(async move {
        loop {
            turning.turn().await;
            seen.borrow_mut().push(turning.now());
        }
    });
    sim.run(async {
        let mut at_once = 0;
        for _ in 0..20 {
            turns.borrow_mut().clear();
            let rung_at = other.now();
            io.bell().ring();
            other.sleep_until(soon(&other, 100 * MS)).await;
            at_once += usize::from(turns.borrow().first() == Some(&rung_at));
            assert!(!turns.borrow().is_empty());
        }
        assert!((1..20).contains(&at_once), "{at_once}");
    });
}
