//! How runs that others begin are born: once, whatever the store does and whoever is faster; and never for a parent
//! that ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::kit::{Bench, PATIENCE, React, World, checked, start};
use crate::engine::api::child;
use crate::engine::machine;
use crate::limits::Limits;
use crate::names::{RunId, Seq, WorkerId};
use crate::store::{
    Append, AppendError, DeclaredState, EvidenceRecord, FirstTry, FlipRecord, LockRow, MemoryStore, OrderRecord,
    OwnedRun, PinRecord, Purged, Remains, RunFilter, RunSnapshot, SampleRecord, Store, StoreError, StoreNotification,
    StoredEvent, TakeResult, WebhookMessage, Work,
};
use crate::workflow::{Order, Plan, RunStatus, RunSummary};

/// A store that is slow where a run is not there, and refuses pending_runs.
struct Slow {
    inner: MemoryStore,
    /// Looks for a run that found nothing: the n-th of the first two is answered once the count is beyond n.
    looks: watch::Sender<usize>,
    answered: watch::Sender<usize>,
    /// Taking a run that is not there is answered once this is true.
    takes: watch::Sender<usize>,
    taken: watch::Sender<bool>,
    /// So many pending_runs of runs that others begin are refused.
    refused: AtomicUsize,
}

impl Slow {
    fn new(looks_held: bool, takes_held: bool, refused: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            looks: watch::Sender::new(0),
            answered: watch::Sender::new(if looks_held { 0 } else { usize::MAX }),
            takes: watch::Sender::new(0),
            taken: watch::Sender::new(!takes_held),
            refused: AtomicUsize::new(refused),
        })
    }
    async fn looked(&self, count: usize) {
        let mut looks = self.looks.subscribe();
        tokio::time::timeout(PATIENCE, looks.wait_for(|seen| *seen >= count)).await.expect("it looks").unwrap();
    }
    async fn takes(&self) {
        let mut takes = self.takes.subscribe();
        tokio::time::timeout(PATIENCE, takes.wait_for(|seen| *seen > 0)).await.expect("it takes").unwrap();
    }
    fn answer_looks(&self, count: usize) {
        self.answered.send_replace(count);
    }
    fn answer_takes(&self) {
        self.taken.send_replace(true);
    }
}

type StoreReply<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> StoreReply<'_, $result> {
            self.inner.$name($($arg),*)
        })*
    };
}

impl Work for Slow {
    fn take(&self, worker: WorkerId, run: RunId) -> StoreReply<'_, TakeResult> {
        Box::pin(async move {
            let taken = self.inner.take(worker, run).await?;
            if taken == TakeResult::Unknown {
                self.takes.send_modify(|takes| *takes += 1);
                let _ = self.taken.subscribe().wait_for(|answers| *answers).await;
            }
            Ok(taken)
        })
    }
    passed_on! {
        heartbeat(worker: WorkerId, name: String, lives: Duration) -> Option<jiff::Timestamp>;
        deregister(worker: WorkerId) -> ();
        take_due(worker: WorkerId, limit: usize) -> Vec<OwnedRun>;
        due_times(limit: usize) -> Vec<(jiff::Timestamp, RunId)>;
        put_order(order: OrderRecord) -> ();
        orders(run: RunId) -> Vec<OrderRecord>;
        order(id: uuid::Uuid) -> Option<OrderRecord>;
        settle_order(id: uuid::Uuid, answer: Value) -> ();
        locks(names: Option<Vec<String>>, limit: usize) -> Vec<LockRow>;
        webhook_messages(after: u64, limit: usize) -> Vec<WebhookMessage>;
        remove_webhook_message(number: u64) -> ();
        pending_runs(limit: usize) -> Vec<crate::store::PendingRun>;
        remove_pending_run(run: RunId) -> ();
        purge(status: RunStatus, ended_before: jiff::Timestamp, limit: usize) -> Purged;
        prune_retry_keys(limit: usize) -> u64;
        remains(run: RunId) -> Option<Remains>;
        put_run_snapshot(snapshot: RunSnapshot) -> ();
        run_snapshot(run: RunId) -> Option<RunSnapshot>;
    }
    fn notifications(&self) -> tokio::sync::broadcast::Receiver<StoreNotification> {
        self.inner.notifications()
    }
    fn is_shared(&self) -> bool {
        false
    }
}

impl Store for Slow {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let birth = append.first == Seq::FIRST && append.summary.parent.is_some();
        let less = |left: usize| left.checked_sub(1);
        if birth && self.refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Box::pin(std::future::ready(Err(AppendError::Refused("disk full".into()))));
        }
        self.inner.append(append)
    }
    fn run(&self, run: RunId) -> StoreReply<'_, Option<RunSummary>> {
        Box::pin(async move {
            let found = self.inner.run(run).await?;
            if found.is_none() {
                let mut place = 0;
                self.looks.send_modify(|looks| {
                    *looks += 1;
                    place = *looks;
                });
                if place <= 2 {
                    let _ = self.answered.subscribe().wait_for(|answers| *answers >= place).await;
                }
            }
            Ok(found)
        })
    }
    passed_on! {
        events(run: RunId, from: Seq) -> Vec<StoredEvent>;
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
    fn healthy(&self) -> bool {
        true
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

fn parent() -> Arc<Plan> {
    checked(
        &json!({
            "workflow": "w",
            "steps": { "sub": { "run": "child", "on_failure": "fail" } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    )
}

fn child(steps: Value) -> Arc<Plan> {
    checked(&json!({ "workflow": "child", "steps": steps, "respond": { "status": 200, "body": {} } }), false)
}

fn calls() -> Arc<Plan> {
    child(json!({ "a": { "call": "POST ${services.world}/child" } }))
}

async fn bench(store: &Arc<Slow>, child: &Arc<Plan>) -> (Arc<World>, Bench) {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    let bench = Bench::over(&world, parent(), store.clone(), Limits::default(), None).await;
    bench.with(&[child]);
    (world, bench)
}

async fn order(bench: &Bench, run: RunId, order: Order) {
    bench.engine.order(run, order, "ann".into()).await.unwrap();
}

fn cancel() -> Order {
    Order::Cancel { compensate: true, reason: None }
}

/// The look for a child is under way when its parent is told to end: the child is not born, and the parent ends.
#[tokio::test]
async fn a_parent_that_ends_begins_nothing_more() {
    let store = Slow::new(true, false, 0);
    let (world, bench) = bench(&store, &calls()).await;
    let run = start(&bench, json!({})).await.run;
    store.looked(1).await;
    order(&bench, run, cancel()).await;
    store.answer_looks(usize::MAX);
    assert_eq!(bench.ended(run).await.status, RunStatus::Cancelled);
    bench.rests(run).await;
    assert_eq!(bench.runs().await.len(), 1, "nobody is born");
    assert!(world.seen().is_empty(), "{:?}", world.paths());
}

/// The same of one that was cut when its child was on disk only as a wish.
#[tokio::test]
async fn the_next_process_does_not_begin_what_an_ending_parent_wished() {
    let store = Slow::new(true, false, 0);
    let (world, mut bench) = bench(&store, &calls()).await;
    let run = start(&bench, json!({})).await.run;
    store.looked(1).await;
    order(&bench, run, cancel()).await;
    bench.crash().await;
    bench.with(&[&calls()]);
    store.answer_looks(usize::MAX);
    bench.recover().await;
    assert_eq!(bench.ended(run).await.status, RunStatus::Cancelled);
    assert_eq!((bench.runs().await.len(), world.seen().len()), (1, 0));
}

/// Nor is it born while its parent is paused: it is when that goes on.
#[tokio::test]
async fn a_parent_that_is_paused_begins_nothing_until_it_goes_on() {
    for restart in [false, true] {
        let store = Slow::new(true, false, 0);
        let (world, mut bench) = bench(&store, &calls()).await;
        let run = start(&bench, json!({})).await.run;
        store.looked(1).await;
        order(&bench, run, Order::Pause { reason: None }).await;
        store.answer_looks(usize::MAX);
        bench.rests(run).await;
        assert_eq!((bench.runs().await.len(), world.seen().len()), (1, 0));
        if restart {
            bench.crash().await;
            bench.with(&[&calls()]);
            bench.recover().await;
        }
        order(&bench, run, Order::Resume { reason: None }).await;
        assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
        assert_eq!((bench.runs().await.len(), world.seen().len()), (2, 1));
    }
}

/// Somebody says something to a child that is not born, and sits in its place meanwhile: it is born all the same.
#[tokio::test]
async fn a_letter_to_a_child_does_not_keep_it_from_being_born() {
    let store = Slow::new(true, true, 0);
    let (_world, bench) = bench(&store, &calls()).await;
    let run = start(&bench, json!({})).await.run;
    store.looked(1).await;
    let child = crate::workflow::fold(bench.events(run).await.iter()).unwrap().children().next().unwrap().run;
    let core = bench.engine.core.clone();
    let said = tokio::spawn(async move {
        crate::engine::api::orders::order(&core, child, Order::Pause { reason: None }, "bob".into()).await
    });
    store.takes().await;
    store.answer_looks(usize::MAX);
    tokio::task::yield_now().await;
    store.answer_takes();
    assert!(said.await.unwrap().is_err(), "it is not there yet");
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
}

/// A birth that the store refuses is tried again.
#[tokio::test]
async fn a_child_whose_birth_is_refused_is_born_later() {
    let store = Slow::new(false, false, 3);
    let (world, bench) = bench(&store, &calls()).await;
    let run = start(&bench, json!({})).await.run;
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    assert_eq!(world.paths(), ["POST /child"]);
    assert_eq!(store.refused.load(Ordering::SeqCst), 0);
}

/// The process ends between the append that decides on a child and the child's first: the next one begins it, once.
#[tokio::test]
async fn a_child_whose_birth_was_cut_off_is_born_by_the_next_process() {
    let store = Slow::new(true, false, 0);
    let (world, mut bench) = bench(&store, &calls()).await;
    let run = start(&bench, json!({})).await.run;
    store.looked(1).await;
    let pending_runs = store.inner.pending_runs(9).await.unwrap();
    assert_eq!(
        pending_runs.iter().map(|birth| birth.parent).collect::<Vec<_>>(),
        [Some(run)],
        "decided, and not begun"
    );
    bench.crash().await;
    bench.with(&[&calls()]);
    store.answer_looks(usize::MAX);
    bench.recover().await;
    assert_eq!(bench.ended(run).await.status, RunStatus::Completed);
    assert_eq!((world.paths(), bench.runs().await.len()), (vec!["POST /child".to_owned()], 2));
    assert!(store.inner.pending_runs(9).await.unwrap().is_empty());
}

/// A child that can never begin leaves no row behind.
#[tokio::test]
async fn what_is_never_born_is_not_delivered_for_ever() {
    let store = Slow::new(true, false, 0);
    let (_world, bench) = bench(&store, &calls()).await;
    let run = start(&bench, json!({})).await.run;
    store.looked(1).await;
    order(&bench, run, cancel()).await;
    assert_eq!(store.inner.pending_runs(9).await.unwrap().len(), 1);
    store.answer_looks(usize::MAX);
    assert_eq!(bench.ended(run).await.status, RunStatus::Cancelled);
    assert!(store.inner.pending_runs(9).await.unwrap().is_empty());
}

/// Two looks see nothing; the first gives birth to the child, which rests when the second goes on.
#[tokio::test]
async fn a_second_look_does_not_disturb_a_child_that_rests() {
    let store = Slow::new(true, false, 0);
    let (_world, bench) = bench(&store, &child(json!({ "a": { "wait": "1h" } }))).await;
    let run = start(&bench, json!({})).await.run;
    store.looked(1).await;
    let parent = crate::workflow::fold(bench.events(run).await.iter()).unwrap();
    let begun = machine::open_children(&parent).next().unwrap();
    let child = begun.child;
    let core = bench.engine.core.clone();
    let started = parent.started().clone();
    let second = tokio::spawn(child::ensure_child(core, started, Arc::default(), begun, 0));
    store.looked(2).await;
    store.answer_looks(1);
    let rests = async {
        while !bench.engine.core.schedule.timers.will_wake(child)
            || bench.engine.core.schedule.mailboxes.has_task(child)
        {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rests).await.expect("the child waits for its time");
    store.answer_looks(usize::MAX);
    let seen = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap();
    assert!(matches!(seen, machine::ChildState::Running));
    bench.rests(run).await;
    bench.rests(child).await;
    assert!(bench.engine.core.schedule.timers.will_wake(child), "its time is still known");
    order(&bench, run, cancel()).await;
    assert_eq!(bench.ended(run).await.status, RunStatus::Cancelled);
}

/// A child of which nothing is on disk, though its parent rests over it, is found by the watchdog.
#[tokio::test]
async fn the_watchdog_sees_that_a_child_is_missing() {
    let store = Slow::new(false, false, 0);
    let (_world, bench) = bench(&store, &child(json!({ "a": { "wait": "1h" } }))).await;
    let run = start(&bench, json!({})).await.run;
    bench.rests(run).await;
    let lost = RunId(uuid::Uuid::now_v7());
    bench.engine.core.schedule.timers.watch_child(run, lost);
    crate::engine::scheduler::watchdog::check_all(&bench.engine.core).await.unwrap();
    let woken = async {
        while bench.engine.core.schedule.timers.parent_of(lost).is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, woken).await.expect("the parent looks for itself");
}
