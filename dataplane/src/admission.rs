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
    /// More are closed at once (Envoy: `global_downstream_max_connections`).
    most: u64,
    /// With so many, accepting pauses: descriptors are left for connections to upstream, and for the control thread.
    room: u64,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::new(None, u64::MAX)
    }
}

impl Admission {
    /// At most `most` connections, and none accepted while `room` are open.
    pub fn new(most: Option<u64>, room: u64) -> Admission {
        Admission { gate: Arc::default(), most: most.unwrap_or(u64::MAX), room }
    }

    /// Whether there are descriptors for one more.
    pub fn has_room(&self) -> bool {
        self.gate.open() < self.room
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

/// Raises the limit of open descriptors as far as this process may; gives how many downstream connections leave enough of
/// them for the rest: one to upstream for each, one that is being closed, and those that are not connections.
pub fn room_by_descriptors(workers: usize) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    room(limit.current.unwrap_or(u64::MAX), workers)
}

fn room(descriptors: u64, workers: usize) -> u64 {
    let reserved = limits::DESCRIPTORS_RESERVED + limits::DESCRIPTORS_PER_WORKER * workers as u64;
    (descriptors.saturating_sub(reserved) / 3).max(1)
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
    fn a_third_of_the_descriptors_that_are_not_reserved_are_for_downstream() {
        for (descriptors, workers, expected) in
            [(256, 1, 61), (256, 2, 58), (1024, 2, 314), (0, 1, 1), (u64::MAX, 1, u64::MAX / 3 - 24)]
        {
            assert_eq!(room(descriptors, workers), expected, "{descriptors} {workers}");
        }
    }
}
