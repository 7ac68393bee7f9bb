//! Deadlines without a timer per operation: a coarse wheel of alarms that are moved lazily.
//!
//! Setting an alarm is a store. Its entry in the wheel stays where it is unless the new deadline is earlier; when
//! the wheel reaches the entry it looks at the deadline again and either rings or puts the entry further on. So a
//! keep-alive connection costs the wheel one visit per [`HORIZON`], however many requests it carries. No clock is
//! read here: whoever owns the loop calls [`Timers::advance`].

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::io::Deadline;

/// Width of one slot: an alarm rings at most this much late. A power of two of nanoseconds, about 4.2 ms.
pub const TICK: Duration = Duration::from_nanos(1 << TICK_SHIFT);
const TICK_SHIFT: u32 = 22;

/// Number of slots. With [`TICK`] they span about 8.6 s; later deadlines are looked at once in that time. Bounds
/// what a closed connection leaves behind.
const SLOTS: u64 = 2048;

/// The span of the wheel.
pub const HORIZON: Duration = Duration::from_nanos(SLOTS << TICK_SHIFT);

/// Storage of slots that a new wheel begins with, so that the alarms of a few connections never allocate (about 2 KiB).
const SPARE_SLOTS: usize = 64;
const SPARE_ENTRIES: usize = 4;

const NOT_QUEUED: u64 = u64::MAX;

/// The alarms of one worker. Clones share the wheel.
#[derive(Clone)]
pub struct Timers(Rc<Wheel>);

struct Wheel {
    slots: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// One bit per slot: whether it may hold an entry.
    occupied: RefCell<[u64; (SLOTS / 64) as usize]>,
    /// The last slot number that was visited.
    cursor: Cell<u64>,
    /// Storage of emptied slots, for those that are filled next: a slot has storage only while it holds an entry, so
    /// there is as much of it as slots were ever filled at once, and moving alarms on allocates nothing.
    spare: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// The slot number up to which the loop's owner sleeps, and how to wake it when an earlier alarm is set.
    sleeping_until: Cell<u64>,
    sleeper: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Entry {
    deadline: Cell<u64>,
    queued_at: Cell<u64>,
    state: Cell<Ring>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Ring {
    #[default]
    Quiet,
    Rung,
    Cancelled,
}

/// Why an [`Alarm`] woke its task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// The deadline passed.
    TimedOut,
    /// [`Alarm::cancel`] was called.
    Cancelled,
}

/// One deadline, set and read as often as wanted. Clones share it; the wheel keeps it only while it is set.
#[derive(Clone)]
pub struct Alarm {
    entry: Rc<Entry>,
    timers: Timers,
}

impl Timers {
    /// A wheel that starts at `now` (nanoseconds).
    pub fn new(now: u64) -> Timers {
        Timers(Rc::new(Wheel {
            slots: RefCell::new((0..SLOTS).map(|_| Vec::new()).collect()),
            occupied: RefCell::new([0; (SLOTS / 64) as usize]),
            cursor: Cell::new(now >> TICK_SHIFT),
            spare: RefCell::new((0..SPARE_SLOTS).map(|_| Vec::with_capacity(SPARE_ENTRIES)).collect()),
            sleeping_until: Cell::new(0),
            sleeper: RefCell::default(),
        }))
    }

    /// A new alarm, not set.
    pub fn alarm(&self) -> Alarm {
        let entry = Entry {
            deadline: Cell::new(Deadline::NEVER.0),
            queued_at: Cell::new(NOT_QUEUED),
            ..Entry::default()
        };
        Alarm { entry: Rc::new(entry), timers: self.clone() }
    }

    /// Rings every alarm whose deadline is at or before `now`.
    pub fn advance(&self, now: u64) {
        let wheel = &*self.0;
        let target = now >> TICK_SHIFT;
        // After a long stop one round visits every slot; more rounds would find the same entries.
        let first = (wheel.cursor.get() + 1).max(target.saturating_sub(SLOTS - 1));
        for number in first..=target {
            wheel.cursor.set(number);
            if let Some(mut due) = wheel.take_slot(number) {
                for entry in due.drain(..) {
                    self.visit(entry, number, now);
                }
                wheel.spare.borrow_mut().push(due);
            }
        }
        wheel.cursor.set(wheel.cursor.get().max(target));
    }

    fn visit(&self, entry: Rc<Entry>, number: u64, now: u64) {
        let queued_at = entry.queued_at.get();
        if queued_at > number {
            return; // set to an earlier time since and moved, or already rung
        }
        entry.queued_at.set(NOT_QUEUED);
        let deadline = entry.deadline.get();
        if deadline == Deadline::NEVER.0 {
            return;
        }
        if deadline > now {
            self.enqueue(entry, deadline);
            return;
        }
        if entry.state.get() == Ring::Quiet {
            entry.state.set(Ring::Rung);
        }
        entry.wake();
    }

    fn enqueue(&self, entry: Rc<Entry>, deadline: u64) {
        let wheel = &*self.0;
        let wanted = (deadline >> TICK_SHIFT).saturating_add(1);
        let number = wanted.clamp(wheel.cursor.get() + 1, wheel.cursor.get() + SLOTS - 1);
        entry.queued_at.set(number);
        let slot = (number % SLOTS) as usize;
        let entries = &mut wheel.slots.borrow_mut()[slot];
        if entries.capacity() == 0 {
            *entries = wheel.spare.borrow_mut().pop().unwrap_or_default();
        }
        entries.push(entry);
        wheel.occupied.borrow_mut()[slot / 64] |= 1 << (slot % 64);
        if number < wheel.sleeping_until.get() {
            // Once per sleep: the sleeper looks at the whole wheel again.
            wheel.sleeping_until.set(0);
            if let Some(waker) = wheel.sleeper.borrow().as_ref() {
                waker.wake_by_ref();
            }
        }
    }

    /// When [`Timers::advance`] has something to look at next; `NEVER` when no alarm is set.
    pub fn next_visit(&self) -> Deadline {
        let wheel = &*self.0;
        let occupied = wheel.occupied.borrow();
        let cursor = wheel.cursor.get();
        let mut number = cursor + 1;
        while number < cursor + SLOTS {
            let slot = (number % SLOTS) as usize;
            let rest = occupied[slot / 64] >> (slot % 64);
            if rest != 0 {
                return Deadline((number + u64::from(rest.trailing_zeros())) << TICK_SHIFT);
            }
            number += 64 - (slot % 64) as u64;
        }
        Deadline::NEVER
    }

    /// Says until when the caller will not call [`Timers::advance`]; `waker` is woken when an earlier alarm is set.
    pub fn sleep_until(&self, at: Deadline, waker: &Waker) {
        self.0.sleeping_until.set(at.0 >> TICK_SHIFT);
        let mut sleeper = self.0.sleeper.borrow_mut();
        if !sleeper.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *sleeper = Some(waker.clone());
        }
    }
}

impl Wheel {
    /// A slot's entries, with its storage; `None` when it holds none.
    fn take_slot(&self, number: u64) -> Option<Vec<Rc<Entry>>> {
        let slot = (number % SLOTS) as usize;
        let mut occupied = self.occupied.borrow_mut();
        let bit = 1 << (slot % 64);
        if occupied[slot / 64] & bit == 0 {
            return None;
        }
        occupied[slot / 64] &= !bit;
        Some(std::mem::take(&mut self.slots.borrow_mut()[slot]))
    }
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Alarm {
    /// Sets the deadline anew and forgets an earlier ring. `NEVER` switches it off.
    pub fn set(&self, at: Deadline) {
        let entry = &self.entry;
        entry.deadline.set(at.0);
        entry.state.set(Ring::Quiet);
        if at != Deadline::NEVER && (at.0 >> TICK_SHIFT).saturating_add(1) < entry.queued_at.get() {
            self.timers.enqueue(entry.clone(), at.0);
        }
    }

    /// Rings at once, whatever the deadline. Lasts until the alarm is set again.
    pub fn cancel(&self) {
        self.entry.state.set(Ring::Cancelled);
        self.entry.wake();
    }

    /// Why it rang, if it did; otherwise the task of `cx` is woken when it does.
    pub fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<Rung> {
        match self.entry.state.get() {
            Ring::Rung => return Poll::Ready(Rung::TimedOut),
            Ring::Cancelled => return Poll::Ready(Rung::Cancelled),
            Ring::Quiet => {}
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until it rings.
    pub async fn rung(&self) -> Rung {
        poll_fn(|cx| self.poll_rung(cx)).await
    }
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Timers(next visit {:?})", self.next_visit())
    }
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Alarm({:?}, {:?})", self.entry.deadline.get(), self.entry.state.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rang(alarm: &Alarm) -> Option<Rung> {
        match alarm.poll_rung(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(rung) => Some(rung),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_alarm_rings_after_its_deadline_and_at_most_one_tick_late() {
        for wait in [1, SECOND / 1000, SECOND, 8 * SECOND, 9 * SECOND, 3600 * SECOND] {
            let start = 5 * SECOND + 12345;
            let timers = Timers::new(start);
            let alarm = timers.alarm();
            alarm.set(Deadline(start + wait));
            let mut now = start;
            // As a loop does: sleep until the next visit, then advance.
            while rang(&alarm).is_none() {
                let next = timers.next_visit().0;
                assert!(next > now, "the wheel must not spin");
                now = next;
                timers.advance(now);
            }
            assert!(
                now >= start + wait && now <= start + wait + TICK.as_nanos() as u64,
                "{wait}: {}",
                now - start
            );
        }
    }

    #[test]
    fn setting_an_alarm_again_moves_its_deadline_both_ways() {
        let timers = Timers::new(0);
        let alarm = timers.alarm();
        alarm.set(Deadline(2 * SECOND));
        alarm.set(Deadline(4 * SECOND));
        timers.advance(3 * SECOND);
        assert_eq!(rang(&alarm), None, "later wins");
        alarm.set(Deadline(3 * SECOND + SECOND / 2));
        timers.advance(3 * SECOND + 3 * SECOND / 4);
        assert_eq!(rang(&alarm), Some(Rung::TimedOut), "earlier wins");
        alarm.set(Deadline::NEVER);
        timers.advance(100 * SECOND);
        assert_eq!(rang(&alarm), None, "never rings when switched off");
    }

    #[test]
    fn a_dropped_alarm_leaves_the_wheel_within_one_round() {
        let timers = Timers::new(0);
        let alarm = timers.alarm();
        alarm.set(Deadline(3600 * SECOND));
        alarm.set(Deadline::NEVER);
        let weak = Rc::downgrade(&alarm.entry);
        drop(alarm);
        timers.advance(HORIZON.as_nanos() as u64);
        assert_eq!(weak.strong_count(), 0);
        assert_eq!(timers.next_visit(), Deadline::NEVER);
    }

    #[test]
    fn a_long_stop_rings_everything_once() {
        let timers = Timers::new(0);
        let alarms: Vec<_> = (1..200)
            .map(|n| {
                let alarm = timers.alarm();
                alarm.set(Deadline(n * SECOND / 10));
                alarm
            })
            .collect();
        timers.advance(1_000 * SECOND);
        assert!(alarms.iter().all(|alarm| rang(alarm) == Some(Rung::TimedOut)));
    }

    #[test]
    fn cancelling_rings_at_once_and_setting_forgets_it() {
        let timers = Timers::new(0);
        let alarm = timers.alarm();
        alarm.set(Deadline(SECOND));
        alarm.clone().cancel();
        assert_eq!(rang(&alarm), Some(Rung::Cancelled));
        alarm.set(Deadline(SECOND));
        assert_eq!(rang(&alarm), None);
    }
}
