//! The answer that a workflow declares for the time until it has one (`respond.pending`).

use std::time::Duration;

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, answer, request};
use crate::exchange::ArmRequest;
use crate::flag::RetryKey;
use crate::workflow::Mode;
use crate::workflow::testing::PlanBuilder;

/// Nothing of the run is decided then: the answer that is declared for the meantime is made for this retry alone.
#[tokio::test]
async fn the_pending_answer_to_a_retry_before_the_deadline_of_its_first_try_may_read_the_time() {
    let step_service = StepService::new(|_, _| ServiceReply::Gated(200, json!({"n": 1}))).await;
    let plan = PlanBuilder::new()
        .call("a", &[], "POST /a", json!({}))
        .respond(200, json!("${steps.a.output.n}"))
        .pending(202, json!({"run": "${run.id}", "at": "${now}"}))
        .build("w");
    let harness = Harness::new(&step_service, plan).await;
    let mut arm_request = request("w", Mode::Real, &json!({}));
    arm_request.retry_keys = Some(RetryKey([9; 32]).into());
    let retry = async {
        step_service.wait_for_calls(1).await;
        let reply = harness.send(ArmRequest { deadline: Duration::from_millis(600), ..arm_request.clone() }).await;
        step_service.open_gate();
        answer(reply)
    };
    let (first, (status, body, _)) = tokio::join!(harness.send(arm_request.clone()), retry);
    assert_eq!((answer(first).0, status), (200, 202), "{body}");
    assert!(body["at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{body}");
}
