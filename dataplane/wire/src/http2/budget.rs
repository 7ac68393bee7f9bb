//! What a peer may do without purpose on one connection before it ends.
//!
//! Two accounts, each refilled by time and by useful work, so that a busy connection may do more of everything than an idle
//! one. *Resets*: streams that end without having been of use, whoever resets them (CVE-2023-44487, CVE-2025-8671).
//! *Chatter*: frames that move nothing (CVE-2019-9511 to 9518). Frames that have a measure of their own are held to that
//! ([`FrameBounds`]).

use core::time::Duration;

use crate::Tick;

/// How many of some frames may come, each beside what it is for. Counted as Envoy counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameBounds {
    /// HEADERS, CONTINUATION and DATA in a row without payload that do not end their stream.
    pub empty_max: u32,
    /// PRIORITY for each stream that was opened, and for one more.
    pub priority_per_stream_max: u32,
    /// WINDOW_UPDATE for each DATA frame that we sent: the stream and the connection get so many each. Each stream may have
    /// one without, and so may the connection; a few come before the first.
    pub window_updates_per_data_max: u32,
    /// Answers that wait to be taken, that is, what the peer makes us say and does not read: of PING, SETTINGS, and
    /// RST_STREAM for what it did wrong.
    pub answers_max: u32,
}

impl FrameBounds {
    /// For a peer that is trusted.
    pub const NONE: FrameBounds = FrameBounds {
        empty_max: u32::MAX,
        priority_per_stream_max: u32::MAX,
        window_updates_per_data_max: u32::MAX,
        answers_max: u32::MAX,
    };
}

/// [`FrameBounds`], and what was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    bounds: FrameBounds,
    empty: u32,
    priorities: u64,
    window_updates: u64,
    answers: u32,
    streams: u64,
    data: u64,
}

impl Frames {
    pub(super) fn new(bounds: FrameBounds) -> Frames {
        Frames { bounds, empty: 0, priorities: 0, window_updates: 0, answers: 0, streams: 0, data: 0 }
    }

    /// A stream was opened, by either side.
    pub(super) fn opened(&mut self) {
        self.streams += 1;
    }

    /// A DATA frame was sent.
    pub(super) fn sent_data(&mut self) {
        self.data += 1;
    }

    /// The output was taken.
    pub(super) fn taken(&mut self) {
        self.answers = 0;
    }

    /// A frame came that may have had a payload; false when it is one too many without.
    pub(super) fn payload(&mut self, is_empty: bool) -> bool {
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        self.empty <= self.bounds.empty_max
    }

    /// A PRIORITY came; false when it is one too many.
    pub(super) fn priority(&mut self) -> bool {
        self.priorities += 1;
        let each = u64::from(self.bounds.priority_per_stream_max);
        self.priorities <= each.saturating_mul(self.streams + 1)
    }

    /// A WINDOW_UPDATE came; false when it is one too many.
    pub(super) fn window_update(&mut self) -> bool {
        self.window_updates += 1;
        let for_data = u64::from(self.bounds.window_updates_per_data_max).saturating_mul(self.data);
        self.window_updates <= self.streams.saturating_add(for_data).saturating_mul(2).saturating_add(5)
    }

    /// An answer goes out; false when it is one too many.
    pub(super) fn answer(&mut self) -> bool {
        self.answers += 1;
        self.answers <= self.bounds.answers_max
    }
}

/// One account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    /// What it holds when it is full.
    pub most: u32,
    /// What comes back each second.
    pub per_second: u32,
    /// What useful work gives back.
    pub per_use: u32,
}

/// An [`Allowance`] and what is left of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    allowance: Allowance,
    left: u32,
    filled_at: Tick,
}

impl Account {
    pub(super) fn new(allowance: Allowance, now: Tick) -> Account {
        Account { allowance, left: allowance.most, filled_at: now }
    }

    /// Takes one; false when nothing is left.
    pub(super) fn spend(&mut self, now: Tick) -> bool {
        // Filled before it is looked at: what time gave while it was full is nothing.
        let seconds = now.since(self.filled_at).as_secs();
        if seconds > 0 {
            self.filled_at = self.filled_at.after(Duration::from_secs(seconds));
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.give(self.allowance.per_second.saturating_mul(seconds));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Something useful was done.
    pub(super) fn earn(&mut self) {
        self.give(self.allowance.per_use);
    }

    fn give(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.allowance.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_used_up_and_refilled_by_time_and_by_work() {
        let start = Tick::default().after(Duration::from_secs(100));
        let mut account = Account::new(Allowance { most: 3, per_second: 2, per_use: 1 }, start);
        assert_eq!([1, 2, 3, 4].map(|_| account.spend(start)), [true, true, true, false]);
        account.earn();
        assert_eq!([account.spend(start), account.spend(start)], [true, false]);
        let later = start.after(Duration::from_secs(1));
        assert_eq!([1, 2, 3].map(|_| account.spend(later)), [true, true, false]);
        // Parts of a second are not lost, and time gives nothing to a full account.
        let parts = [1400, 1999, 2000].map(|ms| account.spend(start.after(Duration::from_millis(ms))));
        assert_eq!(parts, [false, false, true]);
        let later = start.after(Duration::from_millis(2000));
        let much_later = later.after(Duration::from_secs(1_000_000_000));
        assert_eq!([1, 2, 3, 4].map(|_| account.spend(much_later)), [true, true, true, false]);
    }
}
