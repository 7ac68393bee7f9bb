//! One client's delta ADS stream as a pure state machine: requests and views in, responses out, no I/O.
//!
//! The rules are those of the xDS protocol's incremental variant; each is named where it is kept. Peer input is
//! hostile here: every collection a client can grow has a bound.
//!
//! Order (make before break): clusters, their endpoints, listeners, their routes, each type only after the client
//! took the former; then removals of clusters, endpoints and secrets. Secrets go as soon as they are asked for. Endpoints of clusters the client already has never
//! wait: that is the fast lane. Removed listeners and routes go with the updates of their type (nothing refers to
//! them any more, and a new listener may need the removed one's address).
//!
//! Cost: a type whose part of the view is the same `Arc` as before costs one comparison; otherwise one walk over
//! that type's names and 64-bit versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::subscription::{InFlight, Known, Part, Subscription};
use super::view::View;
use crate::compile::{Resource, ResourceType};
use crate::report::Refused;

#[cfg(test)]
mod tests;

/// Names one client may be subscribed to or say it has, per type. Above it the stream ends.
pub const NAMES_COUNT_MAX: usize = 200_000;

/// Longest resource name a client may name, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;

/// How long listeners and routes wait for a client to ask for the endpoints of a cluster it has just taken. Every
/// known client asks at once; one that never does must not be held for ever.
pub const CHILD_WAIT_MAX: Duration = Duration::from_secs(5);

/// The server's side of one ADS stream.
#[derive(Debug)]
pub struct Session {
    view: Arc<View>,
    resend_children: bool,
    /// Until then a client that comes back may not have asked for its listeners and routes yet.
    reopening: Option<Instant>,
    /// Nonces count up over all types and are never used twice in a stream.
    nonce: u64,
    types: [Subscription; ResourceType::COUNT],
    /// Endpoints that have to be there before listeners and routes of the same configuration may go.
    barrier: BTreeSet<Arc<str>>,
}

/// One request, its type already known.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// `resource_names_subscribe`.
    pub subscribe: &'a [String],
    /// `resource_names_unsubscribe`.
    pub unsubscribe: &'a [String],
    /// `initial_resource_versions`: what the client kept from an earlier stream.
    pub initial_versions: Vec<(&'a str, &'a str)>,
    /// `response_nonce`, empty when the request answers nothing.
    pub nonce: &'a str,
    /// `error_detail.message`: the response was refused, at least in part.
    pub error: Option<&'a str>,
}

/// What to send.
#[derive(Debug)]
pub struct Response {
    /// Type of every resource in it.
    pub kind: ResourceType,
    /// Unique in this stream.
    pub nonce: String,
    /// `system_version_info`.
    pub revision: Arc<str>,
    /// New and changed ones.
    pub resources: Vec<Arc<Resource>>,
    /// Names that are gone or never were.
    pub removed: Vec<Arc<str>>,
}

/// What a request said about the response it answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answers none, or one that is no longer waited for.
    None,
    /// The client accepted all of it.
    Ack,
    /// The client refused at least the resources named; those that were refused before with the same version
    /// are not repeated.
    Nack(Vec<Refused>),
}

/// Why a stream has to end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SessionError {
    /// The client named more than it may.
    #[error("more than {NAMES_COUNT_MAX} {} names on one stream", kind.short())]
    TooManyNames {
        /// The type it asked for.
        kind: ResourceType,
    },
    /// A name no resource can have.
    #[error("a {} name of {bytes} bytes, the limit is {NAME_BYTES_MAX}", kind.short())]
    NameTooLong {
        /// The type it asked for.
        kind: ResourceType,
        /// Its length.
        bytes: usize,
    },
}

impl Session {
    /// A stream that just opened. `resend_children` is for Envoy: it wants the endpoints of a cluster again after
    /// every update of that cluster, even if they did not change, and leaves the cluster warming until then.
    pub fn new(view: Arc<View>, resend_children: bool, now: Instant) -> Session {
        let (types, barrier) = (Default::default(), BTreeSet::new());
        Session { view, resend_children, reopening: Some(now + CHILD_WAIT_MAX), nonce: 0, types, barrier }
    }

    /// Takes in one request: its answer to a response, then its changes to the subscription. The second holds
    /// even if the first is stale.
    pub fn receive(&mut self, kind: ResourceType, request: &Request<'_>) -> Result<Answer, SessionError> {
        let answer = self.take_answer(kind, request);
        self.change_subscription(kind, request)?;
        Ok(answer)
    }

    /// The client should have `view` from now on. What is in flight stays so; what was due and not sent is
    /// forgotten in favour of the newest.
    pub fn adopt(&mut self, view: Arc<View>) {
        let changed = |kind: ResourceType| !Arc::ptr_eq(self.view.of(kind), view.of(kind));
        let configuration_changed =
            changed(ResourceType::Cluster) || changed(ResourceType::Listener) || changed(ResourceType::Route);
        for kind in ResourceType::ALL {
            if changed(kind) {
                let subscription = &mut self.types[kind as usize];
                subscription.updates_due = true;
                subscription.removals_due = true;
            }
        }
        self.view = view;
        if configuration_changed {
            self.raise_barrier();
        }
    }

    /// The next response to send, if one may go now. Call until `None` after every input and at [`Self::deadline`].
    pub fn next_response(&mut self, now: Instant) -> Option<Response> {
        use ResourceType::{Cluster, Endpoint, Listener, Route, Secret};
        self.stop_waiting(now);
        if let Some(response) = self.respond(Secret, Part::Updates, now) {
            return Some(response);
        }
        if let Some(response) = self.respond(Cluster, Part::Updates, now) {
            return Some(response);
        }
        if let Some(response) = self.respond(Endpoint, Part::Updates, now) {
            return Some(response);
        }
        // What a listener or a route may name has to be there first.
        if self.is_in_flight(Cluster) || !self.is_barrier_down() {
            return None;
        }
        if let Some(response) = self.respond(Listener, Part::Both, now) {
            return Some(response);
        }
        if self.is_in_flight(Listener) {
            return None;
        }
        if let Some(response) = self.respond(Route, Part::Both, now) {
            return Some(response);
        }
        if self.is_in_flight(Route) || self.is_in_flight(Endpoint) || !self.may_remove() {
            return None;
        }
        if let Some(response) = self.respond(Cluster, Part::Removals, now) {
            return Some(response);
        }
        // A client that took the removal of a cluster drops its endpoints by itself.
        if self.is_in_flight(Cluster) {
            return None;
        }
        self.respond(Endpoint, Part::Removals, now).or_else(|| self.respond(Secret, Part::Removals, now))
    }

    /// When to call [`Self::next_response`] although nothing came in.
    pub fn deadline(&self) -> Option<Instant> {
        let children = [ResourceType::Endpoint, ResourceType::Route].map(|kind| &self.of(kind).awaited);
        children.into_iter().flat_map(BTreeMap::values).copied().chain(self.reopening).min()
    }

    /// Whether the client has taken everything of the view that it asked for. Only meaningful once
    /// [`Self::next_response`] said `None`.
    pub fn is_settled(&self) -> bool {
        let quiet =
            |s: &Subscription| !s.started || (s.in_flight.is_none() && !s.updates_due && !s.removals_due);
        let expects = self.types.iter().any(|s| !s.awaited.is_empty());
        !expects && self.types.iter().all(quiet) && self.refused().next().is_none()
    }

    /// Resources whose newest version the client refused.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.types.iter().flat_map(|subscription| subscription.refused.values())
    }

    fn of(&self, kind: ResourceType) -> &Subscription {
        &self.types[kind as usize]
    }

    fn is_in_flight(&self, kind: ResourceType) -> bool {
        self.of(kind).in_flight.is_some()
    }

    /// Ends the waits for what clients are expected to ask.
    fn stop_waiting(&mut self, now: Instant) {
        for subscription in &mut self.types {
            subscription.awaited.retain(|_, until| *until > now);
        }
        let asked = self.of(ResourceType::Listener).started && self.of(ResourceType::Route).started;
        self.reopening = self.reopening.filter(|until| !asked && *until > now);
    }

    /// Whether nothing the client uses can still refer to clusters and endpoints that are gone.
    fn may_remove(&self) -> bool {
        // A client that refused a listener or a route goes on with the old one, and with what that refers to.
        let refused = [ResourceType::Listener, ResourceType::Route]
            .into_iter()
            .any(|kind| !self.of(kind).refused.is_empty());
        self.reopening.is_none() && !refused && self.of(ResourceType::Route).awaited.is_empty()
    }

    /// Remembers the endpoints that a new configuration may rely on. Endpoint changes that come later, by the fast
    /// lane, are not in it: churn cannot hold a listener or a route back.
    fn raise_barrier(&mut self) {
        let section = &self.view.of(ResourceType::Endpoint).resources;
        let endpoints = &self.types[ResourceType::Endpoint as usize];
        for resource in section.values() {
            if endpoints.is_interested(&resource.name) && !endpoints.has(resource) {
                self.barrier.insert(resource.name.clone());
            }
        }
    }

    fn is_barrier_down(&mut self) -> bool {
        if !self.of(ResourceType::Endpoint).awaited.is_empty() {
            return false;
        }
        let section = &self.view.of(ResourceType::Endpoint).resources;
        let endpoints = &self.types[ResourceType::Endpoint as usize];
        self.barrier.retain(|name| {
            let wanted = section.get(name).is_some_and(|resource| !endpoints.has(resource));
            endpoints.is_interested(name) && (wanted || endpoints.is_in_flight(name))
        });
        self.barrier.is_empty()
    }

    fn take_answer(&mut self, kind: ResourceType, request: &Request<'_>) -> Answer {
        let subscription = &mut self.types[kind as usize];
        let Some(answered) = subscription.in_flight.take_if(|sent| sent.nonce == request.nonce) else {
            return Answer::None;
        };
        let answer = match request.error {
            None => {
                for name in answered.sent.keys() {
                    subscription.refused.remove(name);
                }
                Answer::Ack
            }
            Some(reason) => Answer::Nack(subscription.refuse(kind, &answered, reason)),
        };
        let Some(child) = kind.child() else { return answer };
        let children = &mut self.types[child as usize];
        for name in &answered.children {
            if children.held.remove(name) {
                children.owed.insert(name.clone());
                children.updates_due = true;
            }
            if request.error.is_some() {
                children.awaited.remove(name);
            }
        }
        answer
    }

    fn change_subscription(&mut self, kind: ResourceType, request: &Request<'_>) -> Result<(), SessionError> {
        let subscription = &mut self.types[kind as usize];
        let first = !std::mem::replace(&mut subscription.started, true);
        let was_wildcard = subscription.wildcard;
        // What the client kept from an earlier stream counts in its first request only.
        if first {
            for (name, version) in &request.initial_versions {
                let version = Known::Version(checked(kind, version)?);
                subscription.known.insert(checked(kind, name)?, version);
            }
        }
        for name in request.subscribe {
            subscription.explicit = true;
            if name == "*" {
                subscription.wildcard = true;
                continue;
            }
            let name = checked(kind, name)?;
            // Asking again, for whatever reason, is answered again; only what came with the versions of an
            // earlier stream is trusted to be there.
            if !(first && subscription.known.contains_key(&name)) {
                subscription.owed.insert(name.clone());
            }
            if subscription.awaited.remove(&name).is_some() {
                self.barrier.insert(name.clone());
            }
            subscription.named.insert(name);
        }
        for name in request.unsubscribe {
            subscription.unsubscribe(name);
        }
        // The protocol keeps this for clients of these two types that never named anything.
        let can_be_implicit = matches!(kind, ResourceType::Cluster | ResourceType::Listener);
        if first && !subscription.explicit && can_be_implicit {
            subscription.wildcard = true;
        }
        if subscription.wildcard && !was_wildcard && subscription.known.is_empty() {
            subscription.owes_answer = true;
        }
        if subscription.named.len().max(subscription.known.len()).max(subscription.owed.len())
            > NAMES_COUNT_MAX
        {
            return Err(SessionError::TooManyNames { kind });
        }
        if first || !request.subscribe.is_empty() || !request.unsubscribe.is_empty() {
            if first {
                subscription.forget_unasked();
            }
            subscription.updates_due = true;
            subscription.removals_due = true;
        }
        Ok(())
    }

    /// A response with what is due of `kind`, unless one is in flight.
    fn respond(&mut self, kind: ResourceType, part: Part, now: Instant) -> Option<Response> {
        let view = self.view.clone();
        let subscription = &mut self.types[kind as usize];
        if !subscription.started || subscription.in_flight.is_some() {
            return None;
        }
        let due = subscription.take_due(&view.of(kind).resources, part);
        if due.is_empty() && !std::mem::take(&mut subscription.owes_answer) {
            return None;
        }
        subscription.owes_answer = false;
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let children: Vec<_> = due.resources.iter().flat_map(|r| r.children.iter().cloned()).collect();
        let sent = due.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect();
        self.types[kind as usize].in_flight =
            Some(InFlight { nonce: nonce.clone(), sent, children: children.clone() });
        if let Some(child) = kind.child() {
            self.expect_children(child, children, now);
        }
        Some(Response {
            kind,
            nonce,
            revision: self.view.revision.clone(),
            resources: due.resources,
            removed: due.removed,
        })
    }

    /// The client is about to get parents of these: it asks for those it does not have, and, if it is Envoy,
    /// waits for those it has.
    fn expect_children(&mut self, kind: ResourceType, names: Vec<Arc<str>>, now: Instant) {
        let section = &self.view.of(kind).resources;
        let subscription = &mut self.types[kind as usize];
        for name in names {
            // One that does not exist is answered when it is asked for and holds nothing back.
            if section.get(&name).is_none() {
                continue;
            }
            if !subscription.is_interested(&name) {
                subscription.awaited.insert(name, now + CHILD_WAIT_MAX);
            } else if self.resend_children && kind == ResourceType::Endpoint {
                self.barrier.insert(name.clone());
                subscription.held.insert(name);
            }
        }
    }
}

/// The name or version, if a client may use one as long.
fn checked(kind: ResourceType, name: &str) -> Result<Arc<str>, SessionError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(SessionError::NameTooLong { kind, bytes: name.len() });
    }
    Ok(name.into())
}
