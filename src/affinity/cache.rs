//! A cache of the owners that were looked up or pinned recently.
//!
//! Always true: an entry equals what the store has. "Nobody" is cached too, but only if no pin was made since the
//! look-up began, so that it replaces no newer pin. A pin that is made later replaces "nobody". The engine's ownership
//! is final; legacy's ends when the instance is adopted, and so it is cached only if no pin was changed meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::flag::{Arm, Owner, PinKey};
use crate::names::RunId;

/// The most owners that are cached. When the younger half is full, the older half is dropped.
const OWNERS_MAX: usize = 32_768;

/// Who owns an instance, and the run that created it; `None` if nobody owns it.
pub(super) type CachedOwner = Option<(Owner, Option<RunId>)>;

#[derive(Default)]
pub(super) struct Cache(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: HashMap<PinKey, CachedOwner>,
    old: HashMap<PinKey, CachedOwner>,
    version: PinsVersion,
}

/// How many pins were made and changed so far. A version is taken before a look-up or a write, and compared afterwards:
/// the result is cached only if no later pin can contradict it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinsVersion {
    /// How many were made or changed.
    made: u64,
    /// How many were changed or have gone.
    changed: u64,
}

impl Cache {
    fn halves(&self) -> MutexGuard<'_, Halves> {
        // A poisoned lock is usable: no change can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &PinKey) -> Option<CachedOwner> {
        let mut halves = self.halves();
        if let Some(owner) = halves.young.get(key) {
            return Some(*owner);
        }
        let owner = halves.old.remove(key)?;
        halves.put(key, owner);
        Some(owner)
    }

    /// The present version, to be taken before a look-up or an append begins.
    pub(super) fn version(&self) -> PinsVersion {
        self.halves().version
    }

    /// Caches the result of a look-up that began after `before` was taken.
    pub(super) fn looked_up(&self, key: &PinKey, owner: CachedOwner, before: PinsVersion) {
        let mut halves = self.halves();
        if halves.is_current(owner, before) {
            halves.put(key, owner);
        }
    }

    /// Removes the run from the cached pin of an instance of legacy, as the store has done: no request finds the twin.
    pub(super) fn detach_twin(&self, key: &PinKey) {
        let mut halves = self.halves();
        halves.changed();
        let Halves { young, old, .. } = &mut *halves;
        for cached in [young.get_mut(key), old.get_mut(key)].into_iter().flatten() {
            if let Some((Owner::LegacyWithTwin, run)) = cached {
                *run = None;
            }
        }
    }

    /// Forgets the pin of an instance because it has changed or has gone, so that the owner is looked up again. If a
    /// look-up has begun already and finds nobody, or a twin, its result is not cached.
    pub(super) fn forget(&self, key: &PinKey) {
        let mut halves = self.halves();
        halves.changed();
        halves.young.remove(key);
        halves.old.remove(key);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut halves = self.halves();
        halves.changed();
        halves.young.clear();
        halves.old.clear();
    }

    /// Caches a pin that was made by an append which began after `before` was taken. Returns `false` if it was cached
    /// already, or may have changed since.
    pub(super) fn add_pin(&self, key: &PinKey, arm: Arm, run: Option<RunId>, before: PinsVersion) -> bool {
        let owner = match arm {
            Arm::Engine => Owner::Engine,
            Arm::Legacy => Owner::LegacyWithTwin,
        };
        let mut halves = self.halves();
        halves.is_current(Some((owner, run)), before) && halves.add(key, (owner, run))
    }

    /// Caches what the store has just recorded of an instance. Returns `false` if it was cached already.
    pub(super) fn put(&self, key: &PinKey, owner: (Owner, Option<RunId>)) -> bool {
        self.halves().add(key, owner)
    }
}

impl Halves {
    /// Whether an owner that was read or written after `before` was taken is still the present one.
    fn is_current(&self, owner: CachedOwner, before: PinsVersion) -> bool {
        match owner {
            None => self.version.made == before.made,
            Some((Owner::LegacyWithTwin, _)) => self.version.changed == before.changed,
            Some(_) => true,
        }
    }

    fn changed(&mut self) {
        self.version.made += 1;
        self.version.changed += 1;
    }

    fn add(&mut self, key: &PinKey, owner: (Owner, Option<RunId>)) -> bool {
        self.version.made += 1;
        let owner = Some(owner);
        let before = self.young.get(key).or_else(|| self.old.get(key)).copied();
        self.put(key, owner);
        before != Some(owner)
    }

    fn put(&mut self, key: &PinKey, owner: CachedOwner) {
        if self.young.len() >= OWNERS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(key);
        self.young.insert(key.clone(), owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> PinKey {
        PinKey { family: "f".into(), id: n.to_string().into() }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_entries_that_are_used() {
        let cache = Cache::default();
        for n in 0..3 * OWNERS_MAX {
            cache.looked_up(&key(n), Some((Owner::Engine, None)), PinsVersion::default());
            assert!(cache.get(&key(0)).is_some(), "an entry that is read all the time stays cached");
        }
        let halves = cache.halves();
        assert!(halves.young.len() + halves.old.len() <= OWNERS_MAX);
    }

    #[test]
    fn a_pin_replaces_a_cached_absence_and_an_older_look_up_does_not_replace_the_pin() {
        let cache = Cache::default();
        let before = cache.version();
        assert!(cache.add_pin(&key(1), Arm::Engine, None, before));
        cache.looked_up(&key(1), None, before);
        assert_eq!(cache.get(&key(1)), Some(Some((Owner::Engine, None))));
        cache.looked_up(&key(2), None, cache.version());
        assert_eq!(cache.get(&key(2)), Some(None));
        cache.add_pin(&key(2), Arm::Engine, None, before);
        assert_eq!(cache.get(&key(2)), Some(Some((Owner::Engine, None))));
        assert!(!cache.add_pin(&key(2), Arm::Engine, None, before), "it is cached already");
    }

    #[test]
    fn what_was_known_of_a_twin_before_its_instance_was_adopted_is_not_cached_after_that() {
        let (cache, run) = (Cache::default(), Some(RunId(uuid::Uuid::from_u128(1))));
        let before = cache.version();
        cache.forget(&key(1)); // the claim
        cache.put(&key(1), (Owner::Adopted, run));
        cache.looked_up(&key(1), Some((Owner::LegacyWithTwin, None)), before);
        assert!(!cache.add_pin(&key(1), Arm::Legacy, None, before));
        assert_eq!(cache.get(&key(1)), Some(Some((Owner::Adopted, run))));
        // A twin whose run was taken from its pin meanwhile.
        let before = cache.version();
        cache.detach_twin(&key(2));
        cache.looked_up(&key(2), Some((Owner::LegacyWithTwin, run)), before);
        assert_eq!(cache.get(&key(2)), None);
        let before = cache.version();
        cache.add_pin(&key(3), Arm::Engine, None, before);
        cache.looked_up(&key(2), Some((Owner::LegacyWithTwin, None)), before);
        assert_eq!(cache.get(&key(2)), Some(Some((Owner::LegacyWithTwin, None))), "another pin was made");
    }
}
