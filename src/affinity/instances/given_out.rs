//! Which ids legacy gave out.

use jiff::Timestamp;

use super::Instances;
use super::recorded::Report;
use crate::flag::{InstanceKey, PinKey};
use crate::store::StoreError;

impl Instances {
    /// Whether legacy gave out this id before the engine did, with a run that began at this time. A reply of legacy
    /// to a create that this process has seen counts whenever it came: the run itself calls services, not this proxy.
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
            if self.store.legacy_instance(key).await?.is_some_and(|known| is_before(known.seen)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether legacy's instance with this key is known by a follow-up alone, and since this time, so that a run of the
    /// engine that began then may have created it at legacy. `false` where this process cannot tell: the store does not
    /// have by what a request of an earlier process, or of another one, showed an instance.
    pub(in crate::affinity) async fn is_only_followed_up_since(
        &self,
        key: PinKey,
        began: Timestamp,
    ) -> Result<bool, StoreError> {
        let first_seen = {
            let state = self.state();
            let is_created = state.recorded.recorded_at(&Report::LegacyCreated(key.clone())).is_some();
            state.recorded.recorded_at(&Report::LegacySeen(key.clone())).filter(|at| !is_created && *at >= began)
        };
        // The store keeps the time of the first report; that of a create has a time of its own.
        let Some(first_seen) = first_seen else { return Ok(false) };
        Ok(self.store.legacy_instance(key).await?.is_some_and(|known| known.seen == first_seen))
    }
}
