//! What people do to runs through the page: recorded with their names, carried out once, or not at all.

use serde_json::{Value, json};

use super::PageTest;
use crate::support::step_service::ScriptedReply;

impl PageTest {
    /// The bodies of the calls that `works` performed at an endpoint.
    fn bodies(&self, endpoint: &str) -> Vec<Value> {
        self.works.seen(endpoint).iter().map(|call| call.json()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_answered_through_the_page_and_the_first_answer_counts() {
    let mut test = PageTest::start().await;
    let people = ["ada", "bob", "cyd", "dan", "eli", "fay", "gus", "hal"];
    for (name, workflow, input) in [
        ("pick", "pick", json!({ "product": "tea" })),
        ("refund", "refund", json!({ "amount": 12.5 })),
        ("declined", "refund", json!({ "amount": 99 })),
        ("mails", "mails", json!({ "people": people })),
    ] {
        test.start_run(name, workflow, input, "waiting_checkpoint").await;
    }
    test.run("answering.mjs", 19, json!({})).await;
    assert_eq!(test.bodies("POST /uses"), [json!({ "picture": "second", "copies": 3 })]);
    assert_eq!(test.bodies("POST /refunds"), [json!({ "amount": 12.5 })], "one approved, one declined");
    let mut mailed: Vec<Value> = test.bodies("POST /mails").iter().map(|mail| mail["to"].clone()).collect();
    mailed.sort_by_key(Value::to_string);
    let approved: Vec<Value> = people.iter().filter(|name| **name != "bob").map(|name| json!(name)).collect();
    assert_eq!(mailed, approved, "all but the one that was struck out, each once");
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_resolved_and_commands_given_through_the_page() {
    let mut test = PageTest::start().await;
    test.works.script("POST /charges", ScriptedReply::Refuse(409), 4);
    for name in ["retried", "skipped", "taken", "undone"] {
        test.start_run(name, "charge", json!({}), "paused").await;
    }
    for name in ["held", "stopped", "one", "other"] {
        test.start_run(name, "payment", json!({}), "waiting_signal").await;
    }
    let reserved = test.works.effects("POST /stock");
    test.run("commanding.mjs", 15, json!({})).await;
    assert_eq!(test.works.effects("POST /stock"), reserved, "what was done is not done again");
    assert_eq!(test.works.effects("POST /charges"), 1, "only the retried one");
    assert_eq!(test.works.effects("DELETE /stock"), 1, "only the cancelled one was undone");
    test.finish().await;
}
