//! Endpoints: what the configuration says of one, and the state that all workers share.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use crate::{
    address::Address,
    tls::{Label, UpstreamTls},
};

/// One endpoint of a cluster: configuration and shared state.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What the configuration says.
    pub spec: EndpointSpec,
    /// What all workers share; lives as long as the address stays in the cluster.
    pub state: Arc<EndpointState>,
    /// What carries the bytes to it; `None` is plain TCP.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// What the configuration says of an endpoint (Envoy: `LbEndpoint` in its `LocalityLbEndpoints`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSpec<A = Address> {
    /// Where it is.
    pub address: A,
    /// Its name, for [`HostRewrite::EndpointHostname`](crate::route::HostRewrite::EndpointHostname).
    pub hostname: Option<Arc<str>>,
    /// Its weight among the endpoints of its locality.
    pub weight: NonZeroU32,
    /// Its health as the configuration sees it.
    pub health: Health,
    /// 0 is used first.
    pub priority: u32,
    /// Where it is in the world.
    pub locality: Arc<Locality>,
    /// By which the cluster decides what carries the bytes to it.
    pub labels: Vec<Label>,
}

/// A place, with the weight it has when a cluster weighs places (Envoy: `LocalityLbEndpoints`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
    /// Its weight among the localities of its priority; `None` gets no load when the cluster weighs localities.
    pub weight: Option<NonZeroU32>,
}

/// Health as the configuration sees it (Envoy: `HealthStatus`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// Nothing known: treated as healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Used when there are not enough healthy ones.
    Degraded,
    /// Not used, except in panic.
    Unhealthy,
    /// Leaving; as unhealthy.
    Draining,
    /// Its health check timed out; as unhealthy.
    Timeout,
}

/// A name that DNS resolves to addresses of endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsName {
    /// The name.
    pub host: Arc<str>,
    /// The port of every address.
    pub port: u16,
}

/// The endpoints of a cluster as configured (Envoy: `ClusterLoadAssignment`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment<A = Address> {
    /// The endpoints.
    pub endpoints: Vec<EndpointSpec<A>>,
    /// How far the healthy share of a priority is stretched before load spills over, in percent.
    pub overprovisioning_percent: u32,
}

impl<A> EndpointSpec<A> {
    /// An endpoint with every default.
    pub fn new(address: A) -> EndpointSpec<A> {
        EndpointSpec {
            address,
            hostname: None,
            weight: NonZeroU32::MIN,
            health: Health::Unknown,
            priority: 0,
            locality: Arc::default(),
            labels: Vec::new(),
        }
    }
}

impl EndpointSpec<DnsName> {
    /// The endpoint at an address that its name resolved to. Its hostname is the name unless configured otherwise, as
    /// in Envoy.
    pub fn resolved(&self, address: SocketAddr) -> EndpointSpec {
        EndpointSpec {
            address: Address::Socket(address),
            hostname: self.hostname.clone().or_else(|| Some(self.address.host.clone())),
            weight: self.weight,
            health: self.health,
            priority: self.priority,
            locality: self.locality.clone(),
            labels: self.labels.clone(),
        }
    }
}

impl Health {
    /// Whether load goes there first.
    pub fn is_healthy(self) -> bool {
        matches!(self, Health::Unknown | Health::Healthy)
    }
}

/// Names an endpoint for the life of the process; pools are keyed by it. An address that left its cluster and came back
/// has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointId(pub u64);

/// Hands out [`EndpointId`]s; one per process, with the assembler.
#[derive(Debug, Default)]
pub struct EndpointIds {
    last: u64,
}

impl EndpointIds {
    /// An id that was not given before.
    pub fn next_id(&mut self) -> EndpointId {
        self.last += 1;
        EndpointId(self.last)
    }
}

/// Names a worker: an index from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerId(pub u16);

/// What the workers know of an endpoint together. Each worker writes its own slot only, with a load and a store, so
/// there is no read-modify-write and no line is written by two; reading sums the slots.
#[derive(Debug)]
pub struct EndpointState {
    id: EndpointId,
    slots: Box<[Slot]>,
}

/// One worker's share. The alignment keeps two workers' slots off one cache line; 128 because processors fetch lines in
/// pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    in_flight: AtomicU32,
    idle: AtomicUsize,
}

impl EndpointState {
    /// A state for this many workers.
    pub fn new(id: EndpointId, workers: usize) -> EndpointState {
        EndpointState { id, slots: (0..workers).map(|_| Slot::default()).collect() }
    }

    /// The endpoint's id.
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Counts an exchange that `worker` begins with the endpoint. Only the worker's own thread may call this.
    pub fn begin(&self, worker: WorkerId) {
        self.change(worker, |count| count.saturating_add(1));
    }

    /// Counts the end of an exchange that [`begin`](Self::begin) counted.
    pub fn finish(&self, worker: WorkerId) {
        self.change(worker, |count| {
            debug_assert!(count > 0, "an exchange that never began cannot end");
            count.saturating_sub(1)
        });
    }

    /// Exchanges in flight over all workers. Other workers' counts may be a moment old.
    pub fn in_flight(&self) -> u32 {
        self.slots.iter().map(|slot| slot.in_flight.load(Ordering::Relaxed)).fold(0, u32::saturating_add)
    }

    /// Says how many connections to the endpoint `worker` has idle. Only the worker's own thread may call this.
    pub fn set_idle(&self, worker: WorkerId, count: usize) {
        if let Some(slot) = self.slot(worker) {
            slot.idle.store(count, Ordering::Relaxed);
        }
    }

    /// How many connections to the endpoint each worker has idle, by worker; a moment old.
    pub fn idle(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().map(|slot| slot.idle.load(Ordering::Relaxed))
    }

    fn change(&self, worker: WorkerId, change: impl Fn(u32) -> u32) {
        if let Some(slot) = self.slot(worker) {
            // One writer per slot: nothing can come between the load and the store.
            slot.in_flight.store(change(slot.in_flight.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }

    fn slot(&self, worker: WorkerId) -> Option<&Slot> {
        let slot = self.slots.get(usize::from(worker.0));
        debug_assert!(slot.is_some(), "there is a slot for every worker");
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_flight_is_the_sum_over_the_workers() {
        let state = EndpointState::new(EndpointId(1), 3);
        state.begin(WorkerId(0));
        state.begin(WorkerId(2));
        state.begin(WorkerId(2));
        assert_eq!(state.in_flight(), 3);
        state.finish(WorkerId(2));
        assert_eq!(state.in_flight(), 2);
        assert_eq!(core::mem::size_of::<Slot>(), 128);
    }

    #[test]
    fn each_worker_says_what_it_has_idle() {
        let state = EndpointState::new(EndpointId(1), 3);
        state.set_idle(WorkerId(2), 5);
        state.set_idle(WorkerId(0), 1);
        state.set_idle(WorkerId(2), 4);
        assert!(state.idle().eq([1, 0, 4]));
    }

    #[test]
    fn a_resolved_endpoint_keeps_what_was_configured_for_its_name() {
        let name = DnsName { host: "pay.example".into(), port: 80 };
        let spec = EndpointSpec { priority: 1, ..EndpointSpec::new(name) };
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let resolved = spec.resolved(address);
        assert_eq!(resolved.address, Address::Socket(address));
        assert_eq!(resolved.hostname.as_deref(), Some("pay.example"));
        assert_eq!(resolved.priority, 1);
        let named = EndpointSpec { hostname: Some("other".into()), ..spec };
        assert_eq!(named.resolved(address).hostname.as_deref(), Some("other"));
    }

    #[test]
    fn ids_are_never_given_twice() {
        let mut ids = EndpointIds::default();
        assert!(ids.next_id() < ids.next_id());
    }
}
