//! Routes can be lowered while the store accepts no writes.

use http::Method;
use serde_json::{Value, json};

use crate::legacy_keys::{fill_disk, force};
use crate::support::test_system::TestSystem;

async fn status(system: &TestSystem) -> Value {
    system.pointsman.get("/api/v2/status").await
}

/// In `only`, every request is refused while the engine cannot record its run: only a flip down lets legacy answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_in_only_goes_down_on_a_full_disk() {
    let mut system = TestSystem::start().await;
    system.allowed.unacknowledged = true;
    force(&system, "only").await;
    assert!(system.order().await["id"].is_string(), "the engine answers");
    system.wait_for_runs_to_end().await;
    let disk = fill_disk(&system).await;
    let path = "/api/v2/routes/orders.create/flip";
    let lowered = system.pointsman.api(Method::POST, path, json!({ "to": "off", "acknowledge": true })).await;
    let (code, lowered) = (lowered.status.as_u16(), lowered.json());
    assert_eq!((code, &lowered["recorded"], &lowered["effective"]["state"]), (202, &json!(false), &json!("off")));
    assert!(system.order().await["id"].is_number(), "legacy answers");
    assert_eq!(status(&system).await["flips_unrecorded"], 1);
    let raised = system.flip("orders.create", "shadow", &["--reason", "too early"]).await.unwrap_err();
    assert!(raised.contains("did not record the flip"), "{raised}");
    let shown = system.flip("orders.get", "live", &["--yes", "--reason", "a test"]).await.unwrap();
    assert!(shown.contains("the store has not recorded the flip"), "{shown}");

    disk.end().await;
    let is_recorded = |metrics: &crate::support::Metrics| metrics.sum("pointsman_flips_unrecorded", &[]) == 0.0;
    system.pointsman.until_metric("the flips to be recorded", is_recorded).await;
    system.kill().await;
    system.restart().await;
    assert_eq!(status(&system).await["flips_unrecorded"], 0);
    for (route, state) in [("orders.create", "off"), ("orders.get", "live")] {
        let row = system.pointsman.get(&format!("/api/v2/routes/{route}")).await["row"].clone();
        assert_eq!((&row["requested"], &row["effective"]["state"]), (&json!(state), &json!(state)), "{row}");
    }
    assert!(system.order().await["id"].is_number(), "legacy answers");
    system.finish().await;
}
