//! What the documents and registrations mean together: services with their endpoints, gateways with their virtual
//! hosts, rules in the order they are tried. Immutable; built anew from its inputs, and by nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::conditions::Conditions;
use crate::document::Documents;

/// What a port of a service carries, as far as we tell protocols apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1: routed per request.
    Http,
    /// Anything else: forwarded per connection.
    Tcp,
}

impl Protocol {
    /// What `appProtocol` of a Service port, or a registration, declares; `None` if it declares nothing we know.
    /// HTTP/2 and gRPC are forwarded per connection as long as the proxy does not route their requests.
    pub fn from_app_protocol(declared: &str) -> Option<Self> {
        match declared {
            "http" | "http/1.1" | "kubernetes.io/ws" | "ws" => Some(Self::Http),
            "http2" | "h2c" | "kubernetes.io/h2c" | "grpc" | "tcp" | "tls" | "https"
            | "kubernetes.io/wss" | "wss" => Some(Self::Tcp),
            _ => None,
        }
    }
}

/// A workload that `ringway run` keeps registered; `ringway.control.v1.Registration` after its fields are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Unique per process of the application.
    pub instance: String,
    /// Namespace of the service.
    pub namespace: String,
    /// The service it adds an endpoint to; created if there is none.
    pub service: String,
    /// Where other proxies reach it.
    pub address: SocketAddr,
    /// The application's own port.
    pub port: u16,
    /// What selectors of Services match.
    pub labels: BTreeMap<String, String>,
    /// Only a ready endpoint is routable.
    pub ready: bool,
    /// Finishing what it has.
    pub draining: bool,
    /// Name of the machine.
    pub host: String,
    /// What the application speaks; empty means HTTP.
    pub app_protocol: String,
}

/// Every registration whose lease holds, by instance.
pub type Registrations = BTreeMap<String, Registration>;

/// What the documents and registrations mean together.
#[derive(Debug, Default)]
pub struct Model {}

/// The model of `documents` and `registrations`, and what became of each of them.
pub fn build(_documents: &Documents, _registrations: &Registrations) -> (Model, Conditions) {
    (Model::default(), Conditions::default())
}
