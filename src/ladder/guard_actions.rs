//! What the guard does: lowers the state in force, or raises an alarm in `only`.
//!
//! Always true:
//!
//! - An action is in force before it is recorded, and waits neither for the store nor for another move.
//! - It lowers the state in force, never the requested one.
//! - It does not lower a route in `only`, nor a creator with a follower in `only`: legacy would create instances, and
//!   in `only` nobody would answer the requests about them.
//! - If a follower crosses a limit of its guard, its creator is lowered too, and first: otherwise the creator would go
//!   on creating instances, and the follower would get their follow-ups.
//!
//! Recording an action is tried again until the store has it (`record_unrecorded`). If the process is killed before
//! that, the route returns to the requested state, and the guard counts from zero.

use std::sync::Arc;

use super::export;
use super::guard_types::{GuardActed, GuardListener};
use super::in_force::Inputs;
use super::mover::Mover;
use super::positions::RoutePosition;
use crate::clock;
use crate::evidence::GuardCrossing;
use crate::flag::{Effective, Instance, Route, State};
use crate::names::RouteId;
use crate::store::{FlipRecord, GuardAction, GuardRecord, guard_key};

/// Who acted, in records.
pub(super) const BY_GUARD: &str = "guard";

/// The reaction to a crossing: the action, and the highest state that is allowed from then on.
type Reaction = (GuardAction, Option<State>);

/// What the guard does about a crossing on this rung. `None` if there is nothing to do: the route is as low already, or
/// the guard has raised an alarm that is not released.
fn reaction(inputs: &Inputs, position: &RoutePosition, rung: State, in_dark: bool) -> Option<Reaction> {
    let latch = inputs.guards.latch(&position.route);
    let has_follower_in_only = || inputs.positions.followers(&position.route.id).any(|at| at.rung() == State::Only);
    if position.rung() == State::Only || (position.takes_instances() && has_follower_in_only()) {
        // No second alarm until the first one is released.
        return latch.is_none().then_some((GuardAction::Alerted, None));
    }
    let limit = inputs.guards.limit(&position.route);
    let may_lower = |to: State| limit.is_none_or(|limit| limit > to);
    if rung != State::Dark && position.takes_instances() && may_lower(State::Dark) {
        return Some((GuardAction::Lowered, Some(State::Dark)));
    }
    let is_dark = position.rung() >= State::Dark;
    let of_dark = in_dark && rung != State::Live && is_dark && may_lower(State::Shadow);
    of_dark.then_some((GuardAction::Lowered, Some(State::Shadow)))
}

impl Mover {
    /// Acts on a crossing, at once.
    pub(super) fn act_on(self: &Arc<Self>, crossing: &GuardCrossing) {
        let inputs = self.in_force().inputs();
        let of_route = |at: &&RoutePosition| at.route.ids().any(|id| *id == crossing.route);
        let Some(position) = inputs.positions.routes.values().find(of_route) else { return };
        let (id, in_dark) = (&position.route.id, position.route.guard.as_ref().is_some_and(|guard| guard.in_dark));
        // A guard that the files have removed meanwhile does not act.
        if position.route.guard.is_none() {
            return;
        }
        if let Some(Instance::Follows { creator, .. }) = &position.route.instance
            && crossing.rung != State::Dark
            // In `only` there is an alarm about the follower itself.
            && position.rung() != State::Only
        {
            let detail = format!("its follower `{id}`: {}", crossing.detail);
            self.act(creator, &GuardCrossing { detail, ..crossing.clone() }, false);
        }
        self.act(id, crossing, in_dark);
        self.clone().start_recording();
    }

    fn act(&self, id: &RouteId, crossing: &GuardCrossing, in_dark: bool) {
        let inputs = self.in_force().inputs();
        let Some(position) = inputs.positions.routes.get(id) else { return };
        let evidence = self.gate().evidence_of(&inputs.positions, position);
        let evidence = serde_json::to_value(evidence).unwrap_or_default();
        let acted = self.in_force().act(id, |inputs, position| {
            let (action, limit) = reaction(inputs, position, crossing.rung, in_dark)?;
            let GuardCrossing { condition, bad, of, detail, runs, route: _, rung: _, accepted: _ } = crossing;
            let Effective { state: from, why: _ } = inputs.effective(position);
            let guard = GuardRecord {
                route: id.clone(),
                action,
                limit,
                condition: Some(*condition),
                bad: *bad,
                of: *of,
                runs: runs.clone(),
            };
            let to = limit.map_or(from, |limit| limit.min(from));
            Some(guard_record((from, to), BY_GUARD.to_owned(), Some(detail.clone()), guard, evidence))
        });
        if let Some((record, route)) = acted {
            self.gate().evidence.restart_guard(id);
            self.report(&record, &route);
        }
    }

    /// Logs and counts an action of a guard, or its release, and tells the listeners.
    pub(super) fn report(&self, record: &FlipRecord, route: &Arc<Route>) {
        export::log_guard(record);
        let requested = self.in_force().inputs().positions.routes.get(&route.id).map(|at| at.inputs.requested);
        self.tell(record, route, requested.unwrap_or(State::Off));
    }

    /// Counts that the guard set the share of a candidate to 0, and tells the listeners.
    pub(super) fn report_candidate(&self, record: &FlipRecord) {
        let Some(candidate) = record.candidate.as_ref().filter(|_| record.by == BY_GUARD) else { return };
        let inputs = self.in_force().inputs();
        let Some(position) = inputs.positions.routes.get(&candidate.route) else { return };
        export::count_stopped_candidate(&candidate.route);
        self.tell(record, &position.route, position.inputs.requested);
    }

    fn tell(&self, record: &FlipRecord, route: &Arc<Route>, requested: State) {
        let acted = GuardActed { record: record.clone(), route: route.clone(), requested, is_repeated: false };
        let listeners = self.guard_listeners().clone();
        listeners.iter().for_each(|listener| listener.acted(acted.clone()));
    }

    /// Connects a listener: it is told of each action from now on, and of the earlier ones that are not released,
    /// because the last process may have ended before their messages were delivered.
    pub(super) fn connect_to_guard(&self, listener: Arc<dyn GuardListener>) {
        let inputs = self.in_force().inputs();
        for position in inputs.positions.routes.values() {
            if let Some(latch) = inputs.guards.latch(&position.route) {
                let (record, route) = (FlipRecord::clone(latch), position.route.clone());
                let requested = position.inputs.requested;
                listener.acted(GuardActed { record, route, requested, is_repeated: true });
            }
        }
        self.guard_listeners().push(listener);
    }
}

/// The record of an action of a guard, or of its release; the store assigns its number.
pub(super) fn guard_record(
    (from, to): (State, State),
    by: String,
    reason: Option<String>,
    guard: GuardRecord,
    evidence: serde_json::Value,
) -> FlipRecord {
    FlipRecord {
        number: 0,
        route: Some(guard_key(&guard.route)),
        from: from.as_str().to_owned(),
        to: to.as_str().to_owned(),
        shares: None,
        by,
        at: clock::now(),
        reason,
        forced: false,
        overridden: None,
        evidence,
        gates: Vec::new(),
        guard: Some(guard),
        candidate: None,
    }
}
