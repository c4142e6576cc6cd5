//! A long run is loaded from its snapshot, or from all its events where the snapshot cannot be used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, checked_plan, start};
use crate::engine::scheduler::run_snapshots::SnapshotOutcome;
use crate::engine::scheduler::snapshot_writer::make;
use crate::limits::Limits;
use crate::names::{RunId, Seq, ServiceName};
use crate::secret::Secret;
use crate::store::{MemoryStore, RunSnapshot};
use crate::workflow::{ControlCommand, DeclaredNames, Event, FOLD, Outcome, Plan, RunStatus, fold};

const EVERY: u64 = 10;

fn limits() -> Limits {
    Limits { run_snapshot_every_events: EVERY, run_snapshot_pause_ms: 0, ..Limits::default() }
}

/// Many items, a wait, and a step that sends the output of the first item.
fn long_run_definition() -> Value {
    let each = json!({ "for_each": "${request.body}", "call": "POST ${services.world}/each", "body": "${item}" });
    let steps = json!({
        "each": each,
        "go": { "needs": ["each"], "wait": { "signal": "go" } },
        "tell": { "needs": ["go"], "call": "POST ${services.world}/tell", "body": "${steps.each.output[0].n}" },
    });
    json!({ "workflow": "w", "steps": steps, "respond": { "status": 200, "body": {} } })
}

async fn harness(limits: Limits) -> Harness {
    Harness::with_store(
        &step_service().await,
        checked_plan(&long_run_definition(), true),
        Arc::new(MemoryStore::new()),
        limits,
        None,
    )
    .await
}

async fn step_service() -> Arc<StepService> {
    StepService::new(|_, _| ServiceReply::Json(200, json!({ "n": 7, "secret": "4711-0815" }))).await
}

/// A run that waits for its signal and has enough events for a snapshot.
async fn waiting_run(harness: &Harness) -> RunId {
    let run = start(harness, json!((0..20).collect::<Vec<_>>())).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::WaitingSignal);
    harness.wait_until_idle(run).await;
    run
}

/// Sends the signal and waits for the end; returns the body of the last call.
async fn last_call(harness: &Harness, run: RunId) -> Value {
    let signal = ControlCommand::Signal { name: "go".into(), payload: Arc::new(json!({})), id: None };
    tokio::time::timeout(TIMEOUT, harness.engine.give_command(run, signal, "test".into())).await.unwrap().unwrap();
    assert_eq!(
        harness.engine.wait_until_ended_or_awaits_input(run, TIMEOUT).await.unwrap().status,
        RunStatus::Completed
    );
    let call = harness.step_service.seen().into_iter().rfind(|seen| seen.path == "/tell").unwrap();
    serde_json::from_slice(&call.body).unwrap()
}

#[tokio::test]
async fn a_run_with_many_events_gets_a_snapshot_of_its_stored_events() {
    let harness = harness(limits()).await;
    let run = waiting_run(&harness).await;
    let written = async {
        loop {
            if let Some(snapshot) = harness.store.run_snapshot(run).await.unwrap() {
                return snapshot;
            }
            tokio::task::yield_now().await;
        }
    };
    let snapshot = tokio::time::timeout(TIMEOUT, written).await.expect("the run gets a snapshot");
    let events = harness.store.events(run, Seq::FIRST).await.unwrap();
    let at = usize::try_from(snapshot.seq.0).unwrap();
    let body = fold(events[..at].iter().map(|stored| &stored.event)).unwrap().to_snapshot().unwrap();
    assert_eq!(snapshot, RunSnapshot { run, seq: snapshot.seq, at: events[at - 1].at, fold: FOLD.into(), body });
    // No further snapshot is made until there are enough new events.
    make(&harness.engine.core, run).await.unwrap();
    assert_eq!(make(&harness.engine.core, run).await, Ok(None));
}

/// The snapshot that the next process finds.
#[derive(Debug)]
enum SnapshotCase {
    Sound,
    /// The snapshot differs from the events: the body of the last call shows that the snapshot was used.
    Altered,
    OtherFold,
    Garbage,
    OtherRun,
    /// The events after the snapshot do not continue it.
    Ahead,
}

#[tokio::test]
async fn a_run_is_loaded_from_its_snapshot_or_else_from_all_events() {
    let cases = [
        (SnapshotCase::Sound, 7),
        (SnapshotCase::Altered, 8),
        (SnapshotCase::OtherFold, 7),
        (SnapshotCase::Garbage, 7),
        (SnapshotCase::OtherRun, 7),
        (SnapshotCase::Ahead, 7),
    ];
    for (case, expected) in cases {
        let mut harness = harness(limits()).await;
        let run = waiting_run(&harness).await;
        harness.crash().await;
        let mut events = harness.events(run).await;
        let mut seq = events.len();
        let altered = |event: &mut Event| {
            if let Event::StepFinished(finished) = event
                && let Outcome::Done { output, .. } = &mut finished.outcome
            {
                *output = json!({ "n": 8 }).into();
            }
        };
        match case {
            SnapshotCase::Sound => {}
            SnapshotCase::Ahead => {
                // The last event but one is missing, so that the events after it do not follow.
                seq -= 1;
                events.swap_remove(seq - 1);
            }
            SnapshotCase::OtherRun => {
                let Event::RunStarted(started) = &mut events[0] else { panic!("{:?}", events[0]) };
                Arc::make_mut(started).run = RunId(uuid::Uuid::from_u128(5));
            }
            SnapshotCase::Altered | SnapshotCase::OtherFold | SnapshotCase::Garbage => {
                events.iter_mut().for_each(altered)
            }
        }
        let mut body = fold(&events).unwrap().to_snapshot().unwrap();
        if matches!(case, SnapshotCase::Garbage) {
            body.pop();
        }
        let fold_hash = if matches!(case, SnapshotCase::OtherFold) { "another" } else { FOLD };
        let at = jiff::Timestamp::now();
        let snapshot = RunSnapshot { run, seq: Seq(seq as u64), at, fold: fold_hash.into(), body };
        harness.store.put_run_snapshot(snapshot).await.unwrap();
        assert_eq!(last_call(&harness, run).await, json!(expected), "{case:?}");
        let calls = harness.step_service.paths();
        assert_eq!(calls.len(), 21, "{case:?}: nothing is done twice: {calls:?}");
    }
}

/// The store holds these values sealed; a snapshot would contain them in clear.
#[tokio::test]
async fn a_run_with_sensitive_values_gets_no_snapshot() {
    let mut sealed = long_run_definition();
    sealed["steps"]["each"]["sensitive"] = json!(["$.secret"]);
    let services = BTreeMap::from([(ServiceName::from("world"), true)]);
    let (secrets, limits) = (BTreeSet::new(), limits());
    let known = DeclaredNames { services: &services, secrets: &secrets, has_store_key: true, limits: &limits };
    let plan = Arc::new(Plan::from_source(&sealed, &known).unwrap());
    let (store, key) = (Arc::new(MemoryStore::new()), Some(Secret::new("k")));
    let harness = Harness::with_store(&step_service().await, plan, store, limits.clone(), key).await;
    let run = waiting_run(&harness).await;
    assert_eq!(make(&harness.engine.core, run).await, Ok(None));
    assert_eq!(harness.store.run_snapshot(run).await.unwrap(), None);
    assert_eq!(last_call(&harness, run).await, json!(7));
}

#[tokio::test]
async fn a_snapshot_that_is_too_large_is_not_stored() {
    let harness = harness(Limits { run_snapshot_bytes_max: 100, ..limits() }).await;
    let run = waiting_run(&harness).await;
    assert_eq!(make(&harness.engine.core, run).await, Ok(Some(SnapshotOutcome::TooLarge)));
    assert_eq!(harness.store.run_snapshot(run).await.unwrap(), None);
    assert_eq!(last_call(&harness, run).await, json!(7));
}
