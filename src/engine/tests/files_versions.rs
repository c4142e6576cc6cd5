//! Files that change while requests are in flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::{Harness, ServiceReply, StepService, abandoned, answer, refused, request};
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::workflow::testing::PlanBuilder;
use crate::workflow::{Mode, Plan};

fn plan_with_output(output: u64) -> Arc<Plan> {
    PlanBuilder::new().set("n", &[], json!(output)).respond(200, json!("${steps.n.output}")).build("w")
}

async fn answer_of(harness: &Harness, files_version: u64) -> Value {
    let (status, body, _) =
        answer(harness.send(ArmRequest { files_version, ..request("w", Mode::Real, &json!({})) }).await);
    assert_eq!(status, 200);
    body
}

#[tokio::test]
async fn a_request_runs_with_the_version_of_the_files_that_decided_it() {
    let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
    let harness = Harness::new(&step_service, plan_with_output(0)).await;
    let reload = |files_version: u64, output: u64| {
        let plans = BTreeMap::from([("w".into(), plan_with_output(output))]);
        harness.engine.reload(files_version, &plans, &BTreeMap::new(), &BTreeMap::new());
    };
    reload(1, 1);
    assert_eq!(answer_of(&harness, 0).await, json!(0), "decided before the change");
    assert_eq!(answer_of(&harness, 1).await, json!(1));
    // A reload with the number of the newest version replaces that version, and displaces no earlier one.
    for output in 20..30 {
        reload(2, output);
    }
    assert_eq!(answer_of(&harness, 2).await, json!(29));
    assert_eq!(answer_of(&harness, 1).await, json!(1));
    assert_eq!(answer_of(&harness, 0).await, json!(0));
    // A request that was decided under a version that is no longer held runs with no other version.
    for files_version in 3..10 {
        reload(files_version, files_version);
    }
    assert_eq!(answer_of(&harness, 8).await, json!(8));
    for (mode, may_fall_back) in [(Mode::Real, false), (Mode::Dark, false), (Mode::Rehearse, false), (Mode::Real, true)]
    {
        let request =
            ArmRequest { may_fall_back, retry_keys: Some(RetryKey([3; 32]).into()), ..request("w", mode, &json!({})) };
        let reply = harness.send(request).await;
        if may_fall_back {
            assert_eq!(abandoned(reply).reason, "files_changed");
        } else {
            let (problem, _) = refused(reply);
            assert_eq!((problem.status, problem.kind.as_str(), problem.run), (503, "files-changed", None), "{mode:?}");
        }
    }
    // The key of the request that fell back belongs to legacy, so the engine does not perform a retry that newer files
    // decided.
    let retry = ArmRequest {
        files_version: 9,
        may_fall_back: true,
        retry_keys: Some(RetryKey([3; 32]).into()),
        ..request("w", Mode::Real, &json!({}))
    };
    assert_eq!(abandoned(harness.send(retry).await).reason, "legacy_took_first_try");
}
