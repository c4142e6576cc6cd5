//! The only place that computes the flag set in force and swaps it in.
//!
//! Always true: the set in force is a function of the newest value of each input: the positions of routes by flips and
//! files, the guard's limits, the engine's health, the kill switch. Each input has a version, and an older version is
//! dropped, so that a late update changes nothing. Computing and swapping happen under one lock, so that sets come in
//! force in the order in which they were computed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use super::export;
use super::overtaken::keep_below_only;
use super::positions::{Positions, RoutePosition};
use super::types::Declared;
use super::versioned::Versioned;
use crate::flag::{Effective, FlagSet, Freeze, State, StateInputs, Why};
use crate::names::RouteId;

/// The inputs, and the flag set in force that is computed from them.
pub(super) struct InForce {
    inputs: Mutex<Inputs>,
    flags: Arc<ArcSwap<FlagSet>>,
}

/// The inputs from which the set in force is computed.
#[derive(Clone)]
pub(super) struct Inputs {
    pub positions: Positions,
    kill_switch: Versioned<Freeze>,
    health: Versioned<bool>,
    guards: BTreeMap<RouteId, Versioned<Option<State>>>,
    /// The number of the set in force; it increases with each swap.
    generation: u64,
    secret: [u8; 32],
}

impl Inputs {
    /// The kill switch.
    pub fn freeze(&self) -> Freeze {
        *self.kill_switch.get()
    }

    /// The inputs of a route's effective state: its position with the limits of guard and health.
    fn state_inputs(&self, position: &RoutePosition) -> StateInputs {
        let guard = self.guards.get(&position.route.id).and_then(|limit| *limit.get());
        StateInputs { guard, healthy: *self.health.get(), ..position.inputs.clone() }
    }

    /// The effective state of a route, and why.
    pub fn effective(&self, position: &RoutePosition) -> Effective {
        self.state_inputs(position).effective(self.freeze())
    }

    fn flag_set(&self) -> FlagSet {
        let positions = &self.positions;
        let inputs = positions.routes.iter().map(|(id, position)| (id.clone(), self.state_inputs(position))).collect();
        let Declared { files_version, routes, default_legacy, services, bases: _, read_only: _ } =
            positions.declared.clone();
        FlagSet::new(self.generation, routes, &inputs, default_legacy, services, self.freeze(), self.secret)
            .with_files_version(files_version)
            .with_earlier_scopes(Arc::clone(&positions.earlier_scopes))
    }
}

impl InForce {
    /// Puts a first set in force; the engine counts as healthy until its health is set.
    pub fn new(positions: Positions, freeze: Freeze, secret: [u8; 32]) -> Self {
        let kill_switch = Versioned::new(0, freeze);
        let (health, guards) = (Versioned::new(0, true), BTreeMap::new());
        let inputs = Inputs { positions, kill_switch, health, guards, generation: 1, secret };
        let set = inputs.flag_set();
        export::set_states(&set, &[]);
        Self { inputs: Mutex::new(inputs), flags: Arc::new(ArcSwap::from_pointee(set)) }
    }

    /// The set in force.
    pub fn flags(&self) -> &Arc<ArcSwap<FlagSet>> {
        &self.flags
    }

    /// All inputs as they are now.
    pub fn inputs(&self) -> Inputs {
        let mut inputs = self.lock().clone();
        inputs.positions.freeze = inputs.freeze();
        inputs
    }

    /// The kill switch and the number of its change in this process.
    pub fn kill_switch(&self) -> (u64, Freeze) {
        let inputs = self.lock();
        (inputs.kill_switch.version(), inputs.freeze())
    }

    /// Sets the positions of the routes. They have no version, because only one caller at a time moves routes. Returns
    /// the routes that it keeps below `only`, because a freeze is in force and they were not in `only` before.
    #[must_use]
    pub fn set_positions(&self, mut positions: Positions) -> Vec<RouteId> {
        let mut overtaken = Vec::new();
        self.change(|inputs| {
            // The first set of a process has what was in force before its start.
            if inputs.generation > 1 && inputs.freeze() != Freeze::No {
                overtaken = keep_below_only(&inputs.positions, &mut positions);
            }
            inputs.guards.retain(|id, _| positions.routes.contains_key(id));
            inputs.positions = positions;
            true
        });
        overtaken
    }

    /// Sets the kill switch, with the number of its change. Returns whether that changed anything.
    pub fn set_freeze(&self, version: u64, freeze: Freeze) -> bool {
        self.change(|inputs| inputs.kill_switch.set(version, freeze))
    }

    /// Sets the engine's health, with the number of the observation. Returns whether that changed anything.
    pub fn set_health(&self, version: u64, healthy: bool) -> bool {
        self.change(|inputs| inputs.health.set(version, healthy))
    }

    /// Sets the highest state that the guard allows a route. Returns whether that changed anything.
    pub fn set_guard(&self, route: &RouteId, version: u64, limit: Option<State>) -> bool {
        self.change(|inputs| {
            let known = inputs.positions.routes.contains_key(route);
            known && inputs.guards.entry(route.clone()).or_insert(Versioned::new(0, None)).set(version, limit)
        })
    }

    /// When the first route that the files hold below `live` is to be judged again.
    pub fn held_until(&self) -> Option<Timestamp> {
        self.lock().positions.held_until()
    }

    /// The effective state of a route now.
    pub fn effective(&self, route: &RouteId) -> Effective {
        let inputs = self.lock();
        let off = Effective { state: State::Off, why: Why::Requested };
        inputs.positions.routes.get(route).map_or(off, |position| inputs.effective(position))
    }

    /// Changes inputs and, if they changed, computes the set and swaps it in.
    fn change(&self, change: impl FnOnce(&mut Inputs) -> bool) -> bool {
        let mut inputs = self.lock();
        if !change(&mut inputs) {
            return false;
        }
        inputs.generation += 1;
        let set = Arc::new(inputs.flag_set());
        let before = self.flags.swap(Arc::clone(&set));
        let removed = before.routes.iter().map(|flag| &flag.route.id).filter(|id| set.route(id).is_none());
        export::set_states(&set, &removed.cloned().collect::<Vec<_>>());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inputs> {
        // A poisoned lock is usable: each input is set in one step.
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
