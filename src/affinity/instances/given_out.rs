//! Which ids legacy gave out.

use jiff::Timestamp;

use super::Instances;
use super::recorded::Report;
use crate::flag::{Family, InstanceKey, PinKey};
use crate::store::StoreError;

impl Instances {
    /// Whether legacy gave out this id before the engine did, with a run that began at this time.
    pub(in crate::affinity) async fn legacy_had(&self, pinned: &PinKey, began: Timestamp) -> Result<bool, StoreError> {
        let families = self.families.load();
        let tracked = families.iter().find(|tracked| tracked.family.ids().any(|id| *id == pinned.family));
        let family = tracked.map_or_else(|| Family::from(pinned.family.clone()), |tracked| tracked.family.clone());
        let key = InstanceKey { family, id: pinned.id.clone() }.stored_key();
        // The store may not have the newest reports yet. Legacy's replies make these reports. Once the id is pinned,
        // follow-ups go to the engine, so that a report of a reply after the pin is one of a create: then legacy has
        // given out the id too, whoever was first.
        let reports = [Report::LegacySeen(key.clone()), Report::LegacyCreated(key.clone())];
        if reports.iter().any(|report| self.state().recorded.contains(report)) {
            return Ok(true);
        }
        // An instance that was first seen after the run began may be one that the run's workflow created at legacy.
        Ok(self.store.legacy_instance(key).await?.is_some_and(|known| known.seen < began))
    }
}
