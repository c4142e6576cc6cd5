//! Takes a request for one of the arms, under all of its retry keys.
//!
//! Always true: of two tries of one request the second finds the first, also where they are taken for different arms,
//! or by different versions of the files. Each try looks up the keys under which the other arm takes, and takes its own
//! keys, while it holds the locks of `request_locks` and `newer_files`.
//!
//! Example: `POST /orders` with `Idempotency-Key: k1` and an `authorization` header that nobody verifies. It has the
//! keys `scoped` (of route, k1 and credential), `any_caller` (of route and k1, the same for any credential), and
//! `of_request` (`any_caller` combined with the digest of the request). By earlier files its scoped key is `earlier`.
//!
//! | | legacy takes it | the engine takes it |
//! |---|---|---|
//! | refused if | the engine has `scoped` or `of_request` | legacy has `scoped` or `any_caller` |
//! | `tries` afterwards | `scoped` and `any_caller`: legacy | `scoped` and `of_request`: engine |
//! | `key_log` and its file | `scoped` and `any_caller` | nothing: the engine's keys are stored with its run |
//! | `sets` | nothing | `scoped` and `of_request` |
//! | `newer_files` | `earlier`: legacy | `earlier`: engine, with the digest |
//!
//! A retry with a refreshed token has another `scoped`, but the same `any_caller` and `of_request`. So legacy finds the
//! engine's `of_request`, and the engine finds legacy's `any_caller`. For `of_request` the body is needed: where `sets`
//! says that the engine may have it, the request is not taken until its body was read ([`LegacyTake::NeedsBody`]).
//!
//! If the token is verified, the request has another key `scoped`, of route, k1, issuer and subject, and only that is
//! looked up. The token of its retry may be one that cannot be verified. So that such a retry finds it, each arm takes
//! a second key beside `scoped`: legacy `verified_callers` (one key for all verified callers with the same key value),
//! the engine `of_verified_request` (`of_request` with the last quarter of `scoped`). Such a retry looks up
//! `verified_callers` beside `any_caller`; `of_verified_request` is in the range of keys that it looks up beside
//! `of_request`. A verified caller looks up none of these four keys, so what others took under them does not affect it.
//! Legacy may have `any_caller` or `verified_callers` because of another caller: a retry stays with legacy because of
//! one of them only if the engine has neither `of_request` nor `of_verified_request`, nor the caller's own key by
//! earlier files ([`EarlierKeys::engine_has_own`]).

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::key_writer::NoteStatus;
use super::newer_files::{FoundMark, TakenMarks};
use super::tries::KeyTakeResult;
use super::{LOOK_UP_MAX, StoreAffinity};
use crate::exchange::{Affinity, ArmUnknown, EarlierKeys, KnownBody, LegacyTake, Remembered};
use crate::flag::{Arm, RetryKey, RetryKeys};

impl StoreAffinity {
    /// Takes a first try for the engine, before its run begins, unless legacy has it.
    pub fn take_for_engine(&self, key: RetryKey) -> KeyTakeResult {
        let now = Instant::now();
        let took = self.tries.take_for_engine(key, now);
        if took == KeyTakeResult::First {
            self.sets.insert_engine_key(&key, now, Duration::ZERO);
        }
        // `tries` may have removed a key of legacy's that still waits in the file. The file is checked after the key is
        // taken, so that legacy cannot take the key in between.
        if took == KeyTakeResult::First && self.keys.is_unstored(&key) {
            self.tries.release(&key);
            return KeyTakeResult::OtherArmHasIt;
        }
        took
    }

    /// Like [`StoreAffinity::take_for_engine`], for a request with this digest; fails also if an arm has the request
    /// under a key that earlier or newer files give it.
    pub fn take_request_for_engine(&self, key: RetryKey, digest: &[u8; 32], earlier: &EarlierKeys) -> KeyTakeResult {
        let mut newer_files = self.newer_files.lock();
        if self.tries.arm(&key, Instant::now()).is_none() {
            match newer_files.find(&key, earlier.files_version, KnownBody::Digest(*digest)) {
                FoundMark::None => {}
                FoundMark::Legacy => return KeyTakeResult::OtherArmHasIt,
                FoundMark::Engine | FoundMark::NeedsBody => return KeyTakeResult::UnderOtherFiles,
                FoundMark::Unknown => return KeyTakeResult::Unknown,
            }
            // Since the proxy looked up the earlier keys, another request may have taken one of them.
            if earlier.keys.iter().any(|keys| self.tries.arm(&keys.scoped, Instant::now()) == Some(Arm::Engine)) {
                return KeyTakeResult::UnderOtherFiles;
            }
            let legacy_has_any = |keys: &RetryKeys| {
                let mut of_others = keys.of_legacy_under_other_credentials().filter(|_| !earlier.engine_has_own);
                self.legacy_has(&keys.scoped) || of_others.any(|key| self.legacy_has(&key))
            };
            if earlier.keys.iter().any(legacy_has_any) {
                return KeyTakeResult::OtherArmHasIt;
            }
        }
        let took = self.take_for_engine(key);
        if took == KeyTakeResult::First {
            newer_files.mark_taken_by_engine(earlier, digest);
            // The earlier key is in the set too, so that before legacy takes a request that older files decided, its
            // body is read (`NeedsBody`) and compared with the body of this request.
            for any_caller in earlier.keys.iter().filter_map(|keys| keys.any_caller) {
                self.sets.insert_engine_key(&any_caller.of_request(digest), Instant::now(), Duration::ZERO);
            }
        }
        took
    }

    /// Takes a request for the engine under its key for any caller, unless another run has the same request, or legacy
    /// has any request with that key or with the one of verified callers. `files_version` is that of the files that
    /// decided the request.
    pub fn take_for_engine_under_any_credential(
        &self,
        any_caller: &RetryKey,
        verified_callers: Option<&RetryKey>,
        digest: &[u8; 32],
        files_version: u64,
    ) -> KeyTakeResult {
        let _lock = self.request_locks.of(any_caller);
        let newer_files = self.newer_files.lock();
        let of_request = any_caller.of_request(digest);
        let of_all_callers = any_caller.range_of_request(digest, false);
        let find = |key: &RetryKey| newer_files.find(key, files_version, KnownBody::Digest(*digest));
        let legacy_took = |key: &&RetryKey| find(key) == FoundMark::Legacy || self.legacy_has(key);
        match (find(any_caller), find(&of_request)) {
            // The engine's keys come first: what legacy has for any caller may be another caller's request.
            (_, FoundMark::Engine) => KeyTakeResult::UnderOtherFiles,
            _ if self.tries.engine_has_any(of_all_callers, Instant::now()) => KeyTakeResult::Retry,
            (FoundMark::Legacy, _) => KeyTakeResult::OtherArmHasIt,
            (FoundMark::Unknown, _) => KeyTakeResult::Unknown,
            _ if self.legacy_has(any_caller) => KeyTakeResult::OtherArmHasIt,
            _ if verified_callers.filter(legacy_took).is_some() => KeyTakeResult::OtherArmHasIt,
            _ => self.take_for_engine(of_request),
        }
    }

    /// Takes for the engine the key ([`RetryKey::of_verified_request`]) under which retries of a verified caller's
    /// request are found if their tokens cannot be verified. Called after the caller's own key was taken. A request of
    /// an unverified caller with the same key value does not keep a verified caller from taking this key.
    pub fn take_for_unverified_retries(
        &self,
        unverified_retry: &RetryKey,
        of_verified_request: RetryKey,
    ) -> KeyTakeResult {
        let _lock = self.request_locks.of(unverified_retry);
        self.take_for_engine(of_verified_request)
    }

    /// See [`Affinity::engine_took_any`].
    pub(super) async fn has_engine_taken_any(&self, range: RangeInclusive<RetryKey>) -> Result<bool, ArmUnknown> {
        // The run that took a key may not be stored yet.
        if self.tries.engine_has_any(range.clone(), Instant::now()) {
            return Ok(true);
        }
        // All keys in the range share their first half, and the set in memory has only the beginning of a key.
        if self.remembered(range.start()) == Remembered::NotEngine {
            return Ok(false);
        }
        self.look_ups.engine_took_any(&self.store, range, LOOK_UP_MAX).await
    }

    /// Whether legacy took this first try, as far as this process knows.
    pub(super) fn legacy_has(&self, key: &RetryKey) -> bool {
        self.tries.arm(key, Instant::now()) == Some(Arm::Legacy) || self.keys.is_unstored(key)
    }

    /// Called if the engine does not have the request under the caller's own key: looks for it under the key for any
    /// caller and the keys by newer and earlier files. Returns why legacy cannot take it; `None` if it can.
    fn why_legacy_cannot_take(
        &self,
        newer_files: &TakenMarks,
        keys: RetryKeys,
        earlier: &EarlierKeys,
        body: KnownBody,
    ) -> Option<LegacyTake> {
        let now = Instant::now();
        let engine_has = |key: &RetryKey| self.tries.arm(key, now) == Some(Arm::Engine);
        let of_request = |key: RetryKey| match body {
            KnownBody::Digest(digest) => Some(key.of_request(&digest)),
            KnownBody::Unread | KnownBody::TooLarge => None,
        };
        for key in [keys.scoped].into_iter().chain(keys.any_caller.and_then(of_request)) {
            match newer_files.find(&key, earlier.files_version, body) {
                FoundMark::None | FoundMark::Legacy => {}
                FoundMark::Engine => return Some(LegacyTake::HeldUnderNewerFiles),
                FoundMark::NeedsBody => return Some(LegacyTake::NeedsBody),
                FoundMark::Unknown => return Some(LegacyTake::Unknown),
            }
        }
        // Since the proxy looked up the earlier keys, another request may have taken one of them.
        if earlier.keys.iter().any(|keys| engine_has(&keys.scoped)) {
            return Some(LegacyTake::HeldByEngine);
        }
        let all = [keys].into_iter().chain(earlier.keys.iter().copied());
        self.why_engine_may_have_it(all, keys.is_verified(), body)
    }

    /// Why legacy cannot take a request that the engine has, or may have, under another credential, in the scope of any
    /// of these keys; `None` if it can.
    fn why_engine_may_have_it(
        &self,
        scopes: impl Iterator<Item = RetryKeys>,
        is_verified: bool,
        body: KnownBody,
    ) -> Option<LegacyTake> {
        let now = Instant::now();
        for any_caller in scopes.filter_map(|keys| keys.any_caller) {
            // Any digest will do: the set in memory has only the beginning of a key, which does not depend on it.
            if self.engine_here_may_have_taken(&any_caller.of_request(&[0; 32])) {
                match body {
                    KnownBody::Unread => return Some(LegacyTake::NeedsBody),
                    // A digest is compared below. The engine of this process takes no body that is too large, and the
                    // store was asked about those that earlier processes took (`engine_took_any`).
                    KnownBody::TooLarge | KnownBody::Digest(_) => {}
                }
            }
            let has_request =
                |digest| self.tries.engine_has_any(any_caller.range_of_request(&digest, is_verified), now);
            if matches!(body, KnownBody::Digest(digest) if has_request(digest)) {
                return Some(LegacyTake::HeldUnderAnotherCredential);
            }
        }
        None
    }

    fn take_key_for_legacy(&self, key: RetryKey) -> Option<TakenKey> {
        let (is_retry, note) = self.tries.take_for_legacy(key, Instant::now(), || self.keys.note(key))?;
        Some(TakenKey { key, is_retry, note })
    }

    fn give_key_to_legacy(&self, key: RetryKey) -> TakenKey {
        let (is_retry, note) = self.tries.give_to_legacy(key, Instant::now(), || self.keys.note(key));
        TakenKey { key, is_retry, note }
    }

    /// Gives legacy a request that the engine had, without waiting until its keys are noted.
    pub fn assign_to_legacy(&self, keys: RetryKeys) {
        let _noted_meanwhile = self.give_request_to_legacy(keys);
    }

    /// Like [`Self::assign_to_legacy`]. Returns `false`, and changes nothing, if the engine took one of the keys in
    /// these ranges. For a request that goes to legacy because of a key that several callers share.
    pub fn assign_to_legacy_unless_held(&self, keys: RetryKeys, ranges: &[RangeInclusive<RetryKey>]) -> bool {
        let _lock = keys.any_caller.or(keys.unverified_retry).as_ref().map(|key| self.request_locks.of(key));
        let now = Instant::now();
        let is_held = ranges.iter().any(|range| self.tries.engine_has_any(range.clone(), now));
        if !is_held {
            self.assign_to_legacy(keys);
        }
        !is_held
    }

    /// Takes a request for legacy, as [`Affinity::take_for_legacy`](crate::exchange::Affinity::take_for_legacy) says.
    pub(super) fn take_request_for_legacy(
        &self,
        keys: RetryKeys,
        earlier: &EarlierKeys,
        body: KnownBody,
    ) -> Result<TakenRequest, LegacyTake> {
        let RetryKeys { scoped, any_caller, unverified_retry, .. } = keys;
        let _lock = any_caller.or(unverified_retry).as_ref().map(|key| self.request_locks.of(key));
        let mut newer_files = self.newer_files.lock();
        let arm = self.tries.arm(&scoped, Instant::now());
        match arm {
            Some(Arm::Engine) => return Err(LegacyTake::HeldByEngine),
            None => {
                // Asked even if legacy has the key for any caller, which may come from another caller's request.
                if let Some(held) = self.why_legacy_cannot_take(&newer_files, keys, earlier, body) {
                    return Err(held);
                }
                newer_files.mark_taken_by_legacy(earlier);
            }
            // A try of the caller that legacy has says nothing about one in another scope, which the engine may have.
            Some(Arm::Legacy) => {
                let others = earlier.keys.iter().copied().filter(|other| !self.legacy_has(&other.scoped));
                if let Some(held) = self.why_engine_may_have_it(others, keys.is_verified(), body) {
                    return Err(held);
                }
            }
        }
        let own = self.take_key_for_legacy(scoped).ok_or(LegacyTake::HeldByEngine)?;
        Ok(self.take_for_other_credentials(own, keys))
    }

    /// Records that legacy has a request, which the engine gave back. In a shared store its key is to be claimed before
    /// legacy gets it.
    pub(super) fn give_request_to_legacy(&self, keys: RetryKeys) -> Result<TakenRequest, LegacyTake> {
        let own = self.give_key_to_legacy(keys.scoped);
        if self.store.is_shared() {
            self.tries.set_unclaimed(&keys.scoped, true);
        }
        Ok(self.take_for_other_credentials(own, keys))
    }

    /// Waits until the keys of a request that legacy has are noted, or cannot be noted.
    pub(super) async fn wait_until_noted_all(&self, taken: Result<TakenRequest, LegacyTake>) -> LegacyTake {
        let TakenRequest { own, other, other_is_enough } = match taken {
            Ok(taken) => taken,
            Err(not_taken) => return not_taken,
        };
        let (own_is_retry, other_is_retry) = (own.is_retry, other.as_ref().is_some_and(|other| other.is_retry));
        let of_other = async {
            match other {
                Some(other) => Some(self.wait_until_noted(other).await),
                None => None,
            }
        };
        match tokio::join!(self.wait_until_noted(own), of_other) {
            (noted, None) => LegacyTake::Taken { noted, is_retry: own_is_retry },
            // It is enough if the key for any caller is noted: the engine looks for it before it takes a request.
            (_, Some(noted)) if other_is_enough => {
                LegacyTake::Taken { noted, is_retry: own_is_retry || other_is_retry }
            }
            // A retry of a verified caller looks for its own key if its token can be verified, else for the other one.
            // A try of another caller does not make this request a retry.
            (own_noted, Some(noted)) => LegacyTake::Taken { noted: own_noted && noted, is_retry: own_is_retry },
        }
    }

    async fn wait_until_noted(&self, TakenKey { key, note, is_retry: _ }: TakenKey) -> bool {
        let is_noted = self.keys.wait_until_noted(note).await;
        if is_noted {
            self.tries.record_noted(&key);
        }
        is_noted
    }

    /// As [`Affinity::noted_earlier`](crate::exchange::Affinity::noted_earlier) says.
    pub(super) async fn has_noted_and_stored(&self, keys: &RetryKeys) -> bool {
        // If there is a key for any caller, it is enough that this one is noted: the engine looks for it.
        let key = keys.any_caller.unwrap_or(keys.scoped);
        // The key's window may have ended in the store before it ends here: an earlier process may have noted it first.
        self.tries.was_noted(&key, Instant::now())
            && self.look_ups.first_try(&self.store, key, LOOK_UP_MAX).await == Ok(Some(Arm::Legacy))
    }

    /// Takes, after the caller's own key, also the key that a retry under another credential has.
    fn take_for_other_credentials(&self, own: TakenKey, keys: RetryKeys) -> TakenRequest {
        let other = keys.of_legacy().find(|key| *key != keys.scoped).map(|key| self.give_key_to_legacy(key));
        TakenRequest { own, other, other_is_enough: keys.any_caller.is_some() }
    }
}

impl TakenRequest {
    /// Whether legacy had the caller's own key before.
    pub(super) fn is_retry(&self) -> bool {
        self.own.is_retry
    }
}

/// A key that legacy has, and that is being noted.
struct TakenKey {
    key: RetryKey,
    /// Legacy had it before.
    is_retry: bool,
    note: NoteStatus,
}

/// A request that legacy has, and whose keys are being noted.
pub(super) struct TakenRequest {
    own: TakenKey,
    /// The key that a retry under another credential has.
    other: Option<TakenKey>,
    /// Whether the request counts as noted as soon as `other` is noted, even if `own` is not.
    other_is_enough: bool,
}
