//! Tasks, their wakers and the order in which they run. It knows neither time nor network.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    panic::Location,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use runtime::Deadline;

use crate::connection::Side;

/// The task number of the story that `Sim::run` was given.
pub(crate) const MAIN: u64 = 0;

/// All tasks of a simulation.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Ready>,
    spawned_count: Cell<u64>,
    current: Cell<u64>,
}

struct Task {
    /// Taken while it is polled; never there for the main story, which `Sim::run` holds.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Waker,
    wake: Arc<TaskWake>,
    name: &'static str,
    spawned_at: &'static Location<'static>,
    /// What its last poll left waiting.
    waits: Vec<Wait>,
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) operation: &'static str,
    pub(crate) connection: Option<(u64, Side)>,
    pub(crate) until: Deadline,
}

#[derive(Default)]
struct Ready(Mutex<VecDeque<u64>>);

struct TaskWake {
    task: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
        }
    }
}

impl Executor {
    /// Adds a task, ready to run.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        future: F,
        at: &'static Location<'static>,
    ) -> u64 {
        let number = self.spawned_count.get() + 1;
        self.spawned_count.set(number);
        self.add(number, Some(Box::pin(future)), std::any::type_name::<F>(), at);
        number
    }

    /// Makes room for the main story and gives the waker to poll it with.
    pub(crate) fn begin_main(&self, at: &'static Location<'static>) -> Waker {
        assert!(!self.tasks.borrow().contains_key(&MAIN), "a story runs already");
        self.add(MAIN, None, "the story", at)
    }

    pub(crate) fn end_main(&self) {
        self.tasks.borrow_mut().remove(&MAIN);
    }

    fn add(
        &self,
        number: u64,
        future: Option<Pin<Box<dyn Future<Output = ()>>>>,
        name: &'static str,
        spawned_at: &'static Location<'static>,
    ) -> Waker {
        let wake =
            Arc::new(TaskWake { task: number, queued: AtomicBool::new(false), ready: self.ready.clone() });
        let waker = Waker::from(wake.clone());
        waker.wake_by_ref();
        let task = Task { future, waker: waker.clone(), wake, name, spawned_at, waits: Vec::new() };
        self.tasks.borrow_mut().insert(number, task);
        waker
    }

    /// The next task to run: the first of the queue, or the one that `choose` picks among so many.
    pub(crate) fn next(&self, choose: impl FnOnce(usize) -> usize) -> Option<u64> {
        let mut queue = self.ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_empty() {
            return None;
        }
        let index = choose(queue.len());
        let number = queue.remove(index)?;
        drop(queue);
        if let Some(task) = self.tasks.borrow_mut().get_mut(&number) {
            task.wake.queued.store(false, Ordering::Relaxed);
            task.waits.clear();
        }
        self.current.set(number);
        Some(number)
    }

    /// Polls a task; true when it ended. A task that is gone was woken late, which is no fault.
    pub(crate) fn poll(&self, number: u64) -> bool {
        let taken = self
            .tasks
            .borrow_mut()
            .get_mut(&number)
            .and_then(|task| Some((task.future.take()?, task.waker.clone())));
        let Some((mut future, waker)) = taken else { return false };
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut tasks = self.tasks.borrow_mut();
        if polled == Poll::Pending {
            if let Some(task) = tasks.get_mut(&number) {
                task.future = Some(future);
            }
            return false;
        }
        tasks.remove(&number);
        drop(tasks);
        // After the borrow: what the future held may spawn or wake as it goes.
        drop(future);
        true
    }

    /// Says what the running task waits for.
    pub(crate) fn note(&self, wait: Wait) {
        if let Some(task) = self.tasks.borrow_mut().get_mut(&self.current.get()) {
            task.waits.push(wait);
        }
    }

    /// Tasks that have not ended.
    pub(crate) fn tasks_count(&self) -> usize {
        self.tasks.borrow().keys().filter(|number| **number != MAIN).count()
    }

    /// Drops every task, and those that they start as they are dropped.
    pub(crate) fn clear(&self) {
        loop {
            let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
            if tasks.is_empty() {
                return;
            }
            drop(tasks);
        }
    }
}

impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(tasks) = self.tasks.try_borrow() else { return Ok(()) };
        writeln!(f, "{} tasks:", tasks.len())?;
        for (number, task) in tasks.iter() {
            writeln!(f, "  #{number} {} ({})", task.name, task.spawned_at)?;
            if task.waits.is_empty() {
                writeln!(f, "      waits for nothing of the network")?;
            }
            for wait in &task.waits {
                write!(f, "      waits for {}", wait.operation)?;
                if let Some((connection, side)) = wait.connection {
                    write!(f, " on connection {connection}, {side:?}")?;
                }
                match wait.until {
                    Deadline::NEVER => writeln!(f, ", for ever")?,
                    Deadline(at) => writeln!(f, ", until {:.6} ms", at as f64 / 1e6)?,
                }
            }
        }
        Ok(())
    }
}
