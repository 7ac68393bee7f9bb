//! The filters that a request, or a connection, must pass before anything of it goes upstream.
//!
//! Faces hostile requests. What is decided is decided by `policy`; here it is asked, counted and told to the record of the
//! exchange.

use std::{fmt, sync::Arc, time::Duration};

use policy::{
    forwarded::ForwardedTrust,
    http_filter::{FilterConfig, FilterOverrides},
    network_filter::NetworkRbac,
    rbac::Facts,
    route::RouteScratch,
};
use wire::head::RequestView;

use crate::{
    downstream::Manager,
    origin::Origin,
    place::{self, Misplaced},
    respond::ExchangeError,
    telemetry::access_log::Record,
    worker::Bound,
};

/// Asks each filter of the connection manager in order. `overrides` is what the route says of them, if there is one: a
/// request that none takes is asked, too, so that who may not ask does not learn which routes there are.
pub(crate) fn on_request<'a>(
    manager: &'a Manager,
    overrides: Option<&'a FilterOverrides>,
    (request, origin): (&RequestView<'_>, &Origin),
    scratch: &mut RouteScratch,
    record: &mut Record<'a>,
) -> Result<(), ExchangeError> {
    for filter in &manager.config.http_filters {
        match filter.config_for(overrides) {
            None => {}
            Some(FilterConfig::Rbac(rbac)) => {
                let facts = facts(origin, Some((*request, manager.config.forwarded)));
                let decision = rbac.decide(&facts, scratch);
                manager.stats.rbac.count(&decision);
                record.decided(&decision);
                if !decision.is_allowed() {
                    return Err(ExchangeError::AccessDenied);
                }
            }
        }
    }
    Ok(())
}

/// A connection that may not be, and how long it is kept before it is closed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Denied {
    /// How long.
    pub(crate) delay: Duration,
    /// The policy that denies it; `None` when none allows it.
    policy: Option<Arc<str>>,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.policy {
            Some(policy) => write!(f, "denied by {policy}"),
            None => f.write_str("no policy allows it"),
        }
    }
}

/// Asks each filter of a chain, in order, whether a connection may be.
pub(crate) fn on_connection(bound: &Bound, chain: &[NetworkRbac], origin: &Origin) -> Result<(), Denied> {
    for filter in chain {
        let mut scratch = bound.scratch.borrow_mut();
        let decision = filter.rbac.decide(&facts(origin, None), &mut scratch);
        if let Some(counters) = bound.rbac.get(&filter.stat_prefix) {
            counters.count(&decision);
        }
        if !decision.is_allowed() {
            let policy = decision.enforced.and_then(|verdict| verdict.policy).cloned();
            return Err(Denied { delay: filter.delay_deny, policy });
        }
    }
    Ok(())
}

/// Whether a connection may be, without counting anything.
pub(crate) fn may_be(bound: &Bound, chain: &[NetworkRbac], origin: &Origin) -> bool {
    first_that_denies(bound, chain, origin).is_none()
}

/// Whether a connection that was allowed still may be, now that there is another snapshot. Only a denial is counted: whoever
/// stays has been counted already.
pub(crate) fn may_stay(bound: &Bound, chain: &[NetworkRbac], origin: &Origin) -> bool {
    let denies = first_that_denies(bound, chain, origin);
    if let Some(counters) = denies.and_then(|filter| bound.rbac.get(&filter.stat_prefix)) {
        counters.denied.inc();
    }
    denies.is_none()
}

fn first_that_denies<'a>(
    bound: &Bound,
    chain: &'a [NetworkRbac],
    origin: &Origin,
) -> Option<&'a NetworkRbac> {
    let facts = facts(origin, None);
    let mut scratch = bound.scratch.borrow_mut();
    chain.iter().find(|filter| !filter.rbac.decide(&facts, &mut scratch).is_allowed())
}

/// The same for a connection of which only its origin is known. Where no filter chain takes it any more, nobody says that it may
/// not be.
pub(crate) fn has_a_place(bound: &Bound, origin: &Origin) -> bool {
    match place::of(bound, origin) {
        Ok(chain) => may_stay(bound, &chain.rbac, origin),
        Err(Misplaced::Gone) => true,
        Err(Misplaced::Insecure) => false,
    }
}

/// What is known of a request on a connection, or of the connection alone.
fn facts<'a>(origin: &'a Origin, request: Option<(RequestView<'a>, ForwardedTrust)>) -> Facts<'a> {
    let server_name = origin.spoken.as_ref().and_then(|spoken| spoken.server_name.as_deref());
    Facts {
        peer: origin.identity(),
        direct_remote: origin.peer().ip(),
        remote: origin.remote,
        local: origin.local,
        server_name: server_name.unwrap_or_default(),
        request,
    }
}
