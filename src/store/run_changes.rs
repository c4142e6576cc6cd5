//! Which runs have changed since an earlier look: for the event stream over all runs.

use crate::workflow::RunSummary;

/// How far the changes of runs were read. Only the store that returned it can read on from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunCursor(pub(super) i64);

/// The runs that have changed since a [`RunCursor`].
#[derive(Clone, Debug, PartialEq)]
pub struct ChangedRuns {
    /// The runs, as they are now. Some of them may not have changed since the cursor: compare their numbers.
    pub runs: Vec<RunSummary>,
    /// Whether no other runs have changed; if not, `runs` has those that changed last.
    pub are_all: bool,
    /// Where the next look begins.
    pub next: RunCursor,
}
