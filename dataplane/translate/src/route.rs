//! `RouteConfiguration` to a route table.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use policy::{
    Weighted,
    http_filter::{FilterConfig, FilterOverride, FilterOverrides},
    limits,
    regex::RegexRewrite,
    route::{
        DirectResponse, Forward, HostRewrite, PathRewrite, Redirect, RedirectPath, RouteActionSpec,
        RouteSpec, RouteTable, RouteTableSpec, TargetSpec, VirtualHostSpec,
    },
};
use prost::{Message, Name};
use proto::pb::{
    envoy::{
        config::{core::v3 as core, route::v3 as route},
        r#type::matcher::v3::RegexMatchAndSubstitute,
    },
    google::protobuf::Any,
};
use wire::http1::encode;

use crate::{
    Origin, Referring, Rejected, Wanted, fields, header, rbac,
    reject::{At, Fault, Reason},
    route_match, route_timeouts,
    taken::TakenRoutes,
    upgrade,
};

/// The edits of requests at one level. Table, virtual host, route and weighted cluster are messages of different types
/// that have the same fields.
macro_rules! request_headers {
    ($of:expr, $at:expr) => {{
        const FIELDS: (&str, &str) = ("request_headers_to_add", "request_headers_to_remove");
        header::ops(&$of.request_headers_to_add, &$of.request_headers_to_remove, FIELDS, $at)
    }};
}

/// The same for responses.
macro_rules! response_headers {
    ($of:expr, $at:expr) => {{
        const FIELDS: (&str, &str) = ("response_headers_to_add", "response_headers_to_remove");
        header::ops(&$of.response_headers_to_add, &$of.response_headers_to_remove, FIELDS, $at)
    }};
}

/// Translates a route table that comes by RDS.
pub fn translate(
    value: &route::RouteConfiguration,
    origin: Origin,
) -> Result<Referring<RouteTable>, Rejected> {
    table(value, &TakenRoutes::default(), origin, &At::ROOT).map_err(|fault| fault.of(&value.name))
}

/// Translates a route table wherever it stands. `taken` are routes that are not in `value` any more.
///
/// Accepted without effect: `validate_clusters` (an unknown cluster answers 503 either way), `metadata` (for filters
/// that Ringway does not have).
pub(crate) fn table(
    value: &route::RouteConfiguration,
    taken: &TakenRoutes<'_>,
    origin: Origin,
    at: &At<'_>,
) -> Result<Referring<RouteTable>, Fault> {
    at.refuse_all(&[
        ("vhds", value.vhds.is_some()),
        ("internal_only_headers", !value.internal_only_headers.is_empty()),
        ("cluster_specifier_plugins", !value.cluster_specifier_plugins.is_empty()),
        ("request_mirror_policies", !value.request_mirror_policies.is_empty()),
        ("vhost_header", !value.vhost_header.is_empty()),
        ("ignore_path_parameters_in_path_matching", value.ignore_path_parameters_in_path_matching),
        ("route_specifiers", !value.route_specifiers.is_empty()),
    ])?;
    let body_bytes_max = match &value.max_direct_response_body_size_bytes {
        Some(max) => (max.value as usize).min(limits::DIRECT_RESPONSE_BODY_BYTES_MAX),
        None => limits::DIRECT_RESPONSE_BODY_BYTES_MAX,
    };
    let context = Context { origin, body_bytes_max };
    let hosts_at = at.field("virtual_hosts");
    let hosts = value.virtual_hosts.iter().enumerate();
    let virtual_hosts = hosts
        .map(|(index, host)| virtual_host(host, taken.of_host(index), &context, &hosts_at.index(index)))
        .collect::<Result<_, _>>()?;
    check_domains(&value.virtual_hosts, &hosts_at)?;
    let spec = RouteTableSpec {
        name: value.name.as_str().into(),
        virtual_hosts,
        ignore_port_in_host_matching: value.ignore_port_in_host_matching,
        most_specific_header_mutations_wins: value.most_specific_header_mutations_wins,
        request_headers: request_headers!(value, at)?,
        response_headers: response_headers!(value, at)?,
        filters: filters(&value.typed_per_filter_config, at)?,
    };
    let table = RouteTable::new(spec).map_err(|error| at.fault(Reason::RouteTable(error)))?;
    let clusters = table.clusters().cloned().collect();
    Ok(Referring { value: Arc::new(table), clusters, route_tables: Wanted::new(), secrets: Wanted::new() })
}

/// What the levels below the table must know of it.
struct Context {
    origin: Origin,
    body_bytes_max: usize,
}

/// What a level of the table says of filters, by their names.
fn filters(configs: &HashMap<String, Any>, at: &At<'_>) -> Result<FilterOverrides, Fault> {
    // In order of name, so that the same message is always refused for the same reason.
    let mut named: Vec<_> = configs.iter().collect();
    named.sort_unstable_by_key(|(name, _)| *name);
    let at = at.field("typed_per_filter_config");
    let mut overrides = BTreeMap::new();
    for (name, any) in named {
        let at = at.key(name);
        let of = match fields::type_name(any) {
            WRAPPED => wrapped(&fields::unpack_known(any, &at)?, &at)?,
            _ => Some(FilterOverride::Config(filter_config(any, &at)?)),
        };
        overrides.extend(of.map(|of| (name.as_str().into(), of)));
    }
    Ok(FilterOverrides::new(overrides))
}

const WRAPPED: &str = "envoy.config.route.v3.FilterConfig";

/// Configuration of a filter with whether it is on. `None` for a filter that Ringway does not have and may do without.
fn wrapped(value: &route::FilterConfig, at: &At<'_>) -> Result<Option<FilterOverride>, Fault> {
    let at = at.field("config");
    match &value.config {
        _ if value.disabled => Ok(Some(FilterOverride::Disabled)),
        None if value.is_optional => Ok(None),
        None => Err(at.fault(Reason::Missing)),
        // Envoy: on, and no configuration of its own.
        Some(any) if any.type_url.is_empty() => Ok(Some(FilterOverride::Enabled)),
        Some(any) if value.is_optional && fields::type_name(any) != rbac::PER_ROUTE => Ok(None),
        Some(any) => filter_config(any, &at).map(|config| Some(FilterOverride::Config(config))),
    }
}

fn filter_config(any: &Any, at: &At<'_>) -> Result<FilterConfig, Fault> {
    match fields::type_name(any) {
        rbac::PER_ROUTE => rbac::per_route(any, at).map(FilterConfig::Rbac),
        _ => Err(fields::unknown_extension(&any.type_url, &[rbac::PER_ROUTE], at)),
    }
}

/// A domain may be there once in the whole table; the index would say so too, but not where.
fn check_domains(hosts: &[route::VirtualHost], at: &At<'_>) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for (index, host) in hosts.iter().enumerate() {
        let at = at.index(index);
        let at = at.field("domains");
        for (index, domain) in host.domains.iter().enumerate() {
            if !seen.insert(domain.to_ascii_lowercase()) {
                return Err(at.index(index).fault(Reason::Duplicate { value: domain.clone() }));
            }
        }
    }
    Ok(())
}

/// Accepted without effect: `virtual_clusters` (metrics only), `include_request_attempt_count`,
/// `include_attempt_count_in_response` and `include_is_timeout_retry_header` (they tell of retries, and ours are of
/// requests that nobody saw), buffer limits (ours bound every buffer), `metadata`.
fn virtual_host(
    value: &route::VirtualHost,
    taken: &[&[u8]],
    context: &Context,
    at: &At<'_>,
) -> Result<VirtualHostSpec, Fault> {
    at.refuse_all(&[
        ("matcher", value.matcher.is_some()),
        ("require_tls", value.require_tls != 0),
        ("rate_limits", !value.rate_limits.is_empty()),
        #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
        ("cors", value.cors.is_some()),
        ("retry_policy_typed_config", value.retry_policy_typed_config.is_some()),
        ("hedge_policy", value.hedge_policy.is_some()),
        ("request_mirror_policies", !value.request_mirror_policies.is_empty()),
        ("route_specifiers", !value.route_specifiers.is_empty()),
    ])?;
    let domains_at = at.field("domains");
    if value.domains.is_empty() {
        return Err(domains_at.fault(Reason::Missing));
    }
    let domains = value.domains.iter().enumerate();
    let domains = domains
        .map(|(index, domain)| Ok(fields::name(domain, &domains_at.index(index))?.into()))
        .collect::<Result<_, Fault>>()?;
    let retry = (value.retry_policy.as_ref(), at.field("retry_policy"));
    let routes_at = at.field("routes");
    // A `collect` of results guesses the length, and what it took too much stays.
    let mut routes = Vec::with_capacity(value.routes.len() + taken.len());
    for (index, of) in value.routes.iter().enumerate() {
        routes.push(self::route(of, context, &retry, &routes_at.index(index))?);
    }
    for bytes in taken {
        let at = routes_at.index(routes.len());
        let undecodable = |_| at.fault(Reason::Undecodable { type_url: route::Route::type_url() });
        let of = route::Route::decode(*bytes).map_err(undecodable)?;
        routes.push(self::route(&of, context, &retry, &at)?);
    }
    Ok(VirtualHostSpec {
        name: fields::name(&value.name, &at.field("name"))?.into(),
        domains,
        routes,
        request_headers: request_headers!(value, at)?,
        response_headers: response_headers!(value, at)?,
        filters: filters(&value.typed_per_filter_config, at)?,
    })
}

/// Accepted without effect: `decorator`, `tracing`, `stat_prefix` (telemetry), buffer limits, `metadata`.
fn route(
    value: &route::Route,
    context: &Context,
    host_retry: &(Option<&route::RetryPolicy>, At<'_>),
    at: &At<'_>,
) -> Result<RouteSpec, Fault> {
    use route::route::Action;
    at.refuse("route_specifiers", !value.route_specifiers.is_empty())?;
    let matches = at.field("match").require(value.r#match.as_ref())?;
    let action = match at.field("action").require(value.action.as_ref())? {
        Action::Route(action) => {
            let at = at.field("route");
            let own = (action.retry_policy.as_ref(), at.field("retry_policy"));
            let (policy, policy_at) = if own.0.is_some() { &own } else { host_retry };
            let mut forward = forward(action, &at)?;
            if let Some(policy) = policy {
                forward.connect_retries = connect_retries(policy, context.origin, policy_at)?;
            }
            RouteActionSpec::Forward(forward)
        }
        Action::Redirect(action) => RouteActionSpec::Redirect(redirect(action, &at.field("redirect"))?),
        Action::DirectResponse(action) => {
            let at = at.field("direct_response");
            RouteActionSpec::DirectResponse(direct_response(action, context.body_bytes_max, &at)?)
        }
        Action::FilterAction(_) => return Err(at.field("filter_action").unsupported()),
        Action::NonForwardingAction(_) => return Err(at.field("non_forwarding_action").unsupported()),
    };
    Ok(RouteSpec {
        name: value.name.as_str().into(),
        matches: route_match::translate(matches, &at.field("match"))?,
        action,
        request_headers: request_headers!(value, at)?,
        response_headers: response_headers!(value, at)?,
        filters: filters(&value.typed_per_filter_config, at)?,
    })
}

/// Accepted without effect: `hash_policy` (the balancers that use it are refused with their cluster), `priority` (it
/// chooses between circuit breakers), `early_data_policy`, `flush_timeout`.
fn forward(value: &route::RouteAction, at: &At<'_>) -> Result<Forward<TargetSpec>, Fault> {
    use route::route_action::{ClusterNotFoundResponseCode, HostRewriteSpecifier};
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    at.refuse_all(&[
        ("metadata_match", value.metadata_match.is_some()),
        ("path_rewrite_policy", value.path_rewrite_policy.is_some()),
        ("path_rewrite", !value.path_rewrite.is_empty()),
        ("append_x_forwarded_host", value.append_x_forwarded_host),
        ("retry_policy_typed_config", value.retry_policy_typed_config.is_some()),
        ("request_mirror_policies", !value.request_mirror_policies.is_empty()),
        ("rate_limits", !value.rate_limits.is_empty()),
        ("cors", value.cors.is_some()),
        ("internal_redirect_policy", value.internal_redirect_policy.is_some()),
        ("internal_redirect_action", value.internal_redirect_action != 0),
        ("hedge_policy", value.hedge_policy.is_some()),
    ])?;
    if value.cluster_not_found_response_code != ClusterNotFoundResponseCode::ServiceUnavailable as i32 {
        let value = value.cluster_not_found_response_code().as_str_name().to_owned();
        let reason = Reason::UnsupportedValue { value, supported: "SERVICE_UNAVAILABLE" };
        return Err(at.field("cluster_not_found_response_code").fault(reason));
    }
    let mut forward = Forward::new(targets(value, at)?);
    forward.path_rewrite = match (&*value.prefix_rewrite, &value.regex_rewrite) {
        ("", None) => None,
        (prefix, None) => Some(PathRewrite::Matched(rewritten_path(prefix, &at.field("prefix_rewrite"))?)),
        ("", Some(rewrite)) => {
            let at = at.field("regex_rewrite");
            rewritten_path(&rewrite.substitution, &at.field("substitution"))?;
            Some(PathRewrite::Regex(regex_rewrite(rewrite, &at)?))
        }
        _ => return Err(at.field("regex_rewrite").fault(Reason::Conflict("prefix_rewrite is set as well"))),
    };
    forward.host_rewrite = match &value.host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(host_literal(host, at)?),
        Some(HostRewriteSpecifier::AutoHostRewrite(on)) => on.value.then_some(HostRewrite::EndpointHostname),
        Some(HostRewriteSpecifier::HostRewriteHeader(_)) => {
            return Err(at.field("host_rewrite_header").unsupported());
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            return Err(at.field("host_rewrite_path_regex").unsupported());
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => return Err(at.field("host_rewrite").unsupported()),
    };
    route_timeouts::apply(value, &mut forward, at)?;
    forward.upgrades = upgrade::of_route(&value.upgrade_configs, &at.field("upgrade_configs"))?;
    Ok(forward)
}

fn targets(value: &route::RouteAction, at: &At<'_>) -> Result<Weighted<TargetSpec>, Fault> {
    use route::route_action::ClusterSpecifier;
    match at.field("cluster_specifier").require(value.cluster_specifier.as_ref())? {
        ClusterSpecifier::Cluster(cluster) => {
            let cluster = fields::name(cluster, &at.field("cluster"))?.into();
            Ok(Weighted::one(TargetSpec { cluster, ..TargetSpec::default() }))
        }
        ClusterSpecifier::WeightedClusters(clusters) => weighted(clusters, &at.field("weighted_clusters")),
        ClusterSpecifier::ClusterHeader(_) => Err(at.field("cluster_header").unsupported()),
        ClusterSpecifier::ClusterSpecifierPlugin(_) => {
            Err(at.field("cluster_specifier_plugin").unsupported())
        }
        ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            Err(at.field("inline_cluster_specifier_plugin").unsupported())
        }
    }
}

/// The sum of the weights must fit into 32 bits, as in Envoy: a control plane that goes beyond has lost count.
///
/// Accepted without effect: `total_weight` (Envoy takes the sum, too), `runtime_key_prefix` (there is no runtime).
fn weighted(value: &route::WeightedCluster, at: &At<'_>) -> Result<Weighted<TargetSpec>, Fault> {
    use route::weighted_cluster::{RandomValueSpecifier, cluster_weight::HostRewriteSpecifier};
    match &value.random_value_specifier {
        None => {}
        Some(RandomValueSpecifier::HeaderName(_)) => return Err(at.field("header_name").unsupported()),
        Some(RandomValueSpecifier::UseHashPolicy(on)) => at.refuse("use_hash_policy", on.value)?,
    }
    let clusters_at = at.field("clusters");
    if value.clusters.is_empty() {
        return Err(clusters_at.fault(Reason::Missing));
    }
    let mut targets = Vec::with_capacity(value.clusters.len());
    let mut sum = 0u64;
    for (index, cluster) in value.clusters.iter().enumerate() {
        let at = clusters_at.index(index);
        at.refuse_all(&[
            ("cluster_header", !cluster.cluster_header.is_empty()),
            ("metadata_match", cluster.metadata_match.is_some()),
        ])?;
        let host_rewrite = match &cluster.host_rewrite_specifier {
            None => None,
            Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(host_literal(host, &at)?),
        };
        let target = TargetSpec {
            cluster: fields::name(&cluster.name, &at.field("name"))?.into(),
            host_rewrite,
            request_headers: request_headers!(cluster, &at)?,
            response_headers: response_headers!(cluster, &at)?,
            filters: filters(&cluster.typed_per_filter_config, &at)?,
        };
        let weight = cluster.weight.map_or(0, |weight| weight.value);
        sum += u64::from(weight);
        targets.push((weight, target));
    }
    if sum > u32::MAX.into() {
        return Err(clusters_at.fault(Reason::OutOfRange { value: sum, least: 1, most: u32::MAX.into() }));
    }
    Weighted::new(targets).map_err(|_| clusters_at.fault(Reason::Conflict("the sum of the weights is zero")))
}

/// What does not make a `Host` would fail every request of the route.
fn host_literal(host: &str, at: &At<'_>) -> Result<HostRewrite, Fault> {
    let at = at.field("host_rewrite_literal");
    if !encode::is_authority(fields::name(host, &at)?.as_bytes()) {
        let value = host.escape_debug().to_string();
        return Err(at.fault(Reason::Invalid { value, expected: "`host` or `host:port`" }));
    }
    Ok(HostRewrite::Literal(host.as_bytes().into()))
}

/// The same for a path. It gets its `/` when a request is rewritten.
fn rewritten_path(path: &str, at: &At<'_>) -> Result<Arc<[u8]>, Fault> {
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        let value = path.escape_debug().to_string();
        return Err(at.fault(Reason::Invalid { value, expected: "visible ASCII without `#`" }));
    }
    Ok(path.as_bytes().into())
}

fn regex_rewrite(value: &RegexMatchAndSubstitute, at: &At<'_>) -> Result<RegexRewrite, Fault> {
    let pattern = at.field("pattern").require(value.pattern.as_ref())?;
    let pattern = fields::name(&pattern.regex, &at.field("pattern").field("regex"))?;
    RegexRewrite::new(pattern, &value.substitution).map_err(|error| at.fault(Reason::Regex(error)))
}

/// How often a connect failure is tried again. Of the conditions of `retry_on` only those that a connect failure
/// fulfils are acted on; the others, with their statuses, back-offs and predicates, ask for retries of requests that
/// may have reached an upstream. A control plane may ask for them and gets fewer retries than it wanted.
fn connect_retries(value: &route::RetryPolicy, origin: Origin, at: &At<'_>) -> Result<u8, Fault> {
    const SUPPORTED: &str = "connect-failure";
    let conditions = || value.retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty());
    if origin == Origin::Static
        && let Some(other) = conditions().find(|condition| *condition != SUPPORTED)
    {
        let reason = Reason::UnsupportedValue { value: other.to_owned(), supported: SUPPORTED };
        return Err(at.field("retry_on").fault(reason));
    }
    let covers_connect_failure = ["connect-failure", "reset", "reset-before-request", "5xx", "gateway-error"];
    if !conditions().any(|condition| covers_connect_failure.contains(&condition)) {
        return Ok(0);
    }
    let most = limits::CONNECT_ATTEMPTS_MAX - 1;
    let wanted = value.num_retries.map_or(1, |retries| retries.value as usize);
    Ok(wanted.min(most) as u8)
}

fn redirect(value: &route::RedirectAction, at: &At<'_>) -> Result<Redirect, Fault> {
    use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let scheme = match &value.scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            let scheme = fields::single_line(scheme, &at.field("scheme_redirect"))?;
            (!scheme.is_empty()).then(|| scheme.into())
        }
    };
    let port = fields::between(value.port_redirect, 0, u16::MAX.into(), &at.field("port_redirect"))? as u16;
    let path = match &value.path_rewrite_specifier {
        None => RedirectPath::Keep,
        // Empty is as good as not set, as Envoy has it, though one of them is.
        Some(PathRewriteSpecifier::PathRedirect(path) | PathRewriteSpecifier::PrefixRewrite(path))
            if path.is_empty() =>
        {
            RedirectPath::Keep
        }
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            let at = at.field("path_redirect");
            RedirectPath::Full(fields::single_line(path, &at)?.as_bytes().into())
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            let at = at.field("prefix_rewrite");
            RedirectPath::Matched(fields::single_line(prefix, &at)?.as_bytes().into())
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            RedirectPath::Regex(regex_rewrite(rewrite, &at.field("regex_rewrite"))?)
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => return Err(at.field("path_rewrite").unsupported()),
    };
    let status = match fields::enumeration(value.response_code, &at.field("response_code"))? {
        RedirectResponseCode::MovedPermanently => 301,
        RedirectResponseCode::Found => 302,
        RedirectResponseCode::SeeOther => 303,
        RedirectResponseCode::TemporaryRedirect => 307,
        RedirectResponseCode::PermanentRedirect => 308,
    };
    let host = fields::single_line(&value.host_redirect, &at.field("host_redirect"))?;
    Ok(Redirect {
        status,
        scheme,
        host: (!host.is_empty()).then(|| host.into()),
        port: (port != 0).then_some(port),
        path,
        strip_query: value.strip_query,
    })
}

fn direct_response(
    value: &route::DirectResponseAction,
    body_bytes_max: usize,
    at: &At<'_>,
) -> Result<DirectResponse, Fault> {
    use core::data_source::Specifier;
    at.refuse("body_format", value.body_format.is_some())?;
    let body_at = at.field("body");
    let body: &[u8] = match value.body.as_ref().and_then(|body| body.specifier.as_ref()) {
        None => &[],
        Some(Specifier::InlineString(text)) => text.as_bytes(),
        Some(Specifier::InlineBytes(bytes)) => bytes,
        Some(Specifier::Filename(_)) => return Err(body_at.field("filename").unsupported()),
        Some(Specifier::EnvironmentVariable(_)) => {
            return Err(body_at.field("environment_variable").unsupported());
        }
    };
    if body.len() > body_bytes_max {
        let reason = Reason::OutOfRange { value: body.len() as u64, least: 0, most: body_bytes_max as u64 };
        return Err(body_at.fault(reason));
    }
    let status = fields::between(value.status, 200, 599, &at.field("status"))? as u16;
    Ok(DirectResponse { status, body: body.into() })
}
