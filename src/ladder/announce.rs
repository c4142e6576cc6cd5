//! A move that lets the engine answer a route's requests is announced to the other processes on the same store before
//! it is recorded.
//!
//! Always true: while one process has such a move in force and another one does not, each takes a retry key for legacy
//! only if the store has it as legacy's, and the engine takes none that the store has as legacy's. So where two tries
//! of one request reach two processes, only one arm performs the request.

use std::time::Duration;

use super::mover::Mover;
use super::other_processes::OtherProcesses;
use super::positions::{Positions, RoutePosition};
use crate::flag::State;
use crate::names::RouteId;

/// What was announced is announced until this is dropped.
pub(super) struct Announced<'a>(Option<&'a dyn OtherProcesses>);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        if let Some(others) = self.0 {
            others.end_announcement();
        }
    }
}

impl RoutePosition {
    /// Whether retry keys of the route are taken only in the store: the engine answers, or may do so without another
    /// flip, here or in a process whose engine is healthy or that knows all keys.
    pub(super) fn claims_keys(&self) -> bool {
        self.highest() >= State::Live || self.route.cohorts.iter().any(|cohort| cohort.state >= State::Live)
    }
}

impl Mover {
    /// How long a flip to this state may wait for other processes.
    pub(super) fn announce_within(&self, to: State) -> Duration {
        let waits = self.others.as_deref().filter(|_| to >= State::Live && self.store.is_shared());
        waits.map_or(Duration::ZERO, OtherProcesses::announce_within)
    }

    /// Announces a flip of this route to this state, if the engine is to answer and did not before.
    ///
    /// # Errors
    /// See [`OtherProcesses::announce`]. It is announced nevertheless, until the second part of the error is dropped.
    pub(super) async fn announce_flip(
        &self,
        position: &RoutePosition,
        to: State,
    ) -> Result<Announced<'_>, (String, Announced<'_>)> {
        let is_new = to >= State::Live && !position.claims_keys();
        self.announce(if is_new { vec![position.route.id.clone()] } else { Vec::new() }).await
    }

    /// Announces the routes that the engine is to answer by new files.
    ///
    /// # Errors
    /// As [`Mover::announce_flip`].
    pub(super) async fn announce_files(
        &self,
        before: &Positions,
        after: &Positions,
    ) -> Result<Announced<'_>, (String, Announced<'_>)> {
        let claimed = |id: &RouteId| before.routes.get(id).is_some_and(RoutePosition::claims_keys);
        let is_new = |at: &&RoutePosition| at.claims_keys() && !claimed(&at.route.id);
        self.announce(after.routes.values().filter(is_new).map(|at| at.route.id.clone()).collect()).await
    }

    async fn announce(&self, routes: Vec<RouteId>) -> Result<Announced<'_>, (String, Announced<'_>)> {
        let Some(others) = self.others.as_deref().filter(|_| !routes.is_empty()) else { return Ok(Announced(None)) };
        let announced = Announced(Some(others));
        match others.announce(routes).await {
            Ok(()) => Ok(announced),
            Err(why) => Err((why, announced)),
        }
    }
}
