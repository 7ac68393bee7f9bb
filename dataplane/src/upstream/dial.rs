//! A new connection to an endpoint: TCP, what is written before all else, and TLS where the cluster has it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use policy::{
    alpn::{self, Carries, Http},
    tls::UpstreamTls,
};
use runtime::{Deadline, Gather, Io, SendHalf};
use rustls::pki_types::ServerName;

use crate::{
    telemetry::metrics::ClusterStats,
    tls::{self, ClientTls, HandshakeError},
    transport::{self, Halves},
    worker::Worker,
};

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckoutError {
    /// Refused or unreachable.
    #[error("cannot connect to {endpoint}")]
    Failed {
        /// The address.
        endpoint: SocketAddr,
    },
    /// No descriptor, port or memory on this machine.
    #[error("nothing left to connect to {endpoint} with")]
    Shortage {
        /// The address.
        endpoint: SocketAddr,
    },
    /// It cannot be secured as it must be.
    #[error("no TLS with {endpoint}")]
    Insecure {
        /// The address.
        endpoint: SocketAddr,
    },
    /// Not made in time.
    #[error("connect to {endpoint} timed out")]
    TimedOut {
        /// The address.
        endpoint: SocketAddr,
    },
}

/// What socket(2) and connect(2) say when this machine is short of something, and upstream was not even asked: ENFILE and
/// EMFILE, ENOMEM and ENOBUFS, EADDRINUSE and EADDRNOTAVAIL (no port towards this address is free); and epoll_ctl(2) of one
/// descriptor more than may be watched: ENOSPC.
const SHORTAGES: [i32; 7] = [23, 24, 12, 105, 98, 99, 28];

/// Where to, and how.
pub(crate) struct Dial<'a> {
    /// The address.
    pub(crate) address: SocketAddr,
    /// How long it may take until bytes can be sent.
    pub(crate) connect_timeout: Duration,
    /// What the kernel may hold that it has not sent yet.
    pub(crate) unsent_bytes_max: u32,
    /// What carries the bytes; `None` is plain TCP.
    pub(crate) tls: Option<&'a Arc<UpstreamTls>>,
    /// What it will carry.
    pub(crate) carries: Carries,
    /// What is sent before all else.
    pub(crate) header: &'a [u8],
    /// Counters of the cluster.
    pub(crate) stats: &'a ClusterStats,
}

/// A new connection.
pub(crate) struct Dialed<I: Io> {
    /// Its halves.
    pub(crate) halves: Halves<I>,
    /// The HTTP that was agreed on, if any was.
    pub(crate) http: Option<Http>,
}

/// Makes a connection before `deadline`, and counts it.
pub(crate) async fn dial<I: Io>(
    worker: &Worker<I>,
    to: &Dial<'_>,
    deadline: Deadline,
) -> Result<Dialed<I>, CheckoutError> {
    let (io, counters, begun) = (&worker.io, &to.stats.counters, worker.io.now());
    counters.upstream_cx_total.inc();
    let until = Deadline::after(begun, to.connect_timeout).min(deadline);
    let dialed = match open(worker, to, until).await {
        Ok(dialed) => dialed,
        Err(error) => {
            counters.upstream_cx_connect_fail.inc();
            if matches!(error, CheckoutError::TimedOut { .. }) {
                counters.upstream_cx_connect_timeout.inc();
            }
            return Err(error);
        }
    };
    to.stats.cx_connect.record(Duration::from_nanos(io.now().saturating_sub(begun)));
    counters.upstream_cx_active.inc();
    Ok(dialed)
}

async fn open<I: Io>(worker: &Worker<I>, to: &Dial<'_>, until: Deadline) -> Result<Dialed<I>, CheckoutError> {
    // What cannot be secured is not begun: nobody hears a byte of it.
    let tls = match to.tls {
        None => None,
        Some(wanted) => match worker.bound().tls.client(wanted) {
            Some(tls) => Some(tls.clone()),
            None => return Err(CheckoutError::Insecure { endpoint: to.address }),
        },
    };
    let failed = |error: &io::Error| failed(error, to.address);
    let (recv, mut send) = worker.io.connect(to.address, until).await.map_err(|error| failed(&error))?;
    send.limit_unsent(to.unsent_bytes_max);
    if !to.header.is_empty() {
        let mut gather = Gather::new();
        gather.insert(to.header);
        send.send_all(&mut gather, until).await.map_err(|error| failed(&error))?;
    }
    match tls {
        None => Ok(Dialed { halves: transport::raw((recv, send)), http: None }),
        // Boxed: its state is much, and happens once per connection.
        Some(tls) => Box::pin(secure(worker, to, &tls, (recv, send), until)).await,
    }
}

async fn secure<I: Io>(
    worker: &Worker<I>,
    to: &Dial<'_>,
    tls: &ClientTls,
    halves: (I::Recv, I::Send),
    until: Deadline,
) -> Result<Dialed<I>, CheckoutError> {
    let name = tls.sni.clone().unwrap_or_else(|| nameless(to.address.ip()));
    match tls::connect(worker, tls, halves, (name, to.carries), until).await {
        Ok(secured) => {
            to.stats.tls.handshake(secured.is_resumed);
            Ok(Dialed { halves: secured.halves, http: secured.alpn.as_deref().and_then(alpn::http) })
        }
        Err(error) => {
            to.stats.tls.refused(&error);
            tracing::debug!(endpoint = %to.address, %error, "no TLS with upstream");
            Err(match error {
                HandshakeError::TimedOut => CheckoutError::TimedOut { endpoint: to.address },
                _ => CheckoutError::Insecure { endpoint: to.address },
            })
        }
    }
}

/// Stands for the server's name where none is told: sessions are kept under it.
fn nameless(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}

fn failed(error: &io::Error, endpoint: SocketAddr) -> CheckoutError {
    let is_shortage = error.raw_os_error().is_some_and(|error| SHORTAGES.contains(&error));
    match error.kind() {
        io::ErrorKind::TimedOut => CheckoutError::TimedOut { endpoint },
        _ if is_shortage => CheckoutError::Shortage { endpoint },
        _ => CheckoutError::Failed { endpoint },
    }
}
