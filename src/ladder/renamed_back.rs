//! The last flip of a route whose files rename it back to an earlier id: the flip may be stored under the id that the
//! route had meanwhile; or it may be older than flips of another route into which this one had been merged (`was`). And
//! the last flip of a route whose files no longer list the id under which it is stored.

use super::positions::{Positions, RoutePosition, state_of};
use super::types::Move;
use crate::flag::State;
use crate::names::RouteId;
use crate::store::Overridden;

/// Why a route in `live` goes down for good if another route listed its id as an earlier one (`was`) since its last
/// flip. Recognised by its missing declaration: the store has one of each route in the files, and drops it when the
/// route's id becomes an earlier id of another.
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
    // A force that an earlier version recorded.
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
