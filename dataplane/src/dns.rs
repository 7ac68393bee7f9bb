//! Looks up the names of DNS clusters, and those that requests name, again and again, off the workers.
//!
//! The system's resolver answers (getaddrinfo on tokio's blocking pool), so `/etc/hosts` and search domains count as they
//! do for every other program. Its answers carry no time to live: names are looked up at the cluster's refresh rate.
//! A failure never takes addresses away; only at the first look-up it counts as an empty answer, so that nothing waits
//! for a name that may never exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use policy::cluster::{Dns, DnsFamily};
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
};

/// Look-ups at a time, of configured names and of names from requests: those of a zone that does not answer must not hold
/// up the others. getaddrinfo blocks a thread for as long as name servers take.
const LOOKUPS_MAX: usize = 4;

/// Longest wait after a failed look-up, where the refresh rate is slower.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Addresses of one name that are used. More are cut: no balancer gains by them.
const ADDRESSES_MAX: usize = 1024;

/// The addresses of a name, when they are not what they were.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The cluster that asked.
    pub cluster: Arc<str>,
    /// What the cluster calls it.
    pub name: Arc<str>,
    /// Its addresses, best first.
    pub addresses: Vec<IpAddr>,
}

/// What is looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The cluster that asks.
    pub cluster: Arc<str>,
    /// What the cluster calls it.
    pub name: Arc<str>,
    /// The name to look up.
    pub host: Arc<str>,
    /// Which addresses are wanted.
    pub family: DnsFamily,
    /// Time between two look-ups.
    pub refresh_rate: Duration,
    /// An operator wrote the name, and shall know when it does not exist. Whoever wrote it into a request is told in the
    /// answer.
    pub is_configured: bool,
}

/// The questions of a cluster whose names are configured.
pub fn questions<'a>(cluster: &'a Arc<str>, dns: &'a Dns) -> impl Iterator<Item = Question> {
    dns.assignment.endpoints.iter().map(|endpoint| Question {
        cluster: cluster.clone(),
        name: endpoint.address.host.clone(),
        host: endpoint.address.host.clone(),
        family: dns.family,
        refresh_rate: dns.refresh_rate,
        is_configured: true,
    })
}

/// By cluster and name.
type Tasks = BTreeMap<(Arc<str>, Arc<str>), Running>;

/// The task of one name.
#[derive(Debug)]
struct Running {
    question: Question,
    /// There was an answer once, perhaps to another question about this name.
    is_answered: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Runs one task per name of each cluster.
#[derive(Debug)]
pub struct Resolver {
    answers: mpsc::Sender<Answer>,
    /// For names that are configured.
    configured: Arc<Semaphore>,
    /// For names from requests.
    requested: Arc<Semaphore>,
    running: Tasks,
}

impl Resolver {
    /// A resolver without names, and where its answers come out. Must be used on a tokio runtime.
    pub fn new() -> (Resolver, mpsc::Receiver<Answer>) {
        let (answers, received) = mpsc::channel(64);
        let permits = || Arc::new(Semaphore::new(LOOKUPS_MAX));
        let (configured, requested) = (permits(), permits());
        (Resolver { answers, configured, requested, running: Tasks::new() }, received)
    }

    /// Looks up exactly these from now on.
    pub fn watch(&mut self, questions: impl Iterator<Item = Question>) {
        let mut before = mem::take(&mut self.running);
        for question in questions {
            let key = (question.cluster.clone(), question.name.clone());
            if self.running.contains_key(&key) {
                continue;
            }
            let is_answered = match before.remove(&key) {
                Some(running) if running.question == question => {
                    self.running.insert(key, running);
                    continue;
                }
                Some(other) => {
                    other.task.abort();
                    other.is_answered
                }
                None => Arc::default(),
            };
            let permits = if question.is_configured { &self.configured } else { &self.requested };
            let task = look_up(question.clone(), permits.clone(), is_answered.clone(), self.answers.clone());
            let task = tokio::spawn(task).abort_handle();
            self.running.insert(key, Running { question, is_answered, task });
        }
        before.into_values().for_each(|stopped| stopped.task.abort());
    }
}

async fn look_up(
    question: Question,
    permits: Arc<Semaphore>,
    is_answered: Arc<AtomicBool>,
    answers: mpsc::Sender<Answer>,
) {
    let mut known: Option<Vec<IpAddr>> = None;
    loop {
        let found = match without_asking(&question.host) {
            Some(addresses) => Ok(addresses),
            None => match permits.acquire().await {
                Ok(_permit) => system(&question.host).await,
                Err(_) => return,
            },
        };
        let mut wait = question.refresh_rate;
        let addresses = match found.map(|found| pick(&found, question.family)) {
            Ok(addresses) if !addresses.is_empty() => Some(addresses),
            failed => {
                wait = wait.min(RETRY_MAX);
                if known.is_none() && question.is_configured {
                    let error = failed
                        .err()
                        .map_or("no address of the wanted family".into(), |error| error.to_string());
                    tracing::warn!(cluster = %question.cluster, host = %question.host, %error, "name not found");
                }
                (!is_answered.load(Ordering::Relaxed)).then(Vec::new)
            }
        };
        if let Some(addresses) = addresses.filter(|addresses| is_news(known.as_deref(), addresses)) {
            known = Some(addresses.clone());
            is_answered.store(true, Ordering::Relaxed);
            let answer = Answer { cluster: question.cluster.clone(), name: question.name.clone(), addresses };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// The addresses of a host that nobody has to be asked for. `localhost` and the names below it are this machine, whatever a
/// name server says and whether or not there is an `/etc/hosts` (RFC 6761 §6.3).
fn without_asking(host: &str) -> Option<Vec<IpAddr>> {
    if let Ok(literal) = host.parse() {
        return Some(vec![literal]);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_local = name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
    is_local.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// The addresses of a host, best first.
pub async fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Some(addresses) = without_asking(host) {
        return Ok(addresses);
    }
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

/// The wanted addresses, each once, in the resolver's order of preference.
fn pick(found: &[IpAddr], family: DnsFamily) -> Vec<IpAddr> {
    let of = |wanted: fn(&IpAddr) -> bool| {
        let mut seen = BTreeSet::new();
        let fresh = found.iter().filter(|address| wanted(address) && seen.insert(**address));
        fresh.copied().take(ADDRESSES_MAX).collect::<Vec<_>>()
    };
    let or = |first: Vec<IpAddr>, wanted| if first.is_empty() { of(wanted) } else { first };
    match family {
        DnsFamily::V4Only => of(IpAddr::is_ipv4),
        DnsFamily::V6Only => of(IpAddr::is_ipv6),
        DnsFamily::V4Preferred => or(of(IpAddr::is_ipv4), IpAddr::is_ipv6),
        DnsFamily::V6Preferred => or(of(IpAddr::is_ipv6), IpAddr::is_ipv4),
        DnsFamily::All => of(|_| true),
    }
}

/// Name servers rotate their answers; the same addresses in another order are the same.
fn is_news(known: Option<&[IpAddr]>, addresses: &[IpAddr]) -> bool {
    let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
    known.is_none_or(|known| set(known) != set(addresses))
}

#[cfg(test)]
mod tests {
    use policy::{
        endpoint::{Assignment, DnsName, EndpointSpec},
        limits,
    };

    use super::*;

    /// A label of 64 letters (RFC 1035 §2.3.4 allows 63): a name that does not exist, without asking a network.
    const IMPOSSIBLE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid";

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn dns(hosts: &[&str]) -> Dns {
        let endpoint = |host: &&str| EndpointSpec::new(DnsName { host: (*host).into(), port: 80 });
        Dns {
            assignment: Assignment {
                endpoints: hosts.iter().map(endpoint).collect(),
                overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT,
            },
            refresh_rate: Duration::from_secs(3600),
            respect_ttl: false,
            family: DnsFamily::V4Preferred,
        }
    }

    #[test]
    fn the_wanted_family_is_picked_and_each_address_once() {
        let found = ips(&["10.0.0.2", "::2", "10.0.0.1", "10.0.0.2", "::1"]);
        for (family, picked) in [
            (DnsFamily::V4Only, &["10.0.0.2", "10.0.0.1"][..]),
            (DnsFamily::V6Only, &["::2", "::1"]),
            (DnsFamily::V4Preferred, &["10.0.0.2", "10.0.0.1"]),
            (DnsFamily::V6Preferred, &["::2", "::1"]),
            (DnsFamily::All, &["10.0.0.2", "::2", "10.0.0.1", "::1"]),
        ] {
            assert_eq!(pick(&found, family), ips(picked), "{family:?}");
        }
        assert_eq!(pick(&ips(&["10.0.0.1"]), DnsFamily::V6Preferred), ips(&["10.0.0.1"]));
        assert!(pick(&ips(&["10.0.0.1"]), DnsFamily::V6Only).is_empty());
    }

    #[tokio::test]
    async fn localhost_needs_nobody_who_knows_it() {
        let this_machine = ips(&["127.0.0.1", "::1"]);
        for name in ["localhost", "LocalHost", "localhost.", "a.b.localhost", "a.localhost."] {
            assert_eq!(system(name).await.unwrap(), this_machine, "{name}");
        }
        assert_ne!(system("::1").await.unwrap(), this_machine);
    }

    #[test]
    fn the_same_addresses_in_another_order_are_no_news() {
        let known = ips(&["10.0.0.1", "10.0.0.2"]);
        assert!(!is_news(Some(&known), &ips(&["10.0.0.2", "10.0.0.1"])));
        assert!(is_news(Some(&known), &ips(&["10.0.0.2"])));
        assert!(is_news(None, &[]));
    }

    #[tokio::test]
    async fn a_failure_takes_nothing_away_even_when_the_question_is_another_one() {
        let (mut resolver, mut answers) = Resolver::new();
        let asked = |name: &str, family| Question {
            cluster: "c".into(),
            name: name.into(),
            host: "127.0.0.1".into(),
            family,
            refresh_rate: Duration::from_secs(3600),
            is_configured: false,
        };
        resolver.watch([asked("a", DnsFamily::V4Only)].into_iter());
        assert_eq!(answers.recv().await.unwrap().addresses, ips(&["127.0.0.1"]));
        // Both fail, in this order and without waiting; only of the new one anything is said.
        resolver.watch(["a", "b"].map(|name| asked(name, DnsFamily::V6Only)).into_iter());
        let answer = answers.recv().await.unwrap();
        assert_eq!((&*answer.name, answer.addresses), ("b", Vec::new()));
    }

    #[tokio::test]
    async fn every_name_is_answered_once_even_one_that_does_not_exist() {
        let (mut resolver, mut answers) = Resolver::new();
        let config = dns(&["127.0.0.1", "localhost", IMPOSSIBLE]);
        let cluster: Arc<str> = "c".into();
        resolver.watch(questions(&cluster, &config));
        resolver.watch(questions(&cluster, &config));
        let mut found = Vec::new();
        for _ in 0..3 {
            let answer = answers.recv().await.unwrap();
            found.push((answer.name.to_string(), answer.addresses));
        }
        found.sort();
        let expected = [("127.0.0.1", &["127.0.0.1"][..]), ("localhost", &["127.0.0.1"]), (IMPOSSIBLE, &[])];
        assert_eq!(found, expected.map(|(host, addresses)| (host.to_owned(), ips(addresses))));
        resolver.watch(std::iter::empty());
        assert!(resolver.running.is_empty());
        drop(resolver);
        assert!(answers.recv().await.is_none(), "a name that nobody wants is not looked up any more");
    }
}
