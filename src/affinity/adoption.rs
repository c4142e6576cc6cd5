//! Brings what is in memory up to date when instances are moved from legacy to the engine.

use std::sync::Arc;

use super::{RequestsAtLegacyByInstance, StoreAffinity};
use crate::flag::{Arm, Owner, PinKey};
use crate::names::RunId;
use crate::store::StoreError;

impl StoreAffinity {
    /// The requests that legacy has of instances that may be moved, and the instances that are being moved.
    pub fn requests_at_legacy(&self) -> &Arc<RequestsAtLegacyByInstance> {
        &self.requests_at_legacy
    }

    /// Records that the engine owns the pins of an instance which legacy created: the instance is being moved, or, if
    /// `adopted_by` is given, that run has adopted it.
    pub fn record_adoption(&self, pins: &[PinKey], adopted_by: Option<RunId>) {
        for key in pins {
            self.sets.add_pin(key, Arm::Engine);
            self.families.expect_engine_pins(&key.family);
            match adopted_by {
                None => self.cache.forget(key),
                Some(run) if self.cache.put(key, (Owner::Adopted, Some(run))) => {
                    self.families.count(&key.family, Arm::Engine);
                }
                Some(_) => {}
            }
        }
        self.instances.count_soon();
    }

    /// Forgets these pins, so that the store is asked again: they no longer exist, or it is unknown whether their
    /// instance was adopted.
    pub fn forget_pins(&self, pins: &[PinKey]) {
        pins.iter().for_each(|key| self.cache.forget(key));
        self.instances.count_soon();
    }

    /// Reads from the store which families have pins of the engine: another process may have made a family's first pin.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn reload_families(&self) -> Result<(), StoreError> {
        for (family, arm, count) in self.store.pin_counts().await? {
            if arm == Arm::Engine && count > 0 {
                self.families.expect_engine_pins(&family);
            }
        }
        self.cache.clear();
        Ok(())
    }
}
