//! What applies to every run: the kill switch, and whether the process drains.

use tokio::sync::watch;

use crate::engine::context::Core;
use crate::engine::machine::Input;
use crate::flag::Freeze;

/// The state of the kill switch and whether the process drains, as last fed to the machine. Both apply to every run.
pub(super) struct GlobalState {
    freeze: watch::Receiver<Freeze>,
    draining: watch::Receiver<bool>,
    pub is_frozen: bool,
    pub is_draining: bool,
}

impl GlobalState {
    pub fn of(core: &Core) -> Self {
        let (mut freeze, mut draining) = (core.process.kill_switch.subscribe(), core.process.draining.subscribe());
        let is_frozen = *freeze.borrow_and_update() == Freeze::Effects;
        let is_draining = *draining.borrow_and_update();
        Self { freeze, draining, is_frozen, is_draining }
    }
    /// The changes since the last call, as inputs.
    pub fn changes(&mut self) -> Vec<Input> {
        let mut changes = Vec::new();
        let is_frozen = *self.freeze.borrow_and_update() == Freeze::Effects;
        if std::mem::replace(&mut self.is_frozen, is_frozen) != is_frozen {
            changes.push(Input::Freeze(is_frozen));
        }
        let is_draining = *self.draining.borrow_and_update();
        if !std::mem::replace(&mut self.is_draining, is_draining) && is_draining {
            changes.push(Input::Drain);
        }
        changes
    }
    pub async fn changed(&mut self) {
        let closed = tokio::select! {
            changed = self.freeze.changed() => changed.is_err(),
            changed = self.draining.changed() => changed.is_err(),
        };
        if closed {
            std::future::pending::<()>().await;
        }
    }
}
