//! A cache of the owners that were looked up or pinned recently.
//!
//! Always true: an entry equals what the store has. "Nobody" is cached too, but only if no pin was made since the
//! look-up began, so that it replaces no newer pin. A pin that is made later replaces "nobody".

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
    /// How many pins were made or changed so far.
    pins_made: u64,
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

    /// How many pins were made before a look-up that begins now, for [`Cache::looked_up`].
    pub(super) fn pins_made(&self) -> u64 {
        self.halves().pins_made
    }

    /// Caches the result of a look-up. `pins_made_before` is what [`Cache::pins_made`] returned when the look-up began.
    pub(super) fn looked_up(&self, key: &PinKey, owner: CachedOwner, pins_made_before: u64) {
        let mut halves = self.halves();
        if owner.is_some() || halves.pins_made == pins_made_before {
            halves.put(key, owner);
        }
    }

    /// The store has taken the run from the pin of an instance of legacy.
    pub(super) fn detach_twin(&self, key: &PinKey) {
        let mut halves = self.halves();
        halves.pins_made += 1;
        let Halves { young, old, .. } = &mut *halves;
        for cached in [young.get_mut(key), old.get_mut(key)].into_iter().flatten() {
            if let Some((Owner::LegacyWithTwin, run)) = cached {
                *run = None;
            }
        }
    }

    /// The pin of an instance has changed, or has gone: a look-up that has begun is not cached as "nobody" either.
    pub(super) fn forget(&self, key: &PinKey) {
        let mut halves = self.halves();
        halves.pins_made += 1;
        halves.young.remove(key);
        halves.old.remove(key);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut halves = self.halves();
        halves.pins_made += 1;
        halves.young.clear();
        halves.old.clear();
    }

    /// Caches a pin that was just made. Returns `false` if it was cached already.
    pub(super) fn add_pin(&self, key: &PinKey, arm: Arm, run: Option<RunId>) -> bool {
        let owner = match arm {
            Arm::Engine => Owner::Engine,
            Arm::Legacy => Owner::LegacyWithTwin,
        };
        self.put(key, (owner, run))
    }

    /// Caches what the store has just recorded of an instance. Returns `false` if it was cached already.
    pub(super) fn put(&self, key: &PinKey, owner: (Owner, Option<RunId>)) -> bool {
        let mut halves = self.halves();
        halves.pins_made += 1;
        let owner = Some(owner);
        let before = halves.young.get(key).or_else(|| halves.old.get(key)).copied();
        halves.put(key, owner);
        before != Some(owner)
    }
}

impl Halves {
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
            cache.looked_up(&key(n), Some((Owner::Engine, None)), 0);
            assert!(cache.get(&key(0)).is_some(), "an entry that is read all the time stays cached");
        }
        let halves = cache.halves();
        assert!(halves.young.len() + halves.old.len() <= OWNERS_MAX);
    }

    #[test]
    fn a_pin_replaces_a_cached_absence_and_an_older_look_up_does_not_replace_the_pin() {
        let cache = Cache::default();
        let pins_made_before = cache.pins_made();
        assert!(cache.add_pin(&key(1), Arm::Engine, None));
        cache.looked_up(&key(1), None, pins_made_before);
        assert_eq!(cache.get(&key(1)), Some(Some((Owner::Engine, None))));
        cache.looked_up(&key(2), None, cache.pins_made());
        assert_eq!(cache.get(&key(2)), Some(None));
        cache.add_pin(&key(2), Arm::Engine, None);
        assert_eq!(cache.get(&key(2)), Some(Some((Owner::Engine, None))));
        assert!(!cache.add_pin(&key(2), Arm::Engine, None), "it is cached already");
    }
}
