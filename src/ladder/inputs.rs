//! The inputs from which the flag set in force is computed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::guard_latches::{Followed, GuardLatches};
use super::lowered_routes::LoweredRoutes;
use super::plans;
use super::positions::{Positions, RoutePosition};
use super::types::DeclaredFiles;
use super::unrecorded_flips::{OutstandingWrite, UnrecordedFlip};
use super::versioned::Versioned;
use crate::flag::{Effective, FlagSet, Freeze, Route, State, StateInputs};
use crate::names::RouteId;
use crate::store::FlipRecord;

/// The inputs from which the set in force is computed.
#[derive(Clone)]
pub(super) struct Inputs {
    /// The positions of the routes, as lowered by the flips in `unrecorded`.
    pub positions: Positions,
    /// The flips down that the store does not have yet, in the order in which they were made.
    pub unrecorded: Vec<UnrecordedFlip>,
    /// Increases with each change of `positions` or `unrecorded`.
    pub positions_version: u64,
    /// The routes that persons have lowered, or left where they are, since the start. A flip up that was asked for
    /// before the lowering does not raise the route.
    pub lowered: LoweredRoutes,
    /// Whether a task records the unrecorded flips.
    pub is_recording: bool,
    /// Whether the process ends. Then no person's flip is put in force before the store has it.
    pub is_ending: bool,
    /// The states to which the outstanding write moves routes: a restart may find them.
    pub outstanding: OutstandingWrite,
    pub kill_switch: Versioned<Freeze>,
    pub health: Versioned<bool>,
    /// The actions of guards.
    pub guards: GuardLatches,
    /// All ids of the routes that the engine answers, or has answered since [`InForce::release_claims`] was last called
    /// for them: their retry keys are claimed in the store. With each id, the number of the first flag set after the
    /// last one in which the engine answered the route.
    pub claimed: BTreeMap<RouteId, u64>,
    /// Whether files were read. If not, the positions are those that the store has from the previous process.
    pub has_files: bool,
    /// The number of the set in force; it increases with each change.
    pub generation: u64,
    pub secret: [u8; 32],
}

/// Limits that other processes have recorded. They come into force in the same moment as the positions that were
/// recorded with them: the end of a freeze, or a release, would otherwise raise a route before the flip that lowered it
/// is in force.
#[derive(Default)]
pub(super) struct FollowedLimits {
    /// The kill switch, with the number of its change in this process; `None` leaves it unchanged.
    pub freeze: Option<(u64, Freeze)>,
    /// The actions of guards.
    pub guards: Vec<FlipRecord>,
    /// The numbers of the flips that other processes have recorded. A flip to `only` among them was recorded before the
    /// freeze that is followed together with it, because no process records one while it knows of a freeze. So the
    /// freeze does not overtake it.
    pub recorded_elsewhere: Vec<u64>,
}

impl Inputs {
    /// The kill switch.
    pub fn freeze(&self) -> Freeze {
        *self.kill_switch.get()
    }

    /// The inputs of a route's effective state: its position with the limits of guard and health.
    pub fn state_inputs(&self, position: &RoutePosition) -> StateInputs {
        let guard = self.guards.limit(&position.route);
        let returns = position.inputs.returns_at_restart || self.returns_at_restart(&position.route);
        let mut inputs =
            StateInputs { guard, healthy: *self.health.get(), returns_at_restart: returns, ..position.inputs.clone() };
        // A guard does not lower a route in `only`. So a file that asks for `only` would cancel what the guard did
        // before: until the release the route counts as granted at most `live`.
        if guard.is_some() && inputs.granted() == State::Only {
            inputs.gate = Some(State::Live);
        }
        inputs
    }

    /// The effective state of a route, and why.
    pub fn effective(&self, position: &RoutePosition) -> Effective {
        self.state_inputs(position).effective(self.freeze())
    }

    /// Puts actions of other processes' guards in force. Returns whether that changed anything.
    pub fn follow_guards(&mut self, actions: Vec<FlipRecord>, followed: Followed) -> bool {
        let mut changes = false;
        for action in actions {
            let Some(guard) = &action.guard else { continue };
            let routes = self.positions.routes.values().map(|position| &position.route);
            let own = routes.filter(|route| route.ids().any(|id| *id == guard.route)).flat_map(|route| route.ids());
            let ids: Vec<RouteId> = own.chain([&guard.route]).cloned().collect();
            changes |= self.guards.follow(action, &ids, followed);
        }
        changes
    }

    /// Whether anything is in force that the store does not have, other than a freeze.
    pub fn has_unrecorded(&self) -> bool {
        !self.unrecorded.is_empty() || self.guards.unrecorded_len() > 0
    }

    /// Whether the store does not have a flip of a route yet.
    pub fn has_unrecorded_flip(&self, route: &RouteId) -> bool {
        self.unrecorded.iter().any(|unrecorded| unrecorded.is_of(route))
    }

    /// Whether a restart would return the route to `live` or above, because its flip down is not recorded yet.
    fn returns_at_restart(&self, route: &Route) -> bool {
        let Some(unrecorded) = self.unrecorded.iter().find(|unrecorded| unrecorded.is_of(&route.id)) else {
            return false;
        };
        self.outstanding.target(route).max(Some(unrecorded.restart_state)) >= Some(State::Live)
    }

    pub fn flag_set(&self) -> FlagSet {
        let positions = &self.positions;
        let inputs = positions.routes.iter().map(|(id, position)| (id.clone(), self.state_inputs(position))).collect();
        let DeclaredFiles { files_version, routes, default_legacy, services, exposes_arm, .. } =
            positions.declared.clone();
        FlagSet::new(self.generation, routes, &inputs, default_legacy, services, self.freeze(), self.secret)
            .with_files_version(files_version)
            .with_exposed_arms(exposes_arm)
            .with_earlier_scopes(Arc::clone(&positions.earlier_scopes))
            .with_plans(|route| plans::of_flag(positions, route))
    }
}
