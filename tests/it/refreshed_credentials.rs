//! A client tries again with a refreshed token, after another client has used the same key value.

use http::{Method, StatusCode};
use serde_json::Value;

use crate::legacy_keys::{charges, force};
use crate::support::test_system::{TestSystem, some_order};

async fn order(system: &TestSystem, token: &str, number: u64) -> (StatusCode, Value) {
    let headers = [("idempotency-key", "1"), ("authorization", token)];
    let reply = system.send_with(Method::POST, "/orders", &headers, &some_order(number)).await;
    let reply = reply.unwrap_or_else(|why| panic!("{why}\n{}", system.pointsman.log()));
    (reply.status, reply.json())
}

/// The engine has the request of the first client, and legacy one of the second: neither is performed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_value_that_another_client_uses_at_legacy_does_not_give_the_request_to_legacy() {
    let mut system = TestSystem::start().await;
    force(&system, "live").await;
    let (status, by_engine) = order(&system, "Bearer a", 1).await;
    assert!(status == StatusCode::CREATED && by_engine["id"].is_string(), "{status} {by_engine}");
    system.record_order(by_engine.clone());
    system.lower("off").await;
    let (status, by_legacy) = order(&system, "Bearer other", 2).await;
    assert!(status == StatusCode::CREATED && by_legacy["id"].is_number(), "{status} {by_legacy}");
    system.record_order(by_legacy);
    system.allowed.legacy_repeats = true;
    for state in ["off", "live"] {
        for when in ["before a restart", "after a restart"] {
            let before = charges(&system);
            let (status, refused) = order(&system, "Bearer b", 1).await;
            assert_eq!(status, StatusCode::CONFLICT, "in {state} {when}: {refused}");
            assert_eq!(charges(&system), before, "in {state} {when}");
            let (status, again) = order(&system, "Bearer a", 1).await;
            assert_eq!((status, &again["id"]), (StatusCode::CREATED, &by_engine["id"]), "in {state} {when}");
            // A retry of what legacy took goes to legacy under a refreshed token too.
            let (status, again) = order(&system, "Bearer refreshed", 2).await;
            assert!(status == StatusCode::CREATED && again["id"].is_number(), "in {state} {when}: {status} {again}");
            assert_eq!(system.pointsman.stop().await, Some(0));
            system.restart().await;
        }
        force(&system, "live").await;
    }
    system.finish().await;
}
