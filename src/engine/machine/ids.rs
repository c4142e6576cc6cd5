//! Generates identifiers and jitter from a seed: the same seed gives the same values.

use jiff::Timestamp;
use uuid::{Builder, Uuid};

/// A generator of identifiers and jitter.
pub(in crate::engine) struct Ids {
    random: fastrand::Rng,
    last_ms: u64,
    counter: u16,
}

/// The counter of a version 7 identifier has 12 bits.
const COUNTER_MAX: u16 = 0xfff;

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), last_ms: 0, counter: 0 }
    }
    /// A number from 0.0 to 1.0.
    pub fn jitter(&mut self) -> f64 {
        self.random.f64()
    }
    /// A version 7 identifier. Later identifiers of one generator are greater.
    pub fn next(&mut self, now: Timestamp) -> Uuid {
        let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
        match now_ms > self.last_ms {
            true => (self.last_ms, self.counter) = (now_ms, 0),
            false if self.counter >= COUNTER_MAX => (self.last_ms, self.counter) = (self.last_ms + 1, 0),
            false => self.counter += 1,
        }
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&self.counter.to_be_bytes());
        bytes[2..].copy_from_slice(&self.random.u64(..).to_be_bytes());
        Builder::from_unix_timestamp_millis(self.last_ms, &bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_increase_and_are_the_same_for_the_same_seed() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let drawn = |seed| {
            let mut ids = Ids::new(seed);
            (0..10_000).map(|_| ids.next(now)).collect::<Vec<_>>()
        };
        let first = drawn(7);
        assert!(first.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(first.iter().all(|id| id.get_version_num() == 7));
        assert_eq!(first, drawn(7));
        assert_ne!(first[0], drawn(8)[0]);
    }
}
