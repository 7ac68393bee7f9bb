//! TLS of Gateways, as Gateway API v1.6 has it: what listeners show, and what clients have to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::{Port, Unused, absent_if_null};

/// TLS of all listeners of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayTls {
    /// Towards clients.
    pub frontend: Option<FrontendTls>,
    /// Towards backends; not yet.
    pub backend: Unused,
}

/// What clients have to show, where a listener ends TLS.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontendTls {
    /// On ports that have no own entry.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub default: FrontendTlsConfig,
    /// On these ports.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub per_port: Vec<FrontendTlsOfPort>,
}

impl FrontendTls {
    /// What clients have to show on a port; nothing if `None`.
    pub fn validation(&self, port: Port) -> Option<&FrontendValidation> {
        let own = self.per_port.iter().find(|of| of.port == port).map(|of| &of.tls);
        own.unwrap_or(&self.default).validation.as_ref()
    }
}

/// What clients have to show on one port.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontendTlsOfPort {
    /// The port.
    pub port: Port,
    /// What is different there.
    pub tls: FrontendTlsConfig,
}

/// What clients have to show.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontendTlsConfig {
    /// How certificates of clients are judged; they need none if absent.
    pub validation: Option<FrontendValidation>,
}

/// How certificates of clients are judged.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontendValidation {
    /// Who vouches for clients: ConfigMaps with `ca.crt`.
    pub ca_certificate_refs: Vec<ObjectRef>,
    /// What becomes of clients that nobody vouches for.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub mode: FrontendValidationMode,
}

/// What becomes of clients that nobody vouches for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum FrontendValidationMode {
    /// They are refused, as are those that show nothing.
    #[default]
    AllowValidOnly,
    /// They are served as if nothing had been asked, and the Gateway's conditions say that it is so.
    AllowInsecureFallback,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// API group; empty for Kubernetes' core kinds.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, that of the Gateway if absent; another one has to agree by a ReferenceGrant.
    pub namespace: Option<String>,
}

/// How a listener ends TLS, or that it does not.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// Who ends it.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub mode: TlsMode,
    /// What is shown, for `Terminate`. A client that cannot take the first is shown another.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub certificate_refs: Vec<SecretRef>,
    /// Options of implementations; there are none, so a listener with one is not served.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub options: BTreeMap<String, String>,
}

/// Who ends the TLS of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TlsMode {
    /// The gateway.
    #[default]
    Terminate,
    /// Who is behind it; the gateway looks at the name that is asked for and at nothing else.
    Passthrough,
}

/// Names a Secret of type `kubernetes.io/tls`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// API group; Kubernetes' core if absent.
    pub group: Option<String>,
    /// `Secret` if absent.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace, that of the Gateway if absent; another one has to agree by a ReferenceGrant.
    pub namespace: Option<String>,
}
