//! AuthorizationPolicy, a kind of our own: who may call the workloads of a Service. Names are those of Gateway API's proposal
//! (GEP-3779) where it has them; what requests look like and `DENY` are ours.

use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::meta::{LabelSelector, Port, absent_if_null};
use super::route::{HttpMethod, HttpPathMatch, HttpValueMatch};

/// Who may call the workloads of a Service, or of the whole namespace. What a policy with `DENY` matches is refused. Where a
/// policy with `ALLOW` is, nothing is allowed that none of them matches. A request that is refused is answered 403, a
/// connection of another protocol is closed.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicySpec {
    /// Whose callers it is about.
    pub target_refs: Vec<AuthorizationTarget>,
    /// What becomes of those that match.
    pub action: AuthorizationAction,
    /// Whether it is done, or only counted and logged.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// A request matches the policy if it matches one of these; none matches if there are none.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub rules: Vec<AuthorizationRule>,
}

/// Workloads of the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationTarget {
    /// API group: empty, which is that of Services and Pods.
    #[serde(default)]
    pub group: String,
    /// `Service`, or `Pod`, which stands for workloads of every platform.
    pub kind: AuthorizationTargetKind,
    /// Name of the Service.
    pub name: Option<String>,
    /// Which workloads, by their labels: all of the namespace, `{}`, is what there is.
    pub selector: Option<LabelSelector>,
}

/// Kind of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AuthorizationTargetKind {
    /// The workloads of a Service; it may be made from workloads, or not be there yet.
    Service,
    /// Workloads that `selector` chooses.
    Pod,
}

/// What becomes of requests that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthorizationAction {
    /// They are allowed, and others are not.
    Allow,
    /// They are refused, whoever else allows them.
    Deny,
}

/// How far a policy goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Enforcement {
    /// It decides.
    #[default]
    Enforce,
    /// It decides nothing: what it would have refused is counted (`rbac_shadow_denied`) and in the access log.
    Audit,
}

/// All of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationRule {
    /// Who calls: one of these. Anybody if absent, nobody if empty.
    pub sources: Option<Vec<AuthorizationSource>>,
    /// What connections look like.
    pub network_attributes: Option<NetworkAttributes>,
    /// What requests look like. A connection that is not HTTP looks like no request: a rule that allows it does not match, one
    /// that denies it matches whatever the request would be.
    pub http_attributes: Option<HttpAttributes>,
}

/// Who calls; the field that `type` names says who.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationSource {
    /// Which of the other fields is set.
    #[serde(rename = "type")]
    pub kind: AuthorizationSourceType,
    /// Workloads of a service account; without an account of their own, that has the name of their Service.
    pub service_account: Option<SourceServiceAccount>,
    /// The identity `spiffe://DOMAIN/PATH`, of any trust domain.
    pub spiffe: Option<String>,
    /// Everybody of a trust domain.
    pub trust_domain: Option<String>,
    /// Addresses, whoever is there. It is the other end of the connection that counts, never what a header says.
    pub ip_block: Option<IpBlock>,
}

/// How a caller is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AuthorizationSourceType {
    /// `serviceAccount`
    ServiceAccount,
    /// `spiffe`
    #[serde(rename = "SPIFFE")]
    Spiffe,
    /// `trustDomain`
    TrustDomain,
    /// `ipBlock`
    #[serde(rename = "IPBlock")]
    IpBlock,
}

/// Workloads of the mesh, in the trust domain of whom they call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceServiceAccount {
    /// Its namespace; the policy's own if absent.
    pub namespace: Option<String>,
    /// Its name, or `*` for all of the namespace.
    pub name: String,
}

/// Addresses, as NetworkPolicy writes them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpBlock {
    /// `10.0.0.0/8`
    pub cidr: CidrText,
    /// But not these, which are within it.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub except: Vec<CidrText>,
}

/// What connections look like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkAttributes {
    /// Ports of the application itself, one of which is called; any if there are none.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub ports: Vec<Port>,
}

/// What requests look like; all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpAttributes {
    /// Host that is asked for, with or without a port, one of these: `*.` in front is for all below. Any if there are none.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub hosts: Vec<String>,
    /// One of these methods; any if there are none.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub methods: Vec<HttpMethod>,
    /// One of these paths; any if there are none. It is the path that the application gets, without `..` and `//`. Where a
    /// policy denies an exact path, it denies what is below it, too, which some servers take for the same file.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub paths: Vec<HttpPathMatch>,
    /// All of these headers. One that comes several times must match each time, and as one list, where that allows, and once
    /// where it denies.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub headers: Vec<HttpValueMatch>,
}

/// A block of addresses: `10.0.0.0/8` or `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CidrText {
    /// An address of it.
    pub address: IpAddr,
    /// How many bits all addresses of it have in common.
    pub bits: u8,
}

impl FromStr for CidrText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(address, bits)| {
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            let most = if address.is_ipv4() { 32 } else { 128 };
            (bits <= most).then_some(CidrText { address, bits })
        });
        parsed.ok_or_else(|| format!("`{text}` is not a block of addresses like `10.0.0.0/8`"))
    }
}

impl<'de> Deserialize<'de> for CidrText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for CidrText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.address, self.bits))
    }
}

impl JsonSchema for CidrText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CidrText".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "address block", "pattern": "^[0-9a-fA-F:.]+/[0-9]{1,3}$" })
    }
}
