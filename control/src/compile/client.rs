//! Who asks: what a proxy says of itself in `node.metadata.ringway`. Parsed once, when its stream opens.
//!
//! Whoever is served may be anybody of the mesh, and is believed to be who it says. Its words are checked for shape, and
//! nothing panics on them.

use std::net::{IpAddr, SocketAddr};

use policy::peer::SpiffeId;
use proto::pb::google::protobuf;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::mesh_tls::identity as identity_of;
use crate::model::{Name, Protocol};

/// One proxy that is configured: the key of its [`View`](super::View).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// A proxy beside an application.
    Sidecar(Sidecar),
    /// A proxy that serves the listeners of one Gateway.
    Gateway(GatewayClient),
}

/// A proxy beside an application. It chose its ports before it asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Sidecar {
    /// Namespace of the application; short names of services mean this one.
    pub namespace: String,
    /// Service of the application.
    pub service: String,
    /// Unique per process of the application.
    pub instance: String,
    /// Where other proxies reach the application: the advertised listener.
    pub inbound: SocketAddr,
    /// Where the application itself listens.
    pub app: SocketAddr,
    /// What the application speaks.
    #[serde(default)]
    pub app_protocol: String,
    /// Who it is towards other proxies of the mesh; `None` has no certificate, and speaks plain text.
    #[serde(default, deserialize_with = "identity")]
    pub identity: Option<SpiffeId>,
    /// Where the HTTP proxy for the application's own calls listens; `None` opens none.
    #[serde(default)]
    pub outbound: Option<SocketAddr>,
    /// One local port per declared dependency.
    #[serde(default)]
    pub to: Vec<To>,
}

/// A declared dependency: a local port that stands for one port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct To {
    /// Name of the service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Port of the service.
    pub port: u16,
    /// Where the sidecar listens for it.
    pub local: SocketAddr,
}

/// A proxy that serves the listeners of one Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct GatewayClient {
    /// Namespace of the Gateway.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The local address its ports are opened on.
    pub bind: IpAddr,
    /// As for a sidecar.
    #[serde(default, deserialize_with = "identity")]
    pub identity: Option<SpiffeId>,
}

fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SpiffeId>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| SpiffeId::parse(&text).map_err(D::Error::custom)).transpose()
}

/// Why node metadata does not say who the client is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// There is no struct of this name in `node.metadata`.
    #[error("node.metadata has no struct `ringway`")]
    Missing,
    /// `role` is neither `sidecar` nor `gateway`.
    #[error("node.metadata.ringway.role is {role:?}, expected `sidecar` or `gateway`")]
    Role {
        /// What it is; empty if absent.
        role: String,
    },
    /// It would be somebody else, or of another mesh.
    #[error("node.metadata.ringway.identity is {is}, and should be {own} (does --trust-domain differ?)")]
    Identity {
        /// What it is.
        is: SpiffeId,
        /// What it has to be.
        own: String,
    },
    /// A field is missing or not what it must be.
    #[error("node.metadata.ringway: {reason}")]
    Field {
        /// Which, and why.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Metadata {
    Sidecar(Sidecar),
    Gateway(GatewayClient),
}

impl Client {
    /// Reads `node.metadata` of a proxy of the mesh whose identities begin with `trust_domain`.
    pub fn from_metadata(metadata: &protobuf::Struct, trust_domain: &str) -> Result<Self, ClientError> {
        let Some(ringway @ protobuf::Value { kind: Some(protobuf::value::Kind::StructValue(_)) }) =
            metadata.fields.get("ringway")
        else {
            return Err(ClientError::Missing);
        };
        let ringway = json(ringway);
        let role = ringway["role"].as_str().unwrap_or_default();
        if !matches!(role, "sidecar" | "gateway") {
            return Err(ClientError::Role { role: role.to_owned() });
        }
        let client = match serde_json::from_value(ringway) {
            Ok(Metadata::Sidecar(sidecar)) => Self::Sidecar(sidecar),
            Ok(Metadata::Gateway(gateway)) => Self::Gateway(gateway),
            Err(error) => return Err(ClientError::Field { reason: error.to_string() }),
        };
        client.check_identity(trust_domain)?;
        Ok(client)
    }

    /// The identity of what it stands for.
    pub(crate) fn own_identity(&self, trust_domain: &str) -> String {
        let (namespace, name) = match self {
            Self::Sidecar(of) => (&of.namespace, &of.service),
            Self::Gateway(of) => (&of.namespace, &of.name),
        };
        identity_of(trust_domain, &Name::new(namespace.as_str(), name.as_str()))
    }

    /// A proxy has the identity of what it stands for, or none.
    fn check_identity(&self, trust_domain: &str) -> Result<(), ClientError> {
        let own = self.own_identity(trust_domain);
        let is = match self {
            Self::Sidecar(of) => &of.identity,
            Self::Gateway(of) => &of.identity,
        };
        match is {
            Some(is) if is.as_str() != own => Err(ClientError::Identity { is: is.clone(), own }),
            _ => Ok(()),
        }
    }
}

impl Sidecar {
    /// What the application speaks, as its Service would say it.
    pub fn protocol(&self) -> Protocol {
        Protocol::from_app_protocol(&self.app_protocol).unwrap_or(Protocol::Http)
    }
}

/// A protobuf value as JSON. Numbers without a fraction become integers: protobuf knows only doubles, ports are not.
fn json(value: &protobuf::Value) -> serde_json::Value {
    use protobuf::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::NumberValue(number)) => integer(*number).map_or_else(|| (*number).into(), Into::into),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(object)) => {
            object.fields.iter().map(|(name, value)| (name.clone(), json(value))).collect()
        }
    }
}

fn integer(number: f64) -> Option<i64> {
    // Beyond 2^53 a double no longer tells neighbours apart.
    let exact = number.trunc() == number && number.abs() <= 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, reason = "an integer of at most 53 bits")]
    exact.then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use proto::well_known::{object, string, structure};
    use protobuf::value::Kind;

    use super::*;

    fn number(number: f64) -> protobuf::Value {
        protobuf::Value { kind: Some(Kind::NumberValue(number)) }
    }

    fn list(values: Vec<protobuf::Value>) -> protobuf::Value {
        protobuf::Value { kind: Some(Kind::ListValue(protobuf::ListValue { values })) }
    }

    #[test]
    fn a_sidecar_says_who_it_is_in_its_metadata() {
        let to = object([
            ("service", string("pay")),
            ("namespace", string("shop")),
            ("port", number(80.0)),
            ("local", string("127.0.0.1:4000")),
        ]);
        let metadata = structure([(
            "ringway",
            object([
                ("role", string("sidecar")),
                ("namespace", string("shop")),
                ("service", string("web")),
                ("instance", string("web-1")),
                ("inbound", string("127.0.0.1:15006")),
                ("app", string("127.0.0.1:8080")),
                ("outbound", string("127.0.0.1:15002")),
                ("to", list(vec![to])),
            ]),
        )]);
        let Ok(Client::Sidecar(sidecar)) = Client::from_metadata(&metadata, "mesh.local") else {
            panic!("not a sidecar")
        };
        assert_eq!(sidecar.to[0].port, 80);
        assert_eq!(sidecar.outbound, Some("127.0.0.1:15002".parse().unwrap()));
        assert_eq!(sidecar.protocol(), Protocol::Http, "nothing is declared");
    }

    #[test]
    fn metadata_that_does_not_say_who_asks_is_refused_with_the_field() {
        let gateway = |fields: Vec<(&str, protobuf::Value)>| structure([("ringway", object(fields))]);
        let edge = |identity: &str| {
            gateway(vec![
                ("role", string("gateway")),
                ("name", string("a")),
                ("namespace", string("b")),
                ("bind", string("127.0.0.1")),
                ("identity", string(identity)),
            ])
        };
        let cases = [
            (structure::<String>([]), "node.metadata has no struct `ringway`"),
            (gateway(vec![("role", string("boss"))]), "expected `sidecar` or `gateway`"),
            (gateway(vec![("role", string("gateway")), ("name", string("a"))]), "missing field `namespace`"),
            (
                gateway(vec![
                    ("role", string("gateway")),
                    ("name", string("a")),
                    ("namespace", string("b")),
                    ("bind", string("everywhere")),
                ]),
                "invalid IP address syntax",
            ),
            (
                edge("spiffe://mesh.local/ns/b/sa/other"),
                "is spiffe://mesh.local/ns/b/sa/other, and should be",
            ),
            (edge("spiffe://other/ns/b/sa/a"), "and should be spiffe://mesh.local/ns/b/sa/a"),
            (edge(""), "a SPIFFE ID begins with"),
        ];
        for (metadata, expected) in cases {
            let error = Client::from_metadata(&metadata, "mesh.local").unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}
