//! From accepted resources to the next snapshot.
//!
//! The [`Assembler`] holds what was accepted (`received`) and what serves (`active`), per type, and moves the first
//! to the second when it is *warm*:
//!
//! - a cluster, when its endpoints are known: at once if they are in it, by EDS (a cached assignment counts), or by
//!   DNS once every name was looked up; a dynamic forward cluster at once, since only requests know its hosts;
//! - a route table, when no cluster that it names is still warming. A cluster that nobody has told us of does not
//!   hold it back: it may never come;
//! - a listener, when every route table it names is active and its own clusters are not warming;
//! - a cluster and a listener only when the secrets that they name are known, which are active as soon as they are.
//!
//! Until then the former version serves. Nobody waits for what does not exist; and who has no former version does not wait
//! for what was refused, so that one bad resource holds back no neighbour. What was removed goes last: a listener at once, a route table when no
//! listener names it, a cluster when no active route or TCP proxy does. So a control plane may send changes in any
//! order and no request meets a gap.
//!
//! Pure: no clock, no I/O. Given the same updates it makes the same snapshots. It keeps only what somebody refers to:
//! a route table or an assignment that no listener or cluster names is dropped, so ask for [`Assembler::wanted`].

mod inputs;
mod of_type;
mod report;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::{
    cluster::{Cluster, ClusterConfig, Discovery, Dns, DnsCache},
    endpoint::{Assignment, EndpointIds},
    limits,
    route::RouteTable,
    snapshot::{Listener, Named, Snapshot},
    tls::Secret,
};
use proto::type_url;

use self::{
    inputs::{Inputs, LookedUp},
    of_type::Type,
};
use crate::{Referring, Wanted, want};

pub use report::{RejectedVersion, TypeStatus, hash_of};
pub use update::{Accepted, Update};

/// What stays the same for the life of the process.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Workers of this process; endpoint state has one slot for each.
    pub workers: usize,
    /// Seeds the hashes of names.
    pub seed: u64,
}

/// Accepted and active configuration. See the module's documentation.
#[derive(Debug)]
pub struct Assembler {
    options: Options,
    listeners: Type<Referring<Listener>>,
    route_tables: Type<Referring<RouteTable>>,
    clusters: Type<ClusterConfig>,
    assignments: Type<Assignment>,
    secrets: Type<Secret>,
    /// Look-ups, by cluster and host.
    looked_up: BTreeMap<Arc<str>, LookedUp>,
    /// What was made of the active clusters.
    built: BTreeMap<Arc<str>, Built>,
    /// Clusters that get their endpoints from an assignment, by its name. May name clusters that no longer do.
    clusters_of: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// What the updates of this batch may have changed.
    touched: Touched,
    endpoint_ids: EndpointIds,
    version: u64,
}

/// What must be looked at again. Most batches change endpoints and nothing else: they must not cost a walk over all
/// clusters.
#[derive(Debug, Default)]
struct Touched {
    /// Clusters whose configuration or endpoints changed.
    clusters: BTreeSet<Arc<str>>,
    /// Whether what is named, and by whom, may have changed.
    references: bool,
}

/// An active cluster and where its endpoints came from.
#[derive(Debug)]
struct Built {
    inputs: Inputs,
    cluster: Arc<Cluster>,
}

impl Assembler {
    /// Without any configuration.
    pub fn new(options: Options) -> Assembler {
        Assembler {
            options,
            listeners: Type::default(),
            route_tables: Type::default(),
            clusters: Type::default(),
            assignments: Type::default(),
            secrets: Type::default(),
            looked_up: BTreeMap::new(),
            built: BTreeMap::new(),
            clusters_of: BTreeMap::new(),
            touched: Touched::default(),
            endpoint_ids: EndpointIds::default(),
            version: 0,
        }
    }

    /// Takes in `updates`, in order, and gives the next snapshot if anything that serves is different now.
    ///
    /// One call per batch that arrived together: between two updates of a call nothing is published.
    pub fn apply(&mut self, updates: impl IntoIterator<Item = Update>) -> Option<Arc<Snapshot>> {
        for update in updates {
            self.receive(update);
        }
        let mut changed = self.secrets.activate(|_, _| true);
        changed |= self.activate_clusters();
        if std::mem::take(&mut self.touched).references {
            changed |= self.activate_route_tables();
            changed |= self.activate_listeners();
            changed |= self.drop_what_nothing_names();
        }
        changed.then(|| self.snapshot())
    }

    /// Names of a type that something refers to: what to subscribe to. Route tables, assignments and secrets only.
    pub fn wanted(&self, type_url: &str) -> Wanted {
        let mut wanted = Wanted::new();
        match type_url {
            type_url::ROUTE_CONFIGURATION => {
                for (name, timeout) in self.listeners.all().flat_map(|listener| &listener.value.route_tables)
                {
                    want(&mut wanted, name, *timeout);
                }
            }
            type_url::CLUSTER_LOAD_ASSIGNMENT => {
                for cluster in self.clusters.all() {
                    if let Discovery::Eds { service_name } = &cluster.value.discovery {
                        want(&mut wanted, service_name, cluster.value.fetch_timeout);
                    }
                }
            }
            type_url::SECRET => {
                let of_listeners = self.listeners.all().flat_map(|listener| &listener.value.secrets);
                let of_clusters = self.clusters.all().flat_map(|cluster| &cluster.value.secrets);
                for (name, timeout) in of_listeners.chain(of_clusters) {
                    want(&mut wanted, name, *timeout);
                }
            }
            _ => {}
        }
        wanted
    }

    /// Clusters whose names are to be looked up: the newest version of each, and one that is removed and still serves.
    pub fn dns_clusters(&self) -> impl Iterator<Item = (&Arc<str>, &Dns)> {
        let received = &self.clusters.received;
        let held = self.clusters.active.values().filter(|cluster| !received.contains_key(&cluster.name));
        received.values().chain(held).filter_map(|cluster| match &cluster.value.discovery {
            Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => Some((&cluster.name, dns)),
            Discovery::Static(_) | Discovery::Eds { .. } | Discovery::DynamicForward(_) => None,
        })
    }

    /// How a dynamic forward cluster looks up the hosts that requests name; `None` for a cluster that is none.
    pub fn dns_cache(&self, cluster: &str) -> Option<&DnsCache> {
        match &self.clusters.active.get(cluster)?.value.discovery {
            Discovery::DynamicForward(cache) => Some(cache),
            _ => None,
        }
    }

    /// Whether the bootstrap file has a resource of this name, so that no other may have it.
    pub fn is_static(&self, type_url: &str, name: &str) -> bool {
        match type_url {
            type_url::LISTENER => self.listeners.is_static(name),
            type_url::CLUSTER => self.clusters.is_static(name),
            type_url::SECRET => self.secrets.is_static(name),
            _ => false,
        }
    }

    /// What is active and what is not, of one type.
    pub fn status(&self, type_url: &str) -> TypeStatus {
        match type_url {
            type_url::LISTENER => self.listeners.status(),
            type_url::ROUTE_CONFIGURATION => self.route_tables.status(),
            type_url::CLUSTER => self.clusters.status(),
            type_url::CLUSTER_LOAD_ASSIGNMENT => self.assignments.status(),
            type_url::SECRET => self.secrets.status(),
            _ => TypeStatus::default(),
        }
    }

    /// Name and version of everything of a type that the control plane sent and that is active, by name.
    pub fn active(&self, type_url: &str) -> Vec<(Arc<str>, Arc<str>)> {
        match type_url {
            type_url::LISTENER => self.listeners.active_versions(),
            type_url::ROUTE_CONFIGURATION => self.route_tables.active_versions(),
            type_url::CLUSTER => self.clusters.active_versions(),
            type_url::CLUSTER_LOAD_ASSIGNMENT => self.assignments.active_versions(),
            type_url::SECRET => self.secrets.active_versions(),
            _ => Vec::new(),
        }
    }

    fn receive(&mut self, update: Update) {
        self.touch(&update);
        match update {
            Update::Listener(listener) => self.listeners.receive(listener),
            Update::RouteTable(table) => self.route_tables.receive(table),
            Update::Cluster(cluster) => self.clusters.receive(cluster),
            Update::Assignment(assignment) => self.assignments.receive(assignment),
            Update::Secret(secret) => self.secrets.receive(secret),
            Update::Absent { type_url, name } => match type_url {
                type_url::LISTENER => self.listeners.remove(&name),
                type_url::ROUTE_CONFIGURATION => self.route_tables.remove(&name),
                type_url::CLUSTER => self.clusters.remove(&name),
                type_url::CLUSTER_LOAD_ASSIGNMENT => self.assignments.remove(&name),
                type_url::SECRET => self.secrets.remove(&name),
                _ => {}
            },
            Update::Rejected { type_url, name, rejected } => {
                if let Some(of_type) = self.rejected(type_url) {
                    of_type.insert(name.into(), rejected);
                }
            }
            Update::Revision { type_url, revision } => match type_url {
                type_url::LISTENER => self.listeners.revision = revision,
                type_url::ROUTE_CONFIGURATION => self.route_tables.revision = revision,
                type_url::CLUSTER => self.clusters.revision = revision,
                type_url::CLUSTER_LOAD_ASSIGNMENT => self.assignments.revision = revision,
                type_url::SECRET => self.secrets.revision = revision,
                _ => {}
            },
            Update::Dns { cluster, host, addresses } => {
                let hosts = self.looked_up.entry(cluster.into()).or_default();
                hosts.insert(host.into(), addresses.into());
            }
            Update::HostUnused { cluster, host } => {
                if let Some(hosts) = self.looked_up.get_mut(&cluster) {
                    hosts.remove(&host);
                }
            }
        }
    }

    /// Notes what `update` may change. An assignment that nobody names is to be dropped at once, so it counts as a change
    /// of references.
    fn touch(&mut self, update: &Update) {
        let service_name = match update {
            Update::Revision { .. } => return,
            Update::Dns { cluster, .. } => {
                self.touched.clusters.insert(cluster.as_str().into());
                return;
            }
            Update::HostUnused { cluster, .. } => {
                self.touched.clusters.insert(cluster.clone());
                return;
            }
            Update::Cluster(cluster) => {
                self.touched.clusters.insert(cluster.name.clone());
                if let Discovery::Eds { service_name } = &cluster.value.discovery {
                    let clusters = self.clusters_of.entry(service_name.clone()).or_default();
                    clusters.insert(cluster.name.clone());
                }
                self.touched.references = true;
                return;
            }
            Update::Assignment(assignment) => &*assignment.name,
            Update::Secret(secret) => {
                let (name, all) = (secret.name.clone(), self.clusters.all());
                let named =
                    all.filter(|cluster| cluster.value.transport.secret_names().any(|of| *of == name));
                self.touched.clusters.extend(named.map(|cluster| cluster.name.clone()).collect::<Vec<_>>());
                self.touched.references = true;
                return;
            }
            Update::Absent { type_url, name } | Update::Rejected { type_url, name, .. }
                if *type_url == type_url::CLUSTER_LOAD_ASSIGNMENT =>
            {
                name.as_str()
            }
            Update::Listener(_) | Update::RouteTable(_) | Update::Absent { .. } | Update::Rejected { .. } => {
                self.touched.references = true;
                return;
            }
        };
        match self.clusters_of.get(service_name) {
            Some(clusters) => self.touched.clusters.extend(clusters.iter().cloned()),
            None => self.touched.references = true,
        }
    }

    fn rejected(&mut self, type_url: &str) -> Option<&mut BTreeMap<Arc<str>, RejectedVersion>> {
        match type_url {
            type_url::LISTENER => Some(&mut self.listeners.rejected),
            type_url::ROUTE_CONFIGURATION => Some(&mut self.route_tables.rejected),
            type_url::CLUSTER => Some(&mut self.clusters.rejected),
            type_url::CLUSTER_LOAD_ASSIGNMENT => Some(&mut self.assignments.rejected),
            type_url::SECRET => Some(&mut self.secrets.rejected),
            _ => None,
        }
    }

    /// Builds every touched cluster that is warm and different.
    fn activate_clusters(&mut self) -> bool {
        let mut changed = false;
        for name in std::mem::take(&mut self.touched.clusters) {
            // The newest version when it is warm, else the one that serves; the newest endpoints in either case.
            let candidates = [self.clusters.received.get(&name), self.clusters.active.get(&name)];
            let with_inputs =
                candidates.into_iter().flatten().find_map(|of| Some((of.clone(), self.inputs(of)?)));
            let Some((cluster, inputs)) = with_inputs else { continue };
            let before = self.built.get(&name);
            if before.is_some_and(|before| {
                Arc::ptr_eq(&before.cluster.config, &cluster.value) && before.inputs.are(&inputs)
            }) {
                continue;
            }
            let (config, before) = (cluster.value.clone(), before.map(|before| &*before.cluster));
            let Options { workers, seed } = self.options;
            let ids = &mut self.endpoint_ids;
            let built = match &config.discovery {
                Discovery::DynamicForward(_) => {
                    Cluster::assemble_dynamic(config, inputs.of_each_host(), before, ids, (workers, seed))
                }
                _ => {
                    let assignment = inputs.assignment(&config);
                    Cluster::assemble(config, &assignment, before, ids, workers)
                }
            };
            if let Inputs::Assignment(assignment) = &inputs {
                self.assignments.active.insert(assignment.name.clone(), assignment.clone());
            }
            self.built.insert(name.clone(), Built { inputs, cluster: Arc::new(built) });
            // Routes may have waited for it.
            self.touched.references |= self.clusters.active.insert(name, cluster).is_none();
            changed = true;
        }
        changed
    }

    /// Where the endpoints of `cluster` come from; `None` while they are not known.
    fn inputs(&self, cluster: &Accepted<ClusterConfig>) -> Option<Inputs> {
        let serves = self.clusters.active.contains_key(&cluster.name);
        if !self.secrets.are_there(cluster.value.transport.secret_names(), serves) {
            return None;
        }
        match &cluster.value.discovery {
            Discovery::Static(_) => Some(Inputs::Own),
            Discovery::Eds { service_name } => {
                let newest = self.assignments.received.get(service_name);
                // A removed assignment stays in use, like anything that is removed and still referred to.
                let assignment = newest.or_else(|| self.assignments.active.get(service_name));
                match assignment {
                    Some(assignment) => Some(Inputs::Assignment(assignment.clone())),
                    None => self.assignments.is_given_up(service_name, serves).then_some(Inputs::Own),
                }
            }
            Discovery::StrictDns(dns) => {
                Inputs::of_dns(dns, self.looked_up.get(&cluster.name), limits::ENDPOINTS_PER_CLUSTER_MAX)
            }
            Discovery::LogicalDns(dns) => Inputs::of_dns(dns, self.looked_up.get(&cluster.name), 1),
            Discovery::DynamicForward(_) => Some(Inputs::of_hosts(self.looked_up.get(&cluster.name))),
        }
    }

    fn activate_route_tables(&mut self) -> bool {
        let Assembler { route_tables, clusters, .. } = self;
        route_tables.activate(|table, _| !clusters.is_any_warming(&table.clusters))
    }

    fn activate_listeners(&mut self) -> bool {
        let Assembler { listeners, route_tables, clusters, secrets, .. } = self;
        let changed = listeners.activate(|listener, serves| {
            let is_there = |name: &Arc<str>| {
                route_tables.active.contains_key(name) || route_tables.is_given_up(name, serves)
            };
            !clusters.is_any_warming(&listener.clusters)
                && listener.route_tables.keys().all(is_there)
                && secrets.are_there(listener.value.filter_chains.secret_names(), serves)
        });
        let before = listeners.active.len();
        listeners.active.retain(|name, _| listeners.received.contains_key(name));
        changed || listeners.active.len() != before
    }

    /// Route tables before clusters, since a dropped table may be the last that named a cluster.
    fn drop_what_nothing_names(&mut self) -> bool {
        let tables = self.wanted(type_url::ROUTE_CONFIGURATION);
        let mut changed = self.route_tables.keep(&tables);

        let listeners = self.listeners.active.values();
        let tables = self.route_tables.active.values();
        let named: BTreeSet<_> = listeners
            .flat_map(|listener| &listener.value.clusters)
            .chain(tables.flat_map(|table| &table.value.clusters))
            .cloned()
            .collect();
        let Assembler { clusters, built, .. } = self;
        clusters.active.retain(|name, _| clusters.received.contains_key(name) || named.contains(name));
        let before = built.len();
        built.retain(|name, _| clusters.active.contains_key(name));
        changed |= built.len() != before;

        let services = self.wanted(type_url::CLUSTER_LOAD_ASSIGNMENT);
        self.assignments.keep(&services);
        let secrets = self.wanted(type_url::SECRET);
        changed |= self.secrets.keep(&secrets);
        // Nobody waits for a listener or a cluster, so that one does not exist is nothing to remember.
        self.listeners.absent.clear();
        self.clusters.absent.clear();
        let Assembler { clusters, looked_up, assignments, built, clusters_of, .. } = self;
        clusters_of.retain(|service_name, _| services.contains_key(service_name));
        looked_up
            .retain(|name, _| clusters.received.contains_key(name) || clusters.active.contains_key(name));
        assignments.active = built
            .values()
            .filter_map(|built| match &built.inputs {
                Inputs::Assignment(assignment) => Some((assignment.name.clone(), assignment.clone())),
                Inputs::Own | Inputs::LookedUp(_) => None,
            })
            .collect();
        changed
    }

    fn snapshot(&mut self) -> Arc<Snapshot> {
        self.version += 1;
        let seed = self.options.seed;
        let listeners = self.listeners.active.values();
        let tables = self.route_tables.active.values();
        let clusters = self.built.iter();
        let secrets = self.secrets.active.values();
        Arc::new(Snapshot {
            version: self.version,
            listeners: Named::new(
                listeners.map(|of| (of.name.clone(), of.value.value.clone())).collect(),
                seed,
            ),
            route_tables: Named::new(
                tables.map(|of| (of.name.clone(), of.value.value.clone())).collect(),
                seed,
            ),
            clusters: Named::new(
                clusters.map(|(name, built)| (name.clone(), built.cluster.clone())).collect(),
                seed,
            ),
            secrets: Named::new(secrets.map(|of| (of.name.clone(), of.value.clone())).collect(), seed),
        })
    }
}
