//! GRPCRoute of Gateway API v1.6.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::filter::HeaderModifier;
use super::meta::{Ignored, Port, Unused, absent_if_null};
use super::route::{HttpValueMatch, ParentRef, ValueMatchType, weight_one};

/// Rules for calls by gRPC that reach a Gateway, or that the mesh sends to a Service.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteSpec {
    /// The Gateways, or the Services of the mesh, the rules are for.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub parent_refs: Vec<ParentRef>,
    /// Attach to default Gateways; there are none.
    pub use_default_gateways: Unused,
    /// Hostnames the rules are for, `*.` in front for all below; those of the listener if empty. Not looked at for
    /// a Service.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub hostnames: Vec<String>,
    /// The rules.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub rules: Vec<GrpcRouteRule>,
}

/// What happens to the calls that match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteRule {
    /// Name, unique in the route.
    pub name: Option<String>,
    /// A call matches the rule if it matches one of these; every call does if there are none.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub matches: Vec<GrpcRouteMatch>,
    /// What is changed on the way.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub filters: Vec<GrpcRouteFilter>,
    /// Where calls go, in proportion of the weights.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub backend_refs: Vec<GrpcBackendRef>,
    /// Keeping a client with one endpoint; not yet.
    pub session_persistence: Unused,
}

/// What a call looks like; all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteMatch {
    /// Its method; every method if absent.
    pub method: Option<GrpcMethodMatch>,
    /// Its headers, which gRPC calls metadata. Of several entries of one name the first counts.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub headers: Vec<HttpValueMatch>,
}

/// How service and method are compared. At least one of them is given; what is not may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcMethodMatch {
    /// `Exact` if absent.
    #[serde(default, rename = "type")]
    pub kind: ValueMatchType,
    /// The service with its package: `shop.v1.Cart`.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
}

/// What is changed on the way. `type` says which of the other fields is set.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteFilter {
    /// Which filter.
    #[serde(rename = "type")]
    pub kind: GrpcFilterType,
    /// Changes headers of the call.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes headers of the answer.
    pub response_header_modifier: Option<HeaderModifier>,
    /// Sends a copy elsewhere; not yet, a rule with it is refused.
    pub request_mirror: Option<Ignored>,
    /// A filter of the implementation's own; there are none, a rule with it is refused.
    pub extension_ref: Option<Ignored>,
}

/// Which filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "each is the field of the same name")]
pub enum GrpcFilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    ExtensionRef,
}

/// Where calls go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcBackendRef {
    /// API group; empty, for a Service, if absent.
    pub group: Option<String>,
    /// `Service`, if absent; no other kind is served.
    pub kind: Option<String>,
    /// Name of the Service. HTTP/2 is spoken to it, unless its port says otherwise.
    pub name: String,
    /// Its namespace; the route's own if absent. Another one must allow it by a ReferenceGrant.
    pub namespace: Option<String>,
    /// Port of the Service.
    pub port: Option<Port>,
    /// Share of the calls: this over the sum of all. 1 if absent, none if 0.
    #[serde(default = "weight_one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
    /// What is changed on the way to this backend only: headers.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub filters: Vec<GrpcRouteFilter>,
}
