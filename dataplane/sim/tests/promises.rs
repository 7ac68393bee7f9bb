//! The promises of `runtime::io`, kept by the simulated network: on a calm one and on rough ones.

use std::{cell::Cell, io::ErrorKind, rc::Rc, time::Duration};

use runtime::{Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf, mailbox::mailbox, timer::TICK};
use sim::{End, Ended, Peer, Reach, Sim, SimIo, SimListener, both};

fn listener(sim: &Sim, io: &SimIo) -> SimListener {
    io.listener(sim.bind("10.0.0.1:0".parse().unwrap())).unwrap()
}

fn soon(io: &SimIo, wait: u64) -> Deadline {
    Deadline::after(io.now(), Duration::from_millis(wait))
}

fn gather(bytes: &[u8]) -> Gather {
    let mut gather = Gather::new();
    gather.insert(bytes);
    gather
}

/// Tells a story with a connection: the accepted halves and a peer.
fn on_a_connection(story: impl AsyncFn(&SimIo, <SimIo as Io>::Recv, <SimIo as Io>::Send, Peer<SimIo>)) {
    Sim::each(|sim| {
        let (io, other) = (sim.io(), sim.io());
        let mut listener = listener(sim, &io);
        sim.run(async {
            let peer = Peer::connect(&other, listener.local_addr()).await;
            let accepted = listener.accept().await.unwrap();
            assert_eq!(accepted.downstream.ip(), other.ip());
            assert_eq!(accepted.recv.local_addr().unwrap(), listener.local_addr());
            story(&io, accepted.recv, accepted.send, peer).await;
        });
        drop(listener);
        sim.settle();
        assert_eq!(sim.leaks(), [], "seed {}", sim.seed());
    });
}

#[test]
fn bytes_are_received_behind_what_is_there_and_sent_from_many_places() {
    on_a_connection(async |_, mut recv, mut send, mut peer| {
        peer.send(b"hello").await;
        let mut buffer = Buffer::new(64);
        buffer.extend(b">> ");
        while buffer.len() < 8 {
            let count = recv.recv(&mut buffer, Deadline::NEVER).await;
            assert!(count.unwrap() > 0);
        }
        assert_eq!(buffer.filled(), b">> hello");
        let mut gather = Gather::new();
        gather.put_buffer(buffer);
        gather.keep(3..8);
        gather.insert(b", ");
        gather.keep(3..8);
        let sent = send.send_all(&mut gather, Deadline::NEVER).await;
        sent.unwrap();
        assert!(gather.is_sent());
        send.shutdown().unwrap();
        assert_eq!(peer.recv_to_end().await, Ended { bytes: b"hello, hello".to_vec(), end: End::Close });
        peer.shutdown();
        assert_eq!(recv.recv(&mut Buffer::new(8), Deadline::NEVER).await.unwrap(), 0, "FIN");
    });
}

#[test]
fn a_receive_ends_at_its_deadline_and_the_next_one_gets_the_bytes() {
    on_a_connection(async |io, mut recv, _send, mut peer| {
        let before = io.now();
        let mut buffer = Buffer::new(8);
        let result = recv.recv(&mut buffer, soon(io, 30)).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        let waited = Duration::from_nanos(io.now() - before);
        assert!(
            (Duration::from_millis(30)..=Duration::from_millis(30) + TICK).contains(&waited),
            "{waited:?}"
        );
        if let Err(error) = recv.readable(soon(io, 10)).await {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        peer.send(b"l").await;
        recv.readable(Deadline::NEVER).await.unwrap();
        let count = recv.recv(&mut buffer, Deadline::NEVER).await;
        assert_eq!((count.unwrap(), buffer.filled()), (1, &b"l"[..]));
    });
}

#[test]
fn a_cancelled_receive_ends_as_interrupted() {
    on_a_connection(async |io, mut recv, _send, mut peer| {
        let cancel = recv.cancel_handle();
        let (timers, at) = (io.clone(), soon(io, 10));
        io.spawn(async move {
            timers.sleep_until(at).await;
            cancel.cancel();
        });
        let mut buffer = Buffer::new(8);
        let result = recv.recv(&mut buffer, Deadline::NEVER).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
        peer.send(b"1").await;
        assert_eq!(
            recv.recv(&mut buffer, Deadline::NEVER).await.unwrap(),
            1,
            "it can be received from again"
        );
    });
}

#[test]
fn a_large_send_survives_partial_writes_and_a_stuck_one_ends_at_its_deadline() {
    on_a_connection(async |io, _recv, mut send, mut peer| {
        let expected: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let sending = async {
            let mut gather = gather(&expected);
            let sent = send.send_all(&mut gather, Deadline::NEVER).await;
            sent.unwrap();
            gather
        };
        let (mut gather, received) = both(sending, peer.recv_exactly(expected.len())).await;
        assert!(received == expected);
        // Nobody reads any more: the buffers fill and the send waits until its deadline.
        gather.insert(&[0; 70_000]);
        let sent = send.send_all(&mut gather, soon(io, 60_000)).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(gather.unsent_len() > 0);
        assert_eq!(send.send(&mut gather, Deadline::NEVER).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_connect_is_refused_or_unanswered_or_fails() {
    Sim::each(|sim| {
        let io = sim.io();
        let [gone, silent, away] =
            ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"].map(|address| address.parse().unwrap());
        sim.reach(silent, Reach::Unanswered);
        sim.reach(away, Reach::Fails(ErrorKind::HostUnreachable));
        sim.run(async {
            for (to, kind) in [
                (gone, ErrorKind::ConnectionRefused),
                (silent, ErrorKind::TimedOut),
                (away, ErrorKind::HostUnreachable),
            ] {
                assert_eq!(io.connect(to, soon(&io, 5_000)).await.err().unwrap().kind(), kind);
            }
        });
    });
}

#[test]
fn a_full_backlog_leaves_a_connect_unanswered_until_there_is_room() {
    let sim = Sim::with_seed(1);
    sim.backlog(2);
    let io = sim.io();
    let mut listener = listener(&sim, &io);
    sim.run(async {
        let to = listener.local_addr();
        let _first = Peer::connect(&io, to).await;
        let _second = Peer::connect(&io, to).await;
        assert_eq!(io.connect(to, soon(&io, 100)).await.err().unwrap().kind(), ErrorKind::TimedOut);
        listener.accept().await.unwrap();
        io.connect(to, soon(&io, 5_000)).await.unwrap();
    });
}

#[test]
fn an_abandoned_connect_is_closed_when_it_comes() {
    let sim = Sim::with_seed(1);
    let io = sim.io();
    let mut listener = listener(&sim, &io);
    sim.run(async {
        {
            let mut connect = std::pin::pin!(io.connect(listener.local_addr(), Deadline::NEVER));
            std::future::poll_fn(|cx| {
                assert!(connect.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        io.sleep_until(soon(&io, 50)).await;
        assert_eq!(sim.leaks().len(), 1, "the listener");
        let (mut recv, mut send) = io.connect(listener.local_addr(), Deadline::NEVER).await.unwrap();
        let mut accepted = listener.accept().await.unwrap();
        send.send_all(&mut gather(b"x"), Deadline::NEVER).await.unwrap();
        assert_eq!(accepted.recv.recv(&mut Buffer::new(1), Deadline::NEVER).await.unwrap(), 1);
        drop(accepted);
        assert_eq!(recv.recv(&mut Buffer::new(1), Deadline::NEVER).await.unwrap(), 0);
    });
}

#[test]
fn closing_a_listener_ends_its_accept() {
    Sim::each(|sim| {
        let io = sim.io();
        let mut listener = listener(sim, &io);
        let close = listener.close_handle();
        sim.run(async {
            let (timers, at) = (io.clone(), soon(&io, 10));
            io.spawn(async move {
                timers.sleep_until(at).await;
                close.close();
                close.close();
            });
            assert!(listener.accept().await.is_err());
        });
    });
}

#[test]
fn closing_a_listener_breaks_what_queues_and_refuses_what_comes() {
    Sim::each(|sim| {
        let io = sim.io();
        let listener = listener(sim, &io);
        let to = listener.local_addr();
        sim.run(async {
            let mut queued = Peer::connect(&io, to).await;
            listener.close_handle().close();
            queued.expect_reset().await;
            assert_eq!(Peer::try_connect(&io, to).await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
        });
    });
}

#[test]
fn a_reset_is_seen_as_a_reset_and_not_as_an_end() {
    on_a_connection(async |_, recv, mut send, mut peer| {
        send.reset();
        drop((recv, send));
        peer.expect_reset().await;
    });
}

#[test]
fn a_reset_that_a_send_was_told_of_is_no_end_for_the_receive_after_it() {
    on_a_connection(async |io, mut recv, mut send, peer| {
        peer.reset();
        io.sleep_until(soon(io, 50)).await;
        let mut gather = Gather::new();
        gather.insert(b"x");
        let sent = send.send_all(&mut gather, Deadline::NEVER).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let received = recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
        assert_eq!(received.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_close_with_unread_bytes_is_a_reset_and_what_is_sent_after_a_close_brings_one() {
    on_a_connection(async |io, recv, send, mut peer| {
        peer.send(b"u").await;
        io.sleep_until(soon(io, 50)).await;
        drop((recv, send));
        peer.expect_reset().await;
    });
    on_a_connection(async |io, recv, send, mut peer| {
        drop((recv, send));
        io.sleep_until(soon(io, 50)).await;
        peer.send(b"l").await;
        io.sleep_until(soon(io, 50)).await;
        assert_eq!(peer.try_send(b"later").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        peer.expect_close().await;
    });
}

#[test]
fn a_turn_ends_after_its_tasks_and_a_bell_makes_one_in_which_the_message_is_there() {
    Sim::each(|sim| {
        let (worker, other) = (sim.io(), sim.io());
        let (sender, inbox) = mailbox(Some(worker.bell()));
        let got = Rc::new(Cell::new(0));
        let (io, seen) = (worker.clone(), got.clone());
        worker.spawn(async move {
            loop {
                io.turn().await;
                while let Some(message) = inbox.take() {
                    seen.set(seen.get() + message);
                }
            }
        });
        sim.run(async {
            other.sleep_until(soon(&other, 10)).await;
            (1..=100).for_each(|message| sender.send(message));
            assert_eq!(got.get(), 0, "not before the ready tasks ran");
            other.sleep_until(soon(&other, 10)).await;
            assert_eq!(got.get(), 5050);
        });
    });
}

#[test]
#[should_panic(expected = "an operation in flight was dropped")]
fn a_receive_in_flight_must_not_be_dropped() {
    let sim = Sim::with_seed(1);
    let io = sim.io();
    let mut listener = listener(&sim, &io);
    sim.run(async {
        let _peer = Peer::connect(&io, listener.local_addr()).await;
        let mut accepted = listener.accept().await.unwrap();
        let mut buffer = Buffer::new(8);
        let mut receive = Box::pin(accepted.recv.recv(&mut buffer, Deadline::NEVER));
        std::future::poll_fn(|cx| {
            assert!(receive.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    });
}
