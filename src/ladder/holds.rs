//! Limits on a route or a cohort that do not come from the conditions of a gate: a hold, because its requests may be
//! retries that the engine would perform a second time; and the loss of the `key` that a share below 100 % needs. The
//! status shows both as `limited by the gate`.

use super::cohort_gate::CohortJudgement;
use super::gate::Gate;
use super::gate_condition::UnknownRetries;
use super::live_basis::is_changed;
use super::positions::{Positions, RoutePosition};
use crate::flag::{Percent, State};
use crate::names::RouteId;

/// The rung of a route that is held: the highest on which legacy answers.
pub(super) const HELD_AT: State = State::Dark;

/// Lowers a route that has lost its `key` to the highest rung that needs none.
pub(super) fn lower_without_key(position: &mut RoutePosition) {
    let by_key = highest_rung_without_key(position);
    if by_key < position.rung() {
        position.refused.push(format!(
            "`{}` has no `key` any more, so that no caller is in its shares below 100 %: it is in `{by_key}` until the `key` is \
             back or a flip gives it a share of 100 %",
            position.route.id
        ));
        position.inputs.gate = Some(by_key);
    }
}

/// Marks a route as held. The caller lowers it to [`HELD_AT`].
pub(super) fn set_held(position: &mut RoutePosition, UnknownRetries { until, why, .. }: UnknownRetries) {
    position.held_until = Some(until);
    position.inputs.is_held = true;
    position.refused.push(format!(
        "held at `{HELD_AT}`: {why}; `force: {{ reason: … }}` in the file puts it in `{}` before that, and so does a flip \
         with `--force`",
        position.inputs.requested
    ));
}

/// Why a route stays where it was held, as a sentence.
pub(super) fn not_returned(position: &RoutePosition, unmet: &[String]) -> String {
    format!(
        "was held at `{HELD_AT}` and does not return to `{}` by itself: {}. It is judged again when the files are next \
         read; flip it to `live` as soon as its gate is open",
        position.inputs.requested,
        unmet.join("; ")
    )
}

/// A flip lowers a route for good, for a reason that would allow a higher state than `dark`. If the route would be held
/// or kept at `dark` too, for other reasons: the text that names these, to follow the first reason.
pub(super) fn why_below(
    held: Option<&UnknownRetries>,
    merged_reason: Option<&str>,
    unmet: &[String],
) -> Option<String> {
    let held = held.map(|UnknownRetries { why, .. }| why.clone());
    let unmet = (!unmet.is_empty()).then(|| format!("the gate to its state is shut: {}", unmet.join("; ")));
    let whys: Vec<String> = held.into_iter().chain(merged_reason.map(str::to_owned)).chain(unmet).collect();
    (!whys.is_empty()).then(|| format!("and it is at most in `{HELD_AT}`, because {}", whys.join("; ")))
}

/// Applies to a route that a person has just flipped the limits that the next reading of its file would apply.
/// Examples: a flip without force from `only` to `live`, where the route is held; a flip down to a rung with a share
/// below 100 %, after the file has lost its `key`.
pub(super) fn lower_after_flip(positions: &mut Positions, id: &RouteId, gate: &Gate) {
    let Some(mut position) = positions.routes.get(id).cloned() else { return };
    if let Some(unknown_retries) = gate.why_held(positions, &position) {
        position.inputs.gate = Some(HELD_AT);
        set_held(&mut position, unknown_retries);
        if let Some(live) = positions.live.get_mut(id) {
            live.is_below_live = true;
        }
    }
    lower_without_key(&mut position);
    positions.routes.insert(id.clone(), position);
}

/// Sets, for each route: the rung that it has proven for its cohorts, the rungs that they have proven themselves, which
/// of them are held, and whether the route is marked as changed since its evidence.
pub(super) fn judge_cohorts(positions: &mut Positions, gate: &Gate) {
    let judge = |position: &RoutePosition| {
        let held: Vec<_> = gate.held_cohorts(positions, position).collect();
        for (cohort, UnknownRetries { why, .. }) in &held {
            if !position.inputs.held_cohorts.contains(&cohort.name) {
                tracing::warn!(route = %position.route.id, cohort = cohort.name, why, "this cohort is held below `live`");
            }
        }
        let until = held.iter().map(|(_, unknown_retries)| unknown_retries.until).min();
        let names: Vec<String> = held.iter().map(|(cohort, _)| cohort.name.clone()).collect();
        let proven =
            (gate.proven(positions, position), gate.proven_cohorts(positions, position, CohortJudgement::AfterMove));
        (proven, names, until, is_changed(positions, position))
    };
    let judged: Vec<_> = positions.routes.values().map(judge).collect();
    for (position, (proven, held, until, is_changed)) in positions.routes.values_mut().zip(judged) {
        (position.inputs.proven, position.inputs.proven_cohorts) = proven;
        position.inputs.held_cohorts = held;
        position.inputs.is_changed = is_changed;
        position.cohorts_held_until = until;
    }
}

/// The highest rung, at most the route's own, on which the route can be with or without its `key`. A route without a
/// `key` can be in `dark` and `live` only with a share of 100 %.
fn highest_rung_without_key(position: &RoutePosition) -> State {
    let needs_key =
        |rung: State| matches!(rung, State::Dark | State::Live) && position.inputs.shares.of(rung) < Percent::ALL;
    let mut rung = position.rung();
    while let Some(below) = rung.below().filter(|_| position.route.key.is_none() && needs_key(rung)) {
        rung = below;
    }
    rung
}

/// Logs the routes that do not have their requested state. To be called once the positions are in force.
pub(super) fn log_refused(positions: &Positions) {
    for position in positions.routes.values().filter(|at| !at.refused.is_empty()) {
        let (wanted, stays, why) = (position.inputs.requested, position.rung(), position.refused.join("; "));
        match position.held_until {
            Some(_) => tracing::warn!(
                route = %position.route.id, %wanted, %stays, why, "this route is held below its requested state"
            ),
            None if wanted == stays && stays == State::Only => tracing::warn!(
                route = %position.route.id, declared = %position.route.declared, %stays, why,
                "this route does not go down as its file says"
            ),
            None if wanted == stays => tracing::warn!(
                route = %position.route.id, %stays, why,
                "the file asks for a higher state or a larger share than the gate allows"
            ),
            None => tracing::warn!(
                route = %position.route.id, %wanted, %stays, why, "this route is below its requested state"
            ),
        }
    }
}
