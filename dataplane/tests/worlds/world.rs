//! One world from its beginning to its end.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use dataplane::worker::Order;
use policy::{
    cluster::{ClusterConfig, Discovery, UpstreamProtocol},
    route::RouteSpec,
};
use runtime::Io;
use sim::{Origin, Rng, Sim, SimIo, StreamOrigin};

use crate::{
    clients::Clients,
    ledger::Ledger,
    mesh::{APP, Config, Ground, Mesh, Setup, forward_to, route},
    plan::{Plan, Timeouts},
};

/// Runs it; gives a number that equal runs share.
pub(crate) fn run(seed: u64) -> u64 {
    let plan = Plan::of(seed);
    let sim = plan.network();
    let mut setup = Setup::new(Default::default())
        .without_origins()
        .workers(plan.workers)
        .manager(|manager| plan.manager(manager));
    if plan.is_tcp {
        setup = setup.tcp(Some(plan.timeouts.stream_idle));
    }
    let plan = Cell::new(Some(plan));
    setup.on(&sim, &async |mesh: &Mesh<SimIo>| {
        let plan = plan.take().expect("a story is told once");
        World::new(mesh, plan).live(&sim).await;
    });
    sim.trace_hash()
}

/// An origin of either protocol.
#[derive(Clone)]
pub(crate) enum AnyOrigin {
    Connections(Origin),
    Streams(StreamOrigin),
}

impl AnyOrigin {
    fn start(mesh: &Mesh<SimIo>, plan: &Plan, is_streams: bool, rng: &mut Rng) -> AnyOrigin {
        let (io, socket) = (&mesh.origins_io, mesh.origins_io.socket().1);
        match is_streams {
            true => AnyOrigin::Streams(StreamOrigin::start(io, socket, plan.stream_behaviour(rng))),
            false => AnyOrigin::Connections(Origin::start(io, socket, plan.behaviour(rng))),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            AnyOrigin::Connections(origin) => origin.address(),
            AnyOrigin::Streams(origin) => origin.address(),
        }
    }

    fn behave_otherwise(&self, plan: &Plan, rng: &mut Rng) {
        match self {
            AnyOrigin::Connections(origin) => origin.behave(plan.behaviour(rng)),
            AnyOrigin::Streams(origin) => origin.behave(plan.stream_behaviour(rng)),
        }
    }

    fn stop(&self) {
        match self {
            AnyOrigin::Connections(origin) => origin.stop(),
            AnyOrigin::Streams(origin) => origin.stop(),
        }
    }
}

struct World<'a> {
    mesh: &'a Mesh<SimIo>,
    clients: Rc<Clients>,
    /// By cluster.
    origins: Vec<Vec<AnyOrigin>>,
    rng: Rng,
}

impl<'a> World<'a> {
    fn new(mesh: &'a Mesh<SimIo>, plan: Plan) -> World<'a> {
        let mut rng = Rng::new(plan.seed ^ 0x0077_6f72_6c64);
        let kinds = plan.clusters.iter().zip(&plan.stream_clusters);
        let mut origins = |(count, is_streams): (&usize, &bool)| {
            (0..*count).map(|_| AnyOrigin::start(mesh, &plan, *is_streams, &mut rng)).collect()
        };
        let origins: Vec<Vec<AnyOrigin>> = kinds.map(&mut origins).collect();
        let clients = Clients {
            io: mesh.io.clone(),
            proxy: mesh.proxy,
            running: Cell::new(plan.clients),
            plan,
            ledger: Ledger::default(),
            is_leaving: Cell::new(false),
            answered: Cell::new(0),
        };
        World { mesh, clients: Rc::new(clients), origins, rng }
    }

    async fn live(mut self, sim: &Sim) {
        let plan = &self.clients.plan;
        self.clients.ledger.tell(0, format!("{plan:?}"));
        let (count, timeouts) = (plan.clusters.len(), plan.timeouts);
        let kinds = plan.stream_clusters.clone();
        let addresses: Vec<Vec<SocketAddr>> =
            self.origins.iter().map(|origins| origins.iter().map(AnyOrigin::address).collect()).collect();
        self.mesh
            .adopt(move |config| {
                config.routes = Rc::new(move || routes(count, timeouts));
                addresses
                    .into_iter()
                    .enumerate()
                    .for_each(|(at, endpoints)| put(config, (at, kinds[at]), endpoints, timeouts));
            })
            .await;
        self.mesh.workers.iter().for_each(|worker| self.clients.plan.kernel(&worker.io));
        for number in 0..self.clients.plan.clients {
            self.mesh.io.spawn(self.clients.clone().live(number));
        }
        for _ in 0..self.clients.plan.changes {
            self.pass_up_to(800).await;
            self.change().await;
        }
        if self.clients.plan.departures && self.rng.chance(500) {
            self.clients.is_leaving.set(true);
            self.tell("drain");
            self.mesh.order(|| Order::Drain);
        }
        while self.clients.running.get() > 0 {
            self.mesh.pass(Duration::from_millis(5)).await;
        }
        // What follows is judged by the clock.
        sim.clock_jumps(0, Duration::ZERO);
        let origins: Vec<AnyOrigin> = self.origins.concat();
        self.clients.ledger.judge_origins(&origins);
        origins.iter().for_each(AnyOrigin::stop);
    }

    /// Something changes.
    async fn change(&mut self) {
        let cluster = self.rng.below(self.origins.len() as u64) as usize;
        match self.rng.below(6) {
            0..3 => {
                let origins = &self.origins[cluster];
                let origin = &origins[self.rng.below(origins.len() as u64) as usize];
                origin.behave_otherwise(&self.clients.plan, &mut self.rng);
                self.tell(&format!("cluster {cluster}: an origin behaves otherwise"));
            }
            3 | 4 => self.move_endpoints(cluster).await,
            _ if self.clients.plan.departures => self.leave_and_come_back().await,
            _ => {}
        }
    }

    /// A cluster has other endpoints: some of its origins, always one that answers, and maybe an address where nobody is.
    async fn move_endpoints(&mut self, cluster: usize) {
        let timeouts = self.clients.plan.timeouts;
        let mut endpoints: Vec<SocketAddr> = self.origins[cluster].iter().map(AnyOrigin::address).collect();
        while endpoints.len() > 1 && self.rng.chance(500) {
            endpoints.remove(self.rng.below(endpoints.len() as u64) as usize);
        }
        if self.rng.chance(300) {
            endpoints.push(self.mesh.origins_io.nobody(1).0);
        }
        self.tell(&format!("cluster {cluster} has {endpoints:?}"));
        let is_streams = self.clients.plan.stream_clusters[cluster];
        self.mesh.adopt(|config| put(config, (cluster, is_streams), endpoints, timeouts)).await;
    }

    async fn leave_and_come_back(&mut self) {
        // From before the change until all who saw it are gone.
        self.clients.is_leaving.set(true);
        self.tell("the listener goes");
        self.mesh.adopt(|config| config.is_listening = false).await;
        self.pass_up_to(1500).await;
        self.tell("the listener comes back");
        self.mesh.adopt(|config| config.is_listening = true).await;
    }

    async fn pass_up_to(&mut self, milliseconds: u64) {
        self.mesh.pass(Duration::from_millis(self.rng.below(milliseconds))).await;
    }

    fn tell(&self, what: &str) {
        self.clients.ledger.tell(self.mesh.io.now(), what.to_owned());
    }
}

/// The first one is that of plain TCP.
fn name(cluster: usize) -> Arc<str> {
    if cluster == 0 { APP.into() } else { format!("c{cluster}").into() }
}

fn put(
    config: &mut Config,
    (cluster, is_streams): (usize, bool),
    endpoints: Vec<SocketAddr>,
    timeouts: Timeouts,
) {
    let mut cluster_config =
        ClusterConfig::new(name(cluster), Discovery::Eds { service_name: name(cluster) });
    if is_streams {
        cluster_config.protocol = UpstreamProtocol::Http2;
    }
    cluster_config.connect_timeout = timeouts.connect;
    cluster_config.idle_timeout = timeouts.upstream_idle;
    config.clusters.insert(name(cluster), (cluster_config, endpoints));
}

/// `/0` leads to the first cluster, and so on.
fn routes(count: usize, timeouts: Timeouts) -> Vec<RouteSpec> {
    let to = |cluster| {
        let mut forward = forward_to(&name(cluster));
        forward.timeout = timeouts.route;
        route(&format!("/{cluster}"), forward)
    };
    (0..count).map(to).collect()
}
