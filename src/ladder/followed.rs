//! Moves that other processes on the same store have recorded: they come into force here too, without being judged
//! again.
//!
//! Always true:
//!
//! - A judged move of this process is recorded only if all moves that other processes recorded before are in force here
//!   ([`FlipRecorder`](super::record::FlipRecorder)).
//! - A stronger freeze and a lower limit of a guard come into force at once, before the files are applied again.
//! - The end of a freeze and the release of a guard come into force in the same moment as the flips that were read
//!   together with them: otherwise they would raise a route before the flip that lowered it is in force.
//! - Unrecorded flips down of this process are applied again after the moves of other processes, unless one of these
//!   supersedes them.
//! - A flip is not put in force if a newer one of its route, or of the kill switch, is in force already: this process
//!   may have recorded that one since the other was read.
//!
//! When the store does not answer, what was in force stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Instant as TokioInstant, timeout_at};

use super::files_check::{CheckedFiles, PreparedFiles, check_and_apply};
use super::followed_moves::FollowedMoves;
use super::guard_latches::Followed;
use super::in_force::Inputs;
use super::lowered_routes::Lowering;
use super::mover::{ChangeOrigin, Mover, MovesLock};
use super::plans::{KeptPlans, kept};
use super::positions::Positions;
use super::types::{DeclaredFiles, FilesError, FlipError, ReadKind, Unconfirmed};
use super::{Ladder, unlisted_ids};
use crate::flag::{Freeze, Route, State};
use crate::names::RouteId;
use crate::store::{FlipRecord, StoreError};

/// Routes whose requests the engine of this process, or of another one, answers or may answer soon.
#[derive(Clone, Default)]
pub struct AnsweringRoutes {
    /// The routes in a state in which the engine answers, or that may return to one without another flip.
    pub present: Vec<Arc<Route>>,
    /// The routes that were in such a state before; other processes may still have them in one
    /// ([`Ladder::release_claims`]). With each, the number of the first flag set after the last one in which it was: a
    /// request that an older set decided may still reach the engine.
    pub earlier: BTreeMap<RouteId, u64>,
    /// The routes in `dark`, from where another process may raise them.
    pub at_dark: Vec<RouteId>,
}

/// How long a flip that would change nothing here waits for moves that other processes may have recorded.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(1);

impl Mover {
    /// Returns the moves that other processes have recorded since this one last followed them. What restricts the
    /// engine (a stronger freeze, a lower limit of a guard) is in force when this returns. If no route was moved, the
    /// end of a freeze and the releases of guards are in force, too; otherwise they would raise a route before the flip
    /// that lowered it is in force.
    async fn newer_moves(&self) -> Result<Option<FollowedMoves>, StoreError> {
        if !self.store.is_shared() {
            return Ok(None);
        }
        let followed = self.recorder.newest_in_force();
        let mut flips = self.store.last_flips().await?;
        let newest = flips.iter().map(|flip| flip.number).max().unwrap_or(0);
        flips.retain(|flip| flip.number > followed);
        if flips.is_empty() {
            self.recorder.set_newest_in_force(newest);
            return Ok(None);
        }
        flips.sort_by_key(|flip| flip.number);
        let rows = self.store.declared().await?;
        let moves = FollowedMoves { newest, flips, rows };
        let before = self.in_force().kill_switch();
        if let Some(flip) = moves.kill_switch() {
            self.kill_switch().follow_stronger(self.in_force(), flip);
            if !moves.has_moves_of_routes() {
                self.kill_switch().follow_alone(self.in_force(), flip);
            }
        }
        let followed = if moves.has_moves_of_routes() { Followed::NotRaising } else { Followed::All };
        self.in_force().follow_guards(moves.guard_actions(&self.in_force().inputs().positions), followed);
        self.obey_followed(before, moves.kill_switch()).await;
        Ok(Some(moves))
    }

    /// If the kill switch has changed since `before`: applies it to everything that has to obey it. `flip`: the record
    /// of the change, to be logged.
    pub(super) async fn obey_followed(&self, before: (u64, Freeze), flip: Option<&FlipRecord>) {
        let (version, freeze) = self.in_force().kill_switch();
        if (version, freeze) == before {
            return;
        }
        if let Some(flip) = flip {
            tracing::warn!(
                freeze = %flip.to, by = %flip.by, number = flip.number, reason = flip.reason.as_deref(),
                "another process has set the kill switch"
            );
        }
        self.obey(version, freeze).await;
    }

    /// Puts in force what other processes have recorded. `prepared`: the files in force, prepared with the plans that
    /// these moves put in force.
    async fn follow(
        &self,
        moves_lock: MovesLock,
        moves: FollowedMoves,
        prepared: PreparedFiles,
        recorded: impl FnOnce() + Send,
    ) -> Result<(), FilesError> {
        let (own, all_recorded) = self.record_unrecorded_first(&moves_lock).await;
        let mut before = moves.apply_to(&own);
        if let Some(flip) = moves.kill_switch() {
            before.freeze = self.kill_switch().freeze_after(self.in_force(), flip);
        }
        let prepared = prepared.refreshed(&self.store, &before).await?;
        if !prepared.plans_are_as_read(&before) {
            return Err(FilesError::FlippedMeanwhile);
        }
        let mut inputs = self.in_force().inputs();
        let kill_switch = self.in_force().kill_switch();
        // The files are judged with the limits that the guards have once these moves are in force.
        inputs.follow_guards(moves.guard_actions(&before), Followed::All);
        let (guards, reading) = (inputs.guards, ReadKind::AppliedAgain);
        let CheckedFiles { after, moves: made, .. } =
            check_and_apply((self.gate(), &guards), &before, prepared, reading)?;
        self.recorder.set_known_of(moves.routes(), &moves.rows);
        let origin = ChangeOrigin::OtherProcess(&moves);
        self.record_and_apply(&before, after, made, all_recorded, (origin, None, recorded)).await?;
        self.obey_followed(kill_switch, moves.kill_switch()).await;
        for flip in moves.flips.iter().filter(|flip| flip.guard.is_none() && flip.route.is_some()) {
            let FlipRecord { route, from, to, by, number, .. } = flip;
            let route = route.as_ref().map(RouteId::as_str);
            tracing::info!(route, %from, %to, %by, number, "a move that another process recorded is in force here too");
        }
        let after = self.in_force().inputs().positions;
        for route in moves.moved_ids(&after) {
            self.gate().evidence.restart_guard(&route);
            // A flip up, or to a larger share, that was asked for before this does not raise the route.
            let place = |of: &Positions| {
                let position = of.routes.get(&route)?;
                Some((position.rung(), position.inputs.shares.of(position.rung())))
            };
            if let Some((to, _)) = place(&after).filter(|to| Some(*to) < place(&own)) {
                let by = after.flips.get(&route).map_or_else(String::new, |flip| flip.by.clone());
                self.in_force().note_lowered(&route, Lowering { at: Instant::now(), to, by });
            }
        }
        Ok(())
    }

    /// Waits until all moves are in force here that other processes had recorded when this was called. Returns whether
    /// there were any.
    ///
    /// # Errors
    /// The store does not answer, or not in time.
    pub(super) async fn catch_up<E>(&self, until: TokioInstant) -> Result<bool, E>
    where
        E: From<StoreError> + From<Unconfirmed>,
    {
        if !self.store.is_shared() {
            return Ok(false);
        }
        let newest = timeout_at(until, self.store.flips(None, 1)).await.map_err(|_| Unconfirmed::Busy)??;
        let newest = newest.first().map_or(0, |flip| flip.number);
        let mut followed = self.recorder.subscribe_newest_in_force();
        if *followed.borrow() >= newest {
            return Ok(false);
        }
        self.recorder.behind.notify_one();
        let caught_up = followed.wait_for(|followed| *followed >= newest);
        let _never_closed = timeout_at(until, caught_up).await.map_err(|_| Unconfirmed::Busy)?;
        Ok(true)
    }

    /// As [`Self::catch_up`], with a short bound, for a flip that would change nothing here.
    pub(super) async fn catch_up_briefly(&self) -> Result<bool, FlipError> {
        self.catch_up(TokioInstant::now() + CATCH_UP_WITHIN).await
    }
}

impl Ladder {
    /// The moves that other processes have recorded since this one last followed them; `None` if there are none, and
    /// always in a store of one process. A stronger freeze and lower limits of guards are in force when this returns;
    /// the end of a freeze and releases of guards too, if no route was moved.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn newer_moves(&self) -> Result<Option<FollowedMoves>, StoreError> {
        self.mover.newer_moves().await
    }

    /// The plans that are in force for these routes after these moves.
    pub fn plans_after(&self, moves: &FollowedMoves, routes: &[Arc<Route>]) -> KeptPlans {
        let before = moves.apply_to(&self.mover.in_force().inputs().positions);
        let unlisted = before.unlisted_ids_of(routes);
        kept(&before, &unlisted_ids::add(&unlisted, routes), None)
    }

    /// Puts in force what other processes have recorded. `declared`: the files in force, read with the plans that
    /// [`Ladder::plans_after`] returned. `recorded` is called before that, as by [`Ladder::reload_files`].
    ///
    /// # Errors
    /// As [`Ladder::reload_files`].
    pub async fn follow(
        &self,
        moves: FollowedMoves,
        declared: DeclaredFiles,
        recorded: impl FnOnce() + Send + 'static,
    ) -> Result<(), FilesError> {
        let mover = Arc::clone(&self.mover);
        let reloading = Arc::clone(&self.reload_lock).lock_owned().await;
        let prepared = mover.prepare(declared).await?;
        let moves_lock = mover.lock_moves().await;
        let work = tokio::spawn(async move {
            let outcome = mover.follow(moves_lock, moves, prepared, recorded).await;
            mover.start_recording();
            drop(reloading);
            outcome
        });
        work.await.unwrap_or_else(|error| Err(FilesError::task_ended(&error)))
    }

    /// The number up to which all flips in the store are in force here, whichever process recorded them.
    pub fn newest_in_force(&self) -> watch::Receiver<u64> {
        self.mover.recorder.subscribe_newest_in_force()
    }

    /// Waits until a flip of another process is found that is not in force here.
    pub async fn wait_until_behind(&self) {
        self.mover.recorder.behind.notified().await;
    }

    /// Which routes are in a state in which the engine answers, in this process or perhaps in another one.
    pub fn answering_routes(&self) -> AnsweringRoutes {
        let Inputs { positions, claimed, .. } = self.mover.in_force().inputs();
        let mut routes = AnsweringRoutes { earlier: claimed, ..AnsweringRoutes::default() };
        for position in positions.routes.values() {
            if position.claims_keys() {
                for id in position.route.ids() {
                    routes.earlier.remove(id);
                }
                routes.present.push(position.route.clone());
            } else if position.rung() >= State::Dark {
                routes.at_dark.push(position.route.id.clone());
            }
        }
        routes
    }

    /// Ends the claims of these routes, which [`AnsweringRoutes::earlier`] had with these numbers: no other process has
    /// them in a state in which the engine answers.
    pub fn release_claims(&self, routes: &BTreeMap<RouteId, u64>) {
        self.mover.in_force().release_claims(routes);
    }
}
