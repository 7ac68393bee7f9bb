//! From the rules of one HTTPRoute, or of a GRPCRoute in its words, to [`Rule`]s, and what is wrong with them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Refusal;
use super::backend::{Backends, Broken, Reference, Referrer};
use super::rule::{Action, Backend, Forward, PathRewrite, RequestMatch, Rule};
use crate::document::{
    FilterType, GatewayDuration, HeaderModifier, HttpRouteFilter, HttpRouteRule, PathModifier, Port,
};

/// The rules of one route.
pub(super) struct Rules {
    /// Those that can be tried, in order of the route; a broken one is there, too, and answers 500.
    pub(super) rules: Vec<Rule>,
    /// The references that lead nowhere.
    pub(super) broken: Vec<Broken>,
    /// The rules that want what is not served, by position, and what.
    pub(super) unsupported: Vec<(usize, String)>,
}

/// A rule as it is written: which requests, and what happens to them in the words of an HTTPRoute.
pub(super) struct WrittenRule<'a> {
    pub(super) matches: Vec<RequestMatch>,
    pub(super) rule: Cow<'a, HttpRouteRule>,
}

/// The rules of the route that refers, and was `created` then.
///
/// Many routes share one table, and a proxy takes a table as a whole: so each rule is first shown to the proxy's own
/// code alone, and one that it refuses is refused here, with its reason, before it can hold back its neighbours.
pub(super) fn rules(
    referrer: Referrer<'_>,
    created: Option<Timestamp>,
    written: &mut dyn Iterator<Item = WrittenRule<'_>>,
    backends: &Backends<'_>,
    refusal: Refusal,
) -> Rules {
    let mut outcome = Rules { rules: Vec::new(), broken: Vec::new(), unsupported: Vec::new() };
    for (position, WrittenRule { matches, rule }) in written.enumerate() {
        let mut problem = None;
        let action = match action(&rule, referrer, backends, &mut outcome.broken) {
            Ok(action) => action,
            Err(what) => {
                problem = Some(what);
                Action::Fail
            }
        };
        let action = Arc::new(action);
        for (index, matching) in matches.into_iter().enumerate() {
            let good = Rule {
                route: referrer.route.clone(),
                position: (position, index),
                created,
                matching,
                action: Arc::clone(&action),
            };
            let Some(reason) = refusal(&good) else {
                outcome.rules.push(good);
                continue;
            };
            problem.get_or_insert(reason);
            let failing = Rule { action: Arc::new(Action::Fail), ..good };
            // Where even that is refused, which requests the rule means cannot be known.
            if refusal(&failing).is_none() {
                outcome.rules.push(failing);
            }
        }
        outcome.unsupported.extend(problem.map(|what| (position, what)));
    }
    outcome
}

/// What happens to the requests of a rule; an error says what it wants that is not served.
fn action(
    rule: &HttpRouteRule,
    referrer: Referrer<'_>,
    backends: &Backends<'_>,
    broken: &mut Vec<Broken>,
) -> Result<Action, String> {
    let mut forward = Forward { timeout: timeout(rule), ..Forward::default() };
    let mut redirect = None;
    for filter in &rule.filters {
        match filter.kind {
            FilterType::RequestHeaderModifier => forward.request_headers = headers(filter),
            FilterType::ResponseHeaderModifier => forward.response_headers = headers(filter),
            FilterType::RequestRedirect => redirect.clone_from(&filter.request_redirect),
            FilterType::UrlRewrite => {
                let rewrite = filter.url_rewrite.clone().unwrap_or_default();
                forward.rewrite_host = rewrite.hostname;
                forward.rewrite_path = rewrite.path.and_then(path_rewrite);
            }
            FilterType::RequestMirror
            | FilterType::Cors
            | FilterType::ExternalAuth
            | FilterType::ExtensionRef => return Err(not_yet(filter.kind)),
        }
    }
    // References are judged even where a filter answers: their conditions are the user's.
    let mut resolved = Vec::new();
    for backend in &rule.backend_refs {
        let reference = Reference {
            group: backend.group.as_deref(),
            kind: backend.kind.as_deref(),
            namespace: backend.namespace.as_deref(),
            name: &backend.name,
            port: backend.port.map(Port::get),
        };
        let target = backends.resolve(&reference, referrer).map_err(|error| broken.push(error)).ok();
        let mut one = Backend {
            target,
            weight: backend.weight,
            request_headers: HeaderModifier::default(),
            response_headers: HeaderModifier::default(),
        };
        for filter in &backend.filters {
            match filter.kind {
                FilterType::RequestHeaderModifier => one.request_headers = headers(filter),
                FilterType::ResponseHeaderModifier => one.response_headers = headers(filter),
                kind => return Err(format!("filter {} of a single backend is not served", kind.as_str())),
            }
        }
        resolved.push(one);
    }
    resolved.retain(|backend| backend.weight > 0);
    if let Some(to) = redirect {
        return Ok(Action::Redirect { to, response_headers: forward.response_headers });
    }
    if resolved.iter().all(|backend| backend.target.is_none()) {
        return Ok(Action::Fail);
    }
    forward.backends = resolved;
    Ok(Action::Forward(forward))
}

fn not_yet(kind: FilterType) -> String {
    format!("filter {} is not served yet", kind.as_str())
}

/// The changes of headers that a filter wants.
fn headers(filter: &HttpRouteFilter) -> HeaderModifier {
    filter.request_header_modifier.clone().or(filter.response_header_modifier.clone()).unwrap_or_default()
}

fn path_rewrite(path: PathModifier) -> Option<PathRewrite> {
    let prefix =
        path.replace_prefix_match.map(|prefix| PathRewrite::Prefix(prefix.trim_end_matches('/').to_owned()));
    path.replace_full_path.map(PathRewrite::Full).or(prefix)
}

/// The shorter of the two limits: there is one attempt only, so the limit for an attempt is one for the request.
fn timeout(rule: &HttpRouteRule) -> Option<Duration> {
    let timeouts = rule.timeouts.as_ref()?;
    let limits = [timeouts.request, timeouts.backend_request];
    limits.into_iter().flatten().map(|GatewayDuration(limit)| limit).filter(|limit| !limit.is_zero()).min()
}
