//! Whether a caller waits for a run, and what a child run is told of the route that started the run at the top of its
//! tree.
//!
//! Always true: where the files do not say whether a run pauses or fails, a child does what the run at the top of its
//! tree does. A caller waits for a child only where the caller waited for the child's parent, and only until the
//! caller's deadline. A child is not told when the caller gets an answer earlier; so a child for which the answer does
//! not have to wait counts as one that no caller waits for.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Plan, RouteAbove, Run, RunStarted, StepIndex};
use crate::names::StepId;

impl RunStarted {
    /// Whether a route started this run, or the run at the top of its tree.
    pub(super) fn is_of_route(&self) -> bool {
        self.route.is_some() || self.route_above.is_some()
    }
    /// Whether this run, or the first run of its job, is a child: no caller is sent its answer.
    pub fn is_child_or_rerun_of_one(&self) -> bool {
        self.parent.is_some() || self.child_before
    }
}

impl Run {
    /// Whether a caller waits for what this run does now.
    pub(super) fn has_waiting_caller(&self, now: Timestamp) -> bool {
        match self.started.route_above {
            // A child is not told of the caller's answer, so only the deadline counts.
            Some(above) => above.caller_until.is_some_and(|until| now < until),
            None => self.started.route.is_some() && self.answer.is_none() && self.pending.is_none(),
        }
    }
}

/// What a child that this step begins is told of the route; `None` where no route started the run at the top of its
/// tree. `caller_until` is the deadline of `run`'s own caller.
pub fn route_above_child(plan: &Plan, run: &Run, step: &StepId, caller_until: Option<Timestamp>) -> Option<RouteAbove> {
    if !run.started.is_of_route() {
        return None;
    }
    let caller_until = match run.started.route_above {
        Some(above) => above.caller_until,
        None => {
            let waits = run.answer.is_none() && run.pending.is_none() && answer_waits_for(plan, step);
            caller_until.filter(|_| waits)
        }
    };
    Some(RouteAbove { caller_until })
}

/// Whether every answer that the plan declares waits for this step to end.
fn answer_waits_for(plan: &Plan, step: &StepId) -> bool {
    let Some((step, _)) = plan.step(step) else { return false };
    let mut waits =
        plan.respond.iter().map(|entry| entry.after.as_ref().is_none_or(|after| ends_before(plan, step, after)));
    waits.all(|waits| waits)
}

/// Whether a step ends before all of these have ended.
fn ends_before(plan: &Plan, step: StepIndex, all: &[StepIndex]) -> bool {
    let (mut visited, mut to_visit) = (BTreeSet::new(), all.to_vec());
    while let Some(index) = to_visit.pop() {
        let Some(found) = plan.steps.get(index.0).filter(|_| visited.insert(index)) else { continue };
        // A step and its fallback end together, so both directions are followed.
        to_visit.extend(found.needs.iter().chain(&found.replaces).chain(&found.failure_handling.fallback));
    }
    visited.contains(&step)
}
