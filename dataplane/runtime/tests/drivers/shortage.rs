//! More connections that send at once than io_uring has buffers for, and hardly anybody who takes what came.
//!
//! What is counted are turns: each is one system call, and a loop that spins makes thousands of them.

use std::{cell::Cell, future::poll_fn, io::Write, os::unix::net::UnixStream, rc::Rc, task::Poll};

use runtime::{Buffer, Deadline, Io, RecvHalf, kernel::Kernel};

use super::{many_descriptors, on_both_with_turns, soon};

/// Buffers of a ring.
const BUFFERS: usize = 256;

/// A connection whose other end is here, too.
struct Connection {
    recv: <Kernel as Io>::Recv,
    _send: <Kernel as Io>::Send,
    peer: UnixStream,
}

async fn connections(io: &Kernel, count: usize) -> Vec<Connection> {
    many_descriptors();
    let mut connections = Vec::new();
    for _ in 0..count {
        let (ours, peer) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let (mut recv, _send) = io.attach(ours.into()).unwrap();
        // What may have come on its way is looked for; from here on it waits for bytes.
        assert!(recv.try_recv(&mut Buffer::new(1)).is_none());
        poll_fn(|cx| {
            assert!(recv.poll_readable(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        connections.push(Connection { recv, _send, peer });
    }
    connections
}

/// What goes over a connection at this place.
fn byte(connection: usize, at: usize) -> u8 {
    (connection * 7 + at / 100) as u8
}

#[test]
fn iu_02_hundreds_that_send_at_once_are_received_from_in_turn_by_who_takes_slowly() {
    const SENT: usize = 100_000;
    on_both_with_turns(async |io, turns| {
        let mut connections = connections(&io, BUFFERS + 50).await;
        for (number, connection) in connections.iter_mut().enumerate() {
            let bytes: Vec<u8> = (0..SENT).map(|at| byte(number, at)).collect();
            connection.peer.write_all(&bytes).expect("the kernel takes as much");
        }
        for connection in &mut connections {
            connection.recv.readable(Deadline::NEVER).await.unwrap();
        }
        let before = turns.get();
        io.sleep_until(soon(&io, 100)).await;
        let idle = turns.get() - before;
        assert!(idle < 100, "{idle} turns while nobody takes anything");

        let (before, mut receives, mut taken) = (turns.get(), 0, 0);
        let mut buffer = Buffer::new(10_000);
        while taken < SENT {
            for (number, Connection { recv, .. }) in connections.iter_mut().enumerate() {
                // A round gives every connection as much.
                let until = taken + buffer.capacity();
                for at in taken..until {
                    if buffer.is_empty() {
                        let room = until - at;
                        let mut returned = Buffer::new(room);
                        let result = recv.recv(&mut returned, Deadline::NEVER).await;
                        assert_ne!(result.unwrap(), 0);
                        (buffer, receives) = (returned, receives + 1);
                    }
                    assert_eq!(buffer.filled()[0], byte(number, at), "byte {at} of connection {number}");
                    buffer.consume(1);
                }
                buffer = Buffer::new(10_000);
            }
            taken += buffer.capacity();
            io.sleep_until(soon(&io, 1)).await;
        }
        let made = turns.get() - before;
        assert!(made < 2 * receives, "{made} turns for {receives} receives");
    });
}

#[test]
fn iu_02_connections_that_share_the_last_buffer_do_not_wait_for_each_other() {
    const OTHERS: usize = 200;
    const ROUNDS: usize = 20;
    on_both_with_turns(async |io, turns| {
        // Each keeps three, and one is left.
        let mut keeping = connections(&io, (BUFFERS - 1) / 3).await;
        for _ in 0..3 {
            for connection in &mut keeping {
                connection.peer.write_all(b"x").unwrap();
                let before = turns.get();
                while turns.get() == before {
                    io.sleep_until(soon(&io, 1)).await;
                }
            }
        }
        let received = Rc::new(Cell::new(0));
        let mut peers = Vec::new();
        for Connection { mut recv, _send, peer } in connections(&io, OTHERS).await {
            peers.push(peer);
            let received = received.clone();
            io.spawn(async move {
                let (_send, mut buffer) = (_send, Buffer::new(64 * 1024));
                loop {
                    let result = recv.recv(&mut buffer, Deadline::NEVER).await;
                    if result.unwrap() == 0 {
                        return;
                    }
                    assert_eq!(buffer.filled(), b"ping");
                    buffer.clear();
                    received.set(received.get() + 1);
                }
            });
        }
        let before = turns.get();
        for round in 1..=ROUNDS {
            for peer in &mut peers {
                peer.write_all(b"ping").unwrap();
            }
            while received.get() < round * OTHERS {
                io.sleep_until(soon(&io, 1)).await;
            }
        }
        let made = turns.get() - before;
        assert!(made < 20 * ROUNDS as u64, "{made} turns for {ROUNDS} rounds");
        for Connection { recv, .. } in &mut keeping {
            let mut buffer = Buffer::new(8);
            let count = recv.recv(&mut buffer, Deadline::NEVER).await;
            assert!(count.unwrap() > 0 && buffer.filled().iter().all(|byte| *byte == b'x'));
        }
    });
}
