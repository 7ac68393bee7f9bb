//! The fixture: one worker of the proxy between clients and origins, on a simulated network or on a kernel's loopback.
//!
//! A [`Setup`] says what the configuration is and how the origins behave; a story gets the running [`Mesh`]. When the
//! story ends, the mesh is drained and what it must give back is counted: tasks, sockets, buffers, gauges.

// Each test binary uses its own part of the fixture.
#![allow(dead_code)]

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
    colleagues::Colleagues,
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
    Behaviour, Client, Origin, Peer, Reach, Sim, SimIo, Verdict,
    http::{Event, Message, Parser},
    origin::LEDGER_ID,
};
use tokio::net::TcpSocket;

mod ground;
mod snapshots;

pub(crate) use ground::Ground;
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
    /// Endpoints of [`APP`] at which nobody listens, before the origins.
    pub(crate) nobodies: usize,
    /// Endpoints that never answer a connect, before those; simulated networks only.
    pub(crate) silent: usize,
    /// Endpoints that the story plays by itself.
    pub(crate) played: usize,
    /// Where exchanges are logged.
    pub(crate) access_log: AccessLog,
    /// Which connections are taken.
    pub(crate) admission: Arc<Admission>,
}

/// A running worker with clients and origins.
pub(crate) struct Mesh<I: Ground> {
    /// The clients' machine.
    pub(crate) io: I,
    /// The worker.
    pub(crate) worker: Rc<Worker<I>>,
    /// Where it listens.
    pub(crate) proxy: SocketAddr,
    /// Its origins.
    pub(crate) origins: Vec<Origin>,
    /// The endpoints that the story plays.
    pub(crate) played: RefCell<Vec<I::Listener>>,
    /// The machine of origins and played endpoints.
    pub(crate) origins_io: I,
    /// What the current snapshot was made of.
    pub(crate) config: RefCell<Config>,
    /// The worker's machine.
    pub(crate) proxy_io: I,
    wanted: Mailbox<Wanted>,
    orders: Sender<Order<I>>,
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
                is_listening: true,
                connection_limit: None,
                listener_filters: ListenerFilters::default(),
            },
            origins: vec![behaviour],
            nobodies: 0,
            silent: 0,
            played: 0,
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
        let (proxy, origins) = (sim.io(), sim.io());
        let mut setup = self.clone();
        let silent: Vec<SocketAddr> =
            (0..self.silent).map(|n| format!("10.66.0.{}:80", n + 1).parse().unwrap()).collect();
        silent.iter().for_each(|address| sim.reach(*address, Reach::Unanswered));
        setup.config.clusters.get_mut(APP).unwrap().1.extend(silent);
        let mesh = sim.run(async {
            let (mesh, mailbox) = setup.build(&proxy, &origins, sim.io(), None, sim.seed());
            proxy.spawn(mesh.worker.clone().run(mailbox));
            mesh.start();
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
                let (mesh, mailbox) = setup.build(&io, &io, io.clone(), Some(bell), 7);
                let worker = mesh.worker.clone();
                io.spawn(async move {
                    mesh.start();
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

    fn build<I: Ground>(
        self,
        proxy_io: &I,
        origins_io: &I,
        clients_io: I,
        bell: Option<Bell>,
        seed: u64,
    ) -> (Mesh<I>, Mailbox<Order<I>>) {
        let mut config = self.config;
        let origins: Vec<Origin> = self
            .origins
            .iter()
            .map(|behaviour| Origin::start(origins_io, origins_io.socket().1, behaviour.clone()))
            .collect();
        let endpoints = &mut config.clusters.get_mut(APP).unwrap().1;
        let nobodies = (0..self.nobodies).map(|number| origins_io.nobody(number));
        let (nowhere, nobodies): (Vec<_>, Vec<_>) = nobodies.unzip();
        endpoints.extend(nowhere);
        endpoints.extend(origins.iter().map(Origin::address));
        let played: Vec<I::Listener> =
            (0..self.played).map(|_| origins_io.listener(origins_io.socket().1).unwrap()).collect();
        endpoints.extend(played.iter().map(runtime::Listener::local_addr));
        let mut binder = Binder::default();
        let empty = binder.bind(&Config { is_listening: false, clusters: BTreeMap::new(), ..config.clone() });
        let (orders, orders_out) = mailbox(bell);
        let stats = Arc::<WorkerStats>::default();
        let (wanted_in, wanted) = mailbox(None);
        let outlets = Outlets { access_log: self.access_log, wanted: wanted_in, admission: self.admission };
        let seat = Seat { id: WorkerId(0), stats, colleagues: Colleagues::none() };
        let worker = Worker::new(proxy_io.clone(), seat, empty, seed, outlets);
        let mesh = Mesh {
            io: clients_io,
            worker,
            proxy: SocketAddr::from(([0, 0, 0, 0], 0)),
            origins,
            played: RefCell::new(played),
            origins_io: origins_io.clone(),
            config: RefCell::new(config),
            proxy_io: proxy_io.clone(),
            wanted,
            orders,
            binder: RefCell::new(binder),
            _nobodies: nobodies,
        };
        let (proxy, socket) = proxy_io.socket();
        let mesh = Mesh { proxy, ..mesh };
        let bound = mesh.binder.borrow_mut().bind(&mesh.config.borrow());
        mesh.order(Order::Adopt { bound, sockets: vec![(LISTENER.into(), socket)], closed: Vec::new() });
        (mesh, orders_out)
    }
}

impl<I: Ground> Mesh<I> {
    fn start(&self) {
        self.proxy_io.nudge();
    }

    /// Tells the worker something.
    pub(crate) fn order(&self, order: Order<I>) {
        self.orders.send(order);
        self.proxy_io.nudge();
    }

    /// Changes the configuration and waits until it is adopted.
    pub(crate) async fn adopt(&self, change: impl FnOnce(&mut Config)) {
        let was_listening = self.config.borrow().is_listening;
        change(&mut self.config.borrow_mut());
        let bound = self.binder.borrow_mut().bind(&self.config.borrow());
        let version = bound.snapshot.version;
        let is_gone = was_listening && !self.config.borrow().is_listening;
        let closed = if is_gone { vec![LISTENER.into()] } else { Vec::new() };
        let is_back = !was_listening && self.config.borrow().is_listening;
        let socket = is_back.then(|| (LISTENER.into(), self.proxy_io.socket_at(self.proxy)));
        self.order(Order::Adopt { bound, sockets: socket.into_iter().collect(), closed });
        while self.worker.stats.counters.snapshot_version.get() != version {
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
        ledger
    }

    /// A counter of the connection manager.
    pub(crate) fn http(&self, name: &str) -> u64 {
        let stats = self.binder.borrow().http.values().next().unwrap().clone();
        stats.counters.each().find(|(known, ..)| *known == name).unwrap().2
    }

    /// A counter of [`APP`].
    pub(crate) fn upstream(&self, name: &str) -> u64 {
        let stats = self.binder.borrow().clusters[APP].clone();
        stats.counters.each().find(|(known, ..)| *known == name).unwrap().2
    }

    /// Drains, and checks that nothing is left.
    async fn end(&self) {
        self.order(Order::Drain);
        self.until("the worker has no connection", |mesh| mesh.worker.is_idle()).await;
        self.until("no upstream connection", |mesh| mesh.binder.borrow().gauges().is_empty()).await;
        self.until("every buffer is back", |mesh| mesh.worker.buffers.out_count() == 0).await;
        assert_eq!(self.worker.pools.idle_count(), 0);
        let bound = self.worker.bound();
        for (_, cluster) in bound.snapshot.clusters.iter() {
            for endpoint in cluster.all_endpoints() {
                assert_eq!(endpoint.state.in_flight(), 0, "{}", endpoint.spec.address);
            }
        }
        self.origins.iter().for_each(Origin::stop);
        self.played.borrow_mut().clear();
        self.order(Order::Stop);
    }
}

/// The origin's own answer, whole and right.
#[track_caller]
pub(crate) fn ok(verdict: Verdict) -> Message {
    match verdict {
        Verdict::Ok(answer) => answer,
        other => panic!("no answer of the origin: {other:?}"),
    }
}

/// The proxy's own answer: its status and reason.
#[track_caller]
pub(crate) fn refused(verdict: Verdict) -> (u16, String) {
    match verdict {
        Verdict::Refused(answer) => {
            (answer.status(), answer.header("x-ringway-reason").unwrap_or_default().to_owned())
        }
        other => panic!("no answer of the proxy: {other:?}"),
    }
}

/// The next answers on a connection, to requests with these methods; interim ones are left out.
pub(crate) async fn answers<I: Io>(peer: &mut Peer<I>, methods: &[&str]) -> Vec<Message> {
    let mut parser = Parser::responses();
    methods.iter().for_each(|method| parser.expect_answer_to(method));
    let mut answers = Vec::new();
    while answers.len() < methods.len() {
        let Some(bytes) = peer.recv_some().await else {
            answers.extend(parser.finish().unwrap_or_else(|malformed| panic!("{malformed}")));
            break;
        };
        parser.receive(&bytes);
        while let Some(event) = parser.next_event().unwrap_or_else(|malformed| panic!("{malformed}")) {
            match event {
                Event::Whole(message) if message.status() >= 200 => answers.push(message),
                Event::Whole(_) | Event::Head => {}
            }
        }
    }
    assert!(parser.unread().is_empty(), "more than the answers came");
    answers
}
