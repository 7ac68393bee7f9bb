//! The answer as the API gives it; field names are stable.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Whether a proxy has what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// The newest configuration is active.
    Synced,
    /// It is on its way.
    Pending,
    /// The proxy refused some of it; the last good version of that serves.
    Nack,
    /// The proxy is not connected; its last configuration serves if it lives.
    Offline,
}

/// `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The newest revision.
    pub revision: String,
    /// Milliseconds since it began.
    pub revision_age_ms: u64,
    /// Whether it is active in every proxy.
    pub synced: bool,
    /// Documents that could not be used.
    pub document_errors: usize,
    /// One row per proxy, by app and node.
    pub proxies: Vec<ProxyRow>,
}

/// One proxy in [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxyRow {
    /// Node id: unique per process.
    pub node: String,
    /// `namespace/service` of a sidecar, `namespace/name` of a gateway.
    pub app: String,
    /// `sidecar` or `gateway`.
    pub role: String,
    /// Name of the machine; empty if the proxy does not report.
    pub host: String,
    /// Version of the proxy: as it reports it, else what its user agent says.
    pub version: String,
    /// Synced, pending, nack or offline.
    pub state: SyncState,
    /// The revision it should have.
    pub revision_wanted: String,
    /// The last revision that was wholly active; empty if none was.
    pub revision_active: String,
    /// Milliseconds since that became active; 0 if none was.
    pub active_age_ms: u64,
    /// `io_uring` or `epoll`; empty if the proxy does not report.
    pub io_driver: String,
    /// Why it is not `io_uring`; empty if it is.
    pub io_driver_reason: String,
    /// Threads that carry traffic; 0 if the proxy does not report.
    pub workers: u32,
    /// The proxy's own count of adopted configurations.
    pub snapshot: u64,
    /// Resources accepted and not active yet, because something they refer to is not known.
    pub warming: u32,
    /// Address of its admin listener; empty if none.
    pub admin: String,
    /// When the process started, milliseconds since the Unix epoch; 0 if the proxy does not report.
    pub started_unix_ms: i64,
    /// What it refused.
    pub refused: Vec<RefusedRow>,
}

/// A refused resource in [`ProxyRow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// `cds`, `eds`, `lds` or `rds`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the resource.
    pub name: String,
    /// Version that was refused.
    pub version: String,
    /// The proxy's own words.
    pub reason: String,
}

/// Milliseconds since then; 0 for never.
pub(super) fn age_ms(since: Option<SystemTime>) -> u64 {
    let age = since.and_then(|since| since.elapsed().ok());
    age.map_or(0, |age| age.as_millis().try_into().unwrap_or(u64::MAX))
}
