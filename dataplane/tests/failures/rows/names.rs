//! Names of upstreams that cannot be looked up: UP-08.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::{
    apart,
    client::Answer,
    ledger::{Meant, Unsafe, Verdict},
    name_server::{NameServer, Says},
    recorder::Recorder,
    subject::Setting,
    trial::Trials,
};

/// Where a name is first, and where it is at last.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const LAST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// What a wrong answer leads to, if it is believed.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// Where the system's resolver asks, in the network of this row.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// Names, and what is said of them after they were known.
fn failures() -> Vec<(&'static str, Says)> {
    vec![
        ("nxdomain", Says::Code(3)),
        ("servfail", Says::Code(2)),
        ("not-served", Says::Code(5)),
        ("empty", Says::Code(0)),
        ("silence", Says::Silence),
        ("truncated", Says::Truncated),
        ("loop", Says::Loop),
        ("forged", Says::Forged),
        ("foreign", Says::Foreign),
        ("garbage", Says::Garbage),
        // These fail in nothing.
        ("no-time", Says::Addresses(vec![FIRST], 0)),
        ("thousand", Says::Addresses(thousand(), 60)),
    ]
}

/// Names that are not known when the proxy starts, and why.
fn never() -> Vec<(&'static str, Says)> {
    vec![("unknown", Says::Code(3)), ("untold", Says::Silence), ("unending", Says::Loop)]
}

/// More addresses than fit into a datagram, all of them of this machine.
fn thousand() -> Vec<Ipv4Addr> {
    (0..1000).map(|n: u16| Ipv4Addr::from_octets([127, 9, n.to_be_bytes()[0], n.to_be_bytes()[1]])).collect()
}

/// Whatever the name server says, nothing that was known is lost, a wrong answer is not believed, nobody waits for one, and
/// what comes then counts.
pub(crate) fn look_ups(trials: &mut Trials<'_>) {
    if !trials.subject.kind.is_thorough() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("resolv.conf"), RESOLVER).expect("a temporary file");
    fs::write(folder.path().join("nsswitch.conf"), "hosts: files dns\n").expect("a temporary file");
    let script =
        "for name in resolv nsswitch; do mount --bind \"$0/$name.conf\" /etc/$name.conf || exit; done";
    let runner = match apart::with_mounts(script, folder.path()) {
        Ok(runner) => runner,
        Err(why) => return trials.tally.not_tried.push(format!("a resolver of its own: {why}")),
    };
    trials.elsewhere(|trials| {
        let everywhere = trials.origin.everywhere();
        let names = NameServer::start(SERVER);
        let mut clusters = Vec::new();
        for (name, _) in failures() {
            names.say(&host_of(name), Says::Addresses(vec![FIRST], 1));
            clusters.push(cluster(name, &everywhere));
        }
        for (name, says) in never() {
            names.say(&host_of(name), says);
            clusters.push(cluster(name, &everywhere));
        }
        trials.with(&Setting { runner, clusters, ..Setting::default() }, |trials| {
            known_and_lost(trials, &names)
        });
    });
}

/// What the system's resolver is told: whom to ask, once and for a second, and to add nothing to a name.
const RESOLVER: &str = "nameserver 127.0.0.1\nsearch .\noptions timeout:1 attempts:1\n";

fn host_of(name: &str) -> String {
    format!("{name}.names.test")
}

fn cluster(name: &str, origin: &Recorder) -> (String, String) {
    let (host, port) = (host_of(name), origin.address.port());
    let text = format!(
        "type: STRICT_DNS, dns_refresh_rate: 0.1s, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: \
         {port}}}}}}}}}]}}]}}"
    );
    (name.to_owned(), text)
}

fn known_and_lost(trials: &mut Trials<'_>, names: &NameServer) {
    for (name, _) in failures() {
        expect_answer(trials, name, "while it is known");
    }
    for (name, _) in never() {
        expect_none(trials, name);
    }
    let mut asked = Vec::new();
    for (name, says) in failures() {
        asked.push(names.asked(&host_of(name)));
        names.say(&host_of(name), says);
    }
    for ((name, says), asked) in failures().into_iter().zip(asked) {
        let mut verdict = Verdict::default();
        // A look-up asks twice, for two kinds of addresses; that the next one begins tells that one is over.
        if !names.is_asked(&host_of(name), asked + 4, trials.subject.patience) {
            verdict.found.push((Unsafe::Lost, "it is not looked up any more".to_owned()));
        }
        trials.tally.count(&format!("{name}: looked up again"), verdict);
        for _ in 0..5 {
            expect_answer(trials, name, "when that was said");
            expect_answer(trials, "plain", "meanwhile");
        }
        if let Says::Addresses(all, _) = says {
            expect_reached(trials, name, |ip| all.contains(&ip));
        }
    }
    let all = failures().into_iter().chain(never());
    all.clone().for_each(|(name, _)| names.say(&host_of(name), Says::Addresses(vec![LAST], 1)));
    all.for_each(|(name, _)| expect_reached(trials, name, |ip| ip == LAST));
    let mut verdict = Verdict::default();
    let stuck = trials.subject.metric("envoy_server_watchdog_miss");
    if stuck > 0.0 {
        verdict.found.push((Unsafe::Broken, format!("workers were stuck {stuck} times")));
    }
    trials.tally.count("that no worker waited", verdict);
}

/// A request to where this name leads.
fn request(trials: &mut Trials<'_>, name: &str) -> (u64, Answer) {
    let id = trials.enter(Meant::new("GET", &format!("/{name}"), b""));
    let mut client = trials.connect();
    client.send(format!("GET /{name} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
    (id, client.answer("GET"))
}

/// It is answered, and nobody else was asked.
fn expect_answer(trials: &mut Trials<'_>, name: &str, when: &str) {
    let mut verdict = Verdict::default();
    let (id, answer) = request(trials, name);
    verdict.expect_echo(name, id, answer);
    if let Some(why) = verdict.unexpected.take() {
        verdict.found.push((Unsafe::Lost, why));
    }
    trials.judge(&mut verdict);
    if reached(trials, id) == Some(NOWHERE) {
        verdict.found.push((Unsafe::Smuggled, "a wrong answer was believed".to_owned()));
    }
    trials.tally.count(&format!("{name}, {when}"), verdict);
}

/// Nobody knows it: told as what it is.
fn expect_none(trials: &mut Trials<'_>, name: &str) {
    let mut verdict = Verdict::default();
    match request(trials, name).1 {
        Answer::Whole(message) if message.head.status() == 503 => {}
        Answer::Whole(message) => verdict.unexpected = Some(message.head.status().to_string()),
        _ => verdict.found.push((Unsafe::Lost, "no answer".to_owned())),
    }
    trials.tally.count(&format!("{name}, never known"), verdict);
}

/// Requests until one arrives at such an address.
fn expect_reached(trials: &mut Trials<'_>, name: &str, is_it: impl Fn(Ipv4Addr) -> bool) {
    let mut verdict = Verdict::default();
    let subject = trials.subject;
    let is_reached = subject.soon(|_| {
        let (id, _) = request(trials, name);
        reached(trials, id).is_some_and(&is_it)
    });
    if !is_reached {
        verdict.found.push((Unsafe::Lost, "what is said at last does not count".to_owned()));
    }
    trials.judge(&mut verdict);
    trials.tally.count(&format!("{name}, when more was said"), verdict);
}

/// The address at which the request with this id arrived.
fn reached(trials: &Trials<'_>, id: u64) -> Option<Ipv4Addr> {
    let log = trials.origin.log();
    let recorded = log.requests.iter().rev().find(|recorded| recorded.id == Some(id))?;
    match recorded.at.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}
