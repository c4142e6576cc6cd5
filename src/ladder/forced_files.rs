//! States above `shadow` that the `force` in a file puts in force without a flip, and the entries that they get in the
//! record.
//!
//! Always true: the store has such a state, with its reason and the source of its entry in the record. So neither a
//! restart nor another process makes a second entry for it, and an entry that was lost is made at the next start. A
//! route with a flip has no such state: its flips have entries of their own.

use jiff::Timestamp;
use serde_json::Value;

use super::positions::{Positions, RoutePosition, UNPROVEN_MAX};
use crate::flag::{Shares, State};
use crate::names::RouteId;
use crate::store::{FileState, ForcedState};

/// A state put in force by a file's `force` without a flip; or the state after that `force` was removed.
#[derive(Clone, Debug, PartialEq)]
pub struct ForcedFileState {
    /// The route.
    pub route: RouteId,
    /// The state, its reason, and the source of its entry.
    pub forced: ForcedState,
    /// The rung that the route is on now: a lower one while it is held.
    pub rung: State,
    /// Its shares.
    pub shares: Shares,
    /// The evidence of the route at this moment.
    pub evidence: Value,
}

/// Updates the stored states after new files have been judged and their moves applied.
pub(super) fn update(positions: &mut Positions, now: Timestamp) {
    let of_route = |position: &RoutePosition| {
        if !position.inputs.has_no_flip || position.last.is_some() {
            return None;
        }
        let known = position.route.ids().find_map(|id| positions.forced.get(id));
        let (state, reason) = match (&position.route.force, known) {
            (Some(reason), _) if position.rung() > UNPROVEN_MAX => (position.inputs.requested, Some(reason)),
            // The end of such a state gets an entry too; a route that never had such a state gets none.
            (_, Some(ForcedState { reason: Some(_), .. })) => (position.rung(), None),
            (_, known) => return known.cloned(),
        };
        match known.filter(|known| known.state == state && known.reason.as_ref() == reason) {
            Some(known) => Some(known.clone()),
            None => {
                let source = format!("declared {} {now}", position.route.id);
                Some(ForcedState { state, reason: reason.cloned(), since: now, source })
            }
        }
    };
    let routes = positions.routes.iter();
    positions.forced = routes.filter_map(|(id, position)| Some((id.clone(), of_route(position)?))).collect();
}

impl Positions {
    /// Sets the stored declaration of a route that is flipped, and removes its state by `force`: from now on the flip
    /// supports its state.
    pub fn set_declaration_of_flipped(&mut self, route: &RouteId, declared: FileState) {
        self.stored_declarations.insert(route.clone(), declared);
        self.forced.remove(route);
    }
}
