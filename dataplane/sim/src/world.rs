//! One simulation's executor, clock and network together, and the loop that drives them.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    net::IpAddr,
    panic::Location,
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::{
    Deadline,
    timer::{Alarm, Timers},
};

use crate::{
    connection::Side,
    executor::{Executor, MAIN},
    network::Network,
    rng::Rng,
    trace::What,
};

/// Polls without time passing after which the tasks are said to chase each other.
const POLLS_PER_INSTANT_MAX: u64 = 10_000_000;

/// Time given to what is on its way.
const SETTLE: Duration = Duration::from_secs(60);

/// How many times an operation may be put off.
const LATE_MAX: u32 = 4;

/// How long an operation that was given up may still be in flight.
const CANCELLING_MAX: Duration = Duration::from_millis(2);

/// Where the clock starts. Not 0, which code may use for "not set".
const START: u64 = 1_000_000_000;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) executor: Executor,
    pub(crate) timers: Timers,
    pub(crate) network: RefCell<Network>,
    /// Order of tasks, late completions: apart from the network's, so that one does not shift the other.
    pub(crate) rng: RefCell<Rng>,
    pub(crate) late_per_mille: Cell<u16>,
    pub(crate) late_cancels_per_mille: Cell<u16>,
    pub(crate) clock_jumps: Cell<(u16, Duration)>,
    pub(crate) shuffle: Cell<bool>,
    pub(crate) time_max: Cell<Duration>,
    pub(crate) ending: Cell<bool>,
    /// Sockets dropped before a listener was made of them, maybe on another thread.
    pub(crate) dropped_sockets: Arc<Mutex<Vec<u64>>>,
    /// Connections dropped on their way from one loop to another, maybe on another thread.
    pub(crate) dropped_streams: Arc<Mutex<Vec<(u64, Side)>>>,
    hosts: RefCell<Vec<Rc<Host>>>,
    polls_count: Cell<u64>,
}

/// One machine with one loop: an address to connect from, and turns.
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) ip: IpAddr,
    /// How many of 1000 operations fail.
    pub(crate) fail_per_mille: Cell<u16>,
    /// How many of 1000 completions begin a time in which none is seen, and how long that is at most.
    pub(crate) overflows: Cell<(u16, Duration)>,
    /// When that time ends.
    pub(crate) overflown_until: Cell<u64>,
    /// How many such times there were.
    pub(crate) overflow_count: Cell<u64>,
    /// How many of 1000 receives find no buffer.
    pub(crate) no_buffer_per_mille: Cell<u16>,
    /// Something completed in this turn.
    open: Cell<bool>,
    /// A bell of this machine rang, maybe on another thread.
    pub(crate) rung: Arc<AtomicBool>,
    /// How many of 1000 rings are heard late, and how late that is at most.
    pub(crate) late_bells: Cell<(u16, Duration)>,
    /// When a ring is heard that is heard late.
    heard_at: RefCell<Option<(u64, Alarm)>>,
    /// A turn ended that nobody has seen yet.
    ended: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        World {
            seed,
            executor: Executor::default(),
            timers: Timers::new(START),
            network: RefCell::new(Network::new(START, Rng::new(rng.next_u64()))),
            rng: RefCell::new(rng),
            late_per_mille: Cell::new(0),
            late_cancels_per_mille: Cell::new(0),
            clock_jumps: Cell::new((0, Duration::ZERO)),
            shuffle: Cell::new(false),
            time_max: Cell::new(Duration::from_secs(3600)),
            ending: Cell::new(false),
            dropped_sockets: Arc::default(),
            dropped_streams: Arc::default(),
            hosts: RefCell::default(),
            polls_count: Cell::new(0),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.network.borrow().now
    }

    pub(crate) fn add_host(&self, ip: IpAddr) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        let host = Rc::new(Host {
            number: hosts.len(),
            ip,
            fail_per_mille: Cell::new(0),
            overflows: Cell::new((0, Duration::ZERO)),
            overflown_until: Cell::new(0),
            overflow_count: Cell::new(0),
            no_buffer_per_mille: Cell::new(0),
            open: Cell::new(false),
            rung: Arc::default(),
            late_bells: Cell::new((0, Duration::ZERO)),
            heard_at: RefCell::default(),
            ended: Cell::new(false),
            waiter: RefCell::default(),
        });
        hosts.push(host.clone());
        host
    }

    pub(crate) fn hosts_count(&self) -> usize {
        self.hosts.borrow().len()
    }

    pub(crate) fn open_all_turns(&self) {
        self.hosts.borrow().iter().for_each(|host| host.touch());
    }

    /// Whether something should happen at another time than it could.
    pub(crate) fn is_late(&self) -> bool {
        self.rng.borrow_mut().chance(self.late_per_mille.get())
    }

    /// How many times an operation should pretend not to be complete yet: those that are ready meanwhile overtake it.
    pub(crate) fn lateness(&self) -> u32 {
        (0..LATE_MAX).take_while(|_| self.is_late()).count() as u32
    }

    /// How long a receive that is given up is still in flight.
    pub(crate) fn cancelling(&self) -> Duration {
        match self.is_cancel_late() {
            true => Duration::from_nanos(self.rng.borrow_mut().below(CANCELLING_MAX.as_nanos() as u64)),
            false => Duration::ZERO,
        }
    }

    /// Whether an operation that is given up did something before.
    pub(crate) fn is_cancel_late(&self) -> bool {
        self.rng.borrow_mut().chance(self.late_cancels_per_mille.get())
    }

    /// The error that an operation of a machine fails with, one of `errors`.
    pub(crate) fn failure(&self, host: &Host, errors: &[i32]) -> Option<i32> {
        let mut rng = self.rng.borrow_mut();
        rng.chance(host.fail_per_mille.get()).then(|| rng.pick(errors))
    }

    /// An operation of a machine completed: maybe the last one for a while that is seen.
    pub(crate) fn overflow(&self, host: &Host) {
        let (per_mille, by_max) = host.overflows.get();
        let mut rng = self.rng.borrow_mut();
        if rng.chance(per_mille) {
            let wait = rng.below(by_max.as_nanos() as u64 + 1);
            host.overflow_count.set(host.overflow_count.get() + 1);
            host.overflown_until.set(host.overflown_until.get().max(self.now() + wait));
        }
    }

    /// Runs everything until `main` ends.
    pub(crate) fn run<T>(&self, main: impl Future<Output = T>, at: &'static Location<'static>) -> T {
        let told = TellOnPanic(self);
        let mut main = pin!(main);
        let waker = self.executor.begin_main(at);
        let limit = self.now().saturating_add(self.time_max.get().as_nanos() as u64);
        self.polls_count.set(0);
        let result = loop {
            if let Some(number) = self.next_task() {
                if number != MAIN {
                    if self.executor.poll(number) {
                        self.network.borrow_mut().note(What::TaskEnds(number));
                    }
                } else if let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    break result;
                }
            } else if !self.end_turns() {
                let next = self.next_time();
                assert!(next != Deadline::NEVER, "deadlock: nothing is ready and nothing will ever happen");
                assert!(
                    next.0 <= limit,
                    "the story did not end within {:?} of simulated time",
                    self.time_max.get()
                );
                self.pass_time(next.0);
            }
        };
        self.executor.end_main();
        drop(told);
        result
    }

    /// Runs everything for [`SETTLE`], or until nothing will happen any more.
    pub(crate) fn settle(&self) {
        let told = TellOnPanic(self);
        self.polls_count.set(0);
        let limit = self.now() + SETTLE.as_nanos() as u64;
        loop {
            if let Some(number) = self.next_task() {
                if self.executor.poll(number) {
                    self.network.borrow_mut().note(What::TaskEnds(number));
                }
            } else if !self.end_turns() {
                let next = self.next_time().0;
                if next > limit {
                    break;
                }
                self.pass_time(next);
            }
        }
        drop(told);
    }

    fn next_task(&self) -> Option<u64> {
        self.polls_count.set(self.polls_count.get() + 1);
        assert!(
            self.polls_count.get() < POLLS_PER_INSTANT_MAX,
            "tasks wake each other without end and time stands still"
        );
        let choose =
            |count| if self.shuffle.get() { self.rng.borrow_mut().below(count as u64) as usize } else { 0 };
        self.executor.next(choose)
    }

    /// Nothing is ready: ends the turns that were open. False when nobody saw one end.
    fn end_turns(&self) -> bool {
        let mut network = self.network.borrow_mut();
        let sockets = taken(&self.dropped_sockets);
        sockets.into_iter().for_each(|number| network.drop_listener(number));
        let streams = taken(&self.dropped_streams);
        streams.into_iter().for_each(|(number, side)| network.release(number, side));
        let mut woken = false;
        for host in self.hosts.borrow().iter() {
            if !host.take_open(self, network.now) {
                continue;
            }
            host.ended.set(true);
            if let Some(waiter) = host.waiter.take() {
                network.note(What::TurnEnds(host.number));
                waiter.wake();
                woken = true;
            }
        }
        woken
    }

    fn next_time(&self) -> Deadline {
        let event = self.network.borrow().next_event().unwrap_or(u64::MAX);
        self.timers.next_visit().min(Deadline(event))
    }

    fn pass_time(&self, to: u64) {
        self.polls_count.set(0);
        let (per_mille, by_max) = self.clock_jumps.get();
        let mut rng = self.rng.borrow_mut();
        let to = if rng.chance(per_mille) { to + rng.below(by_max.as_nanos() as u64) } else { to };
        drop(rng);
        let mut network = self.network.borrow_mut();
        network.now = network.now.max(to);
        let now = network.now;
        drop(network);
        if self.timers.next_visit().0 <= now {
            self.timers.advance(now);
            self.open_all_turns();
        }
        loop {
            let step = self.network.borrow_mut().step();
            let Some(happened) = step else { return };
            if let Some(syn) = happened {
                let faults_of = self.network.borrow().faults_of.clone();
                // The test's own code runs without a borrow of the network; only the numbers are lent.
                let mut rng = self.network.borrow().rng.clone();
                let faults = faults_of(&syn.link, &mut rng);
                let mut network = self.network.borrow_mut();
                network.rng = rng;
                network.establish(syn, faults);
            }
        }
    }

    /// The seed, and the kind of network it was used for.
    pub(crate) fn name(&self) -> String {
        let kind = if self.shuffle.get() { "rough" } else { "calm" };
        format!("{kind} simulation with seed {}", self.seed)
    }

    /// Ends the simulation: what is in flight may be dropped from here on.
    pub(crate) fn end(&self) {
        self.ending.set(true);
        self.executor.clear();
        let faults_of = self.network.borrow_mut().forget_faults();
        drop(faults_of);
    }
}

fn taken<T>(dropped: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *dropped.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Host {
    /// An operation completed: this turn will be seen to end.
    pub(crate) fn touch(&self) {
        self.open.set(true);
    }

    /// Whether this turn will be seen to end; not any more.
    fn take_open(&self, world: &World, now: u64) -> bool {
        let is_heard = self.rung.load(Ordering::Relaxed) && self.hears(world, now);
        if is_heard {
            self.rung.store(false, Ordering::Relaxed);
        }
        self.open.replace(false) || is_heard
    }

    /// Whether this machine hears its bell now and not later.
    fn hears(&self, world: &World, now: u64) -> bool {
        let mut heard_at = self.heard_at.borrow_mut();
        if let Some((at, _)) = &*heard_at {
            let is_time = now >= *at;
            if is_time {
                *heard_at = None;
            }
            return is_time;
        }
        let (per_mille, by_max) = self.late_bells.get();
        let mut rng = world.rng.borrow_mut();
        if !rng.chance(per_mille) {
            return true;
        }
        let at = now + 1 + rng.below(by_max.as_nanos() as u64);
        let alarm = world.timers.alarm();
        alarm.set(Deadline(at));
        *heard_at = Some((at, alarm));
        false
    }

    pub(crate) fn poll_turn(&self, cx: &Context<'_>) -> Poll<()> {
        if self.ended.replace(false) {
            return Poll::Ready(());
        }
        *self.waiter.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Prints the seed and what everybody waited for when a story panics.
struct TellOnPanic<'a>(&'a World);

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
            // The tasks go with the story, so that another panic does not hide the first.
            self.0.ending.set(true);
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name())?;
        if let Ok(network) = self.network.try_borrow() {
            writeln!(f, "at {:.6} ms", network.now as f64 / 1e6)?;
            write!(f, "{}", network.trace)?;
            for leak in network.leaks() {
                writeln!(f, "open: {leak:?}")?;
            }
        }
        write!(f, "{}", self.executor)
    }
}
