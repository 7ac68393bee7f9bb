//! One rule as Envoy's routes.
//!
//! Most rules are one route. A rule is two where a prefix is taken off the path altogether (Envoy's `prefix_rewrite`
//! to `/` would leave two slashes), and one more where a share of the requests is for broken references.

use std::time::Duration;

use policy::limits;
use proto::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::pb::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
};
use proto::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use proto::pb::envoy::config::route::v3::route::Action as EnvoyAction;
use proto::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
};
use proto::pb::envoy::config::route::v3::route_match::{GrpcRouteMatchOptions, PathSpecifier};
use proto::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use proto::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, QueryParameterMatcher, RedirectAction, RetryPolicy, Route,
    RouteAction, RouteMatch, WeightedCluster,
};
use proto::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher, StringMatcher};
use proto::pb::envoy::r#type::v3::FractionalPercent;
use proto::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use proto::pb::google::protobuf::UInt32Value;
use proto::well_known::to_duration;

use super::name;
use crate::document::{Header, HeaderModifier, PathModifierType, Port, RequestRedirect, Scheme};
use crate::model::{
    Action, Backend, Forward, GrpcMethod, PathMatch, PathRewrite, RequestMatch, Rule, ValueMatch,
};

/// How often a request that found no connection is tried elsewhere. It never reached anybody, so this is always safe.
const CONNECT_RETRIES: u32 = 2;
const _: () = assert!((CONNECT_RETRIES as usize) < limits::CONNECT_ATTEMPTS_MAX);

/// The routes of `rule` on a listener with this port.
pub(super) fn routes(rule: &Rule, listener_port: u16) -> Vec<Route> {
    match &*rule.action {
        Action::Fail => {
            let matching = path_specifier(&rule.matching.path);
            vec![route(rule, matching, EnvoyAction::DirectResponse(failure(rule)))]
        }
        Action::Redirect { to, response_headers } => paths(rule, redirected_prefix(to))
            .into_iter()
            .map(|path| {
                let action = EnvoyAction::Redirect(redirect(to, &path, listener_port));
                let (add, remove) = header_options(response_headers);
                Route {
                    response_headers_to_add: add,
                    response_headers_to_remove: remove,
                    ..route(rule, path.specifier, action)
                }
            })
            .collect(),
        Action::Forward(forward) => {
            let prefix = match &forward.rewrite_path {
                Some(PathRewrite::Prefix(prefix)) => Some(prefix.as_str()),
                Some(PathRewrite::Full(_)) | None => None,
            };
            let forwards = paths(rule, prefix).into_iter().map(|path| {
                let action = EnvoyAction::Route(forward_action(rule, forward, &path));
                let (request_add, request_remove) = header_options(&forward.request_headers);
                let (response_add, response_remove) = header_options(&forward.response_headers);
                Route {
                    request_headers_to_add: request_add,
                    request_headers_to_remove: request_remove,
                    response_headers_to_add: response_add,
                    response_headers_to_remove: response_remove,
                    ..route(rule, path.specifier, action)
                }
            });
            broken_share(rule, forward).into_iter().chain(forwards).collect()
        }
    }
}

/// Every request goes to one cluster.
pub(super) fn everything_to(cluster: &str) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..route_action(None)
    };
    Route { r#match: Some(everything()), action: Some(EnvoyAction::Route(action)), ..Route::default() }
}

/// Every request is answered so.
pub(super) fn everything_answered(status: u32, body: Option<DataSource>) -> Route {
    let answer = DirectResponseAction { body, ..answer(status) };
    Route {
        r#match: Some(everything()),
        action: Some(EnvoyAction::DirectResponse(answer)),
        ..Route::default()
    }
}

fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() }
}

fn answer(status: u32) -> DirectResponseAction {
    DirectResponseAction { status, ..DirectResponseAction::default() }
}

/// How a rule that cannot be followed is answered. gRPC has no 500, and 503 is its `UNAVAILABLE`.
fn failure(rule: &Rule) -> DirectResponseAction {
    answer(if rule.matching.is_grpc() { 503 } else { 500 })
}

fn route(rule: &Rule, path: PathSpecifier, action: EnvoyAction) -> Route {
    let RequestMatch { path: _, method, headers, query } = &rule.matching;
    let method = method.map(|method| HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact(method.as_str()))),
        ..HeaderMatcher::default()
    });
    let headers = headers.iter().map(|value| HeaderMatcher {
        name: value.name.to_ascii_lowercase(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string_match(value))),
        ..HeaderMatcher::default()
    });
    let query = query.iter().map(|value| QueryParameterMatcher {
        name: value.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(string_match(value))),
    });
    Route {
        name: rule.name(),
        r#match: Some(RouteMatch {
            path_specifier: Some(path),
            headers: method.into_iter().chain(headers).collect(),
            query_parameters: query.collect(),
            grpc: rule.matching.is_grpc().then(GrpcRouteMatchOptions::default),
            ..RouteMatch::default()
        }),
        action: Some(action),
        ..Route::default()
    }
}

fn string_match(value: &ValueMatch) -> StringMatcher {
    match value.regex {
        false => exact(&value.value),
        true => StringMatcher {
            match_pattern: Some(MatchPattern::SafeRegex(regex(&value.value))),
            ..StringMatcher::default()
        },
    }
}

fn exact(value: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(value.to_owned())), ..StringMatcher::default() }
}

pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

/// One way to match the path of a rule, with what the matched part becomes.
struct Path {
    specifier: PathSpecifier,
    /// In place of what matched; only where the rule replaces its prefix.
    replacement: Option<String>,
}

/// The ways to match the path of `rule`, if its prefix becomes `prefix` (without a slash at the end).
fn paths(rule: &Rule, prefix: Option<&str>) -> Vec<Path> {
    let path =
        |specifier, replacement: Option<&str>| Path { specifier, replacement: replacement.map(Into::into) };
    let written = path_specifier(&rule.matching.path);
    let (PathMatch::Prefix(matched), Some(prefix)) = (&rule.matching.path, prefix) else {
        return vec![path(written, None)];
    };
    match (matched.as_str(), prefix) {
        ("", "") => vec![path(written, None)],
        // What matches is the slash itself, so it has to come back.
        ("", prefix) => vec![path(written, Some(&format!("{prefix}/")))],
        // What is left of `/a` is `/`, what is left of `/a/b` is `/b`: with the slash matched, or there would be two.
        (matched, "") => vec![
            path(PathSpecifier::Path(matched.to_owned()), Some("/")),
            path(PathSpecifier::Prefix(format!("{matched}/")), Some("/")),
        ],
        (_, prefix) => vec![path(written, Some(prefix))],
    }
}

fn path_specifier(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) if prefix.is_empty() => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
        PathMatch::Grpc(method) => grpc_path(method),
    }
}

/// The paths of methods: `/SERVICE/METHOD`.
fn grpc_path(GrpcMethod { service, method, regex: is_regex }: &GrpcMethod) -> PathSpecifier {
    match (service, method, is_regex) {
        (None, None, _) => PathSpecifier::Prefix("/".to_owned()),
        (Some(service), Some(method), false) => PathSpecifier::Path(format!("/{service}/{method}")),
        (Some(service), None, false) => PathSpecifier::Prefix(format!("/{service}/")),
        // A name without an expression is of letters, digits, `_` and dots, and there is none with a dot here.
        (None, Some(_), false) | (_, _, true) => {
            let part = |name: &Option<String>| {
                name.as_ref().map_or("[^/]+".to_owned(), |pattern| format!("(?:{pattern})"))
            };
            PathSpecifier::SafeRegex(regex(&format!("/{}/{}", part(service), part(method))))
        }
    }
}

fn forward_action(rule: &Rule, forward: &Forward, path: &Path) -> RouteAction {
    let good: Vec<&Backend> = forward.backends.iter().filter(|backend| backend.target.is_some()).collect();
    let mut action = RouteAction {
        max_stream_duration: rule.matching.is_grpc().then(clients_own_duration),
        cluster_specifier: Some(clusters(&good)),
        host_rewrite_specifier: forward.rewrite_host.clone().map(HostRewriteSpecifier::HostRewriteLiteral),
        prefix_rewrite: path.replacement.clone().unwrap_or_default(),
        ..route_action(forward.timeout)
    };
    match (&forward.rewrite_path, &rule.matching.path) {
        // What matched is the whole path.
        (Some(PathRewrite::Full(full)), PathMatch::Exact(_)) => {
            full_path(full).clone_into(&mut action.prefix_rewrite)
        }
        (Some(PathRewrite::Full(full)), _) => {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(regex("^/.*$")),
                substitution: full_path(full).replace('\\', "\\\\"),
            });
        }
        (Some(PathRewrite::Prefix(_)) | None, _) => {}
    }
    action
}

/// A whole path that takes the place of another. Nothing is the path `/`; to Envoy it would be no rewrite at all.
fn full_path(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// What forwarding has in common. Without a limit it must say so: Envoy's is 15 s.
fn route_action(timeout: Option<Duration>) -> RouteAction {
    RouteAction {
        timeout: Some(to_duration(timeout.unwrap_or(Duration::ZERO))),
        retry_policy: Some(RetryPolicy {
            retry_on: "connect-failure".to_owned(),
            num_retries: Some(UInt32Value { value: CONNECT_RETRIES }),
            ..RetryPolicy::default()
        }),
        ..RouteAction::default()
    }
}

/// As long as the call's `grpc-timeout` says: who called has given up then, and what is left to do is for nobody.
fn clients_own_duration() -> MaxStreamDuration {
    MaxStreamDuration {
        grpc_timeout_header_max: Some(to_duration(Duration::ZERO)),
        ..MaxStreamDuration::default()
    }
}

fn clusters(backends: &[&Backend]) -> ClusterSpecifier {
    let name = |backend: &Backend| backend.target.as_ref().map(name::service_port).unwrap_or_default();
    let plain = |backend: &Backend| {
        backend.request_headers == HeaderModifier::default()
            && backend.response_headers == HeaderModifier::default()
    };
    if let [one] = backends
        && plain(one)
    {
        return ClusterSpecifier::Cluster(name(one));
    }
    let weight = |backend: &&Backend| {
        let (request_add, request_remove) = header_options(&backend.request_headers);
        let (response_add, response_remove) = header_options(&backend.response_headers);
        ClusterWeight {
            name: name(backend),
            weight: Some(UInt32Value { value: backend.weight }),
            request_headers_to_add: request_add,
            request_headers_to_remove: request_remove,
            response_headers_to_add: response_add,
            response_headers_to_remove: response_remove,
            ..ClusterWeight::default()
        }
    };
    let clusters = backends.iter().map(weight).collect();
    ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() })
}

/// The route that answers the share of broken references with 500, in front of the one that forwards the rest.
fn broken_share(rule: &Rule, forward: &Forward) -> Option<Route> {
    let sum = |broken: bool| {
        let chosen = forward.backends.iter().filter(|backend| backend.target.is_none() == broken);
        chosen.map(|backend| u64::from(backend.weight)).sum::<u64>()
    };
    let (broken, good) = (sum(true), sum(false));
    if broken == 0 {
        return None;
    }
    // At least one request in a million, and never all: both sides have a weight.
    let share = (broken * 1_000_000 / (broken + good)).clamp(1, 999_999);
    let fraction = FractionalPercent {
        numerator: u32::try_from(share).unwrap_or_default(),
        denominator: DenominatorType::Million as i32,
    };
    let mut route =
        route(rule, path_specifier(&rule.matching.path), EnvoyAction::DirectResponse(failure(rule)));
    if let Some(matching) = &mut route.r#match {
        matching.runtime_fraction =
            Some(RuntimeFractionalPercent { default_value: Some(fraction), runtime_key: String::new() });
    }
    Some(route)
}

fn redirected_prefix(to: &RequestRedirect) -> Option<&str> {
    let path = to.path.as_ref().filter(|path| path.kind == PathModifierType::ReplacePrefixMatch)?;
    path.replace_prefix_match.as_deref().map(|prefix| prefix.trim_end_matches('/'))
}

fn redirect(to: &RequestRedirect, path: &Path, listener_port: u16) -> RedirectAction {
    let full = to.path.as_ref().and_then(|path| path.replace_full_path.as_deref().map(full_path));
    let path_rewrite = match (&path.replacement, full) {
        (Some(prefix), _) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.clone())),
        (None, Some(full)) => Some(PathRewriteSpecifier::PathRedirect(full.to_owned())),
        (None, None) => None,
    };
    let scheme = to.scheme.map(|scheme| match scheme {
        Scheme::Http => "http".to_owned(),
        Scheme::Https => "https".to_owned(),
    });
    let code = match to.status_code {
        Some(301) => RedirectResponseCode::MovedPermanently,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    RedirectAction {
        host_redirect: to.hostname.clone().unwrap_or_default(),
        port_redirect: redirect_port(to, listener_port).map_or(0, u32::from),
        response_code: code as i32,
        scheme_rewrite_specifier: scheme.map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path_rewrite,
        strip_query: false,
    }
}

/// The port that the location names: the one that is written, else that of the scheme, else the listener's. `None`
/// where the location needs none, being the scheme's own, and where the request's host has none either.
fn redirect_port(to: &RequestRedirect, listener_port: u16) -> Option<u16> {
    let of_scheme = |scheme| match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    };
    let port = to.port.map(Port::get);
    let port = port.or(to.scheme.map(of_scheme)).unwrap_or(listener_port);
    let is_default = port == of_scheme(to.scheme.unwrap_or(Scheme::Http));
    let host_has_no_port = to.hostname.is_some() || listener_port == 80;
    (!(is_default && host_has_no_port)).then_some(port)
}

fn header_options(modifier: &HeaderModifier) -> (Vec<HeaderValueOption>, Vec<String>) {
    let option = |header: &Header, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: header.name.clone(),
            // Envoy's values are formats; a percent sign is written twice.
            value: header.value.replace('%', "%%"),
            ..HeaderValue::default()
        }),
        append_action: action as i32,
        keep_empty_value: header.value.is_empty(),
        ..HeaderValueOption::default()
    };
    let set = modifier.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = modifier.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    (set.chain(add).collect(), modifier.remove.clone())
}
