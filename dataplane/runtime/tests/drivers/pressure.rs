//! More bytes than anybody takes, in either direction.

use std::{
    cell::Cell,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::mpsc::Sender,
    thread::JoinHandle,
};

use runtime::{Accepted, Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf};
use socket2::SockRef;

use super::{UNSENT_BYTES_MAX, answer, listener, on_both, peer, soon};

#[test]
fn what_comes_faster_than_it_is_taken_waits_and_loses_nothing() {
    const TOTAL: usize = 24_000_000;
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |mut stream| {
            let mut part = vec![0; 60_000];
            for number in 0..TOTAL / part.len() {
                part.fill(number as u8);
                stream.write_all(&part).unwrap();
            }
        });
        let mut accepted = listener.accept().await.unwrap();
        let (mut total, mut pauses) = (0, 0);
        // Sizes of a connection's own, so that bytes are exchanged, copied whole and copied in pieces.
        let mut buffers = [Buffer::new(64 * 1024), Buffer::new(10_000), Buffer::new(200_000)];
        for turn in 0.. {
            let mut buffer = std::mem::take(&mut buffers[turn % 3]);
            buffer.clear();
            let count = accepted.recv.recv(&mut buffer, Deadline::NEVER).await;
            let count = count.unwrap();
            if count == 0 {
                break;
            }
            for (at, byte) in buffer.filled_mut().iter().enumerate() {
                assert_eq!(*byte, ((total + at) / 60_000) as u8, "byte {} of {TOTAL}", total + at);
            }
            total += count;
            buffers[turn % 3] = buffer;
            if turn % 16 == 0 && pauses < 20 {
                pauses += 1;
                io.sleep_until(soon(&io, 5)).await;
            }
        }
        assert_eq!(total, TOTAL);
        answer(&io, peer).await;
    });
}

/// Connections that use up the buffers of a ring: they are received from, and what came is left where it is. Their other ends
/// live as long as the sender.
pub(super) async fn greedy<L: Listener>(
    listener: &mut L,
) -> (Sender<()>, JoinHandle<()>, Vec<Accepted<L::Recv, L::Send>>) {
    let address = listener.local_addr();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let greedy = std::thread::spawn(move || {
        let mut streams: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        for stream in &mut streams {
            stream.set_nonblocking(true).unwrap();
            while stream.write(&[7; 100_000]).is_ok_and(|count| count > 0) {}
        }
        stopped.recv().unwrap_err();
    });
    let mut kept = Vec::new();
    for _ in 0..100 {
        let mut accepted = listener.accept().await.unwrap();
        accepted.recv.readable(Deadline::NEVER).await.unwrap();
        kept.push(accepted);
    }
    (stop, greedy, kept)
}

#[test]
fn the_kernel_holds_little_that_it_cannot_send() {
    const SEGMENT: usize = 64 * 1024;
    on_both(async |io| {
        let mut listener = listener(&io);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let address = listener.local_addr();
        // Who takes nothing, and has little room for it: one that connects, and one that is connected to.
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&deaf).set_recv_buffer_size(SEGMENT / 2).unwrap();
        let upstream = deaf.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let accepted = deaf.accept().unwrap();
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(SEGMENT / 2).unwrap();
            socket.connect(&address.into()).unwrap();
            stopped.recv().unwrap_err();
            drop(accepted);
        });
        let (_recv, mut send) = io.connect(upstream, Deadline::NEVER).await.unwrap();
        send.limit_unsent(UNSENT_BYTES_MAX);
        let accepted = listener.accept().await.unwrap();
        for mut send in [accepted.send, send] {
            let mut taken = 0;
            loop {
                let mut gather = Gather::new();
                gather.insert(&[7; SEGMENT]);
                let sent = send.send(&mut gather, soon(&io, 100)).await;
                let Ok(count) = sent else { break };
                taken += count;
            }
            // What is unsent, one segment over it, and what the other end has room for.
            let most = UNSENT_BYTES_MAX as usize + 3 * SEGMENT;
            assert!((SEGMENT..=most).contains(&taken), "{taken}");
        }
        drop(stop);
        answer(&io, peer).await;
    });
}

#[test]
fn connections_whose_bytes_nobody_takes_keep_no_other_from_receiving() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let (stop, greedy, kept) = greedy(&mut listener).await;
        let peer = peer(listener.local_addr(), |mut stream| {
            for _ in 0..100 {
                stream.write_all(b"ping").unwrap();
                stream.read_exact(&mut [0; 4]).unwrap();
            }
        });
        let mut accepted = listener.accept().await.unwrap();
        let (mut buffer, mut gather) = (Buffer::new(64 * 1024), Gather::new());
        for _ in 0..100 {
            buffer.clear();
            let count = accepted.recv.recv(&mut buffer, Deadline::NEVER).await;
            assert_eq!((count.unwrap(), buffer.filled()), (4, &b"ping"[..]));
            gather.put_buffer(buffer);
            gather.keep(0..4);
            let sent = accepted.send.send_all(&mut gather, Deadline::NEVER).await;
            sent.unwrap();
            buffer = gather.take_buffer();
        }
        answer(&io, peer).await;
        drop(stop);
        answer(&io, greedy).await;
        for mut connection in kept {
            let mut buffer = Buffer::new(1 << 20);
            let count = connection.recv.recv(&mut buffer, Deadline::NEVER).await;
            assert!(count.unwrap() > 0 && buffer.filled().iter().all(|byte| *byte == 7));
        }
    });
}

#[test]
fn a_connection_whose_bytes_are_always_there_leaves_turns_to_others() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |mut stream| stream.write_all(&[1; 100_000]).unwrap());
        let mut accepted = listener.accept().await.unwrap();
        answer(&io, peer).await;
        let (received, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let mut buffer = Buffer::new(16);
        while received.get() < 1000 {
            // After the first receive, which waits for epoll to find the bytes.
            if received.get() == 1 {
                let (count, see) = (received.clone(), seen.clone());
                io.spawn(async move { see.set(Some(count.get())) });
            }
            buffer.clear();
            let result = accepted.recv.recv(&mut buffer, Deadline::NEVER).await;
            assert_ne!(result.unwrap(), 0);
            received.set(received.get() + 1);
        }
        let seen = seen.get().expect("the other task ran");
        assert!(seen <= 32, "it ran after {seen} receives");
    });
}

#[test]
fn a_large_send_survives_partial_writes_and_a_stuck_one_ends_at_its_deadline() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let (start, started) = std::sync::mpsc::channel::<()>();
        let peer = peer(listener.local_addr(), move |mut stream| {
            // As the kernel makes it by itself, however much the machine allows.
            SockRef::from(&stream).set_recv_buffer_size(1_000_000).unwrap();
            let mut all = vec![0; 6_000_000];
            stream.read_exact(&mut all).unwrap();
            started.recv().unwrap_err();
            all.iter().map(|byte| u64::from(*byte)).sum::<u64>()
        });
        let mut accepted = listener.accept().await.unwrap();
        let mut gather = Gather::new();
        let mut buffer = Buffer::new(1_000_000);
        buffer.extend(&vec![1; 1_000_000]);
        gather.put_buffer(buffer);
        for _ in 0..6 {
            gather.keep(0..999_999);
            gather.insert(b"\x02");
        }
        let sent = accepted.send.send_all(&mut gather, Deadline::NEVER).await;
        sent.unwrap();
        // Nobody reads any more: the socket's buffers fill and the send waits until its deadline.
        for _ in 0..20 {
            gather.keep(0..1_000_000);
        }
        let sent = accepted.send.send_all(&mut gather, soon(&io, 50)).await;
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(gather.unsent_len() > 0);
        drop(start);
        assert_eq!(answer(&io, peer).await, 6 * 999_999 + 6 * 2);
    });
}

#[test]
fn iu_06_sends_that_a_small_buffer_cuts_short_arrive_whole_and_in_their_order() {
    const BYTES: usize = 1_000_000;
    on_both(async |io| {
        // One run, and many, which go by another operation.
        for runs in [1, 200] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = peer(listener.local_addr().unwrap(), |mut stream| {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all
            });
            let ours = listener.accept().unwrap().0;
            SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
            let (_recv, mut send) = io.attach(ours.into()).unwrap();
            let kept: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8).collect();
            let (mut buffer, mut gather, mut expected) = (Buffer::new(BYTES), Gather::new(), Vec::new());
            buffer.extend(&kept);
            gather.put_buffer(buffer);
            for run in 0..runs {
                let range = run * BYTES / runs..(run + 1) * BYTES / runs;
                expected.extend_from_slice(&kept[range.clone()]);
                gather.keep(range);
                if runs > 1 {
                    expected.push(run as u8);
                    gather.insert(&[run as u8]);
                }
            }
            let mut short = 0;
            while !gather.is_sent() {
                // No more than 64 runs go in one.
                let whole = gather.unsent_len().min(32 * BYTES / runs);
                let count = send.send(&mut gather, Deadline::NEVER).await.unwrap();
                assert_ne!(count, 0);
                short += usize::from(count < whole);
            }
            assert!(short > 3, "{short} short sends of {runs} runs");
            send.shutdown().unwrap();
            assert!(answer(&io, peer).await == expected, "other bytes than were sent");
        }
    });
}
