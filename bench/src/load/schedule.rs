//! When requests are meant to be sent. Pure: the caller says what time it is.

use std::time::{Duration, Instant};

/// How requests follow one another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A connection sends as soon as it has its answer.
    Closed,
    /// At this many requests per second, whatever the answers do.
    Open(f64),
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// After this time. An open loop sends every request that was meant to be sent by then, also when it is late.
    Elapsed(Duration),
    /// After this many requests.
    Requests(u64),
}

/// What is to be done about the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it; it was meant to be sent at this time.
    Due(Instant),
    /// Wait: it is meant to be sent at this time.
    At(Instant),
    /// There is none.
    Over,
}

/// An absolute schedule: request `n` of an open loop is meant for `n / rate` seconds after the start, no matter when its
/// predecessors went out. So a stall shows in the latencies of all the requests that fell into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pace: Pace,
    until: Until,
    started: Instant,
    sent: u64,
}

impl Schedule {
    pub(super) fn new(pace: Pace, until: Until, started: Instant) -> Self {
        Self { pace, until, started, sent: 0 }
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        let intended = match self.pace {
            Pace::Closed => now,
            Pace::Open(rate) => self.started + intended_after(self.sent, rate),
        };
        let is_over = match self.until {
            Until::Elapsed(time) => intended >= self.started + time,
            Until::Requests(count) => self.sent >= count,
        };
        match () {
            () if is_over => Next::Over,
            () if intended <= now => Next::Due(intended),
            () => Next::At(intended),
        }
    }

    /// The request that [`Schedule::next`] called due is on its way.
    pub(super) fn sent_one(&mut self) {
        self.sent += 1;
    }

    /// Requests sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The time by which everything is meant to be sent; `None` when the answers decide that.
    pub(super) fn end(&self) -> Option<Instant> {
        match (self.until, self.pace) {
            (Until::Elapsed(time), _) => Some(self.started + time),
            (Until::Requests(count), Pace::Open(rate)) => Some(self.started + intended_after(count, rate)),
            (Until::Requests(_), Pace::Closed) => None,
        }
    }

    /// Requests that were meant to be sent by the end of the schedule, and were not.
    pub(super) fn unsent(&self) -> u64 {
        let all = match (self.until, self.pace) {
            (Until::Requests(count), _) => count,
            // As `next` counts: the first one at 0, none at the end itself. The product may be a little more than a whole
            // number that it should be.
            (Until::Elapsed(time), Pace::Open(rate)) => {
                let upto = (time.as_secs_f64() * rate).ceil() as u64;
                let is_last_too_late = upto > 0 && intended_after(upto - 1, rate) >= time;
                upto - u64::from(is_last_too_late)
            }
            (Until::Elapsed(_), Pace::Closed) => self.sent,
        };
        all.saturating_sub(self.sent)
    }
}

/// How long after the start request `n`, counted from 0, is meant to be sent.
fn intended_after(n: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(n as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends all that is due at `now`; gives the intended times in milliseconds.
    fn send_due(schedule: &mut Schedule, started: Instant, now: Instant) -> Vec<u128> {
        let mut intended = Vec::new();
        while let Next::Due(at) = schedule.next(now) {
            intended.push((at - started).as_millis());
            schedule.sent_one();
        }
        intended
    }

    #[test]
    fn requests_keep_their_intended_times_through_a_stall() {
        let started = Instant::now();
        let mut schedule = Schedule::new(Pace::Open(1000.0), Until::Elapsed(Duration::from_secs(1)), started);
        assert_eq!(send_due(&mut schedule, started, started + 3 * MS), [0, 1, 2, 3]);
        assert_eq!(schedule.next(started + 3 * MS), Next::At(started + 4 * MS));
        // Nothing could be sent for 5 ms: what fell into them is late and says so.
        assert_eq!(send_due(&mut schedule, started, started + 8 * MS), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn what_was_meant_to_be_sent_in_time_is_sent_or_counted_even_after_the_end() {
        let started = Instant::now();
        let mut schedule = Schedule::new(Pace::Open(1000.0), Until::Elapsed(10 * MS), started);
        schedule.sent_one();
        assert_eq!(schedule.unsent(), 9);
        assert_eq!(send_due(&mut schedule, started, started + 60 * MS), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(schedule.next(started + 60 * MS), Next::Over);
        assert_eq!((schedule.sent(), schedule.unsent()), (10, 0));
    }

    #[test]
    fn a_schedule_ends_as_it_was_told() {
        let started = Instant::now();
        let long_after = started + 5000 * MS;
        for (pace, until, sent, end) in [
            (Pace::Open(500.0), Until::Requests(3), 3, Some(6 * MS)),
            (Pace::Open(500.0), Until::Elapsed(7 * MS), 4, Some(7 * MS)),
            (Pace::Open(0.5), Until::Elapsed(3000 * MS), 2, Some(3000 * MS)),
            // 0.55 * 400 is a little more than 220.
            (Pace::Open(400.0), Until::Elapsed(550 * MS), 220, Some(550 * MS)),
            (Pace::Closed, Until::Requests(3), 3, None),
            (Pace::Closed, Until::Elapsed(7 * MS), 0, Some(7 * MS)),
        ] {
            let mut schedule = Schedule::new(pace, until, started);
            assert_eq!(schedule.end(), end.map(|end| started + end), "{pace:?} {until:?}");
            let count = send_due(&mut schedule, started, long_after).len();
            assert_eq!((count, schedule.unsent()), (sent, 0), "{pace:?} {until:?}");
        }
        let closed = Schedule::new(Pace::Closed, Until::Elapsed(7 * MS), started);
        assert_eq!(closed.next(started + 6 * MS), Next::Due(started + 6 * MS));
    }

    #[test]
    fn a_long_schedule_does_not_drift() {
        let started = Instant::now();
        let rate = 33_333.0;
        let mut schedule = Schedule::new(Pace::Open(rate), Until::Requests(u64::MAX), started);
        schedule.sent = 33_333 * 3600;
        let Next::At(at) = schedule.next(started) else { panic!("it is due after an hour") };
        let hour = Duration::from_secs(3600);
        assert!((at - started).abs_diff(hour) < Duration::from_nanos(2), "{:?}", at - started);
    }
}
