//! The rules of HTTPRoutes and GRPCRoutes, one per match, in the order in which they are tried.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Name;
use crate::document::{
    GrpcMethodMatch, GrpcRouteMatch, HeaderModifier, HttpMethod, HttpPathMatch, HttpRouteMatch,
    HttpValueMatch, PathMatchType, RequestRedirect, ValueMatchType,
};

/// One match of one rule of a route with what happens to the requests it matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The route it is of.
    pub route: Name,
    /// Position of the rule in the route, and of the match in the rule, from 0.
    pub position: (usize, usize),
    /// When the route was created.
    pub created: Option<Timestamp>,
    /// Which requests.
    pub matching: RequestMatch,
    /// What happens to them; shared by the matches of the rule.
    pub action: Arc<Action>,
}

impl Rule {
    /// Names the rule for people and logs: `NAMESPACE/ROUTE/RULE/MATCH`, positions from 0.
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.route, self.position.0, self.position.1)
    }

    /// Whether the rule compares a path and a method at most, and changes nothing: most rules of a large mesh. A
    /// document whose fields were checked cannot say anything there that a proxy refuses.
    pub(crate) fn is_plain(&self) -> bool {
        let RequestMatch { path, method: _, headers, query } = &self.matching;
        let plain_path = match path {
            PathMatch::Exact(_) | PathMatch::Prefix(_) => true,
            PathMatch::Regex(_) => false,
            PathMatch::Grpc(method) => !method.regex,
        };
        let plain_match = plain_path && headers.is_empty() && query.is_empty();
        let none = HeaderModifier::default();
        let changes_nothing = match &*self.action {
            Action::Fail => true,
            Action::Redirect { .. } => false,
            Action::Forward(forward) => {
                let Forward {
                    backends,
                    request_headers,
                    response_headers,
                    rewrite_host,
                    rewrite_path,
                    timeout: _,
                } = forward;
                let edits =
                    backends.iter().flat_map(|backend| [&backend.request_headers, &backend.response_headers]);
                rewrite_host.is_none()
                    && rewrite_path.is_none()
                    && edits.chain([request_headers, response_headers]).all(|edits| *edits == none)
            }
        };
        plain_match && changes_nothing
    }

    /// Less is tried first: Gateway API's order of matches, then of routes, then of rules. Where a path by regular
    /// expression stands is ours to choose: after exact paths, before prefixes, for a prefix `/` would hide it.
    pub fn precedence(&self, other: &Self) -> Ordering {
        let key = |rule: &Self| {
            let matching = &rule.matching;
            (
                matching.path.rank(),
                Reverse(matching.method.is_some()),
                Reverse(matching.headers.len()),
                Reverse(matching.query.len()),
            )
        };
        key(self)
            .cmp(&key(other))
            .then_with(|| older_first(self.created, other.created))
            .then_with(|| self.route.cmp(&other.route))
            .then_with(|| self.position.cmp(&other.position))
    }
}

/// Routes that do not say when they were created are younger than all that do, and equally old among themselves.
pub(super) fn older_first(a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// What a request looks like; all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMatch {
    /// Its path.
    pub path: PathMatch,
    /// Its method, if that matters.
    pub method: Option<HttpMethod>,
    /// Its headers, no name twice.
    pub headers: Vec<ValueMatch>,
    /// Its query parameters, no name twice.
    pub query: Vec<ValueMatch>,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The same path.
    Exact(String),
    /// Element by element. Without a slash at the end: `/` itself is empty.
    Prefix(String),
    /// The whole path by this regular expression.
    Regex(String),
    /// That of this method, and the request is gRPC.
    Grpc(GrpcMethod),
}

/// Which methods of gRPC. What is absent may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrpcMethod {
    /// The service.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// They are regular expressions over the whole name.
    pub regex: bool,
}

impl PathMatch {
    /// Rules of HTTPRoutes and of GRPCRoutes are never tried together.
    fn rank(&self) -> (u8, Reverse<usize>, Reverse<usize>) {
        let length = |name: &Option<String>| Reverse(name.as_ref().map_or(0, String::len));
        match self {
            Self::Exact(_) => (0, Reverse(0), Reverse(0)),
            Self::Regex(pattern) => (1, Reverse(pattern.len()), Reverse(0)),
            Self::Prefix(prefix) => (2, Reverse(prefix.len()), Reverse(0)),
            Self::Grpc(method) => (3, length(&method.service), length(&method.method)),
        }
    }
}

/// How a header or query parameter is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatch {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The value is a regular expression over the whole value.
    pub regex: bool,
}

impl RequestMatch {
    /// Every request.
    pub fn all() -> Self {
        Self { path: PathMatch::Prefix(String::new()), method: None, headers: Vec::new(), query: Vec::new() }
    }

    /// Whether nothing can be left for rules after this one.
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Every request that is gRPC.
    pub(super) fn all_grpc() -> Self {
        Self { path: PathMatch::Grpc(GrpcMethod::default()), ..Self::all() }
    }

    pub(super) fn from_grpc_document(written: &GrpcRouteMatch) -> Self {
        let name = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let method = match &written.method {
            None => GrpcMethod::default(),
            Some(GrpcMethodMatch { kind, service, method }) => GrpcMethod {
                service: name(service),
                method: name(method),
                regex: *kind == ValueMatchType::RegularExpression,
            },
        };
        Self {
            path: PathMatch::Grpc(method),
            headers: distinct(&written.headers, str::eq_ignore_ascii_case),
            ..Self::all()
        }
    }

    /// Whether it can only be gRPC.
    pub fn is_grpc(&self) -> bool {
        matches!(self.path, PathMatch::Grpc(_))
    }

    pub(super) fn from_document(written: &HttpRouteMatch) -> Self {
        let path = match &written.path {
            None => PathMatch::Prefix(String::new()),
            Some(HttpPathMatch { kind, value }) => match kind {
                PathMatchType::Exact => PathMatch::Exact(value.clone()),
                PathMatchType::PathPrefix => PathMatch::Prefix(value.trim_end_matches('/').to_owned()),
                PathMatchType::RegularExpression => PathMatch::Regex(value.clone()),
            },
        };
        Self {
            path,
            method: written.method,
            headers: distinct(&written.headers, str::eq_ignore_ascii_case),
            query: distinct(&written.query_params, |a, b| a == b),
        }
    }
}

/// Of several entries of one name the first counts.
fn distinct(written: &[HttpValueMatch], same: impl Fn(&str, &str) -> bool) -> Vec<ValueMatch> {
    let mut distinct: Vec<ValueMatch> = Vec::new();
    for one in written {
        if !distinct.iter().any(|known| same(&known.name, &one.name)) {
            distinct.push(ValueMatch {
                name: one.name.clone(),
                value: one.value.clone(),
                regex: one.kind == ValueMatchType::RegularExpression,
            });
        }
    }
    distinct
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It goes to one of the backends.
    Forward(Forward),
    /// It is answered with a redirect.
    Redirect {
        /// Where to.
        to: RequestRedirect,
        /// Changes of the answer's headers.
        response_headers: HeaderModifier,
    },
    /// It is answered with 500, or `UNAVAILABLE` by gRPC: nothing of what the rule wants can be done.
    Fail,
}

/// Where requests go, and what is changed on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forward {
    /// Where to, in proportion of the weights; at least one weight is not 0.
    pub backends: Vec<Backend>,
    /// Changes of the request's headers.
    pub request_headers: HeaderModifier,
    /// Changes of the answer's headers.
    pub response_headers: HeaderModifier,
    /// The host the backend sees.
    pub rewrite_host: Option<String>,
    /// The path the backend sees.
    pub rewrite_path: Option<PathRewrite>,
    /// How long it may take in all; `None` for no limit.
    pub timeout: Option<Duration>,
}

/// A change of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path is this one.
    Full(String),
    /// In place of the matched prefix comes this, without a slash at the end: `/` itself is empty.
    Prefix(String),
}

/// One backend of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Where to; `None` for a broken reference, whose share is answered with 500.
    pub target: Option<Target>,
    /// Share of the traffic in proportion to the others.
    pub weight: u32,
    /// Changes of the request's headers for this backend only.
    pub request_headers: HeaderModifier,
    /// Changes of the answer's headers for this backend only.
    pub response_headers: HeaderModifier,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The service.
    pub service: Name,
    /// Its port.
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_grpc_are_tried_by_service_then_method_then_headers() {
        let grpc = |written: &str, route: &str, created: Option<i64>| Rule {
            matching: RequestMatch::from_grpc_document(&serde_saphyr::from_str(written).unwrap()),
            ..rule("{}", route, created)
        };
        let order = [
            grpc("{method: {service: shop.Carts}}", "z", None),
            grpc("{method: {service: shop.Cart, method: Remove}}", "z", None),
            grpc("{method: {service: shop.Cart, method: Add}, headers: [{name: a, value: b}]}", "z", None),
            grpc(
                "{method: {service: shop.Cart, method: Add}, headers: [{name: a, value: b}, {name: A, value: c}]}",
                "zz",
                None,
            ),
            grpc("{method: {service: shop.Cart, method: Add}}", "z", Some(1)),
            grpc("{method: {service: shop.Cart, method: Add}}", "a", Some(2)),
            grpc("{method: {service: shop.Cart, method: Add}}", "a", None),
            grpc("{method: {service: 'shop.Car.', type: RegularExpression}}", "a", None),
            grpc("{method: {service: '', method: Remove}}", "a", None),
            grpc("{headers: [{name: a, value: b}]}", "a", None),
            grpc("{}", "a", None),
        ];
        for (i, pair) in order.windows(2).enumerate() {
            assert_eq!(pair[0].precedence(&pair[1]), Ordering::Less, "{i} before {}", i + 1);
        }
    }

    fn rule(matching: &str, route: &str, created: Option<i64>) -> Rule {
        let written: HttpRouteMatch = serde_saphyr::from_str(matching).unwrap();
        Rule {
            route: Name::new("shop", route),
            position: (0, 0),
            created: created.map(|second| Timestamp::from_second(second).unwrap()),
            matching: RequestMatch::from_document(&written),
            action: Arc::new(Action::Fail),
        }
    }

    #[test]
    fn rules_are_tried_in_gateway_apis_order() {
        let order = [
            rule("{path: {type: Exact, value: /a}, method: GET}", "z", None),
            rule("{path: {type: Exact, value: /a/long/path}}", "z", None),
            rule("{path: {type: RegularExpression, value: '/[a-z]+'}}", "z", None),
            rule("{path: {value: /a/b}}", "z", None),
            rule("{path: {value: /a}, method: GET}", "z", None),
            rule("{path: {value: /a}, headers: [{name: x, value: y}, {name: z, value: y}]}", "z", None),
            rule(
                "{path: {value: /a/}, headers: [{name: x, value: y}], queryParams: [{name: q, value: v}]}",
                "z",
                None,
            ),
            // The second entry of the name does not count.
            rule("{path: {value: /a}, headers: [{name: x, value: y}, {name: X, value: z}]}", "z", None),
            rule("{path: {value: /a}, queryParams: [{name: q, value: v}, {name: Q, value: v}]}", "z", None),
            rule("{path: {value: /a}, queryParams: [{name: q, value: v}]}", "z", None),
            rule("{path: {value: /a}}", "z", Some(1)),
            rule("{path: {value: /a}}", "a", Some(2)),
            rule("{path: {value: /a}}", "a", None),
            rule("{path: {value: /a}}", "b", None),
            rule("{method: GET}", "a", None),
            rule("{}", "a", None),
        ];
        for (i, pair) in order.windows(2).enumerate() {
            assert_eq!(pair[0].precedence(&pair[1]), Ordering::Less, "{i} before {}", i + 1);
        }
    }
}
