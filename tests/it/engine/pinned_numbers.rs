//! Instances whose id is a JSON number are followed up under each form in which clients write it.

use http::Method;
use serde_json::{Value, json};

use super::EngineTest;
use crate::support::step_service::ScriptedReply;

const MAKE: &str = "
workflow: make
steps:
  make: { call: 'POST ${services.works}/makes' }
respond: { status: 201, body: { id: '${steps.make.output.id}' } }
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

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_a_whole_number_as_id_is_followed_up_as_clients_write_it() {
    let test = EngineTest::with_settings("", &[MAKE, LOOK], |flags| flags.write("routes/orders.yaml", ROUTES)).await;
    let send = async |method: Method, path: &str| {
        let url = format!("{}{path}", test.pointsman.url());
        test.client.json(method, &url, &[], &Value::Null).await.expect("an answer")
    };
    test.step_service.script("POST /makes", ScriptedReply::Done(200, json!({ "id": 100.0 })), 1);
    let made = send(Method::POST, "/orders").await;
    assert_eq!(
        (made.status.as_u16(), String::from_utf8_lossy(&made.body).into_owned()),
        (201, "{\"id\":100.0}".to_owned())
    );
    // Python's JSON library prints the id as `100.0`, JavaScript's as `100`.
    for id in ["100", "100.0"] {
        let read = send(Method::GET, &format!("/orders/{id}")).await.json();
        assert_eq!(read["by"], "engine", "{id}: {read}");
    }
    let other = send(Method::GET, "/orders/101").await.json();
    assert!(other["by"].is_null(), "nobody but legacy knows it: {other}");
    test.finish().await;
}
