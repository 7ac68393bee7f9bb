//! `/api/v1/certificates`.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use crate::store::{Issue, hex};

/// One certificate that was issued and is still good. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRow {
    /// Who it is for.
    pub identity: String,
    /// Its serial number in hexadecimal, as certificate tools show it.
    pub serial: String,
    /// When it begins.
    pub not_before: u64,
    /// When it ends.
    pub not_after: u64,
    /// How long until then, in seconds.
    pub left_seconds: u64,
    /// When it was issued.
    pub issued_at: u64,
    /// How long ago that was, in seconds.
    pub age_seconds: u64,
    /// Who asked, and how that was proved.
    pub issued_to: String,
}

/// By identity, of each the newest first.
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<CertificateRow>>, StatusCode> {
    let now = SystemTime::now();
    let read = tokio::task::spawn_blocking(move || api.store.valid_issues(now)).await;
    match read {
        Ok(Ok(issues)) => Ok(Json(issues.into_iter().map(|issue| row(issue, now)).collect())),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot read what was issued");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn row(issue: Issue, now: SystemTime) -> CertificateRow {
    let seconds = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap_or_default().as_secs();
    CertificateRow {
        serial: hex(&issue.serial),
        not_before: seconds(UNIX_EPOCH, issue.not_before),
        not_after: seconds(UNIX_EPOCH, issue.not_after),
        left_seconds: seconds(now, issue.not_after),
        issued_at: seconds(UNIX_EPOCH, issue.issued_at),
        age_seconds: seconds(issue.issued_at, now),
        identity: issue.identity,
        issued_to: issue.issued_to,
    }
}
