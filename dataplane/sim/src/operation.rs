//! What an operation goes through from its begin to its end: completions that are not seen, a cancel that comes late; and
//! that it is not dropped on the way.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use runtime::{
    Deadline,
    timer::{Alarm, Rung},
};

use crate::world::{Host, World};

/// Waits until completions of a machine are seen again.
pub(crate) struct Overflow {
    world: Rc<World>,
    host: Rc<Host>,
    alarm: Option<Alarm>,
}

impl Overflow {
    pub(crate) fn of(world: &Rc<World>, host: &Rc<Host>) -> Overflow {
        Overflow { world: world.clone(), host: host.clone(), alarm: None }
    }

    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Overflow { world, host, .. } = self;
        let until = host.overflown_until.get();
        while world.now() < until {
            let alarm = self.alarm.get_or_insert_with(|| world.timers.alarm());
            alarm.set(Deadline(until));
            if alarm.poll_rung(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

/// A receive that is given up, and still in flight for a while: what comes in that time is received.
pub(crate) struct GivingUp<'a> {
    world: &'a World,
    rung: Option<Rung>,
    over: Alarm,
}

impl<'a> GivingUp<'a> {
    pub(crate) fn new(world: &'a World) -> GivingUp<'a> {
        GivingUp { world, rung: None, over: world.timers.alarm() }
    }

    /// Why it was given up, when it is over.
    pub(crate) fn poll(&mut self, now: u64, alarm: &Alarm, cx: &mut Context<'_>) -> Poll<Rung> {
        let rung = match self.rung {
            Some(rung) => rung,
            None => {
                let Poll::Ready(rung) = alarm.poll_rung(cx) else { return Poll::Pending };
                let wait = self.world.cancelling();
                if wait == Duration::ZERO {
                    return Poll::Ready(rung);
                }
                self.over.set(Deadline::after(now, wait));
                *self.rung.insert(rung)
            }
        };
        self.over.poll_rung(cx).map(|_| rung)
    }
}

pub(crate) fn error_of(rung: Rung) -> io::Error {
    match rung {
        Rung::TimedOut => io::ErrorKind::TimedOut.into(),
        Rung::Cancelled => io::ErrorKind::Interrupted.into(),
    }
}

/// Trips when an operation that owns a buffer is dropped before it completed.
pub(crate) struct InFlight<'a> {
    world: &'a World,
    done: bool,
}

impl<'a> InFlight<'a> {
    pub(crate) fn begin(world: &'a World) -> Self {
        InFlight { world, done: false }
    }

    pub(crate) fn completed(mut self) {
        self.done = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        debug_assert!(
            self.done || self.world.ending.get() || std::thread::panicking(),
            "an operation in flight was dropped"
        );
    }
}
