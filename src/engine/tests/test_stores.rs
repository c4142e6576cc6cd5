//! Stores for tests: they count operations, stop them at gates, or are shared by two processes.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::names::{Fence, RunId, WorkerId};
use crate::store::{
    AcquireResult, Append, AppendError, CommandRecord, DeclaredState, EvidenceRecord, FlipRecord, LockRow, MemoryStore,
    OwnedRun, PinRecord, Purged, RunBodies, RunCoordination, RunFilter, RunSnapshot, SampleRecord, Store, StoreError,
    StoreHandle, StoreNotification, StoredEvent, StoredFirstTry, WebhookMessage,
};
use crate::workflow::{RunStatus, RunSummary};

/// A memory store that counts its operations, and that several processes may share.
pub(super) struct TestStore {
    inner: MemoryStore,
    operations: Arc<AtomicUsize>,
    /// The number of attempts to acquire a run.
    pub(super) acquisitions: AtomicUsize,
    /// The number of queries for due runs.
    pub(super) sweeps: AtomicUsize,
    /// `Some`: several processes share it; the lease of each is valid until it deregisters or the test expires it.
    shared_state: Option<Mutex<SharedState>>,
    /// The number of reads of a run's events.
    pub(super) event_reads: AtomicUsize,
    /// A gate before every append.
    pub(super) appends: Gate,
    /// A gate before every heartbeat.
    pub(super) heartbeats: Gate,
    /// A gate after commands were read and before they are returned.
    pub(super) commands: Gate,
    /// Whether reads omit the last event of each run.
    pub(super) omits_last_event: std::sync::atomic::AtomicBool,
}

/// A point where operations of a store can be stopped.
pub(super) struct Gate {
    open: tokio::sync::Semaphore,
    arrived: tokio::sync::watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: tokio::sync::Semaphore::new(1 << 20), arrived: tokio::sync::watch::Sender::new(0) }
    }
}

impl Gate {
    /// Stops all operations from now on, and resets the count of arrivals.
    pub fn shut(&self) {
        self.open.forget_permits(1 << 20);
        self.arrived.send_replace(0);
    }
    /// Lets this many operations pass.
    pub fn pass(&self, count: usize) {
        self.open.add_permits(count);
    }
    /// Waits until this many operations have arrived since the gate was shut.
    pub async fn wait_for_arrivals(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        let waited = tokio::time::timeout(super::harness::TIMEOUT, arrived.wait_for(|arrived| *arrived >= count)).await;
        assert!(waited.is_ok(), "no operation arrives at the gate");
    }
    async fn go_through(&self) {
        self.arrived.send_modify(|arrived| *arrived += 1);
        self.open.acquire().await.unwrap().forget();
    }
}

#[derive(Default)]
struct SharedState {
    owners: HashMap<RunId, WorkerId>,
    alive: HashSet<WorkerId>,
}

/// A store that counts its operations.
pub(super) fn counting() -> (StoreHandle, Arc<AtomicUsize>) {
    let operations = Arc::new(AtomicUsize::new(0));
    (Arc::new(TestStore::new(operations.clone(), None)), operations)
}

/// A store that several processes share.
pub(super) fn shared() -> Arc<TestStore> {
    let shared_state = Some(Mutex::default());
    Arc::new(TestStore::new(Arc::default(), shared_state))
}

/// A store of one process, with gates.
pub(super) fn gated() -> Arc<TestStore> {
    Arc::new(TestStore::new(Arc::default(), None))
}

impl TestStore {
    fn new(operations: Arc<AtomicUsize>, shared_state: Option<Mutex<SharedState>>) -> Self {
        let (appends, heartbeats, commands, omits_last_event) = Default::default();
        let (acquisitions, sweeps, event_reads) = Default::default();
        Self {
            inner: MemoryStore::new(),
            operations,
            acquisitions,
            sweeps,
            event_reads,
            shared_state,
            appends,
            heartbeats,
            commands,
            omits_last_event,
        }
    }
    /// Ends the lease of a process.
    pub(super) fn expire_lease(&self, worker: WorkerId) {
        if let Some(shared_state) = &self.shared_state {
            shared_state.lock().unwrap().alive.remove(&worker);
        }
    }
    /// The other live worker that owns the run, if any.
    fn other_owner(&self, worker: WorkerId, run: RunId) -> Option<WorkerId> {
        let shared_state = self.shared_state.as_ref()?.lock().unwrap();
        shared_state.owners.get(&run).copied().filter(|owner| *owner != worker && shared_state.alive.contains(owner))
    }
    fn set_owner(&self, worker: Option<WorkerId>, run: RunId) {
        if let Some(shared_state) = &self.shared_state {
            let mut shared_state = shared_state.lock().unwrap();
            match worker {
                Some(worker) => drop(shared_state.owners.insert(run, worker)),
                None => drop(shared_state.owners.remove(&run)),
            }
        }
    }
    /// The number of commands to a run, read without passing the gate.
    pub(super) async fn count_commands_without_gate(&self, run: RunId) -> usize {
        self.inner.commands(run).await.unwrap().len()
    }
    fn count(&self) {
        self.operations.fetch_add(1, Ordering::SeqCst);
    }
}

type StoreReply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

macro_rules! forward_to_inner {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> StoreReply<'_, $result> {
            self.count();
            self.inner.$name($($arg),*)
        })*
    };
}

impl RunCoordination for TestStore {
    fn heartbeat(&self, worker: WorkerId, name: String, lease: Duration) -> StoreReply<'_, Option<Timestamp>> {
        if let Some(shared_state) = &self.shared_state {
            shared_state.lock().unwrap().alive.insert(worker);
        }
        Box::pin(async move {
            self.heartbeats.go_through().await;
            self.inner.heartbeat(worker, name, lease).await
        })
    }
    fn deregister(&self, worker: WorkerId) -> StoreReply<'_, ()> {
        self.expire_lease(worker);
        self.inner.deregister(worker)
    }
    fn acquire(&self, worker: WorkerId, run: RunId) -> StoreReply<'_, AcquireResult> {
        self.count();
        self.acquisitions.fetch_add(1, Ordering::SeqCst);
        if let Some(owner) = self.other_owner(worker, run) {
            return Box::pin(std::future::ready(Ok(AcquireResult::Elsewhere {
                worker: owner,
                name: "the other".into(),
            })));
        }
        Box::pin(async move {
            let taken = self.inner.acquire(worker, run).await?;
            if matches!(taken, AcquireResult::Acquired(_)) {
                self.set_owner(Some(worker), run);
            }
            Ok(taken)
        })
    }
    fn acquire_due(&self, worker: WorkerId, limit: usize) -> StoreReply<'_, Vec<OwnedRun>> {
        self.acquire_due_except(worker, limit, Vec::new())
    }
    fn give_up(&self, worker: WorkerId, run: RunId, _: Fence) -> StoreReply<'_, ()> {
        if self.shared_state.as_ref().is_some_and(|state| state.lock().unwrap().owners.get(&run) == Some(&worker)) {
            self.set_owner(Some(WorkerId(Uuid::nil())), run); // an owner that never sends a heartbeat
        }
        Box::pin(std::future::ready(Ok(())))
    }
    fn acquire_due_except(
        &self,
        worker: WorkerId,
        limit: usize,
        unreadable: Vec<RunId>,
    ) -> StoreReply<'_, Vec<OwnedRun>> {
        self.count();
        self.sweeps.fetch_add(1, Ordering::SeqCst);
        if self.shared_state.is_none() {
            return self.inner.acquire_due(worker, limit);
        }
        Box::pin(async move {
            let all = self.inner.runs(RunFilter { limit: 10_000, ..RunFilter::default() }).await?;
            let mut due = Vec::new();
            for run in all.iter().filter(|run| !run.status.is_final()) {
                let owner = self
                    .shared_state
                    .as_ref()
                    .and_then(|shared_state| shared_state.lock().unwrap().owners.get(&run.run_id).copied());
                let is_due = match owner {
                    Some(owner) => {
                        owner != worker
                            && self.other_owner(worker, run.run_id).is_none()
                            && (!unreadable.contains(&run.run_id) || !self.inner.commands(run.run_id).await?.is_empty())
                    }
                    None => {
                        run.wake.is_some_and(|at| at <= Timestamp::now())
                            || !self.inner.commands(run.run_id).await?.is_empty()
                    }
                };
                if is_due
                    && due.len() < limit
                    && let AcquireResult::Acquired(owned) = self.acquire(worker, run.run_id).await?
                {
                    due.push(owned);
                }
            }
            Ok(due)
        })
    }
    forward_to_inner! {
        due_times(limit: usize) -> Vec<(Timestamp, RunId)>;
        put_command(command: CommandRecord) -> ();
        command(id: Uuid) -> Option<CommandRecord>;
        answer_command(id: Uuid, answer: Value) -> ();
        locks(names: Option<Vec<String>>, limit: usize) -> Vec<LockRow>;
        webhook_messages(after: u64, limit: usize) -> Vec<WebhookMessage>;
        remove_webhook_message(number: u64) -> ();
        pending_runs(limit: usize) -> Vec<crate::store::OutboxRow>;
        remove_pending_run(run: RunId) -> ();
        purge(status: RunStatus, ended_before: Timestamp, limit: usize) -> Purged;
        prune_retry_keys(
            after: Option<crate::store::RetryKeyPosition>,
            limit: usize
        ) -> crate::store::RetryKeyPage<u64>;
        long_bound_keys(
            ahead: std::time::Duration,
            after: Option<crate::store::RetryKeyPosition>,
            limit: usize
        ) -> crate::store::RetryKeyPage<Vec<crate::flag::RetryKey>>;
        purged_run_bodies(run: RunId) -> Option<RunBodies>;
        put_run_snapshot(snapshot: RunSnapshot) -> ();
        run_snapshot(run: RunId) -> Option<RunSnapshot>;
        changed_runs(
            since: Option<crate::store::RunCursor>,
            limit: usize
        ) -> crate::store::ChangedRuns;
    }
    fn commands(&self, run: RunId) -> StoreReply<'_, Vec<CommandRecord>> {
        self.count();
        Box::pin(async move {
            let commands = self.inner.commands(run).await;
            self.commands.go_through().await;
            commands
        })
    }
    fn notifications(&self) -> broadcast::Receiver<StoreNotification> {
        self.inner.notifications()
    }
    fn is_shared(&self) -> bool {
        self.shared_state.is_some()
    }
}

crate::store::tests::forward_work::forward_pin_collisions!(TestStore, inner);
impl crate::store::InstanceStore for TestStore {}
impl crate::store::RecordLog for TestStore {}
impl crate::store::CaptureStore for TestStore {}

impl crate::store::AdoptionStore for TestStore {}
impl crate::store::ServiceCallerStore for TestStore {}

impl Store for TestStore {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        self.count();
        let (run, owner) = (append.run_id, (!append.release).then_some(append.worker));
        Box::pin(async move {
            self.appends.go_through().await;
            self.inner.append(append).await?;
            self.set_owner(owner, run);
            Ok(())
        })
    }
    forward_to_inner! {
        run(run: RunId) -> Option<RunSummary>;
        runs(filter: RunFilter) -> Vec<RunSummary>;
        open_runs() -> Vec<(RunStatus, u64)>;
        put_plan(id: crate::names::PlanId, source: Value) -> ();
        plan(id: crate::names::PlanId) -> Option<Value>;
        put_run_key(run: RunId, key: Option<Vec<u8>>) -> ();
        run_key(run: RunId) -> Option<Vec<u8>>;
        pin(key: crate::flag::PinKey) -> Option<PinRecord>;
        detach_twin(key: crate::flag::PinKey) -> ();
        pin_counts() -> Vec<(crate::names::RouteId, crate::flag::Arm, u64)>;
        pins(family: crate::names::RouteId, arm: crate::flag::Arm, limit: usize) -> Vec<PinRecord>;
        first_try(key: crate::flag::RetryKey) -> Option<StoredFirstTry>;
        engine_took_any(range: std::ops::RangeInclusive<crate::flag::RetryKey>) -> bool;
        engine_took_any_after(
            legacy_key: crate::flag::RetryKey,
            range: std::ops::RangeInclusive<crate::flag::RetryKey>
        ) -> bool;
        engine_tries(after: Option<crate::flag::RetryKey>, limit: usize) -> Vec<(crate::flag::RetryKey, jiff::Timestamp)>;
        pinned(after: u64, limit: usize) -> Vec<(u64, crate::flag::PinKey, crate::flag::Arm)>;
        note_legacy_tries(tries: Vec<(crate::flag::RetryKey, jiff::Timestamp)>) -> Vec<crate::flag::RetryKey>;
        put_flips(put: crate::store::PutFlips) -> Option<Vec<u64>>;
        flips(route: Option<crate::names::RouteId>, limit: usize) -> Vec<FlipRecord>;
        last_flips() -> Vec<FlipRecord>;
        declared() -> Vec<DeclaredState>;
        put_samples(samples: Vec<SampleRecord>, per_fingerprint: usize, fingerprints: usize) -> ();
        samples(route: crate::names::RouteId, limit: usize) -> Vec<SampleRecord>;
        sample_of_run(run: RunId) -> Option<SampleRecord>;
        clear_samples(route: crate::names::RouteId) -> ();
        remove_samples_before(at: Timestamp) -> ();
        put_evidence(evidence: Vec<EvidenceRecord>) -> ();
        evidence() -> Vec<EvidenceRecord>;
        secret() -> [u8; 32];
    }
    fn events(&self, run: RunId, from: crate::names::Seq) -> StoreReply<'_, Vec<StoredEvent>> {
        self.count();
        self.event_reads.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let mut events = self.inner.events(run, from).await?;
            if self.omits_last_event.load(Ordering::SeqCst) {
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
