//! What the store and this process know of retry keys and instances in a test rig.

use std::sync::atomic::Ordering::SeqCst;

use futures_util::future::BoxFuture;

use super::rig::Fakes;
use crate::exchange::{
    Affinity, ArmUnknown, CreatedByLegacy, EarlierKeys, KnownBody, KnownKeysOfOtherEngines, LegacyTake, Remembered,
};
use crate::flag::{Arm, Family, InstanceKey, Owner, RetryKey, RetryKeys, Route};
use crate::names::{RouteId, RunId};

impl Affinity for Fakes {
    fn owner<'a>(&'a self, _key: &'a InstanceKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), ArmUnknown>> {
        let owner = *self.owner.lock().unwrap();
        Box::pin(async move { owner.map(|owner| (owner, None)).ok_or(ArmUnknown) })
    }
    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, ArmUnknown>> {
        let of_key = self.first_tries.lock().unwrap().get(key).copied();
        let arm = of_key.map(|arm| Ok(Some(arm))).or(*self.first_try.lock().unwrap());
        Box::pin(async move { arm.unwrap_or(Ok(None)) })
    }
    fn engine_owns_any(&self, _family: &Family) -> bool {
        self.engine_owns.load(SeqCst)
    }
    fn remembered(&self, _key: &RetryKey) -> Remembered {
        if let Some(next) = self.remembered_next.lock().unwrap().pop_front() {
            return next;
        }
        match *self.first_try.lock().unwrap() {
            Some(Ok(Some(Arm::Engine))) => Remembered::TakenBy(Arm::Engine),
            Some(Err(ArmUnknown)) => Remembered::NotEngineHere,
            Some(Ok(Some(Arm::Legacy) | None)) | None => Remembered::NotEngine,
        }
    }
    fn engine_took_any(&self, _range: std::ops::RangeInclusive<RetryKey>) -> BoxFuture<'_, Result<bool, ArmUnknown>> {
        let first_try = *self.first_try.lock().unwrap();
        Box::pin(std::future::ready(first_try.unwrap_or(Ok(None)).map(|arm| arm == Some(Arm::Engine))))
    }
    fn take_for_legacy<'a>(
        &'a self,
        _route: &'a RouteId,
        keys: RetryKeys,
        earlier: &'a EarlierKeys,
        body: KnownBody,
    ) -> BoxFuture<'a, LegacyTake> {
        let take = match (earlier.legacy_has_own, self.is_unconfirmed.load(SeqCst)) {
            (true, true) => LegacyTake::HeldUnderAnotherCredential,
            (true, false) => LegacyTake::FIRST,
            (false, _) if self.engine_takes_first.load(SeqCst) => LegacyTake::HeldByEngine,
            (false, _) => return self.give_to_legacy(keys, body),
        };
        Box::pin(std::future::ready(take))
    }
    fn keys_of_other_engines(&self, _route: &Route) -> KnownKeysOfOtherEngines {
        let is_unread = self.keys_are_unread.load(SeqCst);
        KnownKeysOfOtherEngines { is_unread, ..KnownKeysOfOtherEngines::default() }
    }
    fn is_store_shared(&self) -> bool {
        true
    }
    fn give_to_legacy(
        &self,
        RetryKeys { scoped, any_caller, .. }: RetryKeys,
        _body: KnownBody,
    ) -> BoxFuture<'_, LegacyTake> {
        let mut keys = self.keys_of_legacy.lock().unwrap();
        let is_retry = keys.contains(&scoped);
        let noted = !self.records_no_keys.load(SeqCst);
        if noted {
            keys.extend([scoped].into_iter().chain(any_caller));
        }
        Box::pin(async move { LegacyTake::Taken { noted, is_retry } })
    }
    fn noted_earlier<'a>(&'a self, keys: &'a RetryKeys) -> BoxFuture<'a, bool> {
        let noted = self.keys_of_legacy.lock().unwrap().contains(&keys.scoped);
        let is_silent = self.store_is_silent.load(SeqCst);
        Box::pin(async move { if is_silent { std::future::pending().await } else { noted } })
    }
    fn record_served_unnoted<'a>(
        &'a self,
        _keys: &'a RetryKeys,
        _route: &'a RouteId,
        _oldest_id: &'a RouteId,
    ) -> BoxFuture<'a, ()> {
        self.served_unnoted.fetch_add(1, SeqCst);
        Box::pin(async {})
    }
    fn record_legacy_instance(&self, created: CreatedByLegacy) {
        self.created.lock().unwrap().push(created);
        self.changed.notify_waiters();
    }
}
