//! Handshakes one step after the other, so that what is established keeps its latency.
//!
//! A step of a handshake costs as much as some hundred requests. Each turn of the loop lets one of those that wait through;
//! everything else that is ready runs between two of them.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    task::{Poll, Waker},
};

use policy::limits;

/// Where the handshakes of a worker wait for their next step.
#[derive(Debug)]
pub struct Turnstile {
    /// A step may be taken in this turn.
    is_open: Cell<bool>,
    /// Who waits, in order; the first has been woken when it is open.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    next: Cell<u64>,
    /// Handshakes that have begun and not ended.
    count: Cell<usize>,
}

impl Default for Turnstile {
    fn default() -> Turnstile {
        Turnstile {
            is_open: Cell::new(true),
            waiting: RefCell::default(),
            next: Cell::new(0),
            count: Cell::new(0),
        }
    }
}

/// A handshake that is counted until this goes.
pub struct Entered<'a>(&'a Turnstile);

impl Turnstile {
    /// Counts one more handshake; `None` when there are as many as may be.
    pub fn enter(&self) -> Option<Entered<'_>> {
        let count = self.count.get();
        (count < limits::TLS_HANDSHAKES_PER_WORKER_MAX).then(|| {
            self.count.set(count + 1);
            Entered(self)
        })
    }

    /// A turn of the loop is over: the next may pass.
    pub fn open(&self) {
        self.is_open.set(true);
        if let Some((_, first)) = self.waiting.borrow().front() {
            first.wake_by_ref();
        }
    }

    /// Waits until a step may be taken, in the order of those who came.
    pub async fn pass(&self) {
        let ticket = self.next.replace(self.next.get() + 1);
        let mut place = Place { turnstile: self, ticket, is_queued: false };
        poll_fn(|cx| {
            let mut waiting = self.waiting.borrow_mut();
            let is_first = waiting.front().is_none_or(|(first, _)| *first == ticket);
            if is_first && self.is_open.replace(false) {
                return Poll::Ready(());
            }
            match waiting.iter_mut().find(|(known, _)| *known == ticket) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => waiting.push_back((ticket, cx.waker().clone())),
            }
            place.is_queued = true;
            Poll::Pending
        })
        .await;
    }
}

/// A place among those who wait, which is given up when it goes.
struct Place<'a> {
    turnstile: &'a Turnstile,
    ticket: u64,
    is_queued: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_queued {
            return;
        }
        let mut waiting = self.turnstile.waiting.borrow_mut();
        waiting.retain(|(known, _)| *known != self.ticket);
        // It may have been woken for the step that it does not take.
        if let Some((_, first)) = waiting.front().filter(|_| self.turnstile.is_open.get()) {
            first.wake_by_ref();
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::Context,
    };

    use super::*;

    fn has_passed(waiter: &mut Pin<&mut impl Future<Output = ()>>) -> bool {
        waiter.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn one_passes_in_a_turn_and_in_order() {
        let turnstile = Turnstile::default();
        let (mut first, mut second, mut third) =
            (pin!(turnstile.pass()), pin!(turnstile.pass()), pin!(turnstile.pass()));
        assert!(has_passed(&mut first), "nobody waits");
        assert!(!has_passed(&mut second) && !has_passed(&mut third));
        turnstile.open();
        assert!(!has_passed(&mut third), "the second came before");
        assert!(has_passed(&mut second) && !has_passed(&mut third));
        turnstile.open();
        assert!(has_passed(&mut third));
        assert!(turnstile.waiting.borrow().is_empty());
    }

    #[test]
    fn who_gives_up_holds_nobody_back() {
        let turnstile = Turnstile::default();
        let mut first = pin!(turnstile.pass());
        assert!(has_passed(&mut first));
        let mut last = pin!(turnstile.pass());
        {
            let mut gives_up = pin!(turnstile.pass());
            assert!(!has_passed(&mut gives_up));
        }
        turnstile.open();
        assert!(has_passed(&mut last));
    }

    #[test]
    fn there_are_only_so_many_at_a_time() {
        let turnstile = Turnstile::default();
        let mut entered: Vec<_> = std::iter::from_fn(|| turnstile.enter()).collect();
        assert_eq!(entered.len(), limits::TLS_HANDSHAKES_PER_WORKER_MAX);
        entered.pop();
        assert!(turnstile.enter().is_some());
    }
}
