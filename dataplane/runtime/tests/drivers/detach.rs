//! Connections that leave a loop: what goes with them, and what keeps them.

use std::{
    future::poll_fn,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::mpsc,
    task::Poll,
};

use runtime::{Accepted, Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf, kernel::Kernel};

use super::{answer, listener, on_both, peer, pressure::greedy, soon};

type Halves = (<Kernel as Io>::Recv, <Kernel as Io>::Send);

/// The connection in its loop or in the next one, and whether it went.
async fn go(io: &Kernel, recv: <Kernel as Io>::Recv, send: <Kernel as Io>::Send) -> (Halves, bool) {
    match io.detach(recv, send).await {
        Ok(stream) => {
            // The old number is closed and what is open is not: the loop turns without it.
            io.sleep_until(soon(io, 5)).await;
            (io.attach(stream).unwrap(), true)
        }
        Err(halves) => (halves, false),
    }
}

/// Waits for bytes until something wakes the task, or nothing does.
async fn watch(recv: &mut <Kernel as Io>::Recv) {
    poll_fn(|cx| {
        let _ = recv.poll_readable(cx);
        Poll::Ready(())
    })
    .await;
}

/// Receives to the end and sends it back.
async fn echo((mut recv, mut send): Halves) {
    let mut buffer = Buffer::new(64);
    loop {
        let count = recv.recv(&mut buffer, Deadline::NEVER).await;
        if count.unwrap() == 0 {
            break;
        }
    }
    let mut gather = Gather::new();
    gather.insert(buffer.filled());
    send.send_all(&mut gather, Deadline::NEVER).await.unwrap();
}

fn ping(mut stream: &TcpStream) -> String {
    stream.write_all(b"ping").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn one_on_which_nothing_began_goes_with_what_came() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let peer = peer(listener.local_addr(), |stream| ping(&stream));
        let Accepted { recv, send, .. } = listener.accept().await.unwrap();
        let (halves, went) = go(&io, recv, send).await;
        assert!(went);
        echo(halves).await;
        assert_eq!(answer(&io, peer).await, "ping");
    });
}

#[test]
fn one_that_waits_for_bytes_goes_and_they_find_it() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let (go_on, wait) = mpsc::channel::<()>();
        let peer = peer(listener.local_addr(), move |stream| {
            wait.recv().unwrap_err();
            ping(&stream)
        });
        let Accepted { mut recv, send, .. } = listener.accept().await.unwrap();
        let nothing = recv.recv(&mut Buffer::new(16), soon(&io, 10)).await;
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::TimedOut);
        let ((recv, send), went) = go(&io, recv, send).await;
        assert!(went);
        // And once more, before the new loop has looked at it and after.
        let ((mut recv, send), went) = go(&io, recv, send).await;
        assert!(!went, "a look at it is due");
        let nothing = recv.recv(&mut Buffer::new(16), soon(&io, 10)).await;
        assert_eq!(nothing.unwrap_err().kind(), ErrorKind::TimedOut);
        let (halves, went) = go(&io, recv, send).await;
        assert!(went);
        drop(go_on);
        echo(halves).await;
        assert_eq!(answer(&io, peer).await, "ping");
    });
}

#[test]
fn one_to_which_bytes_or_an_end_came_stays_until_they_are_taken() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let (go_on, wait) = mpsc::channel::<()>();
        let peer = peer(listener.local_addr(), move |mut stream| {
            stream.write_all(b"early").unwrap();
            wait.recv().unwrap_err();
        });
        let Accepted { mut recv, send, .. } = listener.accept().await.unwrap();
        recv.readable(Deadline::NEVER).await.unwrap();
        let ((mut recv, send), went) = go(&io, recv, send).await;
        assert!(!went, "bytes are there");
        let count = recv.recv(&mut Buffer::new(16), Deadline::NEVER).await;
        assert_eq!(count.unwrap(), 5);
        let ((mut recv, send), went) = go(&io, recv, send).await;
        assert!(went, "they were taken");
        drop(go_on);
        recv.readable(Deadline::NEVER).await.unwrap();
        let ((mut recv, send), went) = go(&io, recv, send).await;
        assert!(!went, "its end is there");
        let count = recv.recv(&mut Buffer::new(16), Deadline::NEVER).await;
        assert_eq!(count.unwrap(), 0);
        drop(send);
        answer(&io, peer).await;
    });
}

/// What `begin` leaves of the other end was there before the loop was told.
async fn begins_before_the_loop_is_told(io: Kernel, begin: fn(TcpStream) -> Option<TcpStream>, bytes: usize) {
    let mut listener = listener(&io);
    let peer = peer(listener.local_addr(), begin);
    let _stream = answer(&io, peer).await;
    let Accepted { mut recv, send, .. } = listener.accept().await.unwrap();
    watch(&mut recv).await;
    let ((mut recv, _send), went) = go(&io, recv, send).await;
    let is_epoll = format!("{io:?}").contains("epoll");
    assert_eq!(went, is_epoll, "a receive in flight gets it; epoll had no time to tell");
    let count = recv.recv(&mut Buffer::new(16), Deadline::NEVER).await;
    assert_eq!(count.unwrap(), bytes);
}

#[test]
fn what_comes_while_a_receive_is_told_to_end_is_not_lost() {
    let sends = |mut stream: TcpStream| {
        stream.write_all(b"ping").unwrap();
        Some(stream)
    };
    on_both(move |io| begins_before_the_loop_is_told(io, sends, 4));
    on_both(move |io| begins_before_the_loop_is_told(io, |_| None, 0));
}

/// Goes there and back while bytes come at any moment.
async fn goes_under_load(io: &Kernel, listener: &mut <Kernel as Io>::Listener, times: u64) {
    let address = listener.local_addr();
    let peers = std::thread::spawn(move || {
        for number in 0..times {
            let stream = TcpStream::connect(address).unwrap();
            (0..number % 37 * 10).for_each(|_| std::thread::yield_now());
            assert_eq!(ping(&stream), "ping");
        }
    });
    for _ in 0..times {
        let Accepted { mut recv, mut send, .. } = listener.accept().await.unwrap();
        for _ in 0..3 {
            watch(&mut recv).await;
            match io.detach(recv, send).await {
                Ok(stream) => (recv, send) = io.attach(stream).unwrap(),
                Err(halves) => (recv, send) = halves,
            }
        }
        echo((recv, send)).await;
    }
    answer(io, peers).await;
}

#[test]
fn under_load_nothing_is_lost_on_the_way() {
    on_both(async |io| {
        let mut listener = listener(&io);
        goes_under_load(&io, &mut listener, 300).await;
    });
}

#[test]
fn nor_while_a_ring_has_no_buffers() {
    on_both(async |io| {
        let mut listener = listener(&io);
        let (stop, greedy, kept) = greedy(&mut listener).await;
        goes_under_load(&io, &mut listener, 300).await;
        drop(stop);
        answer(&io, greedy).await;
        drop(kept);
    });
}
