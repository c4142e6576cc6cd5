//! A run whose next event does not fit the events before it is listed as stuck.

use std::sync::Arc;

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, checked_plan, start};
use crate::engine::CommandError;
use crate::engine::driver::drive_contradicting;
use crate::engine::scheduler::{acquire, watchdog};
use crate::names::RunId;
use crate::store::AcquireResult;
use crate::workflow::{ControlCommand, RunStatus};

async fn harness() -> (Arc<StepService>, Harness) {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let definition = json!({
        "workflow": "w",
        "steps": {
            "go": { "wait": { "signal": "go" } },
            "a": { "needs": ["go"], "call": "POST ${services.world}/a" },
        },
        "respond": { "status": 200, "body": {} },
    });
    let harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
    (step_service, harness)
}

/// A run that waits for a signal, and whose next event did not fit.
async fn contradicting(harness: &Harness) -> RunId {
    let run = start(harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::WaitingSignal);
    let core = &harness.engine.core;
    let slot = core.schedule.mailboxes.claim_slot(&core.schedule.timers, run).expect("it is free");
    let lease_proof = core.schedule.lease.proof();
    let Ok(AcquireResult::Acquired(owned)) = core.ports.store.acquire(core.schedule.worker, run).await else {
        panic!()
    };
    let acquired_run = acquire::load(core, slot, &owned, lease_proof).await.unwrap_or_else(|_| panic!("it is loaded"));
    tokio::time::timeout(super::harness::TIMEOUT, drive_contradicting(core, acquired_run))
        .await
        .expect("its task ends");
    run
}

#[tokio::test]
async fn a_run_whose_events_contradict_each_other_is_stuck_until_it_goes_on() {
    let (_step_service, harness) = harness().await;
    let run = contradicting(&harness).await;
    let why = harness.engine.why_stuck(run).expect("it is listed");
    assert!(why.contains("contradict each other") && why.contains("run_started"), "{why}");
    assert_eq!(harness.engine.stuck_count(), 1);
    let explained = harness.engine.explain(run).await.unwrap();
    assert!(explained.stuck && explained.sentence.contains("contradict each other"), "{}", explained.sentence);
    watchdog::check_all(&harness.engine.core).await.unwrap();
    assert_eq!(harness.engine.stuck_count(), 1, "it is not woken again and again");

    // While it is stuck, every command is refused except a cancel without undoing. After the refusal the run is
    // driven again.
    let signal = || ControlCommand::Signal { name: "go".into(), payload: Arc::default(), id: None };
    let refused = harness.engine.give_command(run, signal(), "ann".into()).await;
    assert!(matches!(&refused, Err(CommandError::Unreadable(why)) if why.contains("cancel --no-undo")), "{refused:?}");
    harness.wait_until_idle(run).await;
    assert_eq!(harness.engine.stuck_count(), 0, "it is suspended again");
    harness.engine.give_command(run, signal(), "ann".into()).await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
}

#[tokio::test]
async fn a_run_whose_events_contradict_each_other_can_be_cancelled_without_undoing() {
    let (_step_service, harness) = harness().await;
    let run = contradicting(&harness).await;
    let cancel = |compensate| ControlCommand::Cancel { compensate, reason: None, automatic: false };
    assert!(harness.engine.give_command(run, cancel(false), "ann".into()).await.is_ok());
    assert_eq!(harness.store.run(run).await.unwrap().unwrap().status, RunStatus::Cancelled);
    assert_eq!(harness.engine.stuck_count(), 0);
}
