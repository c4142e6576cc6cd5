//! Flips to `only` that a freeze overtook: the freeze came into force while the flip waited for the store.
//!
//! A freeze does not lower a route in `only`, so such a flip must not come into force. But the store has the flip by
//! then, so a second flip reverts it (`revert_overtaken`).
//!
//! Always true: while a freeze is in force, no set is in force in which a route is in `only` that was not in `only`
//! before the freeze. In the store, the second flip comes before the freeze, so that a restart does not find the route
//! in `only` during a recorded freeze.

use super::positions::{Positions, RoutePosition, UNPROVEN_MAX};
use crate::flag::State;
use crate::names::RouteId;

/// Caps the routes that newly come to `only` at the rung that they had before, and returns them. Flips with the numbers
/// in `except` do come into force.
pub(super) fn cap_below_only(before: &Positions, after: &mut Positions, except: &[u64]) -> Vec<RouteId> {
    let is_in_only = |position: &RoutePosition| position.rung() == State::Only;
    let is_excepted =
        |position: &RoutePosition| position.last.as_ref().is_some_and(|last| except.contains(&last.number));
    let mut capped = Vec::new();
    for (id, position) in after.routes.iter_mut().filter(|(_, at)| is_in_only(at)) {
        if before.routes.get(id).is_some_and(is_in_only) || is_excepted(position) {
            continue;
        }
        // The positions before that share an id with this route: its own under an earlier id, or that of a route which
        // listed this id as an earlier one (`was`).
        let is_own = |other: &&RoutePosition| other.route.ids().any(|id| position.route.ids().any(|own| own == id));
        let rungs: Vec<State> = before.routes.values().filter(is_own).map(RoutePosition::rung).collect();
        if rungs.contains(&State::Only) {
            continue;
        }
        position.inputs.gate = Some(rungs.into_iter().min().unwrap_or(UNPROVEN_MAX));
        position.inputs.is_held = false;
        position.inputs.returns_at_restart = true;
        capped.push(id.clone());
    }
    capped
}

/// The refusal that the caller of an overtaken flip gets.
pub(super) fn refusal(route: &RouteId, stays: State) -> String {
    format!(
        "a freeze came into force while this flip waited for the store: it is reverted, and `{route}` stays in `{stays}`. \
         End the freeze first (`pointsman freeze --off`)"
    )
}
