//! The store in memory: keeps events in order, each once, for as long as the process lives.
//!
//! Always true: every call takes effect completely under one lock, so that it keeps the promises of the durable stores,
//! except durability. It is the reference model in tests of the durable stores, and the store of `memory:`. The checks
//! of appends are in [`tables`], ownership of runs in [`coordination`].

mod adoptions;
mod caller_table;
mod capture_table;
mod captures;
mod coordination;
mod coordination_tables;
mod instance_tables;
mod instances;
mod legacy_tries;
mod pin_table;
mod record_log;
mod retry_keys;
mod samples;
mod service_callers;
mod shared_evidence;
mod tables;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use jiff::Timestamp;
use tokio::sync::broadcast;
use uuid::Uuid;

use self::tables::Tables;
use super::coordination::NOTIFICATIONS_MAX;
use super::{
    Append, AppendError, DeclaredState, EvidenceRecord, FlipRecord, KeyFileRecord, NEW_STORE_RETENTION, PinCount,
    PinRecord, PlacedPin, PutFlips, RunFilter, SampleRecord, SharedEvidence, Store, StoreError, StoreFuture,
    StoreNotification, StoredEvent, StoredFirstTry,
};
use crate::clock;
use crate::flag::{Arm, PinKey, RetryKey};
use crate::limits::Limits;
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::workflow::{RunStatus, RunSummary};

/// A store whose content ends with the process.
pub struct MemoryStore {
    tables: Mutex<Tables>,
    closed: AtomicBool,
    /// Set in tests in which several parts use it as processes do.
    is_shared: AtomicBool,
    notifications: broadcast::Sender<StoreNotification>,
}

impl MemoryStore {
    /// An empty store with the default bounds.
    pub fn new() -> Self {
        Self::with_limits(&Limits::default())
    }

    /// An empty store. Of the limits it uses only the retry window.
    pub fn with_limits(limits: &Limits) -> Self {
        Self {
            tables: Mutex::new(Tables::new(limits.retry_window_s)),
            closed: AtomicBool::new(false),
            is_shared: AtomicBool::new(false),
            notifications: broadcast::Sender::new(NOTIFICATIONS_MAX),
        }
    }

    /// From now on several parts use it as processes do.
    #[cfg(test)]
    pub(crate) fn set_shared(&self) {
        self.is_shared.store(true, Ordering::Release);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // A poisoned lock is usable: a change is checked completely before the first field is written.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<'a, T: Send + 'a>(&'a self, work: impl FnOnce(&mut Tables) -> T) -> BoxFuture<'a, Result<T, StoreError>> {
        let done = if self.closed.load(Ordering::Acquire) {
            Err(StoreError("the store is closed".into()))
        } else {
            Ok(work(&mut self.tables()))
        };
        ready(done).boxed()
    }

    fn with_notifications<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Tables, &mut Vec<StoreNotification>) -> T,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let mut notifications = Vec::new();
        let done = self.with(|tables| work(tables, &mut notifications));
        self.notify(notifications);
        done
    }

    fn notify(&self, notifications: Vec<StoreNotification>) {
        for one in notifications {
            // There may be no receiver.
            let _ = self.notifications.send(one);
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let done = if self.closed.load(Ordering::Acquire) {
            Err(AppendError::Refused("the store is closed".into()))
        } else {
            let mut notifications = Vec::new();
            let done = self.tables().append(Arc::unwrap_or_clone(append), clock::now(), &mut notifications);
            self.notify(notifications);
            done
        };
        ready(done).boxed()
    }

    fn events(&self, run: RunId, from: Seq) -> BoxFuture<'_, Result<Vec<StoredEvent>, StoreError>> {
        self.with(|tables| tables.events(run, from))
    }

    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunSummary>, StoreError>> {
        self.with(|tables| tables.run(run))
    }

    fn runs(&self, filter: RunFilter) -> BoxFuture<'_, Result<Vec<RunSummary>, StoreError>> {
        self.with(|tables| tables.runs(&filter))
    }

    fn open_runs(&self) -> BoxFuture<'_, Result<Vec<(RunStatus, u64)>, StoreError>> {
        self.with(|tables| tables.open_runs())
    }

    fn put_plan(&self, id: PlanId, source: serde_json::Value) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| {
            tables.plans.entry(id).or_insert(source);
        })
    }

    fn plan(&self, id: PlanId) -> BoxFuture<'_, Result<Option<serde_json::Value>, StoreError>> {
        self.with(|tables| tables.plans.get(&id).cloned())
    }

    fn put_run_key(&self, run: RunId, key: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| match key {
            Some(key) => {
                tables.run_keys.insert(run, key);
            }
            None => {
                tables.run_keys.remove(&run);
            }
        })
    }

    fn run_key(&self, run: RunId) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        self.with(|tables| tables.run_keys.get(&run).cloned())
    }

    fn pin(&self, key: PinKey) -> BoxFuture<'_, Result<Option<PinRecord>, StoreError>> {
        self.with(|tables| tables.pin(&key).cloned())
    }

    fn detach_twin(&self, key: PinKey) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| tables.detach_twin(&key))
    }

    fn pin_counts(&self) -> BoxFuture<'_, Result<Vec<PinCount>, StoreError>> {
        self.with(|tables| tables.pin_counts())
    }

    fn pinned(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<PlacedPin>, StoreError>> {
        self.with(|tables| tables.pinned(after, limit))
    }

    fn pins(&self, family: RouteId, arm: Arm, limit: usize) -> BoxFuture<'_, Result<Vec<PinRecord>, StoreError>> {
        self.with(|tables| tables.pins_of(&family, arm, limit))
    }

    fn first_try(&self, key: RetryKey) -> BoxFuture<'_, Result<Option<StoredFirstTry>, StoreError>> {
        self.with(|tables| tables.first_try(&key, clock::now()))
    }

    fn engine_took_any(&self, range: RangeInclusive<RetryKey>) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.with(|tables| tables.engine_took_any(&range, clock::now()))
    }

    fn engine_took_any_after(
        &self,
        _legacy_key: RetryKey,
        range: RangeInclusive<RetryKey>,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.engine_took_any(range)
    }

    fn engine_tries(
        &self,
        after: Option<RetryKey>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(RetryKey, Timestamp)>, StoreError>> {
        self.with(|tables| tables.engine_tries(after, limit, clock::now()))
    }

    fn note_legacy_tries(&self, tries: Vec<(RetryKey, Timestamp)>) -> StoreFuture<'_, Vec<RetryKey>> {
        self.with(|tables| tables.note_legacy(tries, clock::now()))
    }

    fn key_files(&self) -> BoxFuture<'_, Result<Vec<KeyFileRecord>, StoreError>> {
        self.with(|tables| tables.key_files.values().cloned().collect())
    }

    fn put_key_files(&self, put: Vec<KeyFileRecord>, remove: Vec<Uuid>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| {
            tables.key_files.retain(|id, _| !remove.contains(id));
            tables.key_files.extend(put.into_iter().map(|record| (record.id, record)));
        })
    }

    fn put_flips(&self, put: PutFlips) -> BoxFuture<'_, Result<Option<Vec<u64>>, StoreError>> {
        let PutFlips { flips, declared, after, announced: _ } = put;
        self.with(|tables| {
            if tables.newest_flip() != after {
                return None;
            }
            if let Some(declared) = declared {
                tables.put_declared(declared);
            }
            Some(flips.into_iter().map(|flip| tables.put_flip(flip)).collect())
        })
    }

    fn flips(&self, route: Option<RouteId>, limit: usize) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        self.with(|tables| tables.flips(route.as_ref(), limit))
    }

    fn last_flips(&self) -> BoxFuture<'_, Result<Vec<FlipRecord>, StoreError>> {
        self.with(|tables| tables.last_flips())
    }

    fn declared(&self) -> BoxFuture<'_, Result<Vec<DeclaredState>, StoreError>> {
        self.with(|tables| tables.declared.values().cloned().collect())
    }

    fn put_samples(
        &self,
        samples: Vec<SampleRecord>,
        per_fingerprint: usize,
        fingerprints: usize,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| tables.put_samples(samples, per_fingerprint, fingerprints))
    }

    fn samples(&self, route: RouteId, limit: usize) -> BoxFuture<'_, Result<Vec<SampleRecord>, StoreError>> {
        self.with(|tables| tables.samples_of(&route, limit))
    }

    fn sample_of_run(&self, run: RunId) -> BoxFuture<'_, Result<Option<SampleRecord>, StoreError>> {
        self.with(|tables| tables.sample_of_run(run))
    }

    fn clear_samples(&self, route: RouteId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| tables.samples.retain(|sample| sample.route != route))
    }

    fn remove_samples_before(&self, at: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| tables.samples.retain(|sample| sample.at.as_second() >= at.as_second()))
    }

    fn put_evidence(&self, evidence: Vec<EvidenceRecord>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with(|tables| {
            for record in evidence {
                tables.evidence.insert(record.route.clone(), record);
            }
        })
    }

    fn evidence(&self) -> BoxFuture<'_, Result<Vec<EvidenceRecord>, StoreError>> {
        self.with(|tables| tables.evidence.values().cloned().collect())
    }

    fn shared_evidence(&self) -> Option<&dyn SharedEvidence> {
        self.is_shared.load(Ordering::Acquire).then_some(self)
    }

    fn secret(&self) -> BoxFuture<'_, Result<[u8; 32], StoreError>> {
        self.with(|tables| tables.secret()).map(|done| done?).boxed()
    }

    fn default_retention(&self) -> Option<Duration> {
        Some(NEW_STORE_RETENTION)
    }

    fn is_new(&self) -> bool {
        true
    }

    fn healthy(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        ready(()).boxed()
    }
}
