//! The engine's health, as checks find it.

use std::sync::atomic::Ordering;

use super::Ladder;
use super::types::CheckNumber;

impl Ladder {
    /// Begins a check of the engine's health, and returns its number.
    pub fn begin_check(&self) -> CheckNumber {
        CheckNumber(self.checks.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Sets the engine's health to the result of a check; the result of a check that began before the newest one is
    /// ignored. While the engine is unhealthy, routes below `only` create no new engine instances.
    pub fn set_health(&self, CheckNumber(number): CheckNumber, healthy: bool) {
        if !self.mover.in_force().set_health(number, healthy) {
            return;
        }
        if healthy {
            tracing::info!("the engine is healthy again: its health does not limit routes any more");
        } else {
            tracing::warn!(
                "the engine is not healthy: routes below `only` are at most at `shadow` and create no engine \
                 instances; routes in `only` stay as they are"
            );
        }
    }
}
