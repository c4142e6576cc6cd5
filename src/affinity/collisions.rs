//! Ids that both arms have given out.

use jiff::Timestamp;

use super::StoreAffinity;
use crate::flag::{Family, PinKey};
use crate::names::RunId;
use crate::store::StoreError;

impl StoreAffinity {
    /// Records that a run could not pin an instance, because the other arm owns the id already.
    pub fn record_collision(&self, key: &PinKey, run: RunId) {
        self.families.record_collision(key, Some(run));
    }

    /// Whether both arms have given out one id and nobody has accepted that. The engine must then create no new
    /// instances of that family.
    pub fn collided(&self, family: &Family) -> bool {
        self.collided_since(family).is_some()
    }

    /// When the first collision that nobody has accepted was found, as far as this process and the store know.
    pub fn collided_since(&self, family: &Family) -> Option<Timestamp> {
        family.ids().filter_map(|id| self.families.get(id)?.collisions().since()).min()
    }

    /// How many of this process's changes of collisions the store has. Another process that sees this number change
    /// reads the changes ([`Self::follow_collisions`]).
    pub fn stored_collision_changes(&self) -> u64 {
        self.families.stored_collision_changes()
    }

    /// Takes over the collisions that other processes have found, and what persons have accepted there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn follow_collisions(&self) -> Result<(), StoreError> {
        self.families.follow_collisions(self.store.pin_collisions().await?);
        Ok(())
    }

    /// Records that a person accepts the collisions found up to this time: the engine creates instances of the family
    /// again, until one more id is found that both arms have given out. Stored in the background.
    pub fn accept_collisions(&self, family: &Family, at: Timestamp) {
        self.families.accept_collisions(family, at);
    }

    /// Waits until the ids that were given out before this call are checked, and the store has the collisions that were
    /// found.
    pub async fn finish_collision_checks(&self) {
        self.collision_checks.flush().await;
        self.collision_records.flush().await;
    }
}
