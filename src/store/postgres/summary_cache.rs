//! Which summaries stand in the database as they would be written again?
//!
//! Always true: what is remembered was committed by this process under the run's fence, so that nobody has written the
//! row's summary since: the statement that leaves it as it is asks for that fence. It forgets rather than grows, and all
//! of it where a commit is in doubt.

use std::collections::HashMap;

use crate::names::{Fence, RunId};
use crate::store::encoded::EncodedAppend;
use crate::store::summary::ListedFields;

/// Runs that are remembered; the summary of one that was forgotten is written once more.
const RUNS_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct SummaryCache(HashMap<RunId, (Fence, ListedFields)>);

impl SummaryCache {
    /// Whether the row shows what this append leaves.
    pub(super) fn is_current(&self, append: &EncodedAppend) -> bool {
        append.first > 1
            && self
                .0
                .get(&append.run_id)
                .is_some_and(|(fence, listed)| *fence == append.fence && *listed == append.run.listed)
    }

    /// It is committed.
    pub(super) fn written(&mut self, append: &EncodedAppend) {
        if append.run.ended {
            self.0.remove(&append.run_id);
            return;
        }
        if self.0.len() >= RUNS_MAX {
            self.0.clear();
        }
        self.0.insert(append.run_id, (append.fence, append.run.listed.clone()));
    }

    /// Nobody knows what was written last.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}
