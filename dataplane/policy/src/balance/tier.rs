//! Endpoints that are picked from as one: the healthy or the degraded ones of a priority, or in panic all of it. And
//! how load is shared among such tiers, by Envoy's rules.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::endpoint::{Endpoint, Health};

/// Endpoints that are picked from as one, with weights.
#[derive(Debug)]
pub(super) struct Tier {
    /// Shares of all tiers up to and including this one, in percent.
    pub(super) share_end: u32,
    /// Positions of the endpoints.
    members: Vec<u32>,
    /// Where each member's points end: points 0 to `total` are laid out over the members by weight. Empty when every
    /// weight is 1, which is the rule.
    ends: Vec<u64>,
    total: u64,
    /// Round robin goes this far from point to point; it has no divisor in common with `total`.
    stride: u64,
}

impl Tier {
    /// A tier of `members`, positions with weights; `None` when none has a weight.
    fn new(members: impl Iterator<Item = (u32, u64)>) -> Option<Tier> {
        let members: Vec<(u32, u64)> = members.filter(|(_, weight)| *weight > 0).collect();
        let divisor = members.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight));
        let equal = members.iter().all(|(_, weight)| *weight == divisor);
        let mut total = 0u64;
        let ends: Vec<u64> = members
            .iter()
            .map(|(_, weight)| {
                total = total.saturating_add(weight / divisor.max(1));
                total
            })
            .collect();
        // With equal weights the next point is the next member: plain round robin, in order.
        let stride = if equal { 1 } else { stride(total) };
        let members: Vec<u32> = members.into_iter().map(|(member, _)| member).collect();
        (!members.is_empty()).then_some(Tier {
            share_end: 0,
            members,
            ends: if equal { Vec::new() } else { ends },
            total,
            stride,
        })
    }

    /// Number of points. A point drawn at random below it gives a member with the probability of its weight.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many members there are.
    pub(super) fn members_count(&self) -> usize {
        self.members.len()
    }

    /// The member at a point.
    pub(super) fn at(&self, point: u64) -> Option<u32> {
        self.members.get(self.index_at(point)).copied()
    }

    /// The index among the members at a point.
    pub(super) fn index_at(&self, point: u64) -> usize {
        if self.ends.is_empty() { point as usize } else { self.ends.partition_point(|end| *end <= point) }
    }

    /// A member with its weight, in points.
    pub(super) fn member(&self, index: usize) -> Option<(u32, u64)> {
        let member = self.members.get(index).copied()?;
        let Some(end) = self.ends.get(index) else { return Some((member, 1)) };
        let start =
            index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        Some((member, end - start))
    }

    /// The next member in turn. Over any `total` turns each member comes exactly as often as its weight says, because
    /// steps of `stride` meet every point once; and spread out, because the stride is near the golden section.
    pub(super) fn next(&self, position: &mut u64) -> Option<u32> {
        let point = if *position < self.total { *position } else { *position % self.total };
        let room = self.total - point;
        *position = if self.stride < room { point + self.stride } else { self.stride - room };
        self.at(point)
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// A step without common divisor with `total`, near `total` divided by the golden ratio.
fn stride(total: u64) -> u64 {
    // 0.618… in units of 2⁻⁶⁴.
    const GOLDEN: u128 = 0x9E37_79B9_7F4A_7C15;
    let golden = ((u128::from(total) * GOLDEN) >> 64) as u64;
    (golden.max(1)..total).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}

/// The tiers that load goes to, with their shares.
pub(super) fn tiers(
    endpoints: &[Endpoint],
    weights: &[u64],
    overprovisioning_percent: u32,
    panic_threshold_percent: u8,
) -> Vec<Tier> {
    let levels = levels(endpoints);
    let shares = shares(&levels, overprovisioning_percent, panic_threshold_percent);
    let mut tiers = Vec::new();
    let mut push = |members: &mut dyn Iterator<Item = u32>, share: u32| {
        let weighted =
            members.map(|member| (member, weights.get(member as usize).copied().unwrap_or_default()));
        if share > 0
            && let Some(tier) = Tier::new(weighted)
        {
            tiers.push((share, tier));
        }
    };
    for (level, share) in levels.iter().zip(&shares) {
        if share.panic {
            let mut all: Vec<u32> = level.all().collect();
            all.sort_unstable();
            push(&mut all.into_iter(), share.healthy + share.degraded);
        } else {
            push(&mut level.healthy.iter().copied(), share.healthy);
            push(&mut level.degraded.iter().copied(), share.degraded);
        }
    }
    // A tier whose members have no weight at all leaves its share to the others.
    let whole: u32 = tiers.iter().map(|(share, _)| share).sum();
    let mut sum = 0;
    for (share, tier) in &mut tiers {
        sum += *share;
        tier.share_end = sum * 100 / whole;
    }
    tiers.into_iter().map(|(_, tier)| tier).collect()
}

/// One priority: positions of its endpoints by health.
#[derive(Default)]
struct Level {
    healthy: Vec<u32>,
    degraded: Vec<u32>,
    unhealthy: Vec<u32>,
}

impl Level {
    fn count(&self) -> u32 {
        (self.healthy.len() + self.degraded.len() + self.unhealthy.len()) as u32
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        self.healthy.iter().chain(&self.degraded).chain(&self.unhealthy).copied()
    }
}

/// A priority's part of the load, in percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Share {
    /// To its healthy endpoints.
    healthy: u32,
    /// To its degraded ones.
    degraded: u32,
    /// Health is ignored: both shares go to all its endpoints.
    panic: bool,
}

/// The endpoints by priority. Priorities without endpoints do not count.
fn levels(endpoints: &[Endpoint]) -> Vec<Level> {
    let mut levels: BTreeMap<u32, Level> = BTreeMap::new();
    for (position, endpoint) in (0u32..).zip(endpoints) {
        let level = levels.entry(endpoint.spec.priority).or_default();
        match endpoint.spec.health {
            Health::Unknown | Health::Healthy => level.healthy.push(position),
            Health::Degraded => level.degraded.push(position),
            Health::Unhealthy | Health::Draining | Health::Timeout => level.unhealthy.push(position),
        }
    }
    levels.into_values().collect()
}

/// Envoy's rule: each priority can carry its healthy share, stretched by the overprovisioning factor. Load goes to
/// healthy endpoints in the order of priority, what is left to degraded ones. If all priorities together cannot carry
/// all load, a priority whose healthy share is below the threshold panics: its health is ignored.
fn shares(levels: &[Level], overprovisioning_percent: u32, panic_threshold_percent: u8) -> Vec<Share> {
    let available = |part: usize, level: &Level| {
        let stretched = u64::from(overprovisioning_percent) * part as u64 / u64::from(level.count().max(1));
        stretched.min(100) as u32
    };
    let healthy: Vec<u32> = levels.iter().map(|level| available(level.healthy.len(), level)).collect();
    let degraded: Vec<u32> = levels.iter().map(|level| available(level.degraded.len(), level)).collect();
    let capacity = healthy.iter().chain(&degraded).sum::<u32>().min(100);

    let mut shares: Vec<Share> = levels.iter().map(|_| Share::default()).collect();
    let mut left = 100;
    let mut take = |available: u32| {
        // Without any capacity there is nothing to share out, and nothing to divide by.
        let share = left.min((available * 100).checked_div(capacity).unwrap_or_default());
        left -= share;
        share
    };
    for (share, available) in shares.iter_mut().zip(&healthy) {
        share.healthy = take(*available);
    }
    for (share, available) in shares.iter_mut().zip(&degraded) {
        share.degraded = take(*available);
    }
    if capacity > 0 {
        // Only rounding is left; it goes to the first that gets load at all.
        if let Some(first) = shares.iter_mut().find(|share| share.healthy > 0) {
            first.healthy += left;
        } else if let Some(first) = shares.iter_mut().find(|share| share.degraded > 0) {
            first.degraded += left;
        }
    }

    if capacity < 100 {
        for (share, level) in shares.iter_mut().zip(levels) {
            let healthy_percent = 100 * level.healthy.len() as u64 / u64::from(level.count().max(1));
            share.panic = healthy_percent < u64::from(panic_threshold_percent.min(100));
        }
    }
    if !shares.is_empty() && shares.iter().all(|share| share.panic) {
        share_by_count(levels, &mut shares);
    }
    shares
}

/// In total panic health says nothing: every endpoint gets the same.
fn share_by_count(levels: &[Level], shares: &mut [Share]) {
    let all: u64 = levels.iter().map(|level| u64::from(level.count())).sum();
    let mut left = 100;
    for (share, level) in shares.iter_mut().zip(levels) {
        share.healthy = (100 * u64::from(level.count()) / all.max(1)) as u32;
        share.degraded = 0;
        left -= share.healthy;
    }
    if let Some(first) = shares.first_mut() {
        first.healthy += left;
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    /// A priority with 100 endpoints, so that counts are percents.
    fn level(healthy: u32, degraded: u32) -> Level {
        Level {
            healthy: (0..healthy).collect(),
            degraded: (0..degraded).collect(),
            unhealthy: (0..100 - healthy - degraded).collect(),
        }
    }

    #[test]
    fn priorities_share_load_as_envoy_documents() {
        // Per row: healthy and degraded percent of each priority; share of the healthy, of the degraded, panic.
        let rows = [
            (vec![(100, 0), (100, 0)], vec![(100, 0, false), (0, 0, false)]),
            (vec![(72, 0), (72, 0)], vec![(100, 0, false), (0, 0, false)]),
            (vec![(71, 0), (71, 0)], vec![(99, 0, false), (1, 0, false)]),
            (vec![(50, 0), (60, 0)], vec![(70, 0, false), (30, 0, false)]),
            (vec![(25, 0), (100, 0)], vec![(35, 0, false), (65, 0, false)]),
            (vec![(25, 0), (25, 0)], vec![(50, 0, true), (50, 0, true)]),
            // 7 and 91 of 98 can be carried; the point lost in rounding goes to the first.
            (vec![(5, 0), (65, 0)], vec![(8, 0, true), (92, 0, false)]),
            (vec![(0, 100)], vec![(0, 100, false)]),
            (vec![(5, 95), (0, 0)], vec![(7, 93, false), (0, 0, false)]),
            (vec![(0, 100), (100, 0)], vec![(0, 0, false), (100, 0, false)]),
            (vec![(0, 0), (0, 0)], vec![(50, 0, true), (50, 0, true)]),
            (vec![(0, 0), (0, 0), (0, 0)], vec![(34, 0, true), (33, 0, true), (33, 0, true)]),
        ];
        for (levels, expected) in rows {
            let shares = shares(&levels.iter().map(|(h, d)| level(*h, *d)).collect::<Vec<_>>(), 140, 50);
            let shares: Vec<_> =
                shares.iter().map(|share| (share.healthy, share.degraded, share.panic)).collect();
            assert_eq!(shares, expected, "{levels:?}");
        }
        assert!(shares(&[], 140, 50).is_empty());
        let off = shares(&[level(0, 0)], 140, 0);
        assert_eq!(off, [Share::default()], "without panic nothing is left to pick");
    }

    #[test]
    fn a_stride_meets_every_point_once() {
        for total in (1..200).chain([1_000_003, u64::from(u32::MAX) * 3]) {
            let stride = stride(total);
            assert_eq!(gcd(stride, total), 1);
            assert!(stride < total.max(2));
        }
    }

    #[test]
    fn points_are_laid_out_by_weight_and_weightless_members_have_none() {
        let tier = Tier::new([(3, 4), (5, 0), (8, 6)].into_iter()).unwrap();
        assert_eq!(tier.total(), 5);
        assert_eq!((0..5).map(|point| tier.at(point).unwrap()).collect::<Vec<_>>(), [3, 3, 8, 8, 8]);
        assert_eq!((tier.member(0), tier.member(1), tier.member(2)), (Some((3, 2)), Some((8, 3)), None));
        assert!(Tier::new([(1, 0)].into_iter()).is_none());
        let huge = Tier::new([(0, u64::MAX), (1, u64::MAX - 1)].into_iter()).unwrap();
        assert!(huge.at(huge.total() - 1).is_some());
    }
}
