//! Which threads work on requests of clients.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::harness::{Harness, ServiceReply, StepService, request};
use crate::limits::PARSED_BY_CALLER_BYTES_MAX;
use crate::workflow::Mode;
use crate::workflow::testing::PlanBuilder;

/// The engine's runtime does nothing while it is not driven, so whoever asks has an answer only from its own thread.
#[test]
fn a_large_body_of_a_client_is_not_parsed_by_its_thread() {
    let (of_engine, of_caller) = (Builder::new_current_thread().enable_all().build(), Builder::new_current_thread());
    let of_engine = of_engine.unwrap();
    let mut of_caller = of_caller;
    let of_caller = of_caller.enable_all().build().unwrap();
    let harness = of_engine.block_on(async {
        let step_service = StepService::new(|_, _| ServiceReply::Json(200, json!({}))).await;
        let plan = PlanBuilder::new().call("a", &[], "GET /a", Value::Null).respond(200, json!({})).build("w");
        Harness::new(&step_service, plan).await
    });
    for (bytes, mode, is_elsewhere) in [
        (PARSED_BY_CALLER_BYTES_MAX, Mode::Real, false),
        (PARSED_BY_CALLER_BYTES_MAX + 1, Mode::Real, true),
        (PARSED_BY_CALLER_BYTES_MAX + 1, Mode::Rehearse, false),
    ] {
        let mut request = request("w", mode, &json!({}));
        // Is no JSON, and is refused before anything waits.
        Arc::get_mut(&mut request.request).unwrap().body = vec![b'{'; bytes].into();
        let polled = of_caller.block_on(async { futures_util::poll!(Box::pin(harness.send(request))) });
        assert_eq!(polled.is_pending(), is_elsewhere, "{bytes} {mode:?}");
    }
}
