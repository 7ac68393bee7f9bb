//! The registration of one workload with the control plane, kept for as long as the workload lives.
//!
//! The stream is the lease: it is opened again with back-off when it breaks, and what is registered does not change by
//! that. Only [`Lease::close`] unregisters; a lease that is dropped ends by itself at the control plane.

use std::time::Duration;

use proto::control::register_request::Message;
use proto::control::registry_client::RegistryClient;
use proto::control::{KeepAlive, RegisterRequest, RegisterResponse, Registration, Unregister};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::backoff::Backoff;
use super::control::ControlAddress;

/// First and longest wait before a broken stream is opened again. The longest leaves time to register within the 5 s in
/// which a control plane that comes back shall know everybody.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(4);

/// The lease until the control plane says how long it is.
const LEASE_FIRST: Duration = Duration::from_secs(15);

/// Longest wait for the stream to end after the workload has unregistered.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the control plane makes of the registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseStatus {
    /// Not yet asked, or not yet answered.
    Pending,
    /// It holds.
    Held,
    /// It holds, and proxies are told to send its endpoint no more requests.
    Draining,
    /// It is not used.
    Refused(String),
    /// The control plane cannot be reached; if it held before, it still does until the lease ends.
    Unreachable(String),
}

/// The registration of one workload.
#[derive(Debug)]
pub struct Lease {
    registration: watch::Sender<Registration>,
    status: watch::Receiver<LeaseStatus>,
    close: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Lease {
    /// Registers, now and whenever it must be done again.
    pub fn open(control: &ControlAddress, registration: Registration) -> Lease {
        let (registration, changes) = watch::channel(registration);
        let (sender, status) = watch::channel(LeaseStatus::Pending);
        let (close, closed) = oneshot::channel();
        let task = tokio::spawn(keep(control.channel(), changes, sender, closed));
        Lease { registration, status, close, task }
    }

    /// Changes what is registered.
    pub fn update(&self, change: impl FnOnce(&mut Registration)) {
        self.registration.send_if_modified(|registration| {
            let before = registration.clone();
            change(registration);
            *registration != before
        });
    }

    /// What the control plane makes of it, now and later.
    pub fn status(&self) -> watch::Receiver<LeaseStatus> {
        self.status.clone()
    }

    /// Until the control plane has told proxies that the workload drains, if it can be reached and uses the
    /// registration.
    pub async fn until_draining(&self) {
        let is_settled = |status: &LeaseStatus| !matches!(status, LeaseStatus::Pending | LeaseStatus::Held);
        // An error means that the task is at its end: nobody is left to be told.
        let _ = self.status.clone().wait_for(is_settled).await;
    }

    /// Unregisters, if the control plane can be reached.
    pub async fn close(mut self) {
        let (close, _) = oneshot::channel();
        // If the task is at its end, there is nothing to close.
        let _ = std::mem::replace(&mut self.close, close).send(());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut self.task).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    channel: Channel,
    mut registration: watch::Receiver<Registration>,
    status: watch::Sender<LeaseStatus>,
    mut close: oneshot::Receiver<()>,
) {
    let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MAX);
    loop {
        let mut held = false;
        let broken = hold(&channel, &mut registration, &status, &mut close, &mut held).await;
        let Err(error) = broken else { return };
        if held {
            backoff.reset();
        }
        status.send_if_modified(|status| {
            // One outage is one piece of news, whatever each attempt says.
            let news = !matches!(status, LeaseStatus::Unreachable(_));
            *status = LeaseStatus::Unreachable(reason(&error));
            news
        });
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait()) => {}
            _ = &mut close => return,
        }
    }
}

/// One stream, from its opening until it breaks; `Ok` when the workload has unregistered.
async fn hold(
    channel: &Channel,
    registration: &mut watch::Receiver<Registration>,
    status: &watch::Sender<LeaseStatus>,
    close: &mut oneshot::Receiver<()>,
    held: &mut bool,
) -> Result<(), tonic::Status> {
    let (requests, receiver) = mpsc::channel(4);
    let request = |message| RegisterRequest { message: Some(message) };
    let first = registration.borrow_and_update().clone();
    // The channel is empty and its receiver is below: neither this nor a later send waits for ever.
    let _ = requests.send(request(Message::Registration(first))).await;
    let mut client = RegistryClient::new(channel.clone());
    let opened = client.register(ReceiverStream::new(receiver));
    let mut responses: Streaming<RegisterResponse> = tokio::select! {
        opened = opened => opened?.into_inner(),
        _ = &mut *close => return Ok(()),
    };
    let mut lease = LEASE_FIRST;
    loop {
        let message = tokio::select! {
            response = responses.message() => {
                let response = response?.ok_or_else(|| tonic::Status::unavailable("the stream ended"))?;
                *held = true;
                if response.lease_ms > 0 {
                    lease = Duration::from_millis(response.lease_ms.into());
                }
                let now = match response.refused {
                    refused if !refused.is_empty() => LeaseStatus::Refused(refused),
                    _ if response.draining => LeaseStatus::Draining,
                    _ => LeaseStatus::Held,
                };
                status.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
                continue;
            }
            changed = registration.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                Message::Registration(registration.borrow_and_update().clone())
            }
            () = tokio::time::sleep(lease / 3) => Message::KeepAlive(KeepAlive {}),
            _ = &mut *close => {
                let _ = requests.send(request(Message::Unregister(Unregister {}))).await;
                drop(requests);
                // The end of the stream says that it was read.
                while responses.message().await?.is_some() {}
                return Ok(());
            }
        };
        // Fails only when the stream is broken, which the next turn sees.
        let _ = requests.send(request(message)).await;
    }
}

/// What an operator can act on: the deepest cause, for a transport error the operating system's.
fn reason(status: &tonic::Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<tonic::Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    }
}
