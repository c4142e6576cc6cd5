//! Which arm owns an instance, and which took a first try.
//!
//! The question it answers: "legacy or engine, for this follow-up, for this retry?"
//!
//! Always true:
//!
//! - A question about a family without pins is answered at once, without the store and without a lock.
//! - A pin that the engine's append made in this process is known here before the answer to the caller leaves, because
//!   the engine reports it ([`StoreAffinity::record_pin`]).
//! - A first try belongs to one arm from the moment it is taken, before anything of it is on disk.
//! - A key that legacy takes is in a file ([`KeyLog`]) before legacy is called, or the result says that it is not
//!   ([`LegacyTake::Taken`]).
//! - In a store that several processes share, legacy gets a keyed request of a route on which an engine may answer only
//!   once the store has the key as legacy's (`claims`).
//! - The keys that the engine took and the instances that it owns are in sets without false negatives (`sets`), so that
//!   the store is asked only where these say "perhaps". In a shared store, the keys that the engines of other processes
//!   took are read into the set before it is relied on (`claims`); instances of others are not in it.
//!
//! *Noted*: the key is in the file or in the store. *Served unnoted*: legacy got the request although its key could be
//! written to neither.
//!
//! `proxy` asks, and `flag` decides what becomes of the request.
//!
//! When the store is slow, a question whose answer is "perhaps" waits for it, at most for a bounded time; when the
//! store is gone, the answer is [`ArmUnknown`]. No other request waits for it.

mod adoption;
mod cache;
mod claim;
mod claims;
mod collision_check;
mod collision_records;
mod collisions;
mod family_collisions;
mod filter;
mod instances;
mod key_dir;
mod key_file;
mod key_file_damage;
mod key_file_records;
mod key_file_tag;
mod key_files;
mod key_just_stored;
mod key_list;
mod key_log;
mod key_log_methods;
mod key_lookups;
mod key_pending;
mod key_ring;
mod key_unnoted;
mod key_writer;
mod keys_taken_by_runs;
mod newer_files;
mod owners;
mod pin_counts;
mod request_locks;
mod requests_at_legacy;
mod run_versions;
mod sets;
mod store_generation;
mod take_request;
#[cfg(test)]
mod tests;
mod tries;
mod twins;
mod unknown_keys;
mod unread_files;
mod writes_under_files;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;
use tokio::task::AbortHandle;

use self::cache::Cache;
pub use self::cache::PinsVersion;
pub use self::claims::ClaimingRoutes;
use self::claims::Claims;
use self::collision_check::{CheckMessage, CollisionChecks};
use self::collision_records::CollisionRecords;
pub use self::instances::{ArmInstances, FamilyInstances, Instances, TrackedFamily};
pub use self::key_dir::default_dir;
pub use self::key_file::KeyFileError;
pub(crate) use self::key_files::host_name;
pub use self::key_files::{KeyFileLocation, open_key_log, read_key_files};
pub use self::key_log::KeyLog;
use self::key_lookups::KeyLookups;
use self::newer_files::NewerFilesMarks;
use self::pin_counts::PinCountsById;
use self::request_locks::RequestLocks;
pub use self::requests_at_legacy::{InstanceMoveMark, RequestsAtLegacyByInstance, RequestsEnded};
use self::run_versions::RunVersions;
use self::sets::Sets;
pub use self::tries::KeyTakeResult;
use self::tries::Tries;
pub use self::unknown_keys::RequestsWithUnknownKeys;
pub use self::writes_under_files::WritesUnderFiles;
use crate::clock;
use crate::exchange::{
    AdoptionAnswer, AdoptionRequest, Affinity, ArmUnknown, CreatedByLegacy, EarlierKeys, KnownBody,
    KnownKeysOfOtherEngines, LegacyAdmission, LegacyAdmissionRequest, LegacyTake, NotedInstance, OpenWriteGuard,
    Remembered,
};
use crate::flag::{Arm, Family, InstanceKey, Owner, RetryKey, RetryKeys, Route};
use crate::limits::Limits;
use crate::names::{PlanSet, RouteId, RunId};
use crate::store::{StoreError, StoreHandle};

/// How long a look-up in the store may take; the caller's request waits for it.
const LOOK_UP_MAX: Duration = Duration::from_secs(1);

/// Answers which arm owns an instance and which took a first try: from memory, and from the store where memory does not
/// suffice.
pub struct StoreAffinity {
    store: StoreHandle,
    families: Arc<PinCountsById>,
    cache: Cache,
    tries: Arc<Tries>,
    claims: Arc<Claims>,
    request_locks: RequestLocks,
    look_ups: KeyLookups,
    run_versions: RunVersions,
    newer_files: NewerFilesMarks,
    keys: Arc<KeyLog>,
    sets: Arc<Sets>,
    instances: Arc<Instances>,
    requests_at_legacy: Arc<RequestsAtLegacyByInstance>,
    /// The tasks that build and renew the sets, and that store what is known of instances and of pin collisions.
    maintenance: [AbortHandle; 3],
    collision_checks: CollisionChecks,
    collision_records: Arc<CollisionRecords>,
}

impl StoreAffinity {
    /// Like [`StoreAffinity::open`], but without a file: until the store has a retry key, it is in memory only.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(store: StoreHandle, limits: &Limits) -> Result<Arc<Self>, StoreError> {
        Self::open(store, limits, KeyLog::in_memory(limits)).await
    }

    /// Reads the counts of pins and their collisions. Starts, on the current runtime, the tasks that build the sets,
    /// move retry keys to the store, check ids for collisions, and store what becomes known of instances and
    /// collisions.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(store: StoreHandle, limits: &Limits, keys: Arc<KeyLog>) -> Result<Arc<Self>, StoreError> {
        let families = Arc::new(PinCountsById::new(store.pin_counts().await?, store.pin_collisions().await?));
        let instances = Instances::new(store.clone());
        let collision_checks = CollisionChecks::start(store.clone(), families.clone(), instances.clone());
        let collision_records = CollisionRecords::new(store.clone(), families.clone());
        let tries = Arc::new(Tries::new(Duration::from_secs(limits.retry_window_s), limits.retry_keys_max));
        for (key, at) in keys.waiting() {
            tries.record_taken_by_legacy(key, Instant::now(), clock::passed(at));
        }
        let sets = Arc::new(Sets::new(limits, Instant::now()));
        tokio::spawn(
            keys.clone().move_to_store(store.clone(), keys_taken_by_runs::on_keys_taken_by_runs(&tries, &sets)),
        );
        let claims = Arc::new(Claims::default());
        let maintenance = [
            tokio::spawn(sets.clone().maintain(store.clone(), tries.clone(), claims.clone())).abort_handle(),
            tokio::spawn(instances.clone().maintain()).abort_handle(),
            tokio::spawn(collision_records.clone().maintain()).abort_handle(),
        ];
        Ok(Arc::new(Self {
            store,
            families,
            cache: Cache::default(),
            tries,
            claims,
            request_locks: RequestLocks::default(),
            look_ups: KeyLookups::default(),
            run_versions: RunVersions::default(),
            newer_files: NewerFilesMarks::new(limits),
            keys,
            sets,
            instances,
            requests_at_legacy: Arc::default(),
            maintenance,
            collision_checks,
            collision_records,
        }))
    }

    /// The instances of each family that are alive.
    pub fn instances(&self) -> &Arc<Instances> {
        &self.instances
    }

    /// Sets the metrics of these families to the present counts of their pins.
    pub fn publish<'a>(&self, families: impl Iterator<Item = &'a Family>) {
        self.families.publish(families);
    }

    /// Whether the engine may have taken this key before, so that the store has to be asked.
    pub fn engine_may_have_taken(&self, key: &RetryKey) -> bool {
        self.remembered(key) != Remembered::NotEngine
    }

    /// Whether the engine of this process may have taken this key before.
    fn engine_here_may_have_taken(&self, key: &RetryKey) -> bool {
        !matches!(self.remembered(key), Remembered::NotEngine | Remembered::NotEngineHere)
    }

    /// Whether legacy took this key before `time` and the key still waits in the file for the store.
    pub fn legacy_noted_before(&self, key: &RetryKey, time: Timestamp) -> bool {
        self.keys.first_noted_at(key).is_some_and(|at| at < time)
    }

    /// Lets a key of the engine be forgotten here, because the store has its run, or may have it.
    pub fn allow_eviction(&self, key: RetryKey) {
        self.tries.allow_eviction(key, Instant::now());
    }

    /// Releases a key that the engine took without beginning a run for it: either arm may take it now.
    pub fn release(&self, key: &RetryKey) {
        self.tries.release(key);
    }
}

impl Affinity for StoreAffinity {
    fn owner<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, Result<(Owner, Option<RunId>), ArmUnknown>> {
        self.owner_of(key)
    }

    fn began_with<'a>(&'a self, run: RunId, plans: &'a Arc<PlanSet>) -> BoxFuture<'a, Option<bool>> {
        self.run_versions.began_with(&self.store, run, plans, LOOK_UP_MAX).boxed()
    }

    fn engine_owns_any(&self, family: &Family) -> bool {
        family.ids().any(|id| self.families.get(id).is_some_and(|family| family.engine_owns()))
    }

    fn remembered(&self, key: &RetryKey) -> Remembered {
        let now = Instant::now();
        let arm = match self.store.is_shared() {
            true => self.tries.arm_of_this_process(key, now),
            false => self.tries.arm(key, now),
        };
        match arm {
            Some(arm) => Remembered::TakenBy(arm),
            None if self.sets.engine_may_have_taken(key, now) => Remembered::Unknown,
            // In a shared store the engine of another process may have taken it since this process started.
            None if self.store.is_shared() => Remembered::NotEngineHere,
            None => Remembered::NotEngine,
        }
    }

    fn keys_of_other_engines(&self, route: &Route) -> KnownKeysOfOtherEngines {
        match self.store.is_shared() {
            true => self.claims.read().keys_of_other_engines(&route.id, route.ids()),
            false => KnownKeysOfOtherEngines::default(),
        }
    }

    fn is_store_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn first_try<'a>(&'a self, key: &'a RetryKey) -> BoxFuture<'a, Result<Option<Arm>, ArmUnknown>> {
        if self.store.is_shared() {
            return self.first_try_in_shared_store(key).boxed();
        }
        if let Some(arm) = self.tries.arm(key, Instant::now()) {
            return ready(Ok(Some(arm))).boxed();
        }
        // The file is asked before the store, because the key may be on its way from the one to the other.
        if self.keys.is_unstored(key) {
            return ready(Ok(Some(Arm::Legacy))).boxed();
        }
        self.look_ups.first_try(&self.store, *key, LOOK_UP_MAX).boxed()
    }

    fn engine_took_any(&self, range: RangeInclusive<RetryKey>) -> BoxFuture<'_, Result<bool, ArmUnknown>> {
        self.has_engine_taken_any(range).boxed()
    }

    fn take_for_legacy<'a>(
        &'a self,
        route: &'a RouteId,
        keys: RetryKeys,
        earlier: &'a EarlierKeys,
        body: KnownBody,
    ) -> BoxFuture<'a, LegacyTake> {
        self.take_or_confirm(route, keys, earlier, body).boxed()
    }

    fn give_to_legacy(&self, keys: RetryKeys, body: KnownBody) -> BoxFuture<'_, LegacyTake> {
        self.give_then_claim(keys, body).boxed()
    }

    fn noted_earlier<'a>(&'a self, keys: &'a RetryKeys) -> BoxFuture<'a, bool> {
        self.has_noted_and_stored(keys).boxed()
    }

    fn record_served_unnoted<'a>(
        &'a self,
        keys: &'a RetryKeys,
        route: &'a RouteId,
        oldest_id: &'a RouteId,
    ) -> BoxFuture<'a, ()> {
        metrics::counter!("pointsman_retry_keys_unnoted_total", "route" => route.to_string()).increment(1);
        let keys: Vec<_> = keys.of_legacy().collect();
        match [route, oldest_id].map(|id| self.keys.record_served_unnoted(&keys, id)).contains(&true) {
            true => self.keys.wait_until_written().boxed(),
            false => ready(()).boxed(),
        }
    }

    fn note_instance(&self, noted: NotedInstance) {
        self.instances.note(noted);
    }

    fn admit_to_legacy(&self, request: &LegacyAdmissionRequest<'_>) -> LegacyAdmission {
        self.requests_at_legacy.admit(request)
    }

    fn begin_write(&self) -> Option<OpenWriteGuard> {
        Some(self.requests_at_legacy.begin_write())
    }

    fn adopt<'a>(&'a self, request: AdoptionRequest) -> BoxFuture<'a, AdoptionAnswer> {
        self.requests_at_legacy.adopt(request)
    }

    fn record_legacy_instance(&self, created: CreatedByLegacy) {
        let CreatedByLegacy { key, replied_at, is_retry } = created;
        for key in key.pin_keys() {
            if !self.families.get(&key.family).is_some_and(|family| family.engine_owns()) {
                continue;
            }
            match self.cache.get(&key) {
                Some(Some((Owner::Engine, run))) => self.families.record_collision(&key, run),
                // Whether this is a collision depends on when the instance was adopted, which only the store knows.
                Some(Some((Owner::Adopted | Owner::Moving | Owner::AdoptionUnknown | Owner::Unknown, _))) => {
                    self.collision_checks.send(CheckMessage::Instance { key, replied_at, is_retry });
                }
                Some(Some((Owner::NoPin | Owner::LegacyWithTwin, _)) | None) => {}
                None if self.engine_may_own(&key) => {
                    self.collision_checks.send(CheckMessage::Instance { key, replied_at, is_retry });
                }
                None => {}
            }
        }
    }
}

impl Drop for StoreAffinity {
    fn drop(&mut self) {
        self.maintenance.iter().for_each(AbortHandle::abort);
        self.keys.end_move_to_store();
    }
}
