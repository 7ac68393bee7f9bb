//! A network without a kernel: [`runtime::Io`] with virtual time, seeded order and seeded faults. Tests only.
//!
//! ```
//! use runtime::{Io, Listener};
//! use sim::{Peer, Sim};
//!
//! let sim = Sim::with_seed(7);
//! let (app, client) = (sim.io(), sim.io());
//! let socket = sim.bind("10.0.0.7:80".parse().unwrap());
//! sim.run(async {
//!     let mut listener = app.listener(socket).unwrap();
//!     let mut asking = Peer::connect(&client, listener.local_addr()).await;
//!     let mut answering = Peer::accept(&app, &mut listener).await;
//!     asking.send(b"ping").await;
//!     assert_eq!(answering.recv_exactly(4).await, b"ping");
//! });
//! ```
//!
//! A run is a function of its seed: the same seed gives the same events in the same order. When a story panics,
//! waits for what can never happen or takes too long, the seed, the last events and what every task waits for are
//! printed. Time jumps to the next thing that can happen as soon as nothing is ready.
//!
//! It is no model of a kernel: no packets, no retransmission, no congestion; but each promise of `runtime::io`, and
//! what Linux does at the end of a connection, holds here as there.

mod client;
mod connection;
mod errno;
mod executor;
mod faults;
pub mod http;
mod io;
mod listener;
mod network;
mod operation;
pub mod origin;
mod peer;
mod pipe;
mod rng;
mod stream_origin;
pub mod streams;
mod trace;
mod world;

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::Location,
    rc::Rc,
    time::Duration,
};

use world::World;

pub use crate::{
    client::{Ask, Behind, Client, Loss, Verdict, both},
    connection::Side,
    faults::{Cut, End, Faults, Link, Pieces, Way},
    io::{SimIo, SimRecv, SimSend},
    listener::{SimListener, SimSocket, SimStream},
    network::{Leak, Reach},
    origin::{Behaviour, Origin},
    peer::{Ended, Peer},
    rng::Rng,
    stream_origin::{StreamBehaviour, StreamOrigin, StreamRecord},
    streams::{Stream, StreamConfig, Streams},
};

/// One simulation: machines, the network between them, time.
///
/// Stories may be run one after the other; tasks live on between them and end with the simulation.
pub struct Sim {
    world: Rc<World>,
}

impl Sim {
    /// A calm simulation: tasks run in the order in which they became ready, nothing is cut or late.
    pub fn with_seed(seed: u64) -> Sim {
        Sim { world: Rc::new(World::new(seed)) }
    }

    /// A rough one: tasks run in random order, completions come late, every connection draws
    /// [`Faults::rough`]. Nothing is lost, so what must work on a calm network must work here.
    pub fn rough(seed: u64) -> Sim {
        let sim = Sim::with_seed(seed);
        sim.shuffle_tasks(true);
        sim.late_completions(150);
        sim.faults(|_, rng| Faults::rough(rng));
        sim
    }

    /// Tells a story on a calm network and on rough ones with 32 seeds, or with those that the environment variable
    /// `SIM_SEEDS` names as `FIRST..END`: one to see a failure again, thousands at night.
    pub fn each(story: impl Fn(&Sim)) {
        story(&Sim::with_seed(0));
        let seeds = std::env::var("SIM_SEEDS").map_or(0..32, |seeds| {
            let range =
                seeds.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
            range.unwrap_or_else(|| panic!("SIM_SEEDS is FIRST..END, not `{seeds}`"))
        });
        seeds.for_each(|seed| story(&Sim::rough(seed)));
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// One more machine with a loop of its own, at the next address of 10.99.0.0/16.
    pub fn io(&self) -> SimIo {
        let number = self.world.hosts_count() as u32 + 1;
        self.io_at(Ipv4Addr::from_bits(Ipv4Addr::new(10, 99, 0, 0).to_bits() + number).into())
    }

    /// One more machine with a loop of its own, whose connections come from `ip`.
    pub fn io_at(&self, ip: IpAddr) -> SimIo {
        SimIo::new(self.world.clone(), self.world.add_host(ip))
    }

    /// Binds a listening socket; port 0 chooses one. Several on one address share its connections. From now on
    /// connections queue there.
    pub fn bind(&self, address: SocketAddr) -> SimSocket {
        SimSocket::bind(&self.world, address)
    }

    /// Runs everything until `story` ends. Panics, after printing what is known, when it cannot end.
    #[track_caller]
    pub fn run<T>(&self, story: impl Future<Output = T>) -> T {
        self.world.run(story, Location::caller())
    }

    /// Lets a simulated minute pass, or less when nothing will happen any more: what is on its way arrives.
    pub fn settle(&self) {
        self.world.settle();
    }

    /// Nanoseconds of simulated time.
    pub fn now(&self) -> u64 {
        self.world.now()
    }

    /// Longest simulated time one story may take; an hour unless told.
    pub fn time_max(&self, time: Duration) {
        self.world.time_max.set(time);
    }

    /// Whether ready tasks run in random order.
    pub fn shuffle_tasks(&self, shuffle: bool) {
        self.world.shuffle.set(shuffle);
    }

    /// How many of 1000 operations complete later than they could, behind others that began after them, and how many waits
    /// for readiness end early.
    pub fn late_completions(&self, per_mille: u16) {
        self.world.late_per_mille.set(per_mille);
    }

    /// How many of 1000 operations that are given up are still in flight for a while: a receive may yet get what comes, of a
    /// send the kernel took something.
    pub fn late_cancels(&self, per_mille: u16) {
        self.world.late_cancels_per_mille.set(per_mille);
    }

    /// How many of 1000 SYNs are lost, so that a connection is made seconds later, when who asked for it may be gone.
    pub fn lost_syns(&self, per_mille: u16) {
        self.world.network.borrow_mut().lost_syns_per_mille = per_mille;
    }

    /// How many of 1000 times the clock goes to what happens next, it goes up to `by_max` further: everybody was stopped for
    /// so long, and everything that happened meanwhile is seen at once.
    pub fn clock_jumps(&self, per_mille: u16, by_max: Duration) {
        self.world.clock_jumps.set((per_mille, by_max));
    }

    /// Chooses the faults of every connection made from now on.
    pub fn faults(&self, faults_of: impl Fn(&Link, &mut Rng) -> Faults + 'static) {
        self.world.network.borrow_mut().faults_of = Rc::new(faults_of);
    }

    /// What answers connects to an address from now on.
    pub fn reach(&self, address: SocketAddr, reach: Reach) {
        self.world.network.borrow_mut().reach.insert(address, reach);
    }

    /// Connections that queue at a listener before SYNs are dropped.
    pub fn backlog(&self, connections: usize) {
        self.world.network.borrow_mut().backlog = connections;
    }

    /// The next `count` accepts at an address fail with an error number, such as 24 (EMFILE).
    pub fn fail_accepts(&self, address: SocketAddr, raw_os_error: i32, count: usize) {
        self.world.network.borrow_mut().fail_accepts(address, raw_os_error, count);
    }

    /// Sockets that somebody holds now; after [`Sim::settle`], those that were forgotten.
    pub fn leaks(&self) -> Vec<Leak> {
        self.world.network.borrow().leaks()
    }

    /// Tasks that have not ended.
    pub fn tasks_count(&self) -> usize {
        self.world.executor.tasks_count()
    }

    /// A number that equal runs share.
    pub fn trace_hash(&self) -> u64 {
        self.world.network.borrow().trace.hash()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.world.ending.get() {
            eprintln!("{}", self.world.name());
        }
        // Tasks hold the world that holds them.
        self.world.end();
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.world)
    }
}
