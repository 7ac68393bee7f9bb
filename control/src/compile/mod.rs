//! From the [`Model`] and one client to the xDS resources that client gets. Pure: the same inputs give the same
//! bytes on every replica, so a resource's version is the hash of its content.
//!
//! What does not depend on the client (clusters, endpoints, the routes of a gateway or of a namespace) is encoded
//! once per model and shared by the views of all clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Model;

mod client;
mod resource;

pub use client::{Client, ClientError, GatewayClient, Sidecar, To};
pub use resource::{Resource, Served};

/// Resources of one type by name.
pub type Resources = BTreeMap<Arc<str>, Arc<Resource>>;

/// Everything one client may subscribe to: the whole answer to its wildcard subscriptions, and what its named ones
/// choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// `envoy.config.cluster.v3.Cluster`.
    pub clusters: Resources,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`, named as the cluster that uses it.
    pub endpoints: Resources,
    /// `envoy.config.listener.v3.Listener`.
    pub listeners: Resources,
    /// `envoy.config.route.v3.RouteConfiguration`.
    pub routes: Resources,
}

impl View {
    /// The resources of the type with this URL; `None` for a type we do not serve.
    pub fn of_type(&self, type_url: &str) -> Option<&Resources> {
        match type_url {
            proto::type_url::CLUSTER => Some(&self.clusters),
            proto::type_url::CLUSTER_LOAD_ASSIGNMENT => Some(&self.endpoints),
            proto::type_url::LISTENER => Some(&self.listeners),
            proto::type_url::ROUTE_CONFIGURATION => Some(&self.routes),
            _ => None,
        }
    }
}

/// What `client` gets of `model`.
pub fn compile(_model: &Model, _client: &Client) -> View {
    View::default()
}
