//! Which connections are taken: the limits of the process and of filter chains, counted over all workers.
//!
//! A limit is one number for the process, so its count is shared and changed by all workers: twice per connection, never
//! per request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use policy::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Counts the connections under one limit.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicU64,
    refused: AtomicU64,
}

/// A connection's place under a limit, given up when dropped.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// Takes a place if fewer than `most` are taken.
    pub fn enter(self: &Arc<Self>, most: u64) -> Option<Pass> {
        let more = |open: u64| (open < most).then(|| open + 1);
        match self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Some(Pass(self.clone())),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Places that are taken now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that found none.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the whole process takes.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
    /// Connections of those in the gate on which nothing happens.
    at_rest: AtomicU64,
    /// More are closed at once (Envoy: `global_downstream_max_connections`).
    most: u64,
    /// Descriptors that connections may need before accepting pauses.
    descriptors: u64,
    /// Connections for which there is memory before accepting pauses.
    memory: AtomicU64,
}

/// What a connection at work may need: its own descriptor, one to upstream and one that is being closed. One at rest
/// needs its own alone.
const DESCRIPTORS_AT_WORK: u64 = 3;

/// A connection at rest, for as long as this lives.
#[derive(Debug)]
pub struct AtRest<'a>(&'a AtomicU64);

impl Drop for AtRest<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::new(None, u64::MAX)
    }
}

impl Admission {
    /// At most `most` connections, and none accepted while those that are open may need `descriptors`.
    pub fn new(most: Option<u64>, descriptors: u64) -> Admission {
        let most = most.unwrap_or(u64::MAX);
        let (gate, at_rest, memory) = (Arc::default(), AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Admission { gate, at_rest, most, descriptors, memory }
    }

    /// There is memory for so many connections more, until that is said anew; gives how many there are.
    pub fn allow(&self, more: u64) -> u64 {
        let open = self.gate.open();
        self.memory.store(open.saturating_add(more), Ordering::Relaxed);
        open
    }

    /// Whether there are descriptors, and memory, for one more.
    pub fn has_room(&self) -> bool {
        let open = self.gate.open();
        let at_work = open.saturating_sub(self.at_rest.load(Ordering::Relaxed));
        // Always one, or nobody would ever be served.
        let has_descriptors = open + (at_work + 1) * (DESCRIPTORS_AT_WORK - 1) < self.descriptors;
        open == 0 || has_descriptors && open < self.memory.load(Ordering::Relaxed)
    }

    /// Counts a connection as one at rest.
    pub fn rest(&self) -> AtRest<'_> {
        self.at_rest.fetch_add(1, Ordering::Relaxed);
        AtRest(&self.at_rest)
    }

    /// Takes a place for a connection, if it may have one.
    pub fn enter(&self) -> Option<Pass> {
        self.gate.enter(self.most)
    }

    /// Connections that were closed for want of a place.
    pub fn refused(&self) -> u64 {
        self.gate.refused()
    }
}

/// Raises the limit of open descriptors as far as this process may; gives how many of them connections may need.
pub fn descriptors(workers: usize) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    let reserved = limits::DESCRIPTORS_RESERVED + limits::DESCRIPTORS_PER_WORKER * workers as u64;
    limit.current.unwrap_or(u64::MAX).saturating_sub(reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_takes_as_many_as_it_may_and_one_more_when_one_goes() {
        let gate = Arc::<Gate>::default();
        let mut passes: Vec<Pass> = (0..3).map_while(|_| gate.enter(3)).collect();
        assert_eq!((passes.len(), gate.open(), gate.refused()), (3, 3, 0));
        assert!(gate.enter(3).is_none());
        assert!(gate.enter(4).is_some(), "its limit may change under it");
        assert!(gate.enter(3).is_none());
        passes.pop();
        assert!(gate.enter(3).is_some());
        assert_eq!((gate.open(), gate.refused()), (2, 2));
        assert!(gate.enter(0).is_none());
    }

    #[test]
    fn threads_that_come_at_once_take_no_place_twice() {
        let gate = Arc::<Gate>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let passes = [gate.enter(3), gate.enter(3)];
                        assert!(gate.open() <= 3);
                        drop(passes);
                    }
                });
            }
        });
        assert_eq!(gate.open(), 0);
    }

    #[test]
    fn connections_at_work_need_room_for_three_and_those_at_rest_for_one() {
        for (descriptors, at_rest, at_work, has_room) in [
            (0, 0, 0, true),
            (0, 0, 1, false),
            (12, 0, 3, true),
            (11, 0, 3, false),
            (14, 8, 1, true),
            (13, 8, 1, false),
            (20_000, 10_000, 64, true),
            (20_000, 0, 6_665, true),
            (20_000, 0, 6_667, false),
            (u64::MAX, 10_000, 10_000, true),
        ] {
            let admission = Admission::new(None, descriptors);
            let passes: Vec<_> = (0..at_rest + at_work).map_while(|_| admission.enter()).collect();
            let resting: Vec<_> = (0..at_rest).map(|_| admission.rest()).collect();
            assert_eq!(admission.has_room(), has_room, "{descriptors} for {at_rest} and {at_work}");
            assert_eq!(admission.allow(0), passes.len() as u64);
            assert_eq!(admission.has_room(), passes.is_empty(), "always one");
            admission.allow(1);
            assert_eq!(admission.has_room(), has_room);
            drop(resting);
            drop(passes);
            assert!(admission.has_room());
        }
    }
}
