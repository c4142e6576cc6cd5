//! Which thread parses the body of a client's request.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::harness::{Harness, ServiceReply, StepService, request};
use crate::exchange::ArmReply;
use crate::limits::PARSED_BY_CALLER_BYTES_MAX;
use crate::workflow::Mode;
use crate::workflow::testing::PlanBuilder;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The engine's runtime runs only within `block_on`, so a run that exists was begun by the caller's thread.
#[test]
fn a_large_body_is_not_parsed_by_the_thread_of_its_client() {
    let (of_engine, of_caller) = (runtime(), runtime());
    let harness = of_engine.block_on(async {
        let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
        let plan = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).respond(200, json!({})).build("w");
        Harness::new(&step_service, plan).await
    });
    let begun = |bytes: usize| {
        let before = harness.engine.runs_in_flight();
        let mut request = request("w", Mode::Real, &json!({}));
        Arc::get_mut(&mut request.request).unwrap().body = format!("\"{}\"", "x".repeat(bytes - 2)).into();
        let mut reply = Box::pin(harness.send(request));
        of_caller.block_on(async { assert!(futures_util::poll!(&mut reply).is_pending()) });
        let begun = harness.engine.runs_in_flight() - before;
        assert!(matches!(of_engine.block_on(reply), ArmReply::Answer(_)), "{bytes}");
        begun
    };
    assert_eq!(begun(PARSED_BY_CALLER_BYTES_MAX), 1);
    assert_eq!(begun(PARSED_BY_CALLER_BYTES_MAX + 1), 0);
}
