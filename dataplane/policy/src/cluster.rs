//! Clusters: what the configuration says of one, joined with its endpoints.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::time::Duration;

use crate::{
    Rng,
    balance::{EndpointSet, PickState},
    endpoint::{Assignment, DnsName, Endpoint, EndpointId, EndpointIds, EndpointState},
    limits,
    snapshot::Address,
};

/// A cluster as a worker uses it: configuration and endpoints.
#[derive(Debug)]
pub struct Cluster {
    /// What CDS says.
    pub config: Arc<ClusterConfig>,
    /// What CDS, EDS or DNS says of its endpoints, ready to pick from.
    pub endpoints: EndpointSet,
}

/// What the configuration says of a cluster, its endpoints aside (Envoy: `Cluster`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Time for one connect.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Share of healthy endpoints below which health is ignored, in percent; 0 is never.
    pub panic_threshold_percent: u8,
    /// Whether load is shared among localities by their weights (Envoy: `locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// How long an upstream connection may wait in the pool; `None` is for ever.
    pub idle_timeout: Option<Duration>,
}

/// Where a cluster's endpoints come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// From the cluster itself.
    Static(Assignment),
    /// From EDS, under this name.
    Eds {
        /// The name to ask for; the cluster's own unless configured otherwise.
        service_name: Arc<str>,
    },
    /// From DNS: every address of every name is an endpoint.
    StrictDns(Dns),
    /// From DNS: the one address that was answered first is the endpoint.
    LogicalDns(Dns),
}

/// How names are resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// The names.
    pub assignment: Assignment<DnsName>,
    /// Time between two look-ups.
    pub refresh_rate: Duration,
    /// Use the time to live of the answer instead.
    pub respect_ttl: bool,
    /// Which addresses are wanted.
    pub family: DnsFamily,
}

/// Which addresses of a name are wanted (Envoy: `DnsLookupFamily`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DnsFamily {
    /// IPv6, and IPv4 only if there is none (Envoy: `AUTO`, its default).
    #[default]
    V6Preferred,
    /// IPv4, and IPv6 only if there is none.
    V4Preferred,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// Both.
    All,
}

/// How an endpoint is chosen. All of them honour the endpoints' weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// At random.
    Random,
    /// The one with the fewest exchanges in flight of this many different ones, chosen at random.
    LeastRequest {
        /// From 2 to [`limits::LEAST_REQUEST_CHOICES_MAX`].
        choices: usize,
    },
}

impl ClusterConfig {
    /// A cluster with every default.
    pub fn new(name: Arc<str>, discovery: Discovery) -> ClusterConfig {
        ClusterConfig {
            name,
            discovery,
            connect_timeout: limits::CONNECT_TIMEOUT_DEFAULT,
            balance: Balance::default(),
            panic_threshold_percent: limits::PANIC_THRESHOLD_PERCENT_DEFAULT,
            locality_weighted: false,
            idle_timeout: Some(limits::UPSTREAM_IDLE_TIMEOUT_DEFAULT),
        }
    }
}

impl Cluster {
    /// Joins a cluster with its endpoints. An address that `previous`, the cluster of the same name before, has too
    /// keeps its state and so its pooled connections; others get a new one from `ids`, with a slot for each of `workers`.
    pub fn assemble(
        config: Arc<ClusterConfig>,
        assignment: &Assignment,
        previous: Option<&Cluster>,
        ids: &mut EndpointIds,
        workers: usize,
    ) -> Cluster {
        let previous = previous.map(|cluster| cluster.endpoints.all()).unwrap_or_default();
        let known = previous.iter().map(|endpoint| (&endpoint.spec.address, &endpoint.state));
        let mut states: BTreeMap<&Address, Arc<EndpointState>> =
            known.map(|(address, state)| (address, state.clone())).collect();
        let mut endpoints = Vec::with_capacity(assignment.endpoints.len());
        for spec in &assignment.endpoints {
            let new = || Arc::new(EndpointState::new(ids.next_id(), workers));
            let state = states.entry(&spec.address).or_insert_with(new).clone();
            endpoints.push(Endpoint { spec: spec.clone(), state });
        }
        let endpoints = EndpointSet::new(&config, endpoints, assignment.overprovisioning_percent);
        Cluster { config, endpoints }
    }

    /// An endpoint for an exchange; `None` when there is none to use that is not in `avoid`, which holds those that the
    /// exchange has failed to connect to. `state` is this worker's for this cluster.
    pub fn pick_endpoint(
        &self,
        state: &mut PickState,
        rng: &mut Rng,
        avoid: &[EndpointId],
    ) -> Option<&Endpoint> {
        self.endpoints.pick(self.config.balance, state, rng, avoid)
    }
}

#[cfg(test)]
mod tests {
    use std::{string::ToString, vec};

    use super::*;
    use crate::endpoint::{EndpointSpec, Health, WorkerId};

    fn assignment(endpoints: Vec<EndpointSpec>) -> Assignment {
        Assignment { endpoints, overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT }
    }

    fn at(address: &str) -> EndpointSpec {
        EndpointSpec::new(Address::Socket(address.parse().unwrap()))
    }

    #[test]
    fn an_address_that_stays_keeps_its_state_and_one_that_comes_back_does_not() {
        let config = Arc::new(ClusterConfig::new("c".into(), Discovery::Eds { service_name: "c".into() }));
        let mut ids = EndpointIds::default();
        let mut assemble = |previous: Option<&Cluster>, endpoints| {
            Cluster::assemble(config.clone(), &assignment(endpoints), previous, &mut ids, 1)
        };
        let first = assemble(None, vec![at("10.0.0.1:80"), at("10.0.0.2:80")]);
        first.endpoints.all()[1].state.begin(WorkerId(0));
        let moved = EndpointSpec { health: Health::Draining, priority: 1, ..at("10.0.0.2:80") };
        let second = assemble(Some(&first), vec![moved, at("10.0.0.3:80")]);
        assert!(Arc::ptr_eq(&first.endpoints.all()[1].state, &second.endpoints.all()[0].state));
        assert_eq!(second.endpoints.all()[0].state.in_flight(), 1);
        let third = assemble(Some(&second), vec![at("10.0.0.1:80"), at("10.0.0.1:80")]);
        let [one, same] = third.endpoints.all() else { panic!("both are kept") };
        assert!(Arc::ptr_eq(&one.state, &same.state), "one address has one state");
        assert_ne!(one.state.id(), first.endpoints.all()[0].state.id());
        assert_eq!(one.spec.address.to_string(), "10.0.0.1:80");
    }
}
