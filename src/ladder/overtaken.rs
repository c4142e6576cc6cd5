//! Flips to `only` that a freeze overtook: it came into force while they waited for the store.
//!
//! A freeze does not lower a route in `only`, so such a flip must not come into force. The store has it by then, so it
//! is reverted by another flip (`revert_overtaken`).
//!
//! Always true: while a freeze is in force, no set is in force in which a route is in `only` that was not in `only`
//! before the freeze. In the store, the flip that reverts it comes before the freeze, so that a restart does not find
//! the route in `only` during a recorded freeze.

use super::positions::{Positions, RoutePosition, UNPROVEN_MAX};
use crate::flag::State;
use crate::names::RouteId;

/// Caps routes that come to `only` at the rung that they had before, except by the flips with these numbers. Returns
/// these routes.
pub(super) fn cap_below_only(before: &Positions, after: &mut Positions, except: &[u64]) -> Vec<RouteId> {
    let is_in_only = |position: &RoutePosition| position.rung() == State::Only;
    let is_excepted =
        |position: &RoutePosition| position.last.as_ref().is_some_and(|last| except.contains(&last.number));
    let mut capped = Vec::new();
    for (id, position) in after.routes.iter_mut().filter(|(_, at)| is_in_only(at)) {
        if before.routes.get(id).is_some_and(is_in_only) || is_excepted(position) {
            continue;
        }
        // Positions that share an id with this route: its own under an earlier id, or that of a route that had listed
        // its id as an earlier one (`was`).
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

/// The refusal that the caller of such a flip gets.
pub(super) fn refusal(route: &RouteId, stays: State) -> String {
    format!(
        "a freeze came into force while this flip waited for the store: it is reverted, and `{route}` stays in `{stays}`. \
         End the freeze first (`pointsman freeze --off`)"
    )
}
