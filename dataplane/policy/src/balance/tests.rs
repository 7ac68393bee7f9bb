//! Tests of whole picks. All random numbers come from seeds, so every count is exact.

use std::{format, vec};

use alloc::{sync::Arc, vec::Vec};
use core::num::NonZeroU32;

use super::*;
use crate::{
    cluster::{Cluster, Discovery},
    endpoint::{Assignment, EndpointIds, EndpointSpec, Health, Locality, WorkerId},
    snapshot::Address,
};

const LEAST_REQUEST: Balance = Balance::LeastRequest { choices: 2 };

/// Endpoint number `i` of weight `weight`.
fn spec(i: usize, weight: u32) -> EndpointSpec {
    let address = Address::Pipe(format!("{i}").into());
    EndpointSpec { weight: NonZeroU32::new(weight).unwrap(), ..EndpointSpec::new(address) }
}

fn weighing(weights: &[u32]) -> Vec<EndpointSpec> {
    weights.iter().enumerate().map(|(i, weight)| spec(i, *weight)).collect()
}

fn in_state(health: &[Health]) -> Vec<EndpointSpec> {
    let specs = health.iter().enumerate();
    specs.map(|(i, health)| EndpointSpec { health: *health, ..spec(i, 1) }).collect()
}

fn cluster_with(endpoints: Vec<EndpointSpec>, change: impl Fn(&mut ClusterConfig)) -> Cluster {
    let mut config = ClusterConfig::new("c".into(), Discovery::Eds { service_name: "c".into() });
    change(&mut config);
    let assignment =
        Assignment { endpoints, overprovisioning_percent: limits::OVERPROVISIONING_PERCENT_DEFAULT };
    Cluster::assemble(Arc::new(config), &assignment, None, &mut EndpointIds::default(), 2)
}

fn cluster(balance: Balance, endpoints: Vec<EndpointSpec>) -> Cluster {
    cluster_with(endpoints, |config| config.balance = balance)
}

/// One worker's view of a cluster.
struct Picker<'a> {
    cluster: &'a Cluster,
    state: PickState,
    rng: Rng,
}

impl<'a> Picker<'a> {
    fn new(cluster: &'a Cluster, seed: u64) -> Picker<'a> {
        let mut rng = Rng::new(seed);
        Picker { state: PickState::new(&cluster.endpoints, &mut rng), rng, cluster }
    }

    fn pick(&mut self, avoid: &[EndpointId]) -> Option<&'a Endpoint> {
        self.cluster.pick_endpoint(None, &mut self.state, &mut self.rng, avoid)
    }

    /// The numbers of the next `count` endpoints.
    fn numbers(&mut self, count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| self.pick(&[])).map(number).collect()
    }

    /// How often each endpoint is among the next `count`.
    fn counts(&mut self, count: usize) -> Vec<usize> {
        let mut counts = vec![0; self.cluster.endpoints.all().len()];
        for number in self.numbers(count) {
            counts[number] += 1;
        }
        counts
    }
}

fn number(endpoint: &Endpoint) -> usize {
    let Address::Pipe(name) = &endpoint.spec.address else { panic!("test endpoints are pipes") };
    name.parse().unwrap()
}

#[test]
fn round_robin_takes_equal_endpoints_in_order_from_anywhere() {
    let cluster = cluster(Balance::RoundRobin, weighing(&[7; 4]));
    let mut starts = Vec::new();
    for seed in 0..32 {
        let numbers = Picker::new(&cluster, seed).numbers(9);
        for pair in numbers.windows(2) {
            assert_eq!(pair[1], (pair[0] + 1) % 4, "{numbers:?}");
        }
        starts.push(numbers[0]);
    }
    starts.sort();
    starts.dedup();
    assert_eq!(starts, [0, 1, 2, 3]);
}

#[test]
fn weighted_round_robin_is_exact_over_every_turn_and_spread_out() {
    for weights in [&[3, 1][..], &[5, 1, 1], &[2, 4, 6, 8], &[100, 1, 1], &[1_000_000, 999_999], &[95, 5]] {
        let cluster = cluster(Balance::RoundRobin, weighing(weights));
        let divisor = if weights.iter().all(|weight| weight % 2 == 0) { 2 } else { 1 };
        let reduced: Vec<usize> = weights.iter().map(|weight| *weight as usize / divisor).collect();
        let total: usize = reduced.iter().sum();
        let mut picker = Picker::new(&cluster, 3);
        if total < 1_000 {
            for _ in 0..5 {
                assert_eq!(picker.counts(total), reduced, "one turn of {weights:?}");
            }
        }
        // At any moment each endpoint is close to its share.
        let mut counts = vec![0; weights.len()];
        for picks in 1..=2_000 {
            counts[picker.numbers(1)[0]] += 1;
            for (count, weight) in counts.iter().zip(&reduced) {
                let owed = picks as f64 * *weight as f64 / total as f64;
                assert!((*count as f64 - owed).abs() < 3.0, "{weights:?}: {counts:?} after {picks} picks");
            }
        }
    }
}

#[test]
fn two_workers_do_not_share_a_position() {
    let cluster = cluster(Balance::RoundRobin, weighing(&[1; 3]));
    let (mut one, mut two) = (Picker::new(&cluster, 1), Picker::new(&cluster, 2));
    let first = one.numbers(1)[0];
    two.numbers(5);
    assert_eq!(one.numbers(1)[0], (first + 1) % 3);
}

#[test]
fn a_position_of_another_set_of_endpoints_is_no_error() {
    let (large, small) =
        (cluster(Balance::RoundRobin, weighing(&[1; 50])), cluster(Balance::RoundRobin, weighing(&[1; 2])));
    let mut picker = Picker::new(&large, 5);
    picker.state.positions = vec![49];
    picker.cluster = &small;
    assert_eq!(picker.counts(10), [5, 5]);
    picker.state = PickState::default();
    assert_eq!(picker.counts(10).iter().sum::<usize>(), 10);
}

#[test]
fn random_follows_the_weights() {
    let cluster = cluster(Balance::Random, weighing(&[1, 2, 7]));
    let counts = Picker::new(&cluster, 9).counts(10_000);
    for (count, expected) in counts.iter().zip([1_000, 2_000, 7_000_i64]) {
        assert!((*count as i64 - expected).abs() < 150, "{counts:?}");
    }
}

#[test]
fn least_request_never_takes_the_most_loaded_and_looks_at_two_different_ones() {
    for members in [2, 3, 5] {
        let cluster = cluster(LEAST_REQUEST, weighing(&vec![1; members]));
        cluster.endpoints.all()[0].state.begin(WorkerId(1));
        // The busy one loses against whichever other one is drawn; were one drawn twice, it would win.
        let counts = Picker::new(&cluster, 4).counts(1_000);
        assert_eq!(counts[0], 0, "{counts:?}");
        cluster.endpoints.all()[0].state.finish(WorkerId(1));
        let counts = Picker::new(&cluster, 4).counts(1_000);
        assert!(counts.iter().all(|count| *count > 600 / members), "{counts:?}");
    }
}

#[test]
fn least_request_fills_endpoints_in_proportion_to_their_weights() {
    let weights = [1, 2, 5];
    let cluster = cluster(Balance::LeastRequest { choices: 3 }, weighing(&weights));
    let mut picker = Picker::new(&cluster, 6);
    for _ in 0..800 {
        picker.pick(&[]).unwrap().state.begin(WorkerId(0));
    }
    let in_flight: Vec<u32> =
        cluster.endpoints.all().iter().map(|endpoint| endpoint.state.in_flight()).collect();
    for (count, weight) in in_flight.iter().zip(weights) {
        assert!(count.abs_diff(weight * 100) <= 4, "{in_flight:?}");
    }
    // Idle ones, too, although nothing tells them apart then.
    let idle = super::tests::cluster(LEAST_REQUEST, weighing(&weights));
    let counts = Picker::new(&idle, 6).counts(8_000);
    for (count, weight) in counts.iter().zip(weights) {
        assert!(count.abs_diff(weight as usize * 1_000) < 200, "{counts:?}");
    }
}

#[test]
fn least_request_looks_at_as_many_as_it_is_told() {
    let cluster = cluster(Balance::LeastRequest { choices: 16 }, weighing(&[1; 17]));
    for endpoint in &cluster.endpoints.all()[2..] {
        endpoint.state.begin(WorkerId(0));
    }
    // Two are idle and sixteen of seventeen are drawn: an idle one always wins.
    let counts = Picker::new(&cluster, 8).counts(500);
    assert_eq!(counts[0] + counts[1], 500, "{counts:?}");
}

#[test]
fn an_endpoint_to_avoid_is_not_picked_and_the_last_one_to_avoid_leaves_none() {
    for balance in [Balance::RoundRobin, Balance::Random, LEAST_REQUEST] {
        let cluster = cluster(balance, weighing(&[1_000_000, 1, 1]));
        let ids: Vec<EndpointId> =
            cluster.endpoints.all().iter().map(|endpoint| endpoint.state.id()).collect();
        let mut picker = Picker::new(&cluster, 2);
        for _ in 0..50 {
            assert_ne!(number(picker.pick(&ids[..1]).unwrap()), 0);
            assert_eq!(number(picker.pick(&ids[..2]).unwrap()), 2);
            assert!(picker.pick(&ids).is_none());
        }
    }
    assert!(Picker::new(&cluster(Balance::RoundRobin, vec![]), 0).pick(&[]).is_none());
}

#[test]
fn a_connect_failure_moves_to_the_next_priority_when_its_own_has_no_other() {
    // The unhealthy one keeps priority 0 from carrying all load, so both priorities are in use.
    let mut endpoints = in_state(&[Health::Healthy, Health::Healthy, Health::Healthy, Health::Unhealthy]);
    (endpoints[1].priority, endpoints[2].priority) = (1, 1);
    let cluster = cluster(Balance::RoundRobin, endpoints);
    let id = cluster.endpoints.all()[0].state.id();
    for seed in 0..20 {
        let mut picker = Picker::new(&cluster, seed);
        assert!([1, 2].contains(&number(picker.pick(&[id]).unwrap())));
    }
}

#[test]
fn unhealthy_endpoints_are_picked_only_in_panic() {
    use Health::{Degraded, Draining, Healthy, Timeout, Unhealthy, Unknown};
    let rows: [(&[Health], u8, &[usize]); 9] = [
        (&[Healthy, Unknown, Unhealthy], 50, &[0, 1]),
        (&[Healthy, Draining, Timeout, Healthy], 50, &[0, 3]),
        // One of three is a third: panic.
        (&[Healthy, Unhealthy, Unhealthy], 50, &[0, 1, 2]),
        (&[Healthy, Unhealthy, Unhealthy], 0, &[0]),
        (&[Healthy, Unhealthy, Unhealthy], 33, &[0]),
        (&[Healthy, Unhealthy, Unhealthy], 34, &[0, 1, 2]),
        (&[Unhealthy, Unhealthy], 50, &[0, 1]),
        (&[Unhealthy, Unhealthy], 0, &[]),
        // Healthy ones carry what they can, degraded ones the rest.
        (&[Healthy, Degraded, Degraded], 0, &[0, 1, 2]),
    ];
    for (health, panic_threshold_percent, expected) in rows {
        let cluster =
            cluster_with(in_state(health), |config| config.panic_threshold_percent = panic_threshold_percent);
        let mut numbers = Picker::new(&cluster, 1).numbers(200);
        numbers.sort();
        numbers.dedup();
        assert_eq!(numbers, expected, "{health:?} with threshold {panic_threshold_percent}");
    }
}

#[test]
fn load_spills_to_the_next_priority_by_what_the_first_cannot_carry() {
    // Half of priority 0 is healthy: stretched by 1.4 it carries 70 %.
    let mut endpoints = in_state(&[Health::Healthy, Health::Unhealthy, Health::Healthy]);
    endpoints[2].priority = 1;
    let counts = Picker::new(&cluster(Balance::RoundRobin, endpoints), 12).counts(10_000);
    assert!((6_850..7_150).contains(&counts[0]), "{counts:?}");
    assert_eq!((counts[1], counts[0] + counts[2]), (0, 10_000));
}

#[test]
fn localities_share_load_by_their_weights_when_the_cluster_says_so() {
    let locality = |zone: &str, weight| {
        Arc::new(Locality { zone: zone.into(), weight: NonZeroU32::new(weight), ..Locality::default() })
    };
    // Zone a: weight 3 over one endpoint; zone b: weight 1 over 1:2; zone c has none.
    let mut endpoints = weighing(&[5, 10, 20, 1]);
    endpoints[0].locality = locality("a", 3);
    endpoints[1].locality = locality("b", 1);
    endpoints[2].locality = locality("b", 1);
    endpoints[3].locality = locality("c", 0);
    let weighted = cluster_with(endpoints.clone(), |config| config.locality_weighted = true);
    let counts = Picker::new(&weighted, 7).counts(12_000);
    for (count, expected) in counts.iter().zip([9_000, 1_000, 2_000, 0usize]) {
        assert!(count.abs_diff(expected) <= 3, "{counts:?}");
    }
    let plain = cluster_with(endpoints, |_| {});
    assert_eq!(Picker::new(&plain, 7).counts(36), [5, 10, 20, 1]);
}
