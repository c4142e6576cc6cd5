//! A run that an earlier version handed over, before the process ended: its successor is created, although this version
//! would refuse the rerun.

use serde_json::json;
use uuid::Uuid;

use super::harness::{Harness, ServiceReply, StepService, checked_plan, start};
use crate::engine::StartError;
use crate::names::RunId;
use crate::store::{AcquireResult, Append, Priority};
use crate::workflow::{Choice, ControlCommand, EndingEvent, Event, RunStatus, Superseded, fold};

#[tokio::test]
async fn a_recorded_hand_over_is_carried_out_although_a_decision_about_an_item_is_lost() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/send/0" | "/look", 0) => ServiceReply::Json(409, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let definition = json!({
        "workflow": "w",
        "steps": {
            "address": { "call": "GET ${services.world}/address" },
            "send": { "needs": ["address"], "for_each": "${request.body.items}", "concurrency": 1,
                      "call": "PUT ${services.world}/send/${item}" },
            "look": { "needs": ["address"], "call": "GET ${services.world}/look" },
        },
        "respond": { "status": 200, "body": {} },
    });
    let harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
    let run = start(&harness, json!({ "items": [0, 1] })).await.run;
    harness.wait_until(run, |view| view.conflicts.len() == 2).await;
    let skip = ControlCommand::Resolve {
        step: "send".into(),
        item: Some(0),
        attempt: None,
        choice: Choice::Skip,
        reason: None,
    };
    harness.engine.give_command(run, skip, "ann".into()).await.unwrap();
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Paused);
    let rerun = async || harness.engine.rerun(run, "address".into(), "ann".into()).await;
    let Err(StartError::Invalid(why)) = rerun().await else { panic!("it would forget a decision") };
    assert!(why.contains("item 0 of `send`"), "{why}");

    harness.wait_until_idle(run).await;
    let to = RunId(Uuid::now_v7());
    append_hand_over(&harness, run, to).await;
    assert_eq!(rerun().await.unwrap().run, to);
    assert_eq!(harness.wait_until_ended_or_awaits_input(to).await.status, RunStatus::Completed);
    let paths = step_service.paths();
    assert_eq!(paths.iter().filter(|path| *path == "PUT /send/0").count(), 2, "all items are performed: {paths:?}");
}

/// Ends the run, which no task executes, as the earlier version did when it was rerun from `address`.
async fn append_hand_over(harness: &Harness, run: RunId, to: RunId) {
    let worker = harness.engine.core.schedule.worker;
    let Ok(AcquireResult::Acquired(owned)) = harness.store.acquire(worker, run).await else {
        panic!("no task executes it")
    };
    let superseded = Superseded {
        successor: to,
        from: "address".into(),
        handed_over_steps: Vec::new(),
        sealed: None,
        requested_by: "ann".into(),
    };
    let event = Event::Ending(EndingEvent::Superseded(Box::new(superseded)));
    let mut after = fold(&harness.events(run).await).unwrap();
    after.evolve_in_place(&event).unwrap();
    let now = owned.summary.updated;
    let append = Append {
        run_id: run,
        first: after.seq(),
        events: vec![(now, event)],
        summary: after.summary(now),
        batch: Uuid::now_v7(),
        pins: Vec::new(),
        claim: None,
        priority: Priority::Real,
        worker,
        fence: owned.fence,
        release: true,
        locks: Vec::new(),
        webhook_messages: Vec::new(),
        answered_commands: Vec::new(),
        pending_runs: Vec::new(),
        size: Default::default(),
    };
    harness.store.append(append.into()).await.unwrap();
}
