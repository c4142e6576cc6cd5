//! Two routes that create instances, each with ids of its own that count from 1, become one route by the files: a request
//! about an instance of legacy would reach the engine's instance with the same id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, json};
use serde_json::{Value, json};

use crate::support::process::{Start, output_text};
use crate::support::{FlagsDir, LOCAL, Metrics, Pointsman, WAIT_MAX};

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

#[tokio::test(flavor = "multi_thread")]
async fn creators_with_ids_in_common_are_not_joined() {
    let ((old, at_old), (new, at_new)) = (service("old").await, service("new").await);
    let flags = FlagsDir::empty();
    let services = format!("services: {{ old: '{}', new: '{}' }}\ndefault_legacy: old\n", old.url(), new.url());
    flags.write("pointsman.yaml", &services);
    flags.write("workflows/create.yaml", CREATE);
    flags.write("workflows/cancel.yaml", CANCEL);
    let live = "state: live, force: { reason: a test }";
    let apart = |state: &str| family("a", "", "v1", state) + &family("b", "", "v2", "state: shadow");
    flags.write("routes/orders.yaml", &format!("routes:\n{}", apart(live)));
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite:{}", dir.path().join("db").display());
    let start = Start { flags: flags.path().to_owned(), store, log: dir.path().join("log"), env: Vec::new() };
    let mut pointsman = Pointsman::start(&start).await;
    let client = Client::new(WAIT_MAX);
    let send = async |pointsman: &Pointsman, path: &str| {
        let url = format!("{}{path}", pointsman.url());
        let reply = client.json(Method::POST, &url, &[], &json!({})).await.unwrap_or_else(|e| panic!("{path}: {e}"));
        reply.json()
    };
    assert_eq!(send(&pointsman, "/v1/orders").await, json!({ "id": 1, "by": "new" }), "the engine's");
    assert_eq!(send(&pointsman, "/v2/orders").await, json!({ "id": 1, "by": "old" }), "legacy's");
    for route in ["a", "a.cancel", "b", "b.cancel"] {
        let down = json!({ "to": "off", "reason": "a test" });
        pointsman.api(Method::POST, &format!("/api/v2/routes/{route}/flip"), down).await;
    }

    let joined = family("c", "a b", "{version}", "state: off");
    flags.write("routes/orders.yaml", &format!("routes:\n{joined}"));
    let reload = pointsman.cli(&["reload"]).await;
    let text = output_text(&reload);
    assert!(
        !reload.status.success() && text.contains("the id `1` is that of an instance of the engine under `a`"),
        "{text}"
    );
    let cancelled: Value = send(&pointsman, "/v2/orders/1/cancel").await;
    assert_eq!(cancelled["by"], "old", "the order is legacy's: {cancelled}");
    assert_eq!(at_old.lock().expect("unpoisoned").get("/v2/orders/1/cancel"), Some(&1));
    assert_eq!(at_new.lock().expect("unpoisoned").get("/refunds"), None);

    // A start is not refused, because every other route would be without service.
    for start_number in 1..=2 {
        pointsman.kill().await;
        pointsman = Pointsman::start(&start).await;
        let open = |metrics: &Metrics| metrics.sum("pointsman_pin_collision_open", &[("route", "c")]);
        assert_eq!(open(&pointsman.metrics().await), 1.0, "start {start_number}");
    }
    assert!(
        pointsman.log().contains("the id `1` is that of an instance of the engine under `a`"),
        "{}",
        pointsman.log()
    );
    assert_eq!(pointsman.stop().await, Some(0), "{}", pointsman.log());
}
