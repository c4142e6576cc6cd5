//! The pin collisions of one family: ids of instances that both arms have given out.
//!
//! Always true: a collision stands until a person accepts it, also over a restart. An acceptance covers what was found
//! before it; a collision of another id, found later, has to be accepted anew. Readers take no lock.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};

use crate::clock;

/// The most colliding ids that are remembered. Each id counts once, although its collision may be found twice: by
/// legacy's reply, and by the dark run that cannot pin the id.
const COLLIDED_IDS_MAX: usize = 4_096;

/// The collisions of one family.
#[derive(Default)]
pub(super) struct FamilyCollisions {
    /// Changed under the lock of `ids`.
    times: ArcSwapOption<CollisionTimes>,
    /// The ids that were found to collide since the start of this process, up to [`COLLIDED_IDS_MAX`].
    ids: Mutex<HashSet<Arc<str>>>,
    /// How many ids were found to collide.
    count: AtomicU64,
    /// How many changes of `times` there were since the start, and how many of them the store has.
    changes: AtomicU64,
    stored_changes: AtomicU64,
}

/// When collisions of a family were found and accepted, as [`crate::store::PinCollision`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CollisionTimes {
    pub since: Timestamp,
    pub accepted: Option<Timestamp>,
    /// Whether an earlier process found it.
    is_from_store: bool,
}

/// Times that the store does not have yet.
#[derive(Clone, Copy)]
pub(super) struct UnstoredTimes {
    pub times: CollisionTimes,
    /// The number of changes that they contain.
    changes: u64,
}

impl FamilyCollisions {
    /// What the store had at the start.
    pub(super) fn from_store(since: Timestamp, accepted: Option<Timestamp>) -> Self {
        let times = CollisionTimes { since, accepted, is_from_store: true };
        Self { times: ArcSwapOption::from_pointee(times), ..Self::default() }
    }

    /// Records that both arms have given out this id. Returns `false` if that was known already.
    pub(super) fn record(&self, id: &Arc<str>) -> bool {
        let mut ids = self.ids();
        if ids.contains(id) {
            return false;
        }
        if ids.len() < COLLIDED_IDS_MAX {
            ids.insert(id.clone());
        }
        self.count.fetch_add(1, Ordering::AcqRel);
        let now = clock::now();
        match self.times.load().as_deref() {
            None => self.change(&ids, now, None),
            // The time must be after the acceptance: otherwise the store would take this for a collision that was
            // accepted.
            Some(CollisionTimes { accepted: Some(accepted), .. }) => {
                let next = accepted.checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX);
                self.change(&ids, now.max(next), None);
            }
            Some(CollisionTimes { accepted: None, .. }) => {}
        }
        true
    }

    /// Records that a person accepts what was found up to this time. Returns whether that changes anything.
    pub(super) fn accept(&self, at: Timestamp) -> bool {
        let ids = self.ids();
        match self.times.load().as_deref() {
            // What an earlier process found is older, also where the machine's clock was set back since.
            Some(&CollisionTimes { since, accepted: None, is_from_store }) if is_from_store || since <= at => {
                self.change(&ids, since, Some(at.max(since)));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Takes over the times in the store, which another process may have written, if they are newer than those here.
    pub(super) fn follow(&self, since: Timestamp, accepted: Option<Timestamp>) {
        let _lock = self.ids();
        let newest = |times: &CollisionTimes| times.accepted.max(Some(times.since));
        let stored = CollisionTimes { since, accepted, is_from_store: true };
        if self.times.load().as_deref().is_none_or(|own| newest(own) < newest(&stored)) {
            self.times.store(Some(Arc::new(stored)));
        }
    }

    /// How many changes of this process the store has.
    pub(super) fn stored_changes(&self) -> u64 {
        self.stored_changes.load(Ordering::Acquire)
    }

    /// Since when a collision is open: nobody has accepted it.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.times.load().as_deref().filter(|times| times.accepted.is_none()).map(|times| times.since)
    }

    /// When a person accepted the collisions found so far; `None` if one is still open.
    pub(super) fn accepted(&self) -> Option<Timestamp> {
        self.times.load().as_deref().and_then(|times| times.accepted)
    }

    /// How many ids were found to collide since the start of this process.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The times that the store does not have yet.
    pub(super) fn unstored(&self) -> Option<UnstoredTimes> {
        // Read before the times: what changes meanwhile stays unstored.
        let changes = self.changes.load(Ordering::Acquire);
        let times = self.times.load().as_deref().copied()?;
        (changes > self.stored_changes.load(Ordering::Acquire)).then_some(UnstoredTimes { times, changes })
    }

    /// Records that the store has these times.
    pub(super) fn mark_stored(&self, stored: UnstoredTimes) {
        self.stored_changes.fetch_max(stored.changes, Ordering::AcqRel);
    }

    fn change(&self, _lock: &MutexGuard<'_, HashSet<Arc<str>>>, since: Timestamp, accepted: Option<Timestamp>) {
        let is_from_store = false;
        self.times.store(Some(Arc::new(CollisionTimes { since, accepted, is_from_store })));
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        // A poisoned lock is usable: no change can panic halfway.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: &str) -> Arc<str> {
        id.into()
    }

    #[test]
    fn each_id_that_both_arms_gave_out_counts_once() {
        let collisions = FamilyCollisions::default();
        assert_eq!((collisions.since(), collisions.unstored().is_none()), (None, true));
        // Legacy's reply shows it, and the dark run cannot pin it.
        assert_eq!(["17", "17", "18"].map(|text| collisions.record(&id(text))), [true, false, true]);
        assert_eq!(collisions.count(), 2);
        assert!(collisions.since().is_some());
        let unstored = collisions.unstored().unwrap();
        collisions.mark_stored(unstored);
        assert!(collisions.unstored().is_none(), "the first one is stored, for all");
    }

    #[test]
    fn an_acceptance_covers_what_was_found_before_it() {
        let collisions = FamilyCollisions::default();
        let before = clock::now();
        collisions.record(&id("17"));
        assert!(!collisions.accept(before.checked_sub(SignedDuration::from_nanos(1)).unwrap()));
        assert!(collisions.since().is_some());
        let first = collisions.unstored().unwrap();
        assert!(collisions.accept(clock::now()) && !collisions.accept(clock::now()));
        collisions.mark_stored(first);
        assert!(collisions.unstored().unwrap().times.accepted.is_some(), "stored after the collision itself");
        assert!(!collisions.record(&id("17")) && collisions.since().is_none(), "that one was accepted");
        assert!(collisions.record(&id("18")) && collisions.since().is_some());
    }

    /// The machine's clock may have been set back between two processes.
    #[test]
    fn what_an_earlier_process_found_is_accepted_also_if_its_clock_was_ahead() {
        let ahead = clock::now().checked_add(SignedDuration::from_hours(1)).unwrap();
        let collisions = FamilyCollisions::from_store(ahead, None);
        assert!(collisions.since() == Some(ahead) && collisions.unstored().is_none());
        assert!(collisions.accept(clock::now()) && collisions.since().is_none());
        collisions.record(&id("17"));
        assert!(collisions.since().is_some_and(|since| since > ahead), "later than what was accepted");
    }
}
