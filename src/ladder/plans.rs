//! Which plans are in force for the routes in `live` and `only`, and which ones are their candidates.
//!
//! Always true: the plans in force of such a route are in the store no later than the flip that took the route there. A
//! change of the files does not replace them: if the files have other plans, these are the route's candidate, and only
//! a [`CandidateMove`] puts a candidate in force. A route below `live` has neither: it is run with the plans of the
//! files.
//!
//! New files are read together with the plans that stay in force ([`DeclaredPlans::in_force`]): the basis of the
//! evidence depends on them. If a flip has taken a route to `live` since, the files are read once more. A flip down
//! leaves the plans in force until the files are read the next time, which happens at once
//! ([`super::Ladder::has_plans_to_drop`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::declared_plans::{CandidateMove, DeclaredPlans};
use super::gate::Gate;
use super::gate_judgement::{recorded_gate, sentences};
use super::live_basis;
use super::positions::{Positions, RoutePosition, plans_from_store};
use super::types::FlipSource;
use crate::clock;
use crate::evidence::{Condition, RouteEvidence};
use crate::flag::{CandidatePlans, Percent, Route, RoutePlans, State};
use crate::names::{PlanSet, RouteId};
use crate::store::{CandidateAction, CandidateRecord, FlipRecord, StoreError, StoreHandle, candidate_key};

/// The candidate of a route, and what its gate says.
#[derive(Clone, Debug)]
pub struct CandidateStatus {
    /// The plans in force.
    pub in_force: Arc<PlanSet>,
    /// The candidate's plans.
    pub candidate: Arc<PlanSet>,
    /// The share of new requests that it answers.
    pub share: Percent,
    /// The last record of the candidate; `None` while none is stored.
    pub since: Option<FlipRecord>,
    /// The conditions on its evidence for coming into force, whether they hold or not.
    pub conditions: Vec<Condition>,
    /// All that the gate still requires, as sentences; empty if the gate is open.
    pub missing: Vec<String>,
}

/// Whether the plans in force of a route stay when the files change: it is in `live` or above, or returns there without
/// passing a gate.
fn keeps_plans(position: &RoutePosition) -> bool {
    position.rung() >= State::Live || position.inputs.is_held || position.inputs.returns_at_restart
}

/// The plans that stay in force under new files, by route.
#[derive(Clone, Debug, Default)]
pub struct KeptPlans {
    /// The plans in force.
    pub in_force: BTreeMap<RouteId, Arc<PlanSet>>,
    /// For each route whose plans in force came through the gate of a candidate, or come through it with these files:
    /// the earlier plans in force. The evidence of the other routes of the family, which was gathered on instances of
    /// these plans, still counts.
    pub evidence_from: BTreeMap<RouteId, Arc<PlanSet>>,
}

/// The plans in force that the next process finds in the store, for files with these routes.
pub fn stored_plans_in_force(
    flips: Vec<FlipRecord>,
    rows: &[crate::store::DeclaredState],
    routes: &[Arc<Route>],
) -> KeptPlans {
    let is_of_route = |flip: &FlipRecord| flip.guard.is_none() && flip.candidate.is_none();
    let of_routes = flips.into_iter().filter(is_of_route);
    let flips = of_routes.filter_map(|flip| Some((flip.route.clone()?, flip))).collect();
    let in_force = plans_from_store(rows, &flips, |row| row.in_force.as_ref());
    let evidence_from = plans_from_store(rows, &flips, |row| row.evidence_from.as_ref());
    let mut kept = KeptPlans::default();
    for route in routes.iter().filter(|route| route.workflow.is_some()) {
        let Some((id, set)) = route.ids().find_map(|id| in_force.get_key_value(id)) else { continue };
        kept.in_force.insert(route.id.clone(), Arc::clone(set));
        kept.evidence_from.extend(evidence_from.get(id).map(|set| (route.id.clone(), Arc::clone(set))));
    }
    kept
}

/// The plans that stay in force under files with these routes, when this candidate comes into force.
pub(super) fn kept(before: &Positions, routes: &[Arc<Route>], promoted: Option<&CandidateMove>) -> KeptPlans {
    let mut kept = KeptPlans::default();
    for route in routes.iter().filter(|route| route.workflow.is_some()) {
        let own = |id| before.in_force.get_key_value(id).filter(|_| before.routes.get(id).is_none_or(keeps_plans));
        let Some((id, set)) = route.ids().find_map(own) else { continue };
        let earlier = before.evidence_from.get(id);
        let evidence_from = match promoted.filter(|promoted| promoted.route == route.id) {
            None => {
                kept.in_force.insert(route.id.clone(), Arc::clone(set));
                earlier
            }
            // The gate was overridden, so nothing shows that the candidate's instances are like those of the plans
            // before.
            Some(promoted) if promoted.force => None,
            Some(_) => Some(earlier.unwrap_or(set)),
        };
        kept.evidence_from.extend(evidence_from.map(|set| (route.id.clone(), Arc::clone(set))));
    }
    kept
}

/// Whether the plans that stay in force are those with which these files were read.
pub(super) fn are_as_read(before: &Positions, plans: &DeclaredPlans, routes: &[Arc<Route>]) -> bool {
    kept(before, routes, plans.comes_into_force()).in_force == plans.in_force
}

/// Sets the plans in force after new files were judged.
pub(super) fn after_files(before: &Positions, after: &mut Positions) {
    let mut in_force = after.declared.plans.in_force.clone();
    // A route that is in no file now may be added again.
    let absent = before.in_force.iter().filter(|(id, _)| after.absent.contains(*id));
    in_force.extend(absent.map(|(id, set)| (id.clone(), Arc::clone(set))));
    let kept = kept(before, &after.declared.routes, after.declared.plans.comes_into_force());
    let absent = before.evidence_from.iter().filter(|(id, _)| after.absent.contains(*id));
    let mut evidence_from = kept.evidence_from;
    evidence_from.extend(absent.map(|(id, set)| (id.clone(), Arc::clone(set))));
    after.in_force = in_force;
    after.evidence_from = evidence_from;
    add_missing(after);
    if let Some(candidate_move) = after.declared.plans.comes_into_force().cloned() {
        live_basis::accept(after, &candidate_move.route, State::Live);
    }
}

/// Puts the plans of the files in force for each route that is in `live` or above and has none in force yet.
pub(super) fn add_missing(positions: &mut Positions) {
    let Positions { routes, in_force, declared, .. } = positions;
    for (id, _) in routes.iter().filter(|(_, position)| keeps_plans(position)) {
        if let (false, Some(set)) = (in_force.contains_key(id), declared.plans.of_files.get(id)) {
            in_force.insert(id.clone(), Arc::clone(set));
        }
    }
}

/// Puts the plans of the files in force for a route that goes to `live` or above, unless it has plans in force.
pub(super) fn add_for(positions: &mut Positions, id: &RouteId, to: State) {
    if to < State::Live || positions.in_force.contains_key(id) {
        return;
    }
    if let Some(set) = positions.declared.plans.of_files.get(id) {
        positions.in_force.insert(id.clone(), Arc::clone(set));
    }
}

/// Whether some route is below `live` and still has plans in force.
pub(super) fn are_to_be_dropped(positions: &Positions) -> bool {
    positions.in_force.keys().any(|id| is_to_be_dropped(positions, id))
}

fn is_to_be_dropped(positions: &Positions, id: &RouteId) -> bool {
    positions.in_force.contains_key(id) && positions.routes.get(id).is_some_and(|position| !keeps_plans(position))
}

/// Whether a route went below `live` and still has the plans that were in force in `live`, also while its flip down is
/// not recorded. A held route does not count: it returns to `live` with these plans.
pub(super) fn has_plans_of_live(positions: &Positions, id: &RouteId) -> bool {
    let is_below = |at: &RoutePosition| at.rung() < State::Live && !at.inputs.is_held;
    positions.in_force.contains_key(id) && positions.routes.get(id).is_some_and(is_below)
}

/// Stores the definitions of plans that come into force.
///
/// # Errors
/// The store does not answer.
pub(super) async fn store_new(store: &StoreHandle, before: &Positions, after: &Positions) -> Result<(), StoreError> {
    for (id, set) in &after.in_force {
        if before.in_force.get(id) == Some(set) {
            continue;
        }
        for plan in set.plans.values() {
            if let Some(source) = after.declared.plans.sources.get(plan) {
                store.put_plan(plan.clone(), Value::clone(source)).await?;
            }
        }
    }
    Ok(())
}

/// The candidate of a route: the plans of the files, if others are in force.
fn candidate_of(positions: &Positions, id: &RouteId) -> Option<Arc<PlanSet>> {
    let in_force = positions.in_force.get(id)?;
    positions.declared.plans.of_files.get(id).filter(|of_files| *of_files != in_force).cloned()
}

/// The last record of a route's candidate, under whichever of its ids.
pub(super) fn last_record<'p>(positions: &'p Positions, ids: &[&RouteId]) -> Option<&'p FlipRecord> {
    ids.iter().filter_map(|id| positions.candidates.get(*id)).max_by_key(|flip| flip.number)
}

/// The share of new requests that this candidate of a route answers. A newer candidate begins without one.
fn share_of(positions: &Positions, ids: &[&RouteId], candidate: &PlanSet) -> Percent {
    let last = last_record(positions, ids).and_then(|flip| flip.candidate.as_ref());
    let own = last.filter(|record| record.candidate.as_ref() == Some(candidate));
    own.and_then(|record| record.share).unwrap_or(Percent::NONE)
}

/// The name that records give to the stage of a candidate with this share.
fn stage(share: Percent) -> String {
    if share == Percent::NONE { "shadow".to_owned() } else { format!("live {share}") }
}

/// Whether the candidate of a route answers some of its new requests, and not all.
pub(super) fn has_part_of_requests(positions: &Positions, id: &RouteId) -> bool {
    let candidate = of_flag(positions, id).and_then(|plans| plans.candidate);
    candidate.is_some_and(|candidate| candidate.share > Percent::NONE && candidate.share < Percent::ALL)
}

/// The plans of a route as its flag has them.
pub(super) fn of_flag(positions: &Positions, id: &RouteId) -> Option<RoutePlans> {
    let in_force = Arc::clone(positions.in_force.get(id)?);
    let ids: Vec<&RouteId> = positions.routes.get(id).map_or(vec![id], |position| position.route.ids().collect());
    let candidate = candidate_of(positions, id).map(|plans| {
        let share = share_of(positions, &ids, &plans);
        CandidatePlans { plans, id: candidate_key(id), share }
    });
    Some(RoutePlans { in_force, candidate })
}

/// The records of all candidates that changed since their last record: each has appeared, was moved, was put in force,
/// or was dropped.
pub(super) fn records(positions: &Positions, gate: &Gate) -> Vec<FlipRecord> {
    let of_route = |(id, position): (&RouteId, &RoutePosition)| {
        let candidate = candidate_of(positions, id);
        let ids: Vec<&RouteId> = position.route.ids().collect();
        let last = last_record(positions, &ids).and_then(|flip| flip.candidate.as_ref());
        let known = last.and_then(|record| record.candidate.as_ref());
        let asked = positions.declared.plans.candidate_move.as_ref().filter(|asked| asked.route == *id);
        let mut share = asked.and_then(|asked| asked.share);
        let mut reason = asked.and_then(|asked| asked.reason.clone());
        let action = match (&candidate, asked, last) {
            (_, Some(_), _) if share.is_some() => CandidateAction::Moved,
            (_, Some(_), _) => CandidateAction::Promoted,
            (Some(candidate), None, _) if Some(&**candidate) != known => CandidateAction::Appeared,
            // The route was renamed: the candidate is recorded under the present id too. Otherwise, once the files
            // leave out the earlier id (`was`), an older record under another id would count as the last one.
            (Some(_), None, Some(last)) if last.route != *id => {
                share = last.share;
                reason = Some(format!("renamed: it was the candidate of `{}`", last.route));
                if share.is_some() { CandidateAction::Moved } else { CandidateAction::Appeared }
            }
            (None, None, _) if known.is_some() => CandidateAction::Dropped,
            (Some(_) | None, None, _) => return None,
        };
        let to = match action {
            CandidateAction::Appeared => stage(Percent::NONE),
            CandidateAction::Dropped => "none".to_owned(),
            CandidateAction::Moved => stage(share.unwrap_or(Percent::NONE)),
            CandidateAction::Promoted => "in_force".to_owned(),
        };
        let from = known.map_or("none".to_owned(), |known| stage(share_of(positions, &ids, known)));
        let evidence = gate.evidence_of_candidate(positions, position);
        let conditions =
            asked.map(|_| gate.conditions_of_candidate(positions, position, candidate.as_deref(), &evidence));
        let record = CandidateRecord {
            route: id.clone(),
            action,
            in_force: positions.in_force.get(id).map(|set| PlanSet::clone(set)),
            candidate: candidate.map(|candidate| PlanSet::clone(&candidate)),
            share,
        };
        let between = (from.as_str(), to.as_str());
        let gate = conditions.map(|judged| recorded_gate(between, &judged, &position.route.promote));
        let gates = gate.into_iter().filter(|gate| !gate.conditions.is_empty()).collect();
        let evidence = serde_json::to_value(evidence).unwrap_or_default();
        let flip = FlipRecord { reason, gates, ..record_by_file(record, from, to, evidence) };
        Some(match asked {
            Some(asked) => FlipRecord { by: asked.by.clone(), forced: asked.force, ..flip },
            None => flip,
        })
    };
    positions.routes.iter().filter_map(of_route).chain(records_without_route(positions)).collect()
}

/// Records that drop the candidates whose routes are not in the files any more under any id. Without them, a route that
/// gets such an id later would have the share from before.
fn records_without_route(positions: &Positions) -> impl Iterator<Item = FlipRecord> {
    let has_route = |id: &RouteId| positions.routes.values().any(|at| at.route.ids().any(|own| own == id));
    let left = positions.candidates.iter().filter(move |(id, _)| !has_route(id));
    left.filter_map(|(id, last)| {
        let last = last.candidate.as_ref().filter(|last| last.candidate.is_some())?;
        let record = CandidateRecord {
            route: id.clone(),
            action: CandidateAction::Dropped,
            in_force: None,
            candidate: None,
            share: None,
        };
        let from = stage(last.share.unwrap_or(Percent::NONE));
        let reason = Some("no route in the files has this id, or had it earlier (`was`)".to_owned());
        Some(FlipRecord { reason, ..record_by_file(record, from, "none".to_owned(), Value::Null) })
    })
}

/// A record that names the files as its source.
fn record_by_file(record: CandidateRecord, from: String, to: String, evidence: Value) -> FlipRecord {
    FlipRecord {
        number: 0,
        route: Some(candidate_key(&record.route)),
        from,
        to,
        shares: None,
        by: FlipSource::File.as_str().to_owned(),
        at: clock::now(),
        reason: None,
        forced: false,
        overridden: None,
        evidence,
        gates: Vec::new(),
        guard: None,
        candidate: Some(record),
    }
}

impl Gate {
    /// The evidence of the candidate of a route. While the route is being renamed, it is stored under its earlier id.
    pub(super) fn evidence_of_candidate(&self, positions: &Positions, position: &RoutePosition) -> RouteEvidence {
        let keys: Vec<RouteId> = position.route.ids().map(candidate_key).collect();
        match positions.declared.plans.candidate_bases.get(&position.route.id) {
            Some(basis) => self.evidence.of_basis(keys.iter(), basis),
            None => self.evidence.of(&candidate_key(&position.route.id)),
        }
    }

    /// The candidate of a route, and what its gate says.
    pub(super) fn candidate(&self, positions: &Positions, position: &RoutePosition) -> Option<CandidateStatus> {
        let id = &position.route.id;
        let candidate = candidate_of(positions, id)?;
        let in_force = Arc::clone(positions.in_force.get(id)?);
        let last = last_record(positions, &position.route.ids().collect::<Vec<_>>());
        let is_of = |flip: &&FlipRecord| {
            flip.candidate.as_ref().is_some_and(|record| record.candidate.as_ref() == Some(&*candidate))
        };
        let since = last.filter(is_of).cloned();
        let ids: Vec<&RouteId> = position.route.ids().collect();
        let share = share_of(positions, &ids, &candidate);
        let evidence = self.evidence_of_candidate(positions, position);
        let conditions = self.conditions_of_candidate(positions, position, Some(&candidate), &evidence);
        let of_moves = self.unmet_of_moves(position, State::Dark, State::Live).map(|unmet| unmet.why);
        let missing = sentences(conditions.clone()).chain(of_moves).collect();
        Some(CandidateStatus { in_force, candidate, share, since, conditions, missing })
    }

    /// Why a move of a candidate is refused; empty if it is allowed. A share that does not grow needs no evidence.
    pub(super) fn refused_move(&self, positions: &Positions, asked: &CandidateMove) -> Vec<String> {
        let id = &asked.route;
        let Some(position) = positions.routes.get(id) else { return vec![format!("there is no route `{id}`")] };
        let Some(status) = self.candidate(positions, position) else {
            return vec![format!("`{id}` has no candidate: the plan in force is that of the files")];
        };
        if status.candidate != asked.candidate {
            return vec![format!(
                "the candidate of `{id}` is another one now: look at it (`pointsman status`) and ask again"
            )];
        }
        match (asked.force, asked.reason.as_deref().is_none_or(|reason| reason.trim().is_empty())) {
            (true, true) => vec!["overriding the gate needs a reason".to_owned()],
            (true, false) => Vec::new(),
            (false, _) if asked.share.is_some_and(|share| share <= status.share) => Vec::new(),
            (false, _) => status.missing,
        }
    }
}
