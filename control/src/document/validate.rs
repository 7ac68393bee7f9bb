//! What the types alone do not say: the rules that Kubernetes' API server would check before it stores an object.
//! What needs other objects (references, conflicts) is not here but in the model, and shows as conditions.

mod authorization;
mod backend_tls_policy;
mod gateway;
mod peer_authentication;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{
    AddressType, EndpointSlice, GrpcFilterType, GrpcMethodMatch, GrpcRouteFilter, GrpcRouteRule,
    GrpcRouteSpec, HeaderModifier, HttpPathMatch, HttpRouteFilter, HttpRouteRule, HttpRouteSpec,
    HttpValueMatch, Metadata, Object, PathMatchType, PathModifier, PathModifierType, Port, ServiceSpec,
    ServiceType, TcpRouteRule, TlsRouteSpec, ValueMatchType, WorkloadSpec,
};
use crate::document::FilterType;

/// What is wrong with a document, and where in it.
#[derive(Debug)]
pub(super) struct Violation {
    /// From the root: `spec.rules[0].matches`.
    pub(super) path: String,
    /// A sentence about the value there.
    pub(super) reason: String,
}

type Verdict = Result<(), Violation>;

/// Most rules of one HTTPRoute or GRPCRoute, as Gateway API bounds it.
const RULES_MAX: usize = 16;
/// Most matches of one GRPCRoute's rule, as Gateway API bounds it.
const GRPC_MATCHES_MAX: usize = 64;
/// Longest name of a service or method of gRPC, in bytes, as Gateway API bounds it.
const GRPC_NAME_BYTES_MAX: usize = 1024;
/// Most matches of one HTTPRoute or GRPCRoute over all its rules, as Gateway API bounds it.
const MATCHES_MAX: usize = 128;
/// Most entries of a list of filters or backends, as Gateway API bounds it.
const LIST_MAX: usize = 16;
/// Largest weight of a backend, as Gateway API bounds it.
const WEIGHT_MAX: u32 = 1_000_000;
/// Longest path, header value or regular expression, in bytes; Gateway API allows 1024 for paths and 4096 for values.
const VALUE_BYTES_MAX: usize = 4096;

pub(super) fn validate(object: &Object) -> Verdict {
    metadata(object.metadata())?;
    match object {
        Object::Gateway(object) => gateway::gateway(&object.spec),
        Object::HttpRoute(object) => http_route(&object.spec),
        Object::GrpcRoute(object) => grpc_route(&object.spec),
        Object::TcpRoute(object) => connection_rules(&object.spec.rules, "TCPRoute"),
        Object::TlsRoute(object) => tls_route(&object.spec),
        Object::Service(object) => service(&object.spec),
        Object::EndpointSlice(slice) => endpoint_slice(slice),
        Object::Workload(object) => workload(&object.spec),
        Object::AuthorizationPolicy(object) => authorization::policy(&object.spec),
        Object::PeerAuthentication(object) => peer_authentication::peers(&object.spec),
        Object::BackendTlsPolicy(object) => backend_tls_policy::policy(&object.spec),
        Object::GatewayClass(_)
        | Object::ReferenceGrant(_)
        | Object::Namespace(_)
        | Object::Secret(_)
        | Object::ConfigMap(_)
        | Object::NotUsed(_) => Ok(()),
    }
}

fn metadata(metadata: &Metadata) -> Verdict {
    check(is_dns_name(&metadata.name), "metadata.name", || {
        format!("`{}` is not a name of lower-case letters, digits, `-` and `.`", metadata.name)
    })?;
    match &metadata.namespace {
        Some(namespace) => check(is_dns_label(namespace), "metadata.namespace", || {
            format!("`{namespace}` is not a name of at most 63 lower-case letters, digits and `-`")
        }),
        None => Ok(()),
    }
}

fn http_route(spec: &HttpRouteSpec) -> Verdict {
    for (i, name) in spec.hostnames.iter().enumerate() {
        hostname(name, &format!("spec.hostnames[{i}]"))?;
    }
    bound(spec.rules.len(), RULES_MAX, "spec.rules")?;
    let matches = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    bound(matches, MATCHES_MAX, "spec.rules")?;
    distinct(spec.rules.iter().map(|rule| rule.name.as_ref()), "spec.rules", "name")?;
    for (i, rule) in spec.rules.iter().enumerate() {
        http_rule(rule, &format!("spec.rules[{i}]"))?;
    }
    Ok(())
}

fn http_rule(rule: &HttpRouteRule, at: &str) -> Verdict {
    for (i, one) in rule.matches.iter().enumerate() {
        let at = format!("{at}.matches[{i}]");
        if let Some(path) = &one.path {
            path_match(path, &format!("{at}.path.value"))?;
        }
        value_matches(&one.headers, &format!("{at}.headers"))?;
        value_matches(&one.query_params, &format!("{at}.queryParams"))?;
    }
    filters(&rule.filters, rule, &format!("{at}.filters"))?;
    bound(rule.backend_refs.len(), LIST_MAX, &format!("{at}.backendRefs"))?;
    for (i, backend) in rule.backend_refs.iter().enumerate() {
        let at = format!("{at}.backendRefs[{i}]");
        weight(backend.weight, &at)?;
        has_port(backend.kind.as_deref(), backend.group.as_deref(), backend.port, &at)?;
        filters(&backend.filters, rule, &format!("{at}.filters"))?;
    }
    let redirects = rule.filters.iter().any(|filter| filter.kind == FilterType::RequestRedirect);
    check(!redirects || rule.backend_refs.is_empty(), &format!("{at}.backendRefs"), || {
        "a rule that redirects has no backends".to_owned()
    })?;
    match &rule.timeouts {
        // Zero is no limit, so it is above every other value.
        Some(timeouts) => match (timeouts.request, timeouts.backend_request) {
            (Some(request), Some(backend)) => check(
                request.0.is_zero() || (backend <= request && !backend.0.is_zero()),
                &format!("{at}.timeouts.backendRequest"),
                || "longer than `request`".to_owned(),
            ),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}

fn path_match(path: &HttpPathMatch, at: &str) -> Verdict {
    let value = &path.value;
    bound(value.len(), VALUE_BYTES_MAX, at)?;
    if path.kind == PathMatchType::RegularExpression {
        return Ok(());
    }
    check(value.starts_with('/'), at, || format!("`{value}` does not start with `/`"))?;
    for part in ["//", "/./", "/../", "%2f", "%2F", "#", "?"] {
        check(!value.contains(part), at, || {
            format!("`{value}` contains `{part}`, which no request's path has")
        })?;
    }
    for end in ["/.", "/.."] {
        check(!value.ends_with(end), at, || {
            format!("`{value}` ends with `{end}`, which no request's path does")
        })?;
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&byte);
    check(value.bytes().all(allowed), at, || {
        format!("`{value}` has characters that a path cannot have unescaped")
    })
}

fn value_matches(matches: &[HttpValueMatch], at: &str) -> Verdict {
    bound(matches.len(), LIST_MAX, at)?;
    distinct(matches.iter().map(|one| Some(&one.name)), at, "name")?;
    for (i, one) in matches.iter().enumerate() {
        check(is_token(&one.name), &format!("{at}[{i}].name"), || format!("`{}` is not a name", one.name))?;
        check(!one.value.is_empty(), &format!("{at}[{i}].value"), || "empty".to_owned())?;
        bound(one.value.len(), VALUE_BYTES_MAX, &format!("{at}[{i}].value"))?;
    }
    Ok(())
}

fn filters(filters: &[HttpRouteFilter], rule: &HttpRouteRule, at: &str) -> Verdict {
    bound(filters.len(), LIST_MAX, at)?;
    let mut seen = Vec::new();
    for (i, filter) in filters.iter().enumerate() {
        let at = format!("{at}[{i}]");
        filter_fields(filter, &at)?;
        let repeatable = matches!(filter.kind, FilterType::RequestMirror | FilterType::ExtensionRef);
        check(repeatable || !seen.contains(&filter.kind), &at, || {
            format!("a second {}", filter.kind.as_str())
        })?;
        seen.push(filter.kind);
        for modifier in
            [&filter.request_header_modifier, &filter.response_header_modifier].into_iter().flatten()
        {
            header_modifier(modifier, &at)?;
        }
        if let Some(redirect) = &filter.request_redirect {
            precise_hostname(redirect.hostname.as_deref(), &format!("{at}.requestRedirect.hostname"))?;
            path_modifier(redirect.path.as_ref(), rule, &format!("{at}.requestRedirect.path"))?;
            let status = redirect.status_code.unwrap_or(302);
            check(
                [301, 302, 303, 307, 308].contains(&status),
                &format!("{at}.requestRedirect.statusCode"),
                || format!("{status} is not one of 301, 302, 303, 307 and 308"),
            )?;
        }
        if let Some(rewrite) = &filter.url_rewrite {
            precise_hostname(rewrite.hostname.as_deref(), &format!("{at}.urlRewrite.hostname"))?;
            path_modifier(rewrite.path.as_ref(), rule, &format!("{at}.urlRewrite.path"))?;
        }
    }
    let both = seen.contains(&FilterType::RequestRedirect) && seen.contains(&FilterType::UrlRewrite);
    check(!both, at, || "RequestRedirect and URLRewrite exclude each other".to_owned())
}

/// The field that `type` names is set, and no other.
fn filter_fields(filter: &HttpRouteFilter, at: &str) -> Verdict {
    let fields = [
        (
            FilterType::RequestHeaderModifier,
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            FilterType::ResponseHeaderModifier,
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        (FilterType::RequestRedirect, "requestRedirect", filter.request_redirect.is_some()),
        (FilterType::UrlRewrite, "urlRewrite", filter.url_rewrite.is_some()),
        (FilterType::RequestMirror, "requestMirror", filter.request_mirror.is_some()),
        (FilterType::Cors, "cors", filter.cors.is_some()),
        (FilterType::ExternalAuth, "externalAuth", filter.external_auth.is_some()),
        (FilterType::ExtensionRef, "extensionRef", filter.extension_ref.is_some()),
    ];
    only_the_field_of(filter.kind, filter.kind.as_str(), &fields, at)
}

/// Of the fields of all types, each with whether it is set, only that of one `type` is.
fn only_the_field_of<T: PartialEq>(kind: T, name: &str, fields: &[(T, &str, bool)], at: &str) -> Verdict {
    for (of, field, set) in fields {
        check(*set == (*of == kind), at, || match set {
            true => format!("`{field}` does not go with type {name}"),
            false => format!("type {name} needs `{field}`"),
        })?;
    }
    Ok(())
}

fn header_modifier(modifier: &HeaderModifier, at: &str) -> Verdict {
    let names =
        |headers: &[super::Header]| headers.iter().map(|header| header.name.clone()).collect::<Vec<_>>();
    for names in [names(&modifier.set), names(&modifier.add), modifier.remove.clone()] {
        bound(names.len(), LIST_MAX, at)?;
        distinct(names.iter().map(Some), at, "name")?;
        for name in &names {
            check(is_token(name), at, || format!("`{name}` is not the name of a header"))?;
        }
    }
    for header in modifier.set.iter().chain(&modifier.add) {
        bound(header.value.len(), VALUE_BYTES_MAX, at)?;
        check(!header.value.contains(|c: char| c.is_ascii_control() && c != '\t'), at, || {
            format!("the value of `{}` has control characters", header.name)
        })?;
    }
    Ok(())
}

fn path_modifier(modifier: Option<&PathModifier>, rule: &HttpRouteRule, at: &str) -> Verdict {
    let Some(modifier) = modifier else { return Ok(()) };
    let full = modifier.kind == PathModifierType::ReplaceFullPath;
    check(
        modifier.replace_full_path.is_some() == full && modifier.replace_prefix_match.is_some() != full,
        at,
        || "exactly the field that `type` names must be set".to_owned(),
    )?;
    for path in [&modifier.replace_full_path, &modifier.replace_prefix_match].into_iter().flatten() {
        bound(path.len(), VALUE_BYTES_MAX, at)?;
        check(path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains(['?', '#']), at, || {
            format!("`{path}` has characters that a path cannot have unescaped")
        })?;
        check(path.is_empty() || path.starts_with('/'), at, || format!("`{path}` does not start with `/`"))?;
    }
    if full {
        return Ok(());
    }
    let prefix =
        |path: &Option<HttpPathMatch>| path.as_ref().is_none_or(|p| p.kind == PathMatchType::PathPrefix);
    let one_prefix = matches!(&rule.matches[..], [only] if prefix(&only.path)) || rule.matches.is_empty();
    check(one_prefix, at, || "ReplacePrefixMatch needs exactly one match, of type PathPrefix".to_owned())
}

fn grpc_route(spec: &GrpcRouteSpec) -> Verdict {
    for (i, name) in spec.hostnames.iter().enumerate() {
        hostname(name, &format!("spec.hostnames[{i}]"))?;
    }
    bound(spec.rules.len(), RULES_MAX, "spec.rules")?;
    let matches = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    bound(matches, MATCHES_MAX, "spec.rules")?;
    distinct(spec.rules.iter().map(|rule| rule.name.as_ref()), "spec.rules", "name")?;
    for (i, rule) in spec.rules.iter().enumerate() {
        grpc_rule(rule, &format!("spec.rules[{i}]"))?;
    }
    Ok(())
}

fn grpc_rule(rule: &GrpcRouteRule, at: &str) -> Verdict {
    bound(rule.matches.len(), GRPC_MATCHES_MAX, &format!("{at}.matches"))?;
    for (i, one) in rule.matches.iter().enumerate() {
        let at = format!("{at}.matches[{i}]");
        if let Some(method) = &one.method {
            grpc_method(method, &format!("{at}.method"))?;
        }
        value_matches(&one.headers, &format!("{at}.headers"))?;
    }
    grpc_filters(&rule.filters, &format!("{at}.filters"))?;
    bound(rule.backend_refs.len(), LIST_MAX, &format!("{at}.backendRefs"))?;
    for (i, backend) in rule.backend_refs.iter().enumerate() {
        let at = format!("{at}.backendRefs[{i}]");
        weight(backend.weight, &at)?;
        has_port(backend.kind.as_deref(), backend.group.as_deref(), backend.port, &at)?;
        grpc_filters(&backend.filters, &format!("{at}.filters"))?;
    }
    Ok(())
}

fn grpc_method(written: &GrpcMethodMatch, at: &str) -> Verdict {
    let given = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    check(given(&written.service) || given(&written.method), at, || {
        "needs `service`, `method` or both".to_owned()
    })?;
    for (field, name) in [("service", &written.service), ("method", &written.method)] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        let at = format!("{at}.{field}");
        bound(name.len(), GRPC_NAME_BYTES_MAX, &at)?;
        let whole = match field {
            // A package may be written from the root, with a dot in front.
            "service" => name.strip_prefix('.').unwrap_or(name).split('.').all(is_identifier),
            _ => is_identifier(name),
        };
        check(whole || written.kind == ValueMatchType::RegularExpression, &at, || {
            format!("`{name}` is not the name of a {field}")
        })?;
    }
    Ok(())
}

fn grpc_filters(filters: &[GrpcRouteFilter], at: &str) -> Verdict {
    bound(filters.len(), LIST_MAX, at)?;
    let mut seen = Vec::new();
    for (i, filter) in filters.iter().enumerate() {
        use GrpcFilterType::{ExtensionRef, RequestHeaderModifier, RequestMirror, ResponseHeaderModifier};
        let at = format!("{at}[{i}]");
        let GrpcRouteFilter { request_header_modifier: request, response_header_modifier: response, .. } =
            filter;
        let fields = [
            (RequestHeaderModifier, "requestHeaderModifier", request.is_some()),
            (ResponseHeaderModifier, "responseHeaderModifier", response.is_some()),
            (RequestMirror, "requestMirror", filter.request_mirror.is_some()),
            (ExtensionRef, "extensionRef", filter.extension_ref.is_some()),
        ];
        only_the_field_of(filter.kind, &format!("{:?}", filter.kind), &fields, &at)?;
        let repeatable = matches!(filter.kind, RequestMirror | ExtensionRef);
        check(repeatable || !seen.contains(&filter.kind), &at, || format!("a second {:?}", filter.kind))?;
        seen.push(filter.kind);
        for modifier in [request, response].into_iter().flatten() {
            header_modifier(modifier, &at)?;
        }
    }
    Ok(())
}

fn tls_route(spec: &TlsRouteSpec) -> Verdict {
    for (i, name) in spec.hostnames.iter().enumerate() {
        hostname(name, &format!("spec.hostnames[{i}]"))?;
    }
    connection_rules(&spec.rules, "TLSRoute")
}

fn connection_rules(rules: &[TcpRouteRule], kind: &str) -> Verdict {
    check(rules.len() == 1, "spec.rules", || format!("a {kind} has exactly one rule"))?;
    for (i, backend) in rules.iter().flat_map(|rule| &rule.backend_refs).enumerate() {
        let at = format!("spec.rules[0].backendRefs[{i}]");
        weight(backend.weight, &at)?;
        has_port(backend.kind.as_deref(), backend.group.as_deref(), backend.port, &at)?;
    }
    Ok(())
}

fn service(spec: &ServiceSpec) -> Verdict {
    let needs_ports = spec.kind != Some(ServiceType::ExternalName) && spec.cluster_ip.is_none();
    check(!spec.ports.is_empty() || !needs_ports, "spec.ports", || "a Service needs a port".to_owned())?;
    let named = spec.ports.iter().all(|port| port.name.is_some());
    check(named || spec.ports.len() == 1, "spec.ports", || "several ports need names".to_owned())?;
    distinct(spec.ports.iter().map(|port| port.name.as_ref()), "spec.ports", "name")
}

fn endpoint_slice(slice: &EndpointSlice) -> Verdict {
    for (i, endpoint) in slice.endpoints.iter().enumerate() {
        check(!endpoint.addresses.is_empty(), &format!("endpoints[{i}].addresses"), || "empty".to_owned())?;
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let fits = match slice.address_type {
                AddressType::IPv4 => matches!(address.parse(), Ok(IpAddr::V4(_))),
                AddressType::IPv6 => matches!(address.parse(), Ok(IpAddr::V6(_))),
                AddressType::Fqdn => is_dns_name(address),
            };
            check(fits, &format!("endpoints[{i}].addresses[{j}]"), || {
                format!("`{address}` is not of type {:?}", slice.address_type)
            })?;
        }
    }
    Ok(())
}

fn workload(spec: &WorkloadSpec) -> Verdict {
    check(!spec.ports.is_empty(), "spec.ports", || "a Workload needs a port".to_owned())?;
    let named = spec.ports.iter().all(|port| port.name.is_some());
    check(named || spec.ports.len() == 1, "spec.ports", || "several ports need names".to_owned())?;
    distinct(spec.ports.iter().map(|port| port.name.as_ref()), "spec.ports", "name")
}

fn has_port(kind: Option<&str>, group: Option<&str>, port: Option<Port>, at: &str) -> Verdict {
    let service = kind.unwrap_or("Service") == "Service" && group.unwrap_or_default().is_empty();
    check(!service || port.is_some(), at, || "a reference to a Service needs a port".to_owned())
}

fn weight(weight: u32, at: &str) -> Verdict {
    check(weight <= WEIGHT_MAX, &format!("{at}.weight"), || format!("{weight} is above {WEIGHT_MAX}"))
}

fn hostname(name: &str, at: &str) -> Verdict {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    check(is_dns_name(rest) && rest.parse::<IpAddr>().is_err(), at, || {
        format!("`{name}` is not a host name in lower case, without a port, with or without `*.` in front")
    })
}

fn precise_hostname(name: Option<&str>, at: &str) -> Verdict {
    let Some(name) = name else { return Ok(()) };
    check(is_dns_name(name), at, || format!("`{name}` is not a host name in lower case, without a port"))
}

fn distinct<'a>(names: impl Iterator<Item = Option<&'a String>>, at: &str, field: &str) -> Verdict {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        let Some(name) = name else { continue };
        check(seen.insert(name), &format!("{at}[{i}].{field}"), || format!("`{name}` is there twice"))?;
    }
    Ok(())
}

fn bound(count: usize, max: usize, at: &str) -> Verdict {
    check(count <= max, at, || format!("{count} is more than {max}"))
}

fn check(holds: bool, path: &str, reason: impl FnOnce() -> String) -> Verdict {
    match holds {
        true => Ok(()),
        false => Err(Violation { path: path.to_owned(), reason: reason() }),
    }
}

/// RFC 1123: labels of letters, digits and inner hyphens, in lower case, joined by dots, at most 253 bytes.
fn is_dns_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

fn is_dns_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A name in the language of protobuf.
fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// RFC 9110 §5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
