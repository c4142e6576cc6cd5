//! First tries that legacy took, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::flag::RetryKey;

/// Requests with a retry key note it here, so few of them meet at one lock.
const SHARDS: usize = 16;

/// Keys for as long as the window, the oldest going first where there are too many.
pub(super) struct Tries {
    shards: [Mutex<Shard>; SHARDS],
    window: Duration,
    shard_keys_max: usize,
}

#[derive(Default)]
struct Shard {
    since: HashMap<RetryKey, Instant>,
    by_age: VecDeque<(Instant, RetryKey)>,
}

impl Tries {
    pub(super) fn new(window: Duration, keys_max: u64) -> Self {
        let shard_keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX).div_ceil(SHARDS);
        Self { shards: Default::default(), window, shard_keys_max }
    }

    fn shard(&self, key: &RetryKey) -> MutexGuard<'_, Shard> {
        // Keys are hashes: any of their bytes spreads them. A panic of another holder left at worst an entry too many.
        self.shards[usize::from(key.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether legacy took the first try within the window.
    pub(super) fn has(&self, key: &RetryKey, now: Instant) -> bool {
        self.shard(key).since.get(key).is_some_and(|since| now.saturating_duration_since(*since) < self.window)
    }

    /// Notes a try; says whether it is news. The first one counts: a retry does not make the window longer.
    pub(super) fn note(&self, key: RetryKey, now: Instant) -> bool {
        let mut shard = self.shard(&key);
        while let Some((since, oldest)) = shard.by_age.front().copied()
            && (now.saturating_duration_since(since) >= self.window || shard.by_age.len() >= self.shard_keys_max)
        {
            shard.by_age.pop_front();
            shard.since.remove(&oldest);
        }
        if self.shard_keys_max == 0 || shard.since.contains_key(&key) {
            return self.shard_keys_max == 0;
        }
        shard.since.insert(key, now);
        shard.by_age.push_back((now, key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> RetryKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        key[0] = (n % 251) as u8;
        RetryKey(key)
    }

    #[test]
    fn a_key_stays_for_the_window_from_its_first_try() {
        let tries = Tries::new(Duration::from_secs(10), 100);
        let begin = Instant::now();
        assert!(tries.note(key(1), begin));
        assert!(!tries.note(key(1), begin + Duration::from_secs(9)));
        assert!(tries.has(&key(1), begin + Duration::from_secs(9)));
        assert!(!tries.has(&key(1), begin + Duration::from_secs(10)));
        assert!(tries.note(key(1), begin + Duration::from_secs(10)), "a first try again");
    }

    #[test]
    fn it_is_bounded_and_the_oldest_go_first() {
        let tries = Tries::new(Duration::from_secs(1_000), 160);
        let begin = Instant::now();
        for n in 0..10_000 {
            tries.note(key(n), begin + Duration::from_millis(n.into()));
        }
        let now = begin + Duration::from_secs(10);
        let kept: Vec<u32> = (0..10_000).filter(|n| tries.has(&key(*n), now)).collect();
        assert!(kept.len() <= 160 && kept.len() > 100, "{}", kept.len());
        assert!(kept.contains(&9_999) && !kept.contains(&0));
        let places: usize = tries.shards.iter().map(|shard| shard.lock().unwrap().by_age.len()).sum();
        assert_eq!(places, kept.len());
    }
}
