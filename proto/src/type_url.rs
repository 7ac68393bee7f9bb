//! Type URLs of the resources we subscribe to and serve.

/// `envoy.config.listener.v3.Listener` (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration` (RDS).
pub const ROUTE_CONFIGURATION: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.cluster.v3.Cluster` (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
pub const CLUSTER_LOAD_ASSIGNMENT: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// Every type of a route's way through a proxy, in the order in which a control plane sends additions: what is named comes before what names it
/// (removals go the other way).
pub const MAKE_ORDER: [&str; 4] = [CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION];

#[cfg(test)]
mod tests {
    use prost::Name;

    use crate::pb::envoy::{config, extensions};

    #[test]
    fn the_constants_are_the_names_of_the_generated_types() {
        assert_eq!(super::LISTENER, config::listener::v3::Listener::type_url());
        assert_eq!(super::ROUTE_CONFIGURATION, config::route::v3::RouteConfiguration::type_url());
        assert_eq!(super::CLUSTER, config::cluster::v3::Cluster::type_url());
        assert_eq!(super::SECRET, extensions::transport_sockets::tls::v3::Secret::type_url());
        assert_eq!(super::CLUSTER_LOAD_ASSIGNMENT, config::endpoint::v3::ClusterLoadAssignment::type_url());
    }
}
