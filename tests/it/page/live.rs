//! What changes is shown on open pages, also after their stream of events was cut.

use serde_json::json;

use super::PageTest;

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_show_what_changes_and_catch_up_after_a_cut() {
    let test = PageTest::start().await;
    test.run("live.mjs", 10, json!({})).await;
    test.finish().await;
}
