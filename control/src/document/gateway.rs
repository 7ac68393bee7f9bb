//! GatewayClass, Gateway and ReferenceGrant of Gateway API v1.6.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gateway_tls::{GatewayTls, ListenerTls};
use super::meta::{LabelSelector, Port, Unused, absent_if_null};

/// Which controller serves the Gateways of a class. Ringway serves classes whose `controllerName` is
/// `ringway.io/gateway`; the class `ringway` exists without a document.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayClassSpec {
    /// The controller.
    pub controller_name: String,
    /// Parameters for the controller; there are none, so a reference is refused.
    pub parameters_ref: Unused,
    /// For people.
    pub description: Option<String>,
}

/// Ports through which traffic enters, and which routes may use them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySpec {
    /// Name of the GatewayClass.
    pub gateway_class_name: String,
    /// The ports.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub listeners: Vec<Listener>,
    /// Where the gateway is to be reached; `ringway gateway --bind` decides here.
    pub addresses: Unused,
    /// What is made for the gateway; nothing is.
    pub infrastructure: Option<GatewayInfrastructure>,
    /// Which ListenerSets may add listeners; none can yet.
    pub allowed_listeners: Unused,
    /// TLS of all listeners.
    pub tls: Option<GatewayTls>,
    /// Which routes without parents attach; none do.
    pub default_scope: Unused,
}

/// What is made for a gateway, and how.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayInfrastructure {
    /// Labels of what is made; nothing is.
    pub labels: Unused,
    /// Annotations of what is made; nothing is.
    pub annotations: Unused,
    /// Parameters for the controller; there are none, so a Gateway with a reference is not served.
    pub parameters_ref: Unused,
}

/// One port of a gateway, for some hostnames and one protocol.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Name, unique in the Gateway; what `sectionName` of a parent reference means.
    pub name: String,
    /// Hostname it serves, `*.` in front for all below; absent for all. Several listeners share a port by it, and
    /// the most specific one takes a request alone.
    pub hostname: Option<String>,
    /// The port.
    pub port: Port,
    /// `HTTP`, `HTTPS`, `TLS` or `TCP`; `UDP` is not served yet, and the listener's conditions say so.
    pub protocol: String,
    /// How TLS is ended, for `HTTPS` and `TLS`.
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub allowed_routes: AllowedRoutes,
}

/// Which routes may attach to a listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub namespaces: RouteNamespaces,
    /// Of which kinds; all that the protocol can serve if empty.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub kinds: Vec<RouteGroupKind>,
}

/// From which namespaces routes may attach.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteNamespaces {
    /// Which ones.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub from: FromNamespaces,
    /// The labels of the Namespace documents, for `Selector`.
    pub selector: Option<LabelSelector>,
}

/// A choice of namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum FromNamespaces {
    /// Every one.
    All,
    /// That of the Gateway.
    #[default]
    Same,
    /// Those with matching labels.
    Selector,
    /// None.
    None,
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteGroupKind {
    /// API group; Gateway API's if absent.
    pub group: Option<String>,
    /// The kind.
    pub kind: String,
}

/// Allows objects of other namespaces to refer to objects of this one.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<ReferenceGrantFrom>,
    /// To what.
    pub to: Vec<ReferenceGrantTo>,
}

/// Who may refer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGrantFrom {
    /// API group of the referring object.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGrantTo {
    /// API group of the object, empty for Kubernetes' core kinds.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name; every object of the kind if absent.
    pub name: Option<String>,
}
