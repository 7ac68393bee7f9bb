//! Clusters: what the configuration says of one, joined with its endpoints.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use crate::{
    Rng,
    address::Address,
    balance::{EndpointSet, PickState},
    dynamic_host::DynamicHost,
    endpoint::{Assignment, Endpoint, EndpointId, EndpointIds, EndpointState},
    limits,
    named::Named,
};

pub(crate) mod config;

pub use config::{Balance, ClusterConfig, Discovery, Dns, DnsCache, DnsFamily, UpstreamProtocol};

/// A cluster as a worker uses it: configuration and endpoints.
#[derive(Debug)]
pub struct Cluster {
    /// What CDS says.
    pub config: Arc<ClusterConfig>,
    /// What CDS, EDS or DNS says of its endpoints, ready to pick from. None in a dynamic forward cluster.
    pub endpoints: EndpointSet,
    /// The hosts of a dynamic forward cluster that were looked up, by [`HostName`](crate::dynamic_host::HostName).
    pub hosts: Named<DynamicHost>,
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
        let previous = previous.map(|cluster| &cluster.endpoints);
        let endpoints = endpoints(&config, assignment, previous, ids, workers);
        Cluster { config, endpoints, hosts: Named::default() }
    }

    /// A dynamic forward cluster with what was looked up of its hosts; `seed` seeds the hash of their names. A host that
    /// `previous` has with the very same addresses stays the same host, and an address of a host keeps its state.
    pub fn assemble_dynamic(
        config: Arc<ClusterConfig>,
        assignments: BTreeMap<Arc<str>, Assignment>,
        previous: Option<&Cluster>,
        ids: &mut EndpointIds,
        (workers, seed): (usize, u64),
    ) -> Cluster {
        // What carries the bytes to an endpoint is part of it.
        let previous_alike = previous.filter(|cluster| cluster.config.transport == config.transport);
        let hosts = assignments.into_iter().map(|(name, assignment)| {
            let before = previous.and_then(|cluster| cluster.hosts.get(&name));
            if let Some(before) = before
                && previous_alike.is_some()
                && before.endpoints.all().iter().map(|endpoint| &endpoint.spec).eq(&assignment.endpoints)
            {
                return (name, before.clone());
            }
            let before = before.map(|host| &host.endpoints);
            let host = DynamicHost::new(endpoints(&config, &assignment, before, ids, workers));
            (name, Arc::new(host))
        });
        let hosts = Named::new(hosts.collect(), seed);
        let endpoints = EndpointSet::new(&config, Vec::new(), limits::OVERPROVISIONING_PERCENT_DEFAULT);
        Cluster { config, endpoints, hosts }
    }

    /// Every endpoint, those of dynamic hosts as well.
    pub fn all_endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let of_hosts = self.hosts.iter().flat_map(|(_, host)| host.endpoints.all());
        self.endpoints.all().iter().chain(of_hosts)
    }

    /// An endpoint for an exchange: of `host`, the one that the request names, in a dynamic forward cluster. `None` when
    /// there is none to use that is not in `avoid`, which holds those that the exchange has failed to connect to.
    /// `state` is this worker's for this cluster.
    pub fn pick_endpoint<'a>(
        &'a self,
        host: Option<&'a DynamicHost>,
        state: &mut PickState,
        rng: &mut Rng,
        avoid: &[EndpointId],
    ) -> Option<&'a Endpoint> {
        let endpoints = host.map_or(&self.endpoints, |host| &host.endpoints);
        endpoints.pick(self.config.balance, state, rng, avoid)
    }
}

/// The endpoints of `assignment`; one whose address `previous` has too keeps its state.
fn endpoints(
    config: &ClusterConfig,
    assignment: &Assignment,
    previous: Option<&EndpointSet>,
    ids: &mut EndpointIds,
    workers: usize,
) -> EndpointSet {
    let previous = previous.map(EndpointSet::all).unwrap_or_default();
    let known = previous.iter().map(|endpoint| (&endpoint.spec.address, &endpoint.state));
    let mut states: BTreeMap<&Address, Arc<EndpointState>> =
        known.map(|(address, state)| (address, state.clone())).collect();
    let mut endpoints = Vec::with_capacity(assignment.endpoints.len());
    for spec in &assignment.endpoints {
        let new = || Arc::new(EndpointState::new(ids.next_id(), workers));
        let state = states.entry(&spec.address).or_insert_with(new).clone();
        let tls = config.transport.of(&spec.labels).cloned();
        endpoints.push(Endpoint { spec: spec.clone(), state, tls });
    }
    EndpointSet::new(config, endpoints, assignment.overprovisioning_percent)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
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

    #[test]
    fn a_dynamic_host_stays_itself_until_its_addresses_change_and_shares_nothing_with_another() {
        let cache = DnsCache {
            refresh_rate: Duration::from_secs(60),
            family: DnsFamily::default(),
            host_ttl: Duration::from_secs(300),
            hosts_max: 10,
            query_timeout: Duration::from_secs(5),
        };
        let config = Arc::new(ClusterConfig::new("c".into(), Discovery::DynamicForward(cache)));
        let mut ids = EndpointIds::default();
        let mut assemble = |previous: Option<&Cluster>, hosts: &[(&str, &[&str])]| {
            let hosts = hosts.iter().map(|(name, addresses)| {
                let endpoints = addresses.iter().map(|address| at(address)).collect();
                (Arc::from(*name), assignment(endpoints))
            });
            Cluster::assemble_dynamic(config.clone(), hosts.collect(), previous, &mut ids, (1, 7))
        };
        let first = assemble(None, &[("a:80", &["10.0.0.1:80"]), ("b:80", &["10.0.0.1:80"]), ("no:80", &[])]);
        let ids: Vec<_> = first.all_endpoints().map(|endpoint| endpoint.state.id()).collect();
        assert_eq!(ids.len(), 2);
        assert_ne!(ids[0], ids[1], "one address of two hosts is two endpoints");
        let a = first.hosts.get("a:80").unwrap();
        assert!(!a.take_use());
        a.note_use();

        let more: [(&str, &[&str]); 2] =
            [("a:80", &["10.0.0.1:80"]), ("b:80", &["10.0.0.2:80", "10.0.0.1:80"])];
        let second = assemble(Some(&first), &more);
        let same = second.hosts.get("a:80").unwrap();
        assert!(Arc::ptr_eq(a, same) && same.take_use() && !same.take_use());
        let b = second.hosts.get("b:80").unwrap();
        assert_eq!(b.endpoints.all()[1].state.id(), ids[1], "an address that stays keeps its state");
        assert!(second.hosts.get("no:80").is_none());
    }
}
