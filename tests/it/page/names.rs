//! The page where the API has no tokens: anybody on this machine, under a name that nobody verified.

use serde_json::json;

use super::PageTest;

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_the_name_is_recorded_as_unverified() {
    let mut test = PageTest::with(|flags| {
        flags.edit("pointsman.yaml", |text| {
            let (before, _) = text.split_once("\nadmin:").expect("the tokens");
            format!("{before}\n")
        });
    })
    .await;
    test.start_run("refund", "refund", json!({ "amount": 1 }), "waiting_checkpoint").await;
    test.start_run("other", "refund", json!({ "amount": 2 }), "waiting_checkpoint").await;
    test.run("names.mjs", 15, json!({})).await;
    assert_eq!(test.works.effects("POST /refunds"), 2);
    test.finish().await;
}
