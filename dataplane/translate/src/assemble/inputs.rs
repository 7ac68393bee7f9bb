//! Where the endpoints of a cluster come from, and what they are then.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use policy::{
    cluster::{ClusterConfig, Discovery, Dns},
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
    /// up. Servers turn their answers round from one look-up to the next, so addresses are sorted: the same ones must not
    /// look like a change.
    pub(super) fn of_dns(dns: &Dns, known: Option<&LookedUp>, most: usize) -> Option<Inputs> {
        let hosts = dns.assignment.endpoints.iter().map(|endpoint| &endpoint.address.host);
        let used = hosts.map(|host| {
            let mut addresses: Vec<_> = known?.get(host)?.iter().take(most).copied().collect();
            addresses.sort_unstable();
            addresses.dedup();
            Some((host.clone(), addresses))
        });
        used.collect::<Option<_>>().map(Inputs::LookedUp)
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
