//! Everything one worker needs to serve, immutable and versioned.
//!
//! A snapshot is made by `translate::assemble`, shared by all workers and swapped by pointer. It holds no state that
//! changes; what lives longer than one snapshot (endpoint state) it only points to.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use wire::proxy_protocol::Accepted;

use crate::{
    cluster::Cluster,
    filter_chain::FilterChains,
    network_filter::{HttpConnectionManager, RouteSource},
    route::RouteTable,
    tls::Secret,
};

pub use crate::{address::Address, named::Named};

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
    /// Certificates and trust bundles that listeners and clusters name.
    pub secrets: Named<Secret>,
}

impl Snapshot {
    /// The route table of a connection manager; `None` when it is named and not known.
    pub fn routes_of<'a>(&'a self, manager: &'a HttpConnectionManager) -> Option<&'a RouteTable> {
        match &manager.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Named(name) => self.route_tables.get(name).map(|table| &**table),
        }
    }

    /// Whether the two share their listeners.
    pub fn shares_listeners_with(&self, other: &Snapshot) -> bool {
        self.listeners.is_like(&other.listeners, Arc::ptr_eq)
    }

    /// Whether the two ask the same of whoever connects: they share their listeners, and the secrets by which clients are
    /// judged.
    pub fn asks_the_same_as(&self, other: &Snapshot) -> bool {
        self.shares_listeners_with(other) && self.secrets.is_like(&other.secrets, Arc::ptr_eq)
    }

    /// Whether the two share their listeners, their route tables and what is configured of their clusters, so that they
    /// differ in endpoints at most.
    pub fn shares_configuration_with(&self, other: &Snapshot) -> bool {
        self.shares_listeners_with(other)
            && self.route_tables.is_like(&other.route_tables, Arc::ptr_eq)
            && self.clusters.is_like(&other.clusters, |one, two| Arc::ptr_eq(&one.config, &two.config))
            && self.secrets.is_like(&other.secrets, Arc::ptr_eq)
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
    /// What the kernel may hold of each of its connections that it has not sent yet, in bytes; 0 is no limit (Envoy:
    /// `per_connection_buffer_limit_bytes`).
    pub unsent_bytes_max: u32,
    /// Names its metrics (`listener.<stat_prefix>.`); the address when the configuration gives none.
    pub stat_prefix: Arc<str>,
    /// What is read from a connection before a filter chain is picked.
    pub listener_filters: ListenerFilters,
    /// The filter chains.
    pub filter_chains: FilterChains,
}

/// What is read from a new connection before a filter chain is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ListenerFilters {
    /// Read a PROXY protocol header, before anything else (`envoy.filters.listener.proxy_protocol`). What it says is then
    /// what is known of the connection's addresses.
    pub proxy_protocol: Option<Accepted>,
    /// Read the ClientHello for server name, transport protocol and ALPN (`envoy.filters.listener.tls_inspector`).
    pub tls_inspector: bool,
    /// Look whether HTTP is spoken where there is no ClientHello, and which (`envoy.filters.listener.http_inspector`).
    pub http_inspector: bool,
    /// How long all that may take; `None` is for ever.
    pub timeout: Option<Duration>,
    /// After the timeout go on with what is known instead of closing.
    pub continue_on_timeout: bool,
}

impl ListenerFilters {
    /// Whether anything is read.
    pub fn is_any(&self) -> bool {
        self.proxy_protocol.is_some() || self.tls_inspector || self.http_inspector
    }

    /// Whether a connection may turn out to speak a protocol that nobody looks for, in which the server may be the one that
    /// speaks first.
    pub fn may_be_opaque(&self) -> bool {
        self.continue_on_timeout && (self.tls_inspector || self.http_inspector)
    }
}
