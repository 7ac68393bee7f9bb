//! The client's side of a delta discovery stream as a pure state machine: nonces, subscriptions, versions.
//!
//! Responses go in, requests come out; what a resource means is judged elsewhere, between [`Session::receive`] and
//! [`Session::answer`]. The session outlives its streams: after a reconnect the first request of each type names what is
//! subscribed to and the versions that are already here, so that only differences are sent.
//!
//! Listeners and clusters are asked for as a whole (`*`, by an empty first request), the others by name. A type with no
//! names is not asked for at all, since an empty first request would mean everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    pb::{
        envoy::config::core::v3::Node,
        google::rpc::{Code, Status},
    },
};

use translate::Wanted;

use super::Kind;

#[cfg(test)]
mod tests;

/// Longest reason for one resource in a NACK, in bytes; control planes put them into logs and metadata.
const REASON_BYTES_MAX: usize = 1024;

/// A proxy's discovery session.
#[derive(Debug)]
pub struct Session {
    node: Node,
    subscriptions: BTreeMap<Kind, Subscription>,
    /// A stream is open; requests can be sent.
    is_open: bool,
    /// The stream's first request, which carries the node, was sent.
    is_introduced: bool,
}

#[derive(Debug, Default)]
struct Subscription {
    /// The first request of this stream was sent.
    is_started: bool,
    /// Something was answered, on this stream or a former one, or remembered from the disk; or it was waited for long
    /// enough.
    is_answered: bool,
    /// How long the first answer to a wildcard is waited for on a stream; `None` is for ever.
    first_timeout: Option<Duration>,
    /// When that time is over.
    first_until: Option<Instant>,
    /// Names asked for; none for a wildcard.
    wanted: Wanted,
    /// Accepted versions by name.
    versions: BTreeMap<Arc<str>, String>,
    /// Names whose newest version was refused.
    refused: BTreeSet<Arc<str>>,
    /// Names that were asked for on this stream and not answered yet, with the time when they count as absent; without
    /// those that are waited for for ever.
    unanswered: BTreeMap<Arc<str>, Instant>,
}

/// A response, ready to be judged.
#[derive(Debug)]
pub struct Batch {
    /// Type of every resource in it; `None` when the type is not one that was asked for.
    pub kind: Option<Kind>,
    /// Resources to translate.
    pub resources: Vec<Resource>,
    /// Names that are gone or never were.
    pub removed: Vec<String>,
    /// The control plane's word for the state of the whole.
    pub revision: String,
    /// What is wrong with the response itself: resource name and reason.
    pub faults: Vec<Refused>,
    type_url: String,
    nonce: String,
}

/// A resource that was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// The refused version.
    pub version: String,
    /// `field path: reason`.
    pub reason: String,
}

impl Session {
    /// A session of `node` that asks for `kinds`, without a stream.
    pub fn new(node: Node, kinds: impl IntoIterator<Item = Kind>) -> Session {
        let subscriptions = kinds.into_iter().map(|kind| (kind, Subscription::default())).collect();
        Session { node, subscriptions, is_open: false, is_introduced: false }
    }

    /// Takes over a version that was accepted in an earlier life of this proxy.
    pub fn remember(&mut self, kind: Kind, name: &str, version: &str) {
        if let Some(subscription) = self.subscriptions.get_mut(&kind) {
            subscription.versions.insert(name.into(), version.to_owned());
        }
    }

    /// The type was answered for in an earlier life, if only with nothing.
    pub fn remember_answer(&mut self, kind: Kind) {
        if let Some(subscription) = self.subscriptions.get_mut(&kind) {
            subscription.is_answered = true;
        }
    }

    /// How long the first answer to a wildcard is waited for on a stream; `None`, and nothing said, is for ever.
    pub fn limit_first(&mut self, kind: Kind, timeout: Option<Duration>) {
        if let Some(subscription) = self.subscriptions.get_mut(&kind) {
            subscription.first_timeout = timeout;
        }
    }

    /// A stream begins: its first requests, in order.
    pub fn open(&mut self, now: Instant) -> Vec<DeltaDiscoveryRequest> {
        self.close();
        self.is_open = true;
        Kind::ALL.into_iter().filter_map(|kind| self.start(kind, now)).collect()
    }

    /// The stream ended.
    pub fn close(&mut self) {
        self.is_open = false;
        self.is_introduced = false;
        for subscription in self.subscriptions.values_mut() {
            subscription.is_started = false;
            // Nobody can answer while there is no stream; the time counts anew from the next request.
            subscription.unanswered.clear();
            subscription.first_until = None;
        }
    }

    /// Whether a stream is open.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether anything of this type was ever answered, so that its first state is known.
    pub fn is_answered(&self, kind: Kind) -> bool {
        self.subscriptions.get(&kind).is_none_or(|subscription| subscription.is_answered)
    }

    /// Accepted versions of a type, by name.
    pub fn versions(&self, kind: Kind) -> impl Iterator<Item = (&str, &str)> {
        let versions = self.subscriptions.get(&kind).map(|subscription| &subscription.versions);
        versions.into_iter().flatten().map(|(name, version)| (&**name, &**version))
    }

    /// Checks a response in itself: that its type was asked for and its names are there once. Resources that are here in
    /// this very version already are left out, and so are those nobody wants any more.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Batch {
        let DeltaDiscoveryResponse { system_version_info, resources, type_url, nonce, removed_resources } =
            response;
        let mut batch = Batch {
            kind: Kind::of(&type_url).filter(|kind| self.subscriptions.contains_key(kind)),
            resources: Vec::new(),
            removed: Vec::new(),
            revision: system_version_info,
            faults: Vec::new(),
            type_url,
            nonce,
        };
        let subscription = batch.kind.and_then(|kind| Some((kind, self.subscriptions.get_mut(&kind)?)));
        let Some((kind, subscription)) = subscription else {
            let reason = format!("{} was not subscribed to", batch.type_url);
            batch.faults.push(Refused { name: String::new(), version: String::new(), reason });
            return batch;
        };
        subscription.is_answered = true;
        subscription.first_until = None;
        let mut seen = BTreeSet::new();
        for (index, resource) in resources.into_iter().enumerate() {
            let refuse = |resource: &Resource, reason: &str| Refused {
                name: resource.name.clone(),
                version: resource.version.clone(),
                reason: reason.to_owned(),
            };
            if resource.name.is_empty() {
                batch.faults.push(refuse(&resource, &format!("resources[{index}]: it has no name")));
                continue;
            }
            subscription.unanswered.remove(&*resource.name);
            if !seen.insert(resource.name.clone()) {
                batch.faults.push(refuse(&resource, "it is there twice in one response"));
                batch.resources.retain(|other| other.name != resource.name);
                continue;
            }
            if subscription.is_wanted(kind, &resource.name) && !subscription.has(&resource) {
                batch.resources.push(resource);
            }
        }
        for name in removed_resources {
            subscription.unanswered.remove(&*name);
            if subscription.is_wanted(kind, &name) && !seen.contains(&name) {
                batch.removed.push(name);
            }
        }
        batch
    }

    /// Remembers what was judged of a response and answers it: ACK, or NACK if anything in `refused` (which includes the
    /// batch's own faults) or in the response itself is wrong. What is not refused is accepted either way.
    pub fn answer(&mut self, batch: &Batch, refused: &[Refused]) -> DeltaDiscoveryRequest {
        if let Some(subscription) = batch.kind.and_then(|kind| self.subscriptions.get_mut(&kind)) {
            for resource in &batch.resources {
                let name: Arc<str> = resource.name.as_str().into();
                if refused.iter().any(|refused| refused.name == resource.name) {
                    subscription.refused.insert(name);
                } else {
                    subscription.refused.remove(&name);
                    subscription.versions.insert(name, resource.version.clone());
                }
            }
            for name in &batch.removed {
                subscription.versions.remove(&**name);
                subscription.refused.remove(&**name);
            }
        }
        let mut request = self.request(&batch.type_url);
        request.response_nonce.clone_from(&batch.nonce);
        request.error_detail = error_detail(refused);
        request
    }

    /// Changes which names of a type are wanted; gives the request that says so if a stream is open. The times count for
    /// names that are new.
    pub fn subscribe(&mut self, kind: Kind, wanted: Wanted, now: Instant) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.subscriptions.get_mut(&kind)?;
        if kind.is_wildcard() {
            return None;
        }
        let before = mem::replace(&mut subscription.wanted, wanted);
        let new: Vec<_> =
            subscription.wanted.iter().filter(|(name, _)| !before.contains_key(*name)).collect();
        let gone: Vec<_> = before.keys().filter(|name| !subscription.wanted.contains_key(*name)).collect();
        if new.is_empty() && gone.is_empty() {
            return None;
        }
        for name in &gone {
            subscription.versions.remove(*name);
            subscription.refused.remove(*name);
            subscription.unanswered.remove(*name);
        }
        if !subscription.is_started {
            return if self.is_open { self.start(kind, now) } else { None };
        }
        subscription.unanswered.extend(new.iter().filter_map(|(name, timeout)| until(name, **timeout, now)));
        let new = new.iter().map(|(name, _)| name.to_string()).collect();
        let gone = gone.iter().map(ToString::to_string).collect();
        let mut request = self.request(kind.type_url());
        request.resource_names_subscribe = new;
        request.resource_names_unsubscribe = gone;
        Some(request)
    }

    /// When [`Session::expire`] will have something to say.
    pub fn deadline(&self) -> Option<Instant> {
        let of_one = |subscription: &Subscription| {
            subscription.unanswered.values().copied().chain(subscription.first_until).min()
        };
        self.subscriptions.values().filter_map(of_one).min()
    }

    /// What was not answered in time: names, and types of which everything was asked for.
    pub fn expire(&mut self, now: Instant) -> Vec<(Kind, Option<Arc<str>>)> {
        let mut expired = Vec::new();
        for (kind, subscription) in &mut self.subscriptions {
            if subscription.first_until.take_if(|until| *until <= now).is_some() {
                subscription.is_answered = true;
                expired.push((*kind, None));
            }
            subscription.unanswered.retain(|name, until| {
                let is_expired = *until <= now;
                if is_expired {
                    expired.push((*kind, Some(name.clone())));
                }
                !is_expired
            });
        }
        expired
    }

    /// The first request of a type on this stream; `None` when there is nothing to ask.
    fn start(&mut self, kind: Kind, now: Instant) -> Option<DeltaDiscoveryRequest> {
        let subscription = self.subscriptions.get_mut(&kind)?;
        if subscription.is_started || (!kind.is_wildcard() && subscription.wanted.is_empty()) {
            return None;
        }
        subscription.is_started = true;
        let names: Vec<String> = subscription.wanted.keys().map(ToString::to_string).collect();
        // What is here already need not come again: an answer to it is not waited for.
        let missing =
            subscription.wanted.iter().filter(|(name, _)| !subscription.versions.contains_key(*name));
        subscription.unanswered.extend(missing.filter_map(|(name, timeout)| until(name, *timeout, now)));
        if !subscription.is_answered && kind.is_wildcard() {
            subscription.first_until = subscription.first_timeout.map(|timeout| now + timeout);
        }
        let versions =
            subscription.versions.iter().map(|(name, version)| (name.to_string(), version.clone())).collect();
        let mut request = self.request(kind.type_url());
        request.resource_names_subscribe = names;
        request.initial_resource_versions = versions;
        Some(request)
    }

    /// A request of a type; the first one of a stream carries the node.
    fn request(&mut self, type_url: &str) -> DeltaDiscoveryRequest {
        let is_first = !mem::replace(&mut self.is_introduced, true);
        DeltaDiscoveryRequest {
            node: is_first.then(|| self.node.clone()),
            type_url: type_url.to_owned(),
            ..DeltaDiscoveryRequest::default()
        }
    }
}

impl Subscription {
    fn is_wanted(&self, kind: Kind, name: &str) -> bool {
        kind.is_wildcard() || self.wanted.contains_key(name)
    }

    /// Whether the resource is here in this very version, and no other one was refused since.
    fn has(&self, resource: &Resource) -> bool {
        !resource.version.is_empty()
            && self.versions.get(&*resource.name) == Some(&resource.version)
            && !self.refused.contains(&*resource.name)
    }
}

/// When a name that is asked for `now` counts as absent, if ever.
fn until(name: &Arc<str>, timeout: Option<Duration>, now: Instant) -> Option<(Arc<str>, Instant)> {
    Some((name.clone(), now.checked_add(timeout?)?))
}

/// `None` is an ACK. One line for each refused resource, its name first: a control plane can tell from it which ones are
/// meant.
fn error_detail(refused: &[Refused]) -> Option<Status> {
    if refused.is_empty() {
        return None;
    }
    let line = |refused: &Refused| {
        let mut reason = refused.reason.clone();
        if reason.len() > REASON_BYTES_MAX {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            reason.push('…');
        }
        if refused.name.is_empty() { reason } else { format!("{}: {reason}", refused.name) }
    };
    let message = refused.iter().map(line).collect::<Vec<_>>().join("\n");
    Some(Status { code: Code::InvalidArgument as i32, message, details: Vec::new() })
}
