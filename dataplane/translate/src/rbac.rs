//! Who may do what: the RBAC filters for requests and for connections, and what routes say of the former.
//!
//! Nothing of these messages is ignored that could narrow what they allow: a field that this version of the API does not
//! have, too, rejects its resource (see [`fields::unpack_known`]), and so do a list without an element and a header that the
//! proxy itself writes, of which a rule would believe what anybody says.
//!
//! Accepted without effect, since it is telemetry: `rules_stat_prefix`, `shadow_rules_stat_prefix`, `track_per_rule_stats`,
//! `audit_logging_options` (Envoy, too, leaves it to gRPC).

use std::{sync::Arc, time::Duration};

use policy::{
    cidr::Cidr,
    network_filter::NetworkRbac,
    rbac::{Action, Condition, Conditions, Policy, Ports, Rbac, Rules, is_written_by_proxies},
    route::HeaderMatch,
    string_match::StringMatch,
};
use proto::pb::{
    envoy::{
        config::{
            core::v3::CidrRange,
            rbac::v3::{self as rbac, permission::Rule, principal::Identifier},
            route::v3::HeaderMatcher,
        },
        extensions::filters::{
            http::rbac::v3::{self as http, RbacPerRoute},
            network::rbac::v3::{self as network, rbac::EnforcementType},
        },
        r#type::{
            matcher::v3::{PathMatcher, path_matcher},
            v3::Int32Range,
        },
    },
    google::protobuf::Any,
};

use crate::{
    fields,
    reject::{At, Fault, Reason},
    route_match,
};

/// Type of the HTTP filter's configuration.
pub(crate) const HTTP: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
/// Type of what a route says of it.
pub(crate) const PER_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
/// Type of the network filter's.
pub(crate) const NETWORK: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";

/// The HTTP filter.
pub(crate) fn http_filter(any: &Any, at: &At<'_>) -> Result<Arc<Rbac>, Fault> {
    http(&fields::unpack_known(any, at)?, at)
}

/// What a route says of the HTTP filter: other rules, or without any, that nothing is decided.
pub(crate) fn per_route(any: &Any, at: &At<'_>) -> Result<Arc<Rbac>, Fault> {
    let value: RbacPerRoute = fields::unpack_known(any, at)?;
    value.rbac.as_ref().map_or(Ok(Arc::default()), |rbac| http(rbac, &at.field("rbac")))
}

fn http(value: &http::Rbac, at: &At<'_>) -> Result<Arc<Rbac>, Fault> {
    at.refuse_all(&[
        ("matcher", value.matcher.is_some()),
        ("shadow_matcher", value.shadow_matcher.is_some()),
    ])?;
    Ok(Arc::new(both(value.rules.as_ref(), value.shadow_rules.as_ref(), Of::Request, at)?))
}

/// The network filter. Accepted without effect beside what the module says: `enforcement_type`. Nothing that rules for
/// connections ask changes while one lives, and it is asked before its first byte.
pub(crate) fn network_filter(any: &Any, at: &At<'_>) -> Result<NetworkRbac, Fault> {
    let value: network::Rbac = fields::unpack_known(any, at)?;
    at.refuse_all(&[
        ("matcher", value.matcher.is_some()),
        ("shadow_matcher", value.shadow_matcher.is_some()),
    ])?;
    fields::enumeration::<EnforcementType>(value.enforcement_type, &at.field("enforcement_type"))?;
    Ok(NetworkRbac {
        stat_prefix: fields::name(&value.stat_prefix, &at.field("stat_prefix"))?.into(),
        rbac: both(value.rules.as_ref(), value.shadow_rules.as_ref(), Of::Connection, at)?,
        delay_deny: match &value.delay_deny {
            None => Duration::ZERO,
            Some(delay) => fields::duration(delay, &at.field("delay_deny"))?,
        },
    })
}

/// What rules are asked of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Request,
    Connection,
}

fn both(
    enforced: Option<&rbac::Rbac>,
    shadow: Option<&rbac::Rbac>,
    of: Of,
    at: &At<'_>,
) -> Result<Rbac, Fault> {
    let translate =
        |value: Option<&rbac::Rbac>, name| value.map(|value| rules(value, of, &at.field(name))).transpose();
    Ok(Rbac { rules: translate(enforced, "rules")?, shadow_rules: translate(shadow, "shadow_rules")? })
}

fn rules(value: &rbac::Rbac, of: Of, at: &At<'_>) -> Result<Rules, Fault> {
    let action = match fields::enumeration(value.action, &at.field("action"))? {
        rbac::rbac::Action::Allow => Action::Allow,
        rbac::rbac::Action::Deny => Action::Deny,
        rbac::rbac::Action::Log => Action::Log,
    };
    // In order of name, so that the same message is always refused for the same reason.
    let mut named: Vec<_> = value.policies.iter().collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    let policies_at = at.field("policies");
    let policies = named.into_iter().map(|(name, value)| policy(name, value, of, &policies_at.key(name)));
    let policies = policies.collect::<Result<_, _>>()?;
    Rules::new(action, policies).map_err(|error| policies_at.fault(Reason::Rules(error)))
}

fn policy(name: &str, value: &rbac::Policy, of: Of, at: &At<'_>) -> Result<Policy, Fault> {
    at.refuse_all(&[
        ("condition", value.condition.is_some()),
        ("checked_condition", value.checked_condition.is_some()),
        ("cel_config", value.cel_config.is_some()),
    ])?;
    let permissions_at = at.field("permissions");
    let principals_at = at.field("principals");
    Ok(Policy {
        name: name.into(),
        permissions: some(&value.permissions, &permissions_at, |value, at| permission(value, of, at))?,
        principals: some(&value.principals, &principals_at, |value, at| principal(value, of, at))?,
    })
}

/// The conditions of a list, which must not be empty.
fn some<T>(
    list: &[T],
    at: &At<'_>,
    translate: impl Fn(&T, &At<'_>) -> Result<Condition, Fault>,
) -> Result<Conditions, Fault> {
    let conditions = list.iter().enumerate().map(|(index, value)| translate(value, &at.index(index)));
    at.require(Conditions::new(conditions.collect::<Result<_, _>>()?))
}

fn permission(value: &rbac::Permission, of: Of, at: &At<'_>) -> Result<Condition, Fault> {
    let set = |set: &rbac::permission::Set, name| {
        let at = at.field(name);
        some(&set.rules, &at.field("rules"), |value, at| permission(value, of, at))
    };
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    Ok(match at.field("rule").require(value.rule.as_ref())? {
        Rule::AndRules(rules) => Condition::All(set(rules, "and_rules")?),
        Rule::OrRules(rules) => Condition::Any(set(rules, "or_rules")?),
        Rule::NotRule(rule) => Condition::Not(permission(rule, of, &at.field("not_rule"))?.into()),
        Rule::Any(any) => always(*any, at)?,
        Rule::Header(value) => Condition::Header(header(value, of, &at.field("header"))?),
        Rule::UrlPath(value) => Condition::Path(path(value, of, &at.field("url_path"))?),
        Rule::DestinationIp(range) => Condition::DestinationIp(cidr(range, &at.field("destination_ip"))?),
        Rule::DestinationPort(port) => {
            let at = at.field("destination_port");
            Condition::DestinationPort(Ports::one(fields::between(*port, 0, u16::MAX.into(), &at)? as u16))
        }
        Rule::DestinationPortRange(range) => {
            Condition::DestinationPort(ports(range, &at.field("destination_port_range"))?)
        }
        Rule::RequestedServerName(value) => {
            Condition::RequestedServerName(fields::string_match(value, &at.field("requested_server_name"))?)
        }
        Rule::Metadata(_) => return Err(at.field("metadata").unsupported()),
        Rule::SourcedMetadata(_) => return Err(at.field("sourced_metadata").unsupported()),
        Rule::Matcher(_) => return Err(at.field("matcher").unsupported()),
        Rule::UriTemplate(_) => return Err(at.field("uri_template").unsupported()),
    })
}

fn principal(value: &rbac::Principal, of: Of, at: &At<'_>) -> Result<Condition, Fault> {
    let set = |set: &rbac::principal::Set, name| {
        let at = at.field(name);
        some(&set.ids, &at.field("ids"), |value, at| principal(value, of, at))
    };
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    Ok(match at.field("identifier").require(value.identifier.as_ref())? {
        Identifier::AndIds(ids) => Condition::All(set(ids, "and_ids")?),
        Identifier::OrIds(ids) => Condition::Any(set(ids, "or_ids")?),
        Identifier::NotId(id) => Condition::Not(principal(id, of, &at.field("not_id"))?.into()),
        Identifier::Any(any) => always(*any, at)?,
        Identifier::Authenticated(value) => {
            let at = at.field("authenticated");
            let at = at.field("principal_name");
            let name = value.principal_name.as_ref();
            Condition::Authenticated(name.map(|name| fields::string_match(name, &at)).transpose()?)
        }
        Identifier::SourceIp(range) => Condition::SourceIp(cidr(range, &at.field("source_ip"))?),
        Identifier::DirectRemoteIp(range) => {
            Condition::DirectRemoteIp(cidr(range, &at.field("direct_remote_ip"))?)
        }
        Identifier::RemoteIp(range) => Condition::RemoteIp(cidr(range, &at.field("remote_ip"))?),
        Identifier::Header(value) => Condition::Header(header(value, of, &at.field("header"))?),
        Identifier::UrlPath(value) => Condition::Path(path(value, of, &at.field("url_path"))?),
        Identifier::Metadata(_) => return Err(at.field("metadata").unsupported()),
        Identifier::SourcedMetadata(_) => return Err(at.field("sourced_metadata").unsupported()),
        Identifier::FilterState(_) => return Err(at.field("filter_state").unsupported()),
        Identifier::Custom(_) => return Err(at.field("custom").unsupported()),
    })
}

fn always(any: bool, at: &At<'_>) -> Result<Condition, Fault> {
    if any {
        return Ok(Condition::Always);
    }
    let reason = Reason::Invalid { value: "false".to_owned(), expected: "true" };
    Err(at.field("any").fault(reason))
}

fn header(value: &HeaderMatcher, of: Of, at: &At<'_>) -> Result<HeaderMatch, Fault> {
    of_request(of, at)?;
    if is_written_by_proxies(value.name.as_bytes()) {
        return Err(at.field("name").unsupported());
    }
    route_match::header(value, at)
}

fn path(value: &PathMatcher, of: Of, at: &At<'_>) -> Result<StringMatch, Fault> {
    of_request(of, at)?;
    let path_matcher::Rule::Path(path) = at.field("path").require(value.rule.as_ref())?;
    fields::string_match(path, &at.field("path"))
}

fn of_request(of: Of, at: &At<'_>) -> Result<(), Fault> {
    match of {
        Of::Request => Ok(()),
        Of::Connection => Err(at.fault(Reason::Conflict("a connection is no request"))),
    }
}

fn cidr(value: &CidrRange, at: &At<'_>) -> Result<Cidr, Fault> {
    let address_at = at.field("address_prefix");
    let text = fields::name(&value.address_prefix, &address_at)?;
    let address = text.parse().map_err(|_| {
        address_at.fault(Reason::Invalid { value: text.to_owned(), expected: "an IP address" })
    })?;
    // Absent is 0, as in Envoy: every address of the family.
    let bits = value.prefix_len.map_or(0, |bits| bits.value);
    Cidr::new(address, bits).map_err(|error| {
        let (value, most) = (error.prefix_bits.into(), error.address_bits.into());
        at.field("prefix_len").fault(Reason::OutOfRange { value, least: 0, most })
    })
}

fn ports(value: &Int32Range, at: &At<'_>) -> Result<Ports, Fault> {
    let ends = u32::try_from(value.start).ok().zip(u32::try_from(value.end).ok());
    ends.and_then(|(start, end)| Ports::range(start..end)).ok_or_else(|| {
        let value = format!("{}..{}", value.start, value.end);
        at.fault(Reason::Invalid { value, expected: "a range of ports with at least one in it" })
    })
}
