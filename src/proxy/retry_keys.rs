//! The retry keys of one request, and which arm took them.
//!
//! Always true, where the caller's scope is a credential that nobody verified:
//! - A request that legacy takes is also recorded for any caller, so that a retry with a refreshed credential stays
//!   with legacy.
//! - A request that the engine took is refused under another credential, and legacy is not called.

use futures_util::future::join_all;

use super::Shared;
use super::stored_first_try::{FoundTry, first_try};
use crate::exchange::{
    Affinity, ArmUnknown, EarlierKeys, KeysOfOtherEngines, KnownBody, KnownKeysOfOtherEngines, LegacyTake, Remembered,
    RequestCopy, RequestDigests,
};
use crate::flag::{AmbiguousKey, Arm, EarlierRetryKeys, FlagSet, RequestFacts, RetryKey, RetryKeys, Route, RouteFlag};
use crate::names::RouteId;

/// The retry keys of a request.
pub(super) struct KeysOfRequest {
    pub present: Option<RetryKeys>,
    /// Whether `present` are the keys by the files in force.
    pub by_present_files: bool,
    /// The keys by the scopes of earlier files.
    pub earlier: Vec<RetryKeys>,
}

/// Returns the retry keys of a request: the present ones, and those by the scopes of earlier files. A request without
/// present keys may be a retry whose first try came under earlier files and is still in flight. So its newest earlier
/// keys serve as the present ones for as long as such a first try may come. Afterwards the request is only looked up
/// under its earlier keys: their scope may have been given up because it gave different requests the same key.
///
/// # Errors
/// It is not clear which key the request has.
pub(super) fn keys_of_request(
    set: &FlagSet,
    flag: &RouteFlag,
    facts: &RequestFacts<'_>,
) -> Result<KeysOfRequest, AmbiguousKey> {
    let EarlierRetryKeys { keys: mut earlier, of_first_tries } = set.earlier_retry_keys(flag, facts);
    let present = match flag.route.workflow {
        Some(_) => set.retry_keys(flag, facts)?,
        None => None,
    };
    let by_present_files = present.is_some();
    let present = present.or(of_first_tries);
    // A verified caller's request must not stay with legacy because of another verified caller's request. Keys by
    // earlier files that could not verify its token would have that effect.
    if present.is_some_and(|keys| keys.is_verified()) {
        earlier.iter_mut().for_each(|keys| keys.verified_callers = None);
    }
    earlier.retain(|keys| Some(*keys) != present);
    Ok(KeysOfRequest { present, by_present_files, earlier })
}

/// Records a request as legacy's, unless the engine has it.
pub(super) async fn take_for_legacy(
    affinity: &dyn Affinity,
    route: &RouteId,
    keys: Option<RetryKeys>,
    earlier: &EarlierKeys,
    body: KnownBody,
) -> LegacyTake {
    match keys {
        Some(keys) => affinity.take_for_legacy(route, keys, earlier, body).await,
        None => LegacyTake::FIRST,
    }
}

/// Records as legacy's a request that the engine gave back.
pub(super) async fn give_to_legacy(
    affinity: &dyn Affinity,
    keys: Option<RetryKeys>,
    request: &RequestCopy,
) -> LegacyTake {
    match keys {
        Some(keys) => affinity.give_to_legacy(keys, KnownBody::Digest(request.digest())).await,
        None => LegacyTake::FIRST,
    }
}

/// The most look-ups of [`record_unless_noted_earlier`] at once: each waits for the store, which may not answer.
pub(super) const NOTED_LOOK_UPS_MAX: usize = 1_024;

/// Records that legacy serves a retry whose keys cannot be noted now, unless the store has them from an earlier try.
/// The request does not wait for the store. If too many look-ups wait, the request is recorded without a look-up.
pub(super) fn record_unless_noted_earlier(shared: &Shared, route: &Route, keys: RetryKeys) {
    let (affinity, id, oldest_id) = (shared.affinity.clone(), route.id.clone(), route.first_id().clone());
    let Ok(permit) = shared.noted_look_ups.clone().try_acquire_owned() else {
        drop(affinity.record_served_unnoted(&keys, &id, &oldest_id));
        return;
    };
    let in_progress = shared.workflow_gate.hold();
    shared.tasks.spawn(async move {
        let _in_progress = in_progress;
        if !affinity.noted_earlier(&keys).await {
            affinity.record_served_unnoted(&keys, &id, &oldest_id).await;
        }
        drop(permit);
    });
}

/// Whether the engine of this process may have a request with one of these keys under another credential.
pub(super) fn this_engine_may_have_taken(affinity: &dyn Affinity, any_caller: &[RetryKey]) -> bool {
    // Any digest will do: all keys of one `any_caller` share their first half, and the set in memory is searched by the
    // beginning of a key.
    let here = |key: &RetryKey| {
        matches!(affinity.remembered(&key.of_request(&[0; 32])), Remembered::Unknown | Remembered::TakenBy(Arm::Engine))
    };
    any_caller.iter().any(here)
}

/// Whether the engine has this exact request under another credential of the same caller, who may be verified. Requests
/// that the engine gave back to legacy do not count.
pub(super) async fn engine_took(
    affinity: &dyn Affinity,
    first_try: &KnownFirstTry,
    digests: &RequestDigests,
) -> Result<bool, ArmUnknown> {
    let is_verified = first_try.present.is_some_and(|keys| keys.is_verified());
    for key in &first_try.any_caller {
        for digest in digests.all() {
            if affinity.engine_took_any(key.range_of_request(&digest, is_verified)).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether the engine has any request with one of these keys, under another credential and with any body: for a request
/// whose body is too large to compare.
pub(super) async fn engine_took_any(affinity: &dyn Affinity, any_caller: &[RetryKey]) -> Result<bool, ArmUnknown> {
    for key in any_caller {
        if affinity.engine_took_any(key.range()).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Counts a request that was refused because the engine has it under another credential or under other flag files, or
/// because each arm has a request with one of its keys.
pub(super) fn count_taken(route: &RouteId) {
    metrics::counter!("pointsman_retry_keys_held_total", "route" => route.to_string()).increment(1);
    let message = "a request was refused: the engine has the same request with this retry key under another credential \
                   or under other flag files, or each arm has a request with one of its keys";
    tracing::info!(%route, "{message}");
}

/// What is known of the first try of a request, under its present keys and under those by the scopes of earlier files.
pub(super) struct KnownFirstTry {
    /// The keys under which the request is handled: those of its first try if one is known, else the present ones.
    pub keys: Option<RetryKeys>,
    /// The arm that took the first try.
    pub arm: Option<Arm>,
    /// Whether it is unknown which arm took the first try, because the store did not answer.
    pub is_unknown: bool,
    /// Whether it is unknown which arm took the first try, and the request is answered nevertheless.
    pub is_served_while_unknown: bool,
    /// While `is_unknown`: whether the engine of this process may have taken the first try, not only the engine of
    /// another process.
    pub this_engine_may_have_it: bool,
    /// Whether legacy took the first try and this is recorded under the request's own key: in the store, or in the file
    /// of retry keys, from which it is copied to the store. A record under a key of several callers does not count: it
    /// expires with another caller's request.
    pub is_stored: bool,
    /// Whether the arm is known from a key of this very caller, not from one that several callers share. What legacy
    /// took under a shared key may be another caller's request, while the engine has this one.
    is_own: bool,
    /// Whether legacy took a request under one of its keys and the engine under another: files merged several routes
    /// into one, or swapped what routes match, so it is unknown which of the two was its first try.
    pub is_contradictory: bool,
    present: Option<RetryKeys>,
    /// What was known, before the first look-up, of the keys that the engines of other processes took.
    keys_of_other_engines: KnownKeysOfOtherEngines,
    /// Whether `present` are the keys by the files in force. Of other keys it is not known whether the engines of other
    /// processes took them.
    by_present_files: bool,
    /// The keys by earlier scopes.
    earlier: Vec<RetryKeys>,
    /// The keys for any caller (one for each present or earlier scope) under which the engine may have this request
    /// with another credential. A scope is left out if the engine took the caller's own key in it, or if this process
    /// took that key for legacy. A record in the store that legacy took it counts only if the store is not shared:
    /// otherwise the process that wrote the record may have refused that try.
    pub any_caller: Vec<RetryKey>,
    /// Keys under which the engine took nothing. Only the store knows whether legacy took them before this process
    /// started.
    not_in_engine: Vec<RetryKeys>,
    /// Whether the workflow only reads, so that either arm may answer what legacy took.
    reads_only: bool,
    /// If the workflow only reads: keys that the engine of another process may have taken. They are looked up only if
    /// legacy is to answer.
    perhaps_in_other_engines: Vec<RetryKeys>,
}

impl KnownFirstTry {
    /// Looks up the first try. Waits for the store only if the engine may have taken it. With `reads_only`, only a
    /// first try that the engine took counts: under earlier files the workflow may have done more than read.
    pub(super) async fn look_up(
        affinity: &dyn Affinity,
        route: &Route,
        KeysOfRequest { present, by_present_files, earlier }: KeysOfRequest,
        reads_only: bool,
    ) -> Self {
        let mut found = Self {
            keys: present,
            arm: None,
            is_unknown: false,
            is_served_while_unknown: false,
            this_engine_may_have_it: false,
            is_stored: false,
            is_own: false,
            is_contradictory: false,
            present,
            // Read before any key is looked up.
            keys_of_other_engines: affinity.keys_of_other_engines(route),
            by_present_files,
            earlier,
            any_caller: Vec::new(),
            not_in_engine: Vec::new(),
            reads_only,
            perhaps_in_other_engines: Vec::new(),
        };
        for key in found.all().filter_map(|keys| keys.any_caller).collect::<Vec<_>>() {
            if !found.any_caller.contains(&key) {
                found.any_caller.push(key);
            }
        }
        let mut perhaps_in_engine = Vec::new();
        for keys in found.all().collect::<Vec<_>>() {
            match found.remembered(affinity, &keys) {
                Remembered::TakenBy(arm) => {
                    found.set_taken(keys, arm);
                    found.is_own = true;
                    found.any_caller.retain(|key| Some(*key) != keys.any_caller);
                }
                Remembered::Unknown => {
                    found.this_engine_may_have_it = true;
                    perhaps_in_engine.push(keys);
                }
                Remembered::NotEngineHere if reads_only => found.perhaps_in_other_engines.push(keys),
                Remembered::NotEngineHere => perhaps_in_engine.push(keys),
                Remembered::NotEngine => found.not_in_engine.push(keys),
            }
        }
        found.ask_store(affinity, perhaps_in_engine).await;
        found
    }

    /// Whether it is known which arm took a try of this caller with the same key, even if other callers sent requests
    /// with it. If files made one route of several, there may be another try, by the engine, under another scope and
    /// another credential ([`Self::any_caller`]).
    pub(super) fn is_certain(&self) -> bool {
        self.arm.is_some() && self.is_own
    }

    /// Returns the present keys, and those by earlier scopes.
    fn all(&self) -> impl Iterator<Item = RetryKeys> {
        self.present.into_iter().chain(self.earlier.iter().copied())
    }

    /// Returns what is known, without asking the store, about a first try of this request with `keys`.
    fn remembered(&self, affinity: &dyn Affinity, keys: &RetryKeys) -> Remembered {
        self.with_other_engines(affinity.remembered(&keys.scoped), Some(*keys) == self.present)
    }

    /// Adds to `known` what is known about the engines of other processes: only about keys by the present files.
    fn with_other_engines(&self, known: Remembered, by_present_files: bool) -> Remembered {
        match known {
            Remembered::NotEngineHere if self.knows_keys_of_other_engines() && by_present_files => {
                Remembered::NotEngine
            }
            known => known,
        }
    }

    /// Whether it is known which keys the engines of other processes took by the present files.
    fn knows_keys_of_other_engines(&self) -> bool {
        self.keys_of_other_engines.are_all_known && self.by_present_files
    }

    /// Whether the engine may have a request with one of the keys, with any body, under another credential of the same
    /// caller.
    pub(super) fn engine_may_have_another_credential(&self, affinity: &dyn Affinity) -> bool {
        let of_present = self.present.and_then(|keys| keys.any_caller);
        // Any digest will do, as in `this_engine_may_have_taken`.
        self.any_caller.iter().any(|key| {
            let known = affinity.remembered(&key.of_request(&[0; 32]));
            self.with_other_engines(known, Some(*key) == of_present) != Remembered::NotEngine
        })
    }

    /// Whether legacy took a request with one of the keys under another credential, as far as this process remembers.
    pub(super) fn legacy_took_under_another_credential(&self, affinity: &dyn Affinity) -> bool {
        let keys = self.all().flat_map(RetryKeys::of_legacy_under_other_credentials);
        keys.into_iter().any(|key| affinity.remembered(&key) == Remembered::TakenBy(Arm::Legacy))
    }

    /// Whether the engine may have the request as long as the store does not answer: this process's engine, or that of
    /// another process whose keys were not read since it answered the route.
    pub(super) fn engine_may_have_it_while_unknown(&self) -> bool {
        let KnownKeysOfOtherEngines { is_unread, is_any_unread, .. } = self.keys_of_other_engines;
        self.this_engine_may_have_it || is_unread || (is_any_unread && !self.earlier.is_empty())
    }

    /// Asks the store whether the engine of another process took the first try, for the keys whose look-up was
    /// postponed.
    pub(super) async fn ask_store_about_other_engines(&mut self, affinity: &dyn Affinity) {
        let keys = std::mem::take(&mut self.perhaps_in_other_engines);
        self.ask_store(affinity, keys).await;
    }

    /// Looks up the first try once more after the body was read: if that took long, the engine may have taken a retry
    /// meanwhile, and only the store remembers it.
    pub(super) async fn look_up_again(&mut self, affinity: &dyn Affinity) {
        let remembered = self.all().map(|keys| (keys, self.remembered(affinity, &keys)));
        let perhaps: Vec<_> = remembered.filter(|(_, known)| *known != Remembered::NotEngine).collect();
        self.this_engine_may_have_it |= perhaps.iter().any(|(_, known)| *known != Remembered::NotEngineHere);
        self.ask_store(affinity, perhaps.into_iter().map(|(keys, _)| keys).collect()).await;
    }

    /// Asks the store whether legacy took the first try before this process started: needed only if the engine is to
    /// answer, which may be because it took a request under another key.
    pub(super) async fn ask_store_about_legacy(&mut self, affinity: &dyn Affinity) {
        let keys = std::mem::take(&mut self.not_in_engine);
        if !self.reads_only {
            self.ask_store(affinity, keys).await;
        }
    }

    /// Looks up all keys at the same time, because each look-up takes its whole time limit if the store does not
    /// answer.
    async fn ask_store(&mut self, affinity: &dyn Affinity, keys: Vec<RetryKeys>) {
        let found = join_all(keys.iter().map(|keys| first_try(affinity, keys))).await;
        for (keys, found) in keys.into_iter().zip(found) {
            match found {
                // A request that another caller may have sent does not contradict what is known of this one. In that
                // case the request is recorded under its own present keys, whose window begins now.
                Ok(FoundTry { arm: Some(arm), is_own: false }) => {
                    if self.arm.is_none() {
                        self.set_taken(self.present.unwrap_or(keys), arm);
                    }
                }
                Ok(FoundTry { arm: Some(arm), is_own: true }) => {
                    if !self.is_own {
                        self.arm = None; // the known arm may be that of another caller's request
                    }
                    self.is_own = true;
                    // In a shared store legacy's own key proves nothing about another credential.
                    if arm == Arm::Engine || !affinity.is_store_shared() {
                        self.any_caller.retain(|key| Some(*key) != keys.any_caller);
                    }
                    let is_first = self.arm.is_none();
                    self.set_taken(keys, arm);
                    if !is_first {
                        continue;
                    }
                    // If this process remembers the request as legacy's, the answer may come from memory alone, and the
                    // key may be neither in the store nor in the file. In that case the request counts as not stored,
                    // so that it is recorded and noted again.
                    let legacy_keys = [Some(keys.scoped), keys.any_caller].into_iter().flatten();
                    let is_remembered = |key| affinity.remembered(&key) == Remembered::TakenBy(Arm::Legacy);
                    self.is_stored = arm == Arm::Legacy && !legacy_keys.into_iter().any(is_remembered);
                }
                Ok(FoundTry { arm: None, .. }) => {}
                Err(ArmUnknown) => self.is_unknown = true,
            }
        }
        self.is_unknown = self.is_unknown && !self.is_certain();
    }

    /// Returns the keys of the request other than `keys`. `files_version` is the version of the files by which the
    /// request was decided. `is_answered_anyway`: it is answered even if the store does not answer.
    pub(super) fn earlier_keys(&self, files_version: u64, is_answered_anyway: bool) -> EarlierKeys {
        let others = |keys: &RetryKeys| self.keys.is_none_or(|own| own.scoped != keys.scoped);
        let keys = self.all().filter(others).collect();
        let engine_has_own = self.is_own && self.arm == Some(Arm::Engine);
        let KnownKeysOfOtherEngines { version, are_all_known, .. } = self.keys_of_other_engines;
        let keys_of_other_engines = match self.is_served_while_unknown {
            _ if are_all_known => KeysOfOtherEngines::Known(version),
            true => KeysOfOtherEngines::Unanswered(version),
            false => KeysOfOtherEngines::Asked { version, claim_may_fail: is_answered_anyway },
        };
        EarlierKeys { keys, files_version, engine_has_own, legacy_has_own: self.is_stored, keys_of_other_engines }
    }

    /// Notes that an arm took the request under these keys. The first arm that is noted counts; the caller begins with
    /// the present keys and goes on with those of the newest files.
    fn set_taken(&mut self, keys: RetryKeys, arm: Arm) {
        let counts = arm == Arm::Engine || !self.reads_only;
        self.is_contradictory |= counts && self.arm.is_some_and(|other| other != arm);
        if self.arm.is_none() {
            (self.keys, self.arm) = (Some(keys), counts.then_some(arm));
        }
    }
}
