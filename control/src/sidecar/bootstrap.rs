//! The bootstrap file of a proxy we start: who it is, where its admin listener is, where its configuration comes from.
//!
//! Envoy's format, so the same file starts Envoy. `compile::client` of the control plane reads `node.metadata.ringway`.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::{Value, json};

use super::control::ControlAddress;

/// Name of the static cluster that is the control plane.
const CONTROL_CLUSTER: &str = "ringway-control";

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What a bootstrap file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Unique per process: `node.id`.
    pub node_id: String,
    /// What the proxy is for.
    pub role: Role,
    /// Address of the admin listener.
    pub admin: SocketAddr,
    /// Where the configuration comes from.
    pub control: ControlAddress,
}

/// What a proxy is for: `node.metadata.ringway`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Role {
    /// It stands beside an application.
    Sidecar(SidecarRole),
    /// It serves the listeners of one Gateway.
    Gateway(GatewayRole),
}

/// A proxy beside an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SidecarRole {
    /// Namespace of the application.
    pub namespace: String,
    /// Its service.
    pub service: String,
    /// Unique per process of the application.
    pub instance: String,
    /// Where other proxies reach it.
    pub inbound: SocketAddr,
    /// Where the application listens.
    pub app: SocketAddr,
    /// What it speaks: `http`, `http2`, `grpc`, `ws` or `tcp`.
    pub app_protocol: String,
    /// The HTTP proxy for its own calls.
    pub outbound: SocketAddr,
    /// One local port per declared dependency.
    pub to: Vec<ToRole>,
    /// Who it is towards other proxies, a SPIFFE ID.
    pub identity: String,
}

/// A local port that stands for one port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToRole {
    /// Name of the service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Port of the service.
    pub port: u16,
    /// Where the proxy listens for it.
    pub local: SocketAddr,
}

/// A proxy that serves the listeners of one Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GatewayRole {
    /// Namespace of the Gateway.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The local address its ports are opened on.
    pub bind: IpAddr,
    /// Who it is towards other proxies, a SPIFFE ID.
    pub identity: String,
}

impl Bootstrap {
    /// The text of the file, JSON.
    pub fn to_json(&self) -> String {
        let cluster = match &self.role {
            Role::Sidecar(sidecar) => &sidecar.service,
            Role::Gateway(gateway) => &gateway.name,
        };
        let from_ads = json!({"ads": {}, "resource_api_version": "V3"});
        let file = json!({
            "node": {"id": self.node_id, "cluster": cluster, "metadata": {"ringway": self.role}},
            "admin": {"address": socket(self.admin)},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": CONTROL_CLUSTER}}],
                },
                "lds_config": from_ads,
                "cds_config": from_ads,
            },
            "static_resources": {"clusters": [self.control_cluster()]},
        });
        format!("{file:#}\n")
    }

    fn control_cluster(&self) -> Value {
        let address = json!({"pipe": {"path": self.control.socket()}});
        json!({
            "name": CONTROL_CLUSTER,
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {
                "cluster_name": CONTROL_CLUSTER,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
            "typed_extension_protocol_options": {
                HTTP_OPTIONS: {
                    "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
        })
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::pb::envoy::config::bootstrap::v3 as envoy;

    use super::*;
    use crate::compile::Client;

    fn sidecar() -> Bootstrap {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Bootstrap {
            node_id: "web.shop-5c2f".to_owned(),
            role: Role::Sidecar(SidecarRole {
                namespace: "shop".to_owned(),
                service: "web".to_owned(),
                instance: "web.shop-5c2f".to_owned(),
                inbound: "10.0.0.7:4001".parse().unwrap(),
                app: local(8080),
                app_protocol: "http".to_owned(),
                outbound: local(4002),
                to: vec![ToRole {
                    service: "pay".to_owned(),
                    namespace: "shop".to_owned(),
                    port: 7000,
                    local: local(4003),
                }],
                identity: "spiffe://mesh.local/ns/shop/sa/web".to_owned(),
            }),
            admin: local(4004),
            control: "unix:/run/ringway/control.sock".parse().unwrap(),
        }
    }

    fn gateway() -> Bootstrap {
        let role = GatewayRole {
            namespace: "shop".into(),
            name: "front".into(),
            bind: "0.0.0.0".parse().unwrap(),
            identity: "spiffe://mesh.local/ns/shop/sa/front".into(),
        };
        Bootstrap { node_id: "front.shop-9".into(), role: Role::Gateway(role), ..sidecar() }
    }

    #[test]
    fn the_files_of_a_sidecar_and_a_gateway_are_the_golden_ones() {
        for (bootstrap, golden) in [(sidecar(), "sidecar"), (gateway(), "gateway")] {
            let file = format!("{}/tests/golden/bootstrap/{golden}.json", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&file, bootstrap.to_json()).unwrap();
            }
            let expected = std::fs::read_to_string(&file).unwrap();
            assert_eq!(bootstrap.to_json(), expected, "{file}; UPDATE=1 rewrites it");
        }
    }

    #[test]
    fn our_proxy_accepts_the_file_and_the_control_plane_understands_its_metadata() {
        for bootstrap in [sidecar(), gateway()] {
            let bytes = proto::bootstrap::parse("bootstrap.json", &bootstrap.to_json()).unwrap();
            let message = envoy::Bootstrap::decode(&*bytes).unwrap();
            let metadata = message.node.unwrap().metadata.unwrap();
            match Client::from_metadata(&metadata, "mesh.local").unwrap() {
                Client::Sidecar(client) => {
                    assert_eq!(client.to[0].local, "127.0.0.1:4003".parse().unwrap());
                    assert_eq!(client.inbound, "10.0.0.7:4001".parse().unwrap());
                }
                Client::Gateway(client) => assert_eq!(client.name, "front"),
            }
        }
    }
}
