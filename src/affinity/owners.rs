//! Which arm owns an instance, by its pins.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready, try_join_all};

use super::cache::PinsVersion;
use super::collision_check::CheckMessage;
use super::{LOOK_UP_MAX, StoreAffinity};
use crate::exchange::ArmUnknown;
use crate::flag::{Arm, InstanceKey, Owner, PinKey};
use crate::names::RunId;
use crate::store::{NewPin, PinAdoption, PinRecord, StoreError};

impl StoreAffinity {
    /// The owner of an instance; does not wait for the store if memory knows it.
    pub(super) fn owner_of<'a>(
        &'a self,
        key: &'a InstanceKey,
    ) -> BoxFuture<'a, Result<(Owner, Option<RunId>), ArmUnknown>> {
        let mut known = (Owner::NoPin, None);
        let mut unknown = Vec::new();
        for key in key.pin_keys() {
            match self.owner_in_memory(&key) {
                Some(owner) => known = higher_precedence(known, owner),
                None => unknown.push(key),
            }
        }
        if unknown.is_empty() || known.0 == Owner::Engine {
            return ready(Ok(known)).boxed();
        }
        async move {
            let found = try_join_all(unknown.into_iter().map(|key| self.look_up(key))).await?;
            Ok(found.into_iter().fold(known, higher_precedence))
        }
        .boxed()
    }

    /// The present version of the pins, to be taken before an append with pins begins.
    pub fn pins_version(&self) -> PinsVersion {
        self.cache.version()
    }

    /// Records that a run has pinned an instance, by an append that began after `before` was taken. Called after the
    /// append and before the run's answer leaves; idempotent.
    pub fn record_pin(&self, pin: &NewPin, run: RunId, before: PinsVersion) {
        self.sets.add_pin(&pin.key, pin.arm);
        if self.cache.add_pin(&pin.key, pin.arm, Some(run), before) {
            self.families.count(&pin.key.family, pin.arm);
            self.instances.count_soon();
            if pin.arm == Arm::Engine {
                self.collision_checks.send(CheckMessage::Pinned(pin.key.clone(), run));
            }
        }
    }

    /// Records the pin of an instance that the store has, before the answer of the run that made it leaves: this
    /// process may not have got the result of the append yet.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn record_stored_pin(&self, key: PinKey) -> Result<(), StoreError> {
        match self.owner_in_memory(&key) {
            // `None`: whoever asks for the owner is answered by the store.
            None | Some((Owner::Engine | Owner::Adopted, _)) => return Ok(()),
            Some((
                Owner::NoPin | Owner::LegacyWithTwin | Owner::Moving | Owner::AdoptionUnknown | Owner::Unknown,
                _,
            )) => {}
        }
        let before = self.pins_version();
        if let Some(PinRecord { arm, run: Some(run), adoption: None, .. }) = self.store.pin(key.clone()).await? {
            self.record_pin(&NewPin { key, arm }, run, before);
        }
        Ok(())
    }

    /// Whether the engine may own an instance. In a shared store other processes make pins too, so that only the store
    /// can tell.
    pub(super) fn engine_may_own(&self, key: &PinKey) -> bool {
        let owns_any = self.families.get(&key.family).is_some_and(|family| family.engine_owns());
        owns_any && (self.store.is_shared() || self.sets.engine_may_own(key))
    }

    /// The owner of a pin, if it is known without the store.
    pub(super) fn owner_in_memory(&self, key: &PinKey) -> Option<(Owner, Option<RunId>)> {
        if self.families.get(&key.family).is_none() {
            return Some((Owner::NoPin, None));
        }
        if let Some(known) = self.cache.get(key) {
            return Some(known.unwrap_or((Owner::NoPin, None)));
        }
        if self.engine_may_own(key) {
            return None;
        }
        // The engine does not own it, so legacy answers, and the caller does not wait for the store: which run created
        // the twin is looked up later.
        let may_have_twin = self.store.is_shared() || self.sets.may_have_twin(key);
        Some((if may_have_twin { Owner::LegacyWithTwin } else { Owner::NoPin }, None))
    }

    pub(super) async fn look_up(&self, key: PinKey) -> Result<(Owner, Option<RunId>), ArmUnknown> {
        let before = self.cache.version();
        match tokio::time::timeout(LOOK_UP_MAX, self.store.pin(key.clone())).await {
            Ok(Ok(pin)) => {
                let known = pin.as_ref().map(owner_by);
                // An instance that is being moved has another owner soon. If there is no pin, another process may make
                // one.
                let may_change = match known {
                    Some((owner, _)) => matches!(owner, Owner::Moving | Owner::AdoptionUnknown),
                    None => self.store.is_shared(),
                };
                if !may_change {
                    self.cache.looked_up(&key, known, before);
                }
                Ok(known.unwrap_or((Owner::NoPin, None)))
            }
            Ok(Err(error)) => {
                tracing::error!(
                    %error, family = %key.family,
                    "the store did not return the owner of an instance: the request gets 503 unless neither arm could \
                     do harm"
                );
                Err(ArmUnknown)
            }
            Err(_) => {
                tracing::error!(
                    family = %key.family, waited = ?LOOK_UP_MAX,
                    "the store did not return the owner of an instance in time: the request gets 503 unless neither \
                     arm could do harm"
                );
                Err(ArmUnknown)
            }
        }
    }
}

/// The owner of an instance that has pins under several ids of its family. A pin of the engine takes precedence over
/// one of legacy, because legacy does not know the engine's instances; a twin whose run is known takes precedence over
/// one whose run is not.
fn higher_precedence(one: (Owner, Option<RunId>), other: (Owner, Option<RunId>)) -> (Owner, Option<RunId>) {
    let rank = |(owner, run): &(Owner, Option<RunId>)| match owner {
        Owner::Unknown => 7,
        Owner::AdoptionUnknown => 6,
        Owner::Moving => 5,
        Owner::Adopted => 4,
        Owner::Engine => 3,
        Owner::LegacyWithTwin => 1 + u8::from(run.is_some()),
        Owner::NoPin => 0,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// The owner of an instance with this pin.
fn owner_by(pin: &PinRecord) -> (Owner, Option<RunId>) {
    let owner = match (pin.arm, pin.adoption) {
        (Arm::Legacy, _) => Owner::LegacyWithTwin,
        (Arm::Engine, None) => Owner::Engine,
        (Arm::Engine, Some(PinAdoption::Adopted)) => Owner::Adopted,
        (Arm::Engine, Some(PinAdoption::Moving)) => Owner::Moving,
        (Arm::Engine, Some(PinAdoption::Unknown)) => Owner::AdoptionUnknown,
    };
    (owner, pin.run)
}
