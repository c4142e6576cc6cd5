//! What a change of the files does to where routes stand.
//!
//! Always true: only a change of what a file declared when it was last read is a flip by `file`, and it goes through
//! the same gate. What the gate refuses stays where it is and is shown as asked for; the store goes on remembering the
//! older declaration, so that the wish is judged again at the next reading, also over a restart, until somebody flips.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::board::{Board, Place, state_of};
use super::judge::{Wish, judge};
use super::{Declared, FlipError, Move};
use crate::evidence::Evidence;
use crate::flag::{Instance, Route, State};

/// Takes newly checked files over into the board. What comes back are the flips by `file` that this makes, in order;
/// the board has them already.
pub(super) fn adopt(board: &mut Board, declared: Declared, evidence: &Evidence) -> Vec<Move> {
    let places: BTreeMap<_, _> =
        declared.routes.iter().map(|route| (route.id.clone(), take_over(board, route))).collect();
    board.places = places;
    let mut routes = declared.routes.clone();
    board.declared = declared;
    // Followers first: a creator cannot go above them.
    routes.sort_by_key(|route| !matches!(route.instance, Some(Instance::Follows { .. })));
    let moves = routes.iter().filter_map(|route| reconcile(board, route, evidence)).collect();
    board.remembered.retain(|id, _| board.places.contains_key(id));
    moves
}

/// The place of a route of the new files: where it stood, or where a new one stands.
fn take_over(board: &Board, route: &Arc<Route>) -> Place {
    let Some(known) = board.places.get(&route.id) else { return board.place(route) };
    Place { route: Arc::clone(route), ..known.clone() }
}

fn reconcile(board: &mut Board, route: &Route, evidence: &Evidence) -> Option<Move> {
    let mut place = board.places.get(&route.id)?.clone();
    // A wish that was refused earlier is forgotten, and judged anew where the file still has it.
    place.standing.requested = place.last.as_ref().map_or_else(|| place.stands(), state_of);
    place.standing.gate = None;
    place.refused.clear();

    let now = place.declared();
    let changed = match board.remembered.get(&route.id) {
        Some(remembered) => *remembered != now,
        None => place.last.is_some(),
    };
    let mut made = None;
    if !changed || place.is_at(now.state, now.shares) {
        board.remembered.insert(route.id.clone(), now);
    } else {
        let reason = route.force.clone();
        let wish = Wish { to: now.state, shares: now.shares, force: reason.is_some(), reason };
        match judge(board, evidence, &place, &wish) {
            Ok(passed) => {
                let Wish { to, shares, reason, .. } = wish;
                let from = place.stands();
                made = Some(Move { route: route.id.clone(), from, to, shares, reason, forced: passed.forced });
                place.standing.requested = to;
                place.standing.shares = shares;
                place.standing.unproven = false;
                board.remembered.insert(route.id.clone(), now);
            }
            Err(error) => {
                place.refused = match error {
                    FlipError::GateShut(sentences) => sentences,
                    other => vec![other.to_string()],
                };
                let stays = place.stands();
                tracing::warn!(
                    route = %route.id, wanted = %now.state, %stays, why = %place.refused.join("; "),
                    "the file asks for more than the gate allows"
                );
                place.standing.gate = Some(stays);
                place.standing.requested = now.state;
            }
        }
    }
    // A flip may stand above `off` while the file took the workflow away.
    if route.workflow.is_none() && place.stands() > State::Off {
        place.refused.push(format!("`{}` has no workflow: it can only be off", route.id));
        place.standing.gate = Some(State::Off);
    }
    board.places.insert(route.id.clone(), place);
    made
}
