//! First tries, in memory: which arm took each.
//!
//! Example: legacy takes a first try with the key K. [`Tries::take_for_legacy`] calls `note`, which has K written to
//! the file of `key_log`; then [`Tries`] has K: legacy, until the end of the retry window. The route goes to `live`,
//! and the client repeats the request. [`Tries::take_for_engine`] returns [`KeyTakeResult::OtherArmHasIt`], and legacy
//! gets the retry. If the file was full, K is in memory only, and the next try writes it again.
//!
//! Always true: a key belongs to one arm; an attempt to take it for the other arm fails at once, even if the engine's
//! run is not on disk yet. Keys of the engine whose runs are not on disk yet are known only here: they stay, one or two
//! for each such run. The number of the others is bounded: the oldest are removed first, and `sets` and `key_log` still
//! have them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::flag::{Arm, RetryKey};

/// Each shard has a lock of its own, so that few requests wait for the same lock.
const SHARDS: usize = 16;

/// The least bound on the engine's keys in a shard. A run whose first append has no known outcome may be stored later
/// than others, and a retry in between finds it only here.
const SHARD_ENGINE_MIN: usize = 1_024;

/// The window that is used if the end of the configured one is past the largest [`Instant`].
const WINDOW_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Keys, each remembered for the retry window. Where an arm has too many, its oldest are removed first.
pub(super) struct Tries {
    shards: [Mutex<Shard>; SHARDS],
    window: Duration,
    shard_keys_max: usize,
}

#[derive(Default)]
struct Shard {
    /// In order, so that the keys of one request under several credentials are found together.
    taken: BTreeMap<RetryKey, TriedKey>,
    legacy_by_age: VecDeque<(Instant, RetryKey)>,
    /// Only keys that [`Tries::allow_eviction`] was called for.
    engine_by_age: VecDeque<(Instant, RetryKey)>,
}

struct TriedKey {
    /// When the key's window is over.
    until: Instant,
    arm: Arm,
    /// Whether this process has noted the key for legacy, or found it noted in the file.
    was_noted: bool,
    /// Whether an earlier process took the key for legacy. That process may have refused the try afterwards.
    by_earlier_process: bool,
    /// Legacy has the key here, and the claim of it in the shared store is under way or has failed: the engine of
    /// another process may have the request.
    is_unclaimed: bool,
    /// The engine took the key, and nothing of its run can be in the store yet: the key stays even after its window.
    is_pending: bool,
}

/// The result of taking a key for an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTakeResult {
    /// The arm has the key now.
    First,
    /// The arm had the key already.
    Retry,
    /// The other arm has the key: nothing was taken.
    OtherArmHasIt,
    /// The engine took, or may have taken, the same request under the key that other flag files give it: nothing was
    /// taken.
    UnderOtherFiles,
    /// Whether the request was taken under newer flag files is no longer remembered: nothing was taken.
    Unknown,
}

impl Tries {
    pub(super) fn new(window: Duration, keys_max: u64) -> Self {
        let shard_keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX).div_ceil(SHARDS);
        Self { shards: Default::default(), window, shard_keys_max }
    }

    fn shard(&self, key: &RetryKey) -> MutexGuard<'_, Shard> {
        // Keys are hashes: any of their bytes spreads them. A poisoned lock is usable: at worst there is a superfluous
        // entry.
        self.shards[usize::from(key.0[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the window of a key that was taken `ago`.
    fn until(&self, now: Instant, ago: Duration) -> Instant {
        now.checked_add(self.window.saturating_sub(ago)).unwrap_or(now + WINDOW_MAX)
    }

    /// The arm that took the first try within the window.
    pub(super) fn arm(&self, key: &RetryKey, now: Instant) -> Option<Arm> {
        self.shard(key).arm(key, now)
    }

    /// Like [`Tries::arm`], but without the keys that an earlier process took.
    pub(super) fn arm_of_this_process(&self, key: &RetryKey, now: Instant) -> Option<Arm> {
        let shard = self.shard(key);
        let taken = shard.taken.get(key).filter(|taken| taken.is_held(now) && !taken.by_earlier_process);
        taken.map(|taken| taken.arm)
    }

    /// Whether the engine took a key in this range within the window. Keys in a range share the first half.
    pub(super) fn engine_has_any(&self, range: RangeInclusive<RetryKey>, now: Instant) -> bool {
        let shard = self.shard(range.start());
        shard.taken.range(range).any(|(_, taken)| taken.arm == Arm::Engine && taken.is_held(now))
    }

    /// The engine's keys of runs that the store cannot have yet.
    pub(super) fn pending(&self) -> Vec<RetryKey> {
        let all = self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        let pending = all.map(|shard| {
            let pending = shard.taken.iter().filter(|(_, taken)| taken.is_pending);
            pending.map(|(key, _)| *key).collect::<Vec<_>>()
        });
        pending.flatten().collect()
    }

    /// Takes a key for legacy; `None` if it is the engine's. A retry does not extend the window. `note` begins to note
    /// the key; it is called under the lock, so that at every moment the key is known to be legacy's, here or among the
    /// keys that are being noted. It is called for a retry too: the store may have the key from an earlier process, and
    /// then the key's window ends there before it ends here. Returns whether legacy had the key before, and what `note`
    /// returned.
    pub(super) fn take_for_legacy<N>(
        &self,
        key: RetryKey,
        now: Instant,
        note: impl FnOnce() -> N,
    ) -> Option<(bool, N)> {
        let mut shard = self.shard(&key);
        if shard.arm(&key, now) == Some(Arm::Engine) {
            return None;
        }
        Some(self.put_legacy(&mut shard, key, now, note))
    }

    /// Gives the key to legacy, whichever arm has it. Returns what [`Tries::take_for_legacy`] returns.
    pub(super) fn give_to_legacy<N>(&self, key: RetryKey, now: Instant, note: impl FnOnce() -> N) -> (bool, N) {
        self.put_legacy(&mut self.shard(&key), key, now, note)
    }

    /// Records that a key of legacy's is noted: the file or the store has it.
    pub(super) fn record_noted(&self, key: &RetryKey) {
        if let Some(taken) = self.shard(key).taken.get_mut(key).filter(|taken| taken.is_of_legacy()) {
            taken.was_noted = true;
        }
    }

    /// Records that legacy took this key `ago`; the file has it.
    pub(super) fn record_taken_by_legacy(&self, key: RetryKey, now: Instant, ago: Duration) {
        let taken = TriedKey {
            until: self.until(now, ago),
            arm: Arm::Legacy,
            was_noted: true,
            by_earlier_process: true,
            is_unclaimed: false,
            is_pending: false,
        };
        self.insert_legacy(&mut self.shard(&key), key, taken, now);
    }

    /// Whether legacy has this key, and this process has noted it, or found it noted in the file.
    pub(super) fn was_noted(&self, key: &RetryKey, now: Instant) -> bool {
        self.shard(key).taken.get(key).is_some_and(|taken| now < taken.until && taken.was_noted)
    }

    fn put_legacy<N>(&self, shard: &mut Shard, key: RetryKey, now: Instant, note: impl FnOnce() -> N) -> (bool, N) {
        let is_retry = shard.arm(&key, now) == Some(Arm::Legacy);
        let note = note();
        if !is_retry {
            let taken = TriedKey {
                until: self.until(now, Duration::ZERO),
                arm: Arm::Legacy,
                was_noted: false,
                by_earlier_process: false,
                is_unclaimed: false,
                is_pending: false,
            };
            self.insert_legacy(shard, key, taken, now);
        }
        (is_retry, note)
    }

    fn insert_legacy(&self, shard: &mut Shard, key: RetryKey, taken: TriedKey, now: Instant) {
        while let Some((until, oldest)) = shard.legacy_by_age.front().copied()
            && (now >= until || shard.legacy_by_age.len() >= self.shard_keys_max.max(1))
        {
            shard.legacy_by_age.pop_front();
            if shard.taken.get(&oldest).is_some_and(|taken| taken.is_of_legacy() && taken.until == until) {
                shard.taken.remove(&oldest);
            }
        }
        if self.shard_keys_max == 0 {
            shard.taken.remove(&key);
            return;
        }
        shard.legacy_by_age.push_back((taken.until, key));
        shard.taken.insert(key, taken);
    }

    /// Takes a key for the engine, unless it is legacy's. It stays until it is released, or given to legacy, or until
    /// [`Tries::allow_eviction`] was called and it is among the oldest.
    pub(super) fn take_for_engine(&self, key: RetryKey, now: Instant) -> KeyTakeResult {
        let mut shard = self.shard(&key);
        match shard.arm(&key, now) {
            Some(Arm::Engine) => return KeyTakeResult::Retry,
            Some(Arm::Legacy) => return KeyTakeResult::OtherArmHasIt,
            None => {}
        }
        let until = self.until(now, Duration::ZERO);
        let taken = TriedKey {
            until,
            arm: Arm::Engine,
            was_noted: false,
            by_earlier_process: false,
            is_unclaimed: false,
            is_pending: true,
        };
        shard.taken.insert(key, taken);
        KeyTakeResult::First
    }

    /// Lets a key of the engine be removed once there are too many, because the store has its run, or may have it.
    pub(super) fn allow_eviction(&self, key: RetryKey, now: Instant) {
        let mut shard = self.shard(&key);
        let Some(taken) = shard.taken.get_mut(&key).filter(|taken| !taken.is_of_legacy()) else { return };
        // The store counts its window from the append.
        if std::mem::take(&mut taken.is_pending) {
            taken.until = self.until(now, Duration::ZERO).max(taken.until);
        }
        let until = taken.until;
        let keys_max = self.shard_keys_max.max(SHARD_ENGINE_MIN);
        while let Some((until, oldest)) = shard.engine_by_age.front().copied()
            && (now >= until || shard.engine_by_age.len() >= keys_max)
        {
            shard.engine_by_age.pop_front();
            // If the key was released and taken again since, it has a later `until`, and stays.
            if shard.taken.get(&oldest).is_some_and(|taken| !taken.is_of_legacy() && taken.until == until) {
                shard.taken.remove(&oldest);
            }
        }
        shard.engine_by_age.push_back((until, key));
    }

    /// Sets whether a key of legacy has still to be claimed in the shared store.
    pub(super) fn set_unclaimed(&self, key: &RetryKey, is_unclaimed: bool) {
        if let Some(taken) = self.shard(key).taken.get_mut(key).filter(|taken| taken.is_of_legacy()) {
            taken.is_unclaimed = is_unclaimed;
        }
    }

    /// Whether a key of legacy has still to be claimed: its claim is under way, or has failed.
    pub(super) fn is_unclaimed(&self, key: &RetryKey) -> bool {
        self.shard(key).taken.get(key).is_some_and(|taken| taken.is_of_legacy() && taken.is_unclaimed)
    }

    /// Forgets that legacy took a key, because the store has the key as the engine's; without `always`, only if an
    /// earlier process took it. Returns whether it was forgotten.
    pub(super) fn forget(&self, key: &RetryKey, always: bool) -> bool {
        let mut shard = self.shard(key);
        let is_forgotten = |taken: &TriedKey| taken.is_of_legacy() && (always || taken.by_earlier_process);
        shard.taken.get(key).is_some_and(is_forgotten) && shard.taken.remove(key).is_some()
    }

    /// Releases a key that the engine took without beginning a run for it.
    pub(super) fn release(&self, key: &RetryKey) {
        let mut shard = self.shard(key);
        if shard.taken.get(key).is_some_and(|taken| !taken.is_of_legacy()) {
            shard.taken.remove(key);
        }
    }
}

impl Shard {
    fn arm(&self, key: &RetryKey, now: Instant) -> Option<Arm> {
        self.taken.get(key).filter(|taken| taken.is_held(now)).map(|taken| taken.arm)
    }
}

impl TriedKey {
    fn is_of_legacy(&self) -> bool {
        self.arm == Arm::Legacy
    }
    fn is_held(&self, now: Instant) -> bool {
        now < self.until || self.is_pending
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
        let take = |seconds| tries.take_for_legacy(key(1), begin + Duration::from_secs(seconds), || "noted");
        let was_noted = |seconds| tries.was_noted(&key(1), begin + Duration::from_secs(seconds));
        assert_eq!(take(0), Some((false, "noted")));
        assert!(!was_noted(1));
        tries.record_noted(&key(1));
        assert_eq!(take(9), Some((true, "noted")));
        assert!(was_noted(9));
        assert_eq!(tries.arm(&key(1), begin + Duration::from_secs(9)), Some(Arm::Legacy));
        assert_eq!(tries.arm(&key(1), begin + Duration::from_secs(10)), None);
        assert_eq!(take(10), Some((false, "noted")));
        assert_eq!(tries.arm(&key(1), begin + Duration::from_secs(11)), Some(Arm::Legacy), "a first try again");
        assert!(!was_noted(11));
    }

    #[test]
    fn keys_are_bounded_and_the_oldest_are_removed_first() {
        let tries = Tries::new(Duration::from_secs(1_000), 160);
        let begin = Instant::now();
        for n in 0..10_000 {
            tries.give_to_legacy(key(n), begin + Duration::from_millis(n.into()), || ());
        }
        let now = begin + Duration::from_secs(10);
        let remembered: Vec<u32> = (0..10_000).filter(|n| tries.arm(&key(*n), now).is_some()).collect();
        assert!(remembered.len() <= 160 && remembered.len() > 100, "{}", remembered.len());
        assert!(remembered.contains(&9_999) && !remembered.contains(&0));
        let rows: usize = tries.shards.iter().map(|shard| shard.lock().unwrap().legacy_by_age.len()).sum();
        assert_eq!(rows, remembered.len());
    }

    #[test]
    fn a_key_belongs_to_one_arm() {
        let tries = Tries::new(Duration::from_secs(10), 100);
        let now = Instant::now();
        assert_eq!(tries.take_for_engine(key(1), now), KeyTakeResult::First);
        assert_eq!(tries.take_for_engine(key(1), now), KeyTakeResult::Retry);
        let not_called = || -> () { panic!("it is not legacy's") };
        assert_eq!(tries.take_for_legacy(key(1), now, not_called), None);
        assert_eq!(tries.give_to_legacy(key(1), now, || ()), (false, ()), "given back");
        tries.release(&key(1));
        assert_eq!(tries.take_for_engine(key(1), now), KeyTakeResult::OtherArmHasIt);
        assert_eq!(tries.take_for_legacy(key(1), now, || ()), Some((true, ())));
        assert_eq!(tries.take_for_engine(key(2), now), KeyTakeResult::First);
        tries.release(&key(2));
        assert_eq!(tries.take_for_legacy(key(2), now, || ()), Some((false, ())));
    }

    #[test]
    fn keys_of_legacy_take_no_room_from_keys_of_the_engine() {
        let tries = Tries::new(Duration::from_secs(1_000), 16);
        let now = Instant::now();
        for n in 0..30_000 {
            tries.give_to_legacy(key(n + 100_000), now, || ());
            tries.take_for_engine(key(n), now + Duration::from_millis(n.into()));
            tries.allow_eviction(key(n), now + Duration::from_millis(n.into()));
        }
        // If both arms' keys shared one bound, only about half as many of the engine's keys would be left.
        assert_eq!(tries.arm(&key(15_000), now), Some(Arm::Engine));
        assert_eq!(tries.arm(&key(0), now), None, "the oldest was removed");
        let remembered: usize = tries.shards.iter().map(|shard| shard.lock().unwrap().taken.len()).sum();
        assert!(remembered <= SHARDS * (SHARD_ENGINE_MIN + 1), "{remembered}");
    }

    /// The store does not have its run yet, so that nothing but this key tells that the engine has the request.
    #[test]
    fn a_key_of_a_run_that_is_not_stored_yet_is_never_removed() {
        let tries = Tries::new(Duration::from_secs(1_000), 16);
        let now = Instant::now();
        tries.take_for_engine(key(0), now);
        for n in 1..100_000 {
            tries.take_for_engine(key(n), now);
            match n % 2 {
                0 => tries.allow_eviction(key(n), now),
                _ => tries.release(&key(n)),
            }
        }
        assert_eq!(tries.arm(&key(0), now), Some(Arm::Engine));
        let later = now + Duration::from_secs(2_000);
        assert_eq!((tries.arm(&key(0), later), tries.pending()), (Some(Arm::Engine), vec![key(0)]), "after its window");
        assert!(tries.engine_has_any(key(0)..=key(0), later));
        tries.allow_eviction(key(0), now);
        assert_eq!(tries.arm(&key(0), now), Some(Arm::Engine), "the newest of those that may be removed");
        assert_eq!((tries.arm(&key(0), later), tries.pending()), (None, vec![]));
    }
}
