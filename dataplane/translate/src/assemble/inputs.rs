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

/// The addresses of hosts, by name.
pub(super) type LookedUp = BTreeMap<Arc<str>, Arc<[IpAddr]>>;

/// Where a cluster's endpoints come from. The same inputs make the same endpoints.
#[derive(Clone, Debug)]
pub(super) enum Inputs {
    /// The cluster's own assignment, or one that does not exist and is taken as empty.
    Own,
    Assignment(Accepted<Assignment>),
    LookedUp(LookedUp),
}

impl Inputs {
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
            (Inputs::LookedUp(addresses), Discovery::StrictDns(dns)) => looked_up(dns, addresses, usize::MAX),
            (Inputs::LookedUp(addresses), Discovery::LogicalDns(dns)) => looked_up(dns, addresses, 1),
            _ => Arc::new(Assignment {
                endpoints: Vec::new(),
                overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT,
            }),
        }
    }
}

/// The endpoints at the first `most` addresses of each name.
fn looked_up(dns: &Dns, addresses: &LookedUp, most: usize) -> Arc<Assignment> {
    let resolved = |endpoint: &EndpointSpec<DnsName>| {
        let found = addresses.get(&endpoint.address.host).map(|found| &**found).unwrap_or_default();
        let port = endpoint.address.port;
        let at = |ip: &IpAddr| endpoint.resolved(SocketAddr::new(*ip, port));
        found.iter().take(most).map(at).collect::<Vec<_>>()
    };
    Arc::new(Assignment {
        endpoints: dns.assignment.endpoints.iter().flat_map(resolved).collect(),
        overprovisioning_percent: dns.assignment.overprovisioning_percent,
    })
}
