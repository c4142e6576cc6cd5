//! Whether the children of a run may be created now.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::engine::machine::SpawnPolicy;

/// A parent's spawn policy, for the futures that create its children. One task both polls these futures and changes the
/// policy, so the policy cannot change between its check and the creation of a child.
#[derive(Default)]
pub(in crate::engine) struct SpawnPolicyCell(AtomicU8);

impl SpawnPolicyCell {
    pub fn set(&self, policy: SpawnPolicy) {
        self.0.store(policy as u8, Ordering::Release);
    }
    pub fn policy(&self) -> SpawnPolicy {
        match self.0.load(Ordering::Acquire) {
            0 => SpawnPolicy::Spawn,
            1 => SpawnPolicy::Wait,
            _ => SpawnPolicy::Never,
        }
    }
}
