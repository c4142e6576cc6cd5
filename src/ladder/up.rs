//! Flips up, and to other shares: each is judged, announced to the other processes, recorded, then put in force.

use std::sync::Arc;
use std::time::Instant;

use super::announce::AnnounceOutcome;
use super::export::log;
use super::gate::AllowedMove;
use super::lowered_routes::Lowering;
use super::mover::{ChangeOrigin, Mover, MovesLock};
use super::types::{FlipError, FlipSource, Flipped, Move, MoveRequest};
use super::unrecorded_flips::OutstandingWrite;
use super::{holds, live_basis, overtaken, plans};
use crate::names::RouteId;

impl Mover {
    /// Moves a route up, or changes its shares. Flips down that are made meanwhile come after it.
    pub async fn flip(
        self: &Arc<Self>,
        moves_lock: MovesLock,
        asked: Instant,
        route: &RouteId,
        request: MoveRequest,
        announced: Option<AnnounceOutcome>,
    ) -> Result<Flipped, FlipError> {
        let (mut positions, all_recorded) = self.record_unrecorded_first(&moves_lock).await;
        let position = positions.routes.get(route).ok_or_else(|| positions.unknown_route(route))?;
        let (from, to) = (position.rung(), request.to);
        let lowered = Lowering { at: asked, to, by: request.by.clone() };
        if self.is_unchanged(position, &request) {
            self.in_force().note_lowered(route, lowered);
            return Ok(self.unchanged(position, request.by));
        }
        let goes_up = position.is_raised_by(&request);
        self.check_not_lowered_since(asked, &positions, position, &request)?;
        self.check_guard(position, &request)?;
        let (requested, allowed) = self.judge(&positions, position, &request)?;
        all_recorded?;
        // A flip ends a move that the file requested and the gate refused: the store gets the file's present
        // declaration, so that the move is not judged again.
        let (now, before) = (position.declared(), positions.clone());
        let AllowedMove { overridden, mut still_required, gates } = allowed;
        let (shares, reason, gates) = (requested.shares, requested.reason, gates.recorded(&position.route.promote));
        let made = Move { route: route.clone(), from, to, shares, reason, overridden, gates };
        let outcome = match announced {
            Some(announced) => announced,
            // The move before this one may have made an announcement necessary: then it is made under the lock of
            // moves.
            None => self.announce_flip(position, to).await,
        };
        let mut announced = match outcome {
            Err((why, _)) if !request.force => return Err(FlipError::Refused { why, commands: Vec::new() }),
            Err((why, announced)) => {
                tracing::error!(%route, why, "the flip goes on by force");
                still_required.push(why);
                announced
            }
            Ok(announced) => announced,
        };
        let flip = self.flip_record(&positions, made, request.by.clone());
        positions.set_declaration_of_flipped(route, now);
        plans::add_for(&mut positions, route, to);
        plans::store_new(&self.store, &before, &positions).await?;
        if goes_up || requested.force {
            live_basis::accept(&mut positions, route, to);
        }
        let standing = announced.standing()?;
        let position = before.routes.get(route).ok_or_else(|| before.unknown_route(route))?;
        // The write counts as outstanding before the check below: a flip to the present state that comes after the
        // check finds the outstanding write, and counts as a flip down.
        self.in_force().set_outstanding(OutstandingWrite::new(std::slice::from_ref(&flip), &positions));
        if let Err(lowered_since) = self.check_not_lowered_since(asked, &before, position, &request) {
            self.in_force().set_outstanding(OutstandingWrite::default());
            return Err(lowered_since);
        }
        let flip = self.record_flip(flip, positions.rows(), &positions, (route, &request), standing).await?;
        announced.confirm().await;
        positions.apply_flip(route, flip.clone());
        holds::lower_after_flip(&mut positions, route, self.gate());
        let overtaken = self.put_in_force(positions, ChangeOrigin::Own);
        if !goes_up {
            self.in_force().note_lowered(route, lowered);
            self.end_guard_by_flip(route, to, &flip.by, flip.reason.as_deref());
        }
        self.gate().evidence.restart_guard(route);
        log(&flip, FlipSource::Api);
        if !overtaken.is_empty() {
            self.revert_overtaken(&overtaken, &before).await;
            return Err(FlipError::Refused { why: overtaken::refusal(route, from), commands: Vec::new() });
        }
        self.accept_conditions(route, from, &request, flip.at);
        let (effective, share_is_pending, horizon) = (self.in_force().effective(route), false, Vec::new());
        let (changed, recorded, newest_flip) = (true, true, flip.number);
        Ok(Flipped { flip, changed, recorded, newest_flip, share_is_pending, effective, horizon, still_required })
    }
}
