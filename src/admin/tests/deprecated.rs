//! The deprecated start endpoint, and the listener for applications.

use http::{Request, StatusCode};
use serde_json::json;

use super::access::{READER, RUNNER, tokens};
use super::fake_engine::started;
use super::runs::api_with_run;
use super::test_api::{TestApi, get, post};
use crate::admin::serve::PeerAddress;
use crate::store::tests::run_id;

const DEPRECATED: &str = "/api/maestro/produce";

async fn api_that_accepts_starts() -> TestApi {
    let api = api_with_run().await;
    *api.engine.start.lock().unwrap() = Some(Ok(started(run_id(1), true)));
    api
}

fn request_from(peer: &str, fields: &[(&'static str, &str)]) -> Request<axum::body::Body> {
    let mut request = post(DEPRECATED, &json!({ "workflow": "create-order" }));
    request.extensions_mut().insert(PeerAddress(peer.parse().unwrap()));
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn the_deprecated_start_does_the_same_with_deprecation_headers() {
    let api = api_that_accepts_starts().await;
    let older = api.call(request_from("127.0.0.1:1", &[])).await;
    assert_eq!((older.status, older.headers["deprecation"].to_str().unwrap()), (StatusCode::ACCEPTED, "@1795132800"));
    assert_eq!(older.headers["sunset"], "Fri, 31 Dec 2027 00:00:00 GMT");
    assert_eq!(older.headers["link"], "</api/v2/orchestrate/run>; rel=\"successor-version\"");
    let newer = api.call(post("/api/v2/orchestrate/run", &json!({ "workflow": "create-order" }))).await;
    assert_eq!(older.text, newer.text);
    assert!(!newer.headers.contains_key("deprecation"));
}

#[tokio::test]
async fn the_deprecated_start_accepts_local_callers_and_tokens_that_may_run() {
    let mut api = api_that_accepts_starts().await;
    let status = async |api: &TestApi, peer: &str, fields: &[(&'static str, &str)]| {
        let answer = api.call(request_from(peer, fields)).await;
        assert!(answer.headers.contains_key("deprecation"), "errors have the headers too");
        answer.status.as_u16()
    };
    assert_eq!(status(&api, "10.0.0.7:1", &[]).await, 403);
    let refused = api.call(request_from("10.0.0.7:1", &[])).await.json();
    assert_eq!(refused["type"], "urn:pointsman:problem:caller-not-allowed");
    assert_eq!(status(&api, "127.0.0.1:1", &[("x-forwarded-for", "10.0.0.7")]).await, 403, "forwarded by a proxy");
    assert_eq!(status(&api, "[::ffff:127.0.0.1]:1", &[]).await, 202);
    api.tokens = tokens();
    assert_eq!(status(&api, "127.0.0.1:1", &[]).await, 202);
    assert_eq!(status(&api, "10.0.0.7:1", &[("authorization", RUNNER)]).await, 202);
    assert_eq!(status(&api, "10.0.0.7:1", &[("authorization", READER)]).await, 403);
    assert_eq!(status(&api, "127.0.0.1:1", &[("authorization", "Bearer nonsense")]).await, 403);
    api.deprecated_start = false;
    assert_eq!(status(&api, "127.0.0.1:1", &[]).await, 403);
}

/// By DNS rebinding, a page of `evil.example` in a browser on this machine is same-origin with the API.
#[tokio::test]
async fn the_deprecated_start_without_a_token_requires_a_host_that_names_this_machine() {
    let mut api = api_that_accepts_starts().await;
    api.tokens = tokens();
    let status = async |api: &TestApi, fields: &[(&'static str, &str)]| {
        let request = || request_from("127.0.0.1:1", fields);
        let answers = [api.call(request()).await, api.application(request()).await];
        answers.map(|answer| answer.status.as_u16())
    };
    for listen in ["0.0.0.0:8081", "[::]:8081", "10.0.0.5:8081"] {
        api.listen = listen.parse().unwrap();
        let rebound = [("host", "evil.example:8081"), ("origin", "http://evil.example:8081")];
        assert_eq!(status(&api, &rebound).await, [403, 403], "{listen}");
        let any_address = [("host", "0.0.0.0:8081"), ("origin", "http://0.0.0.0:8081")];
        assert_eq!(status(&api, &any_address).await, [403, 403], "{listen}");
        for host in ["127.0.0.1:8081", "localhost:8081", "[::1]:8081"] {
            let own_page = [("host", host), ("origin", &*format!("http://{host}"))];
            assert_eq!(status(&api, &own_page).await, [202, 202], "{listen} {host}");
        }
        // A request of a script, not a browser, that names this machine.
        assert_eq!(status(&api, &[("host", "build-7:8081")]).await, [202, 202], "{listen}");
        let with_token = [("host", "pointsman.example:8081"), ("authorization", RUNNER)];
        assert_eq!(status(&api, &with_token).await, [202, 202], "{listen}");
    }
    assert_eq!(status(&api, &[("host", "10.0.0.5:8081")]).await, [202, 202], "the listener's own address");
}

#[tokio::test]
async fn the_listener_for_applications_serves_runs_only() {
    let api = api_that_accepts_starts().await;
    for path in ["/metrics", "/api/v2/routes", "/api/v2/status", "/api/v2/flips"] {
        assert_eq!(api.application(get(path)).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let described = api.application(get("/openapi.json")).await.json();
    let paths: Vec<&String> = described["paths"].as_object().unwrap().keys().collect();
    assert!(paths.iter().any(|path| *path == "/api/v2/orchestrate/run"), "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("routes") || path.contains("freeze")), "{paths:?}");
    assert_eq!(api.application(get("/")).await.status, StatusCode::OK);
    assert_eq!(api.application(get("/nothing")).await.json()["hint"], "GET / lists the endpoints");
    let flip = post("/api/v2/routes/orders.create/flip", &json!({ "to": "shadow" }));
    assert_eq!(api.application(flip).await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.application(get("/api/v2/orchestrate/runs")).await.status, StatusCode::OK);
    assert_eq!(api.application(request_from("127.0.0.1:1", &[])).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn each_endpoint_requires_its_scope() {
    let mut api = api_that_accepts_starts().await;
    api.tokens = tokens();
    let run = format!("/api/v2/orchestrate/run/{}", run_id(1));
    let may = async |token: &str, mut request: Request<axum::body::Body>| {
        request.headers_mut().insert("authorization", token.parse().unwrap());
        api.call(request).await.status != StatusCode::FORBIDDEN
    };
    let requests: [(&str, Request<axum::body::Body>); 5] = [
        ("read", get(&run)),
        ("run", post("/api/v2/orchestrate/run", &json!({ "workflow": "create-order" }))),
        ("run", post(&format!("{run}/signals/paid"), &json!({}))),
        ("decide", post(&format!("{run}/cancel"), &json!({}))),
        ("flip", post("/api/v2/freeze", &json!({ "on": true }))),
    ];
    for (scope, request) in requests {
        let (head, body) = request.into_parts();
        let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        let again = || Request::from_parts(head.clone(), axum::body::Body::from(body.clone()));
        assert_eq!(may(READER, again()).await, scope == "read", "{scope}");
        assert_eq!(may(RUNNER, again()).await, scope == "read" || scope == "run", "{scope}");
        assert_eq!(may(super::access::DECIDER, again()).await, scope == "decide", "{scope}");
    }
}
