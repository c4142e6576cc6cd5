//! Stores that refuse appends, lose their replies, or do not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, abandoned, answer, checked_plan, refused, request};
use crate::engine::{Start, StartError};
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::limits::Limits;
use crate::store::{
    Append, AppendError, DeclaredState, EvidenceRecord, FlipRecord, MemoryStore, PinRecord, RunFilter, SampleRecord,
    Store, StoreError, StoredEvent, StoredFirstTry,
};
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, Plan, RunStatus};

/// What happens to an append.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// The append is certainly not stored.
    Refuse,
    /// The append is not stored, and the writer learns only that the result is unknown.
    LoseBefore,
    /// The append is stored, and the writer learns only that the result is unknown.
    LoseAfter,
    /// Like `LoseAfter`; after that, a commit has stalled.
    LoseAfterAndStall,
    /// The append is neither stored nor answered.
    Silent,
}

struct FaultyStore {
    inner: MemoryStore,
    /// The numbers of appends and of plans that were handed to the store.
    appends: AtomicUsize,
    plans: AtomicUsize,
    /// Whether a commit has stalled.
    is_stalled: AtomicBool,
    script: Box<dyn Fn(usize) -> Fault + Send + Sync>,
}

impl FaultyStore {
    fn new(script: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            appends: AtomicUsize::new(0),
            plans: AtomicUsize::new(0),
            is_stalled: AtomicBool::new(false),
            script: Box::new(script),
        })
    }
}

macro_rules! forward_to_inner {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> BoxFuture<'_, Result<$result, StoreError>> {
            self.inner.$name($($arg),*)
        })*
    };
}

crate::store::tests::forward_work::forward_work!(FaultyStore, inner);

crate::store::tests::forward_work::forward_pin_collisions!(FaultyStore, inner);
impl crate::store::InstanceStore for FaultyStore {}
impl crate::store::RecordLog for FaultyStore {}
impl crate::store::CaptureStore for FaultyStore {}

impl crate::store::AdoptionStore for FaultyStore {}
impl crate::store::ServiceCallerStore for FaultyStore {}

impl Store for FaultyStore {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let number = self.appends.fetch_add(1, Ordering::SeqCst);
        let fault = (self.script)(number);
        Box::pin(async move {
            match fault {
                Fault::None => self.inner.append(append).await,
                Fault::Refuse => Err(AppendError::Refused("disk full".into())),
                Fault::LoseBefore => Err(AppendError::Unavailable("lost".into())),
                Fault::LoseAfter => {
                    self.inner.append(append).await?;
                    Err(AppendError::Unavailable("lost".into()))
                }
                Fault::LoseAfterAndStall => {
                    self.inner.append(append).await?;
                    self.is_stalled.store(true, Ordering::SeqCst);
                    Err(AppendError::Unavailable("lost".into()))
                }
                Fault::Silent => std::future::pending().await,
            }
        })
    }
    forward_to_inner! {
        events(run: crate::names::RunId, from: crate::names::Seq) -> Vec<StoredEvent>;
        run(run: crate::names::RunId) -> Option<crate::workflow::RunSummary>;
        runs(filter: RunFilter) -> Vec<crate::workflow::RunSummary>;
        open_runs() -> Vec<(crate::workflow::RunStatus, u64)>;
        plan(id: crate::names::PlanId) -> Option<Value>;
        put_run_key(run: crate::names::RunId, key: Option<Vec<u8>>) -> ();
        run_key(run: crate::names::RunId) -> Option<Vec<u8>>;
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
        sample_of_run(run: crate::names::RunId) -> Option<SampleRecord>;
        clear_samples(route: crate::names::RouteId) -> ();
        remove_samples_before(at: jiff::Timestamp) -> ();
        put_evidence(evidence: Vec<EvidenceRecord>) -> ();
        evidence() -> Vec<EvidenceRecord>;
        secret() -> [u8; 32];
    }
    fn put_plan(&self, id: crate::names::PlanId, source: Value) -> BoxFuture<'_, Result<(), StoreError>> {
        self.plans.fetch_add(1, Ordering::SeqCst);
        self.inner.put_plan(id, source)
    }
    fn healthy(&self) -> bool {
        self.stalled_for().is_none()
    }
    fn stalled_for(&self) -> Option<Duration> {
        self.is_stalled.load(Ordering::SeqCst).then_some(Duration::from_secs(7))
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

fn plan() -> Arc<Plan> {
    PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({}))
        .build("w")
}

async fn harness(script: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Harness {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    Harness::with_store(&step_service, plan(), FaultyStore::new(script), Limits::default(), None).await
}

#[tokio::test]
async fn a_refused_append_falls_back_or_answers_not_started() {
    let harness = harness(|_| Fault::Refuse).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    assert_eq!(abandoned(harness.send(arm_request.clone()).await).reason, "store_refused");
    arm_request.may_fall_back = false;
    let (problem, _) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(false)));
    assert!(problem.title.contains("not started"));
    assert_eq!(harness.step_service.paths(), ["GET /price", "GET /price"], "no effect without a durable event");
}

#[tokio::test]
async fn a_lost_reply_of_the_store_causes_no_second_charge() {
    for fault in [Fault::LoseBefore, Fault::LoseAfter] {
        let harness = harness(move |number| if number == 0 || number == 2 { fault } else { Fault::None }).await;
        let mut arm_request = request("w", Mode::Real, &json!({}));
        arm_request.may_fall_back = true;
        let (status, _, report) = answer(harness.send(arm_request).await);
        assert_eq!(status, 201);
        assert_eq!(harness.step_service.paths(), ["GET /price", "POST /charges"]);
        harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    }
}

#[tokio::test]
async fn an_append_whose_outcome_stays_unknown_does_not_fall_back() {
    let harness = harness(|_| Fault::LoseBefore).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    let (problem, _) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "outcome-unknown"));
    assert_eq!(harness.step_service.paths(), ["GET /price"]);
}

/// The first append was stored although its result was unknown: a refusal of its repetition does not change that.
#[tokio::test]
async fn a_refusal_after_an_unknown_append_does_not_fall_back() {
    let harness = harness(|number| match number {
        0 => Fault::LoseAfter,
        1 => Fault::Refuse,
        _ => Fault::None,
    })
    .await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    let (problem, report) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "outcome-unknown"));
    harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(harness.step_service.paths(), ["GET /price", "POST /charges"]);
}

#[tokio::test]
async fn when_appends_are_refused_after_the_charge_the_caller_gets_503_and_the_run_goes_on() {
    let harness = harness(|number| if (1..3).contains(&number) { Fault::Refuse } else { Fault::None }).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    let (problem, report) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(true)));
    harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(harness.step_service.paths(), ["GET /price", "POST /charges"]);
}

/// While a commit has stalled, nothing of a new run is handed to the store, so that legacy can take the request.
#[tokio::test]
async fn while_a_commit_has_stalled_a_new_request_falls_back_or_is_not_started() {
    let store = FaultyStore::new(|_| Fault::None);
    store.is_stalled.store(true, Ordering::SeqCst);
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::with_store(&step_service, plan(), store.clone(), Limits::default(), None).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    assert_eq!(abandoned(harness.send(arm_request.clone()).await).reason, "store_refused");
    arm_request.may_fall_back = false;
    let (problem, _) = refused(harness.send(arm_request.clone()).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(false)));
    assert!(problem.title.contains("not started"), "{}", problem.title);
    let refused_start = harness.engine.start(api_start(None)).await;
    assert!(
        matches!(&refused_start, Err(StartError::Store { why, unknown: false }) if why.contains("store_stall_ms")),
        "{refused_start:?}"
    );
    assert_eq!((store.appends.load(Ordering::SeqCst), store.plans.load(Ordering::SeqCst)), (0, 0), "handed over");
    store.is_stalled.store(false, Ordering::SeqCst);
    assert_eq!(answer(harness.send(arm_request).await).0, 201);
}

/// The first append was stored and its reply is lost, then a commit stalls: legacy must not get the request.
#[tokio::test]
async fn a_stall_after_an_unknown_append_does_not_fall_back() {
    let store = FaultyStore::new(|number| if number == 0 { Fault::LoseAfterAndStall } else { Fault::None });
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::with_store(&step_service, plan(), store.clone(), Limits::default(), None).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    arm_request.deadline = Duration::from_millis(400);
    let (problem, report) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "outcome-unknown"));
    store.is_stalled.store(false, Ordering::SeqCst);
    harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(harness.step_service.paths(), ["GET /price", "POST /charges"]);
}

fn api_start(key: Option<(RetryKey, [u8; 32])>) -> Start {
    Start { workflow: "w".into(), input: json!({}), by: "test".into(), key }
}

/// A start is answered although the store never confirms its first append; so is its repetition with the same key.
#[tokio::test]
async fn a_start_is_answered_although_the_store_is_silent() {
    let limits = Limits { command_wait_ms: 200, ..Limits::default() };
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = FaultyStore::new(|_| Fault::Silent);
    let harness = Harness::with_store(&step_service, plan(), store.clone(), limits, None).await;
    let key = Some((RetryKey([7; 32]), [1; 32]));
    for (key, expected) in [(None, "`pointsman runs show"), (key, "`pointsman runs show"), (key, "whether the key")] {
        let done = tokio::time::timeout(Duration::from_secs(20), harness.engine.start(api_start(key))).await;
        let done = done.expect("an answer");
        assert!(
            matches!(&done, Err(StartError::Store { why, unknown: true }) if why.contains(expected)),
            "{expected}: {done:?}"
        );
    }
    assert_eq!(store.appends.load(Ordering::SeqCst), 2, "the repetition hands nothing over");
}

#[tokio::test]
async fn a_silent_store_delays_no_answer_beyond_the_deadline() {
    let harness = harness(|_| Fault::Silent).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.may_fall_back = true;
    arm_request.deadline = Duration::from_millis(200);
    let begun = Instant::now();
    let (problem, report) = refused(harness.send(arm_request).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "outcome-unknown"));
    assert_eq!((problem.run, problem.shared_step_begun), (report.run, Some(true)), "the charge is about to be sent");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// The run's task answers before the deadline, because it alone knows what the run has done.
#[tokio::test]
async fn a_caller_is_told_at_the_deadline_that_a_run_on_a_silent_store_has_only_read() {
    let steps = json!({ "price": { "call": "GET ${services.world}/price" }, "pause": { "wait": "1h" } });
    let source = json!({ "workflow": "w", "steps": steps, "respond": { "status": 200 } });
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = FaultyStore::new(|_| Fault::Silent);
    let harness =
        Harness::with_store(&step_service, checked_plan(&source, false), store, Limits::default(), None).await;
    let deadline = Duration::from_millis(400);
    let (problem, _) = refused(harness.send(ArmRequest { deadline, ..request("w", Mode::Real, &json!({})) }).await);
    assert_eq!((problem.kind.as_str(), problem.shared_step_begun), ("outcome-unknown", Some(false)), "{problem:?}");
    assert_eq!(step_service.paths(), ["GET /price"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_complete_after_the_database_file_is_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.db");
    let limits = Limits::default();
    let step_service = StepService::new(|seen, _| ServiceReply::Json(200, json!({"of": seen.path, "n": 12.5}))).await;
    let mut plan = PlanBuilder::new().call("s0", &[], "POST /s0", json!({}));
    for (number, before) in (1..10).zip(["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"]) {
        let (id, line) = (format!("s{number}"), format!("POST /s{number}"));
        plan = plan.call(&id, &[before], &line, json!({"after": format!("${{steps.{before}.output.n}}")}));
    }
    let plan = plan.respond(201, json!({"n": "${steps.s9.output.n}"})).build("w");
    let store = Arc::new(crate::store::SqliteStore::open(&path, &limits).await.unwrap());
    let harness = Harness::with_store(&step_service, plan.clone(), store.clone(), limits.clone(), None).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.retry_keys = Some(crate::flag::RetryKey([5; 32]).into());
    let again = arm_request.clone();
    let all = futures_util::future::join_all((0..20).map(|_| {
        let mut arm_request = arm_request.clone();
        arm_request.retry_keys = None;
        harness.send(arm_request)
    }));
    let (first, others) = tokio::join!(harness.send(arm_request), all);
    let (status, body, report) = answer(first);
    assert_eq!((status, body.to_string().as_str()), (201, r#"{"n":12.5}"#));
    assert!(others.into_iter().all(|reply| answer(reply).0 == 201));
    assert_eq!(step_service.seen().len(), 21 * 10);
    let run = report.run.unwrap();
    let live = harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
    assert!(harness.engine.drain(Duration::from_secs(5)).await);
    store.close().await;
    drop((harness, store));

    let store = Arc::new(crate::store::SqliteStore::open(&path, &limits).await.unwrap());
    let harness = Harness::with_store(&step_service, plan, store, limits, None).await;
    assert_eq!(harness.view(run).await, live);
    let runs = harness.runs().await;
    assert_eq!(runs.len(), 21);
    for summary in runs {
        let events = harness.store.events(summary.run_id, crate::names::Seq::FIRST).await.unwrap();
        let folded = crate::workflow::fold(events.iter().map(|stored| &stored.event)).unwrap();
        assert_eq!(folded.summary(events.last().unwrap().at), summary, "the fold of the events is the summary");
    }
    assert_eq!(answer(harness.send(again).await).1.to_string(), r#"{"n":12.5}"#);
    assert_eq!(step_service.seen().len(), 21 * 10);
}
