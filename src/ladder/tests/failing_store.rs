//! A store that fails on demand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::Notify;

use crate::flag::{Arm, PinKey, RetryKey};
use crate::names::{PlanId, RouteId, RunId, Seq};
use crate::store::*;
use crate::workflow::RunSummary;

/// A memory store whose flips, declarations, samples and evidence fail on demand.
#[derive(Default)]
pub struct FailingStore {
    pub inner: MemoryStore,
    /// Flips are not recorded.
    pub refuse_flips: AtomicBool,
    /// Flips are not recorded if they follow the newest one.
    pub refuse_after_newest: AtomicBool,
    /// Flips are recorded, and the reply is lost.
    pub lose_replies: AtomicBool,
    /// Writes of flips time out, and reach the store when [`FailingStore::deliver_delayed`] is called.
    pub delay_flips: AtomicBool,
    delayed: Mutex<Vec<PutFlips>>,
    /// Flips and declarations cannot be read.
    pub fail_reads: AtomicBool,
    /// Samples are not stored.
    pub refuse_samples: AtomicBool,
    /// Samples are stored, and the reply is lost.
    pub lose_sample_replies: AtomicBool,
    /// Evidence is not stored.
    pub refuse_evidence: AtomicBool,
    /// Pins cannot be counted.
    pub fail_pin_counts: AtomicBool,
    /// The engine owns no instances.
    pub owns_none: AtomicBool,
    /// The adoptions that are counted.
    pub adoptions: Mutex<Vec<AdoptionCount>>,
    /// The events of this run cannot be read.
    pub unreadable: Mutex<Option<RunId>>,
    /// A listing of open runs says when it has begun, and waits.
    pub slow_listing: Mutex<Option<Arc<SlowListing>>>,
}

/// A listing of open runs that waits until it is told to go on.
#[derive(Default)]
pub struct SlowListing {
    /// Notified when the listing has begun.
    pub begun: Notify,
    /// Lets the listing go on.
    pub go_on: Notify,
}

type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

fn fails<'a, T: Send + 'a>() -> StoreFuture<'a, T> {
    ready(Err(StoreError("fails on demand".into()))).boxed()
}

impl FailingStore {
    /// Records flips and declarations in spite of all failures, after the newest flip.
    pub async fn put(&self, flips: Vec<FlipRecord>, declared: Option<Vec<DeclaredState>>) {
        let after = self.inner.flips(None, 1).await.unwrap().first().map_or(0, |flip| flip.number);
        self.inner.put_flips(PutFlips { flips, declared, after, ..PutFlips::default() }).await.unwrap().unwrap();
    }
    /// Lets the writes that timed out reach the store.
    pub async fn deliver_delayed(&self) {
        let delayed = std::mem::take(&mut *self.delayed.lock().unwrap());
        for put in delayed {
            self.inner.put_flips(put).await.unwrap();
        }
    }
}

crate::store::tests::forward_work::forward_work!(FailingStore, inner);

crate::store::tests::forward_work::forward_pin_collisions!(FailingStore, inner);
impl crate::store::InstanceStore for FailingStore {}
impl crate::store::RecordLog for FailingStore {}
impl crate::store::CaptureStore for FailingStore {}

impl crate::store::AdoptionStore for FailingStore {
    fn adoption_counts(&self) -> StoreFuture<'_, Vec<AdoptionCount>> {
        ready(Ok(self.adoptions.lock().unwrap().clone())).boxed()
    }
}
impl crate::store::ServiceCallerStore for FailingStore {}

impl Store for FailingStore {
    fn put_flips(&self, put: PutFlips) -> StoreFuture<'_, Option<Vec<u64>>> {
        if self.delay_flips.load(Ordering::SeqCst) {
            self.delayed.lock().unwrap().push(put);
            return fails();
        }
        if self.refuse_flips.load(Ordering::SeqCst) {
            return fails();
        }
        if self.refuse_after_newest.load(Ordering::SeqCst) {
            return async move {
                let newest = self.inner.flips(None, 1).await?.first().map_or(0, |flip| flip.number);
                if put.after == newest { fails().await } else { Ok(None) }
            }
            .boxed();
        }
        let taken = self.inner.put_flips(put);
        if self.lose_replies.load(Ordering::SeqCst) {
            return async { taken.await.and(Err(StoreError("the reply is lost on demand".into()))) }.boxed();
        }
        taken
    }

    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        self.inner.append(append)
    }
    fn events(&self, run: RunId, from: Seq) -> StoreFuture<'_, Vec<StoredEvent>> {
        if *self.unreadable.lock().unwrap() == Some(run) {
            return fails();
        }
        self.inner.events(run, from)
    }
    fn run(&self, run: RunId) -> StoreFuture<'_, Option<RunSummary>> {
        self.inner.run(run)
    }
    fn runs(&self, filter: RunFilter) -> StoreFuture<'_, Vec<RunSummary>> {
        let slow = self.slow_listing.lock().unwrap().clone();
        async move {
            if let Some(slow) = slow {
                slow.begun.notify_one();
                slow.go_on.notified().await;
            }
            self.inner.runs(filter).await
        }
        .boxed()
    }
    fn open_runs(&self) -> StoreFuture<'_, Vec<(crate::workflow::RunStatus, u64)>> {
        self.inner.open_runs()
    }
    fn put_plan(&self, id: PlanId, source: serde_json::Value) -> StoreFuture<'_, ()> {
        self.inner.put_plan(id, source)
    }
    fn plan(&self, id: PlanId) -> StoreFuture<'_, Option<serde_json::Value>> {
        self.inner.plan(id)
    }
    fn put_run_key(&self, run: RunId, key: Option<Vec<u8>>) -> StoreFuture<'_, ()> {
        self.inner.put_run_key(run, key)
    }
    fn run_key(&self, run: RunId) -> StoreFuture<'_, Option<Vec<u8>>> {
        self.inner.run_key(run)
    }
    /// The engine owns the instance 17 of `create`.
    fn pin(&self, key: PinKey) -> StoreFuture<'_, Option<PinRecord>> {
        if (key.family.as_str(), &*key.id) == ("create", "17") {
            let pin = PinRecord { key, arm: Arm::Engine, run: None, at: jiff::Timestamp::UNIX_EPOCH, adoption: None };
            return ready(Ok(Some(pin))).boxed();
        }
        self.inner.pin(key)
    }
    /// The engine owns two instances that `create` made.
    fn pin_counts(&self) -> StoreFuture<'_, Vec<(RouteId, Arm, u64)>> {
        if self.fail_pin_counts.load(Ordering::SeqCst) {
            return fails();
        }
        if self.owns_none.load(Ordering::SeqCst) {
            return ready(Ok(Vec::new())).boxed();
        }
        ready(Ok(vec![("create".into(), Arm::Engine, 2), ("create".into(), Arm::Legacy, 5)])).boxed()
    }
    fn detach_twin(&self, key: PinKey) -> StoreFuture<'_, ()> {
        self.inner.detach_twin(key)
    }
    fn pins(&self, family: RouteId, arm: Arm, limit: usize) -> StoreFuture<'_, Vec<PinRecord>> {
        self.inner.pins(family, arm, limit)
    }
    fn first_try(&self, key: RetryKey) -> StoreFuture<'_, Option<StoredFirstTry>> {
        self.inner.first_try(key)
    }
    fn engine_took_any(&self, range: std::ops::RangeInclusive<RetryKey>) -> StoreFuture<'_, bool> {
        self.inner.engine_took_any(range)
    }
    fn engine_took_any_after(
        &self,
        legacy_key: RetryKey,
        range: std::ops::RangeInclusive<RetryKey>,
    ) -> StoreFuture<'_, bool> {
        self.inner.engine_took_any_after(legacy_key, range)
    }
    fn engine_tries(&self, after: Option<RetryKey>, limit: usize) -> StoreFuture<'_, Vec<(RetryKey, jiff::Timestamp)>> {
        self.inner.engine_tries(after, limit)
    }
    fn pinned(&self, after: u64, limit: usize) -> StoreFuture<'_, Vec<(u64, PinKey, Arm)>> {
        self.inner.pinned(after, limit)
    }
    fn note_legacy_tries(&self, tries: Vec<(RetryKey, jiff::Timestamp)>) -> StoreFuture<'_, Vec<RetryKey>> {
        self.inner.note_legacy_tries(tries)
    }
    fn flips(&self, route: Option<RouteId>, limit: usize) -> StoreFuture<'_, Vec<FlipRecord>> {
        if self.fail_reads.load(Ordering::SeqCst) {
            return fails();
        }
        self.inner.flips(route, limit)
    }
    fn last_flips(&self) -> StoreFuture<'_, Vec<FlipRecord>> {
        self.inner.last_flips()
    }
    fn declared(&self) -> StoreFuture<'_, Vec<DeclaredState>> {
        if self.fail_reads.load(Ordering::SeqCst) {
            return fails();
        }
        self.inner.declared()
    }
    fn put_samples(&self, samples: Vec<SampleRecord>, each: usize, fingerprints: usize) -> StoreFuture<'_, ()> {
        if self.refuse_samples.load(Ordering::SeqCst) {
            return fails();
        }
        let stored = self.inner.put_samples(samples, each, fingerprints);
        let loses_reply = self.lose_sample_replies.load(Ordering::SeqCst);
        async move {
            stored.await?;
            if loses_reply { Err(StoreError("the reply is lost".into())) } else { Ok(()) }
        }
        .boxed()
    }
    fn samples(&self, route: RouteId, limit: usize) -> StoreFuture<'_, Vec<SampleRecord>> {
        self.inner.samples(route, limit)
    }
    fn sample_of_run(&self, run: RunId) -> StoreFuture<'_, Option<SampleRecord>> {
        self.inner.sample_of_run(run)
    }
    fn clear_samples(&self, route: RouteId) -> StoreFuture<'_, ()> {
        self.inner.clear_samples(route)
    }
    fn remove_samples_before(&self, at: jiff::Timestamp) -> StoreFuture<'_, ()> {
        self.inner.remove_samples_before(at)
    }
    fn put_evidence(&self, evidence: Vec<EvidenceRecord>) -> StoreFuture<'_, ()> {
        if self.refuse_evidence.load(Ordering::SeqCst) {
            return fails();
        }
        self.inner.put_evidence(evidence)
    }
    fn evidence(&self) -> StoreFuture<'_, Vec<EvidenceRecord>> {
        self.inner.evidence()
    }
    fn secret(&self) -> StoreFuture<'_, [u8; 32]> {
        self.inner.secret()
    }
    fn is_new(&self) -> bool {
        self.inner.is_new()
    }
    fn healthy(&self) -> bool {
        self.inner.healthy()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
