//! `/openapi.json` compared with the endpoints that are served.

use std::collections::BTreeSet;

use http::{Method, Request, StatusCode};
use serde_json::Value;

use super::test_api::{TestApi, get};
use crate::admin::endpoint::Access;
use crate::admin::endpoints::endpoints;

async fn described() -> Value {
    TestApi::new().await.call(get("/openapi.json")).await.json()
}

/// Every `$ref` in a value.
fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            into.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn the_document_describes_exactly_the_served_endpoints() {
    let document = described().await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    let mut count = 0;
    for endpoint in endpoints() {
        let operation = &document["paths"][endpoint.path][endpoint.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["operationId"], endpoint.id, "{} {}", endpoint.method, endpoint.path);
        assert!(ids.insert(endpoint.id), "the operation id `{}` is used twice", endpoint.id);
        assert_eq!(operation["requestBody"].is_object(), endpoint.method == Method::POST, "{}", endpoint.path);
        count += 1;
    }
    let described: usize = document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
    assert_eq!(described, count);
}

#[tokio::test]
async fn every_endpoint_of_the_table_is_served() {
    let api = TestApi::new().await;
    // Otherwise the stream of all changes would not end.
    api.stopping.cancel();
    for endpoint in endpoints() {
        let path = endpoint.path.replace(['{', '}'], "x");
        let request = Request::builder().method(&endpoint.method).uri(&path).header("host", "localhost:8081");
        let request = request.header("content-type", "application/json");
        let answer = api.call(request.body(axum::body::Body::from("{}")).unwrap()).await;
        assert!(!answer.text.contains("no-such-path"), "{} {path}", endpoint.method);
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{} {path}", endpoint.method);
    }
}

#[tokio::test]
async fn every_referenced_schema_exists() {
    let document = described().await;
    let mut names = BTreeSet::new();
    references(&document, &mut names);
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let pointer = name.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{name}");
    }
    assert_eq!(described().await, document, "the same each time");
}

#[tokio::test]
async fn security_is_described_only_where_tokens_are_configured() {
    let mut api = TestApi::new().await;
    assert!(api.call(get("/openapi.json")).await.json()["components"]["securitySchemes"].is_null());
    api.tokens = super::access::tokens();
    let document = api.call(get("/openapi.json")).await.json();
    for endpoint in endpoints() {
        let security = &document["paths"][endpoint.path][endpoint.method.as_str().to_ascii_lowercase()]["security"];
        assert_eq!(security.is_null(), endpoint.access == Access::Public, "{}", endpoint.path);
    }
}
