//! The endpoints of a request whose host no configuration knows: those of the snapshot, or of the one that comes when the
//! host has been looked up.
//!
//! Names are looked up on the control thread. A worker asks it through a mailbox, and the answer is the next snapshot, so
//! that all workers learn of a host at once and no worker keeps anything of its own. Whoever waits for a host looks again
//! at each adoption.

use std::{
    cell::RefCell,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use policy::{
    cluster::{Cluster, Discovery, DnsCache},
    dynamic_host::{DynamicHost, HostName},
    snapshot::Address,
};
use runtime::{Deadline, Io, mailbox};
use wire::head::RequestView;

use crate::{downstream::Downstream, respond::ExchangeError, worker::Worker};

/// A host that a worker wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The cluster that the request goes to.
    pub cluster: Arc<str>,
    /// The host that it names.
    pub host: Box<HostName>,
}

/// A worker's way of asking, and its exchanges that wait for an answer.
#[derive(Debug)]
pub struct DynamicHosts {
    wanted: mailbox::Sender<Wanted>,
    waiting: RefCell<Vec<Waker>>,
}

impl DynamicHosts {
    /// Nobody waits yet; hosts are asked for through `wanted`.
    pub fn new(wanted: mailbox::Sender<Wanted>) -> DynamicHosts {
        DynamicHosts { wanted, waiting: RefCell::default() }
    }

    /// Lets all who wait look again: there is a new snapshot.
    pub fn look_again(&self) {
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }
}

/// What a snapshot knows of the host that a request names.
pub enum Host<'a> {
    /// The cluster has endpoints of its own; the name does not matter.
    Any,
    /// It was looked up.
    Known(&'a DynamicHost),
    /// It is to be looked up.
    Unknown(Box<HostName>),
}

/// The host of a request to `cluster`: the one that came with it. A rewrite of the host is for who gets the request, and
/// does not change where it goes (as in Envoy).
pub fn of<'a, I: Io>(cluster: &'a Cluster, downstream: &Downstream<I>) -> Result<Host<'a>, ExchangeError> {
    let Discovery::DynamicForward(cache) = &cluster.config.discovery else { return Ok(Host::Any) };
    let view = RequestView { head: &downstream.request, bytes: downstream.buffer.filled() };
    let name = HostName::parse(view.authority()).ok_or(ExchangeError::AuthorityNoHost)?;
    match cluster.hosts.get(name.as_str()) {
        Some(host) => Ok(Host::Known(host)),
        None if cluster.hosts.len() >= cache.hosts_max => Err(ExchangeError::HostsOverflow),
        None => Ok(Host::Unknown(Box::new(name))),
    }
}

/// Waits until a host was looked up.
pub async fn look_up<I: Io>(
    worker: &Worker<I>,
    downstream: &Downstream<I>,
    cluster: &Cluster,
    host: Box<HostName>,
    deadline: Deadline,
) -> Result<Arc<DynamicHost>, ExchangeError> {
    let query_timeout = match &cluster.config.discovery {
        Discovery::DynamicForward(DnsCache { query_timeout, .. }) => *query_timeout,
        _ => return Err(ExchangeError::NoCluster),
    };
    let cluster = &cluster.config.name;
    worker.hosts.wanted.send(Wanted { cluster: cluster.clone(), host: host.clone() });
    downstream.alarm.set(Deadline::after(worker.io.now(), query_timeout).min(deadline));
    let found = poll_fn(|cx| {
        let bound = worker.bound();
        let Some((cluster, _)) = bound.cluster(cluster) else {
            return Poll::Ready(Err(ExchangeError::NoCluster));
        };
        if let Some(host) = cluster.hosts.get(host.as_str()) {
            return Poll::Ready(Ok(host.clone()));
        }
        if downstream.alarm.poll_rung(cx).is_ready() {
            return Poll::Ready(Err(ExchangeError::LookUpTimeout));
        }
        worker.hosts.wait(cx);
        Poll::Pending
    })
    .await;
    downstream.alarm.set(Deadline::NEVER);
    found
}

/// Notes a request to `host`, unless it cannot be sent there.
pub fn enter<I: Io>(host: &DynamicHost, downstream: &Downstream<I>) -> Result<(), ExchangeError> {
    let endpoints = host.endpoints.all();
    if endpoints.is_empty() {
        return Err(ExchangeError::HostNotFound);
    }
    // It would come back to us, and again, until no descriptor is left.
    let own = downstream.origin.local;
    if endpoints.iter().any(|endpoint| endpoint.spec.address == Address::Socket(own)) {
        return Err(ExchangeError::ForwardingLoop);
    }
    host.note_use();
    Ok(())
}
