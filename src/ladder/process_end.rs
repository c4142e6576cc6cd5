//! The end of the process: waits until unrecorded moves are recorded, and logs those that are lost.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant as TokioInstant, timeout_at};

use super::Ladder;
use super::pending_shares::LargerShare;
use super::record_unrecorded::UnrecordedMoves;

impl Ladder {
    /// Logs the freeze and the routes of the flips down that are not recorded yet. For the beginning of the stop: a
    /// supervisor may end the process before [`Ladder::end_moves`] returns.
    pub fn log_unrecorded(&self) {
        let unrecorded = self.mover.unrecorded_moves();
        if let Some(routes) = unrecorded.route_names() {
            tracing::warn!(
                routes,
                "the store has not recorded the flips down of these routes: if the process ends before it does, they are lost"
            );
        }
        for LargerShare { route, to, percent, .. } in &unrecorded.larger_shares {
            tracing::warn!(
                %route, %to, %percent,
                "the larger share that was asked for together with a flip down is not set yet: if the process ends before \
                 it is, it is lost"
            );
        }
        if let Some(routes) = unrecorded.guarded_names() {
            tracing::warn!(
                routes,
                "the store has not recorded what the guards of these routes did: if the process ends before it does, it is lost"
            );
        }
        if let Some(freeze) = unrecorded.freeze {
            tracing::warn!(
                freeze,
                "the store has not recorded the freeze in force: if the process ends before it does, it is lost"
            );
        }
    }

    /// To be called when the process ends. Waits, for at most `within`, until the unrecorded freeze, flips down and
    /// actions of guards are recorded, and until the larger shares that follow flips down are set; then logs what is
    /// lost. Waits for a move that is under way too: a freeze may have overtaken it, and then a flip down reverts it.
    /// From this call on a flip down is refused.
    pub async fn end_moves(&self, within: Duration) {
        let lost = self.mover.end_moves(within).await;
        self.log_lost(lost);
    }

    /// To be called after [`Ladder::end_moves`], when no freeze can be set any more. Waits, until `until` at the
    /// latest, for the record of a freeze that was set since; then logs what is lost and was not logged by `end_moves`.
    /// That may include flips down: one that reverts a flip to `only` which the freeze overtook.
    pub async fn end_freezes(&self, until: TokioInstant) {
        let _in_time = timeout_at(until, self.mover.kill_switch().wait_all_recorded()).await;
        self.log_lost(UnrecordedMoves { larger_shares: Vec::new(), ..self.mover.unrecorded_moves() });
    }

    /// Logs the moves that are lost, except those that were logged before.
    fn log_lost(&self, mut lost: UnrecordedMoves) {
        let mut logged = self.logged_lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.routes.retain(|route| !logged.routes.contains(route));
        lost.guarded.retain(|route| !logged.guarded.contains(route));
        lost.freeze = lost.freeze.filter(|freeze| logged.freeze.as_ref() != Some(freeze));
        if let Some(routes) = lost.route_names() {
            tracing::error!(
                routes,
                "the store has not recorded the flips down of these routes, which are lost: the next process returns the \
                 routes to the states that the store has"
            );
        }
        if let Some(routes) = lost.guarded_names() {
            tracing::error!(
                routes,
                "the store has not recorded what the guards of these routes did, which is lost: the next process returns \
                 the routes to the requested states, and the guards count from zero"
            );
        }
        lost.larger_shares.iter().for_each(LargerShare::log_lost);
        if let Some(freeze) = &lost.freeze {
            tracing::error!(
                freeze,
                "the store has not recorded the freeze, which is lost: the next process starts without it"
            );
        }
        logged.routes.append(&mut lost.routes);
        logged.guarded.append(&mut lost.guarded);
        logged.freeze = lost.freeze.or_else(|| logged.freeze.take());
    }
}
