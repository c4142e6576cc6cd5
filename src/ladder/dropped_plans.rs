//! A route that went below `live` has the plans of its files again, and no candidate with a share, before it returns.
//!
//! Always true: no flip takes a route to `live` with the plans that were in force there before it went down. These
//! plans are dropped when the files in force are read once more. The owner of the ladder does that soon after the flip
//! down ([`super::Ladder::has_plans_to_drop`]); a flip up waits for it, for a bounded time.

use std::time::Duration;

use tokio::time::Instant;

use super::mover::Mover;
use super::plans;
use super::types::FlipError;
use crate::flag::State;
use crate::names::RouteId;

/// How often a waiting flip up checks whether the plans are dropped.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How long a flip up waits for that at most. Longer only takes a process that waits for its store.
const DROPPED_WITHIN: Duration = Duration::from_secs(3);

impl Mover {
    /// Whether a flip to this state has to wait until the route's plans from before it went below `live` are dropped.
    pub(super) fn has_plans_to_drop(&self, route: &RouteId, to: State) -> bool {
        to >= State::Live && plans::has_plans_of_live(&self.in_force().inputs().positions, route)
    }

    /// Waits until [`Mover::has_plans_to_drop`] is false.
    ///
    /// # Errors
    /// The plans are not dropped in time.
    pub(super) async fn wait_for_dropped_plans(
        &self,
        route: &RouteId,
        to: State,
        until: Instant,
    ) -> Result<(), FlipError> {
        let until = until.min(Instant::now() + DROPPED_WITHIN);
        while self.has_plans_to_drop(route, to) {
            if Instant::now() >= until {
                let why = format!(
                    "`{route}` went below `live` a moment ago, and the plan that was in force there is not replaced by \
                     that of the files yet: ask again in a second"
                );
                return Err(FlipError::Refused { why, commands: Vec::new() });
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(())
    }
}
