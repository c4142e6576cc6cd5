//! Claims of retry keys in a store that several processes share.
//!
//! Always true:
//!
//! - On a route on which the engine of this process or of another one may answer, legacy gets a request only once the
//!   store has its key as legacy's. The engine's first append takes the key in the same table and fails if legacy has
//!   it. So if two tries of one request reach two processes, only one arm performs the request, whatever states the two
//!   processes have in force.
//! - On other routes a key of legacy is in a file first, and in the store a moment later.
//! - On every route, the next try of a key whose claim did not succeed claims it again, and a request that the engine
//!   took and gives back is claimed.
//! - A key that is recorded as legacy's, in the store or in the file of an earlier process, does not prove that legacy
//!   got the request: the process that recorded the key may have refused that try. Only a process that itself passed
//!   the try to legacy knows that.
//!
//! When the store is slow or gone, a claim waits for it for a bounded time, and the request gets 503.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::claims::{ClaimState, ClaimingRoutes};
use super::take_request::TakenRequest;
use super::{LOOK_UP_MAX, StoreAffinity};
use crate::clock::Moment;
use crate::exchange::{ArmUnknown, EarlierKeys, KeysOfOtherEngines, KnownBody, LegacyTake};
use crate::flag::{Arm, RetryKey, RetryKeys, Route};
use crate::names::RouteId;
use crate::store::RunFilter;

/// Whether a key has to be claimed, that is, recorded in the store as legacy's, before legacy is called.
#[derive(Clone, Copy, PartialEq)]
enum ClaimPolicy {
    No,
    /// If the store does not answer in time, legacy is called without the claim.
    BestEffort,
    /// If the store does not answer in time, legacy is not called.
    Required,
}

/// Whether a key has to be claimed. There are three reasons:
///
/// - The keys of its route are claimed.
/// - Keys of other engines may have become unknown since the look-up.
/// - The look-up had to ask the store.
///
/// In the last two cases the engine of another process may have taken the key meanwhile, or may be about to commit it.
fn claim_policy(state: &ClaimState, route: &RouteId, keys_of_other_engines: KeysOfOtherEngines) -> ClaimPolicy {
    match keys_of_other_engines {
        _ if state.claims(route) => ClaimPolicy::Required,
        KeysOfOtherEngines::Known(version)
        | KeysOfOtherEngines::Unanswered(version)
        | KeysOfOtherEngines::Asked { version, .. }
            if state.is_outdated(version) =>
        {
            ClaimPolicy::Required
        }
        KeysOfOtherEngines::Asked { claim_may_fail: false, .. } => ClaimPolicy::Required,
        KeysOfOtherEngines::Asked { claim_may_fail: true, .. } => ClaimPolicy::BestEffort,
        KeysOfOtherEngines::Known(_) | KeysOfOtherEngines::Unanswered(_) | KeysOfOtherEngines::Unknown => {
            ClaimPolicy::No
        }
    }
}

impl StoreAffinity {
    /// Sets the routes whose keys are claimed. A request that takes its key after this call claims it.
    pub fn set_claiming(&self, routes: ClaimingRoutes) {
        self.claims.set_routes(routes);
    }

    /// Whether keys of this route are claimed now.
    #[cfg(test)]
    pub fn claims_keys_of(&self, route: &RouteId) -> bool {
        self.claims.read().claims(route)
    }

    /// Sets when the lease of this process ends unless it is renewed. `term`: its term in the store.
    pub fn set_lease_end(&self, ends: Moment, term: Option<i64>) {
        self.claims.set_lease_end(ends, term);
    }

    /// Sets whether the engine of each other process takes keys only while that process has its lease.
    pub fn set_other_engines_need_lease(&self, need_lease: bool) {
        self.claims.set_other_engines_need_lease(need_lease);
    }

    /// Whether all keys that the engines of other processes took are known, except those of routes whose keys are
    /// claimed.
    pub fn knows_keys_of_other_engines(&self) -> bool {
        self.claims.read().knows_keys_of_other_engines()
    }

    /// Waits until the store has all keys that legacy has taken up to now. Returns whether it has them; `false` where a
    /// write to the store failed.
    pub async fn flush_taken(&self) -> bool {
        self.keys.flush().await
    }

    /// The id of the file in which this process notes retry keys, if it has one.
    pub fn key_file(&self) -> Option<Uuid> {
        self.keys.list.own_id()
    }

    /// Records that from now on the engine may own instances of this creator, because other processes may pin some.
    pub fn expect_engine_pins_of(&self, creator: &RouteId) {
        self.families.expect_engine_pins(creator);
    }

    /// Like [`Self::expect_engine_pins_of`], for each id of these creators under which a real run is, or may be, open:
    /// such a run pins its instance when it answers, even if its route has been lowered since.
    pub async fn expect_engine_pins_of_open_runs(&self, creators: &[Arc<Route>]) {
        for id in creators.iter().flat_map(|route| route.ids()) {
            if self.families.get(id).is_some_and(|family| family.engine_owns()) {
                continue;
            }
            let filter = RunFilter { route: Some(id.clone()), limit: 1, ..RunFilter::open_real_runs() };
            match tokio::time::timeout(LOOK_UP_MAX, self.store.runs(filter)).await {
                Ok(Ok(runs)) if runs.is_empty() => {}
                // Also if the store did not answer.
                Ok(_) | Err(_) => self.families.expect_engine_pins(id),
            }
        }
    }

    /// Returns which arm took a first try, in a store that several processes share.
    pub(super) async fn first_try_in_shared_store(&self, key: &RetryKey) -> Result<Option<Arm>, ArmUnknown> {
        if let Some(arm) = self.tries.arm_of_this_process(key, Instant::now()) {
            return Ok(Some(arm));
        }
        // A key in the file may be that of a try which an earlier process refused, or this one a long time ago: then an
        // engine may have the request. The file is read before the store, because the key may be on its way from the
        // one to the other.
        let is_in_file = self.legacy_has(key);
        let stored = self.look_ups.first_try(&self.store, *key, LOOK_UP_MAX).await?;
        if stored == Some(Arm::Engine) {
            self.tries.forget(key, false);
        }
        Ok(stored.or(is_in_file.then_some(Arm::Legacy)))
    }

    /// As [`Affinity::take_for_legacy`](crate::exchange::Affinity::take_for_legacy) says.
    pub(super) async fn take_or_confirm(
        &self,
        route: &RouteId,
        keys: RetryKeys,
        earlier: &EarlierKeys,
        body: KnownBody,
    ) -> LegacyTake {
        match earlier.legacy_has_own {
            true => self.confirm_then_claim(route, keys, earlier, body).await,
            false => self.take_then_claim(route, keys, earlier, body).await,
        }
    }

    async fn take_then_claim(
        &self,
        route: &RouteId,
        keys: RetryKeys,
        earlier: &EarlierKeys,
        body: KnownBody,
    ) -> LegacyTake {
        let (taken, policy) = {
            // The lock is held while the key is taken, so that whoever sets the routes and then flushes the keys also
            // flushes this one.
            let state = self.store.is_shared().then(|| self.claims.read());
            let taken = self.take_request_for_legacy(keys, earlier, body);
            let policy = state.map_or(ClaimPolicy::No, |state| {
                self.claim_policy_of_taken(&state, (route, earlier.keys_of_other_engines), &keys.scoped, &taken)
            });
            (taken, policy)
        };
        self.claim_if(policy, self.wait_until_noted_all(taken).await, keys, body).await
    }

    /// Confirms that the engine does not have a request of which an earlier try is recorded as legacy's. Another
    /// process, or an earlier one, may have recorded it and refused that try, because the engine took the request, or
    /// is about to.
    async fn confirm_then_claim(
        &self,
        route: &RouteId,
        keys: RetryKeys,
        earlier: &EarlierKeys,
        body: KnownBody,
    ) -> LegacyTake {
        if !self.store.is_shared() {
            return LegacyTake::FIRST;
        }
        let policy = claim_policy(&self.claims.read(), route, earlier.keys_of_other_engines);
        if policy == ClaimPolicy::No {
            return LegacyTake::FIRST;
        }
        // The process that took the key may not have stored it, or the key for any caller, yet: until that is stored,
        // an engine may take the request.
        let key = keys.any_caller.unwrap_or(keys.scoped);
        match self.look_ups.first_try(&self.store, key, LOOK_UP_MAX).await {
            Ok(Some(Arm::Legacy)) => self.claim_if(policy, LegacyTake::FIRST, keys, body).await,
            Ok(_) | Err(_) => self.take_then_claim(route, keys, earlier, body).await,
        }
    }

    /// As [`Affinity::give_to_legacy`](crate::exchange::Affinity::give_to_legacy) says.
    pub(super) async fn give_then_claim(&self, keys: RetryKeys, body: KnownBody) -> LegacyTake {
        let given = self.give_request_to_legacy(keys);
        // On any rung: the engine of another process may have taken the request while this one had it.
        let policy = if self.store.is_shared() { ClaimPolicy::Required } else { ClaimPolicy::No };
        self.claim_if(policy, self.wait_until_noted_all(given).await, keys, body).await
    }

    /// Whether a key that was taken has to be claimed: as [`claim_policy`] says, or because an earlier claim of it has
    /// not succeeded, even if its route has gone down since.
    fn claim_policy_of_taken(
        &self,
        state: &ClaimState,
        (route, keys_of_other_engines): (&RouteId, KeysOfOtherEngines),
        key: &RetryKey,
        taken: &Result<TakenRequest, LegacyTake>,
    ) -> ClaimPolicy {
        let policy = claim_policy(state, route, keys_of_other_engines);
        if policy == ClaimPolicy::Required && taken.as_ref().is_ok_and(|taken| !taken.is_retry()) {
            self.tries.set_unclaimed(key, true);
        }
        if self.tries.is_unclaimed(key) { ClaimPolicy::Required } else { policy }
    }

    async fn claim_if(&self, policy: ClaimPolicy, taken: LegacyTake, keys: RetryKeys, body: KnownBody) -> LegacyTake {
        match (taken, policy) {
            (LegacyTake::Taken { noted: false, .. }, ClaimPolicy::Required) => LegacyTake::Unknown,
            (LegacyTake::Taken { is_retry, .. }, ClaimPolicy::Required) => {
                let claimed = self.claim(keys, body, is_retry).await;
                if claimed == LegacyTake::Unknown {
                    tracing::error!("the store did not take a retry key of legacy in time: the request gets 503");
                }
                claimed
            }
            (LegacyTake::Taken { noted: true, is_retry }, ClaimPolicy::BestEffort) => {
                match tokio::time::timeout(LOOK_UP_MAX, self.claim(keys, body, is_retry)).await {
                    Ok(LegacyTake::Unknown) | Err(_) => LegacyTake::Taken { noted: true, is_retry },
                    Ok(other) => other,
                }
            }
            (other, _) => other,
        }
    }

    /// Waits until the store has the keys as legacy's, unless the engine of some process has the request.
    async fn claim(&self, keys: RetryKeys, body: KnownBody, is_retry: bool) -> LegacyTake {
        let is_stored = tokio::time::timeout(LOOK_UP_MAX, self.flush_taken()).await;
        if is_stored != Ok(true) {
            return LegacyTake::Unknown;
        }
        match self.look_ups.first_try(&self.store, keys.scoped, LOOK_UP_MAX).await {
            Ok(Some(Arm::Legacy)) => {}
            Ok(Some(Arm::Engine)) => {
                self.tries.forget(&keys.scoped, true);
                return LegacyTake::HeldByEngine;
            }
            Ok(None) | Err(_) => return LegacyTake::Unknown,
        }
        // The engine of another process may have taken the request under another credential since it was looked up, or
        // while the engine of this process, which gives it back, could not begin its run.
        let Some(any_caller) = keys.any_caller else {
            self.tries.set_unclaimed(&keys.scoped, false);
            return LegacyTake::Taken { noted: true, is_retry };
        };
        let (range, held) = match body {
            KnownBody::Unread => (any_caller.range(), LegacyTake::NeedsBody),
            KnownBody::Digest(digest) => {
                let range = any_caller.range_of_request(&digest, keys.is_verified());
                (range, LegacyTake::HeldUnderAnotherCredential)
            }
            KnownBody::TooLarge => (any_caller.range(), LegacyTake::HeldUnderAnotherCredential),
        };
        match self.look_ups.engine_took_any_after(&self.store, any_caller, range, LOOK_UP_MAX).await {
            Ok(false) => {
                self.tries.set_unclaimed(&keys.scoped, false);
                LegacyTake::Taken { noted: true, is_retry }
            }
            Ok(true) => held,
            Err(_) => LegacyTake::Unknown,
        }
    }
}
