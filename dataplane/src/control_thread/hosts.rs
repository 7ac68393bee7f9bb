//! The hosts that requests name: which are looked up, and for how long.
//!
//! A host is kept for one to two lives after its last use. Workers note only that it was used; when its life is over,
//! that is looked at, and it begins another one or goes.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use policy::{cluster::DnsCache, dynamic_host::HostName, snapshot::Snapshot};
use runtime::mailbox::{Bell, Mailbox, Sender, mailbox};
use tokio::io::unix::AsyncFd;
use translate::assemble::Update;

use crate::{dns::Question, dynamic_host::Wanted};

/// What workers ask for.
#[derive(Debug)]
pub(super) struct Inbox {
    wanted: Mailbox<Wanted>,
    bell: AsyncFd<File>,
}

impl Inbox {
    /// An inbox, and what workers send to. Must be made on a tokio runtime.
    pub(super) fn new() -> io::Result<(Sender<Wanted>, Inbox)> {
        let (bell, waited_on) = Bell::new()?;
        let (sender, wanted) = mailbox(Some(bell));
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types whose descriptor may change; a File's does not"
        )]
        let bell = AsyncFd::new(File::from(waited_on))?;
        Ok((sender, Inbox { wanted, bell }))
    }

    /// The next host that is asked for.
    pub(super) async fn next(&mut self) -> io::Result<Wanted> {
        loop {
            if let Some(wanted) = self.wanted.take() {
                return Ok(wanted);
            }
            let mut guard = self.bell.readable().await?;
            let mut rings = [0; 8];
            if self.bell.get_ref().read(&mut rings).is_err() {
                // Silent again: nobody rang since it was read last.
                guard.clear_ready();
            }
        }
    }
}

/// By cluster and name.
type Known = BTreeMap<(Arc<str>, Arc<str>), Life>;

/// The hosts that are looked up.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    known: Known,
    /// When the first life ends.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Life {
    host: Box<HostName>,
    ends: Instant,
}

impl Hosts {
    /// Takes on a host of a cluster with this cache; false if it is there already or there is no room.
    pub(super) fn want(&mut self, wanted: &Wanted, cache: &DnsCache, now: Instant) -> bool {
        let key = (wanted.cluster.clone(), Arc::from(wanted.host.as_str()));
        if self.known.contains_key(&key) {
            return false;
        }
        let of_cluster = self.known.keys().filter(|(cluster, _)| *cluster == wanted.cluster).count();
        if of_cluster >= cache.hosts_max {
            return false;
        }
        let ends = now + cache.host_ttl;
        self.known.insert(key, Life { host: wanted.host.clone(), ends });
        self.due = self.due.into_iter().chain([ends]).min();
        true
    }

    /// Whether it is one of these.
    pub(super) fn is_known(&self, cluster: &Arc<str>, name: &Arc<str>) -> bool {
        self.known.contains_key(&(cluster.clone(), name.clone()))
    }

    /// What is to be looked up.
    pub(super) fn questions<'a>(
        &self,
        cache_of: impl Fn(&str) -> Option<&'a DnsCache>,
    ) -> impl Iterator<Item = Question> {
        self.known.iter().filter_map(move |((cluster, name), life)| {
            let cache = cache_of(cluster)?;
            Some(Question {
                cluster: cluster.clone(),
                name: name.clone(),
                host: life.host.host().into(),
                family: cache.family,
                refresh_rate: cache.refresh_rate,
                is_configured: false,
            })
        })
    }

    /// When [`Hosts::end`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Ends the lives that are over and gives those a new one that were used.
    pub(super) fn end<'a>(
        &mut self,
        snapshot: &Snapshot,
        cache_of: impl Fn(&str) -> Option<&'a DnsCache>,
        now: Instant,
    ) -> Vec<Update> {
        let mut ended = Vec::new();
        self.known.retain(|(cluster, name), life| {
            if life.ends > now {
                return true;
            }
            let ttl = cache_of(cluster).map_or(Duration::ZERO, |cache| cache.host_ttl);
            let host = snapshot.clusters.get(cluster).and_then(|cluster| cluster.hosts.get(name));
            let is_used = !ttl.is_zero() && host.is_some_and(|host| host.take_use());
            life.ends = now + ttl;
            if !is_used {
                ended.push(Update::HostUnused { cluster: cluster.clone(), host: name.clone() });
            }
            is_used
        });
        self.due = self.known.values().map(|life| life.ends).min();
        ended
    }
}

#[cfg(test)]
mod tests {
    use policy::{
        cluster::{Cluster, ClusterConfig, Discovery, DnsFamily},
        endpoint::{Assignment, EndpointIds},
        limits,
        snapshot::Named,
    };

    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn cache() -> DnsCache {
        DnsCache {
            refresh_rate: Duration::from_secs(60),
            family: DnsFamily::V4Preferred,
            host_ttl: TTL,
            hosts_max: 2,
            query_timeout: Duration::from_secs(5),
        }
    }

    fn wanted(host: &str) -> Wanted {
        Wanted { cluster: "out".into(), host: Box::new(HostName::parse(host.as_bytes()).unwrap()) }
    }

    fn snapshot(hosts: &[&str]) -> Snapshot {
        let nowhere = Assignment {
            endpoints: Vec::new(),
            overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT,
        };
        let hosts = hosts.iter().map(|host| (Arc::from(*host), nowhere.clone())).collect();
        let config = Arc::new(ClusterConfig::new("out".into(), Discovery::DynamicForward(cache())));
        let cluster = Cluster::assemble_dynamic(config, hosts, None, &mut EndpointIds::default(), (1, 0));
        Snapshot {
            version: 1,
            listeners: Named::default(),
            route_tables: Named::default(),
            clusters: Named::new([("out".into(), Arc::new(cluster))].into(), 0),
            secrets: Named::default(),
        }
    }

    fn ended(updates: &[Update]) -> Vec<&str> {
        let mut hosts = Vec::new();
        for update in updates {
            let Update::HostUnused { host, .. } = update else { panic!("{update:?}") };
            hosts.push(&**host);
        }
        hosts
    }

    #[test]
    fn a_host_stays_as_long_as_it_is_used_and_one_life_more() {
        let cache = cache();
        let cache_of = |name: &str| (name == "out").then_some(&cache);
        let start = Instant::now();
        let mut hosts = Hosts::default();
        assert!(hosts.want(&wanted("a"), &cache, start));
        assert!(!hosts.want(&wanted("A:80"), &cache, start), "the same host");
        assert!(hosts.want(&wanted("b:81"), &cache, start + TTL / 2));
        assert!(!hosts.want(&wanted("c"), &cache, start), "there is room for two");
        let questions: Vec<_> = hosts.questions(cache_of).map(|question| question.host).collect();
        assert_eq!(questions, ["a".into(), "b".into()]);
        assert_eq!(hosts.due(), Some(start + TTL));

        let snapshot = snapshot(&["a:80", "b:81"]);
        snapshot.clusters.get("out").unwrap().hosts.get("a:80").unwrap().note_use();
        assert!(hosts.end(&snapshot, cache_of, start + TTL).is_empty(), "it was used");
        assert_eq!(hosts.due(), Some(start + TTL * 3 / 2));
        assert_eq!(ended(&hosts.end(&snapshot, cache_of, start + TTL * 3 / 2)), ["b:81"]);
        assert_eq!(ended(&hosts.end(&snapshot, cache_of, start + TTL * 2)), ["a:80"], "not used again");
        assert_eq!(hosts.due(), None);
    }

    #[test]
    fn hosts_go_with_their_cluster() {
        let cache = cache();
        let start = Instant::now();
        let mut hosts = Hosts::default();
        hosts.want(&wanted("a"), &cache, start);
        assert_eq!(hosts.questions(|_| None).count(), 0, "nobody looks up what has no cluster");
        let snapshot = snapshot(&["a:80"]);
        snapshot.clusters.get("out").unwrap().hosts.get("a:80").unwrap().note_use();
        assert_eq!(ended(&hosts.end(&snapshot, |_| None, start + TTL)), ["a:80"]);
    }

    #[tokio::test]
    async fn what_workers_ask_for_arrives_in_order_from_other_threads() {
        let (sender, mut inbox) = Inbox::new().unwrap();
        std::thread::spawn(move || ["a", "b", "c"].map(|host| sender.send(wanted(host)))).join().unwrap();
        for host in ["a", "b", "c"] {
            assert_eq!(inbox.next().await.unwrap(), wanted(host));
        }
        let (sender, mut inbox) = Inbox::new().unwrap();
        let asked = tokio::spawn(async move { inbox.next().await.unwrap() });
        tokio::task::yield_now().await;
        sender.send(wanted("late"));
        assert_eq!(asked.await.unwrap(), wanted("late"));
    }
}
