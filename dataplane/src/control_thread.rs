//! The control thread: takes in configuration from everywhere, tells the workers, answers operators.
//!
//! One tokio current-thread runtime on the process's first thread, beside the workers. Everything that can happen is an
//! event in one loop ([`ControlThread::run`]); each event is handled to its end before the next, so there is one state and
//! no lock. Resources are judged here (they may be wrong); nothing that fails here touches what the workers serve.

mod care;
mod discovery;
mod hosts;
mod operator;
mod pace;
mod plaintext;
mod start;

use std::{
    iter, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{Rng, snapshot::Snapshot};
use proto::control::Active;
use runtime::kernel::Probed;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, sleep_until, timeout},
};
use translate::assemble::{Assembler, Update};

use crate::{
    admin::{self, pages::State},
    admission::Admission,
    bootstrap::Bootstrap,
    dns, drain,
    dynamic_host::Wanted,
    identity::{Issued, Life},
    report::Identity,
    state::{LastGood, StateFile},
    telemetry::{access_log::AccessLog, registry::Registry},
    worker::Order,
    workers::Workers,
    xds::{self, Kind, outage::Outage, session::Session, sockets::Sockets, transport},
};

pub use start::{Options, StartError, run};

/// First and longest pause between two looks at whether the workers have adopted a snapshot. They do so at the end of
/// their turn, so nearly always at once.
const ADOPTION_LOOK_FIRST: Duration = Duration::from_millis(1);
const ADOPTION_LOOK_MAX: Duration = Duration::from_millis(8);

/// How long changes are gathered before they are written to disk.
const STATE_WRITE_DELAY: Duration = Duration::from_millis(200);

/// Longest wait, at the very end, for a control plane to hear that this process ends; on a busy machine it takes its time.
/// A round trip that takes longer is not worth it: then the proxy is shown as offline for a while.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// Everything the control thread knows.
#[derive(Debug)]
pub struct ControlThread {
    bootstrap: Bootstrap,
    config_path: String,
    started: Instant,
    identity: Identity,
    driver: Probed,
    access_log: AccessLog,
    rng: Rng,

    assembler: Assembler,
    /// Accepted and not yet assembled, in order.
    waiting: Vec<Update>,
    pace: pace::Pace,
    sockets: Sockets,
    registry: Registry,
    workers: Workers,
    /// Counts the connections of all workers.
    admission: Arc<Admission>,
    resolver: dns::Resolver,
    hosts: hosts::Hosts,
    /// What the workers serve or are about to.
    snapshot: Arc<Snapshot>,
    /// Until all workers serve `snapshot`.
    adoption: Option<Adoption>,
    /// The whole first configuration served once.
    is_live: bool,
    is_draining: bool,

    session: Option<Session>,
    /// Of the certificate that others know this proxy by.
    identity_life: Option<Life>,
    outage: Outage,
    /// Into the open stream.
    requests: Option<mpsc::Sender<proto::ads::DeltaDiscoveryRequest>>,
    /// Responses and refused resources by type, for metrics.
    discovery: Vec<(Kind, Discovered)>,
    reports: Option<JoinHandle<()>>,
    active: watch::Sender<Option<Active>>,
    plaintext: plaintext::Known,

    last_good: LastGood,
    /// Something of `last_good` is from the disk.
    is_restored: bool,
    state_file: Option<StateFile>,
    /// When `last_good` is written next.
    state_due: Option<Instant>,
    state_write: Option<JoinHandle<()>>,

    care: care::Care,
    /// CPU time of the workers when `/cores` was last looked at.
    cpu_times: operator::CpuTimes,
}

/// Waiting for the workers.
#[derive(Clone, Copy, Debug)]
struct Adoption {
    look_at: Instant,
    pause: Duration,
}

/// What came from the control plane, of one type.
#[derive(Clone, Copy, Debug, Default)]
struct Discovered {
    responses: u64,
    refused: u64,
}

/// Where events come from.
#[derive(Debug)]
struct Inbox {
    discovery: mpsc::Receiver<transport::Event>,
    names: mpsc::Receiver<dns::Answer>,
    hosts: hosts::Inbox,
    identities: mpsc::Receiver<Issued>,
    questions: mpsc::Receiver<admin::Question>,
    stop: drain::Stop,
}

/// One event.
#[derive(Debug)]
enum Event {
    Discovery(transport::Event),
    Name(dns::Answer),
    Host(Wanted),
    Identity(Issued),
    Question(admin::Question),
    Stop,
    /// A look at the workers, an expired name, an unused host, a snapshot or a write to disk is due.
    Due,
}

impl ControlThread {
    /// Handles events until the process is told to stop; then drains.
    async fn run(mut self, mut inbox: Inbox, drain_timeout: Duration) {
        loop {
            match self.next_event(&mut inbox).await {
                Event::Discovery(event) => self.on_discovery(event),
                Event::Name(answer) => self.on_name(answer),
                Event::Host(wanted) => self.on_host(&wanted),
                Event::Identity(issued) => {
                    self.identity_life = Some(issued.life);
                    self.take(issued.updates().into());
                }
                Event::Question(question) => self.on_question(question),
                Event::Stop => break,
                Event::Due => {}
            }
            self.do_what_is_due();
        }
        self.drain(inbox, drain_timeout).await;
    }

    async fn next_event(&mut self, inbox: &mut Inbox) -> Event {
        let due = self.next_due();
        // A disabled branch needs a value all the same.
        let at = due.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = inbox.stop.wait() => Event::Stop,
            Some(question) = inbox.questions.recv() => Event::Question(question),
            () = sleep_until(at.into()), if due.is_some() => Event::Due,
            Some(answer) = inbox.names.recv() => Event::Name(answer),
            Ok(wanted) = inbox.hosts.next() => Event::Host(wanted),
            Some(issued) = inbox.identities.recv() => Event::Identity(issued),
            Some(event) = inbox.discovery.recv() => Event::Discovery(event),
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let adoption = self.adoption.map(|adoption| adoption.look_at);
        let expiry = self.session.as_ref().and_then(Session::deadline);
        let assembly = (!self.waiting.is_empty()).then(|| self.pace.due());
        [adoption, expiry, assembly, self.hosts.due(), self.state_due, Some(self.care.due)]
            .into_iter()
            .flatten()
            .min()
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.care.due <= now {
            self.look_after_workers(now);
        }
        if self.adoption.is_some_and(|adoption| adoption.look_at <= now) {
            self.look_at_adoption(now);
        }
        let expired = self.session.as_mut().map(|session| session.expire(now)).unwrap_or_default();
        for (kind, name) in expired {
            match name {
                Some(name) => {
                    tracing::warn!(kind = kind.word(), %name, "the control plane did not send a resource in time");
                    let name = name.to_string();
                    self.waiting.push(Update::Absent { type_url: kind.type_url(), name });
                }
                None => {
                    tracing::warn!(kind = kind.word(), "the control plane did not answer in time");
                    self.when_settled();
                }
            }
        }
        if self.hosts.due().is_some_and(|due| due <= now) {
            let ControlThread { hosts, assembler, snapshot, .. } = self;
            self.waiting.extend(hosts.end(snapshot, |cluster| assembler.dns_cache(cluster), now));
        }
        self.assemble(now);
        if self.state_due.is_some_and(|due| due <= now) {
            self.write_state(now);
        }
    }

    /// Takes in what was accepted, at once or a moment later.
    fn take(&mut self, updates: Vec<Update>) {
        self.waiting.extend(updates);
        self.assemble(Instant::now());
    }

    /// Makes the next snapshot if it is time for one; tells the workers if what serves changes.
    fn assemble(&mut self, now: Instant) {
        if self.waiting.is_empty() || now < self.pace.due() {
            return;
        }
        let updates = mem::take(&mut self.waiting);
        if let Some(snapshot) = self.assembler.apply(updates) {
            match snapshot.shares_configuration_with(&self.snapshot) {
                // Endpoints come and go all the time; nobody acts on that.
                true => tracing::debug!(version = snapshot.version, "endpoints published"),
                false => tracing::info!(
                    version = snapshot.version,
                    listeners = snapshot.listeners.len(),
                    route_tables = snapshot.route_tables.len(),
                    clusters = snapshot.clusters.len(),
                    "snapshot published"
                ),
            }
            let ControlThread { sockets, registry, rng, workers, .. } = self;
            xds::publish::publish(&snapshot, sockets, registry, rng, workers);
            self.snapshot = snapshot;
            self.adoption = Some(Adoption { look_at: now + ADOPTION_LOOK_FIRST, pause: ADOPTION_LOOK_FIRST });
        }
        self.care.give_back_after(now);
        self.watch_names();
        self.subscribe();
        self.pace.spent(now, Instant::now());
        self.when_settled();
    }

    fn look_at_adoption(&mut self, now: Instant) {
        if self.workers.have_adopted(self.snapshot.version) {
            self.adoption = None;
            self.when_settled();
        } else if let Some(adoption) = &mut self.adoption {
            adoption.pause = (adoption.pause * 2).min(ADOPTION_LOOK_MAX);
            adoption.look_at = now + adoption.pause;
        }
    }

    /// When every worker serves what was assembled: says so, once.
    fn when_settled(&mut self) {
        if self.adoption.is_some() || !self.waiting.is_empty() {
            return;
        }
        if !self.is_live && self.is_complete() {
            self.is_live = true;
            tracing::info!(after = ?self.started.elapsed(), "ready");
        }
        let types = self.kinds().map(|kind| {
            let type_url = kind.type_url();
            self.assembler.status(type_url).to_report(type_url)
        });
        let active = Active { types: types.collect(), snapshot_version: self.snapshot.version };
        self.active.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&active);
            if is_new {
                *known = Some(active);
            }
            is_new
        });
    }

    /// Whether everything that was asked for was answered, and everything that was accepted serves.
    fn is_complete(&self) -> bool {
        let is_answered = |kind| self.session.as_ref().is_none_or(|session| session.is_answered(kind));
        let is_asked_whole = |kind: &Kind| kind.is_wildcard();
        self.kinds().filter(is_asked_whole).all(is_answered)
            && self.kinds().all(|kind| self.assembler.status(kind.type_url()).warming.is_empty())
            && self.bootstrap.resources.iter().all(|update| match update {
                Update::Listener(listener) => self.snapshot.listeners.get(&listener.name).is_some(),
                Update::Cluster(cluster) => self.snapshot.clusters.get(&cluster.name).is_some(),
                _ => true,
            })
    }

    /// The types that the control plane is asked for.
    fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        self.bootstrap.kinds.iter().copied()
    }

    fn state(&self) -> State {
        if self.is_draining {
            State::Draining
        } else if self.is_live {
            State::Live
        } else if self.session.is_some() && self.requests.is_none() {
            State::PreInitializing
        } else {
            State::Initializing
        }
    }

    fn on_name(&mut self, answer: dns::Answer) {
        let dns::Answer { cluster, name, addresses } = answer;
        tracing::debug!(%cluster, %name, ?addresses, "name looked up");
        // The answer for a host that was given up meanwhile would keep it for ever.
        if self.assembler.dns_cache(&cluster).is_some() && !self.hosts.is_known(&cluster, &name) {
            return;
        }
        self.take(vec![Update::Dns { cluster: cluster.to_string(), host: name.to_string(), addresses }]);
    }

    /// A request named a host that its worker does not know.
    fn on_host(&mut self, wanted: &Wanted) {
        let Some(cache) = self.assembler.dns_cache(&wanted.cluster) else { return };
        if self.hosts.want(wanted, cache, Instant::now()) {
            self.watch_names();
        }
    }

    fn watch_names(&mut self) {
        let ControlThread { assembler, hosts, resolver, .. } = self;
        let configured = assembler.dns_clusters().flat_map(|(cluster, dns)| dns::questions(cluster, dns));
        resolver.watch(configured.chain(hosts.questions(|cluster| assembler.dns_cache(cluster))));
    }

    /// Writes what is good now, off this thread; one write at a time.
    fn write_state(&mut self, now: Instant) {
        let Some(file) = &self.state_file else {
            self.state_due = None;
            return;
        };
        if self.state_write.as_ref().is_some_and(|write| !write.is_finished()) {
            self.state_due = Some(now + STATE_WRITE_DELAY);
            return;
        }
        self.state_due = None;
        let (file, last_good) = (file.clone(), self.last_good.clone());
        self.state_write = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = file.write(&last_good) {
                tracing::warn!(
                    error = transport::chain(&error),
                    "the last good configuration is not on disk"
                );
            }
        }));
    }

    /// Ends: no new connections, the open ones as long as they may, then the process.
    async fn drain(mut self, mut inbox: Inbox, at_most: Duration) {
        tracing::info!(timeout = ?at_most, "draining");
        self.is_draining = true;
        self.workers.send(iter::repeat_with(|| Order::Drain));
        self.sockets.close_spares();
        let until = Instant::now() + at_most;
        // Operators are answered to the end; configuration does not change any more.
        let is_hurried = loop {
            tokio::select! {
                biased;
                () = inbox.stop.wait() => {
                    tracing::warn!("told to stop again, not draining any longer");
                    break true;
                }
                Some(question) = inbox.questions.recv() => self.on_question(question),
                () = sleep(drain::LOOK) => {
                    if drain::is_over(self.workers.connections(), until, Instant::now()) {
                        break false;
                    }
                }
            }
        };
        if let Some(write) = self.state_write.take() {
            // It fails only by a panic, which has ended the process.
            let _ = write.await;
        }
        if self.state_due.is_some() {
            self.write_state(Instant::now());
        }
        if let Some(write) = self.state_write.take() {
            let _ = write.await;
        }
        drop((self.active, self.plaintext));
        if let Some(reports) = self.reports.take().filter(|_| !is_hurried) {
            // Nobody misses us afterwards. If nobody hears it, that is all there is to it.
            let _ = timeout(GOODBYE_MAX, reports).await;
        }
        match self.workers.connections() {
            0 => tracing::info!("drained"),
            // What held the drain. What does not speak HTTP is a TCP connection, or was not known yet.
            left => tracing::warn!(
                connections = left,
                exchanges = self.registry.exchanges(),
                tcp_connections = left.saturating_sub(self.registry.http_connections()),
                "drained no longer, connections are cut"
            ),
        }
        self.workers.stop();
    }
}
