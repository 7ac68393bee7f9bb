//! The promises of `runtime::io`, kept by both drivers on real sockets.

mod detach;
mod pressure;
mod shortage;

use std::{
    cell::Cell,
    future::Future,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use runtime::{
    Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf,
    kernel::{Choice, Driver, Kernel, probe, run},
    listen,
    mailbox::{Bell, mailbox},
};
use socket2::{Domain, SockRef, Socket, Type};

/// Runs a story on each driver, as a worker does: the story is a task, the main future closes the turns. io_uring
/// must work where the tests run; a machine without it fails here and not in silence.
fn on_both<F: Future<Output = ()> + 'static>(story: impl Fn(Kernel) -> F) {
    on_both_with_turns(|io, _| story(io));
}

/// As [`on_both`]; the story sees how many turns there were.
fn on_both_with_turns<F: Future<Output = ()> + 'static>(story: impl Fn(Kernel, Rc<Cell<u64>>) -> F) {
    assert_eq!(probe(Choice::IoUring, 1).unwrap().driver, Driver::IoUring);
    for driver in [Driver::IoUring, Driver::Epoll] {
        let (_bell, waited_on) = Bell::new().unwrap();
        let done = Rc::new(Cell::new(false));
        run(driver, Instant::now(), waited_on, async |io: Kernel| {
            let turns = Rc::new(Cell::new(0));
            let (story, told) = (story(io.clone(), turns.clone()), done.clone());
            io.spawn(async move {
                story.await;
                told.set(true);
            });
            while !done.get() {
                io.turn().await;
                turns.set(turns.get() + 1);
            }
        })
        .unwrap();
    }
}

/// As many as this process may have; tests run side by side in it.
fn many_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a record that lives through the call, exclusively borrowed.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; only read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// What connections that are accepted here let the kernel hold unsent.
const UNSENT_BYTES_MAX: u32 = 64 * 1024;

fn listener(io: &Kernel) -> <Kernel as Io>::Listener {
    let mut bound = listen::bind("127.0.0.1:0".parse().unwrap(), 1, UNSENT_BYTES_MAX).unwrap();
    io.listener(bound.sockets.remove(0)).unwrap()
}

/// A socket with an address that does not listen yet.
fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A blocking peer on a thread of its own.
fn peer<T: Send + 'static>(
    to: SocketAddr,
    story: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> JoinHandle<T> {
    std::thread::spawn(move || story(TcpStream::connect(to).unwrap()))
}

/// The peer's answer. Closing a socket is an operation of the loop too, so the loop must turn while we wait.
async fn answer<T>(io: &Kernel, peer: JoinHandle<T>) -> T {
    while !peer.is_finished() {
        io.sleep_until(soon(io, 1)).await;
    }
    peer.join().unwrap()
}

fn soon(io: &Kernel, wait: u64) -> Deadline {
    Deadline::after(io.now(), Duration::from_millis(wait))
}

#[test]
fn bytes_are_received_behind_what_is_there_and_sent_from_many_places() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |mut stream| {
            stream.write_all(b"hello").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let mut accepted = listener.accept().await.unwrap();
        let mut buffer = Buffer::new(64);
        buffer.extend(b">> ");
        let count = accepted.recv.recv(&mut buffer, Deadline::NEVER).await;
        assert_eq!((count.unwrap(), buffer.filled()), (5, &b">> hello"[..]));
        let mut gather = Gather::new();
        gather.put_buffer(buffer);
        gather.keep(3..8);
        gather.insert(b", ");
        gather.keep(3..8);
        let sent = accepted.send.send_all(&mut gather, Deadline::NEVER).await;
        sent.unwrap();
        assert!(gather.is_sent());
        accepted.send.shutdown().unwrap();
        let end = accepted.recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
        assert_eq!(end.unwrap(), 0, "FIN");
        assert_eq!(answer(&io, peer).await, "hello, hello");
    });
}

#[test]
fn a_receive_ends_at_its_deadline_and_the_next_one_gets_the_bytes() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |mut stream| {
            let mut order = [0; 1];
            stream.read_exact(&mut order).unwrap();
            stream.write_all(b"late").unwrap();
            stream.read_exact(&mut order).unwrap_err();
        });
        let mut accepted = listener.accept().await.unwrap();
        let before = io.now();
        let mut buffer = Buffer::new(8);
        let result = accepted.recv.recv(&mut buffer, soon(&io, 30)).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(io.now() - before >= 30_000_000, "not before the deadline");
        assert_eq!(accepted.recv.readable(soon(&io, 10)).await.unwrap_err().kind(), ErrorKind::TimedOut);
        let mut gather = Gather::new();
        gather.insert(b"!");
        let sent = accepted.send.send_all(&mut gather, Deadline::NEVER).await;
        sent.unwrap();
        accepted.recv.readable(Deadline::NEVER).await.unwrap();
        let count = accepted.recv.recv(&mut buffer, Deadline::NEVER).await;
        assert_eq!((count.unwrap(), buffer.filled()), (4, &b"late"[..]));
        drop(accepted);
        answer(&io, peer).await;
    });
}

#[test]
fn a_cancelled_receive_ends_as_interrupted() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |mut stream| stream.read(&mut [0; 1]).unwrap());
        let mut accepted = listener.accept().await.unwrap();
        let cancel = accepted.recv.cancel_handle();
        let (timers, at) = (io.clone(), soon(&io, 10));
        io.spawn(async move {
            timers.sleep_until(at).await;
            cancel.cancel();
        });
        let result = accepted.recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
        drop(accepted);
        assert_eq!(answer(&io, peer).await, 0);
    });
}

#[test]
fn a_connect_is_refused_or_made_with_both_halves_alive() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let address = listener.local_addr();
        let accepted = Rc::new(Cell::new(false));
        let (seen, spawner) = (accepted.clone(), io.clone());
        spawner.spawn(async move {
            let mut connection = listener.accept().await.unwrap();
            seen.set(true);
            let mut buffer = Buffer::new(8);
            let _ = connection.recv.recv(&mut buffer, Deadline::NEVER).await;
            let mut gather = Gather::new();
            gather.insert(buffer.filled());
            connection.send.send_all(&mut gather, Deadline::NEVER).await.unwrap();
        });
        let (mut recv, mut send) = io.connect(address, soon(&io, 5_000)).await.unwrap();
        let mut gather = Gather::new();
        gather.insert(b"ping");
        send.send_all(&mut gather, Deadline::NEVER).await.unwrap();
        send.shutdown().unwrap();
        let mut buffer = Buffer::new(8);
        let _ = recv.recv(&mut buffer, Deadline::NEVER).await;
        assert_eq!(buffer.filled(), b"ping");
        assert!(accepted.get());
        // Bound and not listening: nobody else takes the port meanwhile.
        let (_nobody, nowhere) = bound();
        assert_eq!(
            io.connect(nowhere, soon(&io, 5_000)).await.err().unwrap().kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn a_connect_that_nobody_answers_ends_at_its_deadline() {
    on_both(async |io| {
        // A full accept queue drops SYNs: the one way to be unanswered on loopback.
        let (full, address) = bound();
        full.listen(0).unwrap();
        let mut kept = Vec::new();
        let error = loop {
            match io.connect(address, soon(&io, 100)).await {
                Ok(connection) => kept.push(connection),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn closing_a_listener_ends_its_accept() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let close = listener.close_handle();
        let (timers, at) = (io.clone(), soon(&io, 10));
        io.spawn(async move {
            timers.sleep_until(at).await;
            close.close();
            close.close();
        });
        assert!(listener.accept().await.is_err());
    });
}

#[test]
fn a_reset_is_seen_as_a_reset_and_not_as_an_end() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |mut stream| stream.read(&mut [0; 8]));
        let mut accepted = listener.accept().await.unwrap();
        accepted.send.reset();
        drop(accepted);
        let error: io::Error = answer(&io, peer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_that_a_send_was_told_of_is_no_end_for_the_receive_after_it() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |mut stream| {
            stream.write_all(b"half").unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        let mut accepted = listener.accept().await.unwrap();
        peer.join().unwrap();
        let mut gather = Gather::new();
        gather.insert(b"x");
        let sent = accepted.send.send_all(&mut gather, Deadline::NEVER).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut buffer = Buffer::new(8);
        let error = loop {
            let result = accepted.recv.recv(&mut buffer, Deadline::NEVER).await;
            match result {
                Ok(count) => assert_ne!(count, 0, "a reset is no FIN"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_send_that_is_given_up_is_a_reset_for_the_other_end() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let (start, started) = std::sync::mpsc::channel::<()>();
        let peer = peer(listener.local_addr(), move |mut stream| {
            // Reads only when the other end has given up: what it sent, and then how it ended.
            started.recv().unwrap_err();
            stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind())
        });
        let mut accepted = listener.accept().await.unwrap();
        let mut gather = Gather::new();
        let mut buffer = Buffer::new(1_000_000);
        buffer.extend(&vec![1; 1_000_000]);
        gather.put_buffer(buffer);
        for _ in 0..20 {
            gather.keep(0..1_000_000);
        }
        let sent = accepted.send.send_all(&mut gather, soon(&io, 50)).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(start);
        // The connection is still held here: its end is not that of a close.
        assert_eq!(answer(&io, peer).await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_connection_that_a_late_send_broke_does_not_look_ended() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |stream| stream);
        let mut accepted = listener.accept().await.unwrap();
        let mut buffer = Buffer::new(1 << 20);
        buffer.extend(&vec![0; 1 << 20]);
        let mut gather = Gather::new();
        gather.put_buffer(buffer);
        // Nobody reads: at some point the kernel takes no more.
        let error = loop {
            gather.keep(0..1 << 20);
            if let Err(error) = accepted.send.send_all(&mut gather, soon(&io, 30)).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let result = accepted.recv.recv(&mut Buffer::new(8), Deadline::NEVER).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(peer.join().unwrap());
    });
}

#[test]
fn a_ring_of_the_bell_makes_a_turn_in_which_the_message_is_there() {
    for driver in [Driver::IoUring, Driver::Epoll] {
        let (bell, waited_on) = Bell::new().unwrap();
        let (sender, inbox) = mailbox(Some(bell));
        let other = std::thread::spawn(move || (0..100).for_each(|n| sender.send(n)));
        let got = run(driver, Instant::now(), waited_on, async |io: Kernel| {
            let mut got = Vec::new();
            while got.len() < 100 {
                io.turn().await;
                got.extend(std::iter::from_fn(|| inbox.take()));
            }
            got
        })
        .unwrap();
        other.join().unwrap();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
    }
}
