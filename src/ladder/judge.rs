//! Judges a flip by the gates, with the commands that would pass where it is refused.

use super::gate::{AllowedMove, MoveRefusal, RequestedMove};
use super::mover::Mover;
use super::passing_commands;
use super::positions::{Positions, RoutePosition};
use super::types::{FlipError, FlipSource, MoveRequest};
use crate::flag::State;

impl Mover {
    /// Judges a flip, apart from the acknowledgement on the way down from `only`.
    pub(super) fn judge(
        &self,
        positions: &Positions,
        position: &RoutePosition,
        request: &MoveRequest,
    ) -> Result<(RequestedMove, AllowedMove), FlipError> {
        let MoveRequest { to, percent, reason, force, acknowledge: _, by: _ } = request.clone();
        let shares = percent.map_or(position.inputs.shares, |percent| position.inputs.shares.with(to, percent));
        let passing =
            || passing_commands::commands(positions, self.gate(), position, to, shares, request.reason.as_deref());
        if percent.is_some() && matches!(to, State::Off | State::Only) {
            let why = format!("`{to}` has no share: it holds for everybody");
            // Nothing says that a move without a share would be refused.
            return Err(FlipError::Refused { why, commands: Vec::new() });
        }
        let requested = RequestedMove { to, shares, force, reason, source: FlipSource::Api };
        match self.gate().judge(positions, position, &requested) {
            Ok(allowed) => Ok((requested, allowed)),
            Err(MoveRefusal::GateShut(reasons)) => Err(FlipError::GateShut { reasons, commands: passing() }),
            Err(MoveRefusal::Impossible(why)) => Err(FlipError::Refused { why, commands: passing() }),
        }
    }
}
