//! What one client asked for of one type, what it has, and what differs from what it should have. The half of a
//! [`Session`](super::session::Session) that knows one type only; when something may go is decided there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::compile::{Resource, ResourceType, Resources};
use crate::report::Refused;

/// Resources of one response together, in bytes, unless a single one is larger. Delta responses may be split
/// anywhere, and 4 MiB is the default receive limit of most gRPC libraries.
pub(super) const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// What is known of one type on one stream.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) started: bool,
    /// Some name, `*` included, was subscribed to on this stream: an empty list no longer means `*`.
    pub(super) explicit: bool,
    pub(super) wildcard: bool,
    pub(super) named: BTreeSet<Arc<str>>,
    pub(super) known: BTreeMap<Arc<str>, Known>,
    /// To be answered whatever `known` says.
    pub(super) owed: BTreeSet<Arc<str>>,
    /// A first `*` is answered even when there is nothing, or the client waits for its timeout.
    pub(super) owes_answer: bool,
    /// Not to be sent before the parent's response is answered; then sent again.
    pub(super) held: BTreeSet<Arc<str>>,
    /// Named by a parent that was sent; the client is expected to ask for them, until then.
    pub(super) awaited: BTreeMap<Arc<str>, Instant>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) refused: BTreeMap<Arc<str>, Refused>,
    /// Something may be due: the view's part or the subscription changed since the last walk found nothing.
    pub(super) updates_due: bool,
    pub(super) removals_due: bool,
}

/// What the client has of one name, or will have once it takes what is in flight.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Any text if it comes from an earlier stream.
    Version(Arc<str>),
    /// It asked and was told that there is none.
    Absent,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) nonce: String,
    pub(super) sent: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) children: Vec<Arc<str>>,
}

/// Which half of a type's changes goes now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Updates,
    Removals,
    Both,
}

/// What one response of a type carries.
#[derive(Default)]
pub(super) struct Due {
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<Arc<str>>,
    pub(super) bytes: usize,
}

impl Due {
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    /// Room for `bytes` more; the first always fits.
    fn take(&mut self, bytes: usize) -> bool {
        if !self.is_empty() && self.bytes + bytes > RESPONSE_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Subscription {
    pub(super) fn is_interested(&self, name: &str) -> bool {
        self.wildcard || self.named.contains(name)
    }

    pub(super) fn has(&self, resource: &Resource) -> bool {
        matches!(self.known.get(&resource.name), Some(Known::Version(has)) if *has == resource.version)
            && !self.owed.contains(&resource.name)
            && !self.held.contains(&resource.name)
    }

    pub(super) fn is_in_flight(&self, name: &str) -> bool {
        self.in_flight.as_ref().is_some_and(|sent| sent.sent.contains_key(name))
    }

    pub(super) fn unsubscribe(&mut self, name: &str) {
        if name == "*" {
            self.wildcard = false;
            self.forget_unasked();
            return;
        }
        let Some(name) = self.named.take(name) else { return };
        if self.wildcard {
            // The client has to learn whether it keeps the resource by the wildcard.
            self.owed.insert(name);
        } else {
            self.forget_unasked_name(&name);
        }
    }

    /// Drops what is remembered of names that are not asked for.
    pub(super) fn forget_unasked(&mut self) {
        if !self.wildcard {
            let Subscription { known, owed, held, refused, named, .. } = self;
            known.retain(|name, _| named.contains(name));
            owed.retain(|name| named.contains(name));
            held.retain(|name| named.contains(name));
            refused.retain(|name, _| named.contains(name));
        }
    }

    fn forget_unasked_name(&mut self, name: &str) {
        self.known.remove(name);
        self.owed.remove(name);
        self.held.remove(name);
        self.refused.remove(name);
    }

    /// Records a NACK. A client that accepts resources one by one names the bad ones in its message; if none of
    /// the response's names is in it, all are taken to be refused.
    pub(super) fn refuse(&mut self, kind: ResourceType, answered: &InFlight, reason: &str) -> Vec<Refused> {
        let named = |name: &str| reason.contains(name);
        let any_named = answered.sent.keys().any(|name| named(name));
        let reason: Arc<str> = reason.into();
        let mut new = Vec::new();
        for (name, version) in &answered.sent {
            if any_named && !named(name) {
                self.refused.remove(name);
                continue;
            }
            let refused =
                Refused { kind, name: name.clone(), version: version.clone(), reason: reason.clone() };
            let before = self.refused.insert(name.clone(), refused.clone());
            if before.is_none_or(|before| before.version != *version) {
                new.push(refused);
            }
        }
        new
    }

    /// Takes up to one response's worth of what differs between `section` and what the client has.
    pub(super) fn take_due(&mut self, section: &Resources, part: Part) -> Due {
        let mut due = Due::default();
        if self.removals_due {
            // Removals wait for their turn; that there are none is known at once.
            self.removals_due = match part {
                Part::Updates => self.gone(section).next().is_some(),
                Part::Removals | Part::Both => !self.take_removals(section, &mut due),
            };
        }
        if part != Part::Removals && self.updates_due {
            self.updates_due =
                !(self.take_unknown(section, &mut due) && self.take_updates(section, &mut due));
        }
        due
    }

    /// New and changed resources. False if some are left for later.
    fn take_updates(&mut self, section: &Resources, due: &mut Due) -> bool {
        let first = due.resources.len();
        let mut all = true;
        let asked: Box<dyn Iterator<Item = &Arc<Resource>>> = if self.wildcard {
            Box::new(section.values())
        } else {
            Box::new(self.named.iter().filter_map(|name| section.get(name)))
        };
        for resource in asked.filter(|resource| !self.has(resource)) {
            if self.held.contains(&resource.name) {
                all = false;
                continue;
            }
            if !due.take(resource.envelope.len()) {
                all = false;
                break;
            }
            due.resources.push(resource.clone());
        }
        for resource in due.resources.iter().skip(first) {
            self.owed.remove(&resource.name);
            self.known.insert(resource.name.clone(), Known::Version(resource.version.clone()));
        }
        all
    }

    /// Names that were asked for, do not exist, and that the client does not have either: answered at once, as it
    /// may be waiting. False if some are left for later.
    fn take_unknown(&mut self, section: &Resources, due: &mut Due) -> bool {
        let missing = |name: &&Arc<str>| section.get(*name).is_none();
        let unanswered = self.named.iter().filter(|name| !self.known.contains_key(*name));
        let names: BTreeSet<_> = unanswered.chain(&self.owed).filter(missing).cloned().collect();
        for name in names {
            if matches!(self.known.get(&name), Some(Known::Version(_))) {
                // It has one: this is a removal and waits for its turn.
                continue;
            }
            if !due.take(name.len()) {
                return false;
            }
            self.tell_absent(name, due);
        }
        true
    }

    /// Resources the client has and should not. False if some are left for later.
    fn take_removals(&mut self, section: &Resources, due: &mut Due) -> bool {
        let names: Vec<_> = self.gone(section).cloned().collect();
        for name in names {
            if !due.take(name.len()) {
                return false;
            }
            self.tell_absent(name, due);
        }
        true
    }

    fn gone(&self, section: &Resources) -> impl Iterator<Item = &Arc<str>> {
        let has = self.known.iter().filter(|(_, known)| **known != Known::Absent);
        has.map(|(name, _)| name).filter(|name| !section.contains_key(*name))
    }

    fn tell_absent(&mut self, name: Arc<str>, due: &mut Due) {
        self.owed.remove(&name);
        self.refused.remove(&name);
        if self.named.contains(&name) {
            self.known.insert(name.clone(), Known::Absent);
        } else {
            self.known.remove(&name);
        }
        due.removed.push(name);
    }
}
