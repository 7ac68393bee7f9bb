//! AuthorizationPolicies to RBAC filters: what is denied first, then what is allowed.
//!
//! A port of a policy is the application's, and a sidecar stands before one: rules for other ports are left out here. Where a
//! proxy cannot see what a rule asks for, a rule that allows is left out, and one that denies denies without it. So it is with
//! the identities of those who call in plain text.

use std::collections::BTreeMap;

use proto::pb::envoy::config::core::v3::CidrRange;
use proto::pb::envoy::config::rbac::v3::permission::{self, Rule};
use proto::pb::envoy::config::rbac::v3::principal::{self, Authenticated, Identifier};
use proto::pb::envoy::config::rbac::v3::{self as rbac, Permission, Principal, rbac::Action};
use proto::pb::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use proto::pb::envoy::extensions::filters::http::rbac::v3::Rbac as EnvoyHttpRbac;
use proto::pb::envoy::extensions::filters::network::rbac::v3::Rbac as EnvoyNetworkRbac;
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher};
use proto::pb::google::protobuf::{Any, UInt32Value};

use super::resource::any;
use super::route::regex;
use crate::document::{
    AuthorizationAction, AuthorizationRule, AuthorizationSource, CidrText, Enforcement, HttpAttributes,
    HttpPathMatch, HttpValueMatch, IpBlock, PathMatchType, SourceServiceAccount, ValueMatchType,
};
use crate::model::{AuthorizationPolicy, Name};

/// The application that policies are about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Application<'a> {
    /// Of the identities that service accounts mean. Without one nobody has an identity that is believed.
    pub(super) trust_domain: Option<&'a str>,
    /// Those who call show no identity, though they may have one.
    pub(super) is_plain: bool,
    /// The port it listens on.
    pub(super) port: u16,
    /// Whether it speaks HTTP.
    pub(super) is_http: bool,
}

/// The filters of an application in the order in which they are asked, each with its name and configuration. None where
/// everybody may do everything.
pub(super) fn http_filters(
    policies: &[&AuthorizationPolicy],
    of: Application<'_>,
) -> Vec<(&'static str, Any)> {
    let both = [("rbac.deny", denied(policies, of)), ("rbac.allow", allowed(policies, of))];
    let filters = both.into_iter().filter_map(|(name, pair)| Some((name, pair?)));
    filters
        .map(|(name, Pair { rules, shadow_rules })| (name, any(&HttpRbac { rules, shadow_rules })))
        .collect()
}

/// The same for connections, whose numbers are under `stat_prefix`.
pub(super) fn network_filters(
    policies: &[&AuthorizationPolicy],
    of: Application<'_>,
    stat_prefix: &str,
) -> Vec<(&'static str, Any)> {
    let both = [("rbac.deny", denied(policies, of)), ("rbac.allow", allowed(policies, of))];
    let filters = both.into_iter().filter_map(|(name, pair)| Some((name, pair?)));
    let config = |Pair { rules, shadow_rules }| {
        any(&NetworkRbac { rules, shadow_rules, stat_prefix: stat_prefix.to_owned() })
    };
    filters.map(|(name, pair)| (name, config(pair))).collect()
}

/// What a rule is called in a proxy: its policy, and which of the rules it is. Not its line, which moves when nothing changes.
pub fn rule_name(policy: &Name, index: usize) -> String {
    format!("{policy}[{index}]")
}

/// The policy and the rule that a proxy calls so.
pub fn rule_of_name(name: &str) -> Option<(Name, usize)> {
    let (policy, index) = name.strip_suffix(']')?.rsplit_once('[')?;
    let (namespace, name) = policy.split_once('/')?;
    Some((Name::new(namespace, name), index.parse().ok()?))
}

/// Whether requests are told apart by their paths, so that there must be one way to read each.
pub(super) fn asks_for_paths(policies: &[&AuthorizationPolicy]) -> bool {
    http_attributes(policies).any(|http| !http.paths.is_empty())
}

/// Whether they are by their hosts, so that a path must not seem to begin with another.
pub(super) fn asks_for_hosts(policies: &[&AuthorizationPolicy]) -> bool {
    http_attributes(policies).any(|http| !http.hosts.is_empty())
}

fn http_attributes<'a>(policies: &'a [&AuthorizationPolicy]) -> impl Iterator<Item = &'a HttpAttributes> {
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    rules.filter_map(|rule| rule.http_attributes.as_ref())
}

/// What is decided, and what would be.
struct Pair {
    rules: Option<Rbac>,
    shadow_rules: Option<Rbac>,
}

fn denied(policies: &[&AuthorizationPolicy], of: Application<'_>) -> Option<Pair> {
    let rules = |enforcement| {
        let those = policies
            .iter()
            .filter(|it| it.action == AuthorizationAction::Deny && it.enforcement == enforcement);
        let policies: BTreeMap<_, _> = those.flat_map(|policy| rules_of(policy, of)).collect();
        // Without any it would deny nothing.
        (!policies.is_empty()).then_some(Rbac { action: Action::Deny as i32, policies })
    };
    let pair = Pair { rules: rules(Enforcement::Enforce), shadow_rules: rules(Enforcement::Audit) };
    (pair.rules.is_some() || pair.shadow_rules.is_some()).then_some(pair)
}

/// Where something is tried, it is tried together with what is in force: what only that allows would still be allowed.
fn allowed(policies: &[&AuthorizationPolicy], of: Application<'_>) -> Option<Pair> {
    let allows = || policies.iter().filter(|it| it.action == AuthorizationAction::Allow);
    let is_enforced = |policy: &&&AuthorizationPolicy| policy.enforcement == Enforcement::Enforce;
    let rules = |those: &mut dyn Iterator<Item = &&AuthorizationPolicy>| Rbac {
        action: Action::Allow as i32,
        policies: those.flat_map(|policy| rules_of(policy, of)).collect(),
    };
    let is_tried = allows().any(|policy| policy.enforcement == Enforcement::Audit);
    // Without any rule it allows nothing, which is what such a policy says.
    let enforced =
        allows().any(|policy| is_enforced(&policy)).then(|| rules(&mut allows().filter(is_enforced)));
    let shadow = is_tried.then(|| rules(&mut allows()));
    (enforced.is_some() || shadow.is_some()).then_some(Pair { rules: enforced, shadow_rules: shadow })
}

/// Those of a policy that can match, by name.
fn rules_of(policy: &AuthorizationPolicy, of: Application<'_>) -> Vec<(String, rbac::Policy)> {
    let rules = policy.rules.iter().enumerate();
    let known = rules.filter_map(|(index, rule)| {
        let permission = permission(rule, policy.action, of)?;
        let principals = principals(rule, policy, of)?;
        let policy_of = rbac::Policy { permissions: vec![permission], principals, ..rbac::Policy::default() };
        Some((rule_name(&policy.name, index), policy_of))
    });
    known.collect()
}

/// What is done; `None` for what cannot be done here.
fn permission(
    rule: &AuthorizationRule,
    action: AuthorizationAction,
    of: Application<'_>,
) -> Option<Permission> {
    let ports = rule.network_attributes.as_ref().map(|network| &*network.ports).unwrap_or_default();
    if !ports.is_empty() && !ports.iter().any(|port| port.get() == of.port) {
        return None;
    }
    let mut all = Vec::new();
    match (&rule.http_attributes, action) {
        (None, _) => {}
        (Some(http), _) if of.is_http => http_permissions(http, action, &mut all),
        (Some(_), AuthorizationAction::Allow) => return None,
        (Some(_), AuthorizationAction::Deny) => {}
    }
    Some(match all.len() {
        0 => permission_of(Rule::Any(true)),
        1 => all.remove(0),
        _ => permission_of(Rule::AndRules(permission::Set { rules: all })),
    })
}

fn http_permissions(http: &HttpAttributes, action: AuthorizationAction, all: &mut Vec<Permission>) {
    let mut one_of = |rules: Vec<Permission>| match rules.len() {
        0 => {}
        1 => all.extend(rules),
        _ => all.push(permission_of(Rule::OrRules(permission::Set { rules }))),
    };
    one_of(http.hosts.iter().map(|name| header(":authority", host(name))).collect());
    let method = |method: &crate::document::HttpMethod| header(":method", exact(method.as_str()));
    one_of(http.methods.iter().map(method).collect());
    one_of(http.paths.iter().flat_map(|path| paths(path, action)).map(path).collect());
    all.extend(http.headers.iter().map(|HttpValueMatch { kind, name, value }| {
        header(
            name,
            match kind {
                ValueMatchType::Exact => exact(value),
                ValueMatchType::RegularExpression => matching(value.clone()),
            },
        )
    }));
}

/// In whichever case, with any port or none.
fn host(name: &str) -> StringMatcher {
    let host = match name.strip_prefix("*.") {
        Some(rest) => format!(".+\\.{}", rest.replace('.', "\\.")),
        None => name.replace('.', "\\."),
    };
    matching(format!("{host}(:[0-9]+)?"))
}

/// What of paths passes. To some servers `/a;b`, `/a/` and, if it is a file or a program, `/a/b` are `/a`: where that is denied,
/// they are, too.
fn paths(written: &HttpPathMatch, action: AuthorizationAction) -> Vec<StringMatcher> {
    let value = &*written.value;
    let denies = action == AuthorizationAction::Deny;
    let stem = value.strip_suffix('/').unwrap_or(value);
    match written.kind {
        PathMatchType::RegularExpression => vec![matching(value.to_owned())],
        PathMatchType::Exact if denies && !stem.is_empty() => {
            vec![exact(stem), prefix(format!("{stem}/")), prefix(format!("{stem};"))]
        }
        PathMatchType::Exact => vec![exact(value)],
        PathMatchType::PathPrefix if stem.is_empty() => vec![prefix("/".to_owned())],
        PathMatchType::PathPrefix => {
            let below = [exact(stem), prefix(format!("{stem}/"))];
            below.into_iter().chain(denies.then(|| prefix(format!("{stem};")))).collect()
        }
    }
}

/// Who does it; `None` where that is nobody.
fn principals(
    rule: &AuthorizationRule,
    policy: &AuthorizationPolicy,
    of: Application<'_>,
) -> Option<Vec<Principal>> {
    let anybody = || vec![principal_of(Identifier::Any(true))];
    let Some(sources) = &rule.sources else { return Some(anybody()) };
    if of.is_plain && policy.action == AuthorizationAction::Deny && sources.iter().any(is_identity) {
        // Who it is about may be the one who calls.
        return Some(anybody());
    }
    let known: Vec<_> = sources.iter().filter_map(|source| principal(source, &policy.name, of)).collect();
    (!known.is_empty()).then_some(known)
}

fn is_identity(source: &AuthorizationSource) -> bool {
    source.ip_block.is_none()
}

fn principal(source: &AuthorizationSource, policy: &Name, of: Application<'_>) -> Option<Principal> {
    // The type names the one that is set.
    let AuthorizationSource { kind: _, service_account, spiffe, trust_domain, ip_block } = source;
    if let Some(block) = ip_block {
        return Some(addresses(block));
    }
    if of.is_plain {
        return None;
    }
    let name = match (service_account, spiffe, trust_domain) {
        (Some(account), ..) => workloads(account, policy, of.trust_domain?),
        (_, Some(spiffe), _) => exact(spiffe),
        (.., Some(domain)) => prefix(format!("spiffe://{domain}/")),
        (None, None, None) => return None,
    };
    Some(principal_of(Identifier::Authenticated(Authenticated { principal_name: Some(name) })))
}

fn workloads(account: &SourceServiceAccount, policy: &Name, trust_domain: &str) -> StringMatcher {
    let namespace = account.namespace.as_deref().unwrap_or(&policy.namespace);
    let all = format!("spiffe://{trust_domain}/ns/{namespace}/sa/");
    match &*account.name {
        "*" => prefix(all),
        name => exact(&format!("{all}{name}")),
    }
}

fn addresses(block: &IpBlock) -> Principal {
    let within = |of: &CidrText| principal_of(Identifier::DirectRemoteIp(cidr(*of)));
    if block.except.is_empty() {
        return within(&block.cidr);
    }
    let not = |of: &CidrText| principal_of(Identifier::NotId(within(of).into()));
    let ids = std::iter::once(within(&block.cidr)).chain(block.except.iter().map(not)).collect();
    principal_of(Identifier::AndIds(principal::Set { ids }))
}

fn cidr(CidrText { address, bits }: CidrText) -> CidrRange {
    CidrRange { address_prefix: address.to_string(), prefix_len: Some(UInt32Value { value: bits.into() }) }
}

fn permission_of(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn principal_of(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn header(name: &str, value: StringMatcher) -> Permission {
    permission_of(Rule::Header(HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
        ..HeaderMatcher::default()
    }))
}

fn path(value: StringMatcher) -> Permission {
    permission_of(Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(value)) }))
}

fn exact(text: &str) -> StringMatcher {
    text_match(MatchPattern::Exact(text.to_owned()))
}

fn prefix(text: String) -> StringMatcher {
    text_match(MatchPattern::Prefix(text))
}

/// The whole text.
fn matching(pattern: String) -> StringMatcher {
    text_match(MatchPattern::SafeRegex(regex(&pattern)))
}

fn text_match(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

/// `envoy.config.rbac.v3.RBAC` whose map is encoded in order, so that it has one form on every replica.
#[derive(Clone, PartialEq, prost::Message)]
struct Rbac {
    #[prost(enumeration = "Action", tag = "1")]
    action: i32,
    #[prost(btree_map = "string, message", tag = "2")]
    policies: BTreeMap<String, rbac::Policy>,
}

/// The fields of the HTTP filter that are used.
#[derive(Clone, PartialEq, prost::Message)]
struct HttpRbac {
    #[prost(message, optional, tag = "1")]
    rules: Option<Rbac>,
    #[prost(message, optional, tag = "2")]
    shadow_rules: Option<Rbac>,
}

/// Those of the network filter.
#[derive(Clone, PartialEq, prost::Message)]
struct NetworkRbac {
    #[prost(message, optional, tag = "1")]
    rules: Option<Rbac>,
    #[prost(message, optional, tag = "2")]
    shadow_rules: Option<Rbac>,
    #[prost(string, tag = "3")]
    stat_prefix: String,
}

impl prost::Name for HttpRbac {
    const NAME: &'static str = EnvoyHttpRbac::NAME;
    const PACKAGE: &'static str = EnvoyHttpRbac::PACKAGE;

    fn type_url() -> String {
        EnvoyHttpRbac::type_url()
    }
}

impl prost::Name for NetworkRbac {
    const NAME: &'static str = EnvoyNetworkRbac::NAME;
    const PACKAGE: &'static str = EnvoyNetworkRbac::PACKAGE;

    fn type_url() -> String {
        EnvoyNetworkRbac::type_url()
    }
}
