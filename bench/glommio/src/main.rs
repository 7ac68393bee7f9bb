//! A raw TCP relay on glommio: what that runtime's own way to wait, receive and send costs per message.
//!
//! The same work as `bench relay`: one thread, no HTTP, an upstream connection for each downstream one, bytes both ways at
//! once, a half-close carried on. As glommio does best: a read that leaves room in its buffer has the next wait in the ring
//! at once, and writes are tried before anything waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

/// Room for what one read takes.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> ExitCode {
    let Some((listen, upstream)) = addresses() else {
        eprintln!("usage: relay-on-glommio --listen ADDRESS --upstream ADDRESS");
        return ExitCode::from(2);
    };
    // It stays on the cores that it was started on.
    let executor = match LocalExecutorBuilder::new(Placement::Unbound).make() {
        Ok(executor) => executor,
        Err(error) => {
            eprintln!("relay-on-glommio: {error}");
            return ExitCode::FAILURE;
        }
    };
    match executor.run(serve(listen, upstream)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay-on-glommio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn addresses() -> Option<(SocketAddr, SocketAddr)> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--listen", listen, "--upstream", upstream] => Some((listen.parse().ok()?, upstream.parse().ok()?)),
        _ => None,
    }
}

/// Relays for ever; ends only by a failure of the listener.
async fn serve(listen: SocketAddr, upstream: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    loop {
        let downstream = listener.accept().await?;
        glommio::spawn_local(async move {
            // A connection that cannot be made, or breaks, takes its other end with it.
            let _ = begin(downstream, upstream).await;
        })
        .detach();
    }
}

async fn begin(downstream: TcpStream, upstream: SocketAddr) -> io::Result<()> {
    let upstream = TcpStream::connect(upstream).await?;
    for stream in [&downstream, &upstream] {
        stream.set_nodelay(true)?;
    }
    let (downstream, upstream) = (Rc::new(RefCell::new(downstream)), Rc::new(RefCell::new(upstream)));
    let back = carry(Rc::clone(&upstream), Rc::clone(&downstream));
    glommio::spawn_local(async move {
        let _ = back.await;
    })
    .detach();
    carry(downstream, upstream).await
}

/// Carries bytes one way until they end, and then that end. Both ways share the two streams, each for the time of a poll.
async fn carry(from: Rc<RefCell<TcpStream>>, to: Rc<RefCell<TcpStream>>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = poll_fn(|cx| Pin::new(&mut *from.borrow_mut()).poll_read(cx, &mut buffer)).await;
        // One that broke has nothing more to say either.
        let received = read.unwrap_or(0);
        if received == 0 {
            return poll_fn(|cx| Pin::new(&mut *to.borrow_mut()).poll_close(cx)).await;
        }
        let mut unsent = &buffer[..received];
        while !unsent.is_empty() {
            let sent = poll_fn(|cx| Pin::new(&mut *to.borrow_mut()).poll_write(cx, unsent)).await?;
            unsent = &unsent[sent..];
        }
    }
}
