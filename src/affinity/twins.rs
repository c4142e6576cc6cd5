//! Twins of instances that legacy created.

use super::StoreAffinity;
use crate::flag::InstanceKey;
use crate::store::StoreError;

impl StoreAffinity {
    /// Records that the twin of an instance of legacy is incomplete. When this has returned, no request finds the twin.
    ///
    /// # Errors
    /// The store does not answer: it may be recorded or not.
    pub async fn detach_twin(&self, instance: &InstanceKey) -> Result<(), StoreError> {
        for key in instance.pin_keys() {
            self.store.detach_twin(key.clone()).await?;
            self.cache.detach_twin(&key);
        }
        Ok(())
    }
}
