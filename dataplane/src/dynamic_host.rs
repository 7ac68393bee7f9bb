//! The endpoints of a request whose host no configuration knows: those of the snapshot, or of the one that comes when the
//! host has been looked up.
//!
//! Names are looked up on the control thread. A worker asks it through a mailbox, and the answer is the next snapshot, so
//! that all workers learn of a host at once and no worker keeps anything of its own. Whoever waits for a host looks again
//! at each adoption.

use std::{
    cell::RefCell,
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use policy::{
    cluster::{Cluster, Discovery},
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

/// The host that a request to `cluster` names, looked up if need be, when it is one that it can be sent to; `None` when
/// the cluster has endpoints of its own. It is the host that came with the request: a rewrite of it is for who gets the
/// request, and does not change where it goes (as in Envoy). `looked_up` holds what is not in the exchange's snapshot.
pub async fn find<'a, I: Io>(
    worker: &Worker<I>,
    downstream: &Downstream<'_, I>,
    (cluster, deadline): (&'a Cluster, Deadline),
    looked_up: &'a mut Option<Arc<DynamicHost>>,
) -> Result<Option<&'a DynamicHost>, ExchangeError> {
    let Discovery::DynamicForward(cache) = &cluster.config.discovery else { return Ok(None) };
    let view = RequestView { head: &downstream.request, bytes: downstream.buffer.filled() };
    let name = HostName::parse(view.authority()).ok_or(ExchangeError::AuthorityNoHost)?;
    let host = match cluster.hosts.get(name.as_str()) {
        Some(host) => host,
        None if cluster.hosts.len() >= cache.hosts_max => return Err(ExchangeError::HostsOverflow),
        None => {
            let deadline = Deadline::after(worker.io.now(), cache.query_timeout).min(deadline);
            // Boxed: it happens once per host, and every exchange would carry its size.
            let name = Box::new(name);
            let asked = Box::pin(look_up(
                worker,
                downstream,
                (&cluster.config.name, cache.hosts_max),
                name,
                deadline,
            ));
            let found = asked.await?;
            looked_up.insert(found)
        }
    };
    let endpoints = host.endpoints.all();
    if endpoints.is_empty() {
        return Err(ExchangeError::HostNotFound);
    }
    // It would come back to us, and again, until no descriptor is left.
    if endpoints.iter().any(|endpoint| leads_to(&endpoint.spec.address, downstream.side.origin().local)) {
        return Err(ExchangeError::ForwardingLoop);
    }
    host.note_use();
    Ok(Some(host))
}

/// Whether a connect to `address` may end at `own`: the kernel takes the unspecified address for this machine, and an IPv4
/// address mapped to IPv6 for itself.
fn leads_to(address: &Address, own: SocketAddr) -> bool {
    let Address::Socket(address) = address else { return false };
    let ip = address.ip().to_canonical();
    address.port() == own.port() && (ip == own.ip().to_canonical() || ip.is_unspecified())
}

/// Asks for a host of a cluster and waits for the snapshot that has it, or for one that has as many others as there may be:
/// then all that were taken on are looked up, and this one was not.
async fn look_up<I: Io>(
    worker: &Worker<I>,
    downstream: &Downstream<'_, I>,
    (cluster, hosts_max): (&Arc<str>, usize),
    host: Box<HostName>,
    deadline: Deadline,
) -> Result<Arc<DynamicHost>, ExchangeError> {
    worker.hosts.wanted.send(Wanted { cluster: cluster.clone(), host: host.clone() });
    downstream.alarm.set(deadline);
    let found = poll_fn(|cx| {
        let bound = worker.bound();
        let Some((cluster, _)) = bound.cluster(cluster) else {
            return Poll::Ready(Err(ExchangeError::NoCluster));
        };
        if let Some(host) = cluster.hosts.get(host.as_str()) {
            return Poll::Ready(Ok(host.clone()));
        }
        if cluster.hosts.len() >= hosts_max {
            return Poll::Ready(Err(ExchangeError::HostsOverflow));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_our_own_address_is_ours() {
        let own = "127.0.0.1:15002".parse().unwrap();
        for (address, is_ours) in [
            ("127.0.0.1:15002", true),
            ("0.0.0.0:15002", true),
            ("[::]:15002", true),
            ("[::ffff:127.0.0.1]:15002", true),
            ("127.0.0.1:15003", false),
            ("127.0.0.2:15002", false),
            ("[::1]:15002", false),
        ] {
            assert_eq!(leads_to(&Address::Socket(address.parse().unwrap()), own), is_ours, "{address}");
        }
        assert!(leads_to(
            &Address::Socket("127.0.0.1:1".parse().unwrap()),
            "[::ffff:127.0.0.1]:1".parse().unwrap()
        ));
    }
}
