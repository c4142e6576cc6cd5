//! A long run is read from its snapshot, and from its events where that is of no use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::kit::{Bench, PATIENCE, React, World, checked, start};
use crate::engine::scheduler::run_snapshots::SnapshotOutcome;
use crate::engine::scheduler::snapshot_writer::make;
use crate::limits::Limits;
use crate::names::{RunId, Seq, ServiceName};
use crate::secret::Secret;
use crate::store::{MemoryStore, RunSnapshot};
use crate::workflow::{Event, FOLD, Known, Order, Outcome, Plan, RunStatus, fold};

const EVERY: u64 = 10;

fn limits() -> Limits {
    Limits { run_snapshot_every_events: EVERY, run_snapshot_pause_ms: 0, ..Limits::default() }
}

/// Many items, a wait, and a step that tells what the first item gave.
fn long() -> Value {
    let each = json!({ "for_each": "${request.body}", "call": "POST ${services.world}/each", "body": "${item}" });
    let steps = json!({
        "each": each,
        "go": { "needs": ["each"], "wait": { "signal": "go" } },
        "tell": { "needs": ["go"], "call": "POST ${services.world}/tell", "body": "${steps.each.output[0].n}" },
    });
    json!({ "workflow": "w", "steps": steps, "respond": { "status": 200, "body": {} } })
}

async fn bench(limits: Limits) -> Bench {
    Bench::over(&world().await, checked(&long(), true), Arc::new(MemoryStore::new()), limits, None).await
}

async fn world() -> Arc<World> {
    World::new(|_, _| React::Json(200, json!({ "n": 7, "secret": "4711-0815" }))).await
}

/// A run that waits for its signal, with more events than a snapshot wants.
async fn waiting(bench: &Bench) -> RunId {
    let run = start(bench, json!((0..20).collect::<Vec<_>>())).await.run;
    assert_eq!(bench.ended(run).await.status, RunStatus::WaitingSignal);
    bench.rests(run).await;
    run
}

/// Gives the signal and waits for the end; what the last step told.
async fn told(bench: &Bench, run: RunId) -> Value {
    let signal = Order::Signal { name: "go".into(), payload: Arc::new(json!({})), id: None };
    tokio::time::timeout(PATIENCE, bench.engine.order(run, signal, "test".into())).await.unwrap().unwrap();
    assert_eq!(bench.engine.rest(run, PATIENCE).await.unwrap().status, RunStatus::Completed);
    let told = bench.world.seen().into_iter().rfind(|seen| seen.path == "/tell").unwrap();
    serde_json::from_slice(&told.body).unwrap()
}

#[tokio::test]
async fn a_run_with_many_events_gets_a_snapshot_of_what_the_store_has() {
    let bench = bench(limits()).await;
    let run = waiting(&bench).await;
    let written = async {
        loop {
            if let Some(kept) = bench.store.run_snapshot(run).await.unwrap() {
                return kept;
            }
            tokio::task::yield_now().await;
        }
    };
    let kept = tokio::time::timeout(PATIENCE, written).await.expect("it gets one by itself");
    let events = bench.store.events(run, Seq::FIRST).await.unwrap();
    let at = usize::try_from(kept.seq.0).unwrap();
    let body = fold(events[..at].iter().map(|stored| &stored.event)).unwrap().to_snapshot().unwrap();
    assert_eq!(kept, RunSnapshot { run, seq: kept.seq, at: events[at - 1].at, fold: FOLD.into(), body });
    // None is made before there is something to gain.
    make(&bench.engine.core, run).await.unwrap();
    assert_eq!(make(&bench.engine.core, run).await, Ok(None));
}

/// What the next process takes a run from.
#[derive(Debug)]
enum Kept {
    Sound,
    /// Another run than the events say: whoever reads it goes on from it.
    Altered,
    OtherFold,
    Garbage,
    OtherRun,
    /// The events after it do not follow from it.
    Ahead,
}

#[tokio::test]
async fn the_next_process_takes_it_from_there_or_from_all_of_its_events() {
    let cases = [
        (Kept::Sound, 7),
        (Kept::Altered, 8),
        (Kept::OtherFold, 7),
        (Kept::Garbage, 7),
        (Kept::OtherRun, 7),
        (Kept::Ahead, 7),
    ];
    for (kept, expected) in cases {
        let mut bench = bench(limits()).await;
        let run = waiting(&bench).await;
        bench.crash().await;
        let mut events = bench.events(run).await;
        let mut seq = events.len();
        let altered = |event: &mut Event| {
            if let Event::StepFinished(finished) = event
                && let Outcome::Done { output, .. } = &mut finished.outcome
            {
                *output = Arc::new(json!({ "n": 8 }));
            }
        };
        match kept {
            Kept::Sound => {}
            Kept::Ahead => {
                // It waits already at the place before.
                seq -= 1;
                events.swap_remove(seq - 1);
            }
            Kept::OtherRun => {
                let Event::RunStarted(started) = &mut events[0] else { panic!("{:?}", events[0]) };
                Arc::make_mut(started).run = RunId(uuid::Uuid::from_u128(5));
            }
            Kept::Altered | Kept::OtherFold | Kept::Garbage => events.iter_mut().for_each(altered),
        }
        let mut body = fold(&events).unwrap().to_snapshot().unwrap();
        if matches!(kept, Kept::Garbage) {
            body.pop();
        }
        let by = if matches!(kept, Kept::OtherFold) { "another" } else { FOLD };
        let at = jiff::Timestamp::now();
        let snapshot = RunSnapshot { run, seq: Seq(seq as u64), at, fold: by.into(), body };
        bench.store.put_run_snapshot(snapshot).await.unwrap();
        assert_eq!(told(&bench, run).await, json!(expected), "{kept:?}");
        let calls = bench.world.paths();
        assert_eq!(calls.len(), 21, "{kept:?}: nothing is done twice: {calls:?}");
    }
}

/// A snapshot would hold in clear what the store holds sealed.
#[tokio::test]
async fn a_run_with_sensitive_values_gets_none() {
    let mut sealed = long();
    sealed["steps"]["each"]["sensitive"] = json!(["$.secret"]);
    let services = BTreeMap::from([(ServiceName::from("world"), true)]);
    let (secrets, limits) = (BTreeSet::new(), limits());
    let known = Known { services: &services, secrets: &secrets, has_store_key: true, limits: &limits };
    let plan = Arc::new(Plan::from_source(&sealed, &known).unwrap());
    let (store, key) = (Arc::new(MemoryStore::new()), Some(Secret::new("k")));
    let bench = Bench::over(&world().await, plan, store, limits.clone(), key).await;
    let run = waiting(&bench).await;
    assert_eq!(make(&bench.engine.core, run).await, Ok(None));
    assert_eq!(bench.store.run_snapshot(run).await.unwrap(), None);
    assert_eq!(told(&bench, run).await, json!(7));
}

#[tokio::test]
async fn one_that_is_too_large_is_not_kept() {
    let bench = bench(Limits { run_snapshot_bytes_max: 100, ..limits() }).await;
    let run = waiting(&bench).await;
    assert_eq!(make(&bench.engine.core, run).await, Ok(Some(SnapshotOutcome::TooLarge)));
    assert_eq!(bench.store.run_snapshot(run).await.unwrap(), None);
    assert_eq!(told(&bench, run).await, json!(7));
}
