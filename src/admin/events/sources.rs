//! Reads what has changed since the last look: runs and flips in the store, the flag set in force, and the evidence.
//!
//! Always true: a change that a look could not read is told by a later one, as long as the cursor is known; where it is
//! not, clients are told to read everything again. A look reads at most [`RUNS_NAMED_MAX`] runs (of each kind), and the
//! runs that clients watch; what changed beyond that is one event without names. Nothing of requests waits for a look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::change::Change;
use super::flag_view::FlagView;
use super::told_runs::{ToldRuns, WaitingRuns};
use crate::admin::parts::AdminParts;
use crate::admin::types::{
    ChangeData, EvidenceChange, FilesChange, FreezeChange, MoreRuns, ResetReason, RouteChange, StoreChange, StreamReset,
};
use crate::evidence::{Evidence, EvidenceCounts};
use crate::names::{RouteId, RunId};
use crate::store::{RunCursor, RunFilter, StoreError, StoreHandle, candidate_key};
use crate::workflow::{RunStatus, RunSummary};

/// The most runs that one look names.
const RUNS_NAMED_MAX: usize = 64;
/// The most watched runs that one look reads by themselves, when more have changed than it names.
const WATCHED_READ_MAX: usize = 256;
/// The most waiting runs that are read at the beginning.
const WAITING_READ_MAX: usize = 1_000;
/// The most flips that one look reads. If there are more, all routes count as changed.
const FLIPS_READ_MAX: usize = 50;
/// How often flips and evidence are looked at.
const SLOW_EVERY: Duration = Duration::from_secs(1);
/// How long a look waits for the store.
const STORE_WAIT: Duration = Duration::from_secs(3);

/// What is known of the sources after the last look.
#[derive(Default)]
pub(super) struct Sources {
    cursor: Option<RunCursor>,
    told: ToldRuns,
    waiting: WaitingRuns,
    flags: Option<FlagView>,
    /// The number of the newest flip.
    newest_flip: Option<u64>,
    /// For each route, the number of its newest flip among those that a look has found.
    flips: BTreeMap<RouteId, u64>,
    evidence: BTreeMap<RouteId, EvidenceCounts>,
    /// Whether the evidence was looked at before: a route that has some for the first time has changed.
    evidence_is_known: bool,
    slow_due: Option<Instant>,
    store_is_silent: bool,
}

/// What a look found in the store.
struct FoundRuns {
    /// The one that changed last is at the end.
    runs: Vec<RunSummary>,
    are_all: bool,
    next: RunCursor,
}

impl Sources {
    /// Whether the store did not answer the last look.
    pub fn store_is_silent(&self) -> bool {
        self.store_is_silent
    }

    /// What has changed since the last look; nothing at the first. `has_begun`: whether clients were told before.
    pub async fn look(&mut self, parts: &AdminParts, watched: &[RunId], has_begun: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        let now = Instant::now();
        let is_slow_due = self.slow_due.is_none_or(|due| now >= due);
        if is_slow_due {
            self.slow_due = Some(now + SLOW_EVERY);
        }
        // Each has its own time: what was found of runs counts as told, also if the flips are not found.
        let runs = in_time(self.look_at_runs(&parts.store, watched, has_begun)).await;
        let flipped = match is_slow_due && runs.is_ok() {
            true => in_time(self.look_at_flips(&parts.store)).await,
            false => Ok(Flipped::default()),
        };
        let error = runs.as_ref().err().or(flipped.as_ref().err());
        if let Some(error) = error.filter(|_| !self.store_is_silent) {
            tracing::warn!(%error, "clients of the event stream are not told of changes: the store does not answer");
        }
        let is_silent = error.is_some();
        changes.extend(runs.unwrap_or_default());
        let mut flipped = flipped.unwrap_or_default();
        if std::mem::replace(&mut self.store_is_silent, is_silent) != is_silent {
            changes.push(Change::new(ChangeData::Store(StoreChange { answers: !is_silent })));
        }
        self.look_at_flags(parts, &mut flipped, &mut changes);
        if is_slow_due {
            self.look_at_evidence(&parts.evidence, &mut changes);
        }
        changes
    }

    /// The runs that have changed. Without a cursor, only finds where to begin.
    async fn look_at_runs(
        &mut self,
        store: &StoreHandle,
        watched: &[RunId],
        has_begun: bool,
    ) -> Result<Vec<Change>, StoreError> {
        let Some(since) = self.cursor else {
            // Read before the runs that wait: what changes meanwhile is found by the next look.
            let next = store.changed_runs(None, 0).await?.next;
            let statuses = vec![RunStatus::WaitingCheckpoint, RunStatus::Paused];
            let filter = RunFilter { statuses, limit: WAITING_READ_MAX, ..RunFilter::default() };
            let waiting = store.runs(filter).await?;
            self.waiting = WaitingRuns::new(&waiting, waiting.len() < WAITING_READ_MAX);
            self.cursor = Some(next);
            let reset = Change::new(ChangeData::Reset(StreamReset { why: ResetReason::Unread }));
            return Ok(if has_begun { vec![reset] } else { Vec::new() });
        };
        let found = found_runs(store, since, watched).await?;
        let mut changes = Vec::new();
        for run in found.runs.iter().filter(|run| self.told.is_new(run)) {
            changes.push(Change::of_run(run));
            if self.waiting.has_changed(run) {
                changes.push(Change::of_waiting(run));
            }
        }
        if !found.are_all {
            let named = changes.iter().filter(|change| matches!(change.data, ChangeData::Run(_))).count() as u64;
            changes.push(Change::new(ChangeData::Runs(MoreRuns { named })));
            // The runs beyond those named may have begun to wait, or have gone on.
            self.waiting.forget_completeness();
        }
        self.cursor = Some(found.next);
        Ok(changes)
    }

    /// The routes of flips that were not seen before.
    async fn look_at_flips(&mut self, store: &StoreHandle) -> Result<Flipped, StoreError> {
        let newest = store.flips(None, 1).await?.first().map_or(0, |flip| flip.number);
        let Some(known) = self.newest_flip.filter(|known| *known < newest) else {
            self.newest_flip = Some(newest);
            return Ok(Flipped::default());
        };
        let flips = store.flips(None, FLIPS_READ_MAX).await?;
        let mut flipped = Flipped { routes: BTreeSet::new(), may_be_all: flips.len() >= FLIPS_READ_MAX };
        for flip in flips.iter().filter(|flip| flip.number > known) {
            // Records of a guard or a candidate have the route's id with a suffix.
            let id = flip.route.as_ref().and_then(|id| id.as_str().split('#').next());
            if let Some(route) = id.map(RouteId::from) {
                let number = self.flips.entry(route.clone()).or_default();
                *number = flip.number.max(*number);
                flipped.routes.insert(route);
            }
        }
        self.newest_flip = Some(flips.first().map_or(newest, |flip| flip.number));
        Ok(flipped)
    }

    /// The routes whose flags have changed, and those that were flipped; the kill switch; the files.
    fn look_at_flags(&mut self, parts: &AdminParts, flipped: &mut Flipped, changes: &mut Vec<Change>) {
        let set = parts.ladder.flags();
        let is_new = self.flags.as_ref().is_none_or(|known| known.set_number != set.set_number);
        let before = if is_new { self.flags.replace(FlagView::of(&set)) } else { None };
        let Some(flags) = &self.flags else { return };
        if flipped.may_be_all {
            flipped.routes.extend(flags.routes.keys().cloned());
        }
        if let Some(before) = before {
            flipped.routes.extend(before.changed_routes(flags));
            if before.freeze != flags.freeze {
                changes.push(Change::new(ChangeData::Freeze(FreezeChange { freeze: flags.freeze })));
            }
            if before.files_version != flags.files_version {
                changes.push(Change::new(ChangeData::Files(FilesChange { version: flags.files_version })));
            }
        }
        changes.extend(flipped.routes.iter().map(|route| {
            let flag = flags.routes.get(route);
            Change::new(ChangeData::Route(RouteChange {
                route: route.clone(),
                requested: flag.map(|flag| flag.requested),
                effective: flag.map(|flag| flag.effective),
                flip: self.flips.get(route).copied(),
            }))
        }));
    }

    /// The routes whose evidence has changed.
    fn look_at_evidence(&mut self, evidence: &Evidence, changes: &mut Vec<Change>) {
        let Some(flags) = &self.flags else { return };
        self.evidence.retain(|id, _| flags.routes.contains_key(&route_of(id)));
        for route in flags.routes.keys() {
            let mut has_changed = false;
            for id in [route.clone(), candidate_key(route)] {
                let Some(counts) = evidence.counts(&id) else { continue };
                let before = self.evidence.insert(id, counts);
                has_changed |= before != Some(counts) && (before.is_some() || self.evidence_is_known);
            }
            if has_changed {
                let counts = self.evidence.get(route);
                changes.push(Change::new(ChangeData::Evidence(EvidenceChange {
                    route: route.clone(),
                    pairs: counts.map_or(0, |counts| counts.pairs),
                    mismatched: counts.map_or(0, |counts| counts.mismatched),
                })));
            }
        }
        self.evidence_is_known = true;
    }
}

/// The routes that were flipped.
#[derive(Default)]
struct Flipped {
    routes: BTreeSet<RouteId>,
    /// Whether there may be more flips than were read.
    may_be_all: bool,
}

/// Waits for the store, for a bounded time.
async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError(format!("there was no answer within {} s", STORE_WAIT.as_secs())));
    timeout(STORE_WAIT, read).await.unwrap_or_else(late)
}

/// The id of a route, from its own or that of its guard or candidate.
fn route_of(id: &RouteId) -> RouteId {
    RouteId::from(id.as_str().split('#').next().unwrap_or_default())
}

/// The runs that have changed since the cursor, and the watched ones if more have changed than are named.
async fn found_runs(store: &StoreHandle, since: RunCursor, watched: &[RunId]) -> Result<FoundRuns, StoreError> {
    let changed = store.changed_runs(Some(since), RUNS_NAMED_MAX).await?;
    let (mut runs, are_all) = (changed.runs, changed.are_all);
    if !are_all {
        let named: BTreeSet<RunId> = runs.iter().map(|run| run.run_id).collect();
        for run in watched.iter().filter(|run| !named.contains(run)).take(WATCHED_READ_MAX) {
            runs.extend(store.run(*run).await?);
        }
    }
    runs.reverse();
    Ok(FoundRuns { runs, are_all, next: changed.next })
}
