//! One turn of the loop: its clock and its end.
//!
//! The first completion of a turn reads the clock and wakes the worker's main future, which runs after the tasks
//! that are ready. So time is read once per turn and the end of a turn is seen without a hook in the executor.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// Shared by all futures of one worker.
#[derive(Debug)]
pub struct Turn {
    origin: Instant,
    now: Cell<u64>,
    open: Cell<bool>,
    main: RefCell<Option<Waker>>,
    /// Counts the turns that ended.
    number: Cell<u64>,
    /// Tasks that go on in the next turn. Seldom more than a few, so its memory is never grown in practice.
    waiting: RefCell<Vec<Waker>>,
    ending: Cell<bool>,
}

impl Turn {
    /// A turn whose clock counts from `origin`. Workers of one process share the origin, so their times compare.
    pub fn new(origin: Instant) -> Turn {
        let now = nanos(origin.elapsed());
        Turn {
            origin,
            now: Cell::new(now),
            open: Cell::new(false),
            main: RefCell::default(),
            number: Cell::new(0),
            waiting: RefCell::new(Vec::with_capacity(64)),
            ending: Cell::new(false),
        }
    }

    /// Nanoseconds since the origin, as of the first completion of this turn.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// Called with every completion; the first of a turn reads the clock.
    pub fn touch(&self) {
        if !self.open.get() {
            self.open.set(true);
            self.now.set(nanos(self.origin.elapsed()));
            if let Some(main) = self.main.borrow().as_ref() {
                main.wake_by_ref();
            }
        }
    }

    /// Waits for the end of a turn; gives how long its tasks took.
    pub async fn ended(&self) -> Duration {
        poll_fn(|cx| {
            if self.open.replace(false) {
                self.number.set(self.number.get() + 1);
                self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
                return Poll::Ready(Duration::from_nanos(
                    nanos(self.origin.elapsed()).saturating_sub(self.now.get()),
                ));
            }
            let mut main = self.main.borrow_mut();
            if !main.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *main = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for the end of this turn, so that every other task and the kernel come first. A task that woke itself would
    /// not do: monoio runs it again at once, before the others. Does not wait where nobody ends turns.
    pub async fn next(&self) {
        if self.main.borrow().is_none() || !self.open.get() {
            return;
        }
        let number = self.number.get();
        let mut is_waiting = false;
        poll_fn(|cx| {
            if self.number.get() != number {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut is_waiting, true) {
                self.waiting.borrow_mut().push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// From here on operations in flight may be dropped: the worker is going away with everything it holds.
    pub fn set_ending(&self) {
        self.ending.set(true);
    }

    /// Whether [`Turn::set_ending`] was called.
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
