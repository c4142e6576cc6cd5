//! Conditions of a gate that stand until a person accepts them with a flip by force, such as a pin collision.
//!
//! Always true: only a person's flip by force to `live`, to `only` or to the state that the route has accepts such a
//! condition. It does so once it is in force, and it does not accept what came up after the flip was judged.

use jiff::Timestamp;

use super::gate::Gate;
use super::mover::Mover;
use super::positions::RoutePosition;
use super::types::{FlipSource, MoveRequest};
use crate::flag::State;
use crate::names::RouteId;

impl Gate {
    /// Whether a flip by force to this state would accept something.
    pub(super) fn awaits_acceptance(&self, position: &RoutePosition, to: State, source: FlipSource) -> bool {
        source == FlipSource::Api
            && accepts(position.rung(), to)
            && self.conditions.iter().any(|condition| condition.awaits_acceptance(&position.route))
    }
}

impl Gate {
    /// What a person has to accept on this route, as a sentence.
    pub(super) fn to_accept(&self, position: &RoutePosition) -> Option<String> {
        let waiting = self.conditions.iter().filter(|condition| condition.awaits_acceptance(&position.route));
        let mut unmet = waiting.flat_map(|condition| condition.unmet(&position.route, position.rung(), State::Live));
        unmet.next().map(|unmet| unmet.why)
    }
}

impl Mover {
    /// Tells the conditions of a route what a flip accepts. To be called once the flip is in force; `at` is the time of
    /// its record.
    pub(super) fn accept_conditions(&self, route: &RouteId, from: State, request: &MoveRequest, at: Timestamp) {
        let positions = self.in_force().inputs().positions;
        if let Some(position) = positions.routes.get(route)
            && request.force
            && accepts(from, request.to)
        {
            self.gate().conditions.iter().for_each(|condition| condition.accept(&position.route, at));
        }
    }
}

/// Whether a flip by force from one state to another accepts the conditions that stand against the route. A flip up to
/// `dark` does not: the gate to `dark` does not ask for these conditions, so the person has not read of them.
fn accepts(from: State, to: State) -> bool {
    to >= State::Live || to == from
}
