//! What the control plane knows at one moment: what everything downstream of the documents and registrations reads.
//!
//! Not here: how the next moment is made of it (`world_maker`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::compile::{self, Client, Resource, Shared, View};
use crate::conditions::Conditions;
use crate::document::Documents;
use crate::model::{Model, Registrations};

/// How many changes of endpoints are remembered one by one. A stream that is further behind compiles anew.
const RECENT_COUNT_MAX: usize = 64;

/// Everything known at one moment. Immutable.
#[derive(Debug)]
pub struct World {
    /// Counts every change, those of endpoints too, from 1.
    pub sequence: u64,
    /// Which configuration this is: `r12-1a2b3c4d`, a number that counts up and the start of a content hash.
    pub revision: Arc<str>,
    /// The newest good version of each document, and what is wrong with the others.
    pub documents: Arc<Documents>,
    /// The registrations that hold and conflict with no other.
    pub registrations: Arc<Registrations>,
    /// What both mean together.
    pub model: Model,
    /// What of the model is encoded already.
    pub(crate) shared: Shared,
    /// What became of each of them.
    pub conditions: Conditions,
    /// When the last change of anything was noticed.
    pub since: Instant,
    /// When this revision began, by the wall clock.
    pub revision_since: SystemTime,
    pub(crate) trail: Trail,
}

impl World {
    /// The endpoints that changed since world `sequence`, in order. `None` if more may have changed.
    pub fn endpoints_since(&self, sequence: u64) -> Option<impl Iterator<Item = &Arc<Resource>>> {
        self.trail.since(sequence)
    }

    /// What `client` gets of it.
    pub fn compile(&self, client: &Client) -> View {
        compile::compile(&self.model, &self.shared, client)
    }

    /// Takes over from `before` what did not change.
    pub(crate) fn follow(&mut self, before: &World) {
        let carried = compile::carry_over(&before.model, &before.shared, &self.model);
        if let Some((endpoints, shared)) = carried {
            (self.shared, self.trail) = (shared, before.trail.with(endpoints));
        }
    }
}

/// The endpoints that changed from world to world, since the last one in which something else did.
#[derive(Debug, Clone)]
pub(crate) struct Trail {
    newest: u64,
    /// Of the last worlds, the oldest first.
    changes: VecDeque<Arc<[Arc<Resource>]>>,
}

impl Trail {
    /// World `newest` shares nothing with those before.
    pub(crate) fn start(newest: u64) -> Trail {
        Trail { newest, changes: VecDeque::new() }
    }

    /// The next world differs in these.
    fn with(&self, endpoints: Vec<Arc<Resource>>) -> Trail {
        let mut changes = self.changes.clone();
        changes.push_back(endpoints.into());
        if changes.len() > RECENT_COUNT_MAX {
            changes.pop_front();
        }
        Trail { newest: self.newest + 1, changes }
    }

    fn since(&self, sequence: u64) -> Option<impl Iterator<Item = &Arc<Resource>>> {
        let behind = usize::try_from(self.newest.checked_sub(sequence)?).ok()?;
        let known = self.changes.len().checked_sub(behind)?;
        Some(self.changes.iter().skip(known).flat_map(|endpoints| endpoints.iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_goes_back_to_the_last_world_in_which_more_changed_and_no_further() {
        let endpoint = |name: &str| {
            let (bytes, envelope) = Default::default();
            let (name, version, children) = (name.into(), "1".into(), Vec::new());
            vec![Arc::new(Resource { name, version, bytes, envelope, children })]
        };
        let names = |trail: &Trail, sequence| {
            let names = trail.since(sequence)?.map(|resource| resource.name.to_string());
            Some(names.collect::<Vec<_>>().join(" "))
        };
        let trail = Trail::start(5).with(endpoint("a")).with(Vec::new()).with(endpoint("b"));
        let table = [
            (9, None),
            (8, Some("")),
            (7, Some("b")),
            (6, Some("b")),
            (5, Some("a b")),
            (4, None),
            (0, None),
        ];
        for (sequence, changed) in table {
            assert_eq!(names(&trail, sequence).as_deref(), changed, "{sequence}");
        }
        let long = (0..RECENT_COUNT_MAX).fold(trail, |trail, _| trail.with(endpoint("c")));
        assert_eq!(names(&long, 7), None, "forgotten");
        assert!(names(&long, 8).is_some());
    }
}
