//! The page with the keyboard alone.

use serde_json::json;

use super::PageTest;

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_reached_and_a_run_is_approved_by_keyboard() {
    let test = PageTest::filled().await;
    test.run("keyboard.mjs", 60, json!({ "views": test.views() })).await;
    assert_eq!(test.works.effects("POST /refunds"), 1, "what was approved was performed, once");
    test.release_and_finish().await;
}
