//! Where the endpoints of a cluster come from, and what they are then.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use policy::{
    cluster::{ClusterConfig, Discovery, Dns},
    dynamic_host::HostName,
    endpoint::{Assignment, DnsName, EndpointSpec},
    limits,
};

use super::Accepted;

/// The addresses of hosts, by name, as they were answered.
pub(super) type LookedUp = BTreeMap<Arc<str>, Arc<[IpAddr]>>;

/// Where a cluster's endpoints come from. The same inputs make the same endpoints.
#[derive(Clone, Debug)]
pub(super) enum Inputs {
    /// The cluster's own assignment, or one that does not exist and is taken as empty.
    Own,
    Assignment(Accepted<Assignment>),
    /// The addresses that are used, in an order that does not depend on the answer's.
    LookedUp(BTreeMap<Arc<str>, Vec<IpAddr>>),
}

impl Inputs {
    /// What of the answers for `dns` is used: the first `most` addresses of each name. `None` while a name was not looked
    /// up.
    ///
    /// A logical DNS cluster moves to the first address of an answer also when the one it had is still in it, as Envoy
    /// does. Envoy's older implementation lets the connections to the former address live until they end by themselves,
    /// its newer one replaces the endpoint as Ringway does. An answer that is another one in its order alone never comes
    /// here.
    pub(super) fn of_dns(dns: &Dns, known: Option<&LookedUp>, most: usize) -> Option<Inputs> {
        let hosts = dns.assignment.endpoints.iter().map(|endpoint| &endpoint.address.host);
        let used = hosts.map(|host| Some((host.clone(), in_order(known?.get(host)?, most))));
        used.collect::<Option<_>>().map(Inputs::LookedUp)
    }

    /// All hosts of a dynamic forward cluster that were looked up so far.
    pub(super) fn of_hosts(known: Option<&LookedUp>) -> Inputs {
        let hosts = known.into_iter().flatten();
        Inputs::LookedUp(
            hosts.map(|(host, addresses)| (host.clone(), in_order(addresses, usize::MAX))).collect(),
        )
    }

    /// Whether these are the very same inputs.
    pub(super) fn are(&self, other: &Inputs) -> bool {
        match (self, other) {
            (Inputs::Own, Inputs::Own) => true,
            (Inputs::Assignment(one), Inputs::Assignment(two)) => Arc::ptr_eq(&one.value, &two.value),
            (Inputs::LookedUp(one), Inputs::LookedUp(two)) => one == two,
            _ => false,
        }
    }

    /// The endpoints of each host of a dynamic forward cluster with these inputs.
    pub(super) fn of_each_host(&self) -> BTreeMap<Arc<str>, Assignment> {
        let Inputs::LookedUp(hosts) = self else { return BTreeMap::new() };
        let assignment = |(name, addresses): (&Arc<str>, &Vec<IpAddr>)| {
            let host = HostName::parse(name.as_bytes())?;
            let named = EndpointSpec::new(DnsName { host: host.host().into(), port: host.port });
            let endpoints = addresses.iter().map(|ip| named.resolved(SocketAddr::new(*ip, host.port)));
            let overprovisioning_percent = limits::OVERPROVISIONING_PERCENT_DEFAULT;
            Some((name.clone(), Assignment { endpoints: endpoints.collect(), overprovisioning_percent }))
        };
        hosts.iter().filter_map(assignment).collect()
    }

    /// The endpoints of a cluster with these inputs.
    pub(super) fn assignment(&self, cluster: &ClusterConfig) -> Arc<Assignment> {
        match (self, &cluster.discovery) {
            (Inputs::Assignment(assignment), _) => assignment.value.clone(),
            (_, Discovery::Static(assignment)) => Arc::new(assignment.clone()),
            (Inputs::LookedUp(addresses), Discovery::StrictDns(dns) | Discovery::LogicalDns(dns)) => {
                looked_up(dns, addresses)
            }
            _ => Arc::new(Assignment {
                endpoints: Vec::new(),
                overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT,
            }),
        }
    }
}

/// The first `most` addresses of an answer, sorted. Servers turn their answers round from one look-up to the next: the same
/// addresses must not look like a change.
fn in_order(addresses: &[IpAddr], most: usize) -> Vec<IpAddr> {
    let mut addresses: Vec<_> = addresses.iter().take(most).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The endpoints at the addresses of each name; no more than a cluster may have, whatever the answers say.
fn looked_up(dns: &Dns, addresses: &BTreeMap<Arc<str>, Vec<IpAddr>>) -> Arc<Assignment> {
    let resolved = |endpoint: &EndpointSpec<DnsName>| {
        let found = addresses.get(&endpoint.address.host).map(Vec::as_slice).unwrap_or_default();
        let port = endpoint.address.port;
        let at = |ip: &IpAddr| endpoint.resolved(SocketAddr::new(*ip, port));
        found.iter().map(at).collect::<Vec<_>>()
    };
    let all = dns.assignment.endpoints.iter().flat_map(resolved);
    Arc::new(Assignment {
        endpoints: all.take(limits::ENDPOINTS_PER_CLUSTER_MAX).collect(),
        overprovisioning_percent: dns.assignment.overprovisioning_percent,
    })
}
