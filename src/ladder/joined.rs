//! A route that several routes of the files before have become (`was`): it gets the requests of each of them.
//!
//! Always true:
//!
//! - Without `force` in its file the new route is in the lowest of their states, with the smallest of their shares, so
//!   that no request goes up without a gate.
//! - What a guard has lowered stays lowered. The new route inherits only the newest action of their guards; if another
//!   one of these guards has a lower limit, the new route does not go above that limit either.
//! - Of a route that was absent from the files that were read last, only the guard counts. Its requests went to legacy
//!   meanwhile, and because of these the new route is held (`scopes`).

use super::guard_latches::GuardLatches;
use super::positions::{Positions, RoutePosition, UNPROVEN_MAX, state_of};
use crate::flag::{Route, Shares, State};
use crate::names::RouteId;

/// The state, the shares and the limit that the routes which become one had before, taken together.
pub(super) struct JoinedRoutes {
    /// The lowest of their states.
    state: State,
    /// The lowest limit of their guards that the new route does not inherit.
    limit: Option<State>,
    /// The smallest of their shares.
    shares: Shares,
    /// Each route with its state and its guard's limit, as a text.
    names: String,
}

/// The routes that become this one by new files; `None` if its file has `force`, or if there is nothing to lower: at
/// most one of them was in the files that were read last, and no guard's limit would be lost.
pub(super) fn find(before: &Positions, guards: &GuardLatches, route: &Route) -> Option<JoinedRoutes> {
    let is_known = |id: &&RouteId| before.stored_declarations.contains_key(*id);
    let is_present = |id: &RouteId| !before.absent.contains(id);
    let joined = |id| {
        let state = is_present(id).then(|| state_before(before, id));
        JoinedRoute { id, state, limit: lost_limit(before, guards, route, id) }
    };
    let counts = |joined: &JoinedRoute<'_>| joined.state.is_some() || joined.limit.is_some();
    let found: Vec<JoinedRoute<'_>> = route.ids().filter(is_known).map(joined).filter(counts).collect();
    let (present, limit) = (found.iter().filter_map(|at| at.state), found.iter().filter_map(|at| at.limit).min());
    if (present.clone().count() < 2 && limit.is_none()) || route.force.is_some() {
        return None;
    }
    let state = present.clone().map(|(state, _)| state).min().unwrap_or(State::Only);
    let smallest = |rung: State| present.clone().map(|(_, shares)| shares.of(rung)).min();
    let rungs = [State::Shadow, State::Dark, State::Live].into_iter();
    let shares =
        rungs.fold(Shares::default(), |shares, rung| smallest(rung).map_or(shares, |share| shares.with(rung, share)));
    let names: Vec<String> = found.iter().map(JoinedRoute::name).collect();
    Some(JoinedRoutes { state, limit, shares, names: names.join(" and ") })
}

/// One of the routes that become another one.
struct JoinedRoute<'a> {
    id: &'a RouteId,
    /// Its state and shares; `None` if it was absent from the files that were read last.
    state: Option<(State, Shares)>,
    /// The highest state that its guard allows, if the guard of the new route allows more.
    limit: Option<State>,
}

impl JoinedRoute<'_> {
    fn name(&self) -> String {
        let state = self.state.map(|(state, _)| format!("`{state}`"));
        let limit = self.limit.map(|limit| format!("its guard keeps it at `{limit}`"));
        let parts: Vec<String> = state.into_iter().chain(limit).collect();
        format!("`{}` ({})", self.id, parts.join(", "))
    }
}

/// The limit that the guard of a joined route has set, if the guard of the new route allows more: only the newest
/// action of the joined routes' guards is inherited.
fn lost_limit(before: &Positions, guards: &GuardLatches, route: &Route, id: &RouteId) -> Option<State> {
    let ids = std::iter::once(id).chain(before.earlier_ids.get(id).into_iter().flatten());
    let limit = guards.newest_latch(ids)?.guard.as_ref()?.limit?;
    guards.limit(route).is_none_or(|kept| limit < kept).then_some(limit)
}

/// The state and the shares of a route: those of its last flip, else those that its file set.
pub(super) fn state_before(before: &Positions, id: &RouteId) -> (State, Shares) {
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
    /// Lowers a route to the state and the shares of these routes, if it has a flip. Returns the reason if its state or
    /// its shares changed.
    pub fn lower(&self, position: &mut RoutePosition) -> Option<String> {
        let Self { state, limit, shares, names } = self;
        position.last.as_ref()?;
        let (requested, before) = (position.inputs.requested, position.inputs.shares);
        let lowest = requested.min(*state);
        // A guard does not lower a route in `only`.
        let limit = limit.filter(|_| lowest < State::Only).unwrap_or(State::Only);
        position.inputs.requested = lowest.min(limit);
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
