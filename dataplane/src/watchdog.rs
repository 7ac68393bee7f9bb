//! Sees a worker that does not come to the end of its turn. Pure: told the time, and how many turns each has ended.
//!
//! A worker with nothing to do ends no turn either. So one that has ended none since the look before is asked for one, which
//! is work that any other worker does at once; only who leaves that undone is stuck.

use std::time::{Duration, Instant};

/// How long a worker may take for a turn.
pub const TURN_MAX: Duration = Duration::from_secs(1);

/// Longest pause between two looks after which nothing is concluded: the whole process stood still, and not one worker.
const PAUSE_MAX: Duration = Duration::from_millis(900);

/// Watches all workers.
#[derive(Debug)]
pub struct Watchdog {
    looked: Instant,
    workers: Vec<Watched>,
    misses: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    turns: u64,
    /// When it was asked for a turn that it has not ended yet.
    asked: Option<Instant>,
    is_stuck: bool,
}

/// What a look finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// It has ended no turn since the last look: to be asked for one.
    Ask {
        /// Which one.
        worker: usize,
    },
    /// It was asked, and has not ended a turn for too long.
    Stuck {
        /// Which one.
        worker: usize,
        /// Since it was asked.
        waited: Duration,
    },
    /// It was stuck and is not any more.
    Well {
        /// Which one.
        worker: usize,
        /// How long it was, since it was asked.
        waited: Duration,
    },
}

impl Watchdog {
    /// For this many workers.
    pub fn new(workers: usize, now: Instant) -> Watchdog {
        Watchdog { looked: now, workers: vec![Watched::default(); workers], misses: 0 }
    }

    /// How often a worker was found stuck.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Workers that are stuck now.
    pub fn stuck(&self) -> impl Iterator<Item = usize> {
        self.workers.iter().enumerate().filter(|(_, worker)| worker.is_stuck).map(|(worker, _)| worker)
    }

    /// Looks at the turns that each worker has ended, several times in a [`TURN_MAX`].
    pub fn look(&mut self, now: Instant, turns: impl Iterator<Item = u64>) -> Vec<Finding> {
        let stood_still = now.duration_since(self.looked) > PAUSE_MAX;
        self.looked = now;
        let mut findings = Vec::new();
        for (worker, (of, turns)) in self.workers.iter_mut().zip(turns).enumerate() {
            let waited = of.asked.map(|asked| now.duration_since(asked));
            if turns != of.turns {
                if of.is_stuck {
                    findings.push(Finding::Well { worker, waited: waited.unwrap_or_default() });
                }
                *of = Watched { turns, ..Watched::default() };
                continue;
            }
            match waited {
                None => {
                    of.asked = Some(now);
                    findings.push(Finding::Ask { worker });
                }
                Some(_) if of.is_stuck => {}
                Some(_) if stood_still => of.asked = Some(now),
                Some(waited) if waited >= TURN_MAX => {
                    of.is_stuck = true;
                    self.misses += 1;
                    findings.push(Finding::Stuck { worker, waited });
                }
                Some(_) => {}
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::{Finding as F, *};

    #[test]
    fn who_leaves_a_turn_undone_for_a_second_is_stuck_and_who_ends_one_is_well() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(2, start);
        let ms = Duration::from_millis;
        for (at, turns, expected) in [
            (250, [1, 1], vec![]),
            (500, [2, 1], vec![F::Ask { worker: 1 }]),
            (750, [3, 2], vec![]),
            // Nothing to do, asked, done.
            (1000, [3, 2], vec![F::Ask { worker: 0 }, F::Ask { worker: 1 }]),
            (1250, [4, 2], vec![]),
            (1500, [4, 2], vec![F::Ask { worker: 0 }]),
            (1750, [5, 2], vec![]),
            (1999, [6, 2], vec![]),
            (2000, [7, 2], vec![F::Stuck { worker: 1, waited: ms(1000) }]),
            (2250, [8, 2], vec![]),
            (5000 - 2000, [9, 2], vec![]),
            (3250, [9, 3], vec![F::Ask { worker: 0 }, F::Well { worker: 1, waited: ms(2250) }]),
            (3500, [10, 3], vec![F::Ask { worker: 1 }]),
            // The process was stopped for a while: nobody is blamed for it.
            (60_000, [10, 3], vec![F::Ask { worker: 0 }]),
            (60_250, [10, 4], vec![]),
            (60_500, [11, 4], vec![F::Ask { worker: 1 }]),
        ] {
            let found = watchdog.look(start + ms(at), turns.into_iter());
            assert_eq!(found, expected, "at {at} ms");
        }
        assert_eq!((watchdog.misses(), watchdog.stuck().count()), (1, 0));
    }
}
