//! Finds which cohorts a new set of positions puts on another rung.
//!
//! Guard, health and kill switch are no moves of a cohort: they limit it for a time, as they limit its route.

use std::collections::BTreeMap;

use super::cohort_listener::{CohortAhead, CohortMove, CohortMoveCause};
use super::cohort_rules;
use super::positions::{Positions, RoutePosition, UNPROVEN_MAX};
use crate::flag::{Cohort, State};
use crate::names::RouteId;
use crate::secret::redact_line;

/// The moves between two sets of positions.
pub(super) fn moves(before: &Positions, after: &Positions) -> Vec<CohortMove> {
    let mut moves = Vec::new();
    for (id, position) in &after.routes {
        let was = position.route.ids().find_map(|id| before.routes.get(id));
        moves.extend(moves_of_route(id, (before, was), (after, position)));
    }
    moves
}

/// The cohorts that `force` puts ahead of their routes. Those whose reason and rule the files had when the store was
/// written are repeated: the process may have ended before their entry was in the record.
pub(super) fn forced_at_start(before: &Positions, after: &Positions) -> Vec<CohortMove> {
    let of_route = |(id, position): (&RouteId, &RoutePosition)| {
        let known: Vec<_> =
            position.route.ids().filter_map(|id| before.scopes.get(id)?.forced_cohorts.as_ref()).collect();
        let mut rules = cohort_rules::of(&position.route);
        let moved = |CohortAhead { name, rung, forced }: CohortAhead| {
            let reason = forced?;
            let same_name = || known.iter().filter_map(|cohorts| cohorts.get(&name));
            let same_reason = same_name().find(|known| redact_line(&known.reason) == reason);
            let rule = rules.remove(&name);
            let is_repeated =
                same_reason.is_some_and(|known| cohort_rules::is_of(known, &position.route, &name, rule.as_ref()));
            let source = source_of_entry(after, [id], &name);
            // Nothing is known of an entry that an earlier version made.
            if is_repeated && source.is_none() {
                return None;
            }
            let rule_before = same_reason.or(same_name().next()).and_then(|known| known.rule.as_ref());
            let rule_before = rule_before.filter(|_| !is_repeated);
            Some(CohortMove {
                route: id.clone(),
                // Where it would have been without a hold.
                from: rule_before.filter(|_| same_reason.is_some()).map(|rule| rule.state),
                to: Some(rung),
                when_before: rule_before.map(|rule| cohort_rules::shown(&rule.when)),
                rule_before: rule_before.map(|rule| rule.hash.clone()),
                rule: rule.as_ref().map(|rule| rule.hash.clone()),
                when: rule.map(|rule| rule.when),
                cohort: name,
                cause: CohortMoveCause::File,
                forced: Some(reason),
                source,
                is_repeated,
                evidence: serde_json::Value::Null,
            })
        };
        position.cohorts_ahead().into_iter().filter_map(moved).collect::<Vec<_>>()
    };
    after.routes.iter().flat_map(of_route).collect()
}

/// The source of the entry about a cohort with the reason that its `force` gives.
fn source_of_entry<'a>(
    positions: &Positions,
    ids: impl IntoIterator<Item = &'a RouteId>,
    cohort: &str,
) -> Option<String> {
    let mut of_ids = ids.into_iter().filter_map(|id| positions.scopes.get(id)?.forced_cohorts.as_ref()?.get(cohort));
    of_ids.find_map(|forced| forced.source.clone())
}

fn moves_of_route(
    id: &RouteId,
    (before_all, was): (&Positions, Option<&RoutePosition>),
    (after_all, is): (&Positions, &RoutePosition),
) -> Vec<CohortMove> {
    let before = was.map(RoutePosition::cohort_rungs).unwrap_or_default();
    let after = is.cohort_rungs();
    let rules = |position: &RoutePosition| position.route.cohort_rules();
    let (rules_before, rules_after) = (was.map(rules).unwrap_or_default(), rules(is));
    let when = |position: &RoutePosition, name: &str| Some(cohort_rules::of(&position.route).remove(name)?.when);
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let forced = |position: &RoutePosition, name: &str| {
        let cohort = position.route.cohorts.iter().find(|cohort| cohort.name == name)?;
        Some((cohort.state, cohort.force.clone()))
    };
    let is_same_rule = |name: &String| {
        let (before, after) = (was.and_then(|was| forced(was, name)), forced(is, name));
        rules_before.get(name) == rules_after.get(name) && before == after
    };
    // A changed rule also counts as a move, above `UNPROVEN_MAX`: it may admit other callers.
    let has_other_callers =
        |name: &String| was.is_some() && after.get(name) > Some(&UNPROVEN_MAX) && !is_same_rule(name);
    let moved = names.into_iter().filter(|name| before.get(*name) != after.get(*name) || has_other_callers(name));
    moved
        .map(|name| {
            let is_held = |position: &RoutePosition| position.inputs.held_cohorts.contains(name);
            let cause = match is_same_rule(name) {
                false => CohortMoveCause::File,
                true if was.is_some_and(is_held) != is_held(is) => CohortMoveCause::Hold,
                true => CohortMoveCause::Evidence,
            };
            CohortMove {
                route: id.clone(),
                cohort: name.clone(),
                from: before.get(name).copied(),
                to: after.get(name).copied(),
                when_before: was.and_then(|was| when(was, name)),
                when: when(is, name),
                rule_before: rules_before.get(name).cloned(),
                rule: rules_after.get(name).cloned(),
                cause,
                forced: forced(is, name).and_then(|(_, force)| force),
                source: source_of_entry(after_all, [id], name)
                    .filter(|new| source_of_entry(before_all, is.route.ids(), name).as_ref() != Some(new)),
                is_repeated: false,
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

    /// The cohorts that are on a higher rung than their route, which is above `shadow`.
    pub(super) fn cohorts_ahead(&self) -> Vec<CohortAhead> {
        let (rung, rungs) = (self.rung().max(UNPROVEN_MAX), self.cohort_rungs());
        let ahead = |cohort: &Cohort| {
            let rung = rungs.get(&cohort.name).copied().filter(|state| *state > rung)?;
            Some(CohortAhead { name: cohort.name.clone(), rung, forced: cohort.force.clone() })
        };
        self.route.cohorts.iter().filter_map(ahead).collect()
    }

    /// The cohorts that are in `live` while their route is below it, as a sentence.
    pub(super) fn cohorts_ahead_text(&self) -> Option<String> {
        let ahead =
            self.cohorts_ahead().into_iter().filter(|ahead| ahead.rung >= State::Live && self.rung() < State::Live);
        let ahead: Vec<String> = ahead.map(|ahead| format!("`{}`", ahead.name)).collect();
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
