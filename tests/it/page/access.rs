//! Who may look at the page and do something there: logins, forms, and tokens without a scope.

use serde_json::json;

use super::{PageTest, RUN};

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_sees_and_does_something() {
    let mut test = PageTest::start().await;
    for (name, workflow, input, status) in [
        ("pick", "pick", json!({ "product": "tea" }), "waiting_checkpoint"),
        ("payment", "payment", json!({}), "waiting_signal"),
    ] {
        test.start_run(name, workflow, input, status).await;
    }
    let run = test.id("pick").to_owned();
    let checkpoint = test.data("pick").await["pending_checkpoint"]["id"].clone();
    // Forms as the page makes them for people who may.
    let forged = json!([
        ["/freeze", { "to": "effects", "reason": "forged" }],
        ["/routes/things/flip", { "to": "off", "reason": "forged" }],
        [format!("/runs/{run}/answer"), { "run": run, "checkpoint": checkpoint, "answer": "no" }],
        [format!("/runs/{run}/cancel"), { "/reason": "forged", "undo": "yes" }],
        [format!("/runs/{run}/pause"), { "/reason": "forged" }],
    ]);
    test.run("access.mjs", 60, json!({ "run": run, "route": "things", "forged": forged })).await;
    assert_eq!(test.data("pick").await["status"], "waiting_checkpoint");
    assert_eq!(test.data("payment").await["status"], "waiting_signal");
    let events = test.get(&format!("{RUN}/{run}/events")).await;
    let refused = ["paused", "cancel_ordered", "checkpoint_answered"];
    let done =
        events.as_array().expect("a list").iter().filter(|event| refused.iter().any(|kind| event["kind"] == *kind));
    assert_eq!(done.count(), 0, "{events}");
    let log = test.pointsman.log();
    assert!(!log.contains("-0123456789abcd"), "no token in the log");
    test.finish().await;
}
