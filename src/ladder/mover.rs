//! Performs moves one after the other: each is judged, recorded, then put in force. Freezes and flips down (`down`) are
//! put in force first and recorded afterwards.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;

use super::auto_shares::AutoShares;
use super::cohort_listener::CohortListeners;
use super::export::{log, log_candidate};
use super::files_check::{CheckedFiles, PreparedFiles, check_and_apply, prepare};
use super::followed_moves::FollowedMoves;
use super::gate::Gate;
use super::guard_latches::GuardLatches;
use super::guard_types::GuardListener;
use super::in_force::{FollowedLimits, InForce, Inputs};
use super::kill_switch::{FreezeRecords, is_of_kill_switch};
use super::other_processes::OtherProcesses;
use super::pending_shares::PendingShares;
use super::positions::{JudgedFiles, Positions, RoutePosition};
use super::record::{FlipRecorder, RecordBatch, flip_record, is_outdated_judgement, outdated_judgement};
use super::types::{DeclaredFiles, FilesError, FlipSource, KillSwitchListener, Move, ReadKind};
use super::unrecorded_flips::{OutstandingWrite, UnrecordedFlip};
use super::{
    cohort_moves, files, holds, leaving_only, live_basis, plans, scopes, separated, taken_ids, unfollowed_instances,
};
use crate::clock;
use crate::flag::{FlagSet, State};
use crate::names::RouteId;
use crate::store::{FlipRecord, StandingAnnouncement, StoreError, StoreHandle};

pub(super) struct Mover {
    pub store: StoreHandle,
    pub recorder: FlipRecorder,
    gate: Gate,
    in_force: InForce,
    kill_switch: FreezeRecords,
    pub larger_shares: Arc<PendingShares>,
    /// Held from the judgement of a move until its outcome is in force, because each move is judged by the result of
    /// the one before.
    move_lock: Arc<tokio::sync::Mutex<()>>,
    kill_switch_listeners: Mutex<Vec<Arc<dyn KillSwitchListener>>>,
    guard_listeners: Mutex<Vec<Arc<dyn GuardListener>>>,
    cohort_listeners: Mutex<CohortListeners>,
    pub auto_shares: AutoShares,
    /// Told of moves before they are recorded.
    pub others: Option<Arc<dyn OtherProcesses>>,
}

/// Who makes a change of the positions.
#[derive(Clone, Copy)]
pub(super) enum ChangeOrigin<'a> {
    /// This process, at its start: nothing is announced to the other processes before it serves.
    Start,
    /// This process, which has judged the change.
    Own,
    /// Other processes, which have recorded these moves.
    OtherProcess(&'a FollowedMoves),
}

/// Shows that the caller holds the lock of all moves; one task at a time holds it.
pub(super) type MovesLock = OwnedMutexGuard<()>;

impl Mover {
    pub async fn open(
        declared: DeclaredFiles,
        store: StoreHandle,
        (gate, others): (Gate, Option<Arc<dyn OtherProcesses>>),
        flags: Option<Arc<ArcSwap<FlagSet>>>,
    ) -> Result<Self, FilesError> {
        let secret = store.secret().await?;
        let flips = store.last_flips().await?;
        let mut recorder = FlipRecorder::new(store.clone(), &flips);
        let (guards, flips): (Vec<_>, Vec<_>) = flips.into_iter().partition(|flip| flip.guard.is_some());
        let kill_switch = FreezeRecords::new(flips.iter().find(|flip| is_of_kill_switch(flip)));
        let before = Positions::from_store(&declared, flips, store.declared().await?);
        recorder.set_known_declarations(before.rows());
        let has_served = !store.is_new() || !before.rows().is_empty();
        let prepared = prepare(&store, &gate, &before, declared).await?;
        let guards = GuardLatches::from_store(guards);
        let CheckedFiles { after, moves, joined, .. } =
            check_and_apply((&gate, &guards), &before, prepared, ReadKind::Start { has_served })?;
        joined.log_accepted();
        for position in after.routes.values().filter(|at| gate.is_only_on_copy(&after, at)) {
            tracing::error!(
                route = %position.route.id,
                "the store is a copy, and this route stays in `only`: retries of requests that came after the copy was made \
                 are performed again"
            );
        }
        leaving_only::log_removed(&before, &after);
        taken_ids::log(&before, &after, &guards, &gate);
        let in_force = InForce::new(before.clone(), guards, before.freeze, secret, flags);
        let cohort_listeners = Mutex::new(CohortListeners::of_start(cohort_moves::forced_at_start(&before, &after)));
        let mover = Self {
            store,
            recorder,
            gate,
            in_force,
            kill_switch,
            larger_shares: Default::default(),
            move_lock: Default::default(),
            kill_switch_listeners: Default::default(),
            guard_listeners: Default::default(),
            cohort_listeners,
            auto_shares: Default::default(),
            others,
        };
        mover.record_and_apply(&before, after, moves, Ok(()), (ChangeOrigin::Start, None, || {})).await?;
        Ok(mover)
    }

    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        self.in_force.flags()
    }

    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    pub async fn lock_moves(&self) -> MovesLock {
        self.move_lock.clone().lock_owned().await
    }

    /// See [`super::Ladder::copy_held_until`].
    pub fn copy_held_until(&self) -> Option<Timestamp> {
        self.gate.since_copy().map(|unknown| unknown.until)
    }

    /// The rung of a route; `None` if there is no such route.
    pub fn rung(&self, route: &RouteId) -> Option<State> {
        self.in_force.inputs().positions.routes.get(route).map(RoutePosition::rung)
    }

    /// Connects a part of the process that has to obey the kill switch: from now on no change of the kill switch is
    /// acknowledged before `other` has applied it.
    pub async fn connect_to_kill_switch(&self, other: Arc<dyn KillSwitchListener>) {
        self.kill_switch_listeners().push(other.clone());
        let (version, freeze) = self.in_force.kill_switch();
        other.apply_freeze(version, freeze).await;
    }

    /// Reads what the check of new files needs from the store. Called without the lock of moves: it may take long, and
    /// a flip must not wait for it.
    pub async fn prepare(&self, declared: DeclaredFiles) -> Result<PreparedFiles, StoreError> {
        let before = self.in_force.inputs().positions;
        prepare(&self.store, &self.gate, &before, declared).await
    }

    /// Puts prepared files in force. No other reload may come between [`Self::prepare`] and this.
    pub async fn reload(
        &self,
        moves_lock: MovesLock,
        (read, reading): (Instant, ReadKind),
        prepared: PreparedFiles,
        recorded: impl FnOnce() + Send,
    ) -> Result<Vec<FlipRecord>, FilesError> {
        // An error does not count yet: files of which nothing has to be recorded come into force all the same.
        let (before, all_recorded) = self.record_unrecorded_first(&moves_lock).await;
        let prepared = prepared.refreshed(&self.store, &before).await?;
        if !prepared.plans_are_as_read(&before) {
            return Err(FilesError::FlippedMeanwhile);
        }
        let judged = self.positions_for_outdated_files(read, &before, prepared.routes());
        let guards = self.in_force.inputs().guards;
        let CheckedFiles { after, moves, removes_followers, joined, .. } =
            check_and_apply((&self.gate, &guards), &judged, prepared, reading)?;
        taken_ids::check(&before, &after, &guards, &self.gate)?;
        let routes = after.declared.routes.clone();
        let origin = (ChangeOrigin::Own, Some(JudgedFiles { read, judged: &judged }), recorded);
        let applied = self.record_and_apply(&before, after, moves, all_recorded, origin).await;
        let flips = applied.map_err(|error| match is_outdated_judgement(&error) {
            true => FilesError::FlippedMeanwhile,
            false => error.into(),
        })?;
        drop(moves_lock);
        // Requests that were decided by the set before may have begun runs since the check.
        if removes_followers {
            match unfollowed_instances::find(&self.store, &before.families(), &routes).await {
                Ok(found) => found.newly_unfollowed.iter().for_each(|sentence| {
                    tracing::error!("since these files were checked, an instance or a run was begun: {sentence}");
                }),
                Err(error) => tracing::warn!(%error, "it is not known whether the new files follow up all instances"),
            }
        }
        joined.log_accepted();
        Ok(flips)
    }

    /// Judges the routes again that were held below `live` and whose hold is over. Removes the mark `changed` from
    /// routes whose evidence opens the gate to `live` now.
    pub async fn release_held(&self, moves_lock: MovesLock) -> Result<(), StoreError> {
        let (before, all_recorded) = self.record_unrecorded_first(&moves_lock).await;
        all_recorded?;
        let now = clock::now();
        if before.held_until().is_none_or(|until| until > now) && !self.gate.ends_a_mark(&before) {
            return Ok(());
        }
        let (after, moves) = files::release(&before, now, &self.gate);
        self.record_and_apply(&before, after, moves, Ok(()), (ChangeOrigin::Own, None, || {})).await.map(drop)
    }

    /// Records moves and declarations, calls `recorded`, then puts the positions in force. Returns the flips.
    ///
    /// `all_recorded` is an error if the store did not record all flips down. Nothing may be recorded before these: if
    /// there is something to record, the error is returned. `files` is set for new files: if a person has flipped a
    /// route since they were judged, so that they would be judged otherwise now, nothing is recorded.
    pub(super) async fn record_and_apply(
        &self,
        before: &Positions,
        mut after: Positions,
        moves: Vec<Move>,
        all_recorded: Result<(), StoreError>,
        (origin, files, recorded): (ChangeOrigin<'_>, Option<JudgedFiles<'_>>, impl FnOnce() + Send),
    ) -> Result<Vec<FlipRecord>, StoreError> {
        plans::add_missing(&mut after);
        // Moves that other processes have recorded are in `before` already, so they are not announced again.
        let mut announced = match origin {
            ChangeOrigin::Start => None,
            ChangeOrigin::Own | ChangeOrigin::OtherProcess(_) => {
                Some(self.announce_files(before, &after).await.map_err(|(why, _)| StoreError(why))?)
            }
        };
        let mut flips = Vec::new();
        for made in moves {
            let route = made.route.clone();
            if matches!(made.from, State::Live | State::Only) && made.to < State::Live {
                // No person is there to read the horizon when files make the move, so it is logged.
                for sentence in self.horizon_if_readable(&after, &route).await {
                    tracing::warn!(%route, from = %made.from, to = %made.to, "{sentence}");
                }
            }
            flips.push(self.flip_record(&after, made, FlipSource::File.as_str().to_owned()));
        }
        flips.extend(plans::records(&after, &self.gate));
        // Removed, because the next move is judged from these positions and would record this move a second time.
        after.declared.plans.candidate_move = None;
        // Files that change neither a state nor a declaration need no write to the store.
        let scopes = scopes::current(&before.scopes, clock::now(), self.gate.retry_window);
        if !flips.is_empty() || after.rows() != (Positions { scopes, ..before.clone() }).rows() {
            all_recorded?;
            plans::store_new(&self.store, before, &after).await?;
            separated::note_unknown_instances(before, &after, &self.gate).await?;
            let judged_by = match origin {
                ChangeOrigin::Start => None,
                ChangeOrigin::Own => Some(self.recorder.newest_in_force()),
                ChangeOrigin::OtherProcess(moves) => Some(moves.newest),
            };
            let standing = announced.as_ref().map_or(Ok(None), |announced| announced.standing())?;
            // The write counts as outstanding before the check below: a flip to the present state that comes after the
            // check finds the outstanding write, and counts as a flip down.
            self.in_force.set_outstanding(OutstandingWrite::new(&flips, &after));
            if files.is_some_and(|files| self.are_judged_otherwise(&files, before, &after)) {
                self.in_force.set_outstanding(OutstandingWrite::default());
                return Err(outdated_judgement());
            }
            let batch = RecordBatch { flips, declared: Some(after.rows()), judged_by };
            flips = self.record_announced(batch, standing, &after).await?;
        }
        let (of_candidates, flips): (Vec<_>, Vec<_>) = flips.into_iter().partition(|flip| flip.candidate.is_some());
        for flip in &flips {
            if let Some(route) = &flip.route {
                after.set_last_flip(route, flip.clone());
            }
        }
        for flip in &of_candidates {
            log_candidate(flip);
            if let Some(record) = &flip.candidate {
                after.candidates.insert(record.route.clone(), flip.clone());
            }
        }
        scopes::log_changes(&before.scopes, &after.scopes, self.gate.retry_window);
        separated::log(before, &after);
        if let Some(announced) = &mut announced {
            announced.confirm().await;
        }
        recorded();
        let overtaken = self.put_in_force(after.clone(), origin);
        of_candidates.iter().for_each(|flip| self.note_move_of_candidate(flip));
        of_candidates.iter().for_each(|flip| self.report_candidate(flip));
        holds::log_refused(&after);
        live_basis::log_changed(before, &self.in_force.inputs().positions);
        flips.iter().for_each(|flip| log(flip, FlipSource::File));
        let moved = flips.iter().filter_map(|flip| flip.route.as_ref());
        moved.for_each(|route| self.gate.evidence.restart_guard(route));
        if !overtaken.is_empty() {
            self.revert_overtaken(&overtaken, before).await;
        }
        Ok(flips)
    }

    /// Applies the flips down that were made since positions were computed, then puts the positions in force, together
    /// with the end of a freeze and the releases of guards that other processes have recorded. Returns the routes that
    /// were capped below `only` because of a freeze: the caller reverts their flips.
    pub(super) fn put_in_force(&self, mut positions: Positions, origin: ChangeOrigin<'_>) -> Vec<RouteId> {
        positions.routes.values_mut().for_each(|position| position.inputs.returns_at_restart = false);
        let followed = match origin {
            ChangeOrigin::OtherProcess(moves) => Some(moves),
            ChangeOrigin::Start | ChangeOrigin::Own => None,
        };
        // Before the moves are in force, so that the newest known flip is never older than the flips in force.
        followed.into_iter().for_each(|moves| self.recorder.note_newest(moves.newest));
        let followed_after = followed.map(|_| self.recorder.newest_in_force());
        loop {
            let before = self.in_force.inputs();
            let (mut unrecorded, computed_from) = (before.unrecorded.clone(), before.positions_version);
            let mut lowered = positions.clone();
            unrecorded.retain_mut(|unrecorded| unrecorded.reapply_to(&mut lowered, followed_after, &self.gate));
            // Before the lock of the kill switch is taken: a freeze must not wait for the evidence of all routes.
            holds::judge_cohorts(&mut lowered, &self.gate);
            let set = |freeze, unrecorded_since| {
                // An unrecorded freeze of this process overtakes flips that others made after it: these are left out.
                let recorded_elsewhere = followed.map(|moves| moves.numbers(unrecorded_since)).unwrap_or_default();
                let guards = followed.map(|moves| moves.guard_actions(&lowered)).unwrap_or_default();
                let limits = FollowedLimits { freeze, guards, recorded_elsewhere };
                self.in_force.set_positions_and_limits((lowered.clone(), unrecorded), computed_from, limits)
            };
            let kill_switch = followed.and_then(FollowedMoves::kill_switch);
            if let Some(overtaken) = self.kill_switch.follow(&self.in_force, kill_switch, set) {
                // The write is not outstanding any more: its moves are in force.
                self.in_force.set_outstanding(OutstandingWrite::default());
                followed.into_iter().for_each(|moves| self.recorder.set_newest_in_force(moves.newest));
                // The listeners of the other process are told of the moves of cohorts that it made.
                if followed.is_none() {
                    self.tell_cohorts_moved(&before, &lowered);
                }
                return overtaken;
            }
        }
    }

    /// As [`InForce::set_positions`], after the cohorts are judged.
    pub(super) fn set_positions(
        &self,
        mut positions: Positions,
        unrecorded: Vec<UnrecordedFlip>,
        computed_from: u64,
    ) -> Option<Vec<RouteId>> {
        holds::judge_cohorts(&mut positions, &self.gate);
        let (before, after) = (self.in_force.inputs(), positions.clone());
        let overtaken = self.in_force.set_positions(positions, unrecorded, computed_from)?;
        self.tell_cohorts_moved(&before, &after);
        Some(overtaken)
    }

    /// Tells the listeners of the moves of cohorts, except at the first set of a process: it repeats what was in force
    /// before the start, so that nothing has moved.
    fn tell_cohorts_moved(&self, before: &Inputs, after: &Positions) {
        if before.has_files {
            self.tell_cohort_moves(&before.positions, after);
        }
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The kill switch.
    pub fn kill_switch(&self) -> &FreezeRecords {
        &self.kill_switch
    }

    /// The record of a move, with the present evidence.
    pub(super) fn flip_record(&self, positions: &Positions, made: Move, by: String) -> FlipRecord {
        let evidence = positions.routes.get(&made.route).map(|position| self.gate.evidence_of(positions, position));
        flip_record(made, by, clock::now(), serde_json::to_value(evidence).unwrap_or_default())
    }

    /// Records flips. Until the outcome is known, the write counts as outstanding. `after`: has the ids of the routes.
    pub(super) async fn record(&self, batch: RecordBatch, after: &Positions) -> Result<Vec<FlipRecord>, StoreError> {
        self.record_announced(batch, None, after).await
    }

    /// As [`Mover::record`], but records nothing if the store does not have this announcement any more.
    pub(super) async fn record_announced(
        &self,
        batch: RecordBatch,
        announced: Option<StandingAnnouncement>,
        after: &Positions,
    ) -> Result<Vec<FlipRecord>, StoreError> {
        self.in_force.set_outstanding(OutstandingWrite::new(&batch.flips, after));
        let outcome = self.recorder.record_announced(batch, announced).await;
        outcome.inspect_err(|_| self.in_force.set_outstanding(OutstandingWrite::default()))
    }

    pub(super) fn guard_listeners(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn GuardListener>>> {
        self.guard_listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cohort_listeners(&self) -> std::sync::MutexGuard<'_, CohortListeners> {
        self.cohort_listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kill_switch_listeners(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn KillSwitchListener>>> {
        self.kill_switch_listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
