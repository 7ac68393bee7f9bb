//! The other workers, as one of them sees them.
//!
//! Who accepts a connection reads counters that each worker writes for itself, once per accepted connection. What it gives
//! away, asks for or lends goes through the other's mailbox.

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use policy::hand_off::{self, Load};
use runtime::{Io, mailbox::Sender};

use crate::{admission::Pass, telemetry::metrics::WorkerStats, worker::Order};

/// How long a measure of who is busy serves; the next one is over the time since.
const MEASURED_EVERY: Duration = Duration::from_millis(100);

/// How long a worker may leave untaken what it was given, in nanoseconds; then it is given no more until it takes that. It is
/// in a long turn, or stuck, and has looked idle since that began: its busy time counts when the turn is over.
const TAKEN_WITHIN_NS: u64 = 10_000_000;

/// All workers of the process.
pub struct Colleagues<I: Io> {
    /// This worker's position.
    own: usize,
    all: Arc<[Colleague<I>]>,
    busy: RefCell<Busy>,
}

/// How to reach one worker, and what it tells of itself.
pub struct Colleague<I: Io> {
    orders: Sender<Order<I>>,
    stats: Arc<WorkerStats>,
    /// Connections that were given to it and that it has not taken yet.
    on_their_way: AtomicU64,
    /// When the first of them was given.
    given_at: AtomicU64,
}

/// A connection that another thread accepted.
pub struct HandedOver<I: Io> {
    /// The listener that accepted it.
    pub listener: Arc<str>,
    /// That listener's address.
    pub listening_on: SocketAddr,
    /// The connection.
    pub stream: I::Stream,
    /// The other end's address.
    pub downstream: SocketAddr,
    /// Its place among the connections of the process.
    pub pass: Pass,
}

/// How busy each worker was lately.
#[derive(Default)]
struct Busy {
    measured_at: u64,
    /// Busy time up to then, nanoseconds.
    total: Vec<u64>,
    per_mille: Vec<u32>,
}

impl<I: Io> std::fmt::Debug for Colleague<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Colleague({} on their way)", self.on_their_way())
    }
}

impl<I: Io> Colleague<I> {
    /// A worker that takes orders by `orders` and counts in `stats`.
    pub fn new(orders: Sender<Order<I>>, stats: Arc<WorkerStats>) -> Colleague<I> {
        Colleague { orders, stats, on_their_way: AtomicU64::new(0), given_at: AtomicU64::new(0) }
    }

    /// Connections that it has, and those that were given to it and that it has not taken yet.
    pub fn connections(&self) -> u64 {
        self.stats.counters.connections.get().wrapping_add(self.on_their_way())
    }

    /// Connections that were given to it and that it has not taken yet.
    pub fn on_their_way(&self) -> u64 {
        self.on_their_way.load(Ordering::Relaxed)
    }

    /// Gives it a connection that another thread accepted.
    pub fn give(&self, connection: HandedOver<I>, now: u64) {
        if self.on_their_way.fetch_add(1, Ordering::Relaxed) == 0 {
            self.given_at.store(now, Ordering::Relaxed);
        }
        self.orders.send(Order::Serve(connection));
    }

    /// Whether it has left untaken for too long what it was given.
    pub fn is_held_up(&self, now: u64) -> bool {
        self.on_their_way() > 0 && now.saturating_sub(self.given_at.load(Ordering::Relaxed)) > TAKEN_WITHIN_NS
    }
}

impl<I: Io> Colleagues<I> {
    /// The view of worker `own`.
    pub fn new(own: usize, all: Arc<[Colleague<I>]>) -> Colleagues<I> {
        Colleagues { own, all, busy: RefCell::default() }
    }

    /// A worker that is alone.
    pub fn none() -> Colleagues<I> {
        Colleagues::new(0, Arc::new([]))
    }

    /// Whether this worker has any.
    pub fn are_any(&self) -> bool {
        self.all.len() > 1
    }

    /// Tells the worker at `position` something.
    pub fn tell(&self, position: usize, order: Order<I>) {
        if let Some(other) = self.all.get(position) {
            other.orders.send(order);
        }
    }

    /// The worker that a connection accepted `now` goes to; `None` when this one keeps it. Only workers that have
    /// the configuration with which it was accepted, and that take what they are given, are asked.
    pub fn receiver(&self, now: u64) -> Option<usize> {
        if !self.are_any() {
            return None;
        }
        let mut busy = self.busy.borrow_mut();
        busy.measure(&self.all, now);
        let version = |colleague: &Colleague<I>| colleague.stats.counters.snapshot_version.get();
        let own = self.all.get(self.own)?;
        let load = |position: usize, colleague: &Colleague<I>| Load {
            connections: colleague.connections(),
            busy_per_mille: busy.per_mille.get(position).copied().unwrap_or_default(),
        };
        let others = self.all.iter().enumerate().filter(|(position, colleague)| {
            *position != self.own && version(colleague) == version(own) && !colleague.is_held_up(now)
        });
        hand_off::receiver(
            others.map(|(position, other)| (position, load(position, other))),
            load(self.own, own),
        )
    }

    /// Gives a connection to the worker at `position`.
    pub fn give(&self, position: usize, connection: HandedOver<I>, now: u64) {
        if let (Some(own), Some(other)) = (self.all.get(self.own), self.all.get(position)) {
            own.stats.counters.handed_over.inc();
            other.give(connection, now);
        }
    }

    /// This worker has taken a connection that was given to it.
    pub fn took(&self, now: u64) {
        if let Some(own) = self.all.get(self.own) {
            own.stats.counters.taken_over.inc();
            // What else is on its way waits for it from now on.
            own.given_at.store(now, Ordering::Relaxed);
            own.on_their_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Busy {
    fn measure<I: Io>(&mut self, all: &[Colleague<I>], now: u64) {
        let passed = now.saturating_sub(self.measured_at);
        if u128::from(passed) < MEASURED_EVERY.as_nanos() {
            return;
        }
        self.measured_at = now;
        self.total.resize(all.len(), 0);
        self.per_mille.resize(all.len(), 0);
        for ((colleague, total), per_mille) in all.iter().zip(&mut self.total).zip(&mut self.per_mille) {
            let before = std::mem::replace(total, colleague.stats.busy_ns.get());
            let share = total.saturating_sub(before).saturating_mul(1000) / passed;
            *per_mille = u32::try_from(share).unwrap_or(1000).min(1000);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use runtime::{kernel::Kernel, mailbox::mailbox};

    use super::*;
    use crate::admission::Admission;

    const MS: u64 = 1_000_000;

    #[test]
    fn who_does_not_take_what_it_was_given_gets_no_more_until_it_does() {
        let (colleagues, _mailboxes): (Vec<Colleague<Kernel>>, Vec<_>) = (0..2)
            .map(|_| {
                let (orders, mailbox) = mailbox(None);
                (Colleague::new(orders, Arc::default()), mailbox)
            })
            .unzip();
        let all: Arc<[Colleague<Kernel>]> = colleagues.into();
        all[0].stats.counters.connections.set(9);
        let (own, other) = (Colleagues::new(0, all.clone()), Colleagues::new(1, all));
        let connection = || HandedOver {
            listener: "in".into(),
            listening_on: "127.0.0.1:80".parse().unwrap(),
            stream: File::open("/dev/null").unwrap().into(),
            downstream: "127.0.0.1:1".parse().unwrap(),
            pass: Admission::default().enter().unwrap(),
        };
        assert_eq!(own.receiver(0), Some(1));
        own.give(1, connection(), 1000 * MS);
        own.give(1, connection(), 1005 * MS);
        assert_eq!(own.receiver(1009 * MS), Some(1), "it may be about to take them");
        assert_eq!(own.receiver(1011 * MS), None);
        other.took(1012 * MS);
        assert_eq!(own.receiver(1012 * MS), Some(1), "it takes them");
        assert_eq!(own.receiver(1023 * MS), None, "and not the second");
        other.took(1024 * MS);
        assert_eq!(own.receiver(1024 * MS), Some(1));
        own.give(1, connection(), 5000 * MS);
        assert_eq!(own.receiver(5009 * MS), Some(1), "it counts from what it has not taken");
    }
}
