//! What a caller is told about a run that a rerun has replaced.

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, answer, checked_plan, refused, request};
use crate::affinity::TrackedFamily;
use crate::flag::{Family, InstanceId, PinKey, RetryKey};
use crate::limits::Limits;
use crate::names::RouteId;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, RunStatus};

/// Both runs belong to one request of the caller: what the first run did counts, whether the rerun takes over the
/// result of the shared step or fails before it repeats the step.
#[tokio::test]
async fn a_retry_is_told_that_the_run_before_the_rerun_began_a_shared_step() {
    for from in ["two", "look"] {
        let step_service = StepService::new(|seen, before| match (seen.path.as_str(), before) {
            ("/two", 0) => ServiceReply::Json(409, json!({})),
            ("/one", _) | ("/look", 0) => ServiceReply::Json(200, json!({})),
            _ => ServiceReply::Json(404, json!({})),
        })
        .await;
        let definition = json!({
            "workflow": "w",
            "steps": {
                "look": { "call": "GET ${services.world}/look" },
                "one": { "needs": ["look"], "call": "POST ${services.world}/one" },
                "two": { "needs": ["one"], "call": "GET ${services.world}/two", "on_conflict": "pause" },
            },
            "respond": { "status": 200, "body": {} },
        });
        let harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
        let mut arm_request = request("w", Mode::Real, &json!({}));
        arm_request.retry_keys = Some(RetryKey([7; 32]).into());
        let (problem, report) = refused(harness.send(arm_request.clone()).await);
        assert_eq!((problem.kind.as_str(), problem.shared_step_begun), ("run-paused", Some(true)));
        let successor = harness.engine.rerun(report.run.unwrap(), from.into(), "ann".into()).await.unwrap().run;
        assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Failed);
        assert_eq!(step_service.paths().iter().filter(|path| *path == "POST /one").count(), 1, "{from}");
        let (problem, _) = refused(harness.send(arm_request).await);
        assert_eq!((problem.run, problem.shared_step_begun), (Some(successor), Some(true)), "{from}");
        assert!(problem.detail.contains("A shared step was done or may have been"), "{from}: {}", problem.detail);
    }
}

/// Two reruns of the run that created an instance: the first gives another output, the second fails.
#[tokio::test]
async fn an_instance_keeps_its_output_while_the_newest_rerun_has_none() {
    let step_service = StepService::new(|_, before| match before {
        0 => ServiceReply::Json(200, json!({ "id": 17, "n": 1 })),
        1 => ServiceReply::Json(200, json!({ "id": 17, "n": 2 })),
        _ => ServiceReply::Json(404, json!({})),
    })
    .await;
    let definition = json!({
        "workflow": "w",
        "steps": { "make": { "call": "GET ${services.world}/make" } },
        "respond": { "status": 201, "body": "${steps.make.output}" },
    });
    let harness = Harness::new(&step_service, checked_plan(&definition, false)).await;
    let family = RouteId::from("orders.create");
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
    let (_, _, report) = answer(harness.send(arm_request).await);
    let created = report.run.unwrap();
    let plan =
        PlanBuilder::new().set("i", &[], json!("${instance}")).respond(200, json!("${steps.i.output}")).build("f");
    let follower = Harness::with_store(&step_service, plan, harness.store.clone(), Limits::default(), None).await;
    let mut run = created;
    for (n, status) in [(1, "completed"), (2, "completed"), (2, "failed")] {
        let mut arm_request = request("f", Mode::Real, &json!({}));
        let key = PinKey { family: family.clone(), id: "17".into() };
        arm_request.instance = Some(InstanceId { key: key.into(), run: Some(created) });
        let (_, body, _) = answer(follower.send(arm_request).await);
        assert_eq!((&body["output"]["n"], &body["status"]), (&json!(n), &json!(status)));
        if status == "completed" {
            run = harness.engine.rerun(run, "make".into(), "ann".into()).await.unwrap().run;
            harness.wait_until_ended_or_awaits_input(run).await;
        }
    }
}

/// Its answer would create a new instance of a family of which both arms have given out one id.
#[tokio::test]
async fn a_run_that_created_an_instance_is_not_rerun_after_a_pin_collision() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let plan = PlanBuilder::new()
        .call("charge", &[], "POST /charges", json!(null))
        .respond(201, json!({ "id": "${run.id}" }))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let family = RouteId::from("orders.create");
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.creates = Some((family.clone().into(), serde_json_path::JsonPath::parse("$.id").unwrap().into()));
    let (_, body, report) = answer(harness.send(arm_request).await);
    let run = report.run.unwrap();
    let affinity = &harness.engine.core.ports.affinity;
    affinity.record_collision(&PinKey { family: family.clone(), id: body["id"].as_str().unwrap().into() }, run);
    let error = harness.engine.rerun(run, "charge".into(), "ann".into()).await.unwrap_err();
    assert!(error.to_string().contains("both arms have given out the same id"), "{error}");
    assert_eq!(step_service.paths(), ["POST /charges"]);
    affinity.accept_collisions(&family.clone().into(), crate::clock::now());

    // The creator got another id, and the collision was found under a third one, which it had before.
    let other_ids = [family, RouteId::from("orders.place")];
    let renamed = Family::new("orders.make".into(), other_ids.to_vec().into());
    affinity.instances().set_families(vec![TrackedFamily { family: renamed.clone(), ends_after: None }]);
    affinity.record_collision(&PinKey { family: "orders.place".into(), id: "17".into() }, run);
    let error = harness.engine.rerun(run, "charge".into(), "ann".into()).await.unwrap_err();
    assert!(error.to_string().contains("accept the collision by a forced flip of `orders.make`"), "{error}");
    affinity.accept_collisions(&renamed, crate::clock::now());
    let successor = harness.engine.rerun(run, "charge".into(), "ann".into()).await.unwrap().run;
    assert_eq!(harness.wait_until_ended_or_awaits_input(successor).await.status, RunStatus::Completed);
    assert_eq!(step_service.paths(), ["POST /charges", "POST /charges"]);
}
