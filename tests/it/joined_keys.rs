//! Two routes without instances become one route by the files, and a client has used one retry key for requests of
//! both, with a credential that was refreshed in between.

use std::sync::{Arc, Mutex};

use http::{Method, StatusCode};
use pointsman::demo::http::{Call, Client, Server, json};
use serde_json::json;

use crate::support::process::Start;
use crate::support::{FlagsDir, LOCAL, Pointsman, WAIT_MAX};

const PERFORM: &str = "workflow: perform
steps:
  make: { effect: shared, call: 'POST ${services.new}/performed', body: {} }
respond: { status: 201, body: { by: new } }
";

/// A service that lists the paths of its calls.
async fn service(name: &'static str) -> (Server, Arc<Mutex<Vec<String>>>) {
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let listed = calls.clone();
    let handler = move |call: Call| {
        listed.lock().expect("unpoisoned").push(call.path.clone());
        let reply = json(StatusCode::CREATED, &json!({ "by": name }));
        async move { Ok(reply) }
    };
    (Server::start(LOCAL, handler).await.expect("a port"), calls)
}

fn route(id: &str, version: &str, state: &str) -> String {
    let matches = format!("match: {{ method: POST, path: '/{version}/orders' }}");
    format!("- {{ id: {id}, {matches}, workflow: perform, legacy: old, {state} }}\n")
}

/// The engine performed a request of `b`, and legacy another one of `a` with the same key and a newer credential. Once
/// one route has the requests of both, a retry of the first one with the newer credential is not given to legacy.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_a_refreshed_credential_is_not_performed_by_the_other_arm() {
    const LIVE: &str = "state: live, force: { reason: a test }";
    let joined = [
        route("c", "{version}", "was: [a, b], state: off"),
        route("c", "{version}", &format!("was: [a, b], {LIVE}")),
        route("a", "{version}", "state: off"),
    ];
    for joined in joined {
        let ((old, at_old), (new, at_new)) = (service("old").await, service("new").await);
        let flags = FlagsDir::empty();
        let services = format!("services: {{ old: '{}', new: '{}' }}\ndefault_legacy: old\n", old.url(), new.url());
        flags.write("pointsman.yaml", &services);
        flags.write("workflows/perform.yaml", PERFORM);
        let apart = |state: &str| format!("routes:\n{}{}", route("a", "v1", "state: off"), route("b", "v2", state));
        flags.write("routes/orders.yaml", &apart(LIVE));
        let dir = tempfile::tempdir().expect("a directory");
        let mut pointsman = Pointsman::start(&Start::on_sqlite(flags.path(), dir.path())).await;
        let client = Client::new(WAIT_MAX);
        let send = async |path: &str, token: &str| {
            let url = format!("{}{path}", pointsman.url());
            let headers = [("idempotency-key", "k"), ("authorization", token)];
            let reply = client.json(Method::POST, &url, &headers, &json!({})).await.expect("an answer");
            (reply.status.as_u16(), reply.json())
        };
        assert_eq!(send("/v2/orders", "Bearer 1").await, (201, json!({ "by": "new" })));
        assert_eq!(send("/v1/orders", "Bearer 2").await, (201, json!({ "by": "old" })));
        flags.write("routes/orders.yaml", &apart("state: off"));
        assert!(pointsman.cli(&["reload"]).await.status.success());
        let down = json!({ "to": "off", "reason": "a test" });
        pointsman.api(Method::POST, "/api/v2/routes/b/flip", down).await;
        flags.write("routes/orders.yaml", &format!("routes:\n{joined}"));
        let reload = pointsman.cli(&["reload"]).await;
        assert!(reload.status.success(), "{reload:?}");

        let (status, body) = send("/v2/orders", "Bearer 2").await;
        let is_held = body["type"].as_str().is_some_and(|kind| kind.ends_with("retry-key-held"));
        assert!(status == 409 && is_held, "{joined}: {status} {body}");
        assert_eq!(*at_new.lock().expect("unpoisoned"), ["/performed"], "{joined}");
        assert_eq!(*at_old.lock().expect("unpoisoned"), ["/v1/orders"], "{joined}");
        // What legacy took under its own key stays with legacy.
        assert_eq!(send("/v1/orders", "Bearer 2").await, (201, json!({ "by": "old" })), "{joined}");
        assert_eq!(pointsman.stop().await, Some(0), "{}", pointsman.log());
    }
}
