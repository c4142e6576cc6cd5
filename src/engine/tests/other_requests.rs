//! Another request comes with the retry key of one that is in flight in the same process.

use serde_json::json;

use super::harness::{Harness, ServiceReply, StepService, abandoned, answer, refused, request};
use super::one_arm::{keyed, plan};
use crate::exchange::ArmRequest;
use crate::workflow::Mode;

/// A request with the same key as [`keyed`] and another body.
fn with_another_body() -> ArmRequest {
    ArmRequest { retry_keys: keyed().retry_keys, may_fall_back: true, ..request("w", Mode::Real, &json!({ "n": 2 })) }
}

/// Nothing of the first request's run is stored while it only reads.
#[tokio::test]
async fn another_request_is_refused_once_the_run_of_the_first_one_is_stored() {
    for status in [200, 404] {
        let step_service = StepService::new(move |_, _| ServiceReply::Gated(status, json!({}))).await;
        let harness = Harness::new(&step_service, plan()).await;
        let other = async {
            step_service.wait_for_calls(1).await;
            let mut other = Box::pin(harness.send(with_another_body()));
            assert!(futures_util::poll!(&mut other).is_pending(), "it is not known yet who has the key");
            step_service.open_gate();
            other.await
        };
        let (first, other) = tokio::join!(harness.send(keyed()), other);
        if status == 200 {
            assert_eq!(answer(first).0, 201);
            assert_eq!(refused(other).0.kind, "retry-key-reused");
            assert_eq!(step_service.paths(), ["GET /price", "POST /charges"]);
        } else {
            // The key is legacy's: legacy gets the other request too, and decides about it.
            assert_eq!(abandoned(first).reason, "engine_failed");
            assert_eq!(abandoned(other).reason, "legacy_took_first_try");
            assert_eq!(step_service.paths(), ["GET /price"]);
        }
    }
}
