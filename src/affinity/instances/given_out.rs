//! Which ids legacy gave out.

use jiff::Timestamp;

use super::Instances;
use super::recorded::Report;
use crate::flag::{InstanceKey, PinKey};
use crate::store::{LegacyInstance, StoreError};

impl Instances {
    /// Whether legacy gave out this id before the engine did, with a run that began at this time. A reply of legacy
    /// to a create counts whenever it came: the run itself calls services, not this proxy.
    pub(in crate::affinity) async fn legacy_had(
        &self,
        instance: &InstanceKey,
        began: Timestamp,
    ) -> Result<bool, StoreError> {
        let keys: Vec<PinKey> = instance.stored_keys().collect();
        // What a follow-up shows since then may be what the run itself has created at legacy.
        let is_before = |at: Timestamp| at < began;
        // The store may not have the newest reports yet.
        let is_reported = {
            let state = self.state();
            let is_reported = |key: &PinKey| {
                state.recorded.recorded_at(&Report::LegacyCreated(key.clone())).is_some()
                    || state.recorded.recorded_at(&Report::LegacySeen(key.clone())).is_some_and(is_before)
            };
            keys.iter().any(is_reported)
        };
        if is_reported {
            return Ok(true);
        }
        for key in keys {
            let shows = |known: LegacyInstance| known.is_created || is_before(known.seen);
            if self.store.legacy_instance(key).await?.is_some_and(shows) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
