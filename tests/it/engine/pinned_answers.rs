//! An id that the caller got is followed up by the engine, whatever kind of answer it was in.

use http::Method;
use serde_json::{Value, json};

use super::{EngineTest, path};
use crate::support::step_service::ScriptedReply;

const MAKE: &str = "
workflow: make
steps:
  charge:
    call: POST ${services.works}/charges
    accept: [2xx, 402]
  declined:
    if: ${steps.charge.status == 402}
    fail: { status: 202, body: { id: '${run.id}', state: declined } }
  ask: { if: '${has(steps.charge.output.ask)}', checkpoint: { question: Go on? } }
respond:
  - when: ${failed.status == 410}
    status: 201
    body: { id: '${run.id}', state: gone }
  - when: ${has(steps.charge.output.redirect)}
    status: 303
    body: { id: '${run.id}', state: elsewhere }
  - status: 201
    body: { id: '${run.id}', state: paid }
    pending: { status: 202, body: { id: '${run.id}', state: pending } }
";
const LOOK: &str = "
workflow: look
steps:
  look: { call: 'GET ${services.works}/looks' }
respond: { status: 200, body: { by: engine } }
";
const ROUTES: &str = "
routes:
- { id: orders.create, match: { method: POST, path: /orders }, legacy: plain, workflow: make, state: live,
    force: { reason: no pairs here }, instance: { creates: $.id } }
- { id: orders.read, match: { method: GET, path: '/orders/{id}' }, legacy: plain, workflow: look, state: live,
    force: { reason: no pairs here }, instance: { follows: orders.create, key: path.id } }
";

/// Makes an order, and reads it by its id, which is that of its run.
async fn check_followed_up(test: &EngineTest, status: u16, state: &str) -> String {
    let send = async |method: Method, path: &str| {
        let url = format!("{}{path}", test.pointsman.url());
        test.client.json(method, &url, &[], &Value::Null).await.expect("an answer")
    };
    let made = send(Method::POST, "/orders").await;
    let order = made.json();
    assert_eq!((made.status.as_u16(), order["state"].as_str()), (status, Some(state)), "{order}");
    let read = send(Method::GET, &format!("/orders/{}", order["id"].as_str().expect("an id"))).await.json();
    assert_eq!(read["by"], "engine", "{state}: {read}");
    path(&json!({ "run_id": order["id"] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_any_answer_is_followed_up_by_the_engine() {
    let test = EngineTest::with_settings("", &[MAKE, LOOK], |flags| flags.write("routes/orders.yaml", ROUTES)).await;
    for (charged, reply, status, state) in [
        (402, json!({}), 202, "declined"),
        (410, json!({}), 201, "gone"),
        (200, json!({ "redirect": true }), 303, "elsewhere"),
        (200, json!({}), 201, "paid"),
    ] {
        test.step_service.script("POST /charges", ScriptedReply::Done(charged, reply), 1);
        check_followed_up(&test, status, state).await;
    }
    // The caller has the id already when the final answer, which has it too, is made.
    test.step_service.script("POST /charges", ScriptedReply::Done(200, json!({ "ask": true })), 1);
    let run = check_followed_up(&test, 202, "pending").await;
    let asked = test.wait_for_status(&run, "waiting_checkpoint").await;
    let answer = asked["pending_checkpoint"]["answer"].as_str().expect("a path").to_owned();
    test.post_accepted(&answer, json!({ "approve": true, "as": "ada" })).await;
    test.wait_for_status(&run, "completed").await;
    let log = test.pointsman.log();
    assert!(!log.contains("no id of the instance"), "each answer has an id:\n{log}");
    test.finish().await;
}
