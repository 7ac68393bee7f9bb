//! Maps keyed by numbers that we gave out ourselves. Nobody can choose them to collide, so their hash needs no secret; and
//! since it is the same in every run, what is done with all entries is done in the same order, which a simulation needs to
//! be repeated.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

/// A map keyed by a newtype of `u64`.
pub(crate) type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads a number over all bits by one multiplication (Knuth's, by 2⁶⁴ divided by the golden ratio).
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(SPREAD);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
