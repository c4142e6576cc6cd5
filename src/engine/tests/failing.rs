//! Failing calls: fallbacks, probes, conflicts that a person resolves, and sagas that undo.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, checked_plan, legacy, refused, request};
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::workflow::{Choice, ConflictEvent, ControlCommand, Event, Mode, RunStatus, RunView, StepPart, fold};

fn real() -> ArmRequest {
    request("w", Mode::Real, &json!({"items": ["x", "y"]}))
}

fn saga() -> Value {
    json!({
        "workflow": "w",
        "steps": {
            "reserve": {
                "for_each": "${request.body.items}",
                "concurrency": 1,
                "call": "POST ${services.world}/reservations",
                "body": { "sku": "${item}" },
                "rehearse": { "id": "${item}" },
                "undo": {
                    "call": "DELETE ${services.world}/reservations/${output.id}",
                    "headers": { "authorization": "Bearer ${secrets.bank}" },
                    "retry": { "attempts": 2, "base": "1ms", "max": "1ms" },
                },
            },
            "charge": { "needs": ["reserve"], "call": "POST ${services.world}/charges", "rehearse": {} },
            "declined": { "needs": ["charge"], "if": "${request.body.items[0] == 'y'}", "fail": { "status": 402 } },
        },
        "respond": { "status": 201 },
    })
}

#[tokio::test]
async fn a_saga_undoes_its_steps_after_its_caller_was_answered() {
    let step_service = StepService::new(|seen, before| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/reservations") => ServiceReply::Json(201, json!({"id": before})),
        ("POST", _) => ServiceReply::Json(404, json!({})),
        ("DELETE", "/reservations/1") if before == 0 => ServiceReply::Json(500, json!({})),
        _ => ServiceReply::Gated(200, json!({})),
    })
    .await;
    let harness = Harness::new(&step_service, checked_plan(&saga(), false)).await;
    let (problem, _) = refused(harness.send(real()).await);
    assert_eq!((problem.status, problem.kind.as_str()), (502, "workflow-refused"), "{}", problem.detail);
    let run = problem.run.unwrap();
    step_service.open_gate();
    let view = harness.wait_until(run, |view| view.status == RunStatus::Failed).await;
    assert!(view.note.unwrap().ends_with("undone: `reserve` (2 items)"));
    let undone: Vec<_> = step_service.seen().into_iter().filter(|seen| seen.method == "DELETE").collect();
    let paths: Vec<_> = undone.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths, ["/reservations/1", "/reservations/1", "/reservations/0"]);
    assert!(undone.iter().all(|seen| seen.header("authorization") == Some("Bearer s3cret")));
    let keys: Vec<_> = undone.iter().map(|seen| seen.header("idempotency-key").unwrap()).collect();
    assert!(keys[0] == keys[1] && keys[1] != keys[2]);
    let posts = step_service.seen().into_iter().filter(|seen| seen.method == "POST");
    assert!(posts.into_iter().all(|seen| !keys.contains(&seen.header("idempotency-key").unwrap())));
}

#[tokio::test]
async fn undoing_continues_in_the_next_process() {
    let step_service = StepService::new(|seen, before| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/reservations") => ServiceReply::Json(201, json!({"id": before})),
        ("POST", _) => ServiceReply::Json(404, json!({})),
        (_, "/reservations/1") if before == 0 => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let mut harness = Harness::new(&step_service, checked_plan(&saga(), false)).await;
    let run = refused(harness.send(real()).await).0.run.unwrap();
    step_service.wait_for_calls(4).await;
    harness.crash().await;
    assert_eq!(harness.recover().await.resumed, 1);
    harness.wait_until(run, |view| view.status == RunStatus::Failed).await;
    let deletes = step_service.paths().into_iter().filter(|path| path.starts_with("DELETE")).collect::<Vec<_>>();
    assert_eq!(deletes, ["DELETE /reservations/0", "DELETE /reservations/1", "DELETE /reservations/1"]);
}

#[tokio::test]
async fn a_rehearsal_reports_undo_calls_as_intents() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, checked_plan(&saga(), false)).await;
    let body = json!({"items": ["y"]});
    let rehearsed = ArmRequest { legacy: Some(legacy(402, &json!({}))), ..request("w", Mode::Rehearse, &body) };
    let (status, _, report) = answer(harness.send(rehearsed).await);
    let intents: Vec<_> = report.intents.iter().map(|intent| intent.step.as_str()).collect();
    assert_eq!((status, intents), (402, vec!["reserve", "charge", "reserve.undo"]));
    assert!(step_service.seen().is_empty());
}

#[tokio::test]
async fn a_fallback_is_taken_when_all_attempts_were_not_done() {
    let plan = json!({
        "workflow": "w",
        "steps": {
            "charge": {
                "call": "POST ${services.world}/charges",
                "retry": { "attempts": 2, "base": "1ms", "max": "1ms" },
                "fallback": "invoice",
            },
            "invoice": { "call": "POST ${services.world}/invoices", "fallback_only": true },
        },
        "respond": { "status": 201, "body": { "id": "${steps.charge.output.id}", "by": "${steps.charge.by}" } },
    });
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/charges" => ServiceReply::RetryAfter(429, "0"),
        _ => ServiceReply::Json(200, json!({"id": 7})),
    })
    .await;
    let harness = Harness::new(&step_service, checked_plan(&plan, false)).await;
    let (status, body, report) = answer(harness.send(real()).await);
    assert_eq!((status, body), (201, json!({"id": 7, "by": "invoice"})));
    assert_eq!(step_service.paths(), ["POST /charges", "POST /charges", "POST /invoices"]);
    harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
}

#[tokio::test]
async fn a_probe_settles_an_attempt_whose_reply_was_lost() {
    let plan = json!({
        "workflow": "w",
        "steps": { "charge": {
            "call": "POST ${services.world}/charges",
            "timeout": "50ms",
            "probe": { "call": "GET ${services.world}/charges?key=${key}", "after": "1ms", "settles": "50ms", "done": "${status == 200}" },
        } },
        "respond": { "status": 201, "body": "${steps.charge.output}" },
    });
    let step_service = StepService::new(|seen, _| match seen.method.as_str() {
        "POST" => ServiceReply::Hang,
        _ => ServiceReply::Json(200, json!({"id": 7})),
    })
    .await;
    let harness = Harness::new(&step_service, checked_plan(&plan, false)).await;
    assert_eq!(answer(harness.send(real()).await).1, json!({"id": 7}));
    let seen = step_service.seen();
    let key = seen[0].header("idempotency-key").unwrap();
    assert_eq!((seen.len(), seen[1].path.clone()), (2, format!("/charges?key={key}")));
    assert_eq!(seen[1].header("idempotency-key"), None, "a probe only asks");
}

#[tokio::test]
async fn a_person_resolves_a_conflict_and_the_next_process_goes_on() {
    let plan = json!({
        "workflow": "w",
        "steps": {
            "price": { "call": "GET ${services.world}/price" },
            "charge": { "needs": ["price"], "call": "POST ${services.world}/charges", "body": { "n": 1 }, "on_conflict": "pause" },
        },
        "respond": { "status": 201, "body": "${steps.charge.output}" },
    });
    let step_service = StepService::new(|seen, _| match (seen.path.as_str(), &seen.body[..]) {
        ("/charges", br#"{"n":1}"#) => ServiceReply::Json(409, json!({"why": "taken", "token": "t"})),
        _ => ServiceReply::Json(200, json!({"id": 7})),
    })
    .await;
    let mut harness = Harness::new(&step_service, checked_plan(&plan, false)).await;
    let (problem, _) = refused(harness.send(real()).await);
    assert_eq!(problem.kind, "run-paused");
    let run = problem.run.unwrap();
    let paused = fold(&harness.events(run).await).unwrap();
    let conflict = paused.conflict().unwrap();
    assert_eq!(conflict.response.as_deref(), Some(&json!({"why": "taken", "token": "***"})));
    harness.crash().await;
    harness.recover().await;
    let choice = Choice::RetryWith { input: Arc::new(json!({"n": 2})) };
    let resolve = ControlCommand::Resolve { step: "charge".into(), item: None, attempt: None, choice, reason: None };
    harness.engine.give_command(run, resolve.clone(), "ann".into()).await.unwrap();
    harness.wait_until(run, |view| view.status == RunStatus::Completed).await;
    assert_eq!(
        step_service.paths(),
        ["GET /price", "POST /charges", "POST /charges"],
        "finished steps are not done again"
    );
    let charges: Vec<_> = step_service.seen().into_iter().filter(|seen| seen.path == "/charges").collect();
    assert_ne!(charges[0].header("idempotency-key"), charges[1].header("idempotency-key"), "another body, another key");
    assert!(harness.engine.give_command(run, resolve, "bob".into()).await.is_err(), "the run has ended");
    let events = harness.events(run).await;
    assert!(events.iter().any(
        |event| matches!(event, Event::Conflict(ConflictEvent::Resolved { by, part: StepPart::Do, .. }) if by == "ann")
    ));
}

#[tokio::test]
async fn no_attempt_takes_longer_than_the_deadline_of_its_step() {
    let plan = json!({
        "workflow": "w",
        "steps": { "look": { "call": "GET ${services.world}/x", "timeout": "8s", "deadline": "60ms" } },
        "respond": { "status": 200 },
    });
    let step_service = StepService::new(|_, _| ServiceReply::Hang).await;
    let harness = Harness::new(&step_service, checked_plan(&plan, false)).await;
    let began = std::time::Instant::now();
    assert_eq!(refused(harness.send(real()).await).0.status, 504);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// The undo is refused and waits for a person, after the caller was answered that the run failed.
#[tokio::test]
async fn a_retry_while_undoing_waits_for_a_person_gets_the_same_failure() {
    let step_service = StepService::new(|seen, before| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/reservations") => ServiceReply::Json(201, json!({"id": before})),
        ("POST", _) => ServiceReply::Json(404, json!({})),
        _ => ServiceReply::Json(400, json!({})),
    })
    .await;
    let mut definition = saga();
    definition["respond"] = json!([{ "pending": { "status": 202 } }, { "status": 201 }]);
    let mut harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
    let keyed = || ArmRequest { retry_keys: Some(RetryKey([5; 32]).into()), ..real() };
    let (problem, _) = refused(harness.send(keyed()).await);
    assert_eq!((problem.status, problem.kind.as_str()), (502, "workflow-refused"));
    let run = problem.run.unwrap();
    let paused = |view: &RunView| view.status == RunStatus::Paused;
    harness.wait_until(run, paused).await;
    for crashes in [false, true] {
        if crashes {
            harness.crash().await;
            harness.recover().await;
        }
        let (again, _) = refused(harness.send(keyed()).await);
        assert_eq!((again.status, again.kind, again.run), (502, problem.kind.clone(), Some(run)), "crashes: {crashes}");
    }
    assert!(paused(&harness.view(run).await));
}

/// The caller is told that the work is accepted; that it was done is not known.
#[tokio::test]
async fn a_pending_answer_of_a_run_that_is_paused_with_a_conflict_says_so() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/charges" => ServiceReply::Json(500, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let of = |checkpoint: bool| {
        let ask = json!({ "checkpoint": { "question": "Charge?" } });
        let charge = json!({ "call": "POST ${services.world}/charges" });
        let definition = json!({
            "workflow": "w",
            "steps": { "one": if checkpoint { ask } else { charge } },
            "respond": [{ "pending": { "status": 202 } }, { "status": 201 }],
        });
        checked_plan(&definition, false)
    };
    for checkpoint in [false, true] {
        let harness = Harness::new(&step_service, of(checkpoint)).await;
        let (status, _, report) = answer(harness.send(real()).await);
        assert_eq!((status, report.pending_in_conflict, report.outlived_deadline), (202, !checkpoint, false));
    }
}
