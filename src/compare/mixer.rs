//! A hash function that is much faster than that of the standard library, for what no one gains by choosing.
//!
//! It has no key, so texts with equal hashes can be made: it is used only where equal hashes cost no more time than
//! others, or for addresses in memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by addresses in memory.
pub(super) type ByAddress<T, V> = HashMap<*const T, V, BuildHasherDefault<Mixer>>;

/// An odd number without a pattern in its bits: the fraction of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes each word in by a multiplication whose halves are folded (`foldhash` and `wyhash` do so too).
#[derive(Clone)]
pub(super) struct Mixer(u64);

impl Default for Mixer {
    fn default() -> Self {
        Self(MULTIPLIER.rotate_left(32))
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        // The length tells `rest` from the same bytes with zeros behind them.
        let last = rest.iter().fold(bytes.len() as u64, |last, byte| last << 8 | u64::from(*byte));
        self.write_u64(last);
    }
    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }
    fn write_u64(&mut self, n: u64) {
        let product = u128::from(self.0.rotate_left(23) ^ n) * u128::from(MULTIPLIER);
        // Both halves: the low bits of the product depend on the low bits of the word alone.
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;

    fn hash_of(value: impl Hash) -> u64 {
        let mut mixer = Mixer::default();
        value.hash(&mut mixer);
        mixer.finish()
    }

    #[test]
    fn values_that_are_near_to_each_other_have_other_hashes() {
        let mut seen = HashSet::new();
        for n in 0..100_000_u64 {
            assert!(seen.insert(hash_of(n)) && seen.insert(hash_of(format!("{n}"))), "{n}");
        }
        for length in 1..40 {
            assert!(seen.insert(hash_of("\0".repeat(length))), "{length}");
            assert!(seen.insert(hash_of(("a", "x".repeat(length)))), "{length}");
            assert!(seen.insert(hash_of(("ax", "x".repeat(length)))), "{length}");
        }
    }
}
