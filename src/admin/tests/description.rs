//! What `/openapi.json` says, held against what is served.

use std::collections::BTreeSet;

use http::{Method, Request, StatusCode};
use serde_json::Value;

use super::world::{World, get};
use crate::admin::table::{Door, table};

async fn described() -> Value {
    World::new().await.call(get("/openapi.json")).await.json()
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
async fn every_path_that_is_served_is_described_and_no_other() {
    let document = described().await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    let mut rows = 0;
    for row in table() {
        let operation = &document["paths"][row.path][row.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["operationId"], row.id, "{} {}", row.method, row.path);
        assert!(ids.insert(row.id), "`{}` names two", row.id);
        assert_eq!(operation["requestBody"].is_object(), row.method == Method::POST, "{}", row.path);
        rows += 1;
    }
    let described: usize = document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
    assert_eq!(described, rows);
}

#[tokio::test]
async fn every_row_of_the_table_is_served() {
    let world = World::new().await;
    for row in table() {
        let path = row.path.replace(['{', '}'], "x");
        let request = Request::builder().method(&row.method).uri(&path).header("host", "localhost:8081");
        let request = request.header("content-type", "application/json");
        let answer = world.call(request.body(axum::body::Body::from("{}")).unwrap()).await;
        assert!(!answer.text.contains("no-such-path"), "{} {path}", row.method);
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{} {path}", row.method);
    }
}

#[tokio::test]
async fn every_schema_that_is_named_is_there() {
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
async fn a_listener_without_tokens_does_not_say_that_it_wants_some() {
    let mut world = World::new().await;
    assert!(world.call(get("/openapi.json")).await.json()["components"]["securitySchemes"].is_null());
    world.tokens = super::door::tokens();
    let document = world.call(get("/openapi.json")).await.json();
    for row in table() {
        let security = &document["paths"][row.path][row.method.as_str().to_ascii_lowercase()]["security"];
        assert_eq!(security.is_null(), row.door == Door::Open, "{}", row.path);
    }
}
