//! A route that several routes of the files before have become (`was`): it gets the requests of each of them.
//!
//! Always true: without `force` in its file it is in the lowest of their states, with the smallest of their shares, so
//! that no request goes up without a gate. A route that was absent from the files that were read last does not count:
//! its requests went to legacy, and `scopes` holds the route that gets them now.

use super::positions::{Positions, RoutePosition, UNPROVEN_MAX, state_of};
use crate::flag::{Route, Shares, State};
use crate::names::RouteId;

/// What the routes had that become one.
pub(super) struct JoinedRoutes {
    state: State,
    shares: Shares,
    /// Each route with its state.
    names: String,
}

/// The routes that become this one by new files; `None` if there is at most one, or if its file has `force`.
pub(super) fn find(before: &Positions, route: &Route) -> Option<JoinedRoutes> {
    let is_present = |id: &&RouteId| before.stored_declarations.contains_key(*id) && !before.absent.contains(*id);
    let found = route.ids().filter(is_present).map(|id| (id, state_before(before, id)));
    let found: Vec<(&RouteId, (State, Shares))> = found.collect();
    if found.len() < 2 || route.force.is_some() {
        return None;
    }
    let state = found.iter().map(|(_, (state, _))| *state).min()?;
    let smallest = |rung: State| found.iter().map(|(_, (_, shares))| shares.of(rung)).min();
    let rungs = [State::Shadow, State::Dark, State::Live].into_iter();
    let shares =
        rungs.fold(Shares::default(), |shares, rung| smallest(rung).map_or(shares, |share| shares.with(rung, share)));
    let names: Vec<String> = found.iter().map(|(id, (state, _))| format!("`{id}` (`{state}`)")).collect();
    Some(JoinedRoutes { state, shares, names: names.join(" and ") })
}

/// The state and the shares of a route: those of its last flip, else those that its file set.
fn state_before(before: &Positions, id: &RouteId) -> (State, Shares) {
    if let Some(position) = before.routes.get(id) {
        return (position.last.as_ref().map_or_else(|| position.rung(), state_of), position.inputs.shares);
    }
    // At a start only the store says what the files had.
    let declared = before.stored_declarations.get(id);
    let shares = declared.map(|declared| declared.shares).unwrap_or_default();
    let ids = std::iter::once(id).chain(before.earlier_ids.get(id).into_iter().flatten());
    if let Some(flip) = ids.filter_map(|id| before.flips.get(id)).max_by_key(|flip| flip.number) {
        return (state_of(flip), flip.shares.unwrap_or(shares));
    }
    let by_force = || before.forced.get(id).map(|forced| forced.state);
    let by_file = || declared.map_or(State::Off, |declared| declared.state.min(UNPROVEN_MAX));
    (by_force().unwrap_or_else(by_file), shares)
}

impl JoinedRoutes {
    /// Lowers a route with a flip to what these routes had. Returns why, if its last flip says more.
    pub fn lower(&self, position: &mut RoutePosition) -> Option<String> {
        let Self { state, shares, names } = self;
        position.last.as_ref()?;
        let (requested, before) = (position.inputs.requested, position.inputs.shares);
        position.inputs.requested = requested.min(*state);
        let rungs = [State::Shadow, State::Dark, State::Live].into_iter();
        position.inputs.shares = rungs.fold(before, |all, rung| all.with(rung, all.of(rung).min(shares.of(rung))));
        let is_lowered = position.inputs.requested < requested || position.inputs.shares != before;
        is_lowered.then(|| {
            format!(
                "it joins {names}: without `force: {{ reason: … }}` in its file it has the lowest of their states and \
                 the smallest of their shares"
            )
        })
    }
}
