//! The names of resources, each made in one place only: a resource and what refers to it cannot disagree.
//!
//! | resource | name |
//! |---|---|
//! | cluster and endpoints of a service's port | `outbound\|PORT\|SERVICE.NAMESPACE` |
//! | cluster of a sidecar's own application | `inbound\|PORT` |
//! | a sidecar's listener for its application's callers | `inbound\|IP:PORT` |
//! | cluster of all hosts outside the mesh | `outbound\|outside` |
//! | a sidecar's HTTP proxy | `outbound\|http`, with routes `outbound\|http\|NAMESPACE` |
//! | a sidecar's port for a dependency | `outbound\|tcp\|SERVICE.NAMESPACE:PORT`, with routes `outbound\|PORT\|SERVICE.NAMESPACE\|CALLER-NAMESPACE` |
//! | a port of a gateway, and its routes | `gateway\|NAMESPACE/NAME\|PORT` |
//! | the routes of one listener of a port with TLS | `gateway\|NAMESPACE/NAME\|PORT\|LISTENER` |
//! | a certificate that listeners show | `certificate\|NAMESPACE/SECRET` |
//! | who vouches for clients of a port of a gateway | `authorities\|NAMESPACE/NAME\|PORT` |

use std::net::SocketAddr;

use crate::model::{Name, Target};

/// The cluster of all hosts outside the mesh.
pub(super) const OUTSIDE: &str = "outbound|outside";

/// The listener of a sidecar's HTTP proxy.
pub(super) const HTTP_PROXY: &str = "outbound|http";

/// The routes of the HTTP proxies in `namespace`.
pub(super) fn http_proxy_routes(namespace: &str) -> String {
    format!("{HTTP_PROXY}|{namespace}")
}

/// The cluster of a port of a service, and its endpoints.
pub(super) fn service_port(target: &Target) -> String {
    format!("outbound|{}|{}.{}", target.port, target.service.name, target.service.namespace)
}

/// The cluster of the application a sidecar is beside.
pub(super) fn application(address: SocketAddr) -> String {
    format!("inbound|{}", address.port())
}

/// A sidecar's listener for its application's callers.
pub(super) fn inbound(address: SocketAddr) -> String {
    format!("inbound|{address}")
}

/// The listener of a sidecar's port for a dependency.
pub(super) fn dependency(target: &Target) -> String {
    format!("outbound|tcp|{}.{}:{}", target.service.name, target.service.namespace, target.port)
}

/// The routes of that port for callers in `namespace`.
pub(super) fn dependency_routes(target: &Target, namespace: &str) -> String {
    format!("{}|{namespace}", service_port(target))
}

/// The listener of a port of a gateway, and its routes.
pub(super) fn gateway_port(gateway: &Name, port: u16) -> String {
    format!("gateway|{gateway}|{port}")
}

/// The routes of one listener of a port of a gateway on which TLS begins.
pub(super) fn gateway_listener(gateway: &Name, port: u16, listener: &str) -> String {
    format!("{}|{listener}", gateway_port(gateway, port))
}

/// A certificate that listeners show.
pub(super) fn certificate(secret: &Name) -> String {
    format!("certificate|{secret}")
}

/// Who vouches for clients of a port of a gateway.
pub(super) fn authorities(gateway: &Name, port: u16) -> String {
    format!("authorities|{gateway}|{port}")
}
