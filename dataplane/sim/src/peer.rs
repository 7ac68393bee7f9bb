//! The other side of what is tested: a connection with methods that read like a script. Panics tell what came.
//!
//! Generic over [`Io`], so one script runs against the proxy on the simulated network and on a kernel.

use std::{io, net::SocketAddr, time::Duration};

use runtime::{Accepted, Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf};

use crate::faults::End;

/// How long a peer waits for anything before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of one receive.
const PIECE_BYTES: usize = 16 * 1024;

/// One end of a connection in a test's hands.
pub struct Peer<I: Io> {
    io: I,
    recv: I::Recv,
    send: I::Send,
    /// Received, not yet given to the script.
    waiting: Vec<u8>,
    ended: Option<End>,
    /// A send was told of a RST; the kernel tells it once, and receives then look like a clean end.
    broken: bool,
    patience: Duration,
}

/// What [`Peer::recv_to_end`] got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// How the other end finished.
    pub end: End,
}

impl<I: Io> Peer<I> {
    /// Connects.
    pub async fn connect(io: &I, to: SocketAddr) -> Peer<I> {
        Self::try_connect(io, to).await.unwrap_or_else(|error| panic!("connect to {to}: {error}"))
    }

    /// Connects, maybe.
    pub async fn try_connect(io: &I, to: SocketAddr) -> io::Result<Peer<I>> {
        let (recv, send) = io.connect(to, Deadline::after(io.now(), PATIENCE)).await?;
        Ok(Self::new(io, recv, send))
    }

    /// Accepts one connection.
    pub async fn accept(io: &I, listener: &mut I::Listener) -> Peer<I> {
        let Accepted { recv, send, .. } =
            listener.accept().await.unwrap_or_else(|error| panic!("accept: {error}"));
        Self::new(io, recv, send)
    }

    /// Takes the halves of a connection.
    pub fn new(io: &I, recv: I::Recv, send: I::Send) -> Peer<I> {
        Peer {
            io: io.clone(),
            recv,
            send,
            waiting: Vec::new(),
            ended: None,
            broken: false,
            patience: PATIENCE,
        }
    }

    /// Waits no longer than this for anything.
    pub fn patience(mut self, patience: Duration) -> Peer<I> {
        self.patience = patience;
        self
    }

    /// Sends all of it.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap_or_else(|error| panic!("send: {error}"));
    }

    /// Sends all of it, or tells why not.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let mut gather = Gather::new();
        gather.insert(bytes.as_ref());
        let until = self.until();
        let result = self.send.send_all(&mut gather, until).await;
        self.broken |= result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        result
    }

    /// Sends FIN; receiving goes on.
    pub fn shutdown(&mut self) {
        self.send.shutdown().unwrap_or_else(|error| panic!("shutdown: {error}"));
    }

    /// Breaks the connection.
    pub fn reset(mut self) {
        self.send.reset();
    }

    /// Receives once more. `None` when the other end has finished, which [`Peer::ended`] then tells.
    pub async fn recv_some(&mut self) -> Option<Vec<u8>> {
        if self.waiting.is_empty() {
            self.receive().await;
        }
        Some(std::mem::take(&mut self.waiting)).filter(|bytes| !bytes.is_empty())
    }

    /// Receives up to and with `mark`.
    pub async fn recv_until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.waiting.windows(mark.len()).position(|window| window == mark) {
                return self.waiting.drain(..at + mark.len()).collect();
            }
            assert!(self.receive().await, "{} before {}", self.story(), mark.escape_ascii());
        }
    }

    /// What was received and nobody has asked for.
    pub fn waiting(&self) -> &[u8] {
        &self.waiting
    }

    /// Receives so many bytes.
    pub async fn recv_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.waiting.len() < count {
            assert!(self.receive().await, "{} before {count} bytes", self.story());
        }
        self.waiting.drain(..count).collect()
    }

    /// Receives until the other end finishes, in either way.
    pub async fn recv_to_end(&mut self) -> Ended {
        while self.receive().await {}
        let end = self.ended.unwrap_or(End::Close);
        Ended { bytes: std::mem::take(&mut self.waiting), end }
    }

    /// The other end must send FIN and nothing before.
    pub async fn expect_close(&mut self) {
        self.expect_end(End::Close).await;
    }

    /// The other end must break the connection and send nothing before.
    pub async fn expect_reset(&mut self) {
        self.expect_end(End::Reset).await;
    }

    /// Nothing must come for so long.
    pub async fn expect_silence(&mut self, time: Duration) {
        assert!(self.waiting.is_empty() && self.ended.is_none(), "expected silence: {}", self.story());
        let until = Deadline::after(self.io.now(), time);
        let mut buffer = Buffer::new(PIECE_BYTES);
        match self.recv.recv(&mut buffer, until).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            other => panic!("expected silence, got {other:?}: {}", buffer.filled().escape_ascii()),
        }
    }

    /// How the other end finished, if it has been seen to.
    pub fn ended(&self) -> Option<End> {
        self.ended
    }

    async fn expect_end(&mut self, end: End) {
        let got = self.recv_to_end().await;
        assert_eq!(got, Ended { bytes: Vec::new(), end }, "bytes: {}", got.bytes.escape_ascii());
    }

    /// Receives once; false when there is nothing more to receive.
    async fn receive(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let (mut buffer, until) = (Buffer::new(PIECE_BYTES), self.until());
        match self.recv.recv(&mut buffer, until).await {
            Ok(0) => self.ended = Some(if self.broken { End::Reset } else { End::Close }),
            Ok(_) => self.waiting.extend_from_slice(buffer.filled()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.ended = Some(End::Reset),
            Err(error) => panic!("receive: {error} after {}", self.waiting.escape_ascii()),
        }
        self.ended.is_none()
    }

    fn until(&self) -> Deadline {
        Deadline::after(self.io.now(), self.patience)
    }

    fn story(&self) -> String {
        format!("{:?} after `{}`", self.ended, self.waiting.escape_ascii())
    }
}
