//! Outdated moves up: a person lowered the route while the move was pending. The move was asked for before the flip
//! down, and is judged after it.
//!
//! Always true: of a flip down and a move up of one route, the one that was asked for later counts, whichever is
//! performed first. So a flip up is refused if its route was lowered after the flip up was asked for, and files that
//! were read before the route was lowered do not raise it (if any flip of the route is recorded).
//!
//! In this module, any flip to the present state that asks for no larger share counts as a flip down, also if nothing
//! is pending. (In `down` it does only if something pending would raise the route.)

use std::sync::Arc;
use std::time::Instant;

use super::lowered_routes::Lowering;
use super::mover::Mover;
use super::passing_commands;
use super::positions::{JudgedFiles, Positions, RoutePosition, state_of};
use super::types::{FlipError, MoveRequest};
use crate::flag::{Route, State};
use crate::store::FileState;

impl Mover {
    /// Refuses a flip up, or to a larger share, if its route was lowered after `asked_at`, when the flip was asked for.
    /// The caller holds the lock of moves. (A flip down that is made after this check is applied again to the positions
    /// that this flip computes, see `unrecorded_flips`.)
    pub(super) fn check_not_lowered_since(
        &self,
        asked_at: Instant,
        positions: &Positions,
        position: &RoutePosition,
        request: &MoveRequest,
    ) -> Result<(), FlipError> {
        if !position.is_raised_by(request) {
            return Ok(());
        }
        let to = request.to;
        let shares = request.percent.map_or(position.inputs.shares, |percent| position.inputs.shares.with(to, percent));
        let inputs = self.in_force().inputs();
        let Some(Lowering { to: lowered, by, at: _ }) = inputs.lowered.since(asked_at, &position.route) else {
            return Ok(());
        };
        let why = format!(
            "`{}` was flipped to `{lowered}` by {by} while this flip waited for other moves: this flip changed \
             nothing. Flip it again if it is to go up",
            position.route.id
        );
        let commands =
            passing_commands::commands(positions, self.gate(), position, to, shares, request.reason.as_deref());
        Err(FlipError::Refused { why, commands })
    }

    /// Whether the files would be judged otherwise now than they were, because a person has flipped a route meanwhile.
    /// If so, they have to be judged again, by the positions that [`Self::positions_for_outdated_files`] returns now.
    pub(super) fn are_judged_otherwise(&self, files: &JudgedFiles<'_>, before: &Positions, after: &Positions) -> bool {
        let (now, _) = self.judged_positions(files.read, before, &after.declared.routes);
        now.stored_declarations != files.judged.stored_declarations
    }

    /// The positions by which files are judged that were read before a person lowered some of their routes. In these
    /// positions, the stored declaration of such a route is what its file declares now. So the file makes no flip,
    /// except where it lowers the route further or makes a share smaller.
    pub(super) fn positions_for_outdated_files(
        &self,
        asked_at: Instant,
        before: &Positions,
        routes: &[Arc<Route>],
    ) -> Positions {
        let (judged, held) = self.judged_positions(asked_at, before, routes);
        for (route, Lowering { to, by, at: _ }) in held {
            tracing::warn!(
                route = %route.id, declared = %route.declared, lowered_to = %to, %by,
                "this route was flipped after the changed files were read: it does not go up as its file says. Flip it if \
                 it is to go up"
            );
        }
        judged
    }

    /// As [`Self::positions_for_outdated_files`]. Returns also the routes that do not go up as their files say, with
    /// the flip that lowered each.
    fn judged_positions<'a>(
        &self,
        asked_at: Instant,
        before: &Positions,
        routes: &'a [Arc<Route>],
    ) -> (Positions, Vec<(&'a Route, Lowering)>) {
        let in_force = self.in_force().inputs();
        let (lowered, mut judged, mut held) = (in_force.lowered, before.clone(), Vec::new());
        for route in routes {
            let Some(lowering) = lowered.since(asked_at, route) else { continue };
            let known = route.ids().find_map(|id| Some((id, *before.stored_declarations.get(id)?)));
            // A flip that was made since, and is not recorded yet, is in force only.
            let last = before.last_flip(route).or_else(|| in_force.positions.last_flip(route));
            let (Some((id, known)), Some(last)) = (known, last) else { continue };
            let now = FileState { state: route.declared, shares: route.shares };
            if now == known || (now.state != known.state && now.state < state_of(last)) {
                continue;
            }
            let present = last.shares.unwrap_or(known.shares);
            let smaller = State::ALL.into_iter().filter(|rung| now.shares.of(*rung) < present.of(*rung));
            let shares = smaller.fold(now.shares, |shares, rung| shares.with(rung, known.shares.of(rung)));
            judged.stored_declarations.insert(id.clone(), FileState { state: now.state, shares });
            held.push((&**route, lowering.clone()));
        }
        (judged, held)
    }
}
