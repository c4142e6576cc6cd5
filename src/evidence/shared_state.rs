//! What a process knows of the row of a route in a store that several processes share; see [`shared`](super::shared).

use std::sync::Arc;

use crate::names::RouteId;
use crate::store::EvidenceVersion;

/// The most changes of one route that wait to be written. Beyond that the oldest are dropped.
const CHANGES_MAX: usize = 1_024;

/// The most attempts to write whose outcome is not known. Beyond that the oldest count as failed.
const ATTEMPTS_MAX: usize = 4;

/// A change that is not a sum of counts.
type Change<C> = Arc<dyn Fn(&mut C) + Send + Sync>;

/// What the store has of the counters of a route.
#[derive(Clone, Default)]
pub(super) struct SharedState<C> {
    /// Which row `base` is of; `None`: there is none, as far as is known.
    pub(super) version: Option<EvidenceVersion>,
    /// The row, with `changes`.
    pub(super) base: Box<C>,
    /// The id of the row, if it is not that of the route, because the route was renamed.
    pub(super) row: Option<RouteId>,
    /// The row does not have the content of `base`, because a rename brought it here: if the row is empty, all of the
    /// counters are written.
    pub(super) is_moved_here: bool,
    /// A process of an earlier version has moved the content of the row to another id.
    pub(super) is_moved_away: bool,
    /// The row, if it has another basis than the files of this process give the route; `base` is then what the row says
    /// of the basis of this process.
    pub(super) other: Option<Box<C>>,
    pub(super) changes: Vec<Change<C>>,
    /// How many changes there were before these.
    pub(super) changes_before: u64,
    /// One of the changes is of the basis, and the samples of the route are going to be removed because of it.
    pub(super) clears_samples: bool,
    /// What may have been written since the row was last read.
    pub(super) attempts: Vec<Attempt<C>>,
    /// The number of the last attempt to write.
    pub(super) last_attempt: u64,
}

/// Counters that this process has tried to write.
#[derive(Clone)]
pub(super) struct Attempt<C> {
    pub(super) number: u64,
    pub(super) written: Box<C>,
    /// What the row was to be, if it has another basis.
    pub(super) other: Option<Box<C>>,
    /// How many changes are in it, with those that had been written before.
    pub(super) changes: u64,
}

impl<C: Default> SharedState<C> {
    pub(super) fn of_row(base: C, version: EvidenceVersion) -> Self {
        Self { version: Some(version), base: Box::new(base), ..Self::default() }
    }

    pub(super) fn version(&self) -> Option<&EvidenceVersion> {
        self.version.as_ref()
    }

    /// Records that this attempt was written: its content is the row now.
    pub(super) fn confirm_attempt(&mut self, Attempt { mut written, other, changes, number: _ }: Attempt<C>) {
        let done = usize::try_from(changes.saturating_sub(self.changes_before)).unwrap_or(usize::MAX);
        self.drop_changes(done.min(self.changes.len()));
        self.changes.iter().for_each(|change| change(&mut written));
        (self.base, self.other) = (written, other);
        (self.is_moved_here, self.clears_samples) = (false, false);
        self.attempts.clear();
    }

    /// Makes a change to the row, here and when it is read again.
    pub(super) fn change(&mut self, change: impl Fn(&mut C) + Send + Sync + 'static) {
        change(&mut self.base);
        self.changes.push(Arc::new(change));
        self.drop_changes(self.changes.len().saturating_sub(CHANGES_MAX));
    }

    /// How many changes there were.
    pub(super) fn changes_so_far(&self) -> u64 {
        self.changes_before + self.changes.len() as u64
    }

    fn drop_changes(&mut self, oldest: usize) {
        self.changes.drain(..oldest);
        self.changes_before += oldest as u64;
    }

    /// Records that these counters are going to be written.
    pub(super) fn add_attempt(&mut self, attempt: Attempt<C>) {
        self.attempts.drain(..(self.attempts.len() + 1).saturating_sub(ATTEMPTS_MAX));
        self.attempts.push(attempt);
    }
}
