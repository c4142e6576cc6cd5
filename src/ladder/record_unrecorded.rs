//! Records what is in force before the store has it: freezes, flips down, and what guards did.
//!
//! Always true:
//!
//! - The write is tried again until the store has it, each time under the lock of moves.
//! - A flip down is not recorded after a move of another process that leaves its route lower: it would raise the route
//!   everywhere, without being judged or announced.
//! - The release of a latch that a flip down has ended is not recorded before that flip. No release is recorded after a
//!   newer latch of another process, which it does not end.

use std::sync::Arc;
use std::time::Duration;

use super::export::log;
use super::guard_latches::Followed;
use super::in_force::Inputs;
use super::kill_switch::{UnrecordedFreeze, is_of_kill_switch};
use super::mover::{Mover, MovesLock};
use super::pending_shares::LargerShare;
use super::positions::Positions;
use super::record::{RecordBatch, is_outdated_judgement, is_same};
use super::types::FlipSource;
use super::unrecorded_flips::UnrecordedFlip;
use crate::names::RouteId;
use crate::store::{FlipRecord, StoreError};

/// The pauses between attempts to record: the first and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The unrecorded actions of guards, each with its provisional number.
type UnrecordedActions = Vec<(u64, FlipRecord)>;

/// How many of the newest flips in the store are searched for flips of this process that an earlier attempt recorded,
/// although the store's reply was lost.
const NEWER_FLIPS_MAX: usize = 200;

/// How often recording is tried at most, without a pause, if each time another process has recorded a move meanwhile.
const OUTDATED_TRIES_MAX: u32 = 5;

/// What is in force and not in the store, and the larger shares that are to be set.
#[derive(Default)]
pub(super) struct UnrecordedMoves {
    /// The routes whose flips down the store does not have.
    pub routes: Vec<RouteId>,
    /// The routes whose guards' actions the store does not have.
    pub guarded: Vec<RouteId>,
    /// The name of the unrecorded freeze.
    pub freeze: Option<String>,
    /// The larger shares that are to be set after flips down.
    pub larger_shares: Vec<LargerShare>,
}

impl UnrecordedMoves {
    fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.guarded.is_empty() && self.freeze.is_none() && self.larger_shares.is_empty()
    }

    /// The routes of flips as text; `None` if there are none.
    pub fn route_names(&self) -> Option<String> {
        names(&self.routes)
    }

    /// The routes of guards as text; `None` if there are none.
    pub fn guarded_names(&self) -> Option<String> {
        names(&self.guarded)
    }
}

fn names(routes: &[RouteId]) -> Option<String> {
    let names: Vec<_> = routes.iter().map(RouteId::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

impl Mover {
    /// Starts the task that records the unrecorded flips, if there are some and no task does.
    pub(super) fn start_recording(self: Arc<Self>) {
        if self.in_force().begin_recording() {
            tokio::spawn(self.retry_recording());
        }
    }

    /// Records the unrecorded flips and what guards did, and gives them their numbers. The caller holds the lock of
    /// moves.
    ///
    /// # Errors
    /// The store did not record them: they stay unrecorded.
    pub(super) async fn record_unrecorded_flips(&self) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            match self.try_to_record_unrecorded().await {
                // Another process has recorded a move meanwhile, which may supersede these.
                Err(error) if is_outdated_judgement(&error) && tries < OUTDATED_TRIES_MAX => tries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_to_record_unrecorded(&self) -> Result<(), StoreError> {
        let Inputs { unrecorded, positions, guards, .. } = self.in_force().inputs();
        let unrecorded = (unrecorded, guards.unrecorded());
        if unrecorded.0.is_empty() && unrecorded.1.is_empty() {
            return Ok(());
        }
        let ((unrecorded, actions), judged_by) = self.without_superseded(unrecorded, &positions).await?;
        if unrecorded.is_empty() && actions.is_empty() {
            return Ok(());
        }
        let declared = (!unrecorded.is_empty()).then(|| positions.rows());
        let (ids, mut flips): (Vec<u64>, Vec<FlipRecord>) =
            unrecorded.into_iter().map(|unrecorded| (unrecorded.id, unrecorded.flip)).unzip();
        // After the flips and in one transaction with them: a release without the flip down that ended the latch would
        // raise the route in other processes.
        let (provisional, actions): (Vec<u64>, Vec<FlipRecord>) = actions.into_iter().unzip();
        flips.extend(actions);
        let mut recorded = self.recorder.record(RecordBatch { flips, declared, judged_by }).await?;
        let actions = recorded.split_off(ids.len());
        for flip in &recorded {
            let is_by_file = flip.by == FlipSource::File.as_str();
            log(flip, if is_by_file { FlipSource::File } else { FlipSource::Api });
        }
        self.in_force().set_recorded(ids.into_iter().zip(recorded).collect());
        self.in_force().set_guard_recorded(provisional.into_iter().zip(actions).collect());
        Ok(())
    }

    /// The unrecorded flips and actions of guards, without those that need no record any more, and the number of the
    /// newest flip that was read to find these:
    ///
    /// - A flip that a move of another process supersedes would not lower its route any more. It is removed, and that
    ///   move is followed.
    /// - A flip that the store has already, because an earlier attempt reached it late, counts as recorded. The moves
    ///   that other processes have recorded after it are followed: if the flip were recorded a second time, it would
    ///   undo them.
    async fn without_superseded(
        &self,
        (mut unrecorded, actions): (Vec<UnrecordedFlip>, UnrecordedActions),
        positions: &Positions,
    ) -> Result<((Vec<UnrecordedFlip>, UnrecordedActions), Option<u64>), StoreError> {
        if !self.store.is_shared() {
            return Ok(((unrecorded, actions), None));
        }
        let (followed, last) = (self.recorder.newest_in_force(), self.store.last_flips().await?);
        let newer = self.flips_after(followed).await?;
        let stored = |own: &UnrecordedFlip| newer.iter().chain(&last).find(|flip| is_same(flip, &own.flip)).cloned();
        let late: Vec<(u64, FlipRecord)> = unrecorded.iter().filter_map(|own| Some((own.id, stored(own)?))).collect();
        if !late.is_empty() {
            unrecorded.retain(|own| late.iter().all(|(id, _)| *id != own.id));
            self.in_force().set_recorded(late);
            self.recorder.behind.notify_one();
        }
        let newest = self.newest_of(&last);
        // Whoever waits for a flip that is removed here waits for this number instead.
        self.recorder.note_newest(newest);
        let is_newer = |flip: &&FlipRecord| flip.number > followed && flip.guard.is_none() && flip.candidate.is_none();
        let of_routes: Vec<(&RouteId, &FlipRecord)> =
            last.iter().filter(is_newer).filter_map(|flip| Some((flip.route.as_ref()?, flip))).collect();
        let is_superseded = |unrecorded: &UnrecordedFlip| {
            let own = positions.routes.values().find(|at| at.route.ids().any(|id| unrecorded.is_of(id)));
            let is_of = |id: &RouteId| {
                unrecorded.is_of(id) || own.is_some_and(|position| position.route.ids().any(|known| known == id))
            };
            of_routes.iter().any(|(id, flip)| is_of(id) && unrecorded.is_superseded_by(flip))
        };
        let superseded: Vec<u64> =
            unrecorded.iter().filter(|flip| is_superseded(flip)).map(|unrecorded| unrecorded.id).collect();
        if !superseded.is_empty() {
            unrecorded.retain(|unrecorded| !superseded.contains(&unrecorded.id));
            self.in_force().remove_unrecorded(&superseded);
            self.recorder.behind.notify_one();
        }
        let actions = self.without_superseded_actions(actions, &last, (&newer, followed));
        Ok(((unrecorded, actions), Some(newest)))
    }

    /// The unrecorded actions of guards without those that need no record any more: the store has them already, or an
    /// action of another process supersedes them.
    fn without_superseded_actions(
        &self,
        actions: UnrecordedActions,
        last: &[FlipRecord],
        (newer, followed): (&[FlipRecord], u64),
    ) -> UnrecordedActions {
        let recorded = actions.iter().filter_map(|(provisional, own)| {
            let stored = newer.iter().find(|flip| flip.guard.is_some() && is_same(flip, own))?;
            Some((*provisional, stored.clone()))
        });
        self.in_force().set_guard_recorded(recorded.collect());
        let is_own = |flip: &FlipRecord| actions.iter().any(|(_, own)| is_same(flip, own));
        let is_theirs = |flip: &&FlipRecord| flip.number > followed && flip.guard.is_some() && !is_own(flip);
        self.in_force().follow_guards(last.iter().filter(is_theirs).cloned().collect(), Followed::NotRaising);
        let left = self.in_force().inputs().guards.unrecorded();
        actions.into_iter().filter(|(own, _)| left.iter().any(|(left, _)| left == own)).collect()
    }

    /// The flips in the store after this number, the newest first; of more than [`NEWER_FLIPS_MAX`] only the newest.
    async fn flips_after(&self, number: u64) -> Result<Vec<FlipRecord>, StoreError> {
        let mut flips = self.store.flips(None, NEWER_FLIPS_MAX).await?;
        flips.retain(|flip| flip.number > number);
        Ok(flips)
    }

    /// The number of the newest flip in the store, as far as this process knows once it has read these.
    fn newest_of(&self, last: &[FlipRecord]) -> u64 {
        last.iter().map(|flip| flip.number).fold(*self.recorder.newest_flip().borrow(), u64::max)
    }

    /// Records the unrecorded flips before anything else is recorded. Returns the positions that are in force after
    /// that: all their flips are recorded, unless the result beside them is an error.
    pub(super) async fn record_unrecorded_first(&self, _moves_lock: &MovesLock) -> (Positions, Result<(), StoreError>) {
        loop {
            let outcome = self.record_unrecorded_flips().await;
            let Inputs { unrecorded, positions, .. } = self.in_force().inputs();
            if outcome.is_err() || unrecorded.is_empty() {
                return (positions, outcome);
            }
        }
    }

    /// For the end of the process: waits, for at most `within`, until nothing is unrecorded and the larger shares that
    /// follow flips down are set. From this call on no person's flip is put in force before the store has it. Returns
    /// what is still unrecorded or not set.
    pub(super) async fn end_moves(&self, within: Duration) -> UnrecordedMoves {
        self.in_force().end();
        let next = || self.in_force().inputs().unrecorded.first().map(|unrecorded| unrecorded.recorded.subscribe());
        let all = async {
            loop {
                while let Some(mut recorded) = next() {
                    // An error means that this flip will not be recorded: a newer one replaces it, or the route is as
                    // low without it.
                    let _ = recorded.wait_for(Option::is_some).await;
                }
                self.in_force().wait_guard_recorded().await;
                self.kill_switch().wait_all_recorded().await;
                self.larger_shares.wait_for_none().await;
                // If a freeze overtook the move that is under way, one more unrecorded flip reverts it.
                let _no_move_under_way = self.lock_moves().await;
                if self.unrecorded_moves().is_empty() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(within, all).await;
        self.unrecorded_moves()
    }

    /// The present unrecorded moves, and the larger shares that are to be set.
    pub(super) fn unrecorded_moves(&self) -> UnrecordedMoves {
        let Inputs { unrecorded, guards, .. } = self.in_force().inputs();
        let guarded = guards.unrecorded().into_iter().filter_map(|(_, action)| Some(action.guard?.route)).collect();
        UnrecordedMoves {
            guarded,
            routes: unrecorded.into_iter().filter_map(|unrecorded| unrecorded.flip.route).collect(),
            freeze: self.kill_switch().unrecorded().map(|unrecorded| unrecorded.flip.to),
            larger_shares: self.larger_shares.all(),
        }
    }

    /// Tries to record the unrecorded flips until none is left.
    async fn retry_recording(self: Arc<Self>) {
        let mut pause = RETRY_PAUSES.0;
        while self.in_force().continue_recording() {
            let moves_lock = self.lock_moves().await;
            let outcome = self.record_unrecorded_flips().await;
            drop(moves_lock);
            let Err(error) = outcome else {
                pause = RETRY_PAUSES.0;
                continue;
            };
            if pause == RETRY_PAUSES.0 {
                tracing::warn!(
                    %error, flips = self.in_force().unrecorded_flips(),
                    "flips down, or what guards did, are in force, but not recorded: a restart would lose them; trying again \
                     until they are"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
    }

    /// Records the freeze in the slot, unless another process has recorded one that is as strong.
    async fn record_freeze(&self, version: u64, flip: FlipRecord, positions: &Positions) -> Result<(), StoreError> {
        let mut judged_by = None;
        if self.store.is_shared() {
            let (last, before) = (self.store.last_flips().await?, self.in_force().kill_switch());
            judged_by = Some(self.newest_of(&last));
            let newer = self.flips_after(self.recorder.newest_in_force()).await?;
            if let Some(late) = newer.iter().find(|newer| is_of_kill_switch(newer) && is_same(newer, &flip)) {
                // The moves that other processes have recorded after this freeze are followed next.
                self.kill_switch().mark_freeze_recorded(version, late);
                self.recorder.behind.notify_one();
                return Ok(());
            }
            if let Some(other) = last.iter().find(|flip| is_of_kill_switch(flip)) {
                self.kill_switch().follow_stronger(self.in_force(), other);
                self.obey_followed(before, Some(other)).await;
            }
            if !self.kill_switch().has_unrecorded(version) {
                return Ok(());
            }
        }
        let mut recorded = self.record(RecordBatch { flips: vec![flip], declared: None, judged_by }, positions).await?;
        let flip = recorded.pop().ok_or_else(|| StoreError("the store gave the freeze no number".into()))?;
        self.kill_switch().mark_freeze_recorded(version, &flip);
        log(&flip, FlipSource::Api);
        Ok(())
    }

    /// Records the unrecorded freeze, and those that replace it meanwhile, until the store has the newest.
    pub(super) async fn record_freezes(&self) {
        let (mut pause, mut tries) = (RETRY_PAUSES.0, 1);
        let mut next = self.kill_switch().begin_recording();
        while next.is_some() {
            let moves_lock = self.lock_moves().await;
            // Read once more: during the wait for the lock, the end of the freeze may have been recorded, or a newer
            // freeze set.
            next = self.kill_switch().next_unrecorded();
            let Some(UnrecordedFreeze { version, flip, .. }) = &next else { return };
            // First the flips: one of them may revert a flip to `only` that this freeze overtook.
            let outcome = match self.record_unrecorded_first(&moves_lock).await {
                (positions, Ok(())) => self.record_freeze(*version, flip.clone(), &positions).await,
                (_, Err(error)) => Err(error),
            };
            match outcome {
                Ok(()) => (pause, tries) = (RETRY_PAUSES.0, 1),
                // Another process has recorded a move meanwhile, perhaps a freeze.
                Err(error) if is_outdated_judgement(&error) && tries < OUTDATED_TRIES_MAX => tries += 1,
                Err(error) => {
                    tracing::warn!(%error, freeze = %flip.to, "the freeze is in force, but not recorded: a restart would lose it; trying again after a pause");
                    drop(moves_lock);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSES.1);
                }
            }
            next = self.kill_switch().next_unrecorded();
        }
    }
}
