//! What a peer may do without purpose on one connection before it ends.
//!
//! Two accounts, each refilled by time and by useful work, so that a busy connection may do more of everything than an idle
//! one. *Resets*: streams that end without having been of use, whoever resets them (CVE-2023-44487, CVE-2025-8671).
//! *Chatter*: frames that move nothing (CVE-2019-9511 to 9518).

use crate::Tick;

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
    pub(super) fn new(allowance: Allowance) -> Account {
        Account { allowance, left: allowance.most, filled_at: Tick::default() }
    }

    /// Takes one; false when nothing is left.
    pub(super) fn spend(&mut self, now: Tick) -> bool {
        if self.left == 0 {
            let seconds = u32::try_from(now.since(self.filled_at).as_secs()).unwrap_or(u32::MAX);
            if seconds > 0 {
                self.filled_at = now;
                self.give(self.allowance.per_second.saturating_mul(seconds));
            }
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
    use core::time::Duration;

    use super::*;

    #[test]
    fn an_account_is_used_up_and_refilled_by_time_and_by_work() {
        let start = Tick::default().after(Duration::from_secs(100));
        let mut account = Account::new(Allowance { most: 3, per_second: 2, per_use: 1 });
        account.filled_at = start;
        assert_eq!([1, 2, 3, 4].map(|_| account.spend(start)), [true, true, true, false]);
        account.earn();
        assert_eq!([account.spend(start), account.spend(start)], [true, false]);
        let later = start.after(Duration::from_secs(1));
        assert_eq!([1, 2, 3].map(|_| account.spend(later)), [true, true, false]);
        let much_later = later.after(Duration::from_secs(1_000_000_000));
        assert_eq!([1, 2, 3, 4].map(|_| account.spend(much_later)), [true, true, true, false]);
    }
}
