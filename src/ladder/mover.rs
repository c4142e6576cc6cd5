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
    /// Held for a whole move, until its outcome is in force, because each move is judged by the result of the one
    /// before.
    move_lock: Arc<tokio::sync::Mutex<()>>,
    connected: Mutex<Vec<Arc<dyn KillSwitchListener>>>,
    guard_listeners: Mutex<Vec<Arc<dyn GuardListener>>>,
    cohort_listeners: Mutex<CohortListeners>,
    pub auto_shares: AutoShares,
    /// Told of moves before they are recorded.
    pub others: Option<Arc<dyn OtherProcesses>>,
}

/// Whose change of the positions it is.
#[derive(Clone, Copy)]
pub(super) enum ChangeOrigin<'a> {
    /// This process starts: other processes have the files before, and are not told before it serves.
    Start,
    /// This process judged it.
    Own,
    /// Other processes recorded it.
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
            connected: Default::default(),
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

    /// Connects something that the kill switch stops: from now on no change of the kill switch is acknowledged before
    /// `other` has applied it.
    pub async fn connect_to_kill_switch(&self, other: Arc<dyn KillSwitchListener>) {
        self.connected().push(other.clone());
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
        // Files of which nothing has to be recorded come into force also if unrecorded flips cannot be recorded.
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

    /// Judges again the routes that are held below `live` and whose hold is over, and takes the mark `changed` from
    /// routes whose evidence opens the gate to `live` now.
    pub async fn release_held(&self, guard: MovesLock) -> Result<(), StoreError> {
        let (before, all_recorded) = self.record_unrecorded_first(&guard).await;
        all_recorded?;
        let now = clock::now();
        if before.held_until().is_none_or(|until| until > now) && !self.gate.ends_a_mark(&before) {
            return Ok(());
        }
        let (after, moves) = files::release(&before, now, &self.gate);
        self.record_and_apply(&before, after, moves, Ok(()), (ChangeOrigin::Own, None, || {})).await.map(drop)
    }

    /// Records the moves and declarations of new files, calls `recorded`, then puts them in force. `all_recorded` is an
    /// error while there are flips down that the store did not record. Then nothing is recorded, because it would come
    /// before them: the error is returned if there is something to record. `files`: if new files are the reason; flips
    /// of persons that were made since they were judged hold. Returns the flips.
    pub(super) async fn record_and_apply(
        &self,
        before: &Positions,
        mut after: Positions,
        moves: Vec<Move>,
        all_recorded: Result<(), StoreError>,
        (origin, files, recorded): (ChangeOrigin<'_>, Option<JudgedFiles<'_>>, impl FnOnce() + Send),
    ) -> Result<Vec<FlipRecord>, StoreError> {
        plans::add_missing(&mut after);
        // What other processes recorded is in `before`: of that nothing is announced again.
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
                // A change of the files has no person to ask, so the horizon is logged.
                for sentence in self.horizon_if_readable(&after, &route).await {
                    tracing::warn!(%route, from = %made.from, to = %made.to, "{sentence}");
                }
            }
            flips.push(self.flip_record(&after, made, FlipSource::File.as_str().to_owned()));
        }
        flips.extend(plans::records(&after, &self.gate));
        // Removed, so that it is recorded only once: the positions are judged again before the next files come.
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
            // Counts as under way before it is asked: a flip to the present state that comes later than this finds it.
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

    /// Puts positions in force, lowered by the flips down that were made since they were computed. Returns the routes
    /// that it caps below `only` because of a freeze: the caller reverts their flips. The end of a freeze and releases
    /// that other processes recorded come into force in the same moment.
    pub(super) fn put_in_force(&self, mut positions: Positions, origin: ChangeOrigin<'_>) -> Vec<RouteId> {
        positions.routes.values_mut().for_each(|position| position.inputs.returns_at_restart = false);
        let followed = match origin {
            ChangeOrigin::OtherProcess(moves) => Some(moves),
            ChangeOrigin::Start | ChangeOrigin::Own => None,
        };
        // Before it is in force: whoever sees what is in force knows a flip that is at least as new.
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
                // A freeze that only this process knows of also holds what others have recorded since it was set.
                let recorded_elsewhere = followed.map(|moves| moves.numbers(unrecorded_since)).unwrap_or_default();
                let guards = followed.map(|moves| moves.guard_actions(&lowered)).unwrap_or_default();
                let limits = FollowedLimits { freeze, guards, recorded_elsewhere };
                self.in_force.set_positions_and_limits((lowered.clone(), unrecorded), computed_from, limits)
            };
            let kill_switch = followed.and_then(FollowedMoves::kill_switch);
            if let Some(overtaken) = self.kill_switch.follow(&self.in_force, kill_switch, set) {
                // What was written is in the positions now.
                self.in_force.set_outstanding(OutstandingWrite::default());
                followed.into_iter().for_each(|moves| self.recorder.set_newest_in_force(moves.newest));
                // Of the moves of cohorts that another process made, that one tells.
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

    /// Tells the listeners of the moves of cohorts. The first set of a process repeats what was in force before its
    /// start: nothing has moved.
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

    /// Records flips of these positions. Until the outcome is known, they count as possibly recorded.
    pub(super) async fn record(&self, batch: RecordBatch, of: &Positions) -> Result<Vec<FlipRecord>, StoreError> {
        self.record_announced(batch, None, of).await
    }

    /// As [`Mover::record`], only while the store has this announcement.
    pub(super) async fn record_announced(
        &self,
        batch: RecordBatch,
        announced: Option<StandingAnnouncement>,
        of: &Positions,
    ) -> Result<Vec<FlipRecord>, StoreError> {
        self.in_force.set_outstanding(OutstandingWrite::new(&batch.flips, of));
        let outcome = self.recorder.record_announced(batch, announced).await;
        outcome.inspect_err(|_| self.in_force.set_outstanding(OutstandingWrite::default()))
    }

    pub(super) fn guard_listeners(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn GuardListener>>> {
        self.guard_listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cohort_listeners(&self) -> std::sync::MutexGuard<'_, CohortListeners> {
        self.cohort_listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn KillSwitchListener>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
