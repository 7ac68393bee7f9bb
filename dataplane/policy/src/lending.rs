//! Which worker lends an idle upstream connection to one that has none.
//!
//! Every worker has a pool of its own, so of a service's connections one may sleep here while another is made there. A
//! worker that finds its pool empty asks the one that can spare most.

use crate::limits;

/// The position of the worker to ask; `None` when nobody can spare a connection. `idle` is what each of the others has idle
/// to the endpoint, without those that are asked for already.
pub fn lender(idle: impl Iterator<Item = (usize, usize)>) -> Option<usize> {
    let able = idle.filter(|(_, count)| can_lend(*count));
    // The first of those with most.
    able.max_by_key(|(position, count)| (*count, core::cmp::Reverse(*position))).map(|(position, _)| position)
}

/// Whether a worker with so many idle connections to an endpoint can spare one.
pub fn can_lend(idle: usize) -> bool {
    idle >= limits::POOL_IDLE_TO_LEND_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_is_asked_and_nobody_gives_the_last_one() {
        for (idle, asked, why) in [
            (&[][..], None, "there is nobody else"),
            (&[0, 0], None, "nobody has one"),
            (&[1, 1], None, "nobody gives the only one"),
            (&[1, 2], Some(1), "just enough"),
            (&[3, 9, 4], Some(1), "who has most"),
            (&[5, 7, 7], Some(1), "the first of those"),
        ] {
            assert_eq!(lender(idle.iter().copied().enumerate()), asked, "{idle:?}: {why}");
        }
    }
}
