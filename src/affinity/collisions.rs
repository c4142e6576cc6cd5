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

    /// When both arms had given out one id for the first time, as far as this process and the store know, and not
    /// counting what a person has accepted.
    pub fn collided_since(&self, family: &Family) -> Option<Timestamp> {
        family.ids().filter_map(|id| self.families.get(id)?.collisions().since()).min()
    }

    /// How many changes of collisions by this process the store has: another process that sees the number change reads
    /// them ([`Self::follow_collisions`]).
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

    /// A person accepts what was found up to this time: the engine creates instances of the family again, until one
    /// more id is found that both arms have given out. Stored in the background.
    pub fn accept_collisions(&self, family: &Family, at: Timestamp) {
        self.families.accept_collisions(family, at);
    }

    /// Waits until it is checked whether the engine owns the ids that legacy gave out before, and until the store has
    /// the collisions that were found.
    pub async fn finish_collision_checks(&self) {
        self.collision_checks.flush().await;
        self.collision_records.flush().await;
    }
}
