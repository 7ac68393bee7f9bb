//! Times without a control plane, so that each is told once at its start and once at its end. Pure.

use std::time::{Duration, Instant};

/// Whether the control plane is there.
#[derive(Debug)]
pub struct Outage {
    /// When it was there last; `None` while it is.
    since: Option<Instant>,
    /// The start was told.
    is_told: bool,
    /// It answered once.
    is_known: bool,
}

impl Outage {
    /// A proxy that started `now` and has not asked anybody yet.
    pub fn new(now: Instant) -> Outage {
        Outage { since: Some(now), is_told: false, is_known: false }
    }

    /// A stream ended, or could not be opened; whether this is the news that there is no control plane. A stream after
    /// which the next is opened at once is none: servers end streams to spread their load.
    pub fn on_closed(&mut self, now: Instant, retry_in: Duration) -> bool {
        self.since.get_or_insert(now);
        !retry_in.is_zero() && !std::mem::replace(&mut self.is_told, true)
    }

    /// The control plane answered; how long it had been away, where that is news.
    pub fn on_answer(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        let is_news = std::mem::take(&mut self.is_told) || !std::mem::replace(&mut self.is_known, true);
        is_news.then(|| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;
    const LATER: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_is_told_once_at_its_start_and_once_at_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::new(start);
        assert!(outage.on_closed(at(1), LATER));
        assert!(!outage.on_closed(at(2), LATER));
        assert_eq!(outage.on_answer(at(3)), Some(Duration::from_secs(3)), "since the start of the proxy");
        assert_eq!(outage.on_answer(at(4)), None);
        assert!(outage.on_closed(at(10), LATER));
        for second in 11..100 {
            assert!(!outage.on_closed(at(second), LATER));
        }
        assert_eq!(outage.on_answer(at(110)), Some(Duration::from_secs(100)));
    }

    #[test]
    fn a_stream_that_the_server_ends_in_good_health_is_no_outage_unless_the_next_one_fails() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::new(start);
        assert_eq!(outage.on_answer(at(1)), Some(Duration::from_secs(1)), "the first answer is news");
        assert!(!outage.on_closed(at(60), AT_ONCE));
        assert_eq!(outage.on_answer(at(60)), None);
        assert!(!outage.on_closed(at(120), AT_ONCE));
        assert!(outage.on_closed(at(121), LATER));
        assert_eq!(outage.on_answer(at(122)), Some(Duration::from_secs(2)));
    }
}
