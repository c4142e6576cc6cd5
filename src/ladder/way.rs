//! The commands that would bring a refused route where somebody wants it.
//!
//! Always true: one after the other they pass, as things stand now; where nothing that a person can say would help (no
//! workflow), there is none.

use super::command::FlipCommand;
use super::gate::{Gate, Shut, Wanted};
use super::positions::{Positions, RoutePosition};
use crate::flag::{Percent, Shares, State};

/// What stands for a reason that only the person knows.
const REASON: &str = "WHY";

/// Followers that have to go up before their creator, the deepest first, then the route itself.
pub(super) fn commands(
    positions: &Positions,
    gate: &Gate,
    at: &RoutePosition,
    to: State,
    shares: Shares,
    reason: Option<&str>,
) -> Vec<FlipCommand> {
    let mut positions = positions.clone();
    let mut commands = Vec::new();
    let id = &at.route.id;
    if to > at.stands() {
        let below = positions.followers(id).filter(|follower| follower.stands() < to);
        let below: Vec<RoutePosition> = below.cloned().collect();
        for follower in below {
            let Some(command) = command(&positions, gate, &follower, to, follower.inputs.shares, reason) else {
                return Vec::new();
            };
            raise(&mut positions, &command);
            commands.push(command);
        }
    }
    match command(&positions, gate, at, to, shares, reason) {
        Some(command) => commands.push(command),
        None => return Vec::new(),
    }
    commands
}

/// The one command that moves one route; `None` where none does.
fn command(
    positions: &Positions,
    gate: &Gate,
    at: &RoutePosition,
    to: State,
    shares: Shares,
    reason: Option<&str>,
) -> Option<FlipCommand> {
    let from = at.stands();
    // A share without a key holds for nobody in particular: everybody then.
    let no_key = matches!(to, State::Dark | State::Live) && at.route.key.is_none() && shares.of(to) < Percent::ALL;
    let asked = (shares.of(to) != at.inputs.shares.of(to)).then(|| shares.of(to));
    let percent = if no_key { Some(Percent::ALL) } else { asked };
    let shares = percent.map_or(shares, |percent| shares.with(to, percent));
    let plain = FlipCommand {
        route: at.route.id.clone(),
        to,
        percent,
        force: None,
        acknowledge: from == State::Only && to < from,
    };
    let wanted = Wanted { to, shares, force: false, reason: None };
    match gate.judge(positions, at, &wanted) {
        Ok(_) => Some(plain),
        Err(Shut::Gate(_)) => Some(FlipCommand { force: Some(reason.unwrap_or(REASON).to_owned()), ..plain }),
        Err(Shut::Senseless(_)) => None,
    }
}

/// As if the command had been given.
fn raise(positions: &mut Positions, command: &FlipCommand) {
    if let Some(at) = positions.routes.get_mut(&command.route) {
        at.inputs.requested = command.to;
        at.inputs.gate = None;
    }
}
