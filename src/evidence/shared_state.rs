//! What a process knows of the row of a route in a store that several processes share; see
//! [`shared_counters`](super::shared_counters).

use std::sync::Arc;

use crate::names::RouteId;
use crate::store::EvidenceVersion;

/// The most edits of one route that wait to be written. Beyond that the oldest are dropped.
const EDITS_MAX: usize = 1_024;

/// The most attempts to write whose outcome is not known. Beyond that the oldest count as failed.
const ATTEMPTS_MAX: usize = 4;

/// A change that is not counting; see [`shared_counters`](super::shared_counters).
type Edit<C> = Arc<dyn Fn(&mut C) + Send + Sync>;

/// What the store has of the counters of a route.
#[derive(Clone, Default)]
pub(super) struct SharedState<C> {
    /// The version of the row that `base` is a copy of. `None` if there is no row, as far as is known, or if the row
    /// has to be read again before it is written.
    pub(super) version: Option<EvidenceVersion>,
    /// The row as it was last read or written, with `edits` made to it.
    pub(super) base: Box<C>,
    /// The id of the row, if it is not that of the route, because the route was renamed.
    pub(super) row_id: Option<RouteId>,
    /// Set if a rename has given these counters another row, which does not have the content of `base`: if the row is
    /// empty, all of the counters are written.
    pub(super) is_moved_here: bool,
    /// A process of an earlier version has moved the content of the row to another id.
    pub(super) is_moved_away: bool,
    /// The row, if it has another basis than the files of this process give the route; `base` is then what the row says
    /// of the basis of this process.
    pub(super) row_of_other_basis: Option<Box<C>>,
    /// The edits that may not be in the row yet.
    pub(super) edits: Vec<Edit<C>>,
    /// How many edits there were before those in `edits`.
    pub(super) edits_before: u64,
    /// Whether one of the edits changes the basis so that the samples of the route have to be removed.
    pub(super) clears_samples: bool,
    /// The attempts to write since the row was last read: any of them may have been done.
    pub(super) attempts: Vec<Attempt<C>>,
    /// The number of the last attempt to write.
    pub(super) last_attempt: u64,
}

/// Counters that this process has tried to write.
#[derive(Clone)]
pub(super) struct Attempt<C> {
    pub(super) number: u64,
    pub(super) written: Box<C>,
    /// The row that was to be written, if the row has another basis.
    pub(super) row_of_other_basis: Option<Box<C>>,
    /// How many edits are in the attempt, counted from the first edit of all.
    pub(super) edits: u64,
}

impl<C: Default> SharedState<C> {
    pub(super) fn of_row(base: C, version: EvidenceVersion) -> Self {
        Self { version: Some(version), base: Box::new(base), ..Self::default() }
    }

    pub(super) fn version(&self) -> Option<&EvidenceVersion> {
        self.version.as_ref()
    }

    /// Records that this attempt was written: its content is the row now.
    pub(super) fn confirm_attempt(
        &mut self,
        Attempt { mut written, row_of_other_basis, edits, number: _ }: Attempt<C>,
    ) {
        let done = usize::try_from(edits.saturating_sub(self.edits_before)).unwrap_or(usize::MAX);
        self.drop_edits(done.min(self.edits.len()));
        self.edits.iter().for_each(|edit| edit(&mut written));
        (self.base, self.row_of_other_basis) = (written, row_of_other_basis);
        (self.is_moved_here, self.clears_samples) = (false, false);
        self.attempts.clear();
    }

    /// Makes an edit to the copy of the row, and keeps it: it is made again to each row that is read.
    pub(super) fn edit(&mut self, edit: impl Fn(&mut C) + Send + Sync + 'static) {
        edit(&mut self.base);
        self.edits.push(Arc::new(edit));
        self.drop_edits(self.edits.len().saturating_sub(EDITS_MAX));
    }

    /// How many edits there were so far.
    pub(super) fn edits_so_far(&self) -> u64 {
        self.edits_before + self.edits.len() as u64
    }

    fn drop_edits(&mut self, oldest: usize) {
        self.edits.drain(..oldest);
        self.edits_before += oldest as u64;
    }

    /// Records an attempt to write that is about to be made.
    pub(super) fn add_attempt(&mut self, attempt: Attempt<C>) {
        self.attempts.drain(..(self.attempts.len() + 1).saturating_sub(ATTEMPTS_MAX));
        self.attempts.push(attempt);
    }
}
