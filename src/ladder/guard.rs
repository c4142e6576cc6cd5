//! The ladder's side of guards: the task that acts on their findings (*crossings*: a condition of a guard crossed its
//! limit), and the release of what they did.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant as TokioInstant, MissedTickBehavior, timeout_at};

use super::Ladder;
use super::cohort_listener::CohortListener;
use super::guard_types::{GuardListener, GuardRelease, GuardReleased};
use super::types::{FlipError, Unconfirmed};
use crate::evidence::GuardCrossing;
use crate::names::RouteId;
use crate::store::route_of_candidate;

/// How often legacy's own rates are read, and releases by evidence are judged.
const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// The pause after crossings were acted on, so that a route in `only` that goes on failing does not keep a thread busy.
/// It is part of the second within which the guard acts.
const PAUSE: Duration = Duration::from_millis(20);

impl Ladder {
    /// Acts on the crossings of guards at once, and releases by clean evidence the routes whose guards say `release:
    /// evidence`. Runs until it is dropped.
    pub async fn guard_routes(self: Arc<Self>) {
        let evidence = self.mover.gate().evidence.clone();
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = evidence.guard_crossing() => {
                    self.act_on_crossings();
                    tokio::time::sleep(PAUSE).await;
                }
                _ = ticks.tick() => {
                    evidence.refresh_guards();
                    self.start_release();
                }
            }
        }
    }

    /// Acts on the crossings since the last call. Those of candidates are kept for
    /// [`Ladder::take_candidate_crossings`].
    pub fn act_on_crossings(&self) {
        for crossing in self.mover.gate().evidence.take_guard_crossings() {
            match route_of_candidate(&crossing.route) {
                Some(route) => self.candidate_crossings().push(GuardCrossing { route, ..crossing }),
                None => self.act_on_crossing(&crossing),
            }
        }
    }

    /// Takes the crossings of candidates since the last call, under the ids of their routes. Their number is bounded: a
    /// guard finds each condition of a route at most once between two calls.
    pub fn take_candidate_crossings(&self) -> Vec<GuardCrossing> {
        std::mem::take(&mut *self.candidate_crossings())
    }

    fn candidate_crossings(&self) -> MutexGuard<'_, Vec<GuardCrossing>> {
        self.candidate_crossings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on one crossing.
    pub(super) fn act_on_crossing(&self, crossing: &GuardCrossing) {
        self.mover.act_on(crossing);
    }

    /// Releases by evidence, in a task of its own: a store that does not answer must not delay what the guards do.
    fn start_release(self: &Arc<Self>) {
        let Ok(one_at_a_time) = self.releasing.clone().try_lock_owned() else { return };
        let mover = self.mover.clone();
        tokio::spawn(async move {
            if let Err(error) = mover.release_by_evidence().await {
                tracing::warn!(%error, "routes that clean evidence would release stay where their guards keep them: the store did not record it");
            }
            drop(one_at_a_time);
        });
    }

    /// Releases what the guard of a route did. It is recorded before it is in force.
    ///
    /// # Errors
    /// See [`FlipError`]; nothing changed, unless it is [`Unconfirmed::Pending`] or [`Unconfirmed::TaskEnded`].
    pub async fn release_guard(&self, route: &RouteId, release: GuardRelease) -> Result<GuardReleased, FlipError> {
        let until = TokioInstant::now() + self.answer_within;
        let (mover, route) = (Arc::clone(&self.mover), route.clone());
        let moves_lock = timeout_at(until, mover.lock_moves()).await.map_err(|_| Unconfirmed::Busy)?;
        let work = tokio::spawn(async move {
            let outcome = mover.release_guard(moves_lock, &route, release).await;
            mover.start_recording();
            outcome
        });
        let joined = timeout_at(until, work).await.map_err(|_| Unconfirmed::Pending)?;
        joined.unwrap_or_else(|error| Err(Unconfirmed::task_ended(&error).into()))
    }

    /// Connects a listener for the actions of guards: it is told of each one from now on, and of the earlier ones that
    /// are not released.
    pub fn connect_to_guard(&self, listener: Arc<dyn GuardListener>) {
        self.mover.connect_to_guard(listener);
    }

    /// Connects a listener for the moves of cohorts: it is told of each one from now on.
    pub fn connect_to_cohorts(&self, listener: Arc<dyn CohortListener>) {
        self.mover.connect_to_cohorts(listener);
    }
}
