//! The kinds of Kubernetes itself that say what a service is: Namespace, Service, EndpointSlice.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::{Metadata, Port, Unused, absent_if_null};

/// A namespace; its labels are what a listener's `allowedRoutes` selects by.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// `v1`.
    pub api_version: String,
    /// `Namespace`.
    pub kind: String,
    /// Name and labels.
    pub metadata: Metadata,
    /// Kubernetes' own.
    pub spec: Unused,
    /// Kubernetes' own.
    pub status: Unused,
}

/// A service: ports, and which workloads are behind it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its ports.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub ports: Vec<ServicePort>,
    /// Labels of the Workloads that are its endpoints. EndpointSlices name their Service instead.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub selector: BTreeMap<String, String>,
    /// How Kubernetes publishes it; `ExternalName` has no endpoints here.
    #[serde(rename = "type")]
    pub kind: Option<ServiceType>,
    /// Not used: endpoints are reached directly.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Unused,
    /// Not used: endpoints are reached directly.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Unused,
    /// Not used.
    #[serde(rename = "externalIPs")]
    pub external_ips: Unused,
    /// Not used.
    pub session_affinity: Unused,
    /// Not used.
    pub session_affinity_config: Unused,
    /// Not used.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Unused,
    /// Not used.
    pub load_balancer_source_ranges: Unused,
    /// Not used.
    pub load_balancer_class: Unused,
    /// Not used.
    pub allocate_load_balancer_node_ports: Unused,
    /// Not used.
    pub external_name: Unused,
    /// Not used.
    pub external_traffic_policy: Unused,
    /// Not used.
    pub internal_traffic_policy: Unused,
    /// Not used.
    pub health_check_node_port: Unused,
    /// Not used.
    pub publish_not_ready_addresses: Unused,
    /// Not used.
    pub ip_families: Unused,
    /// Not used.
    pub ip_family_policy: Unused,
    /// Not used.
    pub traffic_distribution: Unused,
}

/// How Kubernetes publishes a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "they are Kubernetes' own")]
pub enum ServiceType {
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePort {
    /// Name; needed where there are several.
    pub name: Option<String>,
    /// The port callers name.
    pub port: Port,
    /// Port of the workload, by number or name; the same as `port` if absent.
    pub target_port: Option<PortOrName>,
    /// `TCP` if absent; other ports are not served.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub protocol: Transport,
    /// What it carries: `http`, `kubernetes.io/ws` (HTTP/1.1), `http2`, `grpc`, `kubernetes.io/h2c` (HTTP/2) or
    /// anything else, which is forwarded per connection. If absent, what the name begins with (`grpc-cart`, `tcp`),
    /// else HTTP.
    pub app_protocol: Option<String>,
    /// Not used.
    pub node_port: Unused,
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PortOrName {
    /// The number.
    Port(Port),
    /// The name of a port of the workload.
    Name(String),
}

impl fmt::Display for PortOrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "they are the names of the protocols")]
pub enum Transport {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// Addresses of a service. The label `kubernetes.io/service-name` names the Service.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSlice {
    /// `discovery.k8s.io/v1`.
    pub api_version: String,
    /// `EndpointSlice`.
    pub kind: String,
    /// Name, namespace and the label.
    pub metadata: Metadata,
    /// `IPv4` or `IPv6`; `FQDN` is not served.
    pub address_type: AddressType,
    /// The endpoints.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub endpoints: Vec<SliceEndpoint>,
    /// Their ports, by the names of the Service's ports.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub ports: Vec<SlicePort>,
}

/// What the addresses of a slice are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AddressType {
    /// IPv4 addresses.
    IPv4,
    /// IPv6 addresses.
    IPv6,
    /// Names; not served.
    #[serde(rename = "FQDN")]
    Fqdn,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SliceEndpoint {
    /// Addresses of the endpoint, all equal; the first is used. Loopback is as good as any other.
    pub addresses: Vec<String>,
    /// Whether it can be used.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub conditions: SliceConditions,
    /// Zone it is in.
    pub zone: Option<String>,
    /// Not used.
    pub hostname: Unused,
    /// Not used.
    pub target_ref: Unused,
    /// Not used.
    pub node_name: Unused,
    /// Not used.
    pub hints: Unused,
    /// Not used.
    pub deprecated_topology: Unused,
}

/// Whether an endpoint can be used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SliceConditions {
    /// Takes requests; yes if absent.
    pub ready: Option<bool>,
    /// Takes requests, even though it is being stopped.
    pub serving: Option<bool>,
    /// Is being stopped: it finishes what it has.
    pub terminating: Option<bool>,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlicePort {
    /// Name of the Service's port; empty if that has none.
    #[serde(default)]
    pub name: Option<String>,
    /// The port of the endpoints.
    pub port: Option<Port>,
    /// `TCP` if absent.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub protocol: Transport,
    /// Not used: the Service says it.
    pub app_protocol: Unused,
}
