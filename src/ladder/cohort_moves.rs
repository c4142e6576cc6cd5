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

/// The cohorts that `force` puts on a higher rung than their route, as moves. A cohort whose reason and rule are stored
/// already is included too, as a repeated move: the last process may have ended before the entry was in the record.
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
            // The row is from an earlier version, which stored no source: without one, a repeated move would make a
            // second entry.
            if is_repeated && source.is_none() {
                return None;
            }
            let rule_before = same_reason.or(same_name().next()).and_then(|known| known.rule.as_ref());
            let rule_before = rule_before.filter(|_| !is_repeated);
            Some(CohortMove {
                route: id.clone(),
                // The state of the rule: the rung before may have been lower by a hold, which is not stored.
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
    (all_before, old): (&Positions, Option<&RoutePosition>),
    (all_after, new): (&Positions, &RoutePosition),
) -> Vec<CohortMove> {
    let rungs_before = old.map(RoutePosition::cohort_rungs).unwrap_or_default();
    let rungs_after = new.cohort_rungs();
    let rules = |position: &RoutePosition| position.route.cohort_rules();
    let (rules_before, rules_after) = (old.map(rules).unwrap_or_default(), rules(new));
    let when = |position: &RoutePosition, name: &str| Some(cohort_rules::of(&position.route).remove(name)?.when);
    let names: std::collections::BTreeSet<_> = rungs_before.keys().chain(rungs_after.keys()).collect();
    let forced = |position: &RoutePosition, name: &str| {
        let cohort = position.route.cohorts.iter().find(|cohort| cohort.name == name)?;
        Some((cohort.state, cohort.force.clone()))
    };
    let is_same_rule = |name: &String| {
        let (before, after) = (old.and_then(|old| forced(old, name)), forced(new, name));
        rules_before.get(name) == rules_after.get(name) && before == after
    };
    // Above `UNPROVEN_MAX` a changed rule is reported as a move too, because it may admit other callers.
    let has_other_callers =
        |name: &String| old.is_some() && rungs_after.get(name) > Some(&UNPROVEN_MAX) && !is_same_rule(name);
    let moved =
        names.into_iter().filter(|name| rungs_before.get(*name) != rungs_after.get(*name) || has_other_callers(name));
    moved
        .map(|name| {
            let is_held = |position: &RoutePosition| position.inputs.held_cohorts.contains(name);
            let cause = match is_same_rule(name) {
                false => CohortMoveCause::File,
                true if old.is_some_and(is_held) != is_held(new) => CohortMoveCause::Hold,
                true => CohortMoveCause::Evidence,
            };
            CohortMove {
                route: id.clone(),
                cohort: name.clone(),
                from: rungs_before.get(name).copied(),
                to: rungs_after.get(name).copied(),
                when_before: old.and_then(|old| when(old, name)),
                when: when(new, name),
                rule_before: rules_before.get(name).cloned(),
                rule: rules_after.get(name).cloned(),
                cause,
                forced: forced(new, name).and_then(|(_, force)| force),
                source: source_of_entry(all_after, [id], name)
                    .filter(|source| source_of_entry(all_before, new.route.ids(), name).as_ref() != Some(source)),
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

    /// The cohorts that are above `shadow`, and on a higher rung than their route.
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
