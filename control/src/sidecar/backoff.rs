//! How long to wait before the next attempt: doubling, bounded, with jitter so that many do not come back at once.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// Waits between attempts. Starts anew with [`Self::reset`].
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// The first wait is at most `first`, none is above `max`.
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, next: first }
    }

    /// The next wait: between half of the bound and the bound, which then doubles.
    pub fn next_wait(&mut self) -> Duration {
        let half = self.next / 2;
        let jitter = u32::try_from(random() % 1000).unwrap_or_default();
        self.next = (self.next * 2).min(self.max);
        half + half * jitter / 1000
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// 64 bits that differ on every call and in every process. For jitter and names, not for secrets.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_anew_after_a_success() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(400));
        for bound in [100, 200, 400, 400] {
            let wait = backoff.next_wait();
            assert!((ms(bound / 2)..ms(bound)).contains(&wait), "{wait:?} of {bound} ms");
        }
        backoff.reset();
        assert!(backoff.next_wait() < ms(100));
    }
}
