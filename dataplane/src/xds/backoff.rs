//! How long to wait before the next connect to the control plane. Pure.

use std::time::Duration;

use policy::Rng;

/// Waits before the attempts after failures in a row; the last one repeats. It is 4 s and not the 30 s that other
/// clients go up to: a control plane that comes back shall have every proxy in sync within 5 s, however long it was away.
/// What a storm of reconnects would cost it is bounded elsewhere: the attempts are spread by the jitter below, an attempt
/// at a dead address is one refused connect, and a stream that begins with `initial_resource_versions` brings only what
/// changed.
const STEPS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// A stream that answered and lived this long ended for a reason that is over: the next one may be tried at once. A
/// shorter life does not count, or a control plane that dies of our request would be asked without end.
const HEALTHY_AFTER: Duration = Duration::from_secs(1);

/// Failures in a row so far.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: usize,
}

impl Backoff {
    /// The wait after a stream that lasted `lived`, and that had answers or not. Half of each step is random, so that
    /// proxies that lost one control plane together do not come back together. A step is the time between the beginnings
    /// of two attempts: one that waited in vain for somebody to answer its connect has waited already.
    pub fn after(&mut self, lived: Duration, had_answers: bool, rng: &mut Rng) -> Duration {
        if had_answers {
            self.failures = 0;
            if lived >= HEALTHY_AFTER {
                return Duration::ZERO;
            }
        }
        let step = STEPS.get(self.failures).or(STEPS.last()).copied().unwrap_or_default();
        self.failures = (self.failures + 1).min(STEPS.len());
        let step = step.saturating_sub(lived).max(STEPS[0]);
        let half = step / 2;
        half + Duration::from_nanos(rng.below(u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(3);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn failures_in_a_row_wait_longer_and_an_answer_starts_over() {
        let mut rng = Rng::new(7);
        let mut backoff = Backoff::default();
        for most_ms in [100, 1000, 2000, 4000, 4000, 4000] {
            let most = Duration::from_millis(most_ms);
            let wait = backoff.after(Duration::ZERO, false, &mut rng);
            assert!(most / 2 <= wait && wait < most, "{wait:?} of {most:?}");
        }
        let second = Duration::from_secs(1);
        let wait = backoff.after(second, false, &mut rng);
        assert!(3 * second / 2 <= wait && wait < 3 * second, "{wait:?}: a second has passed already");
        assert!(backoff.after(LONG, false, &mut rng) < Duration::from_millis(100));
        assert_eq!(backoff.after(LONG, true, &mut rng), Duration::ZERO);
        assert!(backoff.after(LONG, false, &mut rng) < Duration::from_millis(100));
    }

    #[test]
    fn streams_that_answer_and_break_at_once_are_not_opened_in_a_hot_loop() {
        let mut rng = Rng::new(7);
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            assert!(backoff.after(SHORT, true, &mut rng) >= Duration::from_millis(50));
        }
    }
}
