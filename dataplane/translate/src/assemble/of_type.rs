//! The resources of one type: what was accepted, what serves, what was refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Accepted, RejectedVersion};
use crate::{Origin, Wanted};

/// One type's resources by name.
#[derive(Debug)]
pub(super) struct Type<T> {
    pub(super) received: BTreeMap<Arc<str>, Accepted<T>>,
    pub(super) active: BTreeMap<Arc<str>, Accepted<T>>,
    pub(super) absent: BTreeSet<Arc<str>>,
    pub(super) rejected: BTreeMap<Arc<str>, RejectedVersion>,
    pub(super) revision: String,
}

impl<T> Type<T> {
    pub(super) fn receive(&mut self, resource: Accepted<T>) {
        if resource.origin == Origin::Dynamic && self.is_static(&resource.name) {
            return;
        }
        self.absent.remove(&resource.name);
        self.rejected.remove(&resource.name);
        self.received.insert(resource.name.clone(), resource);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.rejected.remove(name);
        if self.is_static(name) {
            return;
        }
        self.received.remove(name);
        self.absent.insert(name.into());
    }

    /// Makes every received resource active that is `ready` and is not active in this version already. `ready` also gets
    /// whether another version of it serves.
    pub(super) fn activate(&mut self, ready: impl Fn(&T, bool) -> bool) -> bool {
        let mut changed = false;
        for (name, resource) in &self.received {
            let active = self.active.get(name);
            if active.is_some_and(|active| Arc::ptr_eq(&active.value, &resource.value))
                || !ready(&resource.value, active.is_some())
            {
                continue;
            }
            self.active.insert(name.clone(), resource.clone());
            changed = true;
        }
        changed
    }

    /// Forgets every resource that is not in `wanted`, nor in the bootstrap file. What is wanted and was removed stays
    /// active.
    pub(super) fn keep(&mut self, wanted: &Wanted) -> bool {
        let before = self.active.len();
        let is_kept =
            |name: &Arc<str>, of: &mut Accepted<T>| of.origin == Origin::Static || wanted.contains_key(name);
        self.received.retain(is_kept);
        self.active.retain(is_kept);
        self.absent.retain(|name| wanted.contains_key(name));
        self.rejected.retain(|name, _| wanted.contains_key(name));
        self.active.len() != before
    }

    /// Whether one of `names` was received and nothing of that name serves yet.
    pub(super) fn is_any_warming(&self, names: &BTreeSet<Arc<str>>) -> bool {
        names.iter().any(|name| self.received.contains_key(name) && !self.active.contains_key(name))
    }

    /// Whether nobody need wait for `name`: it does not exist, or its first version was refused and who refers to it
    /// has no former version that could serve meanwhile.
    pub(super) fn is_given_up(&self, name: &str, former_serves: bool) -> bool {
        self.absent.contains(name)
            || !former_serves && self.rejected.contains_key(name) && !self.received.contains_key(name)
    }

    /// Whether none of `names` has to be waited for.
    pub(super) fn are_there<'a>(
        &self,
        mut names: impl Iterator<Item = &'a Arc<str>>,
        former_serves: bool,
    ) -> bool {
        names.all(|name| {
            self.received.contains_key(name)
                || self.active.contains_key(name)
                || self.is_given_up(name, former_serves)
        })
    }

    /// Whether any version of `name` is here, or is known not to exist.
    pub(super) fn has(&self, name: &str) -> bool {
        self.received.contains_key(name) || self.active.contains_key(name) || self.absent.contains(name)
    }

    /// Received and active resources; one that is both appears twice.
    pub(super) fn all(&self) -> impl Iterator<Item = &Accepted<T>> {
        self.received.values().chain(self.active.values())
    }

    pub(super) fn is_static(&self, name: &str) -> bool {
        self.received.get(name).is_some_and(|resource| resource.origin == Origin::Static)
    }
}

impl<T> Default for Type<T> {
    fn default() -> Type<T> {
        Type {
            received: Default::default(),
            active: Default::default(),
            absent: Default::default(),
            rejected: Default::default(),
            revision: String::new(),
        }
    }
}
