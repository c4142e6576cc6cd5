//! Files without a family are refused while a run may create an instance of it.

use http::Method;
use serde_json::{Value, json};

use super::{EngineTest, RUN, path};
use crate::support::step_service::ScriptedReply;
use crate::support::until;

const MAKE: &str = "
workflow: make
steps:
  charge: { call: 'POST ${services.works}/charges', on_conflict: pause }
  ask: { needs: [charge], checkpoint: { question: Go on? } }
respond: { status: 201, body: { id: '${steps.charge.output.id}', by: '${steps.ask.by}' } }
";
const LOOK: &str = "
workflow: look
steps: { look: { call: 'GET ${services.works}/looks' } }
respond: { status: 200, body: { by: engine } }
";
const ROUTES: &str = "
routes:
- { id: orders.create, match: { method: POST, path: /orders }, legacy: plain, workflow: make, state: live,
    force: { reason: no pairs here }, instance: { creates: $.id }, deadline: 500ms,
    retry_key: '${request.headers[\"idempotency-key\"]}' }
- { id: orders.read, match: { method: GET, path: '/orders/{id}' }, legacy: plain, workflow: look, state: live,
    force: { reason: no pairs here }, instance: { follows: orders.create, key: path.id } }
";
const FILE: &str = "routes/orders.yaml";

/// The only open run is a rerun, which has no route: a reload of files without its family is refused. So is a start
/// with such files after the run has created its instance.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_rerun_is_open_its_family_has_to_stay() {
    let mut test = EngineTest::with_settings("", &[MAKE, LOOK], |flags| flags.write(FILE, ROUTES)).await;
    test.step_service.script("POST /charges", ScriptedReply::Done(409, json!({})), 1);
    test.step_service.script("POST /charges", ScriptedReply::Done(200, json!({ "id": "17" })), 1);
    let url = format!("{}/orders", test.pointsman.url());
    let made = test.client.json(Method::POST, &url, &[("idempotency-key", "k")], &json!({})).await.expect("an answer");
    assert_eq!(made.status.as_u16(), 503, "it pauses, and its caller does not wait");
    let list = test.pointsman.get(&format!("{RUN}s?workflow=make")).await;
    let first = path(&list["runs"][0]);
    let (status, rerun) = test.post(&format!("{first}/rerun"), json!({ "from": "charge" })).await;
    assert_eq!(status, 202, "{rerun}");
    let second = path(&rerun["data"]);
    let asked = test.wait_for_status(&second, "waiting_checkpoint").await;

    test.flags.write(FILE, "routes: []\n");
    let last_error = async || test.pointsman.get("/api/v2/status").await["flags"]["last_error"].clone();
    let refusal = until("the refusal", || async { last_error().await.as_str().map(str::to_owned) }).await;
    let sentence = "the engine has an open run that may create an instance of `orders.create`";
    assert!(refusal.contains(sentence), "{refusal}");

    let answer = asked["pending_checkpoint"]["answer"].as_str().expect("a path").to_owned();
    test.post_accepted(&answer, json!({ "approve": true, "as": "ada" })).await;
    test.wait_for_status(&second, "completed").await;
    let read = format!("{}/orders/17", test.pointsman.url());
    let read = test.client.json(Method::GET, &read, &[], &Value::Null).await.expect("an answer").json();
    assert_eq!(read["by"], "engine", "{read}");
    test.kill().await;
    let refused = crate::support::Pointsman::try_start(&test.start).await.err().expect("it refuses to start");
    assert!(refused.contains("the engine owns instances of `orders.create` (1)"), "{refused}");
    test.flags.write(FILE, ROUTES);
    test.restart().await;
    test.finish().await;
}
