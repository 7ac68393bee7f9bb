//! The gRPC stream to the control plane: connects, carries requests and responses, connects again.
//!
//! Knows nothing of resources. The task ends when the receiver of its events is dropped. The control plane is
//! authenticated by TLS where the bootstrap asks for it; key and certificate files are read anew for each connection, so
//! that they can be replaced while the proxy runs.

use std::{
    fmt::Write as _,
    io,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use policy::Rng;
use proto::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, client::AggregatedDiscoveryServiceClient};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    metadata::{MetadataKey, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};
use tower::service_fn;

use super::backoff::Backoff;
use crate::{
    bootstrap::{ControlPlane, Pem, Place, Tls},
    dns,
};

/// Largest response, in bytes. A state of the whole in one message is what other control planes send.
const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Requests that wait to be sent. There is at most one per response and one per change of subscriptions, so a stream
/// where more than this wait does not read them.
const REQUESTS_WAITING_MAX: usize = 256;

/// What happens on the way to the control plane.
#[derive(Debug)]
pub enum Event {
    /// A stream is being opened; requests go into this end of it.
    Opening(mpsc::Sender<DeltaDiscoveryRequest>),
    /// The control plane took the stream; other calls may use the same connection.
    Opened(Channel),
    /// It answered.
    Response(DeltaDiscoveryResponse),
    /// The stream ended or could not be opened.
    Closed {
        /// Why.
        reason: CloseReason,
        /// How long until the next attempt.
        retry_in: Duration,
    },
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// A key or certificate file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address or the TLS settings cannot be used, or nobody answers there.
    #[error("cannot connect to {to}")]
    Connect {
        /// Where.
        to: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The control plane ended the stream with an error.
    #[error("{} {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The control plane ended the stream.
    #[error("the control plane ended the stream")]
    Ended,
}

/// Keeps a stream to the control plane until nobody listens any more.
pub async fn run(control_plane: ControlPlane, mut rng: Rng, events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    for attempt in 0usize.. {
        let Some(to) = control_plane.places.get(attempt % control_plane.places.len().max(1)) else { return };
        let begun = Instant::now();
        let mut had_answers = false;
        let reason = match stream(&control_plane, to, &events, &mut had_answers).await {
            Ok(reason) | Err(reason) => reason,
        };
        let retry_in = backoff.after(begun.elapsed(), had_answers, &mut rng);
        if events.send(Event::Closed { reason, retry_in }).await.is_err() {
            return;
        }
        tokio::time::sleep(retry_in).await;
    }
}

/// One stream, from connecting to its end; both ways of ending give the reason.
async fn stream(
    control_plane: &ControlPlane,
    to: &Place,
    events: &mpsc::Sender<Event>,
    had_answers: &mut bool,
) -> Result<CloseReason, CloseReason> {
    let channel = connect(control_plane, to).await?;
    let (requests, outgoing) = mpsc::channel(REQUESTS_WAITING_MAX);
    // Before the call, since many servers send nothing, not even headers, before they have the first request.
    if events.send(Event::Opening(requests)).await.is_err() {
        return Ok(CloseReason::Ended);
    }
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel.clone()).max_decoding_message_size(RESPONSE_BYTES_MAX);
    let call = authorized(control_plane, ReceiverStream::new(outgoing));
    let failed = |status| CloseReason::Status(Box::new(status));
    let mut responses = client.delta_aggregated_resources(call).await.map_err(failed)?.into_inner();
    let mut event = Event::Opened(channel);
    loop {
        if events.send(event).await.is_err() {
            return Ok(CloseReason::Ended);
        }
        let Some(response) = responses.message().await.map_err(failed)? else {
            return Ok(CloseReason::Ended);
        };
        *had_answers = true;
        event = Event::Response(response);
    }
}

/// A call with the metadata that the bootstrap asks for, such as a token.
pub fn authorized<T>(control_plane: &ControlPlane, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (key, value) in &control_plane.metadata {
        // Both were checked when the bootstrap was read.
        if let (Ok(key), Ok(value)) =
            (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value))
        {
            request.metadata_mut().insert(key, value);
        }
    }
    request
}

/// A connection to the first of its places that answers.
pub async fn connect_any(control_plane: &ControlPlane) -> Result<Channel, CloseReason> {
    let mut refused = CloseReason::Ended;
    for to in &control_plane.places {
        match connect(control_plane, to).await {
            Ok(channel) => return Ok(channel),
            Err(reason) => refused = reason,
        }
    }
    Err(refused)
}

async fn connect(control_plane: &ControlPlane, to: &Place) -> Result<Channel, CloseReason> {
    let failed = |source| CloseReason::Connect { to: to.to_string(), source };
    let scheme = if control_plane.tls.is_some() { "https" } else { "http" };
    let authority = match to {
        // A unix socket has no name; this is what goes into `:authority` then.
        Place::Unix(_) => "localhost".to_owned(),
        Place::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Place::Tcp { host, port } => format!("{host}:{port}"),
    };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
        .map_err(failed)?
        .connect_timeout(control_plane.connect_timeout)
        .http2_keep_alive_interval(control_plane.keep_alive_interval)
        .keep_alive_timeout(control_plane.keep_alive_timeout)
        .keep_alive_while_idle(true);
    if let Some(origin) = &control_plane.authority
        && let Ok(origin) = format!("{scheme}://{origin}").parse::<Uri>()
    {
        endpoint = endpoint.origin(origin);
    }
    if let Some(tls) = &control_plane.tls {
        endpoint = endpoint.tls_config(tls_config(tls).await?).map_err(failed)?;
    }
    match to {
        Place::Tcp { host, port } => {
            let (host, port, patience) = (host.clone(), *port, control_plane.connect_timeout);
            let connector = service_fn(move |_: Uri| {
                let host = host.clone();
                async move { dial(&host, port, patience).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await.map_err(failed)
        }
        Place::Unix(path) => {
            let path = path.clone();
            let connector = service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await.map_err(failed)
        }
    }
}

/// The first address of the host that accepts. Each has its share of the time, so that a silent one does not hide those
/// behind it.
async fn dial(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let addresses = dns::system(host).await?;
    let share = patience / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        match timeout(share, TcpStream::connect((address, port))).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => refused = error,
            Err(elapsed) => refused = elapsed.into(),
        }
    }
    Err(refused)
}

async fn tls_config(tls: &Tls) -> Result<ClientTlsConfig, CloseReason> {
    let mut config =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&tls.trusted_ca).await?));
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(read(certificate).await?, read(key).await?));
    }
    Ok(config)
}

async fn read(pem: &Pem) -> Result<Vec<u8>, CloseReason> {
    match pem {
        Pem::Inline(bytes) => Ok(bytes.clone()),
        Pem::File(path) => tokio::fs::read(path)
            .await
            .map_err(|source| CloseReason::File { path: path.display().to_string(), source }),
    }
}

/// An error with everything that caused it, for one line of log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
