//! Stores that count what they are asked, or that two processes share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::names::{RunId, WorkerId};
use crate::store::{
    Append, AppendError, DeclaredState, EvidenceRecord, FirstTry, FlipRecord, LockRow, MemoryStore, OrderRecord,
    OwnedRun, PinRecord, Purged, Remains, RunFilter, RunSnapshot, SampleRecord, SharedStore, Store, StoreError,
    StoreNotification, StoredEvent, TakeResult, WebhookMessage, Work,
};
use crate::workflow::{RunStatus, RunSummary};

/// A memory store that counts what it is asked, and that may belong to several workers.
pub(super) struct Through {
    inner: MemoryStore,
    asked: Arc<AtomicUsize>,
    /// `Some`: several processes share it, each of which lives until it leaves or is said to be dead.
    town: Option<Mutex<Town>>,
    /// Before anything is appended.
    pub(super) appends: Gate,
    /// Before it hears that a process lives.
    pub(super) beats: Gate,
    /// After it was read what is asked, before that is told.
    pub(super) orders: Gate,
    /// The last event of every run is lost.
    pub(super) forgets: std::sync::atomic::AtomicBool,
}

/// Where what is asked of a store may have to wait.
pub(super) struct Gate {
    open: tokio::sync::Semaphore,
    came: tokio::sync::watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: tokio::sync::Semaphore::new(1 << 20), came: tokio::sync::watch::Sender::new(0) }
    }
}

impl Gate {
    /// Nobody passes from now on; those who come are counted anew.
    pub fn shut(&self) {
        self.open.forget_permits(1 << 20);
        self.came.send_replace(0);
    }
    /// So many pass.
    pub fn pass(&self, count: usize) {
        self.open.add_permits(count);
    }
    /// So many have come since it was shut.
    pub async fn came(&self, count: usize) {
        let mut came = self.came.subscribe();
        let waited = tokio::time::timeout(super::kit::PATIENCE, came.wait_for(|came| *came >= count)).await;
        assert!(waited.is_ok(), "nobody comes to the gate");
    }
    async fn through(&self) {
        self.came.send_modify(|came| *came += 1);
        self.open.acquire().await.unwrap().forget();
    }
}

#[derive(Default)]
struct Town {
    owners: HashMap<RunId, WorkerId>,
    alive: HashSet<WorkerId>,
}

/// Counts what it is asked.
pub(super) fn counting() -> (SharedStore, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    (Arc::new(Through::new(asked.clone(), None)), asked)
}

/// Shared by several processes.
pub(super) fn shared() -> Arc<Through> {
    let town = Some(Mutex::default());
    Arc::new(Through::new(Arc::default(), town))
}

/// One process', with gates.
pub(super) fn gated() -> Arc<Through> {
    Arc::new(Through::new(Arc::default(), None))
}

impl Through {
    fn new(asked: Arc<AtomicUsize>, town: Option<Mutex<Town>>) -> Self {
        let (appends, beats, orders, forgets) = Default::default();
        Self { inner: MemoryStore::new(), asked, town, appends, beats, orders, forgets }
    }
    /// The worker's lease is over.
    pub(super) fn dies(&self, worker: WorkerId) {
        if let Some(town) = &self.town {
            town.lock().unwrap().alive.remove(&worker);
        }
    }
    /// Another worker that lives owns the run.
    fn elsewhere(&self, worker: WorkerId, run: RunId) -> Option<WorkerId> {
        let town = self.town.as_ref()?.lock().unwrap();
        town.owners.get(&run).copied().filter(|owner| *owner != worker && town.alive.contains(owner))
    }
    fn owns(&self, worker: Option<WorkerId>, run: RunId) {
        if let Some(town) = &self.town {
            let mut town = town.lock().unwrap();
            match worker {
                Some(worker) => drop(town.owners.insert(run, worker)),
                None => drop(town.owners.remove(&run)),
            }
        }
    }
    /// How much is asked of a run, seen beside the gate.
    pub(super) async fn look(&self, run: RunId) -> usize {
        self.inner.orders(run).await.unwrap().len()
    }
    fn count(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
    }
}

type StoreReply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> StoreReply<'_, $result> {
            self.count();
            self.inner.$name($($arg),*)
        })*
    };
}

impl Work for Through {
    fn heartbeat(&self, worker: WorkerId, name: String, lives: Duration) -> StoreReply<'_, Option<Timestamp>> {
        if let Some(town) = &self.town {
            town.lock().unwrap().alive.insert(worker);
        }
        Box::pin(async move {
            self.beats.through().await;
            self.inner.heartbeat(worker, name, lives).await
        })
    }
    fn deregister(&self, worker: WorkerId) -> StoreReply<'_, ()> {
        self.dies(worker);
        self.inner.deregister(worker)
    }
    fn take(&self, worker: WorkerId, run: RunId) -> StoreReply<'_, TakeResult> {
        self.count();
        if let Some(owner) = self.elsewhere(worker, run) {
            return Box::pin(std::future::ready(Ok(TakeResult::Elsewhere { worker: owner, name: "the other".into() })));
        }
        Box::pin(async move {
            let taken = self.inner.take(worker, run).await?;
            if matches!(taken, TakeResult::Taken(_)) {
                self.owns(Some(worker), run);
            }
            Ok(taken)
        })
    }
    fn take_due(&self, worker: WorkerId, limit: usize) -> StoreReply<'_, Vec<OwnedRun>> {
        self.count();
        if self.town.is_none() {
            return self.inner.take_due(worker, limit);
        }
        Box::pin(async move {
            let all = self.inner.runs(RunFilter { limit: 10_000, ..RunFilter::default() }).await?;
            let mut due = Vec::new();
            for run in all.iter().filter(|run| !run.status.is_final()) {
                let owner = self.town.as_ref().and_then(|town| town.lock().unwrap().owners.get(&run.run_id).copied());
                let turn = match owner {
                    Some(owner) => owner != worker && self.elsewhere(worker, run.run_id).is_none(),
                    None => {
                        run.wake.is_some_and(|at| at <= Timestamp::now())
                            || !self.inner.orders(run.run_id).await?.is_empty()
                    }
                };
                if turn
                    && due.len() < limit
                    && let TakeResult::Taken(owned) = self.take(worker, run.run_id).await?
                {
                    due.push(owned);
                }
            }
            Ok(due)
        })
    }
    passed_on! {
        due_times(limit: usize) -> Vec<(Timestamp, RunId)>;
        put_order(order: OrderRecord) -> ();
        order(id: Uuid) -> Option<OrderRecord>;
        settle_order(id: Uuid, answer: Value) -> ();
        locks(names: Option<Vec<String>>, limit: usize) -> Vec<LockRow>;
        webhook_messages(after: u64, limit: usize) -> Vec<WebhookMessage>;
        remove_webhook_message(number: u64) -> ();
        pending_runs(limit: usize) -> Vec<crate::store::PendingRun>;
        remove_pending_run(run: RunId) -> ();
        purge(status: RunStatus, ended_before: Timestamp, limit: usize) -> Purged;
        prune_retry_keys(limit: usize) -> u64;
        remains(run: RunId) -> Option<Remains>;
        put_run_snapshot(snapshot: RunSnapshot) -> ();
        run_snapshot(run: RunId) -> Option<RunSnapshot>;
    }
    fn orders(&self, run: RunId) -> StoreReply<'_, Vec<OrderRecord>> {
        self.count();
        Box::pin(async move {
            let orders = self.inner.orders(run).await;
            self.orders.through().await;
            orders
        })
    }
    fn notifications(&self) -> broadcast::Receiver<StoreNotification> {
        self.inner.notifications()
    }
    fn is_shared(&self) -> bool {
        self.town.is_some()
    }
}

impl Store for Through {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        self.count();
        let (run, owner) = (append.run_id, (!append.release).then_some(append.worker));
        Box::pin(async move {
            self.appends.through().await;
            self.inner.append(append).await?;
            self.owns(owner, run);
            Ok(())
        })
    }
    passed_on! {
        run(run: RunId) -> Option<RunSummary>;
        runs(filter: RunFilter) -> Vec<RunSummary>;
        open_runs() -> Vec<(RunStatus, u64)>;
        put_plan(id: crate::names::PlanId, source: Value) -> ();
        plan(id: crate::names::PlanId) -> Option<Value>;
        put_run_key(run: RunId, key: Option<Vec<u8>>) -> ();
        run_key(run: RunId) -> Option<Vec<u8>>;
        pin(key: crate::flag::PinKey) -> Option<PinRecord>;
        pin_counts() -> Vec<(crate::names::RouteId, crate::flag::Arm, u64)>;
        pins(family: crate::names::RouteId, arm: crate::flag::Arm, limit: usize) -> Vec<PinRecord>;
        first_try(key: crate::flag::RetryKey) -> Option<FirstTry>;
        engine_tries(after: Option<crate::flag::RetryKey>, limit: usize) -> Vec<(crate::flag::RetryKey, jiff::Timestamp)>;
        pinned(after: u64, limit: usize) -> Vec<(u64, crate::flag::PinKey, crate::flag::Arm)>;
        note_legacy_tries(keys: Vec<crate::flag::RetryKey>) -> ();
        put_flips(flips: Vec<FlipRecord>, declared: Option<Vec<DeclaredState>>) -> Vec<u64>;
        flips(route: Option<crate::names::RouteId>, limit: usize) -> Vec<FlipRecord>;
        last_flips() -> Vec<FlipRecord>;
        declared() -> Vec<DeclaredState>;
        put_samples(samples: Vec<SampleRecord>, per_fingerprint: usize, fingerprints: usize) -> ();
        samples(route: crate::names::RouteId, limit: usize) -> Vec<SampleRecord>;
        clear_samples(route: crate::names::RouteId) -> ();
        put_evidence(evidence: Vec<EvidenceRecord>) -> ();
        evidence() -> Vec<EvidenceRecord>;
        secret() -> [u8; 32];
    }
    fn events(&self, run: RunId, from: crate::names::Seq) -> StoreReply<'_, Vec<StoredEvent>> {
        self.count();
        Box::pin(async move {
            let mut events = self.inner.events(run, from).await?;
            if self.forgets.load(Ordering::SeqCst) {
                events.pop();
            }
            Ok(events)
        })
    }
    fn healthy(&self) -> bool {
        true
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
