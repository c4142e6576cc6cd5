//! Runs in shadow and dark that answer before they end: their answer can be compared.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, answer, checked_plan, refused, request};
use crate::compare::AwaitedIntents;
use crate::exchange::ArmRequest;
use crate::flag::SkipReason;
use crate::names::StepId;
use crate::workflow::{Mode, Plan, RunStatus};

/// A workflow that answers after its first step, which is followed by the step `then` and by a shared step.
fn answers_early(then: Value) -> Arc<Plan> {
    checked_plan(
        &json!({
            "workflow": "w",
            "steps": {
                "accept": { "call": "POST ${services.world}/accept", "rehearse": {} },
                "then": then,
                "mail": { "needs": ["then"], "call": "POST ${services.world}/mail", "rehearse": {} },
            },
            "respond": { "after": ["accept"], "status": 202, "body": { "n": 1 } },
        }),
        false,
    )
}

fn open_steps(names: &[&str]) -> Option<Vec<StepId>> {
    Some(names.iter().map(|name| StepId::from(*name)).collect())
}

/// A deadline that no test reaches.
const LATE: Duration = Duration::from_secs(8);
/// A deadline that passes during the test.
const SOON: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_dark_run_that_only_waits_for_a_time_answers_at_once_unless_an_intent_of_a_later_step_is_awaited() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = answers_early(json!({ "needs": ["accept"], "wait": "10m" }));
    let harness = Harness::new(&step_service, plan).await;
    let of = |step: &str| AwaitedIntents::OfSteps([StepId::from(step)].into());
    for (awaited_intents, deadline) in
        [(AwaitedIntents::None, LATE), (of("accept"), LATE), (of("mail"), SOON), (AwaitedIntents::All, SOON)]
    {
        let begun = std::time::Instant::now();
        let dark = ArmRequest { awaited_intents, deadline, ..request("w", Mode::Dark, &json!({})) };
        let (status, body, report) = answer(harness.send(dark).await);
        assert_eq!((status, body, report.open_steps), (202, json!({ "n": 1 }), open_steps(&["mail"])));
        let intents: Vec<_> = report.intents.iter().map(|intent| intent.step.as_str()).collect();
        assert_eq!((intents, report.unresolved), (vec!["accept"], None));
        assert!(begun.elapsed() < LATE / 2, "it waited for the deadline");
        let run = report.run.unwrap();
        harness.wait_until_idle(run).await;
        assert_eq!(harness.view(run).await.status, RunStatus::Running, "the run goes on");
    }
}

#[tokio::test]
async fn at_the_deadline_the_answer_of_a_run_with_a_slow_call_can_be_compared() {
    for (mode, effect) in [(Mode::Dark, "private"), (Mode::Rehearse, "read")] {
        let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
        let slow = json!({ "needs": ["accept"], "call": "POST ${services.world}/slow", "effect": effect });
        let harness = Harness::new(&step_service, answers_early(slow)).await;
        let late = ArmRequest { deadline: SOON, ..request("w", mode, &json!({})) };
        let (status, _, report) = answer(harness.send(late).await);
        assert_eq!((status, report.open_steps), (202, open_steps(&["then", "mail"])), "{mode:?}");
        step_service.open_gate();
        if mode == Mode::Dark {
            harness.wait_until(report.run.unwrap(), |view| view.status == RunStatus::Completed).await;
        }
    }
}

#[tokio::test]
async fn a_dark_run_that_ends_soon_after_its_answer_is_compared_with_all_its_intents() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let then = json!({ "needs": ["accept"], "call": "POST ${services.world}/then", "effect": "private" });
    let harness = Harness::new(&step_service, answers_early(then)).await;
    let (status, _, report) = answer(harness.send(request("w", Mode::Dark, &json!({}))).await);
    assert_eq!((status, report.open_steps, report.intents.len()), (202, None, 3));
}

/// The run that pauses is the one that has answered, or a child of that run.
#[tokio::test]
async fn a_dark_run_that_pauses_after_its_answer_is_not_compared() {
    let step_service = StepService::new(|seen, _| match seen.path.as_str() {
        "/then" => ServiceReply::Json(409, json!({})),
        _ => ServiceReply::Json(200, json!({})),
    })
    .await;
    let pausing = json!({
        "call": "POST ${services.world}/then", "effect": "private", "on_conflict": "pause",
    });
    let below = checked_plan(
        &json!({ "workflow": "c", "steps": { "then": pausing }, "respond": { "status": 200, "body": {} } }),
        false,
    );
    let mut itself = pausing;
    itself["needs"] = json!(["accept"]);
    for then in [itself, json!({ "needs": ["accept"], "run": "c", "input": {} })] {
        let harness = Harness::new(&step_service, answers_early(then.clone())).await;
        harness.load_plans(&[&below]);
        let (_, _, report) = answer(harness.send(request("w", Mode::Dark, &json!({}))).await);
        assert_eq!(report.unresolved.map(|(reason, _)| reason), Some(SkipReason::WouldPause), "{then}");
    }
}

#[tokio::test]
async fn a_dark_run_without_an_answer_at_its_deadline_has_nothing_to_compare() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = checked_plan(
        &json!({ "workflow": "w", "steps": { "nap": { "wait": "10m" } }, "respond": { "status": 200, "body": {} } }),
        false,
    );
    let harness = Harness::new(&step_service, plan).await;
    let late = ArmRequest { deadline: SOON, ..request("w", Mode::Dark, &json!({})) };
    assert_eq!(refused(harness.send(late).await).0.kind, "run-goes-on");
}
