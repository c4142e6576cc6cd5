//! Whether the children of a run may be born now.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::engine::machine::SpawnPolicy;

/// The spawn policy of a parent, read by what begins its children. That is polled by the task that changes the policy, so
/// that the policy cannot change between its last check and the beginning of a child.
#[derive(Default)]
pub(in crate::engine) struct SpawnGate(AtomicU8);

impl SpawnGate {
    /// This is in force from now on.
    pub fn set(&self, policy: SpawnPolicy) {
        self.0.store(policy as u8, Ordering::Release);
    }
    /// What is in force now.
    pub fn policy(&self) -> SpawnPolicy {
        match self.0.load(Ordering::Acquire) {
            0 => SpawnPolicy::Spawn,
            1 => SpawnPolicy::Wait,
            _ => SpawnPolicy::Never,
        }
    }
}
