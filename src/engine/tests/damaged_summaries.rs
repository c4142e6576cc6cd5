//! A run whose summary cannot be read takes commands: its summary is made again from its events.

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, checked_plan, start};
use crate::limits::Limits;
use crate::store::tests::{StoreFixture, StoreKind};
use crate::workflow::{ControlCommand, RunStatus};

async fn a_run_with_a_damaged_summary_is_cancelled(which: StoreKind) {
    let definition = json!({
        "workflow": "w",
        "steps": {
            "a": { "call": "POST ${services.world}/a", "undo": "DELETE ${services.world}/a" },
            "go": { "needs": ["a"], "wait": { "signal": "go" } },
        },
        "respond": { "status": 200, "body": {} },
    });
    let (fixture, plan) = (StoreFixture::new(which).await, checked_plan(&definition, false));
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let store = fixture.store.clone();
    let mut harness = Harness::with_store(&step_service, plan, store, Limits::default(), None).await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::WaitingSignal);
    harness.wait_until_idle(run).await;
    harness.crash().await;
    assert!(fixture.damage_summary(run).await);
    assert!(harness.store.run(run).await.is_err());
    let cancel = ControlCommand::Cancel { compensate: true, reason: None, automatic: false };
    harness.engine.give_command(run, cancel, "ann".into()).await.unwrap();
    let ended = harness.wait_until(run, |view| view.status == RunStatus::Cancelled).await;
    assert_eq!(harness.store.run(run).await.unwrap().map(|row| row.status), Some(ended.status), "it is repaired");
    assert_eq!(step_service.paths(), ["DELETE /a", "POST /a"]);
    assert!(harness.store.healthy(), "the store accepts writes all the time");
    // The summary of a run that has ended is damaged: the command is refused.
    assert!(fixture.damage_summary(run).await);
    let command = ControlCommand::Pause { reason: None };
    let refused = harness.engine.give_command(run, command, "ann".into()).await.unwrap_err();
    assert!(matches!(refused, crate::engine::CommandError::Refused { .. }), "{refused:?}");
    assert!(harness.store.healthy());
}

#[tokio::test]
async fn a_run_with_a_damaged_summary_is_cancelled_on_sqlite() {
    a_run_with_a_damaged_summary_is_cancelled(StoreKind::Sqlite).await;
}

#[tokio::test]
async fn a_run_with_a_damaged_summary_is_cancelled_on_postgres() {
    if StoreKind::Postgres.is_installed() {
        a_run_with_a_damaged_summary_is_cancelled(StoreKind::Postgres).await;
    }
}
