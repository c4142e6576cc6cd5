//! What applies to every run: the kill switch, and whether the process drains.
//!
//! A process that leaves its runs to others (before its drain) counts as draining for every run but child runs: a
//! caller may wait for the parent of one.

use tokio::sync::watch;

use crate::engine::context::Core;
use crate::engine::machine::Input;
use crate::flag::Freeze;

/// The state of the kill switch and whether the process drains, as last fed to the machine. Both apply to every run.
pub(super) struct GlobalState {
    freeze: watch::Receiver<Freeze>,
    draining: watch::Receiver<bool>,
    leaves_runs: watch::Receiver<bool>,
    is_child: bool,
    pub is_frozen: bool,
    pub is_draining: bool,
}

impl GlobalState {
    /// `is_child`: whether the run was begun by another run.
    pub fn of(core: &Core, is_child: bool) -> Self {
        let process = &core.process;
        let (freeze, draining) = (process.kill_switch.subscribe(), process.draining.subscribe());
        let leaves_runs = process.leaves_runs.subscribe();
        let mut state = Self { freeze, draining, leaves_runs, is_child, is_frozen: false, is_draining: false };
        state.changes(); // takes over the present state, so that only later changes are returned as inputs
        state
    }
    /// The changes since the last call, as inputs.
    pub fn changes(&mut self) -> Vec<Input> {
        let mut changes = Vec::new();
        let is_frozen = *self.freeze.borrow_and_update() == Freeze::Effects;
        if std::mem::replace(&mut self.is_frozen, is_frozen) != is_frozen {
            changes.push(Input::Freeze(is_frozen));
        }
        let leaves_run = *self.leaves_runs.borrow_and_update() && !self.is_child;
        let is_draining = *self.draining.borrow_and_update() || leaves_run;
        if !std::mem::replace(&mut self.is_draining, is_draining) && is_draining {
            changes.push(Input::Drain);
        }
        changes
    }
    pub async fn changed(&mut self) {
        let closed = tokio::select! {
            changed = self.freeze.changed() => changed.is_err(),
            changed = self.draining.changed() => changed.is_err(),
            changed = self.leaves_runs.changed() => changed.is_err(),
        };
        if closed {
            std::future::pending::<()>().await;
        }
    }
}
