//! How the toys and the load make a request: HTTP/1.1 with kept connections, origin-form to a gateway, absolute-form
//! to the HTTP proxy of a sidecar, as any application with HTTP_PROXY does it.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// In which a toy says how long it worked on a request.
pub(super) const SERVER_TIMING: &str = "server-timing";

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that are kept while nobody uses them.
const IDLE_COUNT_MAX: usize = 64;

/// Which form a request's target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `/cart`, to a gateway.
    Origin,
    /// `http://cart.mesh/`, to an HTTP proxy.
    Absolute,
}

/// Makes requests to one address.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    form: Form,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// From the first byte sent to the last byte received.
    pub(super) took: Duration,
    /// Of this, how long the toy at the other end worked, if it said so.
    pub(super) worked: Option<Duration>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// There is no connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It broke.
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
}

impl Client {
    pub(super) fn new(address: SocketAddr, form: Form) -> Client {
        Client { address, form, idle: Mutex::default() }
    }

    /// GETs a URI of scheme, host and path.
    pub(super) async fn get(&self, uri: &Uri) -> Result<Answer, CallError> {
        tokio::time::timeout(TIMEOUT, self.exchange(uri)).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn exchange(&self, uri: &Uri) -> Result<Answer, CallError> {
        let started = Instant::now();
        let kept = self.take();
        let (mut sender, was_kept) = match kept {
            Some(sender) => (sender, true),
            None => (self.connect().await?, false),
        };
        let response = match sender.send_request(self.request(uri)).await {
            // It was closed while nobody used it, and nothing was sent: as if there had been none.
            Err(error) if was_kept && error.is_canceled() => {
                sender = self.connect().await?;
                sender.send_request(self.request(uri)).await?
            }
            response => response?,
        };
        let status = response.status();
        let timing = response.headers().get(SERVER_TIMING).and_then(|value| value.to_str().ok());
        let worked = timing.and_then(parse_timing);
        response.into_body().collect().await?;
        let took = started.elapsed();
        self.keep(sender);
        Ok(Answer { status, took, worked })
    }

    fn request(&self, uri: &Uri) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        if let Some(host) = uri.authority().and_then(|authority| authority.as_str().parse().ok()) {
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = match (self.form, uri.path_and_query()) {
            (Form::Origin, Some(path)) => path.clone().into(),
            _ => uri.clone(),
        };
        request
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, CallError> {
        let address = self.address;
        let failed = |source| CallError::Connect { address, source };
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what breaks it, the sender is told.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(sender)
    }

    fn take(&self) -> Option<SendRequest<Empty<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Empty<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_COUNT_MAX && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

/// `app;dur=1.25`, in milliseconds.
pub(super) fn timing(worked: Duration) -> String {
    format!("app;dur={:.3}", worked.as_secs_f64() * 1e3)
}

pub(super) fn parse_timing(text: &str) -> Option<Duration> {
    let millis: f64 = text.strip_prefix("app;dur=")?.parse().ok()?;
    Duration::try_from_secs_f64(millis / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_a_toy_worked_survives_the_header() {
        let worked = Duration::from_micros(1250);
        assert_eq!(parse_timing(&timing(worked)), Some(worked));
        for text in ["", "app", "app;dur=", "app;dur=-1", "db;dur=1"] {
            assert_eq!(parse_timing(text), None, "{text}");
        }
    }
}
