//! One encoded xDS resource: bytes and version made once, shared by everyone who sends them.

use std::sync::Arc;

use bytes::Bytes;
use prost::{Message, Name, encoding};
use proto::ads;
use proto::pb::envoy::config::listener::v3::filter::ConfigType;
use proto::pb::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
    route::v3::RouteConfiguration,
};
use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use proto::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use proto::pb::google::protobuf::Any;

/// One encoded xDS resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name clients subscribe to.
    pub name: Arc<str>,
    /// xxh3-64 of `bytes`, 16 lower-case hexadecimal digits: equal content has equal versions on every replica and
    /// after every restart.
    pub version: Arc<str>,
    /// The encoded `google.protobuf.Any` with the resource inside.
    pub bytes: Bytes,
    /// `bytes` in the envelope with name and version, as [`ads::EncodedDeltaResponse::resources`] takes it. Both
    /// are the same memory.
    pub envelope: Bytes,
    /// Resources of another type that this one names, and that a client asks for once it has this one: the endpoints
    /// of a cluster, the route configurations of a listener.
    pub children: Vec<Arc<str>>,
}

/// A message that is served as a resource.
pub trait Served: Message + Name {
    /// See [`Resource::children`].
    fn children(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
}

impl Resource {
    /// Encodes `message`. The messages we build hold no map fields, so their encoding has one form only.
    pub fn encode<M: Served>(name: impl Into<Arc<str>>, message: &M) -> Arc<Self> {
        let (name, any) = (name.into(), ads::Any::pack(message));
        let version = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&any.encode_to_vec()));
        let any_bytes = any.encoded_len();
        let envelope =
            ads::Resource { version: version.clone(), resource: Some(any), name: name.to_string() };
        let name_bytes = encoding::string::encoded_len(3, &envelope.name);
        let envelope = envelope.encode_shared();
        // Fields are encoded in the order of their numbers: the name, if there is one, comes after the resource.
        let any_end = envelope.len() - if name.is_empty() { 0 } else { name_bytes };
        let bytes = envelope.slice(any_end - any_bytes..any_end);
        Arc::new(Self { name, version: version.into(), bytes, envelope, children: message.children() })
    }
}

impl Served for Cluster {
    fn children(&self) -> Vec<Arc<str>> {
        let endpoints = self.eds_cluster_config.iter();
        endpoints
            .map(|eds| if eds.service_name.is_empty() { &self.name } else { &eds.service_name })
            .map(|name| name.as_str().into())
            .collect()
    }
}

impl Served for ClusterLoadAssignment {}

impl Served for Listener {
    fn children(&self) -> Vec<Arc<str>> {
        let chains = self.filter_chains.iter().chain(&self.default_filter_chain);
        let configs =
            chains.flat_map(|chain| &chain.filters).filter_map(|filter| match &filter.config_type {
                Some(ConfigType::TypedConfig(any)) if any.type_url == HttpConnectionManager::type_url() => {
                    Some(any)
                }
                _ => None,
            });
        let managers = configs.filter_map(|any| HttpConnectionManager::decode(any.value.as_slice()).ok());
        let mut names: Vec<Arc<str>> = managers
            .filter_map(|manager| match manager.route_specifier {
                Some(RouteSpecifier::Rds(rds)) => Some(rds.route_config_name.into()),
                _ => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

impl Served for RouteConfiguration {}

impl Served for Secret {}

/// A message as the configuration of an extension.
pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use proto::pb::envoy::config::cluster::v3::cluster::EdsClusterConfig;
    use proto::pb::envoy::config::listener::v3::{Filter, FilterChain};
    use proto::pb::envoy::extensions::filters::network::http_connection_manager::v3::Rds;

    use super::*;

    #[test]
    fn the_resource_is_a_slice_of_its_envelope() {
        for name in ["outbound|80|pay.shop", "", &"long".repeat(100)] {
            let cluster = Cluster { name: "pay".into(), ..Cluster::default() };
            let resource = Resource::encode(name, &cluster);
            let any = Any::decode(resource.bytes.clone()).unwrap();
            assert_eq!(Cluster::decode(any.value.as_slice()).unwrap(), cluster, "{name}");
            let envelope = ads::Resource::decode(resource.envelope.clone()).unwrap();
            assert_eq!(
                (envelope.name.as_str(), envelope.version.as_str()),
                (name, resource.version.as_ref())
            );
            assert_eq!(envelope.resource, Some(any.into()));
        }
    }

    #[test]
    fn a_cluster_names_its_endpoints() {
        let eds = |service_name: &str| {
            Some(EdsClusterConfig { service_name: service_name.into(), ..EdsClusterConfig::default() })
        };
        for (config, children) in
            [(None, &[][..]), (eds(""), &["pay".into()]), (eds("other"), &["other".into()])]
        {
            let cluster = Cluster { name: "pay".into(), eds_cluster_config: config, ..Cluster::default() };
            assert_eq!(cluster.children(), children);
        }
    }

    #[test]
    fn a_listener_names_its_route_configurations_once() {
        let chain = |route: &str| {
            let rds = Rds { route_config_name: route.into(), ..Rds::default() };
            let manager = HttpConnectionManager {
                route_specifier: Some(RouteSpecifier::Rds(rds)),
                ..HttpConnectionManager::default()
            };
            let config_type = Some(ConfigType::TypedConfig(any(&manager)));
            let filter = Filter { config_type, ..Filter::default() };
            FilterChain { filters: vec![filter], ..FilterChain::default() }
        };
        let listener = Listener {
            filter_chains: vec![chain("b"), chain("a"), chain("b"), FilterChain::default()],
            default_filter_chain: Some(chain("c")),
            ..Listener::default()
        };
        assert_eq!(listener.children(), ["a".into(), "b".into(), "c".into()]);
    }
}
