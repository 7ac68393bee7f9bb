//! Connections that begin and end at random while operations are in flight on them, under numbers that were others' before:
//! no completion may be taken for another's.
//!
//! Every byte says whose it is and where it stands, so one that goes astray is seen. Both ends are on this thread: what
//! happens follows from a seed, but for what the kernel does meanwhile.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    time::Duration,
};

use socket2::SockRef;

use super::{SMALL, keeping_all_buffers, on, turn};
use crate::{
    buffer::{Buffer, Gather},
    io::{Deadline, Io, RecvHalf, SendHalf},
    kernel::{
        Interface, Kernel, KernelRecv, KernelSend,
        epoll::Epoll,
        ring::{Ring, Sizes},
    },
};

const SEEDS: u64 = 4;
const STEPS: usize = 400;
const OPEN_MAX: usize = 24;

#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

/// What goes over a connection at this place.
fn byte(connection: u64, way: Way, at: usize) -> u8 {
    let mixed = (connection << 33 | (way as u64) << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

fn bytes(connection: u64, way: Way, from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| byte(connection, way, at)).collect()
}

/// A generator of numbers that follow from a seed (xorshift).
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// The other end, and how many bytes went each way.
struct Peer {
    number: u64,
    stream: TcpStream,
    /// Of [`Way::In`]: the kernel has taken.
    sent: usize,
    /// Of [`Way::Out`]: have come.
    got: usize,
}

impl Peer {
    fn send(&mut self, count: usize) {
        let all = bytes(self.number, Way::In, self.sent, count);
        // What does not fit is not sent; who ended the connection is seen by what is received.
        self.sent += self.stream.write(&all).unwrap_or_default();
    }

    /// Takes what has come, of which no more than `sent_max` was sent; whether the connection is over.
    fn take(&mut self, sent_max: usize) -> bool {
        let mut part = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Ok(count) => {
                    assert_eq!(
                        part[..count],
                        bytes(self.number, Way::Out, self.got, count),
                        "{}",
                        self.number
                    );
                    self.got += count;
                    assert!(self.got <= sent_max, "{} got more than was sent", self.number);
                }
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    }
}

/// One end of ours.
struct Connection {
    recv: KernelRecv,
    send: KernelSend,
    peer: Peer,
    /// Of [`Way::In`]: have been taken.
    got: usize,
    /// Of [`Way::Out`]: the kernel has taken, as far as is known.
    sent: usize,
}

impl Connection {
    /// Waits for bytes, however many there are room for, and looks at each.
    async fn take(&mut self, room: usize, until: Deadline) -> Result<usize, ErrorKind> {
        let mut buffer = Buffer::new(room);
        let result = self.recv.recv(&mut buffer, until).await;
        let number = self.peer.number;
        assert_eq!(buffer.filled(), bytes(number, Way::In, self.got, buffer.len()), "{number}");
        self.got += buffer.len();
        assert!(self.got <= self.peer.sent, "{number} got more than was sent");
        result.map_err(|error| error.kind())
    }

    async fn send(&mut self, count: usize, until: Deadline) -> Result<(), ErrorKind> {
        let mut gather = Gather::new();
        // In two runs, so that vectors are in flight, too, and they go astray as well.
        let all = bytes(self.peer.number, Way::Out, self.sent, count);
        let (first, second) = all.split_at(count / 2);
        let mut buffer = Buffer::new(first.len());
        buffer.extend(first);
        gather.put_buffer(buffer);
        gather.keep(0..first.len());
        gather.insert(second);
        let result = self.send.send_all(&mut gather, until).await;
        self.sent += count;
        result.map_err(|error| error.kind())
    }
}

struct World {
    io: Kernel,
    listener: TcpListener,
    numbers: Numbers,
    open: Vec<Connection>,
    /// Those whose end of ours is gone, with what it had sent at most.
    left: Vec<(Peer, usize)>,
    opened: u64,
    /// How many connections had this descriptor.
    descriptors: HashMap<RawFd, usize>,
}

impl World {
    fn open(&mut self) {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let ours = OwnedFd::from(self.listener.accept().unwrap().0);
        // Small, so that less is more than anybody takes.
        SockRef::from(&ours).set_send_buffer_size(64 * 1024).unwrap();
        SockRef::from(&stream).set_recv_buffer_size(64 * 1024).unwrap();
        *self.descriptors.entry(ours.as_raw_fd()).or_default() += 1;
        let (mut recv, send) = self.io.attach(ours).unwrap();
        // What may have come on its way is looked for at first.
        assert!(recv.try_recv(&mut Buffer::new(1)).is_none());
        self.opened += 1;
        let peer = Peer { number: self.opened, stream, sent: 0, got: 0 };
        self.open.push(Connection { recv, send, peer, got: 0, sent: 0 });
    }

    /// Closes our end, whatever is in flight on it.
    fn close(&mut self, at: usize) {
        let Connection { peer, sent, .. } = self.open.swap_remove(at);
        self.left.push((peer, sent));
    }

    /// Those that are left see their end.
    fn see_ends(&mut self) {
        self.left.retain_mut(|(peer, sent)| !peer.take(*sent));
    }

    async fn step(&mut self) {
        if self.open.is_empty() || self.open.len() < OPEN_MAX && self.numbers.below(2) == 0 {
            return self.open();
        }
        let (at, kind) = (self.numbers.below(self.open.len()), self.numbers.below(16));
        let (count, soon) =
            (1 + self.numbers.below(10_000), Deadline::after(self.io.now(), Duration::from_millis(1)));
        let connection = &mut self.open[at];
        match kind {
            0..4 => connection.peer.send(count),
            4..7 if connection.got < connection.peer.sent => {
                assert_ne!(connection.take(count, Deadline::NEVER).await, Ok(0));
            }
            // A wait that is given up; what it was for stays in flight.
            4..7 => {
                let waited = connection.recv.readable(soon).await;
                assert_eq!(waited.unwrap_err().kind(), ErrorKind::TimedOut);
            }
            7..9 => {
                connection.send(count, Deadline::NEVER).await.unwrap();
                let sent = connection.sent;
                assert!(!connection.peer.take(sent), "it is open");
            }
            // Bytes are on their way to who is closed in the same turn, whose number is the next one's at once.
            9..12 => {
                connection.peer.send(count);
                self.close(at);
                self.open();
            }
            // Many are told of bytes at once, and half of them are closed before they are.
            12 => {
                self.open.iter_mut().for_each(|connection| connection.peer.send(1));
                turn(&self.io).await;
                for at in (0..self.open.len()).rev().step_by(2) {
                    self.close(at);
                }
            }
            13 => {
                // More than anybody takes: it is in flight until the deadline, or a part was sent by then and not told.
                let error = connection.send(1_000_000, soon).await.unwrap_err();
                assert!(matches!(error, ErrorKind::TimedOut | ErrorKind::ConnectionReset), "{error}");
                self.close(at);
            }
            14 => {
                let all = connection.peer.sent;
                connection.peer.take(connection.sent);
                connection.peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
                while connection.got < all {
                    assert_ne!(
                        connection.take(count, Deadline::NEVER).await,
                        Ok(0),
                        "{} of {all}",
                        connection.got
                    );
                }
                assert_eq!(connection.take(count, Deadline::NEVER).await, Ok(0));
                self.close(at);
            }
            _ => {
                SockRef::from(&connection.peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
                let Connection { peer, recv, .. } = connection;
                let elsewhere = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
                drop(std::mem::replace(&mut peer.stream, elsewhere));
                drop(self.listener.accept().unwrap());
                while recv
                    .recv(&mut Buffer::new(count), Deadline::NEVER)
                    .await
                    .map(|count| assert_ne!(count, 0))
                    .is_ok()
                {}
                self.open.swap_remove(at);
            }
        }
    }
}

/// A life of so many steps.
async fn live(io: &Kernel, seed: u64) {
    let mut world = World {
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        numbers: Numbers::new(seed),
        open: Vec::new(),
        left: Vec::new(),
        opened: 0,
        descriptors: HashMap::new(),
        io: io.clone(),
    };
    for _ in 0..STEPS {
        world.step().await;
        world.see_ends();
    }
    while !world.open.is_empty() {
        world.close(0);
    }
    while !world.left.is_empty() {
        turn(io).await;
        world.see_ends();
    }
    let most = world.descriptors.values().max().copied().unwrap_or_default();
    assert!(most > 5, "a number was {most} connections' at most, of {}", world.opened);
}

#[test]
fn iu_04_no_completion_is_taken_for_anothers_whatever_ends_and_begins() {
    for seed in 1..=SEEDS {
        // Where few completions fit, many are told when those that they are of have been closed for turns.
        for sizes in [SMALL, Sizes::OF_WORKERS] {
            println!("seed {seed}, completions {}", sizes.completions);
            let ring = Interface::Ring(Box::new(Ring::with(sizes).unwrap()));
            on(ring, async |io| {
                live(&io, seed).await;
                assert_eq!(io.overflow_count() > 0, sizes.completions == SMALL.completions);
                // None is missing.
                keeping_all_buffers(&io).await;
            })
            .unwrap();
        }
        println!("seed {seed}, epoll");
        on(Interface::Epoll(Epoll::new().unwrap()), async |io| live(&io, seed).await).unwrap();
    }
}
