//! The commands that would pass instead of a refused move.
//!
//! Always true: given one after the other, all of them pass under the present conditions. If no command can help (the
//! route has no workflow), there is none. A move of several rungs at once for which no reason was given is not proposed
//! with force if the next rung can be reached without.

use super::command::FlipCommand;
use super::gate::{Gate, MoveRefusal, RequestedMove};
use super::positions::{Positions, RoutePosition};
use super::types::FlipSource;
use crate::flag::{Percent, Shares, State};

/// The placeholder for a reason that the person has to give.
const REASON: &str = "WHY";

/// The commands for the followers that have to go up before their creator, then the one for the route itself.
pub(super) fn commands(
    positions: &Positions,
    gate: &Gate,
    position: &RoutePosition,
    to: State,
    shares: Shares,
    reason: Option<&str>,
) -> Vec<FlipCommand> {
    let next = State::ALL.into_iter().find(|state| state.below() == Some(position.rung()));
    if let Some(next) = next.filter(|next| to > *next && reason.is_none()) {
        let commands = commands_to(positions, gate, position, next, position.inputs.shares, None);
        if !commands.is_empty() && commands.iter().all(|command| command.force.is_none()) {
            return commands;
        }
    }
    commands_to(positions, gate, position, to, shares, reason)
}

/// The commands for a move to exactly this state.
fn commands_to(
    positions: &Positions,
    gate: &Gate,
    position: &RoutePosition,
    to: State,
    shares: Shares,
    reason: Option<&str>,
) -> Vec<FlipCommand> {
    let requested = RequestedState { gate, to, reason };
    let mut positions = positions.clone();
    let mut commands = Vec::new();
    let id = &position.route.id;
    if to > position.rung() {
        let below = positions.followers(id).filter(|follower| follower.rung() < to);
        let below: Vec<RoutePosition> = below.cloned().collect();
        for follower in below {
            let Some(command) = requested.command(&positions, &follower, follower.inputs.shares) else {
                return Vec::new();
            };
            apply_command(&mut positions, &command);
            commands.push(command);
        }
    }
    match requested.command(&positions, position, shares) {
        Some(command) => commands.push(command),
        None => return Vec::new(),
    }
    commands
}

/// The requested state, for the route and for those of its followers that are below that state.
struct RequestedState<'a> {
    gate: &'a Gate,
    to: State,
    reason: Option<&'a str>,
}

impl RequestedState<'_> {
    /// The command that moves one route; `None` if none can.
    fn command(&self, positions: &Positions, position: &RoutePosition, shares: Shares) -> Option<FlipCommand> {
        let (from, to) = (position.rung(), self.to);
        // A route without a `key` cannot have a share below 100 %.
        let lacks_key =
            matches!(to, State::Dark | State::Live) && position.route.key.is_none() && shares.of(to) < Percent::ALL;
        let new_percent = (shares.of(to) != position.inputs.shares.of(to)).then(|| shares.of(to));
        let percent = if lacks_key { Some(Percent::ALL) } else { new_percent };
        let shares = percent.map_or(shares, |percent| shares.with(to, percent));
        let plain = FlipCommand {
            route: position.route.id.clone(),
            to,
            percent,
            force: None,
            acknowledge: from == State::Only && to < from,
        };
        let requested = RequestedMove { to, shares, force: false, reason: None, source: FlipSource::Api };
        match self.gate.judge(positions, position, &requested) {
            Ok(_) => Some(plain),
            Err(MoveRefusal::GateShut(_)) => {
                let reason = self.reason.filter(|reason| !reason.trim().is_empty()).unwrap_or(REASON);
                Some(FlipCommand { force: Some(reason.to_owned()), ..plain })
            }
            Err(MoveRefusal::Impossible(_)) => None,
        }
    }
}

/// Applies a command to the positions, so that the next one is judged after it.
fn apply_command(positions: &mut Positions, command: &FlipCommand) {
    if let Some(position) = positions.routes.get_mut(&command.route) {
        position.inputs.requested = command.to;
        position.inputs.gate = None;
        position.inputs.is_held = false;
        position.overrides_gate |= command.force.is_some() && command.to <= State::Live;
    }
}
