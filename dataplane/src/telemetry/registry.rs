//! Every counter block of every worker, by name, on the control thread.
//!
//! A block is made when a snapshot first has its name, and carried over from snapshot to snapshot, so counters never fall
//! back. It goes when no snapshot in use has it, so removed clusters leave nothing behind.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use policy::{
    Rng, balance::PickState, network_filter::NetworkFilter, route::RouteScratch, snapshot::Snapshot,
};

use super::metrics::{ClusterStats, Counter, HttpStats, ListenerStats, RbacCounters, TcpCounters};
use crate::{
    admission::Gate,
    tls::{BoundTls, TlsConfigs},
    worker::{Bound, BoundCluster},
};

/// Blocks of one kind: name to one block per worker.
pub type Blocks<T> = BTreeMap<Arc<str>, Vec<Arc<T>>>;

/// The blocks of all workers.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    /// By cluster.
    pub clusters: Blocks<ClusterStats>,
    /// By `stat_prefix` of the connection manager.
    pub http: Blocks<HttpStats>,
    /// By `stat_prefix` of the TCP proxy.
    pub tcp: Blocks<TcpCounters>,
    /// By `stat_prefix` of the filter that says who may connect.
    pub rbac: Blocks<RbacCounters>,
    /// By `stat_prefix` of the listener.
    pub listeners: Blocks<ListenerStats>,
    /// By key of the connection limit: its `stat_prefix`, and the count that all workers share.
    pub gates: BTreeMap<Arc<str>, (Arc<str>, Arc<Gate>)>,
    tls: TlsConfigs,
}

impl Registry {
    /// For this many workers; without blocks.
    pub fn new(workers: usize) -> Registry {
        Registry {
            workers,
            clusters: Blocks::new(),
            http: Blocks::new(),
            tcp: Blocks::new(),
            rbac: Blocks::new(),
            listeners: Blocks::new(),
            gates: BTreeMap::new(),
            tls: TlsConfigs::default(),
        }
    }

    /// Exchanges that run now.
    pub fn exchanges(&self) -> u64 {
        self.http_sum(|stats| &stats.counters.downstream_rq_active)
    }

    /// Connections that speak HTTP now.
    pub fn http_connections(&self) -> u64 {
        self.http_sum(|stats| &stats.counters.downstream_cx_active)
    }

    fn http_sum(&self, gauge: impl Fn(&HttpStats) -> &Counter) -> u64 {
        self.http.values().flatten().map(|stats| gauge(stats).get()).fold(0, u64::wrapping_add)
    }

    /// A snapshot with each worker's counters, in the order of the workers.
    pub fn bind(&mut self, snapshot: &Arc<Snapshot>, rng: &mut Rng) -> Vec<Box<Bound>> {
        self.prune(snapshot);
        let tls = self.tls.bind(snapshot);
        (0..self.workers).map(|worker| Box::new(self.bind_one(worker, (snapshot, &tls), rng))).collect()
    }

    fn bind_one(
        &mut self,
        worker: usize,
        (snapshot, tls): (&Arc<Snapshot>, &Arc<BoundTls>),
        rng: &mut Rng,
    ) -> Bound {
        let Registry { workers, clusters, http, tcp, rbac, listeners, gates, .. } = self;
        let bound_clusters = snapshot.clusters.iter().map(|(name, cluster)| BoundCluster {
            stats: block(clusters, *workers, name, worker),
            pick: RefCell::new(PickState::new(&cluster.endpoints, rng)),
        });
        let mut bound = Bound {
            snapshot: snapshot.clone(),
            clusters: bound_clusters.collect(),
            listeners: Vec::with_capacity(snapshot.listeners.len()),
            http: hashbrown::HashMap::new(),
            tcp: hashbrown::HashMap::new(),
            rbac: hashbrown::HashMap::new(),
            gates: hashbrown::HashMap::new(),
            tls: tls.clone(),
            scratch: RefCell::new(RouteScratch::default()),
        };
        for (_, listener) in snapshot.listeners.iter() {
            bound.listeners.push(block(listeners, *workers, &listener.stat_prefix, worker));
            for chain in listener.filter_chains.iter() {
                if let Some(limit) = &chain.connection_limit {
                    let new = || (limit.stat_prefix.clone(), Arc::default());
                    let (prefix, gate) = gates.entry(limit.key.clone()).or_insert_with(new);
                    *prefix = limit.stat_prefix.clone();
                    bound.gates.insert(limit.key.clone(), gate.clone());
                }
                for filter in chain.rbac.iter() {
                    let name = &filter.stat_prefix;
                    bound.rbac.insert(name.clone(), block(rbac, *workers, name, worker));
                }
                match &chain.filter {
                    NetworkFilter::HttpConnectionManager(manager) => {
                        let name = &manager.stat_prefix;
                        bound.http.insert(name.clone(), block(http, *workers, name, worker));
                    }
                    NetworkFilter::TcpProxy(proxy) => {
                        let name = &proxy.stat_prefix;
                        bound.tcp.insert(name.clone(), block(tcp, *workers, name, worker));
                    }
                }
            }
        }
        bound
    }

    /// Drops blocks that `snapshot` does not have and that no worker holds any more.
    fn prune(&mut self, snapshot: &Snapshot) {
        retain_held(&mut self.clusters, |name| snapshot.clusters.position(name).is_some());
        // What listeners name is bound again right after this; a block that only waits for it is empty or idle.
        retain_held(&mut self.listeners, |name| {
            snapshot.listeners.iter().any(|(_, of)| *of.stat_prefix == *name)
        });
        let chains = || snapshot.listeners.iter().flat_map(|(_, listener)| listener.filter_chains.iter());
        let limits = || chains().filter_map(|chain| chain.connection_limit.as_ref());
        self.gates.retain(|key, (_, gate)| {
            Arc::strong_count(gate) > 1 || limits().any(|limit| *limit.key == **key)
        });
        let filters = || chains().map(|chain| &chain.filter);
        retain_held(&mut self.http, |name| {
            filters().any(|filter| matches!(filter, NetworkFilter::HttpConnectionManager(of) if *of.stat_prefix == *name))
        });
        retain_held(&mut self.rbac, |name| {
            chains().flat_map(|chain| &*chain.rbac).any(|filter| *filter.stat_prefix == *name)
        });
        retain_held(&mut self.tcp, |name| {
            filters().any(|filter| matches!(filter, NetworkFilter::TcpProxy(of) if *of.stat_prefix == *name))
        });
    }
}

fn block<T: Default>(blocks: &mut Blocks<T>, workers: usize, name: &Arc<str>, worker: usize) -> Arc<T> {
    let of_name =
        blocks.entry(name.clone()).or_insert_with(|| (0..workers).map(|_| Arc::default()).collect());
    of_name.get(worker).cloned().unwrap_or_default()
}

fn retain_held<T>(blocks: &mut Blocks<T>, is_named: impl Fn(&str) -> bool) {
    // A block held by an exchange of an older snapshot still counts.
    blocks.retain(|name, blocks| blocks.iter().any(|block| Arc::strong_count(block) > 1) || is_named(name));
}

#[cfg(test)]
mod tests {
    use policy::{
        cluster::{Cluster, ClusterConfig, Discovery},
        endpoint::{Assignment, EndpointIds},
        snapshot::Named,
    };

    use super::*;

    fn snapshot(clusters: &[&str]) -> Arc<Snapshot> {
        let assignment = Assignment { endpoints: Vec::new(), overprovisioning_percent: 140 };
        let cluster = |name: &&str| {
            let config = ClusterConfig::new((*name).into(), Discovery::Static(assignment.clone()));
            let cluster =
                Cluster::assemble(Arc::new(config), &assignment, None, &mut EndpointIds::default(), 1);
            (Arc::from(*name), Arc::new(cluster))
        };
        Arc::new(Snapshot {
            version: 1,
            listeners: Named::default(),
            route_tables: Named::default(),
            clusters: Named::new(clusters.iter().map(cluster).collect(), 0),
            secrets: Named::default(),
        })
    }

    #[test]
    fn counters_go_on_while_their_cluster_is_there_and_go_with_it() {
        let mut registry = Registry::new(2);
        let mut rng = Rng::new(1);
        let first = registry.bind(&snapshot(&["a", "b"]), &mut rng);
        first[0].cluster("b").unwrap().1.stats.counters.upstream_rq_total.add(3);
        first[1].cluster("b").unwrap().1.stats.counters.upstream_rq_total.add(4);
        let second = registry.bind(&snapshot(&["b"]), &mut rng);
        let total = |registry: &Registry, name: &str| {
            let blocks = registry.clusters.get(name)?;
            Some(blocks.iter().map(|block| block.counters.upstream_rq_total.get()).sum::<u64>())
        };
        assert_eq!(total(&registry, "b"), Some(7));
        assert_eq!(total(&registry, "a"), Some(0), "the first snapshot is still in use");
        drop(first);
        let third = registry.bind(&snapshot(&["b"]), &mut rng);
        assert_eq!((total(&registry, "a"), total(&registry, "b")), (None, Some(7)));
        drop((second, third));
    }
}
