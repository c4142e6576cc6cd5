//! Pinned runs that cannot be purged, because what would be kept of them cannot be read.
//!
//! Always true: such a run stays as it is. A process reads it once, and leaves it out of its later purges, so that it
//! keeps no other run from being purged.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use crate::names::RunId;

/// The pinned runs that this process found to be unreadable.
#[derive(Default)]
pub(super) struct Unpurgeable(Mutex<BTreeSet<RunId>>);

impl Unpurgeable {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<RunId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// These runs.
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
