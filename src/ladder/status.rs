//! The state of a route, as the API and the CLI show it.

use std::sync::Arc;

use super::cohort_gate::CohortBelow;
use super::cohort_listener::CohortAhead;
use super::gate::Gate;
use super::gate_condition::UnknownRetries;
use super::guard_status::guard_status;
use super::guard_types::GuardStatus;
use super::in_force::Inputs;
use super::live_basis;
use super::plans::CandidateStatus;
use super::positions::{Positions, RoutePosition};
use super::types::{AutoStatus, NextRung};
use super::unrecorded_flips::with_shown_number;
use crate::flag::{Cohort, Effective, Shares, State};
use crate::names::{PlanSet, RouteId, StepId};
use crate::store::FlipRecord;

/// The state of a route, and why it has it.
#[derive(Clone, Debug)]
pub struct RouteStatus {
    /// The route.
    pub route: RouteId,
    /// What its file declares.
    pub declared: State,
    /// The state that was requested last, by a flip or the file.
    pub requested: State,
    /// The state in force, and why.
    pub effective: Effective,
    /// The shares in force.
    pub shares: Shares,
    /// Whether the route has no flip: its state is the one that the file declares.
    pub has_no_flip: bool,
    /// The reason with which a flip or the file overrode the gate, for as long as the gate is still shut.
    pub forced: Option<String>,
    /// Why the route, or a cohort of it, does not have the state in the file, or that of the last flip; empty if it
    /// has.
    pub refused: Vec<String>,
    /// The cohorts that lack evidence for the state of their rules.
    pub cohorts_below: Vec<CohortBelow>,
    /// The cohorts that are on a higher rung than the route.
    pub cohorts_ahead: Vec<CohortAhead>,
    /// A sentence about what a person has to accept by a forced flip, such as a pin collision.
    pub to_accept: Option<String>,
    /// Set if the basis of the evidence was changed while the route, or a cohort of it, was in `live` or above: a
    /// sentence that says so and what to do. `None` again once evidence supports the change, a person has accepted it
    /// by force, or a flip has taken the route below `live`.
    pub changed: Option<String>,
    /// The last flip. Its number is 0 while the store does not have it.
    pub last: Option<FlipRecord>,
    /// Whether its last flip, a flip down, is not in the store yet, so that a restart would lose it.
    pub is_unrecorded: bool,
    /// The action of its guard that is not released.
    pub guard: Option<GuardStatus>,
    /// What its share still needs before it grows; `None` if it does not grow by itself.
    pub auto: Option<AutoStatus>,
    /// The next rung up; `None` on the highest.
    pub next: Option<NextRung>,
    /// The shared steps of its workflow that no pair compared with a call by legacy or an `assert`, except those that
    /// are declared `unseen`.
    pub uncompared_steps: Vec<StepId>,
    /// The plans in force, in `live` and above.
    pub plans: Option<Arc<PlanSet>>,
    /// Why the plans in force cannot be run with the files in force; `None` if they can.
    pub plan_trouble: Option<String>,
    /// Its changed workflow, which is not in force yet.
    pub candidate: Option<CandidateStatus>,
}

pub(super) fn route_status(
    inputs: &Inputs,
    gate: &Gate,
    position: &RoutePosition,
    auto: Option<AutoStatus>,
) -> RouteStatus {
    let of_cohort = |(cohort, UnknownRetries { why, .. }): (&Cohort, UnknownRetries)| {
        format!("the cohort `{}` is held below `live`, and its `force` is older than the cause: {why}", cohort.name)
    };
    // `held_cohorts` judges now: a cause that became known since the cohorts were last judged holds none yet.
    let is_held = |(cohort, _): &(&Cohort, UnknownRetries)| position.inputs.held_cohorts.contains(&cohort.name);
    let held_cohorts = gate.held_cohorts(&inputs.positions, position).filter(is_held).map(of_cohort);
    RouteStatus {
        route: position.route.id.clone(),
        declared: position.route.declared,
        requested: position.inputs.requested,
        effective: inputs.effective(position),
        shares: position.inputs.shares,
        has_no_flip: position.inputs.has_no_flip,
        forced: gate.still_forced(&inputs.positions, position),
        refused: position.refused.iter().cloned().chain(held_cohorts).collect(),
        cohorts_below: gate.cohorts_below(&inputs.positions, position),
        cohorts_ahead: position.cohorts_ahead(),
        to_accept: gate.to_accept(position),
        changed: live_basis::sentence(position),
        last: position.last.clone().map(with_shown_number),
        is_unrecorded: inputs.has_unrecorded_flip(&position.route.id),
        guard: guard_status(inputs, gate, position),
        auto,
        next: gate.next(&inputs.positions, position),
        uncompared_steps: gate.uncompared_steps(&inputs.positions, position),
        plans: inputs.positions.in_force.get(&position.route.id).cloned(),
        plan_trouble: inputs.positions.declared.plans.unrunnable.get(&position.route.id).cloned(),
        candidate: gate.candidate(&inputs.positions, position),
    }
}

impl Gate {
    /// See [`RouteStatus::uncompared_steps`].
    pub fn uncompared_steps(&self, positions: &Positions, position: &RoutePosition) -> Vec<StepId> {
        let steps = positions.declared.shared_steps.get(&position.route.id).map_or(&[][..], Vec::as_slice);
        self.evidence_of(positions, position).uncompared(steps).cloned().collect()
    }
}
