//! Values by name, each at a position that does not change.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Values by name, with a position that is fixed for the life of the snapshot (counters are resolved to it).
///
/// The hash is seeded with a secret: the hosts of dynamic forward clusters are named by requests, and nobody shall choose
/// names that collide.
#[derive(Debug)]
pub struct Named<T> {
    entries: Vec<(Arc<str>, Arc<T>)>,
    positions: HashTable<u32>,
    seed: u64,
}

impl<T> Named<T> {
    /// Indexes `values`; positions follow the order of the names. `seed` seeds the hash.
    pub fn new(values: BTreeMap<Arc<str>, Arc<T>>, seed: u64) -> Named<T> {
        let entries: Vec<_> = values.into_iter().collect();
        let mut positions = HashTable::with_capacity(entries.len());
        for (position, (name, _)) in (0u32..).zip(&entries) {
            positions.insert_unique(hash(name, seed), position, |position| {
                entries.get(*position as usize).map_or(0, |(name, _)| hash(name, seed))
            });
        }
        Named { entries, positions, seed }
    }

    /// The position of `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        let is_it =
            |position: &u32| self.entries.get(*position as usize).is_some_and(|(known, _)| **known == *name);
        self.positions.find(hash(name, self.seed), is_it).map(|position| *position as usize)
    }

    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.at(self.position(name)?)
    }

    /// The value at a position.
    pub fn at(&self, position: usize) -> Option<&Arc<T>> {
        self.entries.get(position).map(|(_, value)| value)
    }

    /// All names and values, by position, so in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<T>)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    /// Whether the two have the same names, with values of which `is_same` says so.
    pub(crate) fn is_like(&self, other: &Named<T>, is_same: impl Fn(&Arc<T>, &Arc<T>) -> bool) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(one, two)| one.0 == two.0 && is_same(one.1, two.1))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for Named<T> {
    fn default() -> Named<T> {
        Named::new(BTreeMap::new(), 0)
    }
}

fn hash(name: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn every_name_is_found_at_its_position_and_no_other_name_is() {
        for seed in [0, 1, u64::MAX] {
            let values = (0..500).map(|i| (Arc::from(format!("cluster-{i}")), Arc::new(i))).collect();
            let named = Named::new(values, seed);
            assert_eq!(named.len(), 500);
            for i in 0..500 {
                let name = format!("cluster-{i}");
                assert_eq!(named.get(&name), Some(&Arc::new(i)));
                let position = named.position(&name).unwrap();
                assert_eq!(named.at(position), Some(&Arc::new(i)));
                assert_eq!(named.iter().nth(position).unwrap().0.as_ref(), name);
            }
            assert_eq!(named.get("cluster-500"), None);
            assert_eq!(named.get(""), None);
        }
        assert!(Named::<u8>::default().is_empty());
    }
}
