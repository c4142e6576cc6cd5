//! Access control: Host and Origin, content type, tokens and scopes.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::test_api::{TestApi, get, post};
use crate::config::{Token, TokenScope};
use crate::secret::Secret;

const AS: HeaderName = HeaderName::from_static("x-pointsman-as");

fn with(
    mut request: http::Request<axum::body::Body>,
    name: HeaderName,
    value: &str,
) -> http::Request<axum::body::Body> {
    request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    request
}

fn flip() -> http::Request<axum::body::Body> {
    post("/api/v2/routes/orders.create/flip", &json!({ "to": "shadow" }))
}

async fn state_is(api: &TestApi, state: &str) -> bool {
    let token = api.tokens.first().map(|token| format!("Bearer {}", token.secret.reveal()));
    let request = get("/api/v2/routes/orders.create");
    let request = match token {
        Some(token) => with(request, header::AUTHORIZATION, &token),
        None => request,
    };
    api.call(request).await.json()["row"]["requested"] == state
}

#[tokio::test]
async fn a_foreign_host_header_is_refused_on_every_path() {
    let api = TestApi::new().await;
    for host in ["evil.example", "evil.example:8081", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example"] {
        for path in ["/", "/metrics", "/healthz", "/api/v2/status"] {
            let answer = api.call(with(get(path), header::HOST, host)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{host} {path}");
        }
        assert_eq!(api.call(with(flip(), header::HOST, host)).await.status, StatusCode::FORBIDDEN, "{host}");
    }
    assert!(state_is(&api, "off").await, "nothing changed");
    let mut two = get("/api/v2/status");
    two.headers_mut().append(header::HOST, HeaderValue::from_static("evil.example"));
    assert_eq!(api.call(two).await.status, StatusCode::FORBIDDEN);
    let mut none = get("/api/v2/status");
    none.headers_mut().remove(header::HOST);
    assert_eq!(api.call(none).await.status, StatusCode::FORBIDDEN);
    for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "127.0.0.1", "[::1]:8081", "[::1]", "localhost:9999"]
    {
        assert_eq!(api.call(with(get("/"), header::HOST, host)).await.status, StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn a_foreign_origin_header_is_refused() {
    let api = TestApi::new().await;
    for origin in ["http://evil.example", "null", "http://localhost:3000", "file://", ""] {
        let answer = api.call(with(flip(), header::ORIGIN, origin)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
    }
    assert!(state_is(&api, "off").await, "nothing changed");
    assert_eq!(api.call(with(flip(), header::ORIGIN, "http://127.0.0.1:8081")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_post_without_json_content_type_is_refused() {
    let api = TestApi::new().await;
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx"]
    {
        let answer = api.call(with(flip(), header::CONTENT_TYPE, kind)).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    assert!(state_is(&api, "off").await, "nothing changed");
    let kind = "Application/JSON; charset=utf-8";
    assert_eq!(api.call(with(flip(), header::CONTENT_TYPE, kind)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_name_on_loopback_is_recorded_as_unverified() {
    let api = TestApi::new().await;
    let by = |answer: super::test_api::TestResponse| answer.json()["flip"]["by"].as_str().unwrap().to_owned();
    assert_eq!(by(api.call(with(flip(), AS, "ada")).await), "ada (unverified)");
    assert_eq!(by(api.call(flip()).await), "somebody on this machine (unverified)");
    let request = post("/api/v2/routes/orders.create/flip", &json!({ "to": "off", "as": "bob" }));
    assert_eq!(by(api.call(with(request, AS, "ada")).await), "bob (unverified)");
    let long = "x".repeat(65);
    assert_eq!(api.call(with(flip(), AS, &long)).await.status, StatusCode::BAD_REQUEST);
    let request = post("/api/v2/routes/orders.create/flip", &json!({ "to": "off", "as": "a\nb" }));
    assert_eq!(api.call(request).await.status, StatusCode::BAD_REQUEST);
}

fn token(name: &str, secret: &str, may: &[TokenScope]) -> Token {
    Token { name: name.into(), secret: Secret::new(secret), scopes: may.to_vec() }
}

async fn api_with_tokens() -> TestApi {
    let mut api = TestApi::new().await;
    api.listen = "192.0.2.1:8081".parse().unwrap();
    api.tokens = vec![
        token("ops", "s3cret-ops", &[TokenScope::Read, TokenScope::Flip]),
        token("grafana", "s3cret-read", &[TokenScope::Read]),
    ];
    api
}

#[tokio::test]
async fn off_loopback_a_token_is_needed_and_its_name_is_recorded() {
    let api = api_with_tokens().await;
    for given in [None, Some("Bearer wrong"), Some("Bearer s3cret-op"), Some("Basic s3cret-ops"), Some("Bearer ")] {
        let request = given.map_or_else(flip, |given| with(flip(), header::AUTHORIZATION, given));
        let answer = api.call(with(request, AS, "ops")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{given:?}");
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        assert!(!answer.text.contains("s3cret"), "{}", answer.text);
    }
    assert!(state_is(&api, "off").await, "nothing changed");
    let request = post("/api/v2/routes/orders.create/flip", &json!({ "to": "shadow", "as": "somebody else" }));
    let done = api.call(with(request, header::AUTHORIZATION, "bearer s3cret-ops")).await;
    assert_eq!(done.json()["flip"]["by"], "ops");
    assert!(state_is(&api, "shadow").await);
    // Probes and scrapes need no token.
    for path in ["/metrics", "/healthz", "/readyz", "/"] {
        assert_eq!(
            api.call(with(get(path), header::HOST, "pointsman.internal")).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_token_has_only_its_scopes() {
    let api = api_with_tokens().await;
    let answer = api.call(with(flip(), header::AUTHORIZATION, "Bearer s3cret-read")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.json()["detail"], "the token `grafana` does not have the scope `flip`");
    assert!(state_is(&api, "off").await, "nothing changed");
    let answer = api.call(with(get("/api/v2/status"), header::AUTHORIZATION, "Bearer s3cret-read")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn off_loopback_without_tokens_only_public_endpoints_are_served() {
    let mut api = api_with_tokens().await;
    api.tokens.clear();
    assert_eq!(api.call(flip()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(api.call(get("/api/v2/status")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(api.call(get("/healthz")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_stop_closes_idle_connections_and_ends_the_server() {
    let api = TestApi::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(crate::admin::serve(vec![(listener, api.router())], 8, async { drop(stopped.await) }));
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut client = TcpStream::connect(address).await.unwrap();
    let body = r#"{"to":"shadow"}"#;
    let request = format!(
        "POST /api/v2/routes/orders.create/flip HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"shadow\""), "{answer}");
    // An idle connection does not delay the stop.
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), served).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// A token with the scopes `read` and `run`.
pub const RUNNER: &str = "Bearer runner-0123456789abcdef";
/// A token with the scope `read`.
pub const READER: &str = "Bearer reader-0123456789abcdef";
/// A token with the scope `decide`.
pub const DECIDER: &str = "Bearer decider-0123456789abcdef";

/// The configuration of these three tokens.
pub fn tokens() -> Vec<Token> {
    let token = |name: &str, bearer: &str, may: &[TokenScope]| Token {
        name: name.into(),
        secret: Secret::new(bearer.trim_start_matches("Bearer ").to_owned()),
        scopes: may.to_vec(),
    };
    vec![
        token("runner", RUNNER, &[TokenScope::Read, TokenScope::Run]),
        token("reader", READER, &[TokenScope::Read]),
        token("decider", DECIDER, &[TokenScope::Decide]),
    ]
}
