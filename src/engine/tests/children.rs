//! Children of runs, locks between runs, webhooks, and a rerun.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, TIMEOUT, checked_plan, legacy, request, start};
use crate::exchange::{ArmReply, ArmRequest};
use crate::limits::Limits;
use crate::names::{JobId, RunId};
use crate::workflow::{AnswerEvent, ControlCommand, Event, Mode, Plan, RunStatus};

fn parent() -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "sub": { "run": "child", "input": { "n": "${request.body.n}" }, "on_failure": "fail" },
                "last": { "needs": ["sub"], "call": "POST ${services.world}/last" },
            },
            "respond": { "status": 200, "body": "${steps.sub.output}" },
        }),
        false,
    )
}

fn child() -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": "child",
            "steps": {
                "read": { "call": "GET ${services.world}/child" },
                "a": { "needs": ["read"], "call": "POST ${services.world}/child", "rehearse": {} },
            },
            "respond": { "status": 200, "body": { "n": "${request.body.n + 1}" } },
        }),
        false,
    )
}

async fn parent_and_child(
    script: impl Fn(&super::harness::ReceivedCall, usize) -> ServiceReply + Send + Sync + 'static,
) -> (Arc<StepService>, Harness) {
    let step_service = StepService::new(script).await;
    let harness = Harness::new(&step_service, parent()).await;
    harness.load_plans(&[&child()]);
    (step_service, harness)
}

pub(super) async fn wait_for_child(harness: &Harness, run: RunId) -> RunId {
    let poll = async {
        loop {
            if let Some(child) = harness.runs().await.iter().find(|other| other.parent == Some(run)) {
                return child.run_id;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, poll).await.expect("the run starts a child")
}

fn gated(seen: &super::harness::ReceivedCall, _: usize) -> ServiceReply {
    match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/child") => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    }
}

#[tokio::test]
async fn a_parent_is_suspended_until_its_child_has_ended() {
    let (step_service, harness) = parent_and_child(gated).await;
    let run = start(&harness, json!({ "n": 1 })).await.run;
    let child = wait_for_child(&harness, run).await;
    harness.wait_until_idle(run).await;
    assert!(harness.engine.stuck(9).is_empty());
    step_service.open_gate();
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    assert_eq!(harness.wait_until_ended_or_awaits_input(child).await.status, RunStatus::Completed);
    let events = harness.events(run).await;
    let answered = events
        .iter()
        .any(|event| matches!(event, Event::Answer(AnswerEvent::Responded { answer, .. }) if answer.body.value() == json!({"n": 2})));
    assert!(answered, "{events:?}");
    assert_eq!(step_service.paths(), ["GET /child", "POST /child", "POST /last"]);
}

#[tokio::test]
async fn parent_and_child_are_resumed_by_the_next_process() {
    let (step_service, mut harness) =
        parent_and_child(|seen, before| match (seen.method.as_str(), seen.path.as_str(), before) {
            ("GET", _, 0) => ServiceReply::Hang,
            _ => ServiceReply::Json(200, json!({})),
        })
        .await;
    let run = start(&harness, json!({ "n": 1 })).await.run;
    step_service.wait_for_calls(1).await;
    harness.wait_until_idle(run).await;
    harness.crash().await;
    harness.load_plans(&[&child()]);
    assert_eq!(harness.recover().await.resumed, 2);
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Completed);
    assert_eq!(harness.runs().await.len(), 2, "the child was created once");
}

#[tokio::test]
async fn pause_and_cancel_reach_the_child() {
    let (step_service, harness) = parent_and_child(gated).await;
    let run = start(&harness, json!({ "n": 1 })).await.run;
    let child = wait_for_child(&harness, run).await;
    step_service.wait_for_calls(2).await;
    let wait_for_status = async |status: RunStatus| {
        let poll = async {
            while harness.store.run(child).await.unwrap().unwrap().status != status {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.unwrap_or_else(|_| panic!("the child is not {status:?}"));
    };
    harness.engine.give_command(run, ControlCommand::Pause { reason: None }, "ann".into()).await.unwrap();
    wait_for_status(RunStatus::Paused).await;
    harness.engine.give_command(run, ControlCommand::Resume { reason: None }, "ann".into()).await.unwrap();
    wait_for_status(RunStatus::Running).await;
    harness
        .engine
        .give_command(run, ControlCommand::Cancel { compensate: true, reason: None, automatic: false }, "ann".into())
        .await
        .unwrap();
    step_service.open_gate();
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Cancelled);
    assert_eq!(harness.wait_until_ended_or_awaits_input(child).await.status, RunStatus::Cancelled);
    assert!(!step_service.paths().contains(&"POST /last".to_owned()));
}

/// The `undo:` of the parent's step is sent, with the child's output.
#[tokio::test]
async fn the_undo_of_a_run_step_undoes_its_completed_child() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/last" => ServiceReply::Json(400, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "sub": { "run": "child", "input": { "n": 6 }, "undo": "DELETE ${services.world}/undo/${output.n}" },
                "last": { "needs": ["sub"], "call": "POST ${services.world}/last" },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let harness = Harness::new(&step_service, plan).await;
    harness.load_plans(&[&child()]);
    let run = start(&harness, json!({})).await.run;
    let ended = harness.wait_until_ended_or_awaits_input(run).await;
    assert_eq!(ended.status, RunStatus::Failed);
    assert!(ended.note.unwrap().ends_with("; undone: `sub`"));
    assert_eq!(step_service.paths(), ["DELETE /undo/7", "GET /child", "POST /child", "POST /last"]);
}

#[tokio::test]
async fn a_parent_pauses_until_the_workflow_of_its_child_exists() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, parent()).await; // there is no workflow `child`
    let run = start(&harness, json!({ "n": 1 })).await.run;
    let paused = harness.wait_until_ended_or_awaits_input(run).await;
    assert_eq!(paused.status, RunStatus::Paused);
    assert!(paused.note.unwrap().contains("the workflow `child`, which is not in the files"));
    harness.load_plans(&[&child()]);
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
}

/// A workflow that starts itself ends at the bound, in a rehearsal and in a real run.
#[tokio::test]
async fn nesting_of_runs_is_bounded() {
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "again": { "run": "w", "on_failure": "fail" } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let limits = Limits { run_depth_max: 4, ..Limits::default() };
    let harness =
        Harness::with_store(&step_service, plan, Arc::new(crate::store::MemoryStore::new()), limits, None).await;
    let run = start(&harness, json!({})).await.run;
    let ended = harness.wait_until_ended_or_awaits_input(run).await;
    assert_eq!(ended.status, RunStatus::Failed);
    assert!(ended.note.as_ref().unwrap().contains("run_depth_max"), "{ended:?}");
    assert!(harness.runs().await.len() <= 6);
    let reply = harness.send(request("w", Mode::Rehearse, &json!({}))).await;
    assert!(matches!(&reply, ArmReply::Refused(problem, _) if problem.detail.contains("run_depth_max")), "{reply:?}");
}

#[tokio::test]
async fn the_child_of_a_rehearsal_is_rehearsed_in_memory() {
    let (step_service, harness) = parent_and_child(gated).await;
    let arm_request =
        ArmRequest { legacy: Some(legacy(200, &json!({}))), ..request("w", Mode::Rehearse, &json!({ "n": 1 })) };
    let (status, body, _) = super::harness::answer(harness.send(arm_request).await);
    assert_eq!((status, body), (200, json!({ "n": 2 })));
    assert_eq!(step_service.paths(), ["GET /child"], "reads are sent, and nothing else");
    assert!(harness.runs().await.is_empty());
}

fn locked(busy: &str) -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "a": { "call": "POST ${services.world}/a/${request.body.n}", "lock": { "key": "shelf", "busy": busy } },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    )
}

#[tokio::test]
async fn a_lock_has_one_holder_and_the_waiters_get_it_in_order() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
    let harness = Harness::new(&step_service, locked("wait")).await;
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(start(&harness, json!({ "n": n })).await.run);
        step_service.wait_for_calls(1).await;
        if n > 0 {
            harness.wait_until_idle(runs[n]).await;
        }
    }
    assert_eq!(step_service.seen().len(), 1, "one run holds the lock");
    assert!(harness.engine.stuck(9).is_empty());
    let explained = harness.engine.explain(runs[3]).await.unwrap();
    let names_holder =
        explained.waits.iter().any(|wait| wait.contains("`shelf`") && wait.contains(&runs[0].to_string()));
    assert!(names_holder, "{explained:?}");
    step_service.open_gate();
    for run in &runs {
        assert_eq!(harness.wait_until_ended_or_awaits_input(*run).await.status, RunStatus::Completed);
    }
    let order: Vec<_> = step_service.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(order, ["/a/0", "/a/1", "/a/2", "/a/3"]);
    assert!(harness.store.locks(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_wait_for_a_lock_continues_in_the_next_process() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/a/0", 0) => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": { "a": { "call": "PUT ${services.world}/a/${request.body.n}", "lock": { "key": "shelf" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let mut harness = Harness::new(&step_service, plan).await;
    let first = start(&harness, json!({ "n": 0 })).await.run;
    step_service.wait_for_calls(1).await;
    let second = start(&harness, json!({ "n": 1 })).await.run;
    harness.wait_until_idle(second).await;
    harness.crash().await;
    harness.recover().await;
    assert_eq!(harness.wait_until_ended_or_awaits_input(first).await.status, RunStatus::Completed);
    assert_eq!(harness.wait_until_ended_or_awaits_input(second).await.status, RunStatus::Completed);
    let order: Vec<_> = step_service.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(order, ["/a/0", "/a/0", "/a/1"]);
}

/// Each run holds the lock that the other run's child waits for.
#[tokio::test]
async fn a_deadlock_is_detected_and_names_the_runs() {
    let outer = checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "sub": {
                    "run": "inner", "lock": { "key": "${request.body.mine}" }, "on_failure": "fail",
                    "input": { "other": "${request.body.other}", "n": "${request.body.n}" },
                },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let inner = checked_plan(
        &json!({
            "workflow": "inner",
            "steps": {
                "first": { "call": "GET ${services.world}/first/${request.body.n}" },
                "a": {
                    "needs": ["first"],
                    "call": "POST ${services.world}/a", "lock": { "key": "${request.body.other}", "busy": "wait" },
                },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        path if path.starts_with("/first") => ServiceReply::Gated(200, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, outer).await;
    harness.load_plans(&[&inner]);
    let one = start(&harness, json!({ "n": 1, "mine": "x", "other": "y" })).await.run;
    let two = start(&harness, json!({ "n": 2, "mine": "y", "other": "x" })).await.run;
    step_service.wait_for_calls(2).await;
    step_service.open_gate();
    let paused = async {
        loop {
            let all = harness.runs().await;
            if let Some(run) = all.iter().find(|run| run.status == RunStatus::Paused) {
                return run.clone();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let paused = tokio::time::timeout(TIMEOUT, paused).await.expect("the deadlock is detected");
    let note = paused.note.unwrap();
    assert!(note.contains("waited for each other"), "{note}");
    assert!(note.contains(&one.to_string()) && note.contains(&two.to_string()), "{note}");
}

#[tokio::test]
async fn a_webhook_message_is_sent_until_it_is_delivered_also_by_the_next_process() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/hooks", 0) => ServiceReply::Json(500, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "notify": "${services.world}/hooks",
            "steps": { "ok": { "checkpoint": { "question": "Shall it go?" } } },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let mut harness = Harness::new(&step_service, plan).await;
    let run = start(&harness, json!({})).await.run;
    step_service.wait_for_calls(1).await;
    harness.crash().await;
    harness.recover().await;
    step_service.wait_for_calls(2).await;
    let messages: Vec<Value> =
        step_service.seen().iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    assert_eq!(messages[0], messages[1], "the same message, by its id");
    assert_eq!(
        (&messages[0]["event"], &messages[0]["run_id"], &messages[0]["question"]),
        (&json!("checkpoint_opened"), &json!(run.to_string()), &json!("Shall it go?"))
    );
    let removed = async {
        while !harness.store.webhook_messages(0, 10).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, removed).await.expect("a delivered message is removed");
}

#[tokio::test]
async fn a_rerun_takes_over_finished_steps() {
    let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
        ("/b", 0) => ServiceReply::Json(400, json!({})),
        _ => ServiceReply::Json(200, json!({ "id": 7 })),
    })
    .await;
    let plan = checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "a": { "call": "POST ${services.world}/a" },
                "b": { "call": "POST ${services.world}/b", "body": { "id": "${steps.a.output.id}" } },
            },
            "respond": { "status": 200, "body": {} },
        }),
        false,
    );
    let harness = Harness::new(&step_service, plan).await;
    let run = start(&harness, json!({})).await.run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(run).await.status, RunStatus::Failed);
    let again = harness.engine.rerun(run, "b".into(), "ann".into()).await.unwrap();
    assert_eq!((again.job, again.is_new), (JobId(run.0), true));
    assert_eq!(harness.wait_until_ended_or_awaits_input(again.run).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /a", "POST /b", "POST /b"]);
    assert!(harness.engine.rerun(run, "nobody".into(), "ann".into()).await.is_err());
}
