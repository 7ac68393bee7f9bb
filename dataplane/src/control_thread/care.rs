//! Looking after the workers: whether they end their turns, who accepts for one that does not, and how much memory they may
//! use.

use std::time::{Duration, Instant};

use policy::limits;

use super::ControlThread;
use crate::{
    colleagues::HandedOver,
    memory::{self, Beside, Budget},
    watchdog::{Finding, Watchdog},
    worker::Order,
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// The same while a worker is stuck: connections that others shall have wait for it.
const LOOK_FOR_CONNECTIONS: Duration = Duration::from_millis(20);

/// The same while so many connections come that accepting may pause until memory was looked at.
const LOOK_AT_CROWD: Duration = Duration::from_millis(25);

/// How long after a change of configuration memory is given back: then the workers have let go of the last snapshot and the
/// new one is on disk. So it is done once a second at most, however fast changes come.
const GIVE_BACK_DELAY: Duration = Duration::from_secs(1);

/// What is known of the workers' well-being.
#[derive(Debug)]
pub(super) struct Care {
    pub(super) due: Instant,
    pub(super) watchdog: Watchdog,
    /// What memory there is, and what is used of it beside buffers.
    pub(super) budget: Option<(Budget, Beside)>,
    /// As much was used at the last look as may be.
    is_short: bool,
    /// With so many connections those that may be added are used up, or soon.
    is_crowded_at: u64,
    /// When memory is given back next.
    give_back_at: Option<Instant>,
}

impl Care {
    pub(super) fn new(workers: usize, budget: Option<(Budget, Beside)>, now: Instant) -> Care {
        if let Some((budget, _)) = &budget {
            tracing::info!(limit_bytes = budget.limit_bytes, "memory is limited");
        }
        Care {
            due: now,
            watchdog: Watchdog::new(workers, now),
            budget,
            is_short: false,
            is_crowded_at: u64::MAX,
            give_back_at: None,
        }
    }

    /// Configuration was taken in: what that needed for a moment is free soon.
    pub(super) fn give_back_after(&mut self, change: Instant) {
        self.give_back_at.get_or_insert(change + GIVE_BACK_DELAY);
    }
}

impl ControlThread {
    pub(super) fn look_after_workers(&mut self, now: Instant) {
        let ControlThread { care, workers, .. } = self;
        care.due = now + LOOK;
        if care.give_back_at.is_some_and(|at| at <= now) {
            care.give_back_at = None;
            runtime::memory::give_back();
            tracing::debug!(took = ?now.elapsed(), "memory given back");
        }
        let turns = workers.stats().iter().map(|stats| stats.counters.turns.get());
        for finding in care.watchdog.look(now, turns) {
            match finding {
                Finding::Ask { worker } => workers.send_to(worker, Order::EndTurn),
                Finding::Stuck { worker, waited } => {
                    tracing::error!(worker, ?waited, "a worker is stuck: it does not end its turn");
                }
                Finding::Well { worker, waited } => {
                    tracing::warn!(worker, ?waited, "a worker that was stuck goes on");
                }
            }
        }
        if care.watchdog.stuck().next().is_some() {
            care.due = now + LOOK_FOR_CONNECTIONS;
            self.accept_for_the_stuck();
        }
        self.look_after_memory();
        self.look_at_plaintext(now);
    }

    /// The kernel goes on to queue connections for a worker that is stuck: they are accepted here, and served by another. Of
    /// those that it has, nobody can say what became of them.
    fn accept_for_the_stuck(&self) {
        let ControlThread { care, workers, sockets, admission, snapshot, .. } = self;
        let stuck: Vec<usize> = care.watchdog.stuck().collect();
        let mut left = limits::ACCEPTS_FOR_THE_STUCK_MAX;
        for (name, listening_on, socket) in stuck.iter().flat_map(|worker| sockets.of_worker(*worker)) {
            while left > 0
                && admission.has_room()
                && let Some(colleague) = workers.with_fewest_connections(snapshot.version, &stuck)
                && let Ok((stream, downstream)) = socket.accept()
            {
                left -= 1;
                // As many as may be are open: who comes is closed, and no other is taken for it.
                let Some(pass) = admission.enter() else { return };
                // Workers wait until a receive is worth a try, and try without blocking.
                if stream.set_nonblocking(true).is_ok() {
                    let (listener, stream) = (name.clone(), stream.into());
                    let connection = HandedOver { listener, listening_on, stream, downstream, pass };
                    colleague.give(connection, workers.now());
                }
            }
        }
    }

    fn look_after_memory(&mut self) {
        let ControlThread { care, workers, admission, .. } = self;
        let Some((budget, beside)) = &mut care.budget else { return };
        let (used, limit) = (budget.used_bytes(), budget.limit_bytes);
        let is_short = used >= limit;
        match (care.is_short, is_short) {
            (false, true) => tracing::warn!(used, limit, "memory is short"),
            (true, false) => tracing::info!(used, limit, "memory is enough again"),
            _ => {}
        }
        care.is_short = is_short;
        let more = budget.more_connections(used);
        let open = admission.allow(more);
        if open >= std::mem::replace(&mut care.is_crowded_at, open + more / 2) {
            care.due = care.due.min(Instant::now() + LOOK_AT_CROWD);
        }
        let counters = workers.stats().iter().map(|stats| &stats.counters);
        let buffers = counters.map(|of| of.buffers_out.get() + of.buffers_kept.get());
        let all = beside.buffers(budget, used, buffers.clone().sum());
        for (stats, allowed) in workers.stats().iter().zip(memory::allowances(all, buffers)) {
            stats.buffers_allowed.set(allowed);
        }
    }
}
