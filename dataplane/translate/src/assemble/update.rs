//! What was accepted: one change each.

use std::{net::IpAddr, sync::Arc};

use policy::{
    cluster::ClusterConfig, endpoint::Assignment, route::RouteTable, snapshot::Listener, tls::Secret,
};

use super::RejectedVersion;
use crate::{Origin, Referring};

/// One accepted change.
#[derive(Clone, Debug)]
pub enum Update {
    /// A listener, new or changed.
    Listener(Accepted<Referring<Listener>>),
    /// A route table by RDS, new or changed.
    RouteTable(Accepted<Referring<RouteTable>>),
    /// A cluster, new or changed.
    Cluster(Accepted<ClusterConfig>),
    /// The endpoints of clusters whose service name this is.
    Assignment(Accepted<Assignment>),
    /// A certificate or a trust bundle, new or changed.
    Secret(Accepted<Secret>),
    /// The resource is gone, never existed, or was not sent in time: nobody waits for it any longer.
    Absent {
        /// Its type.
        type_url: &'static str,
        /// Its name.
        name: String,
    },
    /// A version was refused; what served before goes on serving.
    Rejected {
        /// Its type.
        type_url: &'static str,
        /// Its name.
        name: String,
        /// Which version, and why.
        rejected: RejectedVersion,
    },
    /// The control plane's word for the state of all resources of a type (`system_version_info`).
    Revision {
        /// The type.
        type_url: &'static str,
        /// Its word.
        revision: String,
    },
    /// A host of a DNS cluster or a dynamic forward cluster was looked up. No address is an answer as well.
    Dns {
        /// The cluster.
        cluster: String,
        /// The host as the cluster names it, or as [`HostName`](policy::dynamic_host::HostName) has it.
        host: String,
        /// Its addresses; a logical DNS cluster uses the first.
        addresses: Vec<IpAddr>,
    },
    /// A host of a dynamic forward cluster that no request names any more.
    HostUnused {
        /// The cluster.
        cluster: Arc<str>,
        /// The host.
        host: Arc<str>,
    },
}

/// A translated resource with what identifies it.
#[derive(Debug)]
pub struct Accepted<T> {
    /// Its xDS name.
    pub name: Arc<str>,
    /// Its version, as the control plane calls it; empty for one of the bootstrap file.
    pub version: Arc<str>,
    /// Where it came from.
    pub origin: Origin,
    /// What it was translated to.
    pub value: Arc<T>,
}

impl<T> Clone for Accepted<T> {
    fn clone(&self) -> Accepted<T> {
        Accepted {
            name: self.name.clone(),
            version: self.version.clone(),
            origin: self.origin,
            value: self.value.clone(),
        }
    }
}
