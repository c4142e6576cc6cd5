//! Which ids legacy gave out.

use jiff::Timestamp;

use super::Instances;
use super::recorded::Report;
use crate::flag::{InstanceKey, PinKey};
use crate::store::{LegacyInstance, StoreError};

impl Instances {
    /// Whether legacy gave out this id before a run of the engine did, which began at `began`. A reply of legacy to a
    /// create counts whenever it came: it cannot be an effect of the run, which calls services and not this proxy.
    pub(in crate::affinity) async fn legacy_had(
        &self,
        instance: &InstanceKey,
        began: Timestamp,
    ) -> Result<bool, StoreError> {
        let keys: Vec<PinKey> = instance.stored_keys().collect();
        // A follow-up after `began` may show an instance that the run itself has created at legacy.
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
