//! Whether the evidence with which a route went to `live` is about what it does now.
//!
//! An edit of the workflow, the rules, `match` or a service changes the basis of a route's evidence. It does not lower
//! a route in `live` or `only`: the route is marked as changed. The mark stays until evidence on the new basis opens
//! the gate to `live`, a person accepts the change by force, or a flip takes the route below `live`.
//!
//! Always true:
//!
//! - The store has the basis with which a route, or the first of its cohorts, went to `live`, so that the mark survives
//!   a restart.
//! - A route that was held below `live` does not return there while it has open mismatches. If its basis has changed,
//!   it returns only if evidence on the new basis opens the gate to `live`.

use std::collections::BTreeSet;

use super::gate::Gate;
use super::positions::{Positions, RoutePosition, state_of};
use super::types::Move;
use crate::flag::{Route, State};
use crate::names::RouteId;
use crate::store::LiveBasis;

impl Gate {
    /// The conditions of the gate to `live` that do not hold, as sentences.
    fn unmet_for_live(&self, positions: &Positions, position: &RoutePosition) -> Vec<String> {
        self.unmet_of_family(positions, position, State::Dark, State::Live).map(|unmet| unmet.why).collect()
    }

    /// Whether a route is marked as changed, and the gate to `live` would still be shut.
    pub(super) fn is_changed_since_evidence(&self, positions: &Positions, position: &RoutePosition) -> bool {
        is_changed(positions, position) && !self.unmet_for_live(positions, position).is_empty()
    }

    /// Why a route whose hold is over does not return to `live`, although nothing holds it any more; empty if it
    /// returns.
    pub(super) fn unmet_for_return(&self, positions: &Positions, position: &RoutePosition) -> Vec<String> {
        let is_live = position.last.as_ref().map(state_of) >= Some(State::Live);
        let Some(live) = stored_basis(positions, &position.route).filter(|live| live.is_below_live && is_live) else {
            return Vec::new();
        };
        if position.route.force.is_some() {
            return Vec::new();
        }
        if basis_differs(positions, position, live) {
            return self.unmet_for_live(positions, position);
        }
        self.open_differences(positions, position).into_iter().collect()
    }

    /// Whether some route that is marked as changed loses that mark now, because its evidence opens the gate to `live`.
    pub(super) fn ends_a_mark(&self, positions: &Positions) -> bool {
        let mut marked = positions.routes.values().filter(|at| at.inputs.is_changed);
        marked.any(|position| self.unmet_for_live(positions, position).is_empty())
    }
}

/// Updates the stored bases after new files have been judged. `moves`: the flips that the files make. `accepting`: the
/// routes whose present basis is accepted by a `force` that is new in the files.
pub(super) fn update(positions: &mut Positions, moves: &[Move], accepting: &BTreeSet<RouteId>, gate: &Gate) {
    let judge = |position: &RoutePosition| {
        let id = &position.route.id;
        let made = moves.iter().rfind(|made| made.route == *id);
        let by_flip = made.map(|made| made.to).or_else(|| position.last.as_ref().map(state_of));
        if !is_live_by(position, by_flip) {
            return None;
        }
        let goes_up = made.is_some_and(|made| made.to >= State::Live && made.to > made.from);
        let changed = stored_basis(positions, &position.route).filter(|live| basis_differs(positions, position, live));
        let keeps = changed.is_some()
            && !goes_up
            && !accepting.contains(id)
            && !gate.unmet_for_live(positions, position).is_empty();
        let basis = match changed.filter(|_| keeps) {
            Some(live) => live.basis.clone(),
            None => positions.declared.bases.get(id).cloned(),
        };
        let is_below_live = by_flip >= Some(State::Live) && position.rung() < State::Live;
        Some((id.clone(), LiveBasis { basis, is_below_live }))
    };
    positions.live = positions.routes.values().filter_map(judge).collect();
}

/// Stores the present basis as the one with which a route went to this state by a flip, through the gate or by force.
pub(super) fn accept(positions: &mut Positions, id: &RouteId, to: State) {
    if to >= State::Live {
        let basis = positions.declared.bases.get(id).cloned();
        positions.live.insert(id.clone(), LiveBasis { basis, is_below_live: false });
    }
}

/// Whether something that the evidence depends on was changed since a route, or a cohort of it, went to `live`.
pub(super) fn is_changed(positions: &Positions, position: &RoutePosition) -> bool {
    let is_live = is_live_by(position, position.last.as_ref().map(state_of));
    let live = stored_basis(positions, &position.route).filter(|_| is_live);
    live.is_some_and(|live| basis_differs(positions, position, live))
}

/// A sentence that says what the mark of a route means and what ends it; `None` if the route is not marked.
pub(super) fn sentence(position: &RoutePosition) -> Option<String> {
    if !position.inputs.is_changed {
        return None;
    }
    let (id, rung) = (&position.route.id, position.rung());
    let cohorts: Vec<String> = position.live_cohorts().map(|cohort| format!("`{}`", cohort.name)).collect();
    let cohorts = cohorts.join(", ");
    let is_cohort = position.highest() < State::Live;
    let who = match is_cohort {
        true => format!("callers of `{id}` are in `live` by the cohort {cohorts}"),
        false if rung < State::Live => format!("`{id}` is at `{rung}`, below `live`"),
        false => format!("`{id}` is in `{rung}`"),
    };
    let accept = match is_cohort {
        true => format!("give the `force` of {cohorts} a new reason"),
        false => format!("`pointsman flip {id} {} --force --reason …`", rung.max(State::Live)),
    };
    let compare = match rung >= State::Live {
        true => format!("flip `{id}` to `dark` or lower to have it compared, and raise it again"),
        false => "it is compared where the route is in `shadow` or `dark`".to_owned(),
    };
    Some(format!(
        "{who}, and its workflow, rules, `match` or services were changed since its evidence: the new version was not \
         compared; {compare}; to accept it without that, {accept}"
    ))
}

/// Logs each route that is marked as changed, unless it had that mark for the same basis before.
pub(super) fn log_changed(before: &Positions, after: &Positions) {
    let was_marked = |position: &RoutePosition| {
        let known = position.route.ids().find_map(|id| Some((before.routes.get(id)?, before.declared.bases.get(id))));
        known.is_some_and(|(was, basis)| was.inputs.is_changed && basis == after.declared.bases.get(&position.route.id))
    };
    for position in after.routes.values().filter(|at| !was_marked(at)) {
        if let Some(why) = sentence(position) {
            tracing::warn!(route = %position.route.id, why, "the files change a route in `live` or above, and it stays there");
        }
    }
}

/// The stored basis of a route, also under an id that the route had before.
fn stored_basis<'a>(positions: &'a Positions, route: &Route) -> Option<&'a LiveBasis> {
    route.ids().find_map(|id| positions.live.get(id))
}

/// Whether the files of these positions give a route another basis than `live` has.
fn basis_differs(positions: &Positions, position: &RoutePosition, live: &LiveBasis) -> bool {
    let present = positions.declared.bases.get(&position.route.id);
    live.basis.as_ref().zip(present).is_some_and(|(then, now)| then != now)
}

/// Whether a route with this last flip, or a cohort of it, is in `live` or above, or returns there without a flip.
fn is_live_by(position: &RoutePosition, by_flip: Option<State>) -> bool {
    by_flip.unwrap_or(position.rung()) >= State::Live || position.live_cohorts().next().is_some()
}
