//! Children are created once, however slow or faulty the store is, and whatever the order in which tasks run. A parent
//! that ends creates no child.

mod damaged_row;
mod missing_child;
mod missing_workflow;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, checked_plan, start};
use crate::engine::api::child;
use crate::engine::machine;
use crate::limits::Limits;
use crate::names::{RunId, Seq, WorkerId};
use crate::store::{
    AcquireResult, Append, AppendError, ChangedRuns, CommandRecord, DeclaredState, EvidenceRecord, FlipRecord, LockRow,
    MemoryStore, OwnedRun, PinRecord, Purged, RunBodies, RunCoordination, RunCursor, RunFilter, RunSnapshot,
    SampleRecord, Store, StoreError, StoreNotification, StoredEvent, StoredFirstTry, WebhookMessage,
};
use crate::workflow::{ControlCommand, Plan, RunStatus, RunSummary};

/// A store that delays reads of runs that do not exist, and refuses first appends of children.
struct SlowStore {
    inner: MemoryStore,
    /// Counts reads of runs that do not exist: the first is answered at `answered` 1, the second at 2.
    reads: watch::Sender<usize>,
    answered: watch::Sender<usize>,
    /// Counts acquisitions of runs that do not exist; they are answered once `acquisitions_answered` is true.
    acquisitions: watch::Sender<usize>,
    acquisitions_answered: watch::Sender<bool>,
    /// How many first appends of children are still refused.
    refused: AtomicUsize,
    /// Runs whose rows cannot be read.
    unreadable: Mutex<HashSet<RunId>>,
    /// The runs whose rows were read, in order.
    runs_read: Mutex<Vec<RunId>>,
}

impl SlowStore {
    fn new(reads_held: bool, acquisitions_held: bool, refused: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            reads: watch::Sender::new(0),
            answered: watch::Sender::new(if reads_held { 0 } else { usize::MAX }),
            acquisitions: watch::Sender::new(0),
            acquisitions_answered: watch::Sender::new(!acquisitions_held),
            refused: AtomicUsize::new(refused),
            unreadable: Mutex::default(),
            runs_read: Mutex::default(),
        })
    }
    async fn wait_for_reads(&self, count: usize) {
        let mut reads = self.reads.subscribe();
        tokio::time::timeout(TIMEOUT, reads.wait_for(|seen| *seen >= count)).await.expect("the run is read").unwrap();
    }
    async fn wait_for_acquisition(&self) {
        let mut acquisitions = self.acquisitions.subscribe();
        tokio::time::timeout(TIMEOUT, acquisitions.wait_for(|seen| *seen > 0))
            .await
            .expect("the run is acquired")
            .unwrap();
    }
    fn answer_reads(&self, count: usize) {
        self.answered.send_replace(count);
    }
    fn answer_acquisitions(&self) {
        self.acquisitions_answered.send_replace(true);
    }
}

type StoreReply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

macro_rules! forward_to_inner {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> StoreReply<'_, $result> {
            self.inner.$name($($arg),*)
        })*
    };
}

impl RunCoordination for SlowStore {
    fn acquire(&self, worker: WorkerId, run: RunId) -> StoreReply<'_, AcquireResult> {
        Box::pin(async move {
            let taken = self.inner.acquire(worker, run).await?;
            if taken == AcquireResult::Unknown {
                self.acquisitions.send_modify(|acquisitions| *acquisitions += 1);
                let _ = self.acquisitions_answered.subscribe().wait_for(|answers| *answers).await;
            }
            Ok(taken)
        })
    }
    forward_to_inner! {
        heartbeat(worker: WorkerId, name: String, lease: Duration) -> Option<jiff::Timestamp>;
        deregister(worker: WorkerId) -> ();
        acquire_due(worker: WorkerId, limit: usize) -> Vec<OwnedRun>;
        due_times(limit: usize) -> Vec<(jiff::Timestamp, RunId)>;
        put_command(command: CommandRecord) -> ();
        commands(run: RunId) -> Vec<CommandRecord>;
        command(id: uuid::Uuid) -> Option<CommandRecord>;
        answer_command(id: uuid::Uuid, answer: Value) -> ();
        locks(names: Option<Vec<String>>, limit: usize) -> Vec<LockRow>;
        webhook_messages(after: u64, limit: usize) -> Vec<WebhookMessage>;
        remove_webhook_message(number: u64) -> ();
        pending_runs(limit: usize) -> Vec<crate::store::OutboxRow>;
        remove_pending_run(run: RunId) -> ();
        purge(status: RunStatus, ended_before: jiff::Timestamp, limit: usize) -> Purged;
        prune_retry_keys(after: Option<crate::store::RetryKeyPosition>, limit: usize) -> crate::store::RetryKeyPage<u64>;
        long_bound_keys(
            ahead: std::time::Duration,
            after: Option<crate::store::RetryKeyPosition>,
            limit: usize
        ) -> crate::store::RetryKeyPage<Vec<crate::flag::RetryKey>>;
        purged_run_bodies(run: RunId) -> Option<RunBodies>;
        put_run_snapshot(snapshot: RunSnapshot) -> ();
        run_snapshot(run: RunId) -> Option<RunSnapshot>;
        changed_runs(since: Option<RunCursor>, limit: usize) -> ChangedRuns;
    }
    fn notifications(&self) -> tokio::sync::broadcast::Receiver<StoreNotification> {
        self.inner.notifications()
    }
    fn is_shared(&self) -> bool {
        false
    }
}

crate::store::tests::forward_work::forward_pin_collisions!(SlowStore, inner);
impl crate::store::InstanceStore for SlowStore {}
impl crate::store::RecordLog for SlowStore {}
impl crate::store::CaptureStore for SlowStore {}

impl crate::store::AdoptionStore for SlowStore {}
impl crate::store::ServiceCallerStore for SlowStore {}

impl Store for SlowStore {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let is_first_of_child = append.first == Seq::FIRST && append.summary.parent.is_some();
        let decrement = |left: usize| left.checked_sub(1);
        if is_first_of_child && self.refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrement).is_ok() {
            return Box::pin(std::future::ready(Err(AppendError::Refused("disk full".into()))));
        }
        self.inner.append(append)
    }
    fn run(&self, run: RunId) -> StoreReply<'_, Option<RunSummary>> {
        self.runs_read.lock().unwrap().push(run);
        if self.unreadable.lock().unwrap().contains(&run) {
            return Box::pin(std::future::ready(Err(StoreError("a stored record cannot be read".into()))));
        }
        Box::pin(async move {
            let found = self.inner.run(run).await?;
            if found.is_none() {
                let mut number = 0;
                self.reads.send_modify(|reads| {
                    *reads += 1;
                    number = *reads;
                });
                if number <= 2 {
                    let _ = self.answered.subscribe().wait_for(|answers| *answers >= number).await;
                }
            }
            Ok(found)
        })
    }
    forward_to_inner! {
        events(run: RunId, from: Seq) -> Vec<StoredEvent>;
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
        remove_samples_before(at: jiff::Timestamp) -> ();
        put_evidence(evidence: Vec<EvidenceRecord>) -> ();
        evidence() -> Vec<EvidenceRecord>;
        secret() -> [u8; 32];
    }
    fn healthy(&self) -> bool {
        true
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

fn parent() -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "sub": { "run": "child", "on_failure": "fail" } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    )
}

fn child(steps: Value) -> Arc<Plan> {
    checked_plan(&json!({ "workflow": "child", "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

fn calls() -> Arc<Plan> {
    child(json!({ "a": { "call": "POST ${services.world}/child" } }))
}

async fn harness(store: &Arc<SlowStore>, child: &Arc<Plan>) -> (Arc<StepService>, Harness) {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::with_store(&step_service, parent(), store.clone(), Limits::default(), None).await;
    harness.load_plans(&[child]);
    (step_service, harness)
}

async fn give_command(harness: &Harness, run: RunId, command: ControlCommand) {
    harness.engine.give_command(run, command, "ann".into()).await.unwrap();
}

fn cancel() -> ControlCommand {
    ControlCommand::Cancel { compensate: true, reason: None, automatic: false }
}

/// The parent is cancelled while its child is being looked up: the child is not created, and the parent ends.
#[tokio::test]
async fn a_parent_that_ends_creates_no_further_child() {
    let store = SlowStore::new(true, false, 0);
    let (step_service, harness) = harness(&store, &calls()).await;
    let run = start(&harness, json!({})).await.run;
    store.wait_for_reads(1).await;
    give_command(&harness, run, cancel()).await;
    store.answer_reads(usize::MAX);
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Cancelled);
    harness.wait_until_idle(run).await;
    assert_eq!(harness.runs().await.len(), 1, "no child is created");
    assert!(step_service.seen().is_empty(), "{:?}", step_service.paths());
}

/// As the test above, but after a crash: the child exists only as an event of its parent and a row of the outbox.
#[tokio::test]
async fn the_next_process_does_not_create_the_child_of_an_ending_parent() {
    let store = SlowStore::new(true, false, 0);
    let (step_service, mut harness) = harness(&store, &calls()).await;
    let run = start(&harness, json!({})).await.run;
    store.wait_for_reads(1).await;
    give_command(&harness, run, cancel()).await;
    harness.crash().await;
    harness.load_plans(&[&calls()]);
    store.answer_reads(usize::MAX);
    harness.recover().await;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Cancelled);
    assert_eq!((harness.runs().await.len(), step_service.seen().len()), (1, 0));
}

/// A child is not created while its parent is paused, and is created when the parent is resumed.
#[tokio::test]
async fn a_paused_parent_creates_its_child_only_after_resume() {
    for restart in [false, true] {
        let store = SlowStore::new(true, false, 0);
        let (step_service, mut harness) = harness(&store, &calls()).await;
        let run = start(&harness, json!({})).await.run;
        store.wait_for_reads(1).await;
        give_command(&harness, run, ControlCommand::Pause { reason: None }).await;
        store.answer_reads(usize::MAX);
        harness.wait_until_idle(run).await;
        assert_eq!((harness.runs().await.len(), step_service.seen().len()), (1, 0));
        if restart {
            harness.crash().await;
            harness.load_plans(&[&calls()]);
            harness.recover().await;
        }
        give_command(&harness, run, ControlCommand::Resume { reason: None }).await;
        assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
        assert_eq!((harness.runs().await.len(), step_service.seen().len()), (2, 1));
    }
}

/// The delivery of a command to a child that does not exist yet holds its slot: the child is created after that.
#[tokio::test]
async fn a_command_to_a_child_does_not_prevent_its_creation() {
    let store = SlowStore::new(true, true, 0);
    let (_world, harness) = harness(&store, &calls()).await;
    let run = start(&harness, json!({})).await.run;
    store.wait_for_reads(1).await;
    let child = crate::workflow::fold(harness.events(run).await.iter()).unwrap().children().next().unwrap().run;
    let core = harness.engine.core.clone();
    let command = tokio::spawn(async move {
        crate::engine::scheduler::commands::give_command(
            &core,
            child,
            ControlCommand::Pause { reason: None },
            "bob".into(),
        )
        .await
    });
    store.wait_for_acquisition().await;
    store.answer_reads(usize::MAX);
    tokio::task::yield_now().await;
    store.answer_acquisitions();
    assert!(command.await.unwrap().is_err(), "the child does not exist yet");
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
}

/// A first append that the store refuses is repeated.
#[tokio::test]
async fn a_child_whose_first_append_is_refused_is_created_later() {
    let store = SlowStore::new(false, false, 3);
    let (step_service, harness) = harness(&store, &calls()).await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /child"]);
    assert_eq!(store.refused.load(Ordering::SeqCst), 0);
}

/// The process ends between the append that decides on a child and the child's first: the next process creates it.
#[tokio::test]
async fn a_child_that_was_decided_before_a_crash_is_created_by_the_next_process() {
    let store = SlowStore::new(true, false, 0);
    let (step_service, mut harness) = harness(&store, &calls()).await;
    let run = start(&harness, json!({})).await.run;
    store.wait_for_reads(1).await;
    let pending_runs = store.inner.pending_runs(9).await.unwrap();
    assert_eq!(pending_runs.iter().map(|row| row.parent).collect::<Vec<_>>(), [Some(run)], "decided, and not created");
    harness.crash().await;
    harness.load_plans(&[&calls()]);
    store.answer_reads(usize::MAX);
    harness.recover().await;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    assert_eq!((step_service.paths(), harness.runs().await.len()), (vec!["POST /child".to_owned()], 2));
    assert!(store.inner.pending_runs(9).await.unwrap().is_empty());
}

/// A child that is never created leaves no row in the outbox.
#[tokio::test]
async fn the_outbox_row_of_a_child_that_is_never_created_is_removed() {
    let store = SlowStore::new(true, false, 0);
    let (_world, harness) = harness(&store, &calls()).await;
    let run = start(&harness, json!({})).await.run;
    store.wait_for_reads(1).await;
    give_command(&harness, run, cancel()).await;
    assert_eq!(store.inner.pending_runs(9).await.unwrap().len(), 1);
    store.answer_reads(usize::MAX);
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Cancelled);
    assert!(store.inner.pending_runs(9).await.unwrap().is_empty());
}

/// Two lookups find no child. The first creates it, and it is suspended when the second lookup continues.
#[tokio::test]
async fn ensuring_a_child_a_second_time_does_not_disturb_the_suspended_child() {
    let store = SlowStore::new(true, false, 0);
    let (_world, harness) = harness(&store, &child(json!({ "a": { "wait": "1h" } }))).await;
    let run = start(&harness, json!({})).await.run;
    store.wait_for_reads(1).await;
    let parent = crate::workflow::fold(harness.events(run).await.iter()).unwrap();
    let plan = harness.engine.core.files.snapshot.load().plan(&parent.started().plan).unwrap();
    let spec = machine::open_children(&parent, &plan, None).next().unwrap();
    let child = spec.child;
    let (core, started) = (harness.engine.core.clone(), parent.started().clone());
    let second = tokio::spawn(child::ensure_child(core, started, Arc::default(), spec, 0, Default::default()));
    store.wait_for_reads(2).await;
    store.answer_reads(1);
    let suspended = async {
        while !harness.engine.core.schedule.timers.will_wake(child)
            || harness.engine.core.schedule.mailboxes.has_task(child)
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, suspended).await.expect("the timer of the child is set");
    store.answer_reads(usize::MAX);
    let seen = tokio::time::timeout(TIMEOUT, second).await.unwrap().unwrap();
    assert!(matches!(seen, machine::ChildState::Running));
    harness.wait_until_idle(run).await;
    harness.wait_until_idle(child).await;
    assert!(harness.engine.core.schedule.timers.will_wake(child), "its timer is still set");
    give_command(&harness, run, cancel()).await;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Cancelled);
}
