//! The fixture: workers of the proxy between clients and origins, on a simulated network or on a kernel's loopback.
//!
//! A [`Setup`] says what the configuration is and how the origins behave; a story gets the running [`Mesh`]. When the
//! story ends, the mesh is drained and what it must give back is counted: tasks, sockets, buffers, gauges.

// Each test binary uses its own part of the fixture.
#![allow(dead_code, unused_imports)]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{
    admission::Admission,
    colleagues::{Colleague, Colleagues},
    dynamic_host::Wanted,
    telemetry::{access_log::AccessLog, metrics::WorkerStats},
    worker::{Order, Outlets, Seat, Worker},
};
use policy::{
    Weighted,
    cluster::{ClusterConfig, Discovery},
    endpoint::WorkerId,
    network_filter::{HttpConnectionManager, RouteSource, TcpProxy},
    route::{Forward, RouteSpec, TargetSpec},
    snapshot::ListenerFilters,
};
use runtime::{
    Deadline, Io,
    kernel::{Choice, Driver, Kernel, probe, run},
    mailbox::{Bell, Mailbox, Sender, mailbox},
};
use sim::{
    Behaviour, Client, Origin, Peer, Reach, Sim, SimIo, StreamBehaviour, StreamOrigin, origin::LEDGER_ID,
};
use tokio::net::TcpSocket;

mod answers;
mod counters;
mod ground;
mod pairings;
mod snapshots;

pub(crate) use answers::{answers, ok, refused};
pub(crate) use ground::Ground;
pub(crate) use pairings::{Asker, Pairing};
use snapshots::Binder;
pub(crate) use snapshots::{Config, forward_to, route};

/// The listener that every mesh has.
pub(crate) const LISTENER: &str = "in";
/// The cluster that every mesh has.
pub(crate) const APP: &str = "app";

/// What a mesh is made of.
#[derive(Clone)]
pub(crate) struct Setup {
    /// The configuration, but for addresses.
    pub(crate) config: Config,
    /// How the origins of [`APP`] behave, one for each.
    pub(crate) origins: Vec<Behaviour>,
    /// Those that speak HTTP/2, behind them.
    pub(crate) stream_origins: Vec<StreamBehaviour>,
    /// Endpoints of [`APP`] at which nobody listens, before the origins.
    pub(crate) nobodies: usize,
    /// Endpoints that never answer a connect, before those; simulated networks only.
    pub(crate) silent: usize,
    /// Endpoints that the story plays by itself.
    pub(crate) played: usize,
    /// How many workers there are; several on simulated networks only.
    pub(crate) workers: usize,
    /// Where exchanges are logged.
    pub(crate) access_log: AccessLog,
    /// Which connections are taken.
    pub(crate) admission: Arc<Admission>,
}

/// Running workers with clients and origins.
pub(crate) struct Mesh<I: Ground> {
    /// The clients' machine.
    pub(crate) io: I,
    /// The worker, or the first of them.
    pub(crate) worker: Rc<Worker<I>>,
    /// All of them, each on a machine of its own.
    pub(crate) workers: Vec<Rc<Worker<I>>>,
    /// Where they listen.
    pub(crate) proxy: SocketAddr,
    /// Its origins.
    pub(crate) origins: Vec<Origin>,
    /// Those that speak HTTP/2.
    pub(crate) stream_origins: Vec<StreamOrigin>,
    /// The endpoints that the story plays.
    pub(crate) played: RefCell<Vec<I::Listener>>,
    /// The machine of origins and played endpoints.
    pub(crate) origins_io: I,
    /// What the current snapshot was made of.
    pub(crate) config: RefCell<Config>,
    wanted: Mailbox<Wanted>,
    /// By worker.
    orders: Vec<Sender<Order<I>>>,
    colleagues: Arc<[Colleague<I>]>,
    binder: RefCell<Binder>,
    _nobodies: Vec<Option<TcpSocket>>,
}

impl Setup {
    /// One origin with this behaviour behind one route for everything.
    pub(crate) fn new(behaviour: Behaviour) -> Setup {
        let routes = RouteSource::Named("".into());
        let app = ClusterConfig::new(APP.into(), Discovery::Eds { service_name: APP.into() });
        Setup {
            config: Config {
                manager: HttpConnectionManager::new("ingress".into(), routes),
                routes: Rc::new(|| vec![route("/", forward_to(APP))]),
                clusters: BTreeMap::from([(APP.into(), (app, Vec::new()))]),
                hosts: BTreeMap::new(),
                tcp: None,
                detects: false,
                is_listening: true,
                connection_limit: None,
                rbac: Vec::new(),
                listener_filters: ListenerFilters::default(),
                tls: None,
                tls_by: None,
                secrets: BTreeMap::new(),
            },
            origins: vec![behaviour],
            stream_origins: Vec::new(),
            nobodies: 0,
            silent: 0,
            played: 0,
            workers: 1,
            access_log: AccessLog::off(),
            admission: Arc::default(),
        }
    }

    /// One more origin.
    pub(crate) fn origin(mut self, behaviour: Behaviour) -> Setup {
        self.origins.push(behaviour);
        self
    }

    /// Endpoints at which nobody listens, and no origin unless one is added.
    pub(crate) fn nobodies(mut self, count: usize) -> Setup {
        self.nobodies = count;
        self
    }

    /// Endpoints that never answer a connect.
    pub(crate) fn silent(mut self, count: usize) -> Setup {
        self.silent = count;
        self
    }

    /// Endpoints that the story plays by itself, in place of origins.
    pub(crate) fn played(mut self, count: usize) -> Setup {
        self.origins.clear();
        self.played = count;
        self
    }

    /// So many workers.
    pub(crate) fn workers(mut self, count: usize) -> Setup {
        self.workers = count;
        self
    }

    /// No origins.
    pub(crate) fn without_origins(mut self) -> Setup {
        self.origins.clear();
        self
    }

    /// Changes the connection manager.
    pub(crate) fn manager(mut self, change: impl FnOnce(&mut HttpConnectionManager)) -> Setup {
        change(&mut self.config.manager);
        self
    }

    /// Changes the cluster.
    pub(crate) fn cluster(mut self, change: impl FnOnce(&mut ClusterConfig)) -> Setup {
        change(&mut self.config.clusters.get_mut(APP).unwrap().0);
        self
    }

    /// Changes the one route's action.
    pub(crate) fn forward(mut self, change: impl Fn(&mut Forward<TargetSpec>) + 'static) -> Setup {
        self.config.routes = Rc::new(move || {
            let mut forward = forward_to(APP);
            change(&mut forward);
            vec![route("/", forward)]
        });
        self
    }

    /// Other routes.
    pub(crate) fn routes(mut self, routes: impl Fn() -> Vec<RouteSpec> + 'static) -> Setup {
        self.config.routes = Rc::new(routes);
        self
    }

    /// Speaks TCP.
    pub(crate) fn tcp(mut self, idle_timeout: Option<Duration>) -> Setup {
        self.config.tcp = Some(TcpProxy {
            stat_prefix: "tcp".into(),
            clusters: Weighted::one(APP.into()),
            idle_timeout,
            access_log: false,
        });
        self
    }

    /// Tells a story on a calm simulated network and on many rough ones.
    pub(crate) fn on_sim(&self, story: impl AsyncFn(&Mesh<SimIo>)) {
        Sim::each(|sim| self.on(sim, &story));
    }

    /// Tells a story on one simulated network.
    pub(crate) fn on(&self, sim: &Sim, story: &impl AsyncFn(&Mesh<SimIo>)) {
        let (proxies, origins) = ((0..self.workers).map(|_| sim.io()).collect::<Vec<_>>(), sim.io());
        let mut setup = self.clone();
        let silent: Vec<SocketAddr> =
            (0..self.silent).map(|n| format!("10.66.0.{}:80", n + 1).parse().unwrap()).collect();
        silent.iter().for_each(|address| sim.reach(*address, Reach::Unanswered));
        setup.config.clusters.get_mut(APP).unwrap().1.extend(silent);
        let mesh = sim.run(async {
            let seats = proxies.into_iter().map(|io| (io.bell(), io)).collect();
            let (mesh, mailboxes) = setup.build(seats, &origins, sim.io(), sim.seed());
            for (worker, mailbox) in mesh.workers.iter().zip(mailboxes) {
                worker.io.spawn(worker.clone().run(mailbox));
            }
            story(&mesh).await;
            mesh.end().await;
            mesh
        });
        drop(mesh);
        sim.settle();
        assert_eq!(sim.leaks(), [], "seed {}", sim.seed());
        assert_eq!(sim.tasks_count(), 0, "seed {}", sim.seed());
    }

    /// Tells a story on the kernel, with both drivers. io_uring must work where the tests run; a machine without it
    /// fails here and not in silence.
    pub(crate) fn on_kernel<S>(&self, story: S)
    where
        S: AsyncFn(&Mesh<Kernel>) + Clone + 'static,
    {
        assert_eq!(probe(Choice::IoUring, 1).unwrap().driver, Driver::IoUring);
        for driver in [Driver::IoUring, Driver::Epoll] {
            let (bell, waited_on) = Bell::new().unwrap();
            let (setup, story, told) = (self.clone(), story.clone(), Rc::new(Cell::new(false)));
            let tell = told.clone();
            run(driver, Instant::now(), waited_on, async move |io: Kernel| {
                let (mesh, mailboxes) = setup.build(vec![(bell, io.clone())], &io, io.clone(), 7);
                let (worker, mailbox) = (mesh.worker.clone(), mailboxes.into_iter().next().unwrap());
                io.spawn(async move {
                    story(&mesh).await;
                    mesh.end().await;
                    tell.set(true);
                });
                worker.run(mailbox).await;
            })
            .unwrap();
            assert!(told.get(), "the story was told to its end on {driver:?}");
        }
    }

    /// The mesh with each worker's mailbox. A seat is where a worker runs, and what wakes it.
    fn build<I: Ground>(
        self,
        seats: Vec<(Bell, I)>,
        origins_io: &I,
        clients_io: I,
        seed: u64,
    ) -> (Mesh<I>, Vec<Mailbox<Order<I>>>) {
        let mut config = self.config;
        let origins: Vec<Origin> = self
            .origins
            .iter()
            .map(|behaviour| Origin::start(origins_io, origins_io.socket().1, behaviour.clone()))
            .collect();
        let stream_origins: Vec<StreamOrigin> = self
            .stream_origins
            .iter()
            .map(|behaviour| StreamOrigin::start(origins_io, origins_io.socket().1, behaviour.clone()))
            .collect();
        let endpoints = &mut config.clusters.get_mut(APP).unwrap().1;
        let nobodies = (0..self.nobodies).map(|number| origins_io.nobody(number));
        let (nowhere, nobodies): (Vec<_>, Vec<_>) = nobodies.unzip();
        endpoints.extend(nowhere);
        endpoints.extend(origins.iter().map(Origin::address));
        endpoints.extend(stream_origins.iter().map(StreamOrigin::address));
        let played: Vec<I::Listener> =
            (0..self.played).map(|_| origins_io.listener(origins_io.socket().1).unwrap()).collect();
        endpoints.extend(played.iter().map(runtime::Listener::local_addr));
        let mut binder = Binder::new(seats.len());
        let empty = binder.bind(&Config { is_listening: false, clusters: BTreeMap::new(), ..config.clone() });
        let (wanted_in, wanted) = mailbox(None);
        let outlets = Outlets { access_log: self.access_log, wanted: wanted_in, admission: self.admission };
        let (bells, ios): (Vec<_>, Vec<_>) = seats.into_iter().unzip();
        let (orders, mailboxes): (Vec<_>, Vec<_>) =
            bells.into_iter().map(|bell| mailbox::<Order<I>>(Some(bell))).unzip();
        let stats: Vec<Arc<WorkerStats>> = orders.iter().map(|_| Arc::default()).collect();
        let colleagues = orders.iter().zip(&stats);
        let colleagues: Arc<[Colleague<I>]> =
            colleagues.map(|(orders, stats)| Colleague::new(orders.clone(), stats.clone())).collect();
        let worker = |(own, (io, bound)): (usize, (&I, _))| {
            let colleagues = Colleagues::new(own, colleagues.clone());
            let seat = Seat { id: WorkerId(own as u16), stats: stats[own].clone(), colleagues };
            Worker::new(io.clone(), seat, bound, seed + own as u64, outlets.clone())
        };
        let workers: Vec<_> = ios.iter().zip(empty).enumerate().map(worker).collect();
        let (proxy, socket) = ios[0].socket();
        let mesh = Mesh {
            io: clients_io,
            worker: workers[0].clone(),
            workers,
            proxy,
            origins,
            stream_origins,
            played: RefCell::new(played),
            origins_io: origins_io.clone(),
            config: RefCell::new(config),
            wanted,
            orders,
            colleagues,
            binder: RefCell::new(binder),
            _nobodies: nobodies,
        };
        let others = ios.iter().skip(1).map(|io| io.socket_at(proxy));
        let sockets: Vec<_> = std::iter::once(socket).chain(others).collect();
        let bounds = mesh.binder.borrow_mut().bind(&mesh.config.borrow());
        for ((orders, bound), socket) in mesh.orders.iter().zip(bounds).zip(sockets) {
            let sockets = vec![(LISTENER.into(), socket)];
            orders.send(Order::Adopt { bound, sockets, closed: Vec::new() });
        }
        (mesh, mailboxes)
    }
}

impl<I: Ground> Mesh<I> {
    /// Tells every worker something.
    pub(crate) fn order(&self, order: impl Fn() -> Order<I>) {
        self.orders.iter().for_each(|orders| orders.send(order()));
    }

    /// Changes the configuration and waits until it is adopted.
    pub(crate) async fn adopt(&self, change: impl FnOnce(&mut Config)) {
        let was_listening = self.config.borrow().is_listening;
        change(&mut self.config.borrow_mut());
        let bounds: Vec<_> = self.binder.borrow_mut().bind(&self.config.borrow()).collect();
        let version = bounds[0].snapshot.version;
        let is_gone = was_listening && !self.config.borrow().is_listening;
        let is_back = !was_listening && self.config.borrow().is_listening;
        for ((worker, orders), bound) in self.workers.iter().zip(&self.orders).zip(bounds) {
            let closed = if is_gone { vec![LISTENER.into()] } else { Vec::new() };
            let socket = is_back.then(|| (LISTENER.into(), worker.io.socket_at(self.proxy)));
            orders.send(Order::Adopt { bound, sockets: socket.into_iter().collect(), closed });
        }
        while self.workers.iter().any(|worker| worker.stats.counters.snapshot_version.get() != version) {
            self.pass(Duration::from_millis(1)).await;
        }
    }

    /// The next host that the worker asks for.
    pub(crate) async fn wanted(&self) -> String {
        loop {
            match self.wanted.take() {
                Some(wanted) => return wanted.host.as_str().to_owned(),
                None => self.pass(Duration::from_millis(1)).await,
            }
        }
    }

    /// Whether the worker asks for a host.
    pub(crate) fn wants_nothing(&self) -> bool {
        self.wanted.take().is_none()
    }

    /// A client with a connection.
    pub(crate) async fn client(&self) -> Client<I> {
        Client::connect(&self.io, self.proxy).await
    }

    /// A connection in a test's own hands.
    pub(crate) async fn peer(&self) -> Peer<I> {
        Peer::connect(&self.io, self.proxy).await
    }

    /// The next connection to the first endpoint that the story plays.
    pub(crate) async fn accept(&self) -> Peer<I> {
        let mut listener = self.played.borrow_mut().remove(0);
        let peer = Peer::accept(&self.origins_io, &mut listener).await;
        self.played.borrow_mut().insert(0, listener);
        peer
    }

    /// The first origin.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origins[0]
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        self.io.sleep_until(Deadline::after(self.io.now(), time)).await;
    }

    /// Waits until something holds; a minute is for ever.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = self.io.now();
        while !holds(self) {
            assert!(self.io.now() - begun < 60_000_000_000, "still not: {what}");
            self.pass(Duration::from_millis(5)).await;
        }
    }

    /// Every id that an origin ran, with how often. What came to an origin and is no request must be the start of one
    /// that was given up.
    pub(crate) fn ledger(&self) -> BTreeMap<String, usize> {
        let mut ledger = BTreeMap::new();
        for connection in self.origins.iter().flat_map(Origin::connections) {
            if let Some(malformed) = connection.malformed {
                assert_eq!(malformed.what, "ends in the middle of a message", "{}", malformed.near);
            }
            for request in connection.requests {
                *ledger.entry(request.header(LEDGER_ID).unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        for (id, count) in self.stream_origins.iter().flat_map(StreamOrigin::ledger) {
            *ledger.entry(id).or_default() += count;
        }
        ledger
    }

    /// Drains, and checks that nothing is left.
    async fn end(&self) {
        self.order(|| Order::Drain);
        self.until("no worker has a connection", Mesh::is_idle).await;
        self.until("no upstream connection", |mesh| mesh.binder.borrow().gauges().is_empty()).await;
        for worker in &self.workers {
            self.until("every buffer is back", |_| worker.buffers.out_count() == 0).await;
            assert_eq!(worker.pools.idle_count(), 0);
        }
        let bound = self.worker.bound();
        for (_, cluster) in bound.snapshot.clusters.iter() {
            for endpoint in cluster.all_endpoints() {
                assert_eq!(endpoint.state.in_flight(), 0, "{}", endpoint.spec.address);
                assert!(endpoint.state.idle().all(|count| count == 0), "{}", endpoint.spec.address);
            }
        }
        self.origins.iter().for_each(Origin::stop);
        self.stream_origins.iter().for_each(StreamOrigin::stop);
        self.played.borrow_mut().clear();
        self.order(|| Order::Stop);
    }

    /// Whether no worker has a connection and none is on its way to one.
    fn is_idle(&self) -> bool {
        self.workers.iter().all(|worker| worker.is_idle())
            && self.colleagues.iter().all(|colleague| colleague.on_their_way() == 0)
    }
}
