//! Access: tokens and scopes, the listener for applications, the deprecated path.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use pointsman::demo::http::Client;
use serde_json::{Value, json};

use super::{BankTest, RUN};
use crate::support::WAIT_MAX;

/// Two tokens, and a listener for applications.
async fn start_with_tokens() -> BankTest {
    let dir = tempfile::tempdir().expect("a directory");
    let token = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let more = format!(
        "admin: {{ tokens: [ {{ name: app, file: \"{}\", may: [read, run] }}, {{ name: boss, file: \"{}\", may: [decide] }} ] }}\n\
         api: {{ listen: \"127.0.0.1:0\" }}",
        token("app", "app-0123456789abcdef"),
        token("boss", "boss-0123456789abcdef"),
    );
    BankTest::with(&more).await
}

const APP: (&str, &str) = ("authorization", "Bearer app-0123456789abcdef");
const BOSS: (&str, &str) = ("authorization", "Bearer boss-0123456789abcdef");

#[tokio::test(flavor = "multi_thread")]
async fn a_token_determines_the_recorded_name_and_the_permitted_actions() {
    let test = start_with_tokens().await;
    let request = json!({ "workflow": "pick" });
    assert_eq!(test.call(Method::POST, RUN, &[], &request).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(test.call(Method::POST, RUN, &[BOSS], &request).await.status, StatusCode::FORBIDDEN);
    let envelope = test.call(Method::POST, RUN, &[APP], &request).await.json();
    let data = &envelope["data"];
    assert_eq!((&data["run"]["started_by"], &data["audit_receipt"]["auth_mode"]), (&json!("app"), &json!("token")));
    let answer_path = data["pending_checkpoint"]["answer"].as_str().expect("it asks");
    let answer = json!({ "values": { "selected_asset_id": "a" }, "as": "somebody else" });
    assert_eq!(test.call(Method::POST, answer_path, &[APP], &answer).await.status, StatusCode::FORBIDDEN);
    assert_eq!(test.call(Method::POST, answer_path, &[BOSS], &answer).await.status, StatusCode::OK);
    let events =
        test.call(Method::GET, &format!("{}/events", super::path(&envelope)), &[APP], &Value::Null).await.json();
    let answered =
        events.as_array().unwrap().iter().find(|event| event["kind"] == "checkpoint_answered").expect("there");
    assert_eq!(answered["event"]["checkpoint_answered"]["by"], "boss");
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_have_a_listener_of_their_own() {
    let test = start_with_tokens().await;
    let api: SocketAddr = test.pointsman.api.expect("it says where applications come in");
    let client = Client::new(WAIT_MAX);
    let call = async |method: Method, path: &str, headers: &[(&str, &str)], body: Value| {
        client.json(method, &format!("http://{api}{path}"), headers, &body).await.expect("an answer")
    };
    let request = json!({ "workflow": "order", "input": { "sku": "a" } });
    assert_eq!(call(Method::POST, RUN, &[], request.clone()).await.status, StatusCode::UNAUTHORIZED);
    let done = call(Method::POST, RUN, &[APP], request).await;
    assert_eq!((done.status, &done.json()["data"]["status"]), (StatusCode::OK, &json!("completed")));
    for path in ["/metrics", "/api/v2/routes", "/api/v2/status"] {
        assert_eq!(call(Method::GET, path, &[APP], Value::Null).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let described = call(Method::GET, "/openapi.json", &[APP], Value::Null).await.json();
    let paths: Vec<&String> = described["paths"].as_object().expect("paths").keys().collect();
    assert!(paths.iter().any(|path| *path == RUN) && !paths.iter().any(|path| path.contains("freeze")), "{paths:?}");
    let freeze = call(Method::POST, "/api/v2/freeze", &[APP], json!({ "on": true })).await;
    assert_eq!(freeze.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deprecated_path_works_until_it_is_switched_off() {
    let test = BankTest::open().await;
    let request = json!({ "workflow": "order", "input": { "sku": "a" } });
    let older = test.call(Method::POST, "/api/maestro/produce", &[], &request).await;
    assert_eq!((older.status, &older.json()["data"]["status"]), (StatusCode::OK, &json!("completed")));
    for header in ["deprecation", "sunset", "link"] {
        assert!(older.headers.contains_key(header), "{header}");
    }
    let from_elsewhere = test.call(Method::POST, "/api/maestro/produce", &[("via", "1.1 edge")], &request).await;
    assert_eq!(from_elsewhere.status, StatusCode::FORBIDDEN);
    let closed = BankTest::with("api: { maestro: false }").await;
    assert_eq!(closed.call(Method::POST, "/api/maestro/produce", &[], &request).await.status, StatusCode::FORBIDDEN);
}
