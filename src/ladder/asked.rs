//! Moves that a later flip down overtakes: they were asked for before it, and are judged after it because they waited.
//!
//! Always true: of a flip down and a move up of one route that has a flip, the one that was asked for later counts,
//! whichever is performed first; a flip to the present state, or to a smaller share of it, counts as a flip down. A
//! flip up is refused if its route was lowered after it was asked for, and files that were read before that do not
//! raise the route.

use std::sync::Arc;
use std::time::Instant;

use super::lowered_routes::Lowered;
use super::mover::Mover;
use super::passing_commands;
use super::positions::{Positions, RoutePosition, state_of};
use super::types::{FlipError, FlipRequest};
use crate::flag::{Route, State};
use crate::store::FileState;

impl Mover {
    /// Refuses a flip up, or to a larger share, if its route was lowered after it was asked for. The caller holds the
    /// lock of moves. (What is lowered after this comes in force again after the flip, see `waiting`.)
    pub(super) fn check_not_lowered_since(
        &self,
        asked: Instant,
        positions: &Positions,
        at: &RoutePosition,
        request: &FlipRequest,
    ) -> Result<(), FlipError> {
        if !at.is_raised_by(request) {
            return Ok(());
        }
        let to = request.to;
        let shares = request.percent.map_or(at.inputs.shares, |percent| at.inputs.shares.with(to, percent));
        let inputs = self.in_force().inputs();
        let Some(Lowered { to: lowered, by, at: _ }) = inputs.lowered.since(asked, &at.route) else { return Ok(()) };
        let why = format!(
            "`{}` was flipped to `{lowered}` by {by} while this flip waited for other moves: flip it again if it is to go up",
            at.route.id
        );
        let commands = passing_commands::commands(positions, self.gate(), at, to, shares, request.reason.as_deref());
        Err(FlipError::Refused { why, commands })
    }

    /// The positions by which files are judged that were read before persons lowered routes: what the files ask for
    /// counts as known there, so that they make no flip, unless they lower the route further or make a share smaller.
    pub(super) fn with_edits_overtaken(&self, asked: Instant, before: &Positions, routes: &[Arc<Route>]) -> Positions {
        let (lowered, mut judged) = (self.in_force().inputs().lowered, before.clone());
        for route in routes {
            let Some(Lowered { to, by, at: _ }) = lowered.since(asked, route) else { continue };
            let known = route.ids().find_map(|id| Some((id, *before.remembered.get(id)?)));
            let (Some((id, known)), Some(last)) = (known, before.last_flip(route)) else { continue };
            let now = FileState { state: route.declared, shares: route.shares };
            if now == known || (now.state != known.state && now.state < state_of(last)) {
                continue;
            }
            let present = last.shares.unwrap_or(known.shares);
            let smaller = State::ALL.into_iter().filter(|rung| now.shares.of(*rung) < present.of(*rung));
            let shares = smaller.fold(now.shares, |shares, rung| shares.with(rung, known.shares.of(rung)));
            judged.remembered.insert(id.clone(), FileState { state: now.state, shares });
            tracing::warn!(
                route = %route.id, declared = %now.state, lowered_to = %to, %by,
                "this route was flipped after the changed files were read: it does not go up as its file says. Flip it if \
                 it is to go up"
            );
        }
        judged
    }
}
