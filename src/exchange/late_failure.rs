//! Runs that fail after their caller, or the comparison, has their answer.

use crate::flag::State;
use crate::names::{PlanId, RouteId};

/// Is told of runs that failed after their answer was given, so that the answer alone does not count for the engine.
pub trait LateFailureObserver: Send + Sync {
    /// A run of a route, by this plan, failed after its answer, or paused because of a conflict. `rung` is the rung on
    /// which such runs are made: `shadow`, `dark`, or `live` for every run whose answer went to a caller.
    fn failed_after_answer(&self, route: &RouteId, plan: &PlanId, rung: State);
}

/// Counts nothing.
impl LateFailureObserver for () {
    fn failed_after_answer(&self, _: &RouteId, _: &PlanId, _: State) {}
}
