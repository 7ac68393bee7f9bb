//! A choice between values by weight, made with a random number of the caller.

use alloc::vec::Vec;

/// Values with weights. The weights may have any sum above zero; a value of weight zero is never picked.
#[derive(Clone, Debug)]
pub struct Weighted<T> {
    entries: Vec<Entry<T>>,
    total: u64,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    /// The sum of the weights up to and including this one.
    end: u64,
    value: T,
}

/// The weights have no sum above zero, so nothing could be picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the sum of the weights is zero")]
pub struct NoWeight;

impl<T> Weighted<T> {
    /// The one value that is always picked.
    pub fn one(value: T) -> Weighted<T> {
        Weighted { entries: Vec::from([Entry { end: 1, value }]), total: 1 }
    }

    /// `values` with their weights, in the order in which a random number is laid out over them.
    ///
    /// # Errors
    /// [`NoWeight`] when the weights add up to zero.
    pub fn new(values: impl IntoIterator<Item = (u32, T)>) -> Result<Weighted<T>, NoWeight> {
        let mut total = 0u64;
        let entries: Vec<_> = values
            .into_iter()
            .map(|(weight, value)| {
                total += u64::from(weight);
                Entry { end: total, value }
            })
            .collect();
        if total == 0 { Err(NoWeight) } else { Ok(Weighted { entries, total }) }
    }

    /// The value that `random` falls on: its remainder by the sum of the weights, as in Envoy.
    pub fn pick(&self, random: u64) -> &T {
        // A single value is the rule; it costs no division.
        let at = if self.entries.len() == 1 {
            0
        } else {
            let point = random % self.total;
            self.entries.partition_point(|entry| entry.end <= point)
        };
        // `point` is below the last entry's `end`, and `new` refuses an empty list, so `at` is inside.
        &self.entries[at].value
    }

    /// The same weights over other values.
    pub(crate) fn map<U>(self, mut map: impl FnMut(T) -> U) -> Weighted<U> {
        let entries = self.entries.into_iter().map(|Entry { end, value }| Entry { end, value: map(value) });
        Weighted { entries: entries.collect(), total: self.total }
    }

    /// All values, in order, those of weight zero included.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_picked_exactly_as_often_as_its_weight_says() {
        let weighted = Weighted::new([(95, 'a'), (0, 'b'), (5, 'c')]).unwrap();
        let picked: Vec<char> = (0..200).map(|random| *weighted.pick(random)).collect();
        let count = |value| picked.iter().filter(|picked| **picked == value).count();
        assert_eq!((count('a'), count('b'), count('c')), (190, 0, 10));
        assert_eq!(weighted.values().copied().collect::<Vec<_>>(), ['a', 'b', 'c']);
    }

    #[test]
    fn weights_that_add_up_to_nothing_are_refused() {
        assert_eq!(Weighted::new([(0, 'a'), (0, 'b')]).unwrap_err(), NoWeight);
        assert_eq!(Weighted::<char>::new([]).unwrap_err(), NoWeight);
        assert_eq!(*Weighted::one('a').pick(u64::MAX), 'a');
        let huge = Weighted::new([(u32::MAX, 'a'), (u32::MAX, 'b')]).unwrap();
        assert_eq!(*huge.pick(u64::from(u32::MAX) - 1), 'a');
        assert_eq!(*huge.pick(u64::from(u32::MAX)), 'b');
    }
}
