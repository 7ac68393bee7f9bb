//! How often snapshots are made. Pure.
//!
//! Endpoints of a large mesh change hundreds of times a second, and a snapshot costs in proportion to the number of
//! clusters. So changes are gathered for a while after each snapshot, the longer the more it cost: the first change goes
//! out at once, and a storm takes a bounded share of this thread.

use std::time::{Duration, Instant};

/// Pause after a snapshot, as a multiple of the time it took: at most a fifth of the time goes into snapshots.
const PAUSE_PER_COST: u32 = 4;

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// When the next snapshot may be made.
#[derive(Debug)]
pub(super) struct Pace {
    not_before: Instant,
}

impl Pace {
    /// The first one may be made at once.
    pub(super) fn new(now: Instant) -> Pace {
        Pace { not_before: now }
    }

    /// From when on the next one may be made.
    pub(super) fn due(&self) -> Instant {
        self.not_before
    }

    /// A snapshot was made between two points of time.
    pub(super) fn spent(&mut self, begun: Instant, now: Instant) {
        let cost = now.saturating_duration_since(begun);
        self.not_before = now + (cost * PAUSE_PER_COST).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_follows_in_proportion_to_the_cost_and_is_bounded() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut pace = Pace::new(start);
        assert_eq!(pace.due(), start);
        for (cost, pause) in [(0, 0), (2, 8), (10, 40), (60, 100)] {
            pace.spent(start, start + ms(cost));
            assert_eq!(pace.due(), start + ms(cost + pause), "{cost} ms");
        }
    }
}
