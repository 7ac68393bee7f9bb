//! The worker threads as the control thread sees them: started together, sent orders, watched.

use std::{
    io, iter,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use policy::endpoint::WorkerId;
use runtime::{
    affinity,
    kernel::{Driver, Holdings, Kernel},
    mailbox::{Bell, Mailbox, Sender, mailbox},
};

use crate::{
    colleagues::{Colleague, Colleagues},
    telemetry::metrics::WorkerStats,
    worker::{Bound, Order, Outlets, Seat, Worker},
};

/// How the workers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernel interface of every worker.
    pub driver: Driver,
    /// Whether each gets a CPU of its own.
    pub is_pinned: bool,
    /// Seeds the workers' random numbers.
    pub seed: u64,
    /// What the loop of each may hold.
    pub holdings: Option<Holdings>,
    /// What each of them has to tell others something.
    pub outlets: Outlets,
}

/// Why a worker does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread, no eventfd.
    #[error("cannot start worker {worker}")]
    Thread {
        /// Which one.
        worker: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its loop could not be made.
    #[error("cannot start the loop of worker {worker}")]
    Loop {
        /// Which one.
        worker: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// All workers of the process.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    stats: Vec<Arc<WorkerStats>>,
    colleagues: Arc<[Colleague<Kernel>]>,
    /// Where their clock starts.
    origin: Instant,
}

#[derive(Debug)]
struct Handle {
    orders: Sender<Order<Kernel>>,
    thread: JoinHandle<()>,
    /// Kernel's id of the thread; 0 when it could not be read.
    thread_id: u32,
    cpu: Option<usize>,
}

/// One worker for `/cores`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread {
    /// Kernel's id of the thread; 0 when it could not be read.
    pub id: u32,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
}

/// What a new worker says when it runs or cannot.
type Started = (usize, Result<(u32, Option<usize>), io::Error>);

impl Workers {
    /// Starts one worker per bound snapshot and waits until all of them run.
    pub fn start(bounds: Vec<Box<Bound>>, options: &Options) -> Result<Workers, StartError> {
        // One clock for all, so that their times compare.
        let origin = Instant::now();
        let cpus = if options.is_pinned { affinity::allowed_cpus() } else { Vec::new() };
        let (started, starting) = mpsc::channel::<Started>();
        let stats: Vec<Arc<WorkerStats>> = bounds.iter().map(|_| Arc::default()).collect();
        let mut mailboxes = Vec::new();
        let mut colleagues = Vec::new();
        for (worker, stats) in stats.iter().enumerate() {
            let (bell, waited_on) = Bell::new().map_err(|source| StartError::Thread { worker, source })?;
            let (orders, mailbox) = mailbox(Some(bell));
            mailboxes.push((orders.clone(), mailbox, waited_on));
            colleagues.push(Colleague::new(orders, stats.clone()));
        }
        let colleagues: Arc<[Colleague<Kernel>]> = colleagues.into();
        let mut handles = Vec::new();
        for (((worker, bound), stats), (orders, mailbox, waited_on)) in
            bounds.into_iter().enumerate().zip(&stats).zip(mailboxes)
        {
            let failed = |source| StartError::Thread { worker, source };
            let cpu = cpus.get(worker % cpus.len().max(1)).copied();
            let birth = Birth {
                worker,
                cpu,
                bound,
                mailbox,
                stats: stats.clone(),
                colleagues: colleagues.clone(),
                options: options.clone(),
                started: started.clone(),
            };
            let run = move || {
                let started = birth.started.clone();
                let (driver, mut is_alive) = (birth.options.driver, false);
                let live = |io| {
                    is_alive = true;
                    birth.live(io)
                };
                match runtime::kernel::run(driver, origin, waited_on, live) {
                    Ok(()) => {}
                    // A worker that is gone would still be sent connections.
                    Err(error) if is_alive => {
                        tracing::error!(worker, %error, "the loop failed");
                        std::process::abort();
                    }
                    // Nobody waits for this any more when another could not be made, either.
                    Err(error) => drop(started.send((worker, Err(error)))),
                }
            };
            let thread =
                thread::Builder::new().name(format!("worker-{worker}")).spawn(run).map_err(failed)?;
            handles.push(Handle { orders, thread, thread_id: 0, cpu: None });
        }
        drop(started);
        for (worker, result) in starting.iter().take(handles.len()) {
            let (thread_id, cpu) = result.map_err(|source| StartError::Loop { worker, source })?;
            if let Some(handle) = handles.get_mut(worker) {
                (handle.thread_id, handle.cpu) = (thread_id, cpu);
            }
        }
        Ok(Workers { handles, stats, colleagues, origin })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// Sends each worker its order, the first to the first.
    pub fn send(&self, orders: impl Iterator<Item = Order<Kernel>>) {
        self.handles.iter().zip(orders).for_each(|(handle, order)| handle.orders.send(order));
    }

    /// Sends one worker an order.
    pub fn send_to(&self, worker: usize, order: Order<Kernel>) {
        if let Some(handle) = self.handles.get(worker) {
            handle.orders.send(order);
        }
    }

    /// The worker with the fewest connections of those that serve `version`, take what they are given and are not among
    /// `stuck`.
    pub fn with_fewest_connections(&self, version: u64, stuck: &[usize]) -> Option<&Colleague<Kernel>> {
        let (all, now) = (self.colleagues.iter().zip(&self.stats).enumerate(), self.now());
        let well = all.filter(|(worker, (colleague, stats))| {
            !stuck.contains(worker)
                && stats.counters.snapshot_version.get() >= version
                && !colleague.is_held_up(now)
        });
        well.map(|(_, (colleague, _))| colleague).min_by_key(|colleague| colleague.connections())
    }

    /// The time of the workers' clock.
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Their figures, by worker.
    pub fn stats(&self) -> &[Arc<WorkerStats>] {
        &self.stats
    }

    /// Their threads, by worker.
    pub fn threads(&self) -> impl Iterator<Item = Thread> {
        self.handles.iter().map(|handle| Thread { id: handle.thread_id, cpu: handle.cpu })
    }

    /// Whether every worker serves `version` or a later one.
    pub fn have_adopted(&self, version: u64) -> bool {
        self.stats.iter().all(|stats| stats.counters.snapshot_version.get() >= version)
    }

    /// Open connections of all workers, and those on their way from one to another.
    pub fn connections(&self) -> u64 {
        self.colleagues.iter().map(Colleague::connections).fold(0, u64::wrapping_add)
    }

    /// Stops them and waits until they are gone.
    pub fn stop(self) {
        self.send(iter::repeat_with(|| Order::Stop));
        for handle in self.handles {
            // A panic of a worker ends the process before anybody could join it.
            let _ = handle.thread.join();
        }
    }
}

/// Everything a worker's thread takes with it.
struct Birth {
    worker: usize,
    cpu: Option<usize>,
    bound: Box<Bound>,
    mailbox: Mailbox<Order<Kernel>>,
    stats: Arc<WorkerStats>,
    colleagues: Arc<[Colleague<Kernel>]>,
    options: Options,
    started: mpsc::Sender<Started>,
}

impl Birth {
    async fn live(self, io: Kernel) {
        let pinned_to = self.cpu.filter(|cpu| affinity::pin_to(*cpu));
        let _ = self.started.send((self.worker, Ok((own_thread_id(), pinned_to))));
        drop(self.started);
        if let Some(holdings) = self.options.holdings {
            io.limit(holdings);
        }
        let id = WorkerId(u16::try_from(self.worker).unwrap_or(u16::MAX));
        let seed = self.options.seed.wrapping_add(u64::from(id.0));
        let colleagues = Colleagues::new(self.worker, self.colleagues);
        let seat = Seat { id, stats: self.stats, colleagues };
        Worker::new(io, seat, self.bound, seed, self.options.outlets).run(self.mailbox).await;
    }
}

fn own_thread_id() -> u32 {
    let link = std::fs::read_link("/proc/thread-self").ok();
    link.and_then(|path| path.file_name()?.to_str()?.parse().ok()).unwrap_or_default()
}
