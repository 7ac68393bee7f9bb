//! The io_uring driver where the kernel is hard on it, on rings so small that it is: what the tests beside this crate, which
//! see both drivers from outside, cannot bring about or cannot see.

mod lifetimes;

use std::{
    future::poll_fn,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    Driver, Interface, Kernel, KernelRecv, KernelSend, provided,
    ring::{CHUNKS_MAX, Ring, Sizes},
    run,
    socket::{Receiving, Watched},
};
use crate::{
    buffer::{Buffer, Gather},
    io::{Deadline, Io, RecvHalf, SendHalf},
    mailbox::Bell,
    refusing::{Call, refusing},
};

/// As small as a queue of completions may be beside that of submissions.
const SMALL: Sizes = Sizes { entries: 8, completions: 8 };
/// More than fit into either queue.
const MANY: usize = 64;

/// Tells a story on a ring of these sizes.
fn on_ring<F: Future>(sizes: Sizes, story: impl FnOnce(Kernel) -> F) -> io::Result<F::Output> {
    on(Interface::Ring(Box::new(Ring::with(sizes)?)), story)
}

fn on<F: Future>(interface: Interface, story: impl FnOnce(Kernel) -> F) -> io::Result<F::Output> {
    let (_bell, waited_on) = Bell::new()?;
    Kernel::over(interface, Instant::now()).live(waited_on, story)
}

struct Connection {
    recv: KernelRecv,
    send: KernelSend,
    watched: Rc<Watched>,
    peer: UnixStream,
}

impl Connection {
    fn new(io: &Kernel) -> Connection {
        let (ours, peer) = UnixStream::pair().unwrap();
        let handle = io.watch(ours.into()).unwrap();
        let watched = handle.watched.clone();
        let (recv, send) = handle.split();
        Connection { recv, send, watched, peer }
    }

    /// Begins to wait for bytes.
    async fn listen(&mut self) {
        poll_fn(|cx| {
            let _ = self.recv.poll_readable(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// The next so many bytes, behind which none are.
    async fn next(&mut self, count: usize) -> Vec<u8> {
        // A receive that leaves room knows that it got all.
        let mut buffer = Buffer::new(count + 1);
        while buffer.len() < count {
            let result = self.recv.recv(&mut buffer, Deadline::NEVER).await;
            assert_ne!(result.unwrap(), 0, "{:?} and then the end", buffer.filled());
        }
        buffer.filled().to_vec()
    }

    fn receiving(&self) -> Receiving {
        self.watched.ring.receiving.get()
    }

    fn chunks(&self) -> usize {
        self.watched.ring.chunks.borrow().len()
    }
}

async fn listening(io: &Kernel, count: usize) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::new(io);
        connection.listen().await;
        connections.push(connection);
    }
    connections
}

/// What was done is submitted, and what had happened by then is told.
async fn turn(io: &Kernel) {
    io.0.turn.next().await;
}

#[test]
fn iu_01_a_receive_that_was_ended_by_a_full_queue_has_its_bytes_and_is_armed_again() {
    on_ring(SMALL, async |io| {
        let mut connections = listening(&io, MANY).await;
        turn(&io).await;
        for round in 0..10u8 {
            for (number, connection) in (0..).zip(&connections) {
                (&connection.peer).write_all(&[round, number]).unwrap();
            }
            // Time for those that are told later.
            for _ in 0..MANY {
                turn(&io).await;
            }
            let was_ended = |of: &&Connection| of.receiving() == Receiving::No && of.chunks() > 0;
            let ended = connections.iter().filter(was_ended).count();
            assert!(ended > 0, "the queue was never full");
            for (number, connection) in (0..).zip(&mut connections) {
                assert_eq!(connection.next(2).await, [round, number]);
                connection.listen().await;
                assert_eq!(connection.receiving(), Receiving::Armed);
            }
        }
    })
    .unwrap();
}

#[test]
fn iu_01_a_receive_that_was_cancelled_has_its_bytes_and_goes_on_another_way_until_messages_are_small() {
    on_ring(SMALL, async |io| {
        let mut connection = listening(&io, 1).await.remove(0);
        let mut sent = Vec::new();
        for part in 0..6u8 {
            connection.peer.write_all(&[part; 3000]).unwrap();
            sent.extend([part; 3000]);
            turn(&io).await;
        }
        assert_eq!((connection.receiving(), connection.chunks()), (Receiving::No, 3), "of six parts");
        assert_eq!(connection.next(sent.len()).await, sent);
        for small in 0..3u8 {
            connection.listen().await;
            connection.peer.write_all(&[small]).unwrap();
            assert_eq!(connection.next(1).await, [small]);
        }
        connection.listen().await;
        assert_eq!(connection.receiving(), Receiving::Armed);
    })
    .unwrap();
}

/// Connections whose bytes, which nobody takes, lie in all of the ring's buffers.
async fn keeping_all_buffers(io: &Kernel) -> Vec<Connection> {
    let mut connections = listening(io, usize::from(provided::COUNT).div_ceil(CHUNKS_MAX)).await;
    for number in 0..usize::from(provided::COUNT) {
        let connection = &mut connections[number / CHUNKS_MAX];
        connection.peer.write_all(b"x").unwrap();
        turn(io).await;
    }
    assert_eq!(connections.iter().map(Connection::chunks).sum::<usize>(), usize::from(provided::COUNT));
    connections
}

#[test]
fn iu_01_a_receive_that_found_no_buffer_goes_on_another_way_until_there_is_one() {
    on_ring(SMALL, async |io| {
        let mut connections = listening(&io, MANY).await;
        let mut keeping = keeping_all_buffers(&io).await;
        for round in 0..3u8 {
            for (number, connection) in (0..).zip(&connections) {
                (&connection.peer).write_all(&[round, number]).unwrap();
            }
            for (number, connection) in (0..).zip(&mut connections) {
                assert_eq!(connection.next(2).await, [round, number]);
                connection.listen().await;
            }
        }
        assert!(connections.iter().all(|connection| connection.receiving() == Receiving::No), "by poll");
        for connection in &mut keeping {
            let count = connection.chunks();
            assert_eq!(connection.next(count).await, vec![b'x'; count]);
        }
        for connection in &mut connections {
            connection.peer.write_all(b"y").unwrap();
            assert_eq!(connection.next(1).await, b"y");
            connection.listen().await;
            assert_eq!(connection.receiving(), Receiving::Armed);
        }
    })
    .unwrap();
}

#[test]
fn iu_01_a_receive_that_an_error_or_an_end_ended_is_not_armed_again() {
    on_ring(SMALL, async |io| {
        for (is_reset, told) in [(true, Err(ErrorKind::ConnectionReset)), (false, Ok(0))] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let handle = io.watch(listener.accept().unwrap().0.into()).unwrap();
            let watched = handle.watched.clone();
            let (mut recv, _send) = handle.split();
            (&peer).write_all(b"last").unwrap();
            let count = recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
            assert_eq!(count.unwrap(), 4);
            if is_reset {
                socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(peer);
            for _ in 0..3 {
                let result = recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
                assert_eq!(result.map_err(|error| error.kind()), told);
                assert_eq!(watched.ring.receiving.get(), Receiving::No);
            }
        }
    })
    .unwrap();
}

#[test]
fn iu_03_more_completions_than_the_queue_holds_are_counted_and_none_is_lost() {
    on_ring(SMALL, async |io| {
        let mut connections = listening(&io, MANY).await;
        turn(&io).await;
        assert_eq!(io.overflow_count(), 0, "nothing has happened yet");
        for round in 0..20u8 {
            let before = io.overflow_count();
            for (number, connection) in (0..).zip(&connections) {
                (&connection.peer).write_all(&[round, number]).unwrap();
            }
            turn(&io).await;
            assert!(io.overflow_count() > before, "round {round}");
            for (number, connection) in (0..).zip(&mut connections) {
                assert_eq!(connection.next(2).await, [round, number]);
                connection.listen().await;
            }
        }
    })
    .unwrap();
}

#[test]
fn iu_06_more_operations_in_a_turn_than_the_queue_holds_all_begin() {
    const FEW: Sizes = Sizes { entries: 2, completions: 1024 };
    on_ring(FEW, async |io| {
        for round in 0..20u8 {
            let mut peers = Vec::new();
            for (number, connection) in (0..).zip(listening(&io, MANY).await) {
                let Connection { mut send, peer, recv, .. } = connection;
                peers.push(peer);
                io.spawn(async move {
                    let mut gather = Gather::new();
                    gather.insert(&[round, number]);
                    send.send_all(&mut gather, Deadline::NEVER).await.unwrap();
                    drop((send, recv));
                });
            }
            for (number, peer) in (0..).zip(&mut peers) {
                peer.set_nonblocking(true).unwrap();
                let mut got = Vec::new();
                // Until it is closed.
                while peer.read_to_end(&mut got).is_err() {
                    turn(&io).await;
                }
                assert_eq!(got, [round, number]);
            }
        }
    })
    .unwrap();
}

#[test]
fn res_04_a_ring_that_fails_while_it_runs_ends_the_loop() {
    for error in [libc::EBADR, libc::EBADFD, libc::ENXIO, libc::ENOMEM] {
        let decide = move |count| (count >= 10).then_some(error);
        let run = || {
            let (_bell, waited_on) = Bell::new().unwrap();
            run(Driver::IoUring, Instant::now(), waited_on, async |io: Kernel| {
                let _connections = listening(&io, MANY).await;
                loop {
                    turn(&io).await;
                }
            })
        };
        let ended: io::Result<()> = refusing(Call::Enter, decide, run).unwrap();
        assert_eq!(ended.unwrap_err().raw_os_error(), Some(error));
    }
}

#[test]
fn res_04_a_full_queue_that_cannot_be_submitted_ends_the_loop() {
    let is_refused = Arc::new(AtomicBool::new(false));
    let decides = is_refused.clone();
    let decide = move |_| decides.load(Ordering::SeqCst).then_some(libc::EBADFD);
    let run = || {
        on_ring(SMALL, async |io| {
            turn(&io).await;
            is_refused.store(true, Ordering::SeqCst);
            let _connections = listening(&io, MANY).await;
            loop {
                turn(&io).await;
            }
        })
    };
    let ended: io::Result<()> = refusing(Call::Enter, decide, run).unwrap();
    assert_eq!(ended.unwrap_err().raw_os_error(), Some(libc::EBADFD));
}
