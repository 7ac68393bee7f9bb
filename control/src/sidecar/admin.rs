//! One question to the admin listener of a proxy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest wait for an answer: the admin listener is on this machine and never busy.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens.
    #[error("cannot connect to the admin listener")]
    Connect(#[source] io::Error),
    /// It broke off.
    #[error("the admin listener broke off")]
    Http(#[source] hyper::Error),
    /// The body is too long, or broke off.
    #[error("the answer of the admin listener cannot be read")]
    Body,
    /// It took too long.
    #[error("the admin listener does not answer")]
    Timeout,
}

/// `GET path` from the admin listener at `address`.
pub async fn ask(address: SocketAddr, path: &'static str) -> Result<(StatusCode, String), AdminError> {
    tokio::time::timeout(TIMEOUT, exchange(address, path)).await.unwrap_or(Err(AdminError::Timeout))
}

async fn exchange(address: SocketAddr, path: &'static str) -> Result<(StatusCode, String), AdminError> {
    let stream = TcpStream::connect(address).await.map_err(AdminError::Connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(AdminError::Http)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = hyper::Uri::from_static(path);
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(HOST, host);
    }
    let answer = async move {
        let response = sender.send_request(request).await.map_err(AdminError::Http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| AdminError::Body)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
