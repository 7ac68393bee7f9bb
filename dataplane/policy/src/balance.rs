//! Which endpoint of a cluster takes an exchange: priorities and health first, then the balancing policy by weight.
//!
//! Health comes from the configuration only, so who may be picked, with which share and which weight, is worked out
//! once when the set is made. A pick is then arithmetic on a few numbers.

mod tier;

use alloc::{collections::BTreeMap, vec::Vec};

use self::tier::{Tier, tiers};
use crate::{
    Rng,
    cluster::config::{Balance, ClusterConfig},
    endpoint::{Endpoint, EndpointId},
    limits,
};

/// The endpoints of a cluster, ready to pick from.
#[derive(Debug)]
pub struct EndpointSet {
    endpoints: Vec<Endpoint>,
    tiers: Vec<Tier>,
}

/// Where one worker's round robin stands in one cluster.
#[derive(Clone, Debug, Default)]
pub struct PickState {
    /// By tier.
    positions: Vec<u64>,
}

impl PickState {
    /// A state for `set` that starts anywhere: proxies that start together do not all begin with the same endpoint.
    pub fn new(set: &EndpointSet, rng: &mut Rng) -> PickState {
        PickState { positions: set.tiers.iter().map(|tier| rng.below(tier.total())).collect() }
    }
}

impl EndpointSet {
    /// Works out who may be picked. `overprovisioning_percent` is how far the healthy share of a priority is stretched
    /// before load spills to the next.
    pub fn new(
        config: &ClusterConfig,
        endpoints: Vec<Endpoint>,
        overprovisioning_percent: u32,
    ) -> EndpointSet {
        let weights = weights(&endpoints, config.locality_weighted);
        let threshold = config.panic_threshold_percent;
        let tiers = tiers(&endpoints, &weights, overprovisioning_percent, threshold);
        EndpointSet { endpoints, tiers }
    }

    /// All endpoints, in the order of the configuration.
    pub fn all(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// An endpoint that is not in `avoid`; see [`Cluster::pick_endpoint`](crate::cluster::Cluster::pick_endpoint).
    pub fn pick(
        &self,
        balance: Balance,
        state: &mut PickState,
        rng: &mut Rng,
        avoid: &[EndpointId],
    ) -> Option<&Endpoint> {
        let (at, tier) = self.tier(rng)?;
        let picked = match balance {
            Balance::RoundRobin => match state.positions.get_mut(at) {
                Some(position) => tier.next(position),
                None => tier.at(rng.below(tier.total())),
            },
            Balance::Random => tier.at(rng.below(tier.total())),
            Balance::LeastRequest { choices } => self.least_request(tier, choices, rng),
        };
        let endpoint = self.endpoints.get(picked? as usize)?;
        if !avoid.contains(&endpoint.state.id()) {
            return Some(endpoint);
        }
        self.any_but(tier, rng, avoid)
    }

    /// The priority level (healthy or degraded part) that this pick falls on.
    fn tier(&self, rng: &mut Rng) -> Option<(usize, &Tier)> {
        if let [tier] = &self.tiers[..] {
            return Some((0, tier));
        }
        let point = rng.below(100) as u32;
        self.tiers.iter().enumerate().find(|(_, tier)| point < tier.share_end)
    }

    /// The least loaded of `choices` different members, drawn by weight. Load is exchanges in flight per weight; between
    /// equals the first drawn wins, so that idle endpoints are used in proportion to their weights.
    fn least_request(&self, tier: &Tier, choices: usize, rng: &mut Rng) -> Option<u32> {
        let members = tier.members_count();
        if members <= choices {
            // All are looked at; the start is drawn so that ties do not always go to the first.
            let start = tier.index_at(rng.below(tier.total()));
            return self.least_loaded(tier, (0..members).map(|step| (start + step) % members));
        }
        let mut drawn = [0usize; limits::LEAST_REQUEST_CHOICES_MAX];
        let mut count = 0;
        for _ in 0..choices.clamp(1, limits::LEAST_REQUEST_CHOICES_MAX) {
            let mut index = tier.index_at(rng.below(tier.total()));
            // Drawing again until it differs could take long under one heavy weight: the next free neighbour will do.
            while drawn.get(..count).is_some_and(|drawn| drawn.contains(&index)) {
                index = (index + 1) % members;
            }
            if let Some(slot) = drawn.get_mut(count) {
                *slot = index;
                count += 1;
            }
        }
        self.least_loaded(tier, drawn.into_iter().take(count))
    }

    fn least_loaded(&self, tier: &Tier, indices: impl Iterator<Item = usize>) -> Option<u32> {
        let mut best: Option<(u32, u128, u128)> = None;
        for index in indices {
            let Some((member, weight)) = tier.member(index) else { continue };
            let Some(endpoint) = self.endpoints.get(member as usize) else { continue };
            let (load, weight) = (u128::from(endpoint.state.in_flight()), u128::from(weight));
            // load / weight < best load / best weight, without a division.
            if best.is_none_or(|(_, best_load, best_weight)| load * best_weight < best_load * weight) {
                best = Some((member, load, weight));
            }
        }
        best.map(|(member, ..)| member)
    }

    /// Any member that is not in `avoid`, of this tier if it has one. Only after a failure, so a scan is cheap enough.
    fn any_but(&self, tier: &Tier, rng: &mut Rng, avoid: &[EndpointId]) -> Option<&Endpoint> {
        let mut find = |tier: &Tier| {
            let members = tier.members_count();
            let start = tier.index_at(rng.below(tier.total()));
            (0..members).find_map(|step| {
                let (member, _) = tier.member((start + step) % members)?;
                self.endpoints.get(member as usize).filter(|endpoint| !avoid.contains(&endpoint.state.id()))
            })
        };
        find(tier).or_else(|| self.tiers.iter().find_map(find))
    }
}

/// Each endpoint's weight; with weighted localities its share of its locality's weight, by one scale.
///
/// This flattens localities into endpoints: load is shared as the locality weights say while all endpoints are healthy.
/// Envoy further takes from a locality what its unhealthy endpoints cannot carry only past its overprovisioning factor;
/// here it shrinks at once with each of them.
fn weights(endpoints: &[Endpoint], locality_weighted: bool) -> Vec<u64> {
    if !locality_weighted {
        return endpoints.iter().map(|endpoint| u64::from(endpoint.spec.weight.get())).collect();
    }
    // Locality weight × endpoint weight / sum of endpoint weights: the factor keeps the quotient from vanishing.
    const SCALE: u128 = 1 << 16;
    let mut sums: BTreeMap<_, u128> = BTreeMap::new();
    for endpoint in endpoints {
        let key = (endpoint.spec.priority, &endpoint.spec.locality);
        *sums.entry(key).or_default() += u128::from(endpoint.spec.weight.get());
    }
    let weight = |endpoint: &Endpoint| {
        let key = (endpoint.spec.priority, &endpoint.spec.locality);
        let Some(locality) = endpoint.spec.locality.weight else { return 0 };
        let sum = sums.get(&key).copied().unwrap_or(1).max(1);
        let share = u128::from(locality.get()) * u128::from(endpoint.spec.weight.get()) * SCALE / sum;
        u64::try_from(share.max(1)).unwrap_or(u64::MAX)
    };
    endpoints.iter().map(weight).collect()
}

#[cfg(test)]
mod tests;
