//! Endpoints that are said to be unwell: UP-07.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    client::Answer,
    ledger::{Meant, Unsafe, Verdict},
    subject::Setting,
    trial::Trials,
    world::World,
};

/// What is said of three endpoints, and who must be reached.
struct Case {
    name: &'static str,
    /// Health and priority.
    endpoints: [(&'static str, u32); 3],
    /// Share of healthy ones below which health is ignored; the default is half.
    panic_threshold: Option<u32>,
    /// Positions of those that get requests; nobody is 503.
    reached: &'static [usize],
}

const CASES: [Case; 10] = [
    case("all-well", [("HEALTHY", 0), ("UNKNOWN", 0), ("HEALTHY", 0)], None, &[0, 1, 2]),
    case("two-of-three", [("HEALTHY", 0), ("UNHEALTHY", 0), ("HEALTHY", 0)], None, &[0, 2]),
    case("panic-one-of-three", [("HEALTHY", 0), ("UNHEALTHY", 0), ("UNHEALTHY", 0)], None, &[0, 1, 2]),
    case("panic-of-every-kind", [("DRAINING", 0), ("TIMEOUT", 0), ("UNHEALTHY", 0)], None, &[0, 1, 2]),
    case("no-panic-one", [("UNHEALTHY", 0), ("HEALTHY", 0), ("DRAINING", 0)], Some(0), &[1]),
    case("no-panic-none", [("UNHEALTHY", 0), ("TIMEOUT", 0), ("DRAINING", 0)], Some(0), &[]),
    case("degraded-help-out", [("HEALTHY", 0), ("DEGRADED", 0), ("UNHEALTHY", 0)], Some(0), &[0, 1]),
    case("the-next-priority", [("UNHEALTHY", 0), ("HEALTHY", 1), ("HEALTHY", 1)], None, &[1, 2]),
    case("panic-at-every-priority", [("UNHEALTHY", 0), ("UNHEALTHY", 1), ("UNHEALTHY", 1)], None, &[0, 1, 2]),
    case("panic-at-one-priority", [("UNHEALTHY", 0), ("HEALTHY", 1), ("UNHEALTHY", 1)], Some(90), &[0, 1, 2]),
];

const fn case(
    name: &'static str,
    endpoints: [(&'static str, u32); 3],
    panic_threshold: Option<u32>,
    reached: &'static [usize],
) -> Case {
    Case { name, endpoints, panic_threshold, reached }
}

/// Requests of a case: enough for shares that are not drawn by turns.
const REQUESTS: usize = 60;

/// Health is followed while enough are well, and ignored where too few are; an endpoint that nobody can reach fails no
/// request then either. Nothing is ejected by what it answers: that is not built.
pub(crate) fn panic_threshold(trials: &mut Trials<'_>) {
    let clusters = CASES.iter().map(|case| case.cluster(trials.world)).collect();
    let setting = Setting { clusters, ..Setting::default() };
    trials.with(&setting, |trials| {
        for case in &CASES {
            requests(trials, case, case.reached);
        }
        let three = &trials.world.three;
        three[1].kill();
        for case in CASES.iter().filter(|case| case.reached.len() == 3) {
            requests(trials, case, &[0, 2]);
        }
        three[1].revive();
    });
}

impl Case {
    fn cluster(&self, world: &World) -> (String, String) {
        let endpoints = self.endpoints.iter().zip(&world.three).map(|((health, priority), origin)| {
            let (ip, port) = (origin.address.ip(), origin.address.port());
            format!(
                "{{priority: {priority}, lb_endpoints: [{{health_status: {health}, endpoint: {{address: \
                 {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}"
            )
        });
        let endpoints: Vec<String> = endpoints.collect();
        let threshold = self
            .panic_threshold
            .map(|percent| format!("common_lb_config: {{healthy_panic_threshold: {{value: {percent}}}}}, "));
        let text = format!(
            "type: STATIC, connect_timeout: 1s, {}load_assignment: {{cluster_name: {}, endpoints: [{}]}}",
            threshold.unwrap_or_default(),
            self.name,
            endpoints.join(", ")
        );
        (self.name.to_owned(), text)
    }
}

/// All are answered, by those that must be reached, each of which gets some.
fn requests(trials: &mut Trials<'_>, case: &Case, reached: &[usize]) {
    let first = trials.origin.log().requests.len();
    let target = format!("/{}", case.name);
    let mut client = trials.connect();
    for _ in 0..REQUESTS {
        let mut verdict = Verdict::default();
        let id = trials.enter(Meant::new("GET", &target, b""));
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n").as_bytes());
        match client.answer("GET") {
            Answer::Whole(message) if reached.is_empty() && message.head.status() == 503 => {}
            answer if !reached.is_empty() => verdict.expect_echo(case.name, id, answer),
            _ => verdict.unexpected = Some("no 503".to_owned()),
        }
        trials.judge(&mut verdict);
        trials.tally.count(case.name, verdict);
    }
    let mut verdict = Verdict::default();
    let asked: BTreeSet<SocketAddr> = trials.origin.log().requests[first..].iter().map(|of| of.at).collect();
    let wanted = reached.iter().map(|at| trials.world.three[*at].address).collect();
    if asked != wanted {
        let what = format!("{asked:?} got requests in place of {wanted:?}");
        match asked.is_subset(&wanted) {
            true => verdict.unexpected = Some(what),
            false => verdict.found.push((Unsafe::Smuggled, what)),
        }
    }
    trials.tally.count(&format!("who was reached: {}", case.name), verdict);
}
