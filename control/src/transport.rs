//! Connections of those who call the control plane: over the unix socket, where the kernel says who it is, and from other
//! machines over TLS, where the certificate of a host does, or nothing until a token is shown.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::metrics::Metrics;
use crate::svid;

mod tls;

pub(crate) use tls::{TlsError, TlsIdentity};

/// Handshakes at a time; above it nobody is accepted.
const HANDSHAKES_COUNT_MAX: usize = 128;
/// How long one may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// How long somebody without a certificate may stay: long enough to spend a token.
const STRANGER_STAYS: Duration = Duration::from_secs(30);
/// How long nobody is accepted after the system did not let us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherEnd {
    /// A process of this machine, and its user as the kernel says it (unix(7), `SO_PEERCRED`); `None` where it does not.
    User(Option<u32>),
    /// Another machine of the mesh, by its certificate.
    Host(Arc<str>),
    /// Somebody who has shown no certificate.
    Stranger,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) enum Connection {
    Unix(UnixStream),
    Tls(Box<Secured>),
}

/// One with TLS.
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    other_end: OtherEnd,
    /// When who it is is not proved any more.
    ends: Pin<Box<Sleep>>,
}

impl Connected for Connection {
    type ConnectInfo = OtherEnd;

    fn connect_info(&self) -> OtherEnd {
        match self {
            Self::Unix(stream) => OtherEnd::User(stream.peer_cred().ok().map(|of| of.uid())),
            Self::Tls(secured) => secured.other_end.clone(),
        }
    }
}

/// Accepts connections of other machines until nobody takes them.
pub(crate) async fn accept(
    listener: TcpListener,
    identity: Arc<TlsIdentity>,
    metrics: Arc<Metrics>,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_COUNT_MAX));
    loop {
        let Ok(place) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (identity, metrics, connections) = (identity.clone(), metrics.clone(), connections.clone());
        tokio::spawn(async move {
            let shaken = timeout(HANDSHAKE_WAIT, shake_hands(stream, &identity)).await;
            drop(place);
            match shaken.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))) {
                // The end of who takes them is our end, too.
                Ok(secured) => drop(connections.send(Ok(Connection::Tls(Box::new(secured)))).await),
                Err(error) => refused(&metrics, from, &error),
            }
        });
    }
}

fn refused(metrics: &Metrics, from: SocketAddr, error: &io::Error) {
    metrics.handshakes_refused.fetch_add(1, Relaxed);
    tracing::warn!(%from, reason = %error, "handshake refused");
}

async fn shake_hands(stream: TcpStream, identity: &TlsIdentity) -> io::Result<Secured> {
    let _ = stream.set_nodelay(true);
    let now = SystemTime::now();
    let config = identity.config(now).map_err(io::Error::other)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let (other_end, stays) = match certificate {
        None => (OtherEnd::Stranger, STRANGER_STAYS),
        Some(certificate) => {
            let svid = svid::read(certificate).map_err(io::Error::other)?;
            let name =
                svid::host_name(&svid.id).filter(|_| svid.id.trust_domain() == identity.trust_domain());
            let name =
                name.ok_or_else(|| io::Error::other(format!("{} is no host of this mesh", svid.id)))?;
            (OtherEnd::Host(name.into()), svid.not_after.duration_since(now).unwrap_or_default())
        }
    };
    Ok(Secured { stream, other_end, ends: Box::pin(sleep(stays)) })
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(secured) => match secured.ends.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Pin::new(&mut secured.stream).poll_read(cx, buf),
            },
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_shutdown(cx),
        }
    }
}
