//! When a certificate is renewed, and when it is time to worry. Pure.

use std::time::{Duration, SystemTime};

use policy::Rng;

/// The life of a certificate, by the wall clock, which is what others judge it by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Life {
    /// When it began.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Alarms, by the percent of a life that they are named for, and how much of it is left when they are due: renewal should
/// have been done long before. The first is a tenth late, since a renewal that is on its way then is none to worry about. The
/// last one is the end.
const ALARMS: [(u32, u32); 4] = [(50, 40), (25, 25), (10, 10), (0, 0)];

impl Life {
    /// When it is renewed: after half of it, a tenth earlier or later, so that proxies that began together do not come
    /// together.
    pub fn renews_at(&self, rng: &mut Rng) -> SystemTime {
        let whole = self.whole();
        let fifth = u64::try_from((whole / 5).as_nanos()).unwrap_or(u64::MAX);
        self.not_before + whole * 2 / 5 + Duration::from_nanos(rng.below(fifth.max(1)))
    }

    /// How much is left.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// The gravest alarm that is due; a life that renews in time has none.
    pub fn alarm(&self, now: SystemTime) -> Option<u32> {
        let (left, whole) = (self.left(now), self.whole());
        let due = ALARMS.into_iter().rev().find(|(_, percent)| left * 100 <= whole * *percent);
        due.map(|(name, _)| name)
    }

    fn whole(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_is_renewed_around_half_of_its_life() {
        let life = Life { not_before: at(1000), not_after: at(2000) };
        let mut rng = Rng::new(3);
        let times: Vec<_> = (0..200).map(|_| life.renews_at(&mut rng)).collect();
        assert!(times.iter().all(|time| (at(1400)..at(1600)).contains(time)));
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(last.duration_since(*first).unwrap() > Duration::from_secs(150), "they are spread");
    }

    #[test]
    fn alarms_grow_while_life_gets_short() {
        let life = Life { not_before: at(1000), not_after: at(2000) };
        for (now, alarm, left) in [
            (900, None, 1100),
            (1000, None, 1000),
            (1599, None, 401),
            (1600, Some(50), 400),
            (1749, Some(50), 251),
            (1750, Some(25), 250),
            (1900, Some(10), 100),
            (1999, Some(10), 1),
            (2000, Some(0), 0),
            (9000, Some(0), 0),
        ] {
            assert_eq!((life.alarm(at(now)), life.left(at(now)).as_secs()), (alarm, left), "at {now}");
        }
        let backwards = Life { not_before: at(2000), not_after: at(1000) };
        assert_eq!(backwards.alarm(at(1500)), Some(0));
    }
}
