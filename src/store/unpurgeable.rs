//! What cannot be purged because it cannot be read: retry keys, and pinned runs (a purge has to read them, because it
//! keeps a part of each).
//!
//! Always true: such a run or key stays as it is, and keeps no other from being purged. A process reads such a run
//! once, and leaves it out of its later purges.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use crate::names::RunId;

/// How many of the oldest expired retry keys are examined for being readable.
pub(super) const UNREADABLE_EXAMINED_MAX: usize = 1_000;

/// What this process found to be unreadable.
#[derive(Default)]
pub(super) struct Unpurgeable {
    runs: Mutex<BTreeSet<RunId>>,
    /// How many expired retry keys could not be read when they were last counted.
    keys: AtomicU64,
}

impl Unpurgeable {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<RunId>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Sets the number of expired retry keys that cannot be read, and logs it if there are more than before. Ignores a
    /// count that failed: the removal of the other keys does not depend on it.
    pub(super) fn log_keys(&self, counted: Result<u64, StoreError>) {
        let Ok(keys) = counted else { return };
        if keys > self.keys.swap(keys, Ordering::Relaxed) {
            tracing::warn!(
                keys,
                "expired retry keys are not removed, because they cannot be read: they have a wrong length, and match no \
                 request; the others are removed"
            );
        }
    }
    /// The pinned runs that this process could not read.
    pub(super) fn runs(&self) -> BTreeSet<RunId> {
        self.lock().clone()
    }
    /// Adds runs, each with the error of reading it, and logs them.
    pub(super) fn add(&self, found: Vec<(RunId, StoreError)>) {
        if let Some((run, error)) = found.first() {
            tracing::warn!(
                runs = found.len(),
                first = %run,
                %error,
                "pinned runs are not purged, because their events cannot be read: run `pointsman store check`; the next \
                 process tries again"
            );
        }
        self.lock().extend(found.into_iter().map(|(run, _)| run));
    }
}
