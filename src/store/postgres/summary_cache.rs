//! A cache of the summaries that this process wrote, so that equal ones are not written again.
//!
//! Always true: this process committed what is cached, with the run's current fencing token. The statement that skips
//! the write compares the token, so that no other process can have written the summary since. The cache is cleared when
//! it is full, and after every commit that failed, because its outcome may be unknown.

use std::collections::HashMap;

use crate::names::{Fence, RunId};
use crate::store::encoded::EncodedAppend;
use crate::store::summary::ListedFields;

/// Cached runs. The summary of a run that is not cached is written once more.
const RUNS_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct SummaryCache(HashMap<RunId, (Fence, ListedFields)>);

impl SummaryCache {
    /// Whether the stored summary equals the one of this append.
    pub(super) fn is_current(&self, append: &EncodedAppend) -> bool {
        append.first > 1
            && self
                .0
                .get(&append.run_id)
                .is_some_and(|(fence, listed)| *fence == append.fence && *listed == append.run.listed)
    }

    /// Caches the summary of an append that was committed.
    pub(super) fn insert(&mut self, append: &EncodedAppend) {
        if append.run.ended {
            self.0.remove(&append.run_id);
            return;
        }
        if self.0.len() >= RUNS_MAX {
            self.0.clear();
        }
        self.0.insert(append.run_id, (append.fence, append.run.listed.clone()));
    }

    /// Clears the cache after a commit that failed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
