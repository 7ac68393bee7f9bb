//! HTTPRoute and TCPRoute of Gateway API v1.6.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::filter::HttpRouteFilter;
use super::meta::{Port, Unused, absent_if_null};

/// Rules for HTTP requests that reach a Gateway, or that the mesh sends to a Service.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    /// The Gateways, or the Services of the mesh, the rules are for.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub parent_refs: Vec<ParentRef>,
    /// Attach to default Gateways; there are none.
    pub use_default_gateways: Unused,
    /// Hostnames the rules are for, `*.` in front for all below; those of the listener if empty. Not looked at for
    /// a Service.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub hostnames: Vec<String>,
    /// The rules. One that matches everything if the field is absent.
    #[serde(default = "one_rule")]
    pub rules: Vec<HttpRouteRule>,
}

/// Gateway API's default: one rule, which matches every request and has no backend.
fn one_rule() -> Vec<HttpRouteRule> {
    vec![HttpRouteRule::default()]
}

/// What a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// API group; Gateway API's if absent, empty for a Service.
    pub group: Option<String>,
    /// `Gateway`, if absent, or `Service`.
    pub kind: Option<String>,
    /// Its namespace; the route's own if absent.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Only the listener of this name.
    pub section_name: Option<String>,
    /// Only listeners on this port, or this port of the Service.
    pub port: Option<Port>,
}

/// What happens to the requests that match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteRule {
    /// Name, unique in the route.
    pub name: Option<String>,
    /// A request matches the rule if it matches one of these; every request does if there are none.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub matches: Vec<HttpRouteMatch>,
    /// What is changed on the way, or answered instead.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub filters: Vec<HttpRouteFilter>,
    /// Where requests go, in proportion of the weights.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub backend_refs: Vec<HttpBackendRef>,
    /// How long it may take.
    pub timeouts: Option<HttpRouteTimeouts>,
    /// When to try again; not yet. A request that never reached the backend is always tried again.
    pub retry: Unused,
    /// Keeping a client with one endpoint; not yet.
    pub session_persistence: Unused,
}

/// What a request looks like; all of it must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteMatch {
    /// Its path; every path if absent.
    pub path: Option<HttpPathMatch>,
    /// Its headers. Of several entries of one name the first counts.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub headers: Vec<HttpValueMatch>,
    /// Its query parameters. Of several entries of one name the first counts.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub query_params: Vec<HttpValueMatch>,
    /// Its method.
    pub method: Option<HttpMethod>,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpPathMatch {
    /// `PathPrefix` if absent.
    #[serde(default, rename = "type")]
    pub kind: PathMatchType,
    /// The path, starting with `/`; `/` if absent. A regular expression in RE2's syntax matches the whole path.
    #[serde(default = "slash")]
    pub value: String,
}

fn slash() -> String {
    "/".to_owned()
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PathMatchType {
    /// The same path.
    Exact,
    /// Element by element: `/a` matches `/a` and `/a/b`, not `/ab`.
    #[default]
    PathPrefix,
    /// By regular expression.
    RegularExpression,
}

/// How a header or a query parameter is compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpValueMatch {
    /// `Exact` if absent.
    #[serde(default, rename = "type")]
    pub kind: ValueMatchType,
    /// Name of the header, in any case, or of the parameter.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ValueMatchType {
    /// The same value.
    #[default]
    Exact,
    /// By regular expression in RE2's syntax, over the whole value.
    RegularExpression,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "they are the methods of RFC 9110 and RFC 5789")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// As it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpBackendRef {
    /// API group; empty, for a Service, if absent.
    pub group: Option<String>,
    /// `Service`, if absent; no other kind is served.
    pub kind: Option<String>,
    /// Name of the Service.
    pub name: String,
    /// Its namespace; the route's own if absent. Another one must allow it by a ReferenceGrant.
    pub namespace: Option<String>,
    /// Port of the Service.
    pub port: Option<Port>,
    /// Share of the requests: this over the sum of all. 1 if absent, none if 0.
    #[serde(default = "weight_one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
    /// What is changed on the way to this backend only: headers.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub filters: Vec<HttpRouteFilter>,
}

pub(super) fn weight_one() -> u32 {
    1
}

/// How long it may take. There is no limit where none is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteTimeouts {
    /// From the request's end to the answer's end, retries included; `0s` for no limit.
    pub request: Option<GatewayDuration>,
    /// For one attempt; at most `request`.
    pub backend_request: Option<GatewayDuration>,
}

/// Rules for connections that reach a Gateway.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRouteSpec {
    /// The Gateways the rules are for.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub parent_refs: Vec<ParentRef>,
    /// Attach to default Gateways; there are none.
    pub use_default_gateways: Unused,
    /// The rule: exactly one, since nothing of a connection tells several apart.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub rules: Vec<TcpRouteRule>,
}

/// Where TLS connections go that ask for certain hosts and arrive at a listener of protocol `TLS`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRouteSpec {
    /// The Gateways the rules are for.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub parent_refs: Vec<ParentRef>,
    /// Attach to default Gateways; there are none.
    pub use_default_gateways: Unused,
    /// The hosts that connections ask for (SNI), `*.` in front for all below; all of the listener if there are none.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub hostnames: Vec<String>,
    /// The rule: exactly one.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub rules: Vec<TcpRouteRule>,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRouteRule {
    /// Name, unique in the route.
    pub name: Option<String>,
    /// Where connections go, in proportion of the weights.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub backend_refs: Vec<BackendRef>,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// API group; empty, for a Service, if absent.
    pub group: Option<String>,
    /// `Service`, if absent; no other kind is served.
    pub kind: Option<String>,
    /// Name of the Service.
    pub name: String,
    /// Its namespace; the route's own if absent. Another one must allow it by a ReferenceGrant.
    pub namespace: Option<String>,
    /// Port of the Service.
    pub port: Option<Port>,
    /// Share of the connections: this over the sum of all. 1 if absent, none if 0.
    #[serde(default = "weight_one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

/// A duration as Gateway API writes it (GEP-2257): up to four of `h`, `m`, `s`, `ms` with at most five digits each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayDuration(pub Duration);

impl GatewayDuration {
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut total = Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, unit) = rest.split_at(digits);
            if !(1..=5).contains(&digits) {
                return None;
            }
            let number: u64 = number.parse().ok()?;
            let (part, after) = if let Some(after) = unit.strip_prefix("ms") {
                (Duration::from_millis(number), after)
            } else if let Some(after) = unit.strip_prefix('s') {
                (Duration::from_secs(number), after)
            } else if let Some(after) = unit.strip_prefix('m') {
                (Duration::from_secs(60 * number), after)
            } else {
                (Duration::from_secs(3600 * number), unit.strip_prefix('h')?)
            };
            total += part;
            rest = after;
            if rest.is_empty() {
                return Some(Self(total));
            }
        }
        None
    }
}

impl fmt::Debug for GatewayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for GatewayDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is not a duration such as 1h, 2m30s or 500ms"))
        })
    }
}

impl Serialize for GatewayDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", self.0.as_millis()))
    }
}

impl JsonSchema for GatewayDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gateway_api_writes_them() {
        let cases = [
            ("1h", Some(3_600_000)),
            ("2m30s", Some(150_000)),
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("", None),
            ("5", None),
            ("1.5s", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
            ("-1s", None),
            ("1d", None),
        ];
        for (text, millis) in cases {
            let parsed = GatewayDuration::parse(text).map(|duration| duration.0.as_millis());
            assert_eq!(parsed, millis, "{text}");
        }
    }
}
