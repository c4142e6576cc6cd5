//! Routes moved and the kill switch set through the page.

use serde_json::json;

use super::PageTest;

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_moved_through_its_gate_and_the_kill_switch_is_set() {
    let test = PageTest::start().await;
    test.run("moving.mjs", 30, json!({})).await;
    test.finish().await;
}
