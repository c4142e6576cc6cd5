//! The last flip of a route is hard to tell in three cases:
//!
//! - the files rename the route back to an earlier id, and the flip is stored under the id in between;
//! - the files separate the route from another one into which it had been joined (`was`), and the flip is older than
//!   flips of that other route;
//! - the files no longer list the id under which the flip is stored.

use super::positions::{Positions, RoutePosition, state_of};
use super::types::Move;
use crate::flag::State;
use crate::names::RouteId;
use crate::store::Overridden;

/// If a route in `live` had its id listed as an earlier one (`was`) by another route since its last flip: why it goes
/// down for good. The case is recognised by the missing declaration: the store has one for each route in the files, and
/// drops it when the route's id becomes an earlier id of another route.
pub(super) fn was_earlier_id_of_another(positions: &Positions, position: &RoutePosition) -> Option<&'static str> {
    let was_merged = position.last.as_ref().map(state_of) == Some(State::Live)
        && positions.stored_declaration(&position.route).is_none();
    was_merged.then_some(
        "since its last flip another route had its id as an earlier one (`was`), and a flip that lowered that route is not \
         its own",
    )
}

/// Records the last flip of a route once more if it is stored under an id that the files do not list: another route
/// may get that id.
pub(super) fn flip_of_unlisted_id(positions: &Positions, position: &RoutePosition) -> Option<Move> {
    let flip = position.last.as_ref()?;
    let is_listed = |id: &&RouteId| position.route.ids().any(|own| own == *id);
    let is_unlisted = |id: &&RouteId| positions.unlisted_ids.contains_key(*id) || !is_listed(id);
    let unlisted = flip.route.as_ref().filter(is_unlisted)?;
    let reason =
        format!("this flip had been recorded under `{unlisted}`, which the files no longer list as an id of it");
    let to = state_of(flip);
    // An earlier version recorded only that the flip was forced.
    let forced = || {
        let from = flip.from.parse().ok().filter(|from| *from < to).unwrap_or(State::Off);
        Overridden {
            from,
            reason: flip.reason.clone().unwrap_or_default(),
            forced_at: position.forced_at(),
            by_this_move: None,
        }
    };
    let overridden = flip.overridden.clone().or_else(|| flip.forced.then(forced));
    let shares = flip.shares.unwrap_or(position.inputs.shares);
    let route = position.route.id.clone();
    Some(Move { route, from: to, to, shares, reason: Some(reason), overridden, gates: Vec::new() })
}
