//! Ids that both arms have given out.

use jiff::Timestamp;

use super::StoreAffinity;
use crate::flag::{Family, PinKey};
use crate::names::RunId;

impl StoreAffinity {
    /// Records that a run could not pin an instance, because the other arm owns the id already.
    pub fn record_collision(&self, key: &PinKey, run: RunId) {
        if let Some(family) = self.families.get(&key.family) {
            family.record_collision(key, Some(run));
        }
    }

    /// Whether both arms have given out one id. The engine must then create no new instances of that family.
    pub fn collided(&self, family: &Family) -> bool {
        self.collided_since(family).is_some()
    }

    /// When both arms had given out one id for the first time, as far as this process knows.
    pub fn collided_since(&self, family: &Family) -> Option<Timestamp> {
        family.ids().filter_map(|id| self.families.get(id)?.collided_since()).min()
    }
}
