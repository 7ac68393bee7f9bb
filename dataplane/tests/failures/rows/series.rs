//! More names than anybody has: RES-12.

use crate::{
    client::{Answer, Client},
    ledger::{Meant, Unsafe, Verdict},
    subject::{Setting, Subject},
    trial::Trials,
};

/// Requests, each with a host, a path and an id of its own.
const REQUESTS: usize = 10_000;

/// How many of them are sent before the first is answered.
const AT_ONCE: usize = 50;

/// What the second half of them may add to what is resident: less than a record of each would.
const GROWTH_KIB_MAX: usize = 256;

/// Hosts that a proxy for any host keeps at a time, and how many it is asked for.
const HOSTS: (usize, usize) = (40, 200);

/// Hosts, paths, ids and methods of requests make no series of metrics, and nothing is kept of them.
pub(crate) fn distinct_names(trials: &mut Trials<'_>) {
    let mut client = trials.connect();
    requests(trials, &mut client, 0..AT_ONCE);
    let before = series(trials.subject);
    let all = if trials.subject.kind.is_thorough() { REQUESTS } else { REQUESTS / 10 };
    let half = all / 2;
    requests(trials, &mut client, AT_ONCE..half);
    let resident = trials.subject.process.resident_kib();
    requests(trials, &mut client, half..all);
    let growth = trials.subject.process.resident_kib().saturating_sub(resident);
    let mut verdict = Verdict::default();
    let after = series(trials.subject);
    if after != before {
        verdict.found.push((Unsafe::Broken, format!("{before} lines of metrics became {after}")));
    }
    if growth > GROWTH_KIB_MAX && trials.subject.kind.is_thorough() {
        verdict.found.push((Unsafe::Broken, format!("{growth} KiB more for {half} requests")));
    }
    trials.tally.count("what is kept", verdict);
    trials
        .tally
        .notes
        .push(format!("{after} lines of metrics, {growth} KiB more for the last {half} requests"));
    any_hosts(trials);
}

fn requests(trials: &mut Trials<'_>, client: &mut Client, numbers: std::ops::Range<usize>) {
    let numbers: Vec<usize> = numbers.collect();
    for batch in numbers.chunks(AT_ONCE) {
        if trials.has_enough() {
            return;
        }
        let (mut ids, mut bytes) = (Vec::new(), Vec::new());
        for n in batch {
            let method = if n % 3 == 0 { format!("BREW{n}") } else { "GET".to_owned() };
            let target = format!("/{n}?n={n}");
            let id = trials.enter(Meant::new(&method, &target, b""));
            let head = format!(
                "{method} {target} HTTP/1.1\r\nHost: host-{n}.test\r\nX-Id: {id}\r\nX-Request-Id: {n}\r\nX-{n}: {n}\r\n\r\n"
            );
            bytes.extend(head.as_bytes());
            ids.push(id);
        }
        client.send(&bytes);
        for id in ids {
            let mut verdict = Verdict::default();
            verdict.expect_echo("a request", id, client.answer("GET"));
            trials.tally.count("requests of distinct names", verdict);
        }
    }
    let mut verdict = Verdict::default();
    trials.judge(&mut verdict);
    trials.tally.count("what the origin got", verdict);
}

/// Where requests say to which host they go, hosts are kept: so many and no more.
fn any_hosts(trials: &mut Trials<'_>) {
    let cluster = format!(
        "lb_policy: CLUSTER_PROVIDED, connect_timeout: 1s, cluster_type: {{name: any, typed_config: {{\
         \"@type\": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig, \
         dns_cache_config: {{name: any, max_hosts: {}}}}}}}",
        HOSTS.0
    );
    let clusters = vec![("any".to_owned(), cluster)];
    let setting = Setting { clusters, ..Setting::default() };
    trials.with(&setting, |trials| {
        let origin = trials.origin.address;
        any_host(trials, &[origin.to_string()], true);
        let before = series(trials.subject);
        let hosts: Vec<String> =
            (0..HOSTS.1).map(|n| format!("127.7.{}.{}:{}", n / 250, n % 250 + 1, origin.port())).collect();
        for hosts in hosts.chunks(AT_ONCE) {
            any_host(trials, hosts, false);
        }
        // Whoever was known stays.
        any_host(trials, &[origin.to_string()], true);
        let after = series(trials.subject);
        let mut verdict = Verdict::default();
        if after != before {
            verdict.found.push((Unsafe::Broken, format!("{before} lines of metrics became {after}")));
        }
        trials.tally.count("what is kept of hosts", verdict);
    });
}

/// Requests to these hosts at once; they are there, or the answer is that they are not or are too many.
fn any_host(trials: &mut Trials<'_>, hosts: &[String], are_there: bool) {
    let mut asked = Vec::new();
    for host in hosts {
        let id = trials.enter(Meant::new("GET", "/any", b""));
        let mut client = trials.connect();
        client.send(format!("GET /any HTTP/1.1\r\nHost: {host}\r\nX-Id: {id}\r\n\r\n").as_bytes());
        asked.push((id, client));
    }
    for (id, mut client) in asked {
        let mut verdict = Verdict::default();
        match client.answer("GET") {
            Answer::Whole(message) if !are_there && message.head.status() == 503 => {}
            answer => verdict.expect_echo("a request that names its host", id, answer),
        }
        trials.tally.count("requests that name their hosts", verdict);
    }
}

/// Lines of its metrics.
fn series(subject: &Subject) -> usize {
    subject.process.ask("/stats/prometheus", subject.patience).unwrap_or_default().lines().count()
}
