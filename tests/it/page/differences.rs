//! The differences of a route, and rules that are tried on them.

use serde_json::json;

use super::PageTest;
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_explained_and_rules_tried_without_writing_them() {
    let test = PageTest::start().await;
    test.request("/things", 4, &json!({ "text": "a" })).await;
    until("the differences of 4 pairs", || async {
        (test.get("/api/v2/routes/things/diffs").await["mismatched"] == 4).then_some(())
    })
    .await;
    test.run("differences.mjs", 12, json!({})).await;
    test.finish().await;
}
