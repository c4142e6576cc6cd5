//! Retry keys that the store has just taken.
//!
//! Example: the disk hangs, so the request with the key K goes on before K is in the file. Then the store takes K, so
//! that K is neither pending nor waiting any more, and only after that its route is recorded as one that served a
//! request unnoted. Only this module still knows then that K is noted.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::clock;
use crate::flag::RetryKey;

/// How long a key stays here: longer than the time from the end of a request's wait for its key until the request is
/// recorded as served unnoted.
const ENTRY_LIFETIME: Duration = Duration::from_secs(10);
/// The most keys that stay here. A key that is removed earlier counts as not noted, which shuts the gate to `live`.
const ENTRIES_MAX: usize = 8_192;

/// The retry keys that the store took last.
#[derive(Default)]
pub(super) struct JustStored {
    /// When legacy took each key, and when the key was last added here.
    keys: HashMap<RetryKey, (Timestamp, Instant)>,
    by_age: VecDeque<(Instant, RetryKey)>,
    last_stall: Option<Instant>,
}

impl JustStored {
    /// Records that writes to the file hang now.
    pub fn record_stall(&mut self) {
        self.last_stall = Some(Instant::now());
    }

    /// Records that the store has this key, which legacy took at `at`. Does nothing unless writes have hung lately:
    /// only then is a request served before its key is noted.
    pub fn add(&mut self, key: RetryKey, at: Timestamp) {
        let now = Instant::now();
        if self.last_stall.is_none_or(|last| now.duration_since(last) >= ENTRY_LIFETIME) {
            return;
        }
        while let Some((since, oldest)) = self.by_age.front().copied()
            && (self.by_age.len() >= ENTRIES_MAX || now.duration_since(since) >= ENTRY_LIFETIME)
        {
            self.by_age.pop_front();
            if self.keys.get(&oldest).is_some_and(|(_, last)| *last == since) {
                self.keys.remove(&oldest);
            }
        }
        self.keys.insert(key, (at, now));
        self.by_age.push_back((now, key));
    }

    /// Whether the store has just taken this key, and its window is not over.
    pub fn has(&self, key: &RetryKey, window: Duration) -> bool {
        let is_valid =
            |(at, since): &(Timestamp, Instant)| since.elapsed() < ENTRY_LIFETIME && clock::passed(*at) < window;
        self.keys.get(key).is_some_and(is_valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_a_key_whose_window_is_over_counts_as_unknown() {
        let (mut stored, now, hour) = (JustStored::default(), clock::now(), Duration::from_secs(3_600));
        let key = |n: usize| {
            let mut key = RetryKey([0; 32]);
            key.0[..8].copy_from_slice(&n.to_be_bytes());
            key
        };
        stored.add(key(0), now);
        assert!(!stored.has(&key(0), hour), "nothing hangs");
        stored.record_stall();
        stored.add(key(0), now);
        stored.add(key(0), now);
        assert!(stored.has(&key(0), hour) && !stored.has(&key(0), Duration::ZERO));
        (1..=ENTRIES_MAX).for_each(|n| stored.add(key(n), now));
        assert!(!stored.has(&key(0), hour) && stored.has(&key(ENTRIES_MAX), hour));
        assert_eq!((stored.keys.len(), stored.by_age.len()), (ENTRIES_MAX, ENTRIES_MAX));
    }
}
