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
