//! One turn of the loop: the kernel tells what happened, then the tasks that this woke run, then the main future.
//!
//! Time is read once, when a turn begins.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// Shared by all futures of one worker.
#[derive(Debug)]
pub(crate) struct Turn {
    origin: Instant,
    now: Cell<u64>,
    /// Counts the turns that began.
    number: Cell<u64>,
    /// How long the tasks of this turn took; set when they have run.
    busy: Cell<Duration>,
    /// Tasks that go on in the next turn. Seldom more than a few, so its memory is never grown in practice.
    waiting: RefCell<Vec<Waker>>,
    ending: Cell<bool>,
}

impl Turn {
    /// A turn whose clock counts from `origin`. Workers of one process share the origin, so their times compare.
    pub(crate) fn new(origin: Instant) -> Turn {
        Turn {
            origin,
            now: Cell::new(nanos(origin.elapsed())),
            number: Cell::new(0),
            busy: Cell::default(),
            waiting: RefCell::new(Vec::with_capacity(64)),
            ending: Cell::new(false),
        }
    }

    /// Nanoseconds since the origin, as of the beginning of this turn.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Nanoseconds since the origin, read now.
    pub(crate) fn clock(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    /// A turn begins: reads the clock and wakes who waited for it.
    pub(crate) fn begin(&self) {
        self.now.set(self.clock());
        self.number.set(self.number.get() + 1);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// The tasks of this turn have run.
    pub(crate) fn tasks_ran(&self) {
        let busy = self.clock().saturating_sub(self.now.get());
        self.busy.set(Duration::from_nanos(busy));
    }

    /// Whether somebody waits for the next turn, so that it must not wait for the kernel.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// For the main future, which runs once at the end of each turn: waits for the end of the next one and gives how long
    /// its tasks took.
    pub(crate) async fn ended(&self) -> Duration {
        let number = self.number.get();
        // No waker is needed: the loop polls the main future in each turn.
        poll_fn(|_| match self.number.get() == number {
            true => Poll::Pending,
            false => Poll::Ready(self.busy.get()),
        })
        .await
    }

    /// Wakes a task when the next turn begins, so that every other task and the kernel come first.
    pub(crate) fn wake_next(&self, waker: &Waker) {
        self.waiting.borrow_mut().push(waker.clone());
    }

    /// Waits for the next turn.
    pub(crate) async fn next(&self) {
        let number = self.number.get();
        poll_fn(|cx| {
            if self.number.get() != number {
                return Poll::Ready(());
            }
            self.wake_next(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// From here on operations in flight may be dropped: the worker is going away with everything it holds.
    pub(crate) fn set_ending(&self) {
        self.ending.set(true);
    }

    /// Whether [`Turn::set_ending`] was called.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
