//! Runs that fail after their caller, or the comparison, has their answer.

use crate::flag::State;
use crate::names::{PlanId, RouteId};

/// Is told of runs that failed after their answer was given, because a good answer alone must not count for the engine.
pub trait LateFailureObserver: Send + Sync {
    /// Counts a run of a route, with this plan, that failed or paused because of a conflict after its answer was given.
    /// `rung` is the rung on which such runs are made: `shadow`, `dark`, or `live` for every run whose answer went to a
    /// caller.
    fn failed_after_answer(&self, route: &RouteId, plan: &PlanId, rung: State);
}

/// Counts nothing.
impl LateFailureObserver for () {
    fn failed_after_answer(&self, _: &RouteId, _: &PlanId, _: State) {}
}
