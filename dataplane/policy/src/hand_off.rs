//! Which worker a new connection goes to.
//!
//! The kernel spreads connections by a hash of their addresses, so a few long-lived ones can all meet on one core. The
//! worker that accepts one looks at what all have and gives it to another that has clearly less to do.

/// What one worker has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Connections it has, and those on their way to it.
    pub connections: u64,
    /// How busy it was a moment ago, in thousandths of the time; at most 1000.
    pub busy_per_mille: u32,
}

/// What a connection counts on a worker that does nothing, beside one on a worker that is always busy, in thousandths. An
/// idle connection may wake up, so it never counts nothing.
const IDLE_WEIGHT: u64 = 250;

/// How much less another worker must have to do, in percent of what this one has: below this a move costs more than it
/// evens out.
const CLEARLY_LESS_PERCENT: u64 = 87;

impl Load {
    /// What this worker would have to do with one connection more.
    fn with_one_more(self) -> u64 {
        let weight = IDLE_WEIGHT + u64::from(self.busy_per_mille.min(1000));
        self.connections.saturating_add(1).saturating_mul(weight)
    }
}

/// The position of the worker that takes a connection that `own` accepted; `None` when that one keeps it. `loads` has no
/// entry for workers that cannot take it.
pub fn receiver(loads: impl Iterator<Item = (usize, Load)>, own: Load) -> Option<usize> {
    let (least, position) = loads.map(|(position, load)| (load.with_one_more(), position)).min()?;
    let is_clearly_less =
        least.saturating_mul(100) < own.with_one_more().saturating_mul(CLEARLY_LESS_PERCENT);
    is_clearly_less.then_some(position)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn loads(of: &[(u64, u32)]) -> Vec<Load> {
        of.iter().map(|&(connections, busy_per_mille)| Load { connections, busy_per_mille }).collect()
    }

    fn picked(of: &[(u64, u32)]) -> Option<usize> {
        let loads = loads(of);
        receiver(loads.iter().copied().enumerate().skip(1), loads[0])
    }

    #[test]
    fn a_connection_goes_to_whoever_has_clearly_less_to_do() {
        for (of, to, why) in [
            (&[(0, 0)][..], None, "there is nobody else"),
            (&[(0, 0), (0, 0)], None, "all have nothing to do"),
            (&[(1, 0), (0, 0)], Some(1), "one of two has none"),
            (&[(1, 0), (1, 0), (0, 0), (0, 0)], Some(2), "the first of those with least"),
            (&[(0, 0), (5, 0)], None, "the others have more"),
            (&[(8, 500), (7, 500)], None, "hardly less"),
            (&[(8, 500), (6, 500)], Some(1), "clearly less"),
            (
                &[(1, 1000), (4, 0)],
                Some(1),
                "one connection that is always busy is more than four that sleep",
            ),
            (&[(1, 1000), (10, 0)], None, "but not more than ten"),
            (&[(64, 820), (64, 800)], None, "both are busy, and one happens to be a little less so"),
            (&[(u64::MAX, 1000), (u64::MAX, 5000)], None, "no sum overflows"),
        ] {
            assert_eq!(picked(of), to, "{of:?}: {why}");
        }
    }

    #[test]
    fn long_lived_connections_are_even_whoever_accepts_them() {
        for workers in [2, 3, 8] {
            let mut has = loads(&[(0, 0)].repeat(workers));
            // All meet at the first worker.
            for total in 1..=64u64 {
                let to = receiver(has.iter().copied().enumerate().skip(1), has[0]).unwrap_or(0);
                has[to].connections += 1;
                let most = has.iter().map(|load| load.connections).max().unwrap();
                let even = total.div_ceil(workers as u64);
                assert!(most * 10 <= even * 13, "{most} of {total} on one of {workers} workers");
            }
        }
    }
}
