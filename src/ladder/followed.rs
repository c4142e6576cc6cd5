//! Moves that other processes on the same store have recorded: they come into force here too, without being judged
//! again.
//!
//! Always true: a move of this process that is judged is recorded only if everything that other processes recorded
//! before is in force here ([`FlipRecorder`](super::record::FlipRecorder)). A freeze, and what guards did, come into
//! force before the files are applied again. Flips down of this process that the store does not have yet stay in force
//! above what others recorded before them. A flip is not put in force where a newer one of its route, or of the kill
//! switch, is in force already: what was read may be older than what this process has recorded since.
//!
//! When the store does not answer, what was in force stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{Instant as TokioInstant, timeout_at};

use super::files_check::{CheckedFiles, PreparedFiles, check_and_apply};
use super::in_force::Inputs;
use super::kill_switch::is_of_kill_switch;
use super::lowered_routes::Lowering;
use super::mover::{ChangeOrigin, Mover, MovesLock};
use super::plans::{KeptPlans, kept};
use super::positions::{Positions, RoutePosition, freeze_of};
use super::types::{DeclaredFiles, FilesError, FlipError, ReadKind, Unconfirmed};
use super::unrecorded_flips::is_unrecorded;
use super::{Ladder, unlisted_ids};
use crate::flag::{Route, State};
use crate::names::{PlanSet, RouteId};
use crate::store::{DeclaredState, FlipRecord, GuardRecord, StoreError};

/// Routes whose requests the engine of this process, or of another one, answers or may answer soon.
#[derive(Clone, Default)]
pub struct AnsweringRoutes {
    /// Those that are, or may come without another flip, where the engine answers.
    pub present: Vec<Arc<Route>>,
    /// Those that were there: other processes may still have them there ([`Ladder::release_claims`]). Each with the
    /// number of the first flag set in which it is not: a request that an older one decided may still reach the engine.
    pub earlier: BTreeMap<RouteId, u64>,
    /// Those in `dark`, from where another process may raise them.
    pub at_dark: Vec<RouteId>,
}

/// How long a flip that changes nothing here waits for what other processes may have recorded.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(1);

/// What other processes have recorded and this one does not have in force.
#[derive(Clone)]
pub struct FollowedMoves {
    /// The number of the newest flip in the store when it was read.
    newest: u64,
    /// The last flips of routes and of candidates, what guards did last, and the kill switch, as far as they are newer
    /// than what is in force.
    flips: Vec<FlipRecord>,
    rows: Vec<DeclaredState>,
}

impl FollowedMoves {
    /// These positions after the flips of routes and candidates.
    fn apply_to(&self, before: &Positions) -> Positions {
        let mut positions = before.clone();
        for flip in &self.flips {
            if let Some(record) = &flip.candidate {
                let own = positions.candidates.get(&record.route);
                if own.is_none_or(|own| own.number < flip.number) {
                    positions.candidates.insert(record.route.clone(), flip.clone());
                    self.set_plans(&mut positions, &record.route);
                }
                continue;
            }
            let Some(of_record) = flip.route.as_ref().filter(|_| flip.guard.is_none()) else { continue };
            let present = self.present_ids(&positions, of_record);
            if present.is_empty() {
                positions.apply_flip(of_record, flip.clone());
                self.set_plans(&mut positions, of_record);
            }
            let row = self.row(of_record);
            for route in present {
                let Some(position) = positions.routes.get(&route).filter(|at| !has_newer_flip(at, flip)) else {
                    continue;
                };
                let declared = position.declared();
                positions.apply_flip(&route, flip.clone());
                positions.set_declaration_of_flipped(&route, declared);
                positions.note_followed_declaration(&route, row);
                self.set_plans(&mut positions, &route);
            }
        }
        positions
    }

    /// The ids of the routes in force that have this id, or, if there is none, that are what the route with this id was
    /// called before: the process that moved it has newer files.
    fn present_ids(&self, positions: &Positions, id: &RouteId) -> Vec<RouteId> {
        let having = |ids: &[RouteId]| {
            let has = |at: &&RoutePosition| at.route.ids().any(|own| ids.contains(own));
            positions.routes.values().filter(has).map(|at| at.route.id.clone()).collect::<Vec<_>>()
        };
        let present = having(std::slice::from_ref(id));
        match self.row(id).filter(|_| present.is_empty()) {
            Some(row) => having(&row.earlier_ids),
            None => present,
        }
    }

    fn row(&self, route: &RouteId) -> Option<&DeclaredState> {
        self.rows.iter().find(|row| row.route == *route)
    }

    /// What guards did, each also under the ids by which the files in force know its route.
    fn guard_actions(&self, positions: &Positions) -> Vec<FlipRecord> {
        let actions = self.flips.iter().filter_map(|flip| Some((flip, flip.guard.as_ref()?)));
        let each = actions.flat_map(|(flip, guard)| {
            let others = self.present_ids(positions, &guard.route).into_iter().filter(|id| *id != guard.route);
            std::iter::once(guard.route.clone()).chain(others).map(move |route| {
                let guard = GuardRecord { route, ..guard.clone() };
                FlipRecord { guard: Some(guard), ..flip.clone() }
            })
        });
        each.collect()
    }

    /// Sets what the store has of a route in `live`: its plans, and the basis with which it went there.
    fn set_plans(&self, positions: &mut Positions, route: &RouteId) {
        let row = self.row(route);
        let plans = |set: Option<&PlanSet>| set.cloned().map(Arc::new);
        let in_force = plans(row.and_then(|row| row.in_force.as_ref()));
        let evidence_from = plans(row.and_then(|row| row.evidence_from.as_ref()));
        set_or_remove(&mut positions.in_force, route, in_force);
        set_or_remove(&mut positions.evidence_from, route, evidence_from);
        set_or_remove(&mut positions.live, route, row.and_then(|row| row.live.clone()));
    }

    /// The routes that were moved, as the files in force call them.
    fn moved_ids(&self, positions: &Positions) -> BTreeSet<RouteId> {
        self.routes().flat_map(|id| self.present_ids(positions, id)).collect()
    }

    fn routes(&self) -> impl Iterator<Item = &RouteId> {
        let moved = self.flips.iter().filter(|flip| flip.guard.is_none());
        moved.filter_map(|flip| flip.candidate.as_ref().map(|record| &record.route).or(flip.route.as_ref()))
    }
}

/// Whether the last flip of a route is this one, or is recorded after it. One that is not recorded yet lowers the route
/// again afterwards.
fn has_newer_flip(position: &RoutePosition, flip: &FlipRecord) -> bool {
    position.last.as_ref().is_some_and(|last| !is_unrecorded(last) && last.number >= flip.number)
}

fn set_or_remove<T>(map: &mut BTreeMap<RouteId, T>, route: &RouteId, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(route.clone(), value)),
        None => drop(map.remove(route)),
    }
}

impl Mover {
    /// Returns what other processes have recorded since this one last followed them. A freeze or its end, and what
    /// guards did, are in force then.
    async fn newer_moves(&self) -> Result<Option<FollowedMoves>, StoreError> {
        if !self.store.is_shared() {
            return Ok(None);
        }
        let followed = self.recorder.followed();
        let mut flips = self.store.last_flips().await?;
        let newest = flips.iter().map(|flip| flip.number).max().unwrap_or(0);
        flips.retain(|flip| flip.number > followed);
        if flips.is_empty() {
            self.recorder.set_followed(newest);
            return Ok(None);
        }
        flips.sort_by_key(|flip| flip.number);
        let rows = self.store.declared().await?;
        let freeze = flips.iter().rfind(|flip| is_of_kill_switch(flip));
        if let Some(freeze) = freeze
            && let Some(version) = self.kill_switch().follow(self.in_force(), freeze)
        {
            tracing::warn!(
                freeze = %freeze.to, by = %freeze.by, number = freeze.number, reason = freeze.reason.as_deref(),
                "another process has set the kill switch"
            );
            self.obey(version, freeze_of(freeze)).await;
        }
        let moves = FollowedMoves { newest, flips, rows };
        self.in_force().follow_guards(moves.guard_actions(&self.in_force().inputs().positions));
        Ok(Some(moves))
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
        let before = moves.apply_to(&own);
        let prepared = prepared.refreshed(&self.store, &before).await?;
        if !prepared.plans_are_as_read(&before) {
            return Err(FilesError::FlippedMeanwhile);
        }
        let guards = self.in_force().inputs().guards;
        let reading = ReadKind::AppliedAgain;
        let CheckedFiles { after, moves: made, .. } =
            check_and_apply((self.gate(), &guards), &before, prepared, reading)?;
        self.recorder.set_known_of(moves.routes(), &moves.rows);
        let origin = ChangeOrigin::OtherProcess { newest: moves.newest };
        self.record_and_apply(&before, after, made, all_recorded, (origin, recorded)).await?;
        for flip in moves.flips.iter().filter(|flip| flip.guard.is_none() && flip.route.is_some()) {
            let FlipRecord { route, from, to, by, number, .. } = flip;
            let route = route.as_ref().map(RouteId::as_str);
            tracing::info!(route, %from, %to, %by, number, "a move that another process recorded is in force here too");
        }
        let after = self.in_force().inputs().positions;
        for route in moves.moved_ids(&after) {
            self.gate().evidence.restart_guard(&route);
            // A flip up that was asked for before this does not raise the route.
            let rung = |of: &Positions| of.routes.get(&route).map(RoutePosition::rung);
            if let Some(to) = rung(&after).filter(|to| Some(*to) < rung(&own)) {
                let by = after.flips.get(&route).map_or_else(String::new, |flip| flip.by.clone());
                self.in_force().note_lowered(&route, Lowering { at: Instant::now(), to, by });
            }
        }
        Ok(())
    }

    /// Waits until what other processes had recorded when this was called is in force here. Returns whether there was
    /// something.
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
        let mut followed = self.recorder.subscribe_followed();
        if *followed.borrow() >= newest {
            return Ok(false);
        }
        self.recorder.behind.notify_one();
        let caught_up = followed.wait_for(|followed| *followed >= newest);
        let _never_closed = timeout_at(until, caught_up).await.map_err(|_| Unconfirmed::Busy)?;
        Ok(true)
    }

    /// The same for a flip that would change nothing here, which does not depend on the store.
    pub(super) async fn catch_up_briefly(&self) -> bool {
        let caught_up: Result<bool, FlipError> = self.catch_up(TokioInstant::now() + CATCH_UP_WITHIN).await;
        caught_up.unwrap_or_else(|error| {
            tracing::warn!(%error, "it is not known whether another process has moved the route meanwhile");
            false
        })
    }
}

impl Ladder {
    /// What other processes have recorded since this one last followed them; `None` if there is nothing, and always in
    /// a store of one process. A freeze or its end, and what guards did, are in force when this returns.
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

    /// Puts in force what other processes have recorded, with the files in force, whose plans were read as
    /// [`Ladder::plans_after`] says. `recorded` is called before that, as by [`Ladder::reload_files`].
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
        let guard = mover.lock_moves().await;
        let work = tokio::spawn(async move {
            let outcome = mover.follow(guard, moves, prepared, recorded).await;
            mover.start_recording();
            drop(reloading);
            outcome
        });
        work.await.unwrap_or_else(|error| Err(FilesError::task_ended(&error)))
    }

    /// The number of the newest flip that is in force here with all before it, whichever process recorded it.
    pub fn followed(&self) -> watch::Receiver<u64> {
        self.mover.recorder.subscribe_followed()
    }

    /// Waits until this process finds that another one has recorded a flip that is not in force here.
    pub async fn behind(&self) {
        self.mover.recorder.behind.notified().await;
    }

    /// Which routes are where the engine answers, in this process or perhaps in another one.
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

    /// These routes, which [`AnsweringRoutes::earlier`] had with these numbers, are where the engine answers in no
    /// other process.
    pub fn release_claims(&self, routes: &BTreeMap<RouteId, u64>) {
        self.mover.in_force().release_claims(routes);
    }
}
