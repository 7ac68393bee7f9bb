//! Tells Ringway's control plane what is active here (`ringway.control.v1.Proxy/Report`), beside the ADS stream and on
//! its connection. Telemetry: it fails open and in silence.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::control::{
    Active, Goodbye, Hello, Plaintext, ReportRequest, proxy_client::ProxyClient, report_request::Report,
};
use tokio::sync::watch;
use tokio_stream::{StreamExt, wrappers::WatchStream};
use tonic::{Code, transport::Channel};

use crate::{bootstrap::ControlPlane, xds::transport::authorized};

/// Wait before the stream is opened again when it broke and the connection lives on.
const RETRY: Duration = Duration::from_secs(1);

/// What does not change for the life of the process.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `node.id`.
    pub node_id: String,
    /// `io_uring` or `epoll`.
    pub io_driver: String,
    /// Why it is not io_uring; empty where it is or where nobody wanted it.
    pub io_driver_reason: String,
    /// How many workers there are.
    pub workers: usize,
    /// When the process started.
    pub started: SystemTime,
    /// Address of the admin listener; empty if there is none.
    pub admin: String,
}

/// Reports until the control plane does not understand, or the task is aborted. States that are replaced before they
/// could be sent are left out. When there will be no more states, this process ends because it was told to, and
/// says so.
pub async fn run(
    channel: Channel,
    control_plane: ControlPlane,
    identity: Identity,
    (active, plaintext): (watch::Receiver<Option<Active>>, watch::Receiver<Option<Plaintext>>),
) {
    let mut client = ProxyClient::new(channel);
    loop {
        let hello = tokio_stream::once(Report::Hello(identity.to_hello()));
        let states = WatchStream::new(active.clone()).filter_map(|active| active.map(Report::Active));
        let callers = WatchStream::new(plaintext.clone()).filter_map(|known| known.map(Report::Plaintext));
        let goodbye = tokio_stream::once(Report::Goodbye(Goodbye {}));
        let reports = hello
            .chain(states.merge(callers))
            .chain(goodbye)
            .map(|report| ReportRequest { report: Some(report) });
        let end = match client.report(authorized(&control_plane, reports)).await {
            Ok(answers) => {
                let mut answers = answers.into_inner();
                loop {
                    match answers.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
            Err(status) => Some(status),
        };
        let not_understood = end.is_some_and(|status| status.code() == Code::Unimplemented);
        if not_understood || active.has_changed().is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

impl Identity {
    fn to_hello(&self) -> Hello {
        let since_epoch = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Hello {
            node_id: self.node_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            io_driver: self.io_driver.clone(),
            io_driver_reason: self.io_driver_reason.clone(),
            workers: u32::try_from(self.workers).unwrap_or(u32::MAX),
            host: host.trim().to_owned(),
            started_unix_ms: i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX),
            admin: self.admin.clone(),
        }
    }
}
