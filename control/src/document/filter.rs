//! The filters of an HTTPRoute.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::{Ignored, Port, absent_if_null};

/// What is changed on the way, or answered instead. `type` says which of the other fields is set.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteFilter {
    /// Which filter.
    #[serde(rename = "type")]
    pub kind: FilterType,
    /// Changes headers of the request.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes headers of the answer.
    pub response_header_modifier: Option<HeaderModifier>,
    /// Answers with a redirect.
    pub request_redirect: Option<RequestRedirect>,
    /// Changes host or path of the request.
    #[serde(rename = "urlRewrite")]
    pub url_rewrite: Option<UrlRewrite>,
    /// Sends a copy elsewhere; not yet, a rule with it is refused.
    pub request_mirror: Option<Ignored>,
    /// Answers for other origins; not yet, a rule with it is refused.
    pub cors: Option<Ignored>,
    /// Asks another service first; not yet, a rule with it is refused.
    pub external_auth: Option<Ignored>,
    /// A filter of the implementation's own; there are none, a rule with it is refused.
    pub extension_ref: Option<Ignored>,
}

/// Which filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "each is the field of the same name")]
pub enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestMirror,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
    ExtensionRef,
}

impl FilterType {
    /// As it is in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestHeaderModifier => "RequestHeaderModifier",
            Self::ResponseHeaderModifier => "ResponseHeaderModifier",
            Self::RequestRedirect => "RequestRedirect",
            Self::UrlRewrite => "URLRewrite",
            Self::RequestMirror => "RequestMirror",
            Self::Cors => "CORS",
            Self::ExternalAuth => "ExternalAuth",
            Self::ExtensionRef => "ExtensionRef",
        }
    }
}

/// Changes of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderModifier {
    /// Headers that get this value in place of any other.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub set: Vec<Header>,
    /// Headers that get this value beside any other.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub add: Vec<Header>,
    /// Names of headers that are taken out.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A redirect. What is absent stays as it is in the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRedirect {
    /// `http` or `https`.
    pub scheme: Option<Scheme>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port; that of the scheme, or of the listener where there is no scheme, if absent.
    pub port: Option<Port>,
    /// 301, 302, 303, 307 or 308; 302 if absent.
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status_code: Option<u16>,
}

/// A URL's scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are the schemes of RFC 9110")]
pub enum Scheme {
    Http,
    Https,
}

/// Changes of a request's URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlRewrite {
    /// The host the backend sees.
    pub hostname: Option<String>,
    /// The path the backend sees.
    pub path: Option<PathModifier>,
}

/// A change of a path. `type` says which of the other fields is set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathModifier {
    /// Which change.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// Takes the place of the whole path.
    pub replace_full_path: Option<String>,
    /// Takes the place of the prefix that the rule's only match names.
    pub replace_prefix_match: Option<String>,
}

/// Which change of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum PathModifierType {
    /// The whole path is another one.
    ReplaceFullPath,
    /// The matched prefix is another one.
    ReplacePrefixMatch,
}
