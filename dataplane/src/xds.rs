//! One configuration change, forward only: `transport` (a gRPC stream) → `session` (pure: nonces, subscriptions,
//! versions) → `translate` → ACK or NACK at once → `translate::assemble` (until warm) → `publish` → each worker adopts.
//!
//! The control plane is authenticated but may be wrong: what it sends can be refused, resource by resource, and
//! never stops what already serves.

pub mod backoff;
pub mod outage;
pub mod publish;
pub mod session;
pub mod sockets;
pub mod transport;

use proto::type_url;

/// The types of resources that a control plane can send.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    RouteTable,
    /// SDS.
    Secret,
}

impl Kind {
    /// All of them, what is named before what names it.
    pub const ALL: [Kind; 5] =
        [Kind::Secret, Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::RouteTable];

    /// Those that are asked for by name.
    pub const NAMED: [Kind; 3] = [Kind::Secret, Kind::Endpoints, Kind::RouteTable];

    /// The type URL.
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Cluster => type_url::CLUSTER,
            Kind::Endpoints => type_url::CLUSTER_LOAD_ASSIGNMENT,
            Kind::Listener => type_url::LISTENER,
            Kind::RouteTable => type_url::ROUTE_CONFIGURATION,
            Kind::Secret => type_url::SECRET,
        }
    }

    /// The kind of a type URL.
    pub fn of(type_url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// What operators call it: `cluster`, `endpoints`, `listener`, `route table`, `secret`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Cluster => "cluster",
            Kind::Endpoints => "endpoints",
            Kind::Listener => "listener",
            Kind::RouteTable => "route table",
            Kind::Secret => "secret",
        }
    }

    /// Whether everything there is of it is asked for, not single names.
    pub fn is_wildcard(self) -> bool {
        matches!(self, Kind::Cluster | Kind::Listener)
    }
}
