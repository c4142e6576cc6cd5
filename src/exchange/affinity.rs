//! Which arm owns an instance, and which took the first try of a request.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::{AdoptionAnswer, AdoptionRequest, LegacyAdmission, LegacyAdmissionRequest, OpenWriteGuard};
use crate::flag::{Arm, Family, InstanceKey, Owner, RetryKey, RetryKeys, Route};
use crate::names::{PlanSet, RouteId, RunId};

/// The store did not answer, so the owner of an instance, or the arm that took a first try, is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store did not answer, so it is not known which arm owns this instance or took this first try")]
pub struct ArmUnknown;

/// What is known of a first try without asking the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// This arm took the first try.
    TakenBy(Arm),
    /// The engine did not take it. Legacy may have taken it before this process started.
    NotEngine,
    /// The engine of this process did not take it; only the store knows whether another process's engine did, unless
    /// [`Affinity::keys_of_other_engines`] says that the keys of others are known.
    NotEngineHere,
    /// Only the store knows.
    Unknown,
}

/// The result of taking a first try for legacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyTake {
    /// Legacy has it.
    Taken {
        /// Whether the request's keys are noted: in the file of retry keys, or in the store. If not, the engine could
        /// perform a retry after the end of this process.
        noted: bool,
        /// Legacy had it before: this request is a retry.
        is_retry: bool,
    },
    /// The engine has it.
    HeldByEngine,
    /// The engine may have the same request under another credential, or under the keys that newer flag files give it;
    /// only the body can tell. Nothing was taken.
    NeedsBody,
    /// The engine has the same request under another credential: nothing was taken.
    HeldUnderAnotherCredential,
    /// The engine has the same request under the keys that newer flag files give it: nothing was taken.
    HeldUnderNewerFiles,
    /// It is not known whether the engine has it: nothing was taken.
    Unknown,
}

/// A counter that grows whenever this process may have missed keys that the engines of other processes took. If it has
/// not changed since all of these keys were known, all are still known ([`Affinity::keys_of_other_engines`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeysOfOtherEnginesVersion(pub u64);

/// What this process knows of the retry keys that the engines of other processes took on a route, as of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownKeysOfOtherEngines {
    /// The version.
    pub version: KeysOfOtherEnginesVersion,
    /// Whether all of them are known.
    pub are_all_known: bool,
    /// Whether engines of other processes answered the route, or may have, and the keys that they took then were not
    /// read since. Then only the store's answer to a look-up shows that no engine has a request.
    pub is_unread: bool,
    /// Whether that is so of any route: earlier files may have given the request to another one.
    pub is_any_unread: bool,
}

/// What a look-up, which found no first try, knew of keys that the engines of other processes took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysOfOtherEngines {
    /// All of them, at this version.
    Known(KeysOfOtherEnginesVersion),
    /// The store did not have the key. An engine may be about to commit it, so that the key has to be claimed in the
    /// store.
    Asked {
        /// The version before the look-up.
        version: KeysOfOtherEnginesVersion,
        /// Whether legacy answers also if the store does not take the claim.
        claim_may_fail: bool,
    },
    /// Nothing: the store did not answer, and legacy answers all the same. At this version no engine of another process
    /// had taken keys of the route that were not read.
    Unanswered(KeysOfOtherEnginesVersion),
    /// Nothing: the request was not looked up.
    Unknown,
}

/// The retry keys that earlier flag files give to a request, because they had another `retry_key`, `caller` or route
/// for it.
#[derive(Clone, Debug)]
pub struct EarlierKeys {
    /// The keys that differ from its present ones; nearly always none.
    pub keys: Vec<RetryKeys>,
    /// The version of the files by which the request is decided.
    pub files_version: u64,
    /// Whether the engine is known to have the request under the caller's own key. Then what legacy has under a key for
    /// any caller is another request.
    pub engine_has_own: bool,
    /// Whether an earlier try is recorded as legacy's under the caller's own key, and this process did not take it. In
    /// a store that several processes share, the process that did may have refused that try.
    pub legacy_has_own: bool,
    /// What the look-up of the request knew of keys that the engines of other processes took.
    pub keys_of_other_engines: KeysOfOtherEngines,
}

impl EarlierKeys {
    /// The keys of a request that is not looked up under earlier scopes: none.
    pub fn none() -> Self {
        Self {
            keys: Vec::new(),
            files_version: u64::MAX,
            engine_has_own: false,
            legacy_has_own: false,
            keys_of_other_engines: KeysOfOtherEngines::Unknown,
        }
    }
}

/// All keys under which legacy took a request, and when the request was decided: before any of the keys was recorded.
#[derive(Clone, Debug)]
pub struct KeysOfLegacy {
    /// The keys.
    pub keys: Vec<RetryKey>,
    /// When the request was decided.
    pub decided_at: Timestamp,
}

/// What is known of a request's body when the request is taken for legacy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBody {
    /// It was not read.
    Unread,
    /// It is larger than the engine takes. The limit of an earlier process may have been higher: before such a request
    /// is taken for legacy, [`Affinity::engine_took_any`] must be asked.
    TooLarge,
    /// The digest of the request with its body.
    Digest([u8; 32]),
}

/// An instance whose id stands in legacy's reply to a request that creates instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedByLegacy {
    /// The instance.
    pub key: InstanceKey,
    /// When the reply ended.
    pub replied_at: Timestamp,
    /// Whether the request was a client's retry: then legacy may have created the instance for the first try, before
    /// `replied_at`.
    pub is_retry: bool,
}

/// What a reply shows of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedInstance {
    /// The instance.
    pub key: InstanceKey,
    /// The arm that replied: it has the instance.
    pub arm: Arm,
    /// The run that created the instance, if it is the engine's.
    pub run: Option<RunId>,
    /// Whether the reply answers the request that created the instance, and not a retry of that request.
    pub is_created: bool,
    /// Whether it has ended.
    pub has_ended: bool,
}

impl LegacyTake {
    /// Legacy takes the first try, and that is recorded.
    pub const FIRST: Self = Self::Taken { noted: true, is_retry: false };
    /// Legacy takes the first try, and only this process knows.
    pub const NOT_NOTED: Self = Self::Taken { noted: false, is_retry: false };

    /// Whether legacy has it, and its keys are noted neither in the file nor in the store.
    pub fn is_not_noted(self) -> bool {
        matches!(self, Self::Taken { noted: false, .. })
    }
}

/// Looks up and records which arm owns an instance and which took a first try. The look-ups come before the decision;
/// `take_for_legacy` comes before legacy is called.
pub trait Affinity: Send + Sync {
    /// The owner of an instance. Answers at once, without the store, unless the engine may own it. If legacy
    /// owns it with a twin and no run id is returned, it is not certain that the twin exists: a caller that needs the
    /// twin looks it up.
    fn owner<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), ArmUnknown>>;
    /// Whether a run, which has created an instance, began with these plans; `None` if that is not known. Waits for the
    /// store for a bounded time.
    fn began_with<'a>(&'a self, run: RunId, plans: &'a Arc<PlanSet>) -> BoxFuture<'a, Option<bool>> {
        let _ = (run, plans);
        Box::pin(std::future::ready(None))
    }
    /// Whether the engine owns any instance of a family. If so, ids that legacy creates are searched for collisions in
    /// every state. Answers at once.
    fn engine_owns_any(&self, family: &Family) -> bool;
    /// What is known of a first try without the store. If the engine cannot have taken it, legacy's answer need not
    /// wait for the store.
    fn remembered(&self, key: &RetryKey) -> Remembered;
    /// In a store that several processes share: whether all keys of this route that the engines of other processes took
    /// are known here. If so, [`Remembered::NotEngineHere`] to a later question means that no engine has taken the key,
    /// under the present files. Whoever takes the key for legacy gives the version
    /// ([`EarlierKeys::keys_of_other_engines`]).
    fn keys_of_other_engines(&self, route: &Route) -> KnownKeysOfOtherEngines {
        let _ = route;
        KnownKeysOfOtherEngines::default()
    }
    /// Whether several processes share the store. If so, an earlier try that is recorded as legacy's may have been
    /// refused by the process that recorded it.
    fn is_store_shared(&self) -> bool {
        false
    }
    /// Which arm took the first try; `None` if none is recorded.
    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, ArmUnknown>>;
    /// Whether the engine took a request under any of the keys in `range`: [`RetryKey::range`] or
    /// [`RetryKey::range_of_request`] of a key for any caller ([`RetryKeys::any_caller`]). A request that the engine
    /// gave back to legacy does not count.
    fn engine_took_any(&self, range: RangeInclusive<RetryKey>) -> BoxFuture<'_, Result<bool, ArmUnknown>>;
    /// Takes a first try for legacy under all of its keys, unless the engine has it under one of them by now. If the
    /// result says `noted`, the keys are in a file (or in the store) when this returns; they are written to the store
    /// in the background.
    ///
    /// If the disk hangs, this waits for a bounded time. If several processes share the store, this waits for the store
    /// on a route on which the engine may answer.
    ///
    /// A retry of what is recorded as legacy's ([`EarlierKeys::legacy_has_own`]) is not recorded once more; if several
    /// processes share the store, this first confirms that the engine does not have the request.
    fn take_for_legacy<'a>(
        &'a self,
        route: &'a RouteId,
        keys: RetryKeys,
        earlier: &'a EarlierKeys,
        body: KnownBody,
    ) -> BoxFuture<'a, LegacyTake>;
    /// Records for legacy a first try that the engine gave back. In a store that several processes share, it waits for
    /// the store on any route.
    fn give_to_legacy(&self, keys: RetryKeys, body: KnownBody) -> BoxFuture<'_, LegacyTake>;
    /// Whether these keys were noted for an earlier try, and the store has them. Asked when legacy took the first try
    /// and the keys of the retry cannot be noted now. Waits for the store only if this process noted them.
    fn noted_earlier<'a>(&'a self, keys: &'a RetryKeys) -> BoxFuture<'a, bool>;
    /// Reports that legacy serves a request whose keys could not be noted. The request is counted for the route, and
    /// the gate to `live` stays shut as long as a retry of it may come, or until the keys are noted after all. It is
    /// recorded under the oldest id of the route too: if the files rename the route back, the next process does not
    /// know the present id. The call itself records it in memory; the future waits, for a bounded time, until it is in
    /// a file.
    fn record_served_unnoted<'a>(
        &'a self,
        keys: &'a RetryKeys,
        route: &'a RouteId,
        oldest_id: &'a RouteId,
    ) -> BoxFuture<'a, ()>;
    /// Records what a reply shows of an instance. Never waits.
    fn note_instance(&self, noted: NotedInstance) {
        let _ = noted;
    }
    /// Counts a request that legacy may get, of a family whose instances may be moved from legacy to the engine. Called
    /// before the owner of the request's instance is looked up.
    fn admit_to_legacy(&self, request: &LegacyAdmissionRequest<'_>) -> LegacyAdmission {
        let _ = request;
        LegacyAdmission::AtLegacy(None)
    }
    /// Counts a request that may change something, until the value is dropped. Called before the files in force are
    /// looked at. `None`: nobody counts them.
    fn begin_write(&self) -> Option<OpenWriteGuard> {
        None
    }
    /// Moves an instance from legacy to the engine, if that is possible now. The caller must not hold a request at
    /// legacy of that instance ([`Affinity::admit_to_legacy`]). Waits for a bounded time; the move goes on if the
    /// caller does not wait for it.
    fn adopt(&self, request: AdoptionRequest) -> BoxFuture<'_, AdoptionAnswer> {
        let _ = request;
        Box::pin(std::future::ready(AdoptionAnswer::AtLegacy))
    }
    /// Records that legacy created an instance; a dark run may add its twin. Counts a collision if the engine owns the
    /// id; if it owns the id by adoption, only where legacy gave the id out again after that. Never waits.
    fn record_legacy_instance(&self, created: CreatedByLegacy);
}
