//! First tries, in memory: which arm took each.
//!
//! Always true: a key is one arm's; whoever takes it for an arm learns at once that the other has it, also where the
//! engine's run is not on disk yet. What the engine took and had to be forgotten is remembered by route.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::flag::{Arm, RetryKey};
use crate::names::RouteId;

/// Requests with a retry key note it here, so few of them meet at one lock.
const SHARDS: usize = 16;

/// What the engine took is kept at least for as many in each shard: runs that are not on disk yet are known only here.
const SHARD_ENGINE_MIN: usize = 1_024;

/// A window that ends after the end of time is as long.
const LONG: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Keys for as long as the window, the oldest of an arm going first where there are too many.
pub(super) struct Tries {
    shards: [Mutex<Shard>; SHARDS],
    window: Duration,
    shard_keys_max: usize,
    /// Routes of which a key that the engine took was forgotten before its window was over.
    forgotten: Mutex<HashSet<RouteId>>,
    /// Whether there are any: requests meet at that lock only then.
    forgets: AtomicBool,
}

#[derive(Default)]
struct Shard {
    taken: HashMap<RetryKey, Taken>,
    legacy_by_age: VecDeque<(Instant, RetryKey)>,
    engine_by_age: VecDeque<(Instant, RetryKey)>,
}

struct Taken {
    /// When its window is over.
    until: Instant,
    by: By,
}

enum By {
    Legacy,
    Engine(RouteId),
}

/// What became of taking a key for an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// It is this arm's now.
    Fresh,
    /// It was this arm's already.
    Again,
    /// It is the other arm's.
    Others,
}

impl Tries {
    pub(super) fn new(window: Duration, keys_max: u64) -> Self {
        let shard_keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX).div_ceil(SHARDS);
        Self {
            shards: Default::default(),
            window,
            shard_keys_max,
            forgotten: Mutex::default(),
            forgets: AtomicBool::new(false),
        }
    }

    fn shard(&self, key: &RetryKey) -> MutexGuard<'_, Shard> {
        // Keys are hashes: any of their bytes spreads them. A panic of another holder left at worst an entry too many.
        self.shards[usize::from(key.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the window of what was taken so long ago is over.
    fn until(&self, now: Instant, ago: Duration) -> Instant {
        now.checked_add(self.window.saturating_sub(ago)).unwrap_or(now + LONG)
    }

    /// The arm that took the first try within the window.
    pub(super) fn arm(&self, key: &RetryKey, now: Instant) -> Option<Arm> {
        self.shard(key).arm(key, now)
    }

    /// Takes a key for legacy, unless it is the engine's. A retry does not make the window longer.
    pub(super) fn take_for_legacy(&self, key: RetryKey, now: Instant) -> Took {
        let mut shard = self.shard(&key);
        match shard.arm(&key, now) {
            Some(Arm::Legacy) => Took::Again,
            Some(Arm::Engine) => Took::Others,
            None => {
                self.put_legacy(&mut shard, key, now);
                Took::Fresh
            }
        }
    }

    /// The key is legacy's now, whoever took it before. Whether that is news.
    pub(super) fn note(&self, key: RetryKey, now: Instant) -> bool {
        let mut shard = self.shard(&key);
        if shard.arm(&key, now) == Some(Arm::Legacy) {
            return false;
        }
        self.put_legacy(&mut shard, key, now);
        true
    }

    fn put_legacy(&self, shard: &mut Shard, key: RetryKey, now: Instant) {
        while let Some((until, oldest)) = shard.legacy_by_age.front().copied()
            && (now >= until || shard.legacy_by_age.len() >= self.shard_keys_max.max(1))
        {
            shard.legacy_by_age.pop_front();
            if shard.taken.get(&oldest).is_some_and(|taken| matches!(taken.by, By::Legacy) && taken.until == until) {
                shard.taken.remove(&oldest);
            }
        }
        if self.shard_keys_max == 0 {
            shard.taken.remove(&key);
            return;
        }
        let until = self.until(now, Duration::ZERO);
        shard.taken.insert(key, Taken { until, by: By::Legacy });
        shard.legacy_by_age.push_back((until, key));
    }

    /// Takes a key for the engine, unless it is legacy's.
    pub(super) fn take_for_engine(&self, key: RetryKey, route: &RouteId, now: Instant) -> Took {
        self.taken_by_engine(key, route, now, Duration::ZERO)
    }

    /// The same, some time ago.
    pub(super) fn taken_by_engine(&self, key: RetryKey, route: &RouteId, now: Instant, ago: Duration) -> Took {
        let until = self.until(now, ago);
        let mut shard = self.shard(&key);
        match shard.arm(&key, now) {
            Some(Arm::Engine) => return Took::Again,
            Some(Arm::Legacy) => return Took::Others,
            None => {}
        }
        let keys_max = self.shard_keys_max.max(SHARD_ENGINE_MIN);
        while let Some((oldest_until, oldest)) = shard.engine_by_age.front().copied() {
            let over = now >= oldest_until;
            if !over && shard.engine_by_age.len() < keys_max {
                break;
            }
            shard.engine_by_age.pop_front();
            let route = match shard.taken.get(&oldest) {
                Some(Taken { until, by: By::Engine(route) }) if *until == oldest_until => route.clone(),
                _ => continue, // given back since
            };
            shard.taken.remove(&oldest);
            if !over {
                self.forget(route);
            }
        }
        shard.taken.insert(key, Taken { until, by: By::Engine(route.clone()) });
        shard.engine_by_age.push_back((until, key));
        Took::Fresh
    }

    /// The engine made nothing of it.
    pub(super) fn release(&self, key: &RetryKey) {
        let mut shard = self.shard(key);
        if shard.taken.get(key).is_some_and(|taken| matches!(taken.by, By::Engine(_))) {
            shard.taken.remove(key);
        }
    }

    /// The engine took keys of this route that are not known here.
    pub(super) fn forget(&self, route: RouteId) {
        self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).insert(route);
        self.forgets.store(true, Ordering::Release);
    }

    /// Whether the engine may have taken keys of this route that are not known here.
    pub(super) fn forgot(&self, route: &RouteId) -> bool {
        self.forgets.load(Ordering::Acquire)
            && self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).contains(route)
    }
}

impl Shard {
    fn arm(&self, key: &RetryKey, now: Instant) -> Option<Arm> {
        let taken = self.taken.get(key).filter(|taken| now < taken.until)?;
        Some(match taken.by {
            By::Legacy => Arm::Legacy,
            By::Engine(_) => Arm::Engine,
        })
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
        assert_eq!(tries.arm(&key(1), begin + Duration::from_secs(9)), Some(Arm::Legacy));
        assert_eq!(tries.arm(&key(1), begin + Duration::from_secs(10)), None);
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
        let kept: Vec<u32> = (0..10_000).filter(|n| tries.arm(&key(*n), now).is_some()).collect();
        assert!(kept.len() <= 160 && kept.len() > 100, "{}", kept.len());
        assert!(kept.contains(&9_999) && !kept.contains(&0));
        let places: usize = tries.shards.iter().map(|shard| shard.lock().unwrap().legacy_by_age.len()).sum();
        assert_eq!(places, kept.len());
    }

    #[test]
    fn a_key_is_one_arms() {
        let tries = Tries::new(Duration::from_secs(10), 100);
        let (now, route) = (Instant::now(), RouteId::from("r"));
        assert_eq!(tries.take_for_engine(key(1), &route, now), Took::Fresh);
        assert_eq!(tries.take_for_engine(key(1), &route, now), Took::Again);
        assert_eq!(tries.take_for_legacy(key(1), now), Took::Others);
        assert!(tries.note(key(1), now), "given back");
        tries.release(&key(1));
        assert_eq!(tries.take_for_engine(key(1), &route, now), Took::Others);
        assert_eq!(tries.take_for_legacy(key(1), now), Took::Again);
        assert_eq!(tries.take_for_engine(key(2), &route, now), Took::Fresh);
        tries.release(&key(2));
        assert_eq!(tries.take_for_legacy(key(2), now), Took::Fresh);
        tries.taken_by_engine(key(3), &route, now, Duration::from_secs(9));
        assert_eq!(tries.arm(&key(3), now), Some(Arm::Engine));
        assert_eq!(tries.arm(&key(3), now + Duration::from_secs(1)), None, "claimed by the process before");
    }

    #[test]
    fn what_the_engine_took_is_bounded_and_what_is_forgotten_is_known_by_route() {
        let tries = Tries::new(Duration::from_secs(1_000), 16);
        let (now, route) = (Instant::now(), RouteId::from("r"));
        for n in 0..30_000 {
            tries.note(key(n + 100_000), now);
            tries.take_for_engine(key(n), &route, now + Duration::from_millis(n.into()));
        }
        assert_eq!(tries.arm(&key(29_999), now), Some(Arm::Engine), "legacy's keys drive out none of the engine's");
        assert_eq!(tries.arm(&key(0), now), None);
        assert!(tries.forgot(&route) && !tries.forgot(&RouteId::from("other")));
        let kept: usize = tries.shards.iter().map(|shard| shard.lock().unwrap().taken.len()).sum();
        assert!(kept <= SHARDS * (SHARD_ENGINE_MIN + 1), "{kept}");
    }
}
