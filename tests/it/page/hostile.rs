//! Recorded data that would do something if it became markup: on every page it is text, and secrets are not there.

use serde_json::json;

use super::{PageTest, RUN, hostile};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

/// What is left of the hostile text wherever it is shown.
const SHOWN: &str = "<script>window.__planted=1</script>";

#[tokio::test(flavor = "multi_thread")]
async fn hostile_data_is_inert_text_on_every_page() {
    let mut test = PageTest::start().await;
    let (text, secret) = (hostile()["text"].clone(), hostile()["secret"].clone());
    let reason = json!({ "reason": text });
    let (answer, error) = (json!({ "id": text, "number": 1 }), json!({ "error": text, "token": secret }));
    test.works.set_default("POST /items", ScriptedReply::Done(200, answer));
    test.works.script("POST /charges", ScriptedReply::RefuseWith(409, Vec::new(), error), 1);
    // Requests, of which samples are kept.
    test.request("/things", 4, &json!({ "text": text, "password": secret, "<img src=x onerror=alert(1)>": 1 })).await;
    until("differences", || async {
        let differences = test.get("/api/v2/routes/things/diffs").await;
        differences["groups"].as_array().is_some_and(|groups| !groups.is_empty()).then_some(())
    })
    .await;
    // Moves and a freeze, with reasons.
    test.post("/api/v2/routes/same/flip", json!({ "to": "shadow", "reason": text })).await;
    test.post("/api/v2/freeze", json!({ "on": true, "reason": text })).await;
    // Runs with inputs, questions, notes, replies, outputs.
    for (name, workflow, input, status) in [
        ("question", "pick", json!({ "product": text }), "waiting_checkpoint"),
        ("review", "mails", json!({ "people": [text, "bob", { "<b onclick=alert(1)>": text }] }), "waiting_checkpoint"),
        ("declined", "refund", json!({ "amount": text }), "waiting_checkpoint"),
        ("conflict", "charge", json!({ "password": secret }), "paused"),
        ("signalled", "payment", json!({}), "waiting_signal"),
        ("cancelled", "payment", json!({}), "waiting_signal"),
        ("paused", "payment", json!({}), "waiting_signal"),
        ("output", "below", json!({ "n": { "<script>alert(1)</script>": text } }), "completed"),
        ("items", "many", json!({ "numbers": [{ "n": text }] }), "waiting_signal"),
    ] {
        test.start_run(name, workflow, input, status).await;
    }
    let declined = test.data("declined").await;
    let answer_path = declined["pending_checkpoint"]["answer"].as_str().expect("it asks");
    test.post(answer_path, json!({ "approve": false, "note": text })).await;
    let signal = format!("{RUN}/{}/signals/paid", test.id("signalled"));
    test.post(&signal, json!({ "payload": { "amount": text, "password": secret } })).await;
    test.post(&format!("{RUN}/{}/cancel", test.id("cancelled")), reason.clone()).await;
    test.post(&format!("{RUN}/{}/pause", test.id("paused")), reason).await;
    for (name, status) in
        [("declined", "failed"), ("signalled", "completed"), ("cancelled", "cancelled"), ("paused", "paused")]
    {
        test.wait_for_status(name, status).await;
    }
    // Where it certainly is, it has to be shown: as text.
    let mut views = test.views();
    let shows = ["differences", "record", "freeze", "run question", "run review", "run conflict", "run declined"];
    for view in views.as_array_mut().expect("a list") {
        if shows.iter().any(|name| view["name"] == *name) {
            view["shows"] = json!(SHOWN);
        }
    }
    let given = json!({ "views": views, "looks": ["light", "narrow"], "secret": secret });
    test.run("views.mjs", 150, given).await;
    test.run("links.mjs", 100, json!({ "secret": secret })).await;
    test.finish().await;
}
