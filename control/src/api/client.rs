//! Asks the API of a control plane, as `ringway status` does.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use super::{DocumentList, Refusal};
use crate::report::Status;

/// How long one answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Largest answer, in bytes: ten thousand proxies with what they refused.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A control plane's API.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is none.
    #[error("{url:?} is not an address like http://127.0.0.1:15080")]
    Address {
        /// What was given.
        url: String,
    },
    /// Nobody answers.
    #[error("no control plane answers at {url} (`ringway serve` is one; --api names another)")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why.
        source: hyper_util::client::legacy::Error,
    },
    /// It takes too long.
    #[error("no answer from {url} within {ANSWER_WAIT:?}")]
    Slow {
        /// What was asked.
        url: String,
    },
    /// Somebody else answers, or another version.
    #[error("{url} answers {status}, which is not what a control plane of this version answers")]
    Status {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: StatusCode,
    },
    /// What was asked cannot be answered.
    #[error("{error}")]
    Refused {
        /// Why.
        error: String,
    },
    /// The answer broke off, or is too long.
    #[error("the answer of {url} broke off: {reason}")]
    Body {
        /// What was asked.
        url: String,
        /// Why.
        reason: String,
    },
    /// The answer is no such JSON.
    #[error("the answer of {url} is not what a control plane of this version answers")]
    Json {
        /// What was asked.
        url: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
}

impl Api {
    /// The API at `base`, a URL without a path.
    pub fn new(base: &str) -> Result<Api, ApiError> {
        let trimmed = base.trim_end_matches('/');
        let fine =
            trimmed.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.path() == "/");
        if !fine {
            return Err(ApiError::Address { url: base.to_owned() });
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Api { base: trimmed.to_owned(), client })
    }

    /// `/api/v1/status`.
    pub async fn status(&self) -> Result<Status, ApiError> {
        self.json("/api/v1/status").await
    }

    /// The same, of what is in the directory now: a file that was written before the call counts.
    pub async fn status_now(&self) -> Result<Status, ApiError> {
        self.json("/api/v1/status?fresh=true").await
    }

    /// `/api/v1/documents`.
    pub async fn documents(&self) -> Result<DocumentList, ApiError> {
        self.json("/api/v1/documents").await
    }

    /// Any other path, as the type it answers.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let url = format!("{}{path}", self.base);
        let slow = |_| ApiError::Slow { url: url.clone() };
        let (status, body) = tokio::time::timeout(ANSWER_WAIT, self.bytes(&url)).await.map_err(slow)??;
        if !status.is_success() {
            return Err(match serde_json::from_slice(&body) {
                Ok(Refusal { error }) => ApiError::Refused { error },
                Err(_) => ApiError::Status { url, status },
            });
        }
        serde_json::from_slice(&body).map_err(|source| ApiError::Json { url: url.clone(), source })
    }

    async fn bytes(&self, url: &str) -> Result<(StatusCode, Bytes), ApiError> {
        let uri: Uri = url.parse().map_err(|_| ApiError::Address { url: url.to_owned() })?;
        let unreachable = |source| ApiError::Unreachable { url: self.base.clone(), source };
        let answer = self.client.get(uri).await.map_err(unreachable)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ApiError::Body { url: url.to_owned(), reason: error.to_string() })?;
        Ok((status, body.to_bytes()))
    }
}
