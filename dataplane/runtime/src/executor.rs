//! The tasks of one thread and the order in which they run.
//!
//! A waker is a number, not a pointer: which task, and which of those that had its place before it. So a clone costs
//! nothing, a waker outlives its task without harm, and one that is used on another thread, which nothing here does,
//! would at worst make a task there look once in vain.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    ptr,
    task::{Context, RawWaker, RawWakerVTable, Waker},
};

type Task = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
struct Tasks {
    places: Vec<Place>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
}

#[derive(Default)]
struct Place {
    /// Absent while it runs, and when the place is free.
    task: Option<Task>,
    /// Counts the tasks that had this place.
    generation: u32,
    is_ready: bool,
}

thread_local! {
    static TASKS: RefCell<Tasks> = RefCell::default();
    static MAIN_IS_READY: Cell<bool> = const { Cell::new(false) };
}

/// The main future has no place among the tasks; this is its number.
const MAIN: u32 = u32::MAX;

/// Adds a task to this thread; it runs first in this turn, or in the next when none is on.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    let task: Task = Box::pin(task);
    TASKS.with_borrow_mut(|tasks| {
        let index = tasks.free.pop().unwrap_or_else(|| {
            tasks.places.push(Place::default());
            u32::try_from(tasks.places.len() - 1).unwrap_or(MAIN)
        });
        assert_ne!(index, MAIN, "four thousand million tasks");
        let place = &mut tasks.places[index as usize];
        place.task = Some(task);
        place.is_ready = true;
        tasks.ready.push_back(index);
    });
}

/// Runs the tasks that are ready, and those that they make ready, until none is.
pub(crate) fn run_ready() {
    while let Some((index, generation, mut task)) = TASKS.with_borrow_mut(Tasks::next) {
        let waker = waker(index, generation);
        let is_done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let done = TASKS.with_borrow_mut(|tasks| tasks.put_back(index, task, is_done));
        // Outside of the borrow: what a task owns may wake others.
        drop(done);
    }
}

/// Whether a task, or the main future, is ready.
pub(crate) fn has_ready() -> bool {
    MAIN_IS_READY.get() || TASKS.with_borrow(|tasks| !tasks.ready.is_empty())
}

/// The waker of the main future; [`has_ready`] is true once it was used, until this is called again.
pub(crate) fn main_waker() -> Waker {
    MAIN_IS_READY.set(false);
    waker(MAIN, 0)
}

/// Drops every task of this thread, and those that are spawned meanwhile.
pub(crate) fn clear() {
    loop {
        let tasks: Vec<Task> = TASKS.with_borrow_mut(|tasks| {
            tasks.ready.clear();
            tasks.free.clear();
            // The places stay, with their generations: a waker of before must not mean a task of after.
            (0..tasks.places.len()).rev().filter_map(|index| tasks.vacate(index)).collect()
        });
        if tasks.is_empty() {
            return;
        }
        drop(tasks);
    }
}

impl Tasks {
    fn next(&mut self) -> Option<(u32, u32, Task)> {
        loop {
            let index = self.ready.pop_front()?;
            let place = &mut self.places[index as usize];
            place.is_ready = false;
            if let Some(task) = place.task.take() {
                return Some((index, place.generation, task));
            }
        }
    }

    /// Puts a task back that ran; gives it when it is done, to be dropped.
    fn put_back(&mut self, index: u32, task: Task, is_done: bool) -> Option<Task> {
        self.places[index as usize].task = Some(task);
        if is_done { self.vacate(index as usize) } else { None }
    }

    fn vacate(&mut self, index: usize) -> Option<Task> {
        let place = &mut self.places[index];
        let task = place.task.take();
        place.generation = place.generation.wrapping_add(1);
        place.is_ready = false;
        self.free.push(index as u32);
        task
    }

    fn wake(&mut self, index: u32, generation: u32) {
        let Some(place) = self.places.get_mut(index as usize) else { return };
        if place.generation == generation && !place.is_ready {
            place.is_ready = true;
            self.ready.push_back(index);
        }
    }
}

fn waker(index: u32, generation: u32) -> Waker {
    // SAFETY: the functions of the table keep `RawWaker`'s contract whatever the data: it is a number that is never used
    // as an address, a clone is a copy and there is nothing to drop.
    unsafe { Waker::from_raw(raw(ptr::without_provenance(pack(index, generation)))) }
}

fn raw(data: *const ()) -> RawWaker {
    const TABLE: RawWakerVTable = RawWakerVTable::new(raw, wake, wake, |_| {});
    RawWaker::new(data, &TABLE)
}

fn wake(data: *const ()) {
    let (index, generation) = unpack(data.addr());
    if index == MAIN {
        MAIN_IS_READY.set(true);
        return;
    }
    // Not there any more while the thread ends.
    let _ = TASKS.try_with(|tasks| tasks.borrow_mut().wake(index, generation));
}

const _: () = assert!(usize::BITS == 64, "a waker holds two numbers of 32 bits");

fn pack(index: u32, generation: u32) -> usize {
    (generation as usize) << 32 | index as usize
}

fn unpack(data: usize) -> (u32, u32) {
    (data as u32, (data >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, rc::Rc, task::Poll};

    use super::*;

    /// Waits until it is woken once; tells by whom that can be done, and when it is over.
    fn waiter(waker: &Rc<RefCell<Option<Waker>>>, runs: &Rc<Cell<u32>>) -> impl Future<Output = ()> + use<> {
        let (place, runs) = (waker.clone(), runs.clone());
        poll_fn(move |cx| {
            runs.set(runs.get() + 1);
            match place.replace(Some(cx.waker().clone())) {
                None => Poll::Pending,
                Some(_) => Poll::Ready(()),
            }
        })
    }

    #[test]
    fn a_task_runs_when_it_is_woken_once_however_often() {
        let (waker, runs) = (Rc::default(), Rc::default());
        spawn(waiter(&waker, &runs));
        assert!(has_ready());
        run_ready();
        assert_eq!((runs.get(), has_ready()), (1, false));
        let woken = waker.borrow().clone().unwrap();
        woken.wake_by_ref();
        woken.wake_by_ref();
        run_ready();
        assert_eq!((runs.get(), has_ready()), (2, false));
    }

    #[test]
    fn a_waker_of_a_task_that_is_over_wakes_nobody() {
        let (first, runs) = (Rc::default(), Rc::default());
        spawn(waiter(&first, &runs));
        run_ready();
        let stale = first.borrow().clone().unwrap();
        stale.wake_by_ref();
        run_ready();
        let (second, runs) = (Rc::default(), Rc::default());
        spawn(waiter(&second, &runs));
        run_ready();
        stale.wake();
        run_ready();
        assert_eq!(runs.get(), 1, "the second task has the first one's place and not its waker");
        clear();
        second.borrow().clone().unwrap().wake();
        run_ready();
        assert_eq!(runs.get(), 1, "nor does it run when all were dropped");
    }

    #[test]
    fn a_task_may_spawn_and_wake_others_while_it_runs_and_while_it_is_dropped() {
        struct Spawns(Rc<Cell<u32>>);
        impl Drop for Spawns {
            fn drop(&mut self) {
                let count = self.0.clone();
                spawn(async move { count.set(count.get() + 1) });
            }
        }
        let count = Rc::<Cell<u32>>::default();
        let inner = Spawns(count.clone());
        spawn(async move { drop(inner) });
        run_ready();
        assert_eq!(count.get(), 1);
        let kept = Spawns(count.clone());
        spawn(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        run_ready();
        clear();
        assert!(!has_ready(), "what was spawned while all were dropped is dropped, too");
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn a_waker_that_is_used_on_another_thread_does_no_harm() {
        let (waker, runs) = (Rc::default(), Rc::default());
        spawn(waiter(&waker, &runs));
        run_ready();
        let moved = waker.borrow().clone().unwrap();
        std::thread::spawn(move || {
            moved.wake();
            run_ready();
        })
        .join()
        .unwrap();
        run_ready();
        assert_eq!(runs.get(), 1);
        clear();
    }
}
