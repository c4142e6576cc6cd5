//! A descendant of a run that a route started behaves like that run: it fails where a run that was started through the
//! API would wait for a person.

use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, abandoned, checked_plan, refused, request, start};
use crate::exchange::ArmRequest;
use crate::workflow::{Event, Mode, Plan, RunStarted, RunStatus};

fn parent_plan(name: &str, child: &str, respond: &Value) -> Arc<Plan> {
    checked_plan(&json!({ "workflow": name, "steps": { "sub": { "run": child } }, "respond": respond }), false)
}

/// A run `w`, which runs `middle`, which runs `inner`, whose charge is answered with 409.
async fn three_generations() -> Harness {
    let step_service = StepService::new(|_, _| ServiceReply::Json(409, json!({}))).await;
    let ok = json!({ "status": 200, "body": {} });
    let steps = json!({ "charge": { "call": "POST ${services.world}/charges" } });
    let inner = checked_plan(&json!({ "workflow": "inner", "steps": steps, "respond": ok }), false);
    let harness = Harness::new(&step_service, parent_plan("w", "middle", &ok)).await;
    harness.load_plans(&[&parent_plan("middle", "inner", &ok), &inner]);
    harness
}

/// The first events and the statuses of all runs, the one at the top first.
async fn generations(harness: &Harness) -> Vec<(Arc<RunStarted>, RunStatus)> {
    let mut found = Vec::new();
    for summary in harness.runs().await {
        let events = harness.events(summary.run_id).await;
        let Some(Event::RunStarted(started)) = events.first() else { panic!("{events:?}") };
        found.push((started.clone(), summary.status));
    }
    // Not sorted by run id, because ids of the same millisecond are in no order.
    found.sort_by_key(|(started, _)| started.started);
    found
}

/// Whether there are `count` runs, and the last one is paused and is the innermost of a tree that no route started.
fn is_paused_below_the_api(runs: &[(Arc<RunStarted>, RunStatus)], count: usize) -> bool {
    runs.len() == count
        && runs.last().is_some_and(|(started, status)| {
            started.workflow.as_str() == "inner" && started.route_above.is_none() && *status == RunStatus::Paused
        })
}

#[tokio::test]
async fn a_refusal_below_a_run_of_a_route_fails_the_tree_and_below_a_run_of_the_api_pauses_it() {
    let harness = three_generations().await;
    let (problem, _) = refused(harness.send(request("w", Mode::Real, &json!({}))).await);
    assert_eq!((problem.status, problem.kind.as_str()), (502, "workflow-child-failed"), "{problem:?}");
    let all = generations(&harness).await;
    let statuses: Vec<_> = all.iter().map(|(_, status)| *status).collect();
    assert_eq!(statuses, [RunStatus::Failed; 3]);
    assert_eq!(all[0].0.route_above, None, "the run at the top has the route itself");
    let told: Vec<_> = all[1..].iter().map(|(started, _)| started.route_above.unwrap().caller_until).collect();
    assert!(told[0].is_some_and(|until| until > all[0].0.started) && told[0] == told[1], "{told:?}");

    // Nobody waits for the answer of a rerun, so its tree pauses.
    let again = harness.engine.rerun(all[0].0.run, "sub".into(), "ann".into()).await.unwrap();
    harness.wait_until_ended_or_awaits_input(again.run).await;
    let all = generations(&harness).await;
    assert!(is_paused_below_the_api(&all, 6), "{all:?}");

    let harness = three_generations().await;
    let run = start(&harness, json!({})).await.run;
    harness.wait_until_ended_or_awaits_input(run).await;
    let all = generations(&harness).await;
    assert!(is_paused_below_the_api(&all, 3), "{all:?}");
}

#[tokio::test]
async fn a_caller_is_told_that_a_child_was_not_started_and_that_nothing_was_done() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let ok = json!({ "status": 200, "body": {} });
    let schema = json!({ "type": "object", "required": ["n"] });
    let steps = json!({ "charge": { "call": "POST ${services.world}/charges" } });
    let below = json!({ "workflow": "below", "input": { "schema": schema }, "steps": steps, "respond": ok });
    let harness = Harness::new(&step_service, parent_plan("w", "below", &ok)).await;
    harness.load_plans(&[&checked_plan(&below, false)]);
    let send =
        async |may_fall_back| harness.send(ArmRequest { may_fall_back, ..request("w", Mode::Real, &json!({})) }).await;
    let (problem, _) = refused(send(false).await);
    assert_eq!((problem.kind.as_str(), problem.shared_step_begun), ("workflow-child-failed", Some(false)));
    for part in ["`sub`: `below` does not take this input: ", ". Nothing but reads was done. "] {
        assert!(problem.detail.contains(part), "{problem:?}");
    }
    assert_eq!(abandoned(send(true).await).reason, "engine_failed", "legacy answers in its place");
    assert!(step_service.paths().is_empty());
}

/// The caller gets the status that it would get if the step of the innermost run were one of the run at the top.
#[tokio::test]
async fn a_failure_in_a_child_has_the_status_that_it_has_in_a_run_without_a_parent() {
    let ok = json!({ "status": 200, "body": {} });
    for (step, status) in [
        (json!({ "call": "POST ${services.world}/429", "retry": { "attempts": 1 } }), 503),
        (json!({ "call": "GET ${services.world}/500", "retry": { "attempts": 1 } }), 502),
        (json!({ "wait": "1h" }), 504),
        (json!({ "set": "${request.body.none}" }), 500),
    ] {
        let step_service = StepService::new(|seen, _| {
            ServiceReply::Json(seen.path.rsplit('/').next().unwrap().parse().unwrap(), json!({}))
        })
        .await;
        let inner = json!({ "workflow": "inner", "deadline": "500ms", "steps": { "a": step }, "respond": ok });
        let inner = checked_plan(&inner, false);
        let harness = Harness::new(&step_service, parent_plan("w", "middle", &ok)).await;
        harness.load_plans(&[&parent_plan("middle", "inner", &ok), &inner]);
        let (problem, _) = refused(harness.send(request("w", Mode::Real, &json!({}))).await);
        assert_eq!((problem.status, problem.kind.as_str()), (status, "workflow-child-failed"), "{problem:?}");
        let (problem, _) = refused(harness.send(request("inner", Mode::Real, &json!({}))).await);
        assert_eq!(problem.status, status, "{problem:?}");
    }
}

#[tokio::test]
async fn the_title_of_a_timeout_names_what_did_not_come_in_time() {
    let wait = json!({ "wait": { "signal": "go" } });
    let until = json!({ "wait": { "signal": "go", "timeout": "50ms" } });
    let read = json!({ "call": "GET ${services.world}/a", "timeout": "50ms", "retry": { "attempts": 1 } });
    for (step, deadline, title) in [
        (&wait, "100ms", "The workflow's deadline has passed"),
        (&until, "1h", "A signal that the workflow waits for did not come in time"),
        (&read, "1h", "A service that the workflow needs did not answer in time"),
    ] {
        let source =
            json!({ "workflow": "w", "deadline": deadline, "steps": { "a": step }, "respond": { "status": 200 } });
        let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({}))).await;
        let harness = Harness::new(&step_service, checked_plan(&source, false)).await;
        let (problem, _) = refused(harness.send(request("w", Mode::Real, &json!({}))).await);
        assert_eq!((problem.status, problem.kind.as_str()), (504, "workflow-timed-out"), "{problem:?}");
        assert_eq!(problem.title, title, "{problem:?}");
        step_service.open_gate();
    }
}
