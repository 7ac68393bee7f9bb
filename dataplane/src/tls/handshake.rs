//! The handshake of a connection, as a server and as a client, up to its first record of data.

use std::{io, sync::Arc, time::SystemTime};

use policy::{alpn::Carries, limits, peer::Peer};
use runtime::{Buffer, Deadline, Gather, Io, RecvHalf, SendHalf};
use rustls::{
    CertificateError, CommonState, HandshakeKind, OtherError,
    client::UnbufferedClientConnection,
    pki_types::{ServerName, UnixTime},
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus},
};

use super::{
    config::{ClientTls, ServerTls},
    halves,
    record::{self, RecordError, Records},
    verify::{self, Refused, Verifier},
};
use crate::{
    transport::{self, Halves},
    worker::Worker,
};

/// A connection whose other end is who it says it is, as far as it had to say.
pub struct Secured<I: Io> {
    /// Its halves.
    pub halves: Halves<I>,
    /// Who the client is, if it showed a certificate and somebody who is believed vouches for it.
    pub peer: Option<Peer>,
    /// The URI name of the certificate that a server of ours has shown.
    pub own: Option<Arc<str>>,
    /// The application protocol that was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// Whether it went on with a session that was there.
    pub is_resumed: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Not done in time.
    #[error("the handshake timed out")]
    TimedOut,
    /// The other end closed the connection, or it broke.
    #[error("the connection ended within the handshake")]
    Ended,
    /// There are as many handshakes as may be.
    #[error("too many handshakes at a time")]
    TooMany,
    /// A message of the handshake is longer than a buffer.
    #[error("a handshake message is too long")]
    TooLong,
    /// What one of the two said cannot be.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The certificate of the other end is not one that is taken.
    #[error(transparent)]
    Peer(#[from] Refused),
    /// What follows cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What of a handshake failed, as it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeFault {
    /// The other end showed no certificate.
    NoCertificate,
    /// Nobody who is trusted vouches for its certificate, or it is not valid now.
    Untrusted,
    /// Its certificate does not have a name that is demanded.
    Name,
    /// Its certificate is none of those that are taken.
    Fingerprint,
    /// It took too long.
    TimedOut,
    /// There were too many.
    TooMany,
    /// Anything else.
    Other,
}

impl HandshakeError {
    /// As it is counted.
    pub fn kind(&self) -> HandshakeFault {
        let of_refused = |refused: &Refused| match refused {
            Refused::Name(_) => HandshakeFault::Name,
            Refused::Fingerprint => HandshakeFault::Fingerprint,
            _ => HandshakeFault::Untrusted,
        };
        match self {
            HandshakeError::TimedOut => HandshakeFault::TimedOut,
            HandshakeError::TooMany => HandshakeFault::TooMany,
            HandshakeError::Peer(refused) => of_refused(refused),
            HandshakeError::Tls(rustls::Error::NoCertificatesPresented) => HandshakeFault::NoCertificate,
            HandshakeError::Tls(rustls::Error::InvalidCertificate(error)) => match error {
                CertificateError::Other(OtherError(of)) => {
                    of.downcast_ref().map_or(HandshakeFault::Untrusted, of_refused)
                }
                _ => HandshakeFault::Untrusted,
            },
            _ => HandshakeFault::Other,
        }
    }
}

/// Does a server's part of a handshake, of which `first` came already.
pub async fn accept<I: Io>(
    worker: &Worker<I>,
    config: &ServerTls,
    halves: (I::Recv, I::Send),
    first: Buffer,
) -> Result<Secured<I>, HandshakeError> {
    let until = Deadline::after(worker.io.now(), config.policy.handshake_timeout);
    let (rustls, shown) = config.begin();
    let connection = Side::Server(UnbufferedServerConnection::new(rustls)?);
    let verifier = config.verifier.as_deref();
    let handshake = Handshake { worker, connection, verifier, out: Gather::new(), given: 0, until };
    let secured = handshake.run(halves, first).await?;
    Ok(Secured { own: shown.uri(), ..secured })
}

/// Does a client's part of a handshake. `name` is the server's, or stands for it where none is told; `carries` tells which
/// application protocols are offered.
pub async fn connect<I: Io>(
    worker: &Worker<I>,
    config: &ClientTls,
    halves: (I::Recv, I::Send),
    (name, carries): (ServerName<'static>, Carries),
    until: Deadline,
) -> Result<Secured<I>, HandshakeError> {
    let configured = config.rustls.alpn_protocols.iter().map(Vec::as_slice);
    let alpn = carries.offered(configured).into_iter().map(<[u8]>::to_vec).collect();
    let connection = UnbufferedClientConnection::new_with_alpn(config.rustls.clone(), name, alpn)?;
    let connection = Side::Client(connection);
    let first = Buffer::default();
    Handshake { worker, connection, verifier: None, out: Gather::new(), given: 0, until }
        .run(halves, first)
        .await
}

struct Handshake<'w, I: Io> {
    worker: &'w Worker<I>,
    connection: Side,
    /// Judges a client.
    verifier: Option<&'w Verifier>,
    /// To be sent.
    out: Gather,
    /// How many of the received bytes rustls knows of: whole records, of which the last is the next to be taken.
    given: usize,
    until: Deadline,
}

/// The part of a connection that rustls plays.
pub(super) enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Side {
    /// Takes what was received, and appends what is to be sent to `out`; gives how many received bytes it is done with, and
    /// what comes next.
    pub(super) fn step(
        &mut self,
        received: &mut [u8],
        out: &mut Gather,
    ) -> (usize, Result<Step, rustls::Error>) {
        match self {
            Side::Server(server) => take(server.process_tls_records(received), out),
            Side::Client(client) => take(client.process_tls_records(received), out),
        }
    }

    /// What is known of the connection so far.
    fn common(&self) -> &CommonState {
        match self {
            Side::Server(server) => server,
            Side::Client(client) => client,
        }
    }

    /// What follows the handshake, when it is done.
    pub(super) fn into_records(self) -> Result<Records, HandshakeError> {
        Ok(match self {
            Side::Server(server) => Records::of_server(server.dangerous_into_kernel_connection()?)?,
            Side::Client(client) => Records::of_client(client.dangerous_into_kernel_connection()?)?,
        })
    }
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Look again.
    Again,
    /// Send what was written.
    Send,
    /// Receive more.
    Receive,
    /// The handshake is done.
    Done,
    /// The other end has left.
    Over,
}

impl<I: Io> Handshake<'_, I> {
    async fn run(
        mut self,
        (mut recv, mut send): (I::Recv, I::Send),
        first: Buffer,
    ) -> Result<Secured<I>, HandshakeError> {
        let worker = self.worker;
        // A client that says nothing holds nothing but its connection.
        if matches!(self.connection, Side::Server(_)) && first.is_empty() {
            recv.readable(self.until).await.map_err(ended)?;
        }
        let _entered = worker.turnstile.enter().ok_or(HandshakeError::TooMany)?;
        let mut received = first;
        if received.capacity() == 0 {
            received = worker.buffers.take();
        }
        let result = self.exchange(&mut recv, &mut send, &mut received).await;
        let Err(error) = result else { return self.secured((recv, send), received) };
        if let HandshakeError::Tls(_) = error {
            self.tell_why(&mut send, &mut received).await;
        }
        worker.buffers.put(received);
        Err(error)
    }

    /// What the handshake led to, with what was received behind it.
    fn secured(self, halves: (I::Recv, I::Send), mut received: Buffer) -> Result<Secured<I>, HandshakeError> {
        let Handshake { worker, connection, verifier, given, .. } = self;
        if given > 0 {
            // A part of a message is left behind the last one of the handshake.
            worker.buffers.put(received);
            return Err(RecordError::Unexpected.into());
        }
        let common = connection.common();
        let is_resumed = common.handshake_kind() == Some(HandshakeKind::Resumed);
        let alpn = common.alpn_protocol().map(Box::from);
        let chain = common.peer_certificates().unwrap_or_default();
        // A session that goes on is as old as its certificate, which nobody has looked at again.
        let peer = chain.first().map(|leaf| verify::peer(leaf, SystemTime::now())).transpose()?;
        let is_known = verifier.is_some_and(|verifier| verifier.is_client_known(chain, UnixTime::now()));
        let peer = peer.filter(|_| is_known);
        let records = connection.into_records()?;
        if received.is_empty() {
            worker.buffers.put(std::mem::take(&mut received));
        }
        let halves = halves::split(halves, records, received, worker.buffers.clone());
        Ok(Secured { halves: transport::tls(halves), peer, own: None, alpn, is_resumed })
    }

    /// Sends and receives until the handshake is done.
    async fn exchange(
        &mut self,
        recv: &mut I::Recv,
        send: &mut I::Send,
        received: &mut Buffer,
    ) -> Result<(), HandshakeError> {
        self.worker.turnstile.pass().await;
        loop {
            match self.step(received)? {
                Step::Again => {}
                Step::Send => send.send_all(&mut self.out, self.until).await.map_err(ended)?,
                Step::Receive if self.give_next(received.filled()) => {}
                Step::Receive => {
                    if received.spare() == 0 {
                        self.worker.buffers.make_room(received);
                    }
                    if received.spare() == 0 {
                        return Err(HandshakeError::TooLong);
                    }
                    if recv.recv(received, self.until).await.map_err(ended)? == 0 {
                        return Err(HandshakeError::Ended);
                    }
                    self.worker.turnstile.pass().await;
                }
                Step::Done => return Ok(()),
                Step::Over => return Err(HandshakeError::Ended),
            }
        }
    }

    fn step(&mut self, received: &mut Buffer) -> Result<Step, HandshakeError> {
        let known = received.filled_mut().get_mut(..self.given).unwrap_or_default();
        let (discard, step) = self.connection.step(known, &mut self.out);
        received.consume(discard);
        self.given -= discard;
        Ok(step?)
    }

    /// Lets rustls know of one more record, if there is one. What comes behind the last of the handshake is never shown to it:
    /// rustls would open it, and what it has to answer then, such as new keys, would be lost.
    fn give_next(&mut self, received: &[u8]) -> bool {
        let next = received.get(self.given..).unwrap_or_default();
        match record::length_of(next) {
            Some(length) => self.given += length,
            None => return false,
        }
        true
    }

    /// Sends the alert that says what was wrong, if there is one: who misconfigured the other end wants to know. rustls knows
    /// where in `received` it has come to, so that goes in as it is.
    async fn tell_why(&mut self, send: &mut I::Send, received: &mut Buffer) {
        // It may stand behind other messages that were to go.
        while self.connection.common().wants_write() && self.step(received).is_ok() {}
        if !self.out.is_sent() {
            let until = Deadline::after(self.worker.io.now(), limits::TLS_ALERT_TIMEOUT).min(self.until);
            // It goes or not; the connection ends either way.
            let _ = send.send_all(&mut self.out, until).await;
        }
    }
}

fn ended(error: io::Error) -> HandshakeError {
    match error.kind() {
        io::ErrorKind::TimedOut => HandshakeError::TimedOut,
        _ => HandshakeError::Ended,
    }
}

/// Takes what a side has to say: how many received bytes it is done with, and what comes next.
fn take<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    out: &mut Gather,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { discard, state } = status;
    let step = state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out).map(|()| Step::Again),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Send)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Receive),
        ConnectionState::WriteTraffic(_) => Ok(Step::Done),
        _ => Ok(Step::Over),
    });
    (discard, step)
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, out: &mut Gather) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) =
        data.encode(&mut bytes)
    {
        bytes.resize(required_size, 0);
        data.encode(&mut bytes).map_err(|_| rustls::Error::EncryptError)?;
    }
    out.insert(&bytes);
    Ok(())
}
