//! Finds which cohorts a new set of positions puts on another rung, and tells the listeners.
//!
//! Always true: a listener is told of what is in force. Guard, health and kill switch are no moves of a cohort: they
//! limit it for a time, as they limit its route.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cohort_listener::{CohortListener, CohortMove, CohortMoveCause};
use super::mover::Mover;
use super::positions::{Positions, RoutePosition};
use crate::flag::State;
use crate::names::RouteId;

/// The moves between two sets of positions.
pub(super) fn moves(before: &Positions, after: &Positions) -> Vec<CohortMove> {
    let mut moves = Vec::new();
    for (id, position) in &after.routes {
        let was = position.route.ids().find_map(|id| before.routes.get(id));
        moves.extend(moves_of_route(id, was, position));
    }
    moves
}

fn moves_of_route(id: &RouteId, was: Option<&RoutePosition>, is: &RoutePosition) -> Vec<CohortMove> {
    let before = was.map(RoutePosition::cohort_rungs).unwrap_or_default();
    let after = is.cohort_rungs();
    let rules = |position: &RoutePosition| position.route.cohort_rules();
    let (rules_before, rules_after) = (was.map(rules).unwrap_or_default(), rules(is));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let moved = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    moved
        .map(|name| {
            let forced = |position: &RoutePosition| {
                let cohort = position.route.cohorts.iter().find(|cohort| cohort.name == *name)?;
                Some((cohort.state, cohort.force.clone()))
            };
            let is_same_rule = rules_before.get(name) == rules_after.get(name) && was.and_then(forced) == forced(is);
            let is_held = |position: &RoutePosition| position.inputs.held_cohorts.contains(name);
            let cause = match is_same_rule {
                false => CohortMoveCause::File,
                true if was.is_some_and(is_held) != is_held(is) => CohortMoveCause::Hold,
                true => CohortMoveCause::Evidence,
            };
            CohortMove {
                route: id.clone(),
                cohort: name.clone(),
                from: before.get(name).copied(),
                to: after.get(name).copied(),
                cause,
                forced: forced(is).and_then(|(_, force)| force),
                evidence: serde_json::Value::Null,
            }
        })
        .collect()
}

impl RoutePosition {
    /// The rung of each cohort by name, as far as files, evidence and holds allow it.
    pub(super) fn cohort_rungs(&self) -> BTreeMap<String, State> {
        let rungs = self.route.cohorts.iter().map(|cohort| {
            let proven = if cohort.force.is_some() { State::Only } else { self.inputs.proven_for(cohort) };
            let is_held = self.inputs.held_cohorts.contains(&cohort.name);
            let held = if is_held { State::Dark } else { State::Only };
            (cohort.name.clone(), cohort.state.min(proven).min(held))
        });
        rungs.collect()
    }

    /// The cohorts that are in `live` while their route is below it, as a sentence.
    pub(super) fn cohorts_ahead(&self) -> Option<String> {
        let rung = self.rung();
        let ahead = self.cohort_rungs().into_iter().filter(|(_, state)| *state >= State::Live && rung < State::Live);
        let ahead: Vec<String> = ahead.map(|(name, _)| format!("`{name}`")).collect();
        let (cohorts, stay) = match ahead.len() {
            0 => return None,
            1 => ("the cohort", "stays"),
            _ => ("the cohorts", "stay"),
        };
        let which = ahead.join(", ");
        Some(format!(
            "{cohorts} {which} {stay} in `live`: the engine goes on answering their callers (to end that, change `state:` of \
             their rules, or flip to `off`)"
        ))
    }
}

impl Mover {
    /// Logs the moves and tells the listeners. To be called once `after` is in force.
    pub(super) fn tell_cohort_moves(&self, before: &Positions, after: &Positions) {
        for mut moved in moves(before, after) {
            if let Some(position) = after.routes.get(&moved.route) {
                let evidence = self.gate().evidence_of(after, position);
                moved.evidence = serde_json::to_value(evidence).unwrap_or_default();
            }
            let CohortMove { route, cohort, from, to, cause, forced, evidence: _ } = &moved;
            let shown = |state: &Option<State>| state.map_or("none", State::as_str);
            let (from, to, why) = (shown(from), shown(to), cause.as_str());
            tracing::warn!(%route, cohort, from, to, why, forced, "a cohort is on another rung");
            let listeners = self.cohort_listeners().clone();
            listeners.iter().for_each(|listener| listener.moved(moved.clone()));
        }
    }

    /// Connects something that is told of each move of a cohort from now on.
    pub(super) fn connect_to_cohorts(&self, listener: Arc<dyn CohortListener>) {
        self.cohort_listeners().push(listener);
    }
}
