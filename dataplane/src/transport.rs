//! What carries the bytes of a connection: nothing but TCP, or TLS. Both are received from and sent to alike.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll},
};

use runtime::{Buffer, Deadline, Gather, Io, RecvHalf, SendHalf, timer::Alarm};

use crate::tls::{Records, TlsRecv, TlsSend};

/// The receiving half of a connection.
pub enum Recv<I: Io> {
    /// As it comes.
    Raw(I::Recv),
    /// Out of its records. Boxed, so that other connections do not pay for it.
    Tls(Box<TlsRecv<I>>),
}

/// The sending half of a connection.
pub enum Send<I: Io> {
    /// As it is.
    Raw(I::Send),
    /// In records.
    Tls(Box<TlsSend<I>>),
}

/// Both halves of one.
pub type Halves<I> = (Recv<I>, Send<I>);

/// A connection on its way from one worker to another.
pub struct Stream<I: Io> {
    stream: I::Stream,
    records: Option<Box<Records>>,
}

/// The halves of a connection that carries nothing but its bytes.
pub fn raw<I: Io>((recv, send): (I::Recv, I::Send)) -> Halves<I> {
    (Recv::Raw(recv), Send::Raw(send))
}

/// Takes a connection out of this worker's loop, as [`Io::detach`].
pub async fn detach<I: Io>(io: &I, recv: Recv<I>, send: Send<I>) -> Result<Stream<I>, Halves<I>> {
    match (recv, send) {
        (Recv::Raw(recv), Send::Raw(send)) => {
            io.detach(recv, send).await.map(|stream| Stream { stream, records: None }).map_err(raw)
        }
        (Recv::Tls(recv), Send::Tls(send)) => match TlsRecv::detach(*recv, *send, io).await {
            Ok((stream, records)) => Ok(Stream { stream, records: Some(Box::new(records)) }),
            Err((recv, send)) => Err((Recv::Tls(Box::new(recv)), Send::Tls(Box::new(send)))),
        },
        // The halves of one connection are of one kind.
        halves => Err(halves),
    }
}

/// Takes a connection into this worker's loop, as [`Io::attach`].
pub fn attach<I: Io>(io: &I, connection: Stream<I>, buffers: &runtime::BufferPool) -> io::Result<Halves<I>> {
    let halves = io.attach(connection.stream)?;
    Ok(match connection.records {
        None => raw(halves),
        Some(records) => tls(crate::tls::split(halves, *records, Default::default(), buffers.clone())),
    })
}

/// The halves of one that carries TLS.
pub fn tls<I: Io>((recv, send): (TlsRecv<I>, TlsSend<I>)) -> Halves<I> {
    (Recv::Tls(Box::new(recv)), Send::Tls(Box::new(send)))
}

impl<I: Io> Recv<I> {
    /// As [`RecvHalf::recv`].
    pub async fn recv(&mut self, buffer: &mut Buffer, until: Deadline) -> io::Result<usize> {
        match self {
            Recv::Raw(recv) => recv.recv(buffer, until).await,
            Recv::Tls(recv) => recv.recv(buffer, until).await,
        }
    }

    /// As [`RecvHalf::readable`].
    pub async fn readable(&mut self, until: Deadline) -> io::Result<()> {
        match self {
            Recv::Raw(recv) => recv.readable(until).await,
            Recv::Tls(recv) => recv.readable(until).await,
        }
    }

    /// As [`RecvHalf::poll_readable`].
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Recv::Raw(recv) => recv.poll_readable(cx),
            Recv::Tls(recv) => recv.poll_readable(cx),
        }
    }

    /// As [`RecvHalf::try_recv`].
    pub fn try_recv(&mut self, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        match self {
            Recv::Raw(recv) => recv.try_recv(buffer),
            Recv::Tls(recv) => recv.try_recv(buffer),
        }
    }

    /// As [`RecvHalf::cancel_handle`].
    pub fn cancel_handle(&self) -> Alarm {
        match self {
            Recv::Raw(recv) => recv.cancel_handle(),
            Recv::Tls(recv) => recv.cancel_handle(),
        }
    }

    /// As [`RecvHalf::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Recv::Raw(recv) => recv.local_addr(),
            Recv::Tls(recv) => recv.local_addr(),
        }
    }
}

impl<I: Io> Send<I> {
    /// As [`SendHalf::send`].
    pub async fn send(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<usize> {
        match self {
            Send::Raw(send) => send.send(gather, until).await,
            Send::Tls(send) => send.send(gather, until).await,
        }
    }

    /// As [`SendHalf::cancel_handle`].
    pub fn cancel_handle(&self) -> Alarm {
        match self {
            Send::Raw(send) => send.cancel_handle(),
            Send::Tls(send) => send.cancel_handle(),
        }
    }

    /// As [`SendHalf::limit_unsent`].
    pub fn limit_unsent(&mut self, bytes: u32) {
        match self {
            Send::Raw(send) => send.limit_unsent(bytes),
            Send::Tls(send) => send.limit_unsent(bytes),
        }
    }

    /// Sends everything in `gather`, as [`SendHalf::send_all`].
    pub async fn send_all(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<()> {
        match self {
            Send::Raw(send) => send.send_all(gather, until).await,
            Send::Tls(send) => send.send_all(gather, until).await,
        }
    }

    /// Says that no more bytes will follow, as well as it can be said, until the deadline; receiving goes on.
    pub async fn finish(&mut self, until: Deadline) -> io::Result<()> {
        match self {
            Send::Raw(send) => send.shutdown(),
            Send::Tls(send) => send.finish(until).await,
        }
    }

    /// As [`SendHalf::reset`].
    pub fn reset(&mut self) {
        match self {
            Send::Raw(send) => send.reset(),
            Send::Tls(send) => send.reset(),
        }
    }
}
