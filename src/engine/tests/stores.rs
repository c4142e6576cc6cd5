//! Stores that refuse, lose replies, or say nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::kit::{Bench, React, World, abandoned, answer, refused, request};
use crate::limits::Limits;
use crate::store::{
    Append, AppendError, DeclaredState, EvidenceRecord, FirstTry, FlipRecord, MemoryStore, PinRecord, RunFilter,
    SampleRecord, Store, StoreError, StoredEvent,
};
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, Plan, RunStatus};

/// What goes wrong with the n-th append.
#[derive(Clone, Copy)]
enum Fault {
    None,
    Refuse,
    /// Not written, and the reply says "unknown".
    LoseBefore,
    /// Written, and the reply says "unknown".
    LoseAfter,
    Silent,
}

struct Faulty {
    inner: MemoryStore,
    appends: AtomicUsize,
    script: Box<dyn Fn(usize) -> Fault + Send + Sync>,
}

impl Faulty {
    fn new(script: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), appends: AtomicUsize::new(0), script: Box::new(script) })
    }
}

macro_rules! passed_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> BoxFuture<'_, Result<$result, StoreError>> {
            self.inner.$name($($arg),*)
        })*
    };
}

crate::store::tests::through::work_through!(Faulty, inner);

impl Store for Faulty {
    fn append(&self, append: Arc<Append>) -> BoxFuture<'_, Result<(), AppendError>> {
        let place = self.appends.fetch_add(1, Ordering::SeqCst);
        let fault = (self.script)(place);
        Box::pin(async move {
            match fault {
                Fault::None => self.inner.append(append).await,
                Fault::Refuse => Err(AppendError::Refused("disk full".into())),
                Fault::LoseBefore => Err(AppendError::Unavailable("lost".into())),
                Fault::LoseAfter => {
                    self.inner.append(append).await?;
                    Err(AppendError::Unavailable("lost".into()))
                }
                Fault::Silent => std::future::pending().await,
            }
        })
    }
    passed_on! {
        events(run: crate::names::RunId, from: crate::names::Seq) -> Vec<StoredEvent>;
        run(run: crate::names::RunId) -> Option<crate::workflow::RunSummary>;
        runs(filter: RunFilter) -> Vec<crate::workflow::RunSummary>;
        open_runs() -> Vec<(crate::workflow::RunStatus, u64)>;
        put_plan(id: crate::names::PlanId, source: Value) -> ();
        plan(id: crate::names::PlanId) -> Option<Value>;
        put_run_key(run: crate::names::RunId, key: Option<Vec<u8>>) -> ();
        run_key(run: crate::names::RunId) -> Option<Vec<u8>>;
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

fn plan() -> Arc<Plan> {
    PlanBuilder::new()
        .call("price", &[], "GET /price", Value::Null)
        .call("charge", &["price"], "POST /charges", json!({}))
        .respond(201, json!({}))
        .build("w")
}

async fn bench(script: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Bench {
    let world = World::new(|_, _| React::Json(200, json!({}))).await;
    Bench::over(&world, plan(), Faulty::new(script), Limits::default(), None).await
}

#[tokio::test]
async fn a_store_that_refuses_gives_back_or_says_not_started() {
    let bench = bench(|_| Fault::Refuse).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    assert_eq!(abandoned(bench.ask(asked.clone()).await).reason, "store_refused");
    asked.may_fall_back = false;
    let (problem, _) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(false)));
    assert!(problem.title.contains("not started"));
    assert_eq!(bench.world.paths(), ["GET /price", "GET /price"], "no effect without a record");
}

#[tokio::test]
async fn a_lost_reply_is_not_an_answer_and_not_a_second_charge() {
    for fault in [Fault::LoseBefore, Fault::LoseAfter] {
        let bench = bench(move |place| if place == 0 || place == 2 { fault } else { Fault::None }).await;
        let mut asked = request("w", Mode::Real, &json!({}));
        asked.may_fall_back = true;
        let (status, _, report) = answer(bench.ask(asked).await);
        assert_eq!(status, 201);
        assert_eq!(bench.world.paths(), ["GET /price", "POST /charges"]);
        bench.until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    }
}

#[tokio::test]
async fn a_store_that_stays_unknown_is_no_reason_to_fall_back() {
    let bench = bench(|_| Fault::LoseBefore).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    let (problem, _) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "outcome-unknown"));
    assert_eq!(bench.world.paths(), ["GET /price"]);
}

/// What was written once, and said to be unknown, is not made unwritten by a refusal of the same batch.
#[tokio::test]
async fn a_refusal_after_an_unknown_append_is_no_reason_to_fall_back() {
    let bench = bench(|place| match place {
        0 => Fault::LoseAfter,
        1 => Fault::Refuse,
        _ => Fault::None,
    })
    .await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    let (problem, report) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "outcome-unknown"));
    bench.until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(bench.world.paths(), ["GET /price", "POST /charges"]);
}

#[tokio::test]
async fn a_store_that_refuses_after_the_charge_holds_the_answer_back_until_it_takes_it() {
    let bench = bench(|place| if (1..3).contains(&place) { Fault::Refuse } else { Fault::None }).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    let (problem, report) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.shared_step_begun), (503, Some(true)));
    bench.until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
    assert_eq!(bench.world.paths(), ["GET /price", "POST /charges"]);
}

#[tokio::test]
async fn a_silent_store_holds_nobody_longer_than_the_deadline() {
    let bench = bench(|_| Fault::Silent).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.may_fall_back = true;
    asked.deadline = Duration::from_millis(200);
    let begun = Instant::now();
    let (problem, _) = refused(bench.ask(asked).await);
    assert_eq!((problem.status, problem.kind.as_str()), (503, "outcome-unknown"));
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_on_disk_are_whole_after_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.db");
    let limits = Limits::default();
    let world = World::new(|seen, _| React::Json(200, json!({"of": seen.path, "n": 12.5}))).await;
    let mut plan = PlanBuilder::new().call("s0", &[], "POST /s0", json!({}));
    for (place, before) in (1..10).zip(["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"]) {
        let (id, line) = (format!("s{place}"), format!("POST /s{place}"));
        plan = plan.call(&id, &[before], &line, json!({"after": format!("${{steps.{before}.output.n}}")}));
    }
    let plan = plan.respond(201, json!({"n": "${steps.s9.output.n}"})).build("w");
    let store = Arc::new(crate::store::SqliteStore::open(&path, &limits).await.unwrap());
    let bench = Bench::over(&world, plan.clone(), store.clone(), limits.clone(), None).await;
    let mut asked = request("w", Mode::Real, &json!({}));
    asked.retry_key = Some(crate::flag::RetryKey([5; 32]));
    let again = asked.clone();
    let all = futures_util::future::join_all((0..20).map(|_| {
        let mut asked = asked.clone();
        asked.retry_key = None;
        bench.ask(asked)
    }));
    let (first, others) = tokio::join!(bench.ask(asked), all);
    let (status, body, report) = answer(first);
    assert_eq!((status, body.to_string().as_str()), (201, r#"{"n":12.5}"#));
    assert!(others.into_iter().all(|reply| answer(reply).0 == 201));
    assert_eq!(world.seen().len(), 21 * 10);
    let run = report.run.unwrap();
    let live = bench.until(run, |view| view.status == RunStatus::Completed).await;
    assert!(bench.engine.drain(Duration::from_secs(5)).await);
    store.close().await;
    drop((bench, store));

    let store = Arc::new(crate::store::SqliteStore::open(&path, &limits).await.unwrap());
    let bench = Bench::over(&world, plan, store, limits, None).await;
    assert_eq!(bench.view(run).await, live);
    let runs = bench.runs().await;
    assert_eq!(runs.len(), 21);
    for summary in runs {
        let events = bench.store.events(summary.run_id, crate::names::Seq::FIRST).await.unwrap();
        let folded = crate::workflow::fold(events.iter().map(|stored| &stored.event)).unwrap();
        assert_eq!(folded.summary(events.last().unwrap().at), summary, "the fold of the events is the summary");
    }
    assert_eq!(answer(bench.ask(again).await).1.to_string(), r#"{"n":12.5}"#);
    assert_eq!(world.seen().len(), 21 * 10);
}
