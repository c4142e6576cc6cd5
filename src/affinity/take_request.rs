//! Takes a request for one of the arms, under all of its retry keys.
//!
//! A *try* is one request that a client sends; tries with the same retry key repeat each other: the *first try* and its
//! *retries*. Whichever arm *takes* the first try has its keys from then on, and also gets the retries.
//!
//! Always true: of two tries of one request the later one finds the earlier one, also if they are taken for different
//! arms, or under different versions of the flag files. For this, each try looks up the keys under which the other arm
//! would have taken it, and takes its own keys, while it holds the locks `request_locks` and `newer_files`.
//!
//! # An unverified credential
//!
//! Example: `POST /orders` with `Idempotency-Key: k1` and an `authorization` header that nobody verifies. The request
//! has three keys:
//!
//! - `scoped`: of route, k1 and credential;
//! - `any_caller`: of route and k1, the same for any credential;
//! - `of_request`: `any_caller` combined with the digest of the request (with its body).
//!
//! By earlier files its scoped key is `earlier`.
//!
//! | | legacy takes it | the engine takes it |
//! |---|---|---|
//! | refused if | the engine has `scoped` or `of_request` | legacy has `scoped` or `any_caller` |
//! | `tries` afterwards | `scoped` and `any_caller`: legacy | `scoped` and `of_request`: engine |
//! | `key_log` and its file | `scoped` and `any_caller` | nothing: the engine's keys are stored with its run |
//! | `sets` | nothing | `scoped` and `of_request` |
//! | `newer_files` | `earlier`: legacy | `earlier`: engine, with the digest |
//!
//! A retry with a refreshed token has another `scoped`, but the same `any_caller` and `of_request`. So a retry that is
//! to be taken for legacy finds the engine's `of_request`, and one for the engine finds legacy's `any_caller`.
//! `of_request` needs the body: if `sets` says that the engine may have it, the request is not taken until its body was
//! read ([`LegacyTake::NeedsBody`]).
//!
//! # A verified credential
//!
//! If the token is verified, `scoped` is of route, k1, issuer and subject, so that a refreshed token does not change
//! it. It is the only key that is looked up. But the token of a retry may be one that cannot be verified (the issuer
//! signs with a new key). So that such a retry finds the first try, each arm takes a second key beside `scoped`:
//!
//! - legacy takes `verified_callers`: one key for all verified callers with the same k1;
//! - the engine takes `of_verified_request`: `of_request` with the last quarter of `scoped`.
//!
//! The retry looks up `verified_callers` beside `any_caller`, and, with `of_request`, a range of keys that has
//! `of_verified_request` in it. A verified caller's requests look up only `scoped`, so keys that others take cannot
//! block a verified caller.
//!
//! Legacy may have `any_caller` or `verified_callers` because of another caller with the same k1. So these keys send a
//! retry to legacy only if the engine has neither `of_request` nor `of_verified_request`, nor the caller's own key by
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
    /// Takes a key for the engine, before the run begins, unless legacy has the key.
    pub fn take_for_engine(&self, key: RetryKey) -> KeyTakeResult {
        let now = Instant::now();
        let took = self.tries.take_for_engine(key, now);
        if took == KeyTakeResult::First {
            self.sets.insert_engine_key(&key, now, Duration::ZERO);
        }
        // `tries` is bounded: it may have evicted a key of legacy's that still waits in the file for the store. The
        // file is checked after the key is taken, so that legacy cannot take the key in between.
        if took == KeyTakeResult::First && self.keys.is_unstored(&key) {
            self.tries.release(&key);
            return KeyTakeResult::OtherArmHasIt;
        }
        took
    }

    /// Like [`StoreAffinity::take_for_engine`], for a request with this digest. Nothing is taken if an arm has the
    /// request under a key that earlier or newer files give it.
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
            // The key by earlier files is added to the set too. If those files decide another try for legacy, the set
            // makes legacy's take wait for the body (`NeedsBody`), so that the digests can be compared.
            for any_caller in earlier.keys.iter().filter_map(|keys| keys.any_caller) {
                self.sets.insert_engine_key(&any_caller.of_request(digest), Instant::now(), Duration::ZERO);
            }
        }
        took
    }

    /// Takes a request for the engine under `of_request`, so that retries under other credentials find it. Nothing is
    /// taken if another run has the same request, or if legacy has `any_caller` or `verified_callers`. `files_version`:
    /// of the files that decided the request.
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
            // The engine's keys are checked first: what legacy has under `any_caller` may be another caller's request.
            (_, FoundMark::Engine) => KeyTakeResult::UnderOtherFiles,
            _ if self.tries.engine_has_any(of_all_callers, Instant::now()) => KeyTakeResult::Retry,
            (FoundMark::Legacy, _) => KeyTakeResult::OtherArmHasIt,
            (FoundMark::Unknown, _) => KeyTakeResult::Unknown,
            _ if self.legacy_has(any_caller) => KeyTakeResult::OtherArmHasIt,
            _ if verified_callers.filter(legacy_took).is_some() => KeyTakeResult::OtherArmHasIt,
            _ => self.take_for_engine(of_request),
        }
    }

    /// Takes for the engine the second key of a verified caller's request ([`RetryKey::of_verified_request`]), under
    /// which a retry is found if its token cannot be verified. Called after `scoped` was taken. Keys of unverified
    /// callers with the same `retry_key` value do not prevent it. `unverified_retry` selects the lock.
    pub fn take_for_unverified_retries(
        &self,
        unverified_retry: &RetryKey,
        of_verified_request: RetryKey,
    ) -> KeyTakeResult {
        let _lock = self.request_locks.of(unverified_retry);
        self.take_for_engine(of_verified_request)
    }

    /// Implements [`Affinity::engine_took_any`].
    pub(super) async fn has_engine_taken_any(&self, range: RangeInclusive<RetryKey>) -> Result<bool, ArmUnknown> {
        // Asked first: the run that took a key may not be stored yet.
        if self.tries.engine_has_any(range.clone(), Instant::now()) {
            return Ok(true);
        }
        // The set in memory has first halves of keys, and all keys in the range have the same first half.
        if self.remembered(range.start()) == Remembered::NotEngine {
            return Ok(false);
        }
        self.look_ups.engine_took_any(&self.store, range, LOOK_UP_MAX).await
    }

    /// Whether legacy took this key, as far as this process knows: the store is not asked.
    pub(super) fn legacy_has(&self, key: &RetryKey) -> bool {
        self.tries.arm(key, Instant::now()) == Some(Arm::Legacy) || self.keys.is_unstored(key)
    }

    /// Why legacy cannot take a request, of which no arm has the key `scoped`: because of marks of newer files, keys by
    /// earlier files, or the engine's keys for other credentials. `None` if legacy can take it.
    fn refusal_for_legacy(
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
        self.refusal_by_other_credentials(all, keys.is_verified(), body)
    }

    /// Why legacy cannot take a request: the engine has it, or may have it, under another credential, according to any
    /// of these keys. `None` if legacy can take it.
    fn refusal_by_other_credentials(
        &self,
        all_keys: impl Iterator<Item = RetryKeys>,
        is_verified: bool,
        body: KnownBody,
    ) -> Option<LegacyTake> {
        let now = Instant::now();
        for any_caller in all_keys.filter_map(|keys| keys.any_caller) {
            // Any digest will do: the set in memory has first halves of keys, which do not depend on the digest.
            if self.engine_here_may_have_taken(&any_caller.of_request(&[0; 32])) {
                match body {
                    KnownBody::Unread => return Some(LegacyTake::NeedsBody),
                    // `Digest`: it is compared below. `TooLarge`: the engine of this process takes no such body, and
                    // for earlier processes the caller has asked the store (`engine_took_any`).
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

    /// Gives legacy a request that the engine had. Does not wait until its keys are noted.
    pub fn give_to_legacy_without_waiting(&self, keys: RetryKeys) {
        let _noted_in_the_background = self.give_request_to_legacy(keys);
    }

    /// Like [`Self::give_to_legacy_without_waiting`]. Returns `false`, and changes nothing, if the engine took one of
    /// the keys in these ranges. For a request that is given to legacy because of `any_caller` or `verified_callers`,
    /// which it may have in common with another caller.
    pub fn give_to_legacy_unless_held(&self, keys: RetryKeys, ranges: &[RangeInclusive<RetryKey>]) -> bool {
        let _lock = keys.any_caller.or(keys.unverified_retry).as_ref().map(|key| self.request_locks.of(key));
        let now = Instant::now();
        let is_held = ranges.iter().any(|range| self.tries.engine_has_any(range.clone(), now));
        if !is_held {
            self.give_to_legacy_without_waiting(keys);
        }
        !is_held
    }

    /// Takes a request for legacy in memory, and begins to note its keys; the first half of
    /// [`Affinity::take_for_legacy`].
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
                // Asked even if legacy has `any_caller`, which may come from another caller's request.
                if let Some(held) = self.refusal_for_legacy(&newer_files, keys, earlier, body) {
                    return Err(held);
                }
                newer_files.mark_taken_by_legacy(earlier);
            }
            // Legacy has an earlier try with the key `scoped`. That does not rule out that the engine has one under the
            // keys that earlier files gave it.
            Some(Arm::Legacy) => {
                let others = earlier.keys.iter().copied().filter(|other| !self.legacy_has(&other.scoped));
                if let Some(held) = self.refusal_by_other_credentials(others, keys.is_verified(), body) {
                    return Err(held);
                }
            }
        }
        let own = self.take_key_for_legacy(scoped).ok_or(LegacyTake::HeldByEngine)?;
        Ok(self.take_second_key(own, keys))
    }

    /// Gives legacy a request that the engine had, and begins to note its keys. In a store that several processes
    /// share, the key has to be claimed before legacy is called.
    pub(super) fn give_request_to_legacy(&self, keys: RetryKeys) -> Result<TakenRequest, LegacyTake> {
        let own = self.give_key_to_legacy(keys.scoped);
        if self.store.is_shared() {
            self.tries.set_unclaimed(&keys.scoped, true);
        }
        Ok(self.take_second_key(own, keys))
    }

    /// Waits until the keys of a request that legacy took are noted, or it is known that they cannot be.
    pub(super) async fn wait_until_noted_all(&self, taken: Result<TakenRequest, LegacyTake>) -> LegacyTake {
        let TakenRequest { own, second, second_is_enough } = match taken {
            Ok(taken) => taken,
            Err(not_taken) => return not_taken,
        };
        let (own_is_retry, second_is_retry) = (own.is_retry, second.as_ref().is_some_and(|second| second.is_retry));
        let of_second = async {
            match second {
                Some(second) => Some(self.wait_until_noted(second).await),
                None => None,
            }
        };
        match tokio::join!(self.wait_until_noted(own), of_second) {
            (noted, None) => LegacyTake::Taken { noted, is_retry: own_is_retry },
            // `any_caller` is enough: the engine looks it up before it takes any try of this request.
            (_, Some(noted)) if second_is_enough => {
                LegacyTake::Taken { noted, is_retry: own_is_retry || second_is_retry }
            }
            // `verified_callers`: a retry looks up `scoped` if its token can be verified, else `verified_callers`, so
            // both have to be noted. `verified_callers` may be another caller's, which does not make this request a
            // retry.
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

    /// Implements [`Affinity::noted_earlier`].
    pub(super) async fn has_noted_and_stored(&self, keys: &RetryKeys) -> bool {
        // `any_caller` is enough: the engine looks it up before it takes any try of this request.
        let key = keys.any_caller.unwrap_or(keys.scoped);
        // That this process noted the key is not enough: if an earlier process had noted it before, its retry window
        // ends earlier in the store than here.
        self.tries.was_noted(&key, Instant::now())
            && self.look_ups.first_try(&self.store, key, LOOK_UP_MAX).await == Ok(Some(Arm::Legacy))
    }

    /// Takes for legacy, after `scoped`, also the key by which a retry under another credential finds the request.
    fn take_second_key(&self, own: TakenKey, keys: RetryKeys) -> TakenRequest {
        let second = keys.of_legacy().find(|key| *key != keys.scoped).map(|key| self.give_key_to_legacy(key));
        TakenRequest { own, second, second_is_enough: keys.any_caller.is_some() }
    }
}

impl TakenRequest {
    /// Whether legacy had the key `scoped` before.
    pub(super) fn is_retry(&self) -> bool {
        self.own.is_retry
    }
}

/// A key that legacy has taken, and that is being noted.
struct TakenKey {
    key: RetryKey,
    /// Legacy had it before.
    is_retry: bool,
    note: NoteStatus,
}

/// A request that legacy has taken, and whose keys are being noted.
pub(super) struct TakenRequest {
    /// The key `scoped`.
    own: TakenKey,
    /// The key by which a retry under another credential finds the request: `any_caller` or `verified_callers`.
    second: Option<TakenKey>,
    /// Whether the request counts as noted as soon as `second` is noted, even if `own` is not.
    second_is_enough: bool,
}
