//! Owners that were looked up or pinned of late.
//!
//! Always true: an entry says what the store says. "Nobody" is kept too, and could be overtaken by a pin: it is kept
//! only if no pin was made since the look began, and a pin that is made later replaces it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::flag::{Arm, PinKey};
use crate::names::RunId;

/// Owners kept; the older half goes when the younger half is full.
const OWNERS_MAX: usize = 32_768;

/// Whose it is, and of which run; `None` is nobody's.
pub(super) type Known = Option<(Arm, Option<RunId>)>;

#[derive(Default)]
pub(super) struct Cache(Mutex<Halves>);

#[derive(Default)]
struct Halves {
    young: HashMap<PinKey, Known>,
    old: HashMap<PinKey, Known>,
    /// Counts pins made.
    epoch: u64,
}

impl Cache {
    fn halves(&self) -> MutexGuard<'_, Halves> {
        // Nothing here is left half by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: &PinKey) -> Option<Known> {
        let mut halves = self.halves();
        if let Some(known) = halves.young.get(key) {
            return Some(*known);
        }
        let known = halves.old.remove(key)?;
        halves.put(key, known);
        Some(known)
    }

    /// To be handed to [`Cache::looked_up`] by a look that begins now.
    pub(super) fn epoch(&self) -> u64 {
        self.halves().epoch
    }

    /// What a look found that began at an epoch.
    pub(super) fn looked_up(&self, key: &PinKey, known: Known, began: u64) {
        let mut halves = self.halves();
        if known.is_some() || halves.epoch == began {
            halves.put(key, known);
        }
    }

    /// A pin was made. Says whether it is news.
    pub(super) fn pinned(&self, key: &PinKey, arm: Arm, run: Option<RunId>) -> bool {
        let mut halves = self.halves();
        halves.epoch += 1;
        let known = Some((arm, run));
        let stood = halves.young.get(key).or_else(|| halves.old.get(key)).copied();
        halves.put(key, known);
        stood != Some(known)
    }
}

impl Halves {
    fn put(&mut self, key: &PinKey, known: Known) {
        if self.young.len() >= OWNERS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(key);
        self.young.insert(key.clone(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> PinKey {
        PinKey { family: "f".into(), id: n.to_string().into() }
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let cache = Cache::default();
        for n in 0..3 * OWNERS_MAX {
            cache.looked_up(&key(n), Some((Arm::Engine, None)), 0);
            assert!(cache.get(&key(0)).is_some(), "asked for all the time");
        }
        let halves = cache.halves();
        assert!(halves.young.len() + halves.old.len() <= OWNERS_MAX);
    }

    #[test]
    fn a_pin_overtakes_a_look_that_found_nobody() {
        let cache = Cache::default();
        let began = cache.epoch();
        assert!(cache.pinned(&key(1), Arm::Engine, None));
        cache.looked_up(&key(1), None, began);
        assert_eq!(cache.get(&key(1)), Some(Some((Arm::Engine, None))));
        cache.looked_up(&key(2), None, cache.epoch());
        assert_eq!(cache.get(&key(2)), Some(None));
        cache.pinned(&key(2), Arm::Engine, None);
        assert_eq!(cache.get(&key(2)), Some(Some((Arm::Engine, None))));
        assert!(!cache.pinned(&key(2), Arm::Engine, None), "no news");
    }
}
