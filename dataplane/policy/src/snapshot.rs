//! Everything one worker needs to serve, immutable and versioned.
//!
//! A snapshot is made by `translate::assemble`, shared by all workers and swapped by pointer. It holds no state that
//! changes; what lives longer than one snapshot (endpoint state) it only points to.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::{fmt, net::SocketAddr, time::Duration};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    cluster::Cluster,
    filter_chain::FilterChains,
    network_filter::{HttpConnectionManager, RouteSource},
    route::RouteTable,
};

/// The accepted configuration as a whole.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every snapshot of this process.
    pub version: u64,
    /// Listeners by name.
    pub listeners: Named<Listener>,
    /// Route tables that listeners name (RDS), by name.
    pub route_tables: Named<RouteTable>,
    /// Clusters by name. Routes name clusters; a cluster that is not here is answered with 503.
    pub clusters: Named<Cluster>,
}

impl Snapshot {
    /// The route table of a connection manager; `None` when it is named and not known.
    pub fn routes_of<'a>(&'a self, manager: &'a HttpConnectionManager) -> Option<&'a RouteTable> {
        match &manager.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Named(name) => self.route_tables.get(name).map(|table| &**table),
        }
    }

    /// Whether the two share their listeners, their route tables and what is configured of their clusters, so that they
    /// differ in endpoints at most.
    pub fn shares_configuration_with(&self, other: &Snapshot) -> bool {
        self.listeners.is_like(&other.listeners, Arc::ptr_eq)
            && self.route_tables.is_like(&other.route_tables, Arc::ptr_eq)
            && self.clusters.is_like(&other.clusters, |one, two| Arc::ptr_eq(&one.config, &two.config))
    }
}

/// A listening address with what is done with its connections.
#[derive(Debug)]
pub struct Listener {
    /// Its xDS name.
    pub name: Arc<str>,
    /// Where it listens: its address and then the additional ones (Envoy: `additional_addresses`). At least one.
    pub addresses: Vec<Address>,
    /// Whether sockets are opened. Without, it only takes connections handed over by original destination.
    pub bind_to_port: bool,
    /// Names its metrics (`listener.<stat_prefix>.`); the address when the configuration gives none.
    pub stat_prefix: Arc<str>,
    /// What is read from a connection before a filter chain is picked.
    pub listener_filters: ListenerFilters,
    /// The filter chains.
    pub filter_chains: FilterChains,
}

/// What is read from a new connection before a filter chain is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerFilters {
    /// Read the ClientHello for server name, transport protocol and ALPN (`envoy.filters.listener.tls_inspector`).
    pub tls_inspector: bool,
    /// How long that may take; `None` is for ever.
    pub timeout: Option<Duration>,
    /// After the timeout go on with what is known instead of closing.
    pub continue_on_timeout: bool,
}

/// A transport address: of a listener or of an endpoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// IP address and port.
    Socket(SocketAddr),
    /// Path of a unix socket; a leading `@` is Linux's abstract namespace.
    Pipe(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Pipe(path) => path.fmt(f),
        }
    }
}

/// Values by name, with a position that is fixed for the life of the snapshot (counters are resolved to it).
///
/// The hash is seeded with a secret: the hosts of dynamic forward clusters are named by requests, and nobody shall choose
/// names that collide.
#[derive(Debug)]
pub struct Named<T> {
    entries: Vec<(Arc<str>, Arc<T>)>,
    positions: HashTable<u32>,
    seed: u64,
}

impl<T> Named<T> {
    /// Indexes `values`; positions follow the order of the names. `seed` seeds the hash.
    pub fn new(values: BTreeMap<Arc<str>, Arc<T>>, seed: u64) -> Named<T> {
        let entries: Vec<_> = values.into_iter().collect();
        let mut positions = HashTable::with_capacity(entries.len());
        for (position, (name, _)) in (0u32..).zip(&entries) {
            positions.insert_unique(hash(name, seed), position, |position| {
                entries.get(*position as usize).map_or(0, |(name, _)| hash(name, seed))
            });
        }
        Named { entries, positions, seed }
    }

    /// The position of `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        let is_it =
            |position: &u32| self.entries.get(*position as usize).is_some_and(|(known, _)| **known == *name);
        self.positions.find(hash(name, self.seed), is_it).map(|position| *position as usize)
    }

    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.at(self.position(name)?)
    }

    /// The value at a position.
    pub fn at(&self, position: usize) -> Option<&Arc<T>> {
        self.entries.get(position).map(|(_, value)| value)
    }

    /// All names and values, by position, so in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<T>)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    fn is_like(&self, other: &Named<T>, is_same: impl Fn(&Arc<T>, &Arc<T>) -> bool) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(one, two)| one.0 == two.0 && is_same(one.1, two.1))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for Named<T> {
    fn default() -> Named<T> {
        Named::new(BTreeMap::new(), 0)
    }
}

fn hash(name: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn every_name_is_found_at_its_position_and_no_other_name_is() {
        for seed in [0, 1, u64::MAX] {
            let values = (0..500).map(|i| (Arc::from(format!("cluster-{i}")), Arc::new(i))).collect();
            let named = Named::new(values, seed);
            assert_eq!(named.len(), 500);
            for i in 0..500 {
                let name = format!("cluster-{i}");
                assert_eq!(named.get(&name), Some(&Arc::new(i)));
                let position = named.position(&name).unwrap();
                assert_eq!(named.at(position), Some(&Arc::new(i)));
                assert_eq!(named.iter().nth(position).unwrap().0.as_ref(), name);
            }
            assert_eq!(named.get("cluster-500"), None);
            assert_eq!(named.get(""), None);
        }
        assert!(Named::<u8>::default().is_empty());
    }
}
