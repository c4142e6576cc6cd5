//! Two routes that create instances, each with ids of its own that count from 1, become one by the files: a request
//! about an instance of legacy would reach the engine's instance with the same id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, json};
use serde_json::{Value, json};

use crate::support::process::{Start, one_line, output_text};
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX};

const CREATE: &str = "workflow: create
steps:
  make: { effect: private, call: 'POST ${services.new}/orders', body: {} }
respond: { status: 201, body: '${steps.make.output}' }
";
const CANCEL: &str = "workflow: cancel
steps:
  refund: { effect: private, call: 'POST ${services.new}/refunds', body: { id: '${instance.id}' } }
respond: { status: 200, body: { by: new } }
";

/// A service that gives out ids from 1 under each path, and counts the calls of each.
async fn service(name: &'static str) -> (Server, Arc<Mutex<BTreeMap<String, u64>>>) {
    let calls: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let counted = calls.clone();
    let handler = move |call: Call| {
        let mut calls = counted.lock().expect("unpoisoned");
        let id = calls.entry(call.path.clone()).or_default();
        *id += 1;
        let reply = json(StatusCode::CREATED, &json!({ "id": *id, "by": name }));
        async move { Ok(reply) }
    };
    (Server::start(LOCAL, handler).await.expect("a port"), calls)
}

/// A creator with its follower, under this path.
fn family(creator: &str, was: &str, version: &str, state: &str) -> String {
    let (orders, cancel) = (format!("/{version}/orders"), format!("/{version}/orders/{{id}}/cancel"));
    let was_of = |suffix: &str| match was {
        "" => String::new(),
        was => format!("was: [{}], ", was.split(' ').map(|id| format!("{id}{suffix}")).collect::<Vec<_>>().join(", ")),
    };
    format!(
        "- {{ id: {creator}, {}match: {{ method: POST, path: '{orders}' }}, workflow: create, legacy: old,
    instance: {{ creates: $.id }}, {state} }}
- {{ id: {creator}.cancel, {}match: {{ method: POST, path: '{cancel}' }}, workflow: cancel, legacy: old,
    instance: {{ follows: {creator}, key: path.id }}, {state} }}
",
        was_of(""),
        was_of(".cancel"),
    )
}

/// Neither by `was`, nor by giving one follower the requests of the other. The joined creator was never in a state in
/// which it is noted which ids legacy gives out.
#[tokio::test(flavor = "multi_thread")]
async fn families_of_which_ids_may_be_in_common_are_not_joined() {
    let ((old, at_old), (new, at_new)) = (service("old").await, service("new").await);
    let flags = FlagsDir::empty();
    let services = format!("services: {{ old: '{}', new: '{}' }}\ndefault_legacy: old\n", old.url(), new.url());
    flags.write("pointsman.yaml", &services);
    flags.write("workflows/create.yaml", CREATE);
    flags.write("workflows/cancel.yaml", CANCEL);
    let write = |routes: &str| flags.write("routes/orders.yaml", &format!("routes:\n{routes}"));
    let live = "state: live, force: { reason: a test }";
    let apart = family("a", "", "v1", live) + &family("b", "", "v2", "state: off");
    write(&apart);
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::on_sqlite(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let client = Client::new(WAIT_MAX);
    let send = async |pointsman: &Pointsman, path: &str| {
        let url = format!("{}{path}", pointsman.url());
        let reply = client.json(Method::POST, &url, &[], &json!({})).await.unwrap_or_else(|e| panic!("{path}: {e}"));
        reply.json()
    };
    assert_eq!(send(&pointsman, "/v1/orders").await, json!({ "id": 1, "by": "new" }), "the engine's");
    assert_eq!(send(&pointsman, "/v2/orders").await, json!({ "id": 1, "by": "old" }), "legacy's");

    let down = |route: &str| route.replace(live, "state: off");
    let joined = family("c", "a b", "{version}", "state: off");
    let followers_joined =
        down(&family("a", "", "v1", live)) + &family("b", "", "v2", "state: off").replace("follows: b", "follows: a");
    let taken_over = down(&family("a", "", "{version}", live));
    for route in ["a", "a.cancel"] {
        let down = json!({ "to": "off", "reason": "a test" });
        pointsman.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), down).await;
    }
    let mut instances_refunded = 0;
    for (routes, says) in [
        (&joined, "`c` joins several routes (`a`, `b`)"),
        (&followers_joined, "`b.cancel` follows up what `a` creates, and gets requests of `b.cancel`"),
        (&taken_over, "`a.cancel` follows up what `a` creates, and gets requests of `b.cancel`"),
    ] {
        write(routes);
        let reload = pointsman.cli(&["reload"]).await;
        let text = one_line(&output_text(&reload));
        assert!(!reload.status.success() && text.contains(says) && text.contains("one space"), "{text}");
        pointsman.kill().await;
        let refused = Pointsman::try_start(&start).await.err().expect("a start is refused too");
        assert!(one_line(&refused).contains(says), "{refused}");
        write(&down(&apart));
        pointsman = Pointsman::start(&start).await;
        let cancelled: Value = send(&pointsman, "/v2/orders/1/cancel").await;
        assert_eq!(cancelled["by"], "old", "the order is legacy's: {cancelled}");
        instances_refunded += 1;
        assert_eq!(at_old.lock().expect("unpoisoned").get("/v2/orders/1/cancel"), Some(&instances_refunded));
        assert_eq!(at_new.lock().expect("unpoisoned").get("/refunds"), None);
    }
    // The files say that one id is one instance.
    write(&joined.replacen("state: off", "state: off, force: { reason: one space }", 1));
    let reload = pointsman.cli(&["reload"]).await;
    assert!(reload.status.success(), "{}", output_text(&reload));
    assert!(pointsman.log().contains("Its file says that they are from one space"), "{}", pointsman.log());
    assert_eq!(send(&pointsman, "/v2/orders/1/cancel").await["by"], "new", "it is the engine's order 1");
    assert_eq!(pointsman.stop().await, Some(0), "{}", pointsman.log());
}
