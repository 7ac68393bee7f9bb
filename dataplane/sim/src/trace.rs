//! What happened, in order: the tail is printed when a run fails, the hash tells whether two runs were the same.

use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

use crate::connection::Side;

/// Entries kept for printing. The hash covers all.
const KEPT_MAX: usize = 256;

/// One thing that happened. Small and `Copy`, so that tracing allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum What {
    TaskBegins(u64),
    TaskEnds(u64),
    Connects { from: SocketAddr, to: SocketAddr },
    Refused { to: SocketAddr },
    Established { connection: u64, to: SocketAddr },
    Accepted { connection: u64 },
    Sent { connection: u64, by: Side, bytes: usize },
    Received { connection: u64, by: Side, bytes: usize },
    EndArrives { connection: u64, at: Side },
    ResetArrives { connection: u64, at: Side },
    Closed { connection: u64, by: Side },
    Fails { connection: u64, at: Side, error: i32 },
    TurnEnds(usize),
}

/// The record of a run.
#[derive(Default)]
pub(crate) struct Trace {
    kept: VecDeque<(u64, What)>,
    hasher: DefaultHasher,
    count: u64,
}

impl Trace {
    pub(crate) fn note(&mut self, now: u64, what: What) {
        (now, what).hash(&mut self.hasher);
        self.count += 1;
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((now, what));
    }

    /// Equal for equal runs of one build.
    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the last {} of {} events:", self.kept.len(), self.count)?;
        for (at, what) in &self.kept {
            writeln!(f, "  {:>14.6} ms  {what:?}", *at as f64 / 1e6)?;
        }
        Ok(())
    }
}
