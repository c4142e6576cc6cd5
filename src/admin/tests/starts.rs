//! Starts of runs.

use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::fake_engine::started;
use super::runs::{api_with_run, finish_run};
use super::test_api::{TestApi, get, post};
use crate::engine::StartError;
use crate::store::tests::run_id;

const PATH: &str = "/api/v2/orchestrate/run";

async fn api_with(outcome: Result<crate::engine::Started, StartError>) -> TestApi {
    let api = api_with_run().await;
    *api.engine.start.lock().unwrap() = Some(outcome);
    api
}

fn start_request() -> Value {
    json!({ "workflow": "create-order", "input": { "n": 1 }, "as": "ada" })
}

fn with(mut request: Request<axum::body::Body>, name: &'static str, value: &str) -> Request<axum::body::Body> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_run_that_has_not_ended_is_202_after_the_wait() {
    let api = api_with(Ok(started(run_id(1), true))).await;
    let answer = api.call(post(PATH, &start_request())).await;
    assert_eq!((answer.status, answer.json()["data"]["status"].clone()), (StatusCode::ACCEPTED, json!("running")));
    assert_eq!(answer.headers["location"], format!("{PATH}/{}", run_id(1)));
    assert!(!answer.headers.contains_key("idempotent-replayed"));
    let start = api.engine.starts.lock().unwrap().pop().unwrap();
    assert_eq!(
        (start.workflow.as_str(), &start.input, start.by.as_str()),
        ("create-order", &json!({ "n": 1 }), "ada (unverified)")
    );
    assert!(start.key.is_none());
    let answer = api.call(with(post(PATH, &start_request()), "prefer", "respond-async")).await;
    assert_eq!(answer.headers["preference-applied"], "respond-async");
}

#[tokio::test]
async fn a_repeated_start_of_an_ended_run_is_200() {
    let api = api_with(Ok(started(run_id(1), false))).await;
    finish_run(&api).await;
    let answer = api.call(post(PATH, &start_request())).await;
    assert_eq!((answer.status, answer.json()["data"]["status"].clone()), (StatusCode::OK, json!("completed")));
    assert_eq!(answer.headers["idempotent-replayed"], "true");
    assert_eq!(answer.json()["data"]["output"], json!({ "id": 7 }));
}

#[tokio::test]
async fn a_key_is_scoped_by_caller_and_equal_from_header_and_body() {
    let mut api = api_with(Ok(started(run_id(1), true))).await;
    let key = |api: &TestApi| api.engine.starts.lock().unwrap().pop().unwrap().key.unwrap();
    api.call(with(post(PATH, &start_request()), "idempotency-key", "k")).await;
    let first = key(&api);
    let mut body = start_request();
    body["idempotency_key"] = json!("k");
    api.call(post(PATH, &body)).await;
    assert_eq!(key(&api), first);
    body["input"] = json!({ "n": 2 });
    api.call(post(PATH, &body)).await;
    let other = key(&api);
    assert!(other.0 == first.0 && other.1 != first.1, "another body under the same key");
    api.tokens = super::access::tokens();
    api.call(with(post(PATH, &start_request()), "authorization", super::access::RUNNER)).await;
    assert_eq!(api.engine.starts.lock().unwrap().pop().unwrap().by, "runner");
    let request = with(post(PATH, &start_request()), "authorization", super::access::RUNNER);
    api.call(with(request, "idempotency-key", "k")).await;
    assert_ne!(key(&api).0, first.0);
}

#[tokio::test]
async fn a_refused_start_says_why() {
    let refused = async |outcome| {
        let api = api_with(Err(outcome)).await;
        let answer = api.call(post(PATH, &start_request())).await;
        assert_eq!(answer.kind, "application/problem+json");
        (answer.status.as_u16(), answer.json())
    };
    let known = vec!["create-order".to_owned(), "get-order".to_owned()];
    let (status, problem) = refused(StartError::UnknownWorkflow { workflow: "create-ordr".into(), known }).await;
    assert_eq!((status, &problem["hint"]), (404, &json!("did you mean `create-order`?")));
    let wrong = vec!["/items/0/sku: 5 is not of type \"string\"".to_owned(), "\"total\" is required".to_owned()];
    let (status, problem) = refused(StartError::BadInput(wrong)).await;
    assert_eq!(status, 422);
    assert_eq!(
        problem["errors"],
        json!([
            { "pointer": "/input/items/0/sku", "detail": "5 is not of type \"string\"" },
            { "pointer": "/input", "detail": "\"total\" is required" },
        ])
    );
    let (status, problem) = refused(StartError::KeyReused(run_id(9))).await;
    assert_eq!((status, &problem["run_id"]), (422, &json!(run_id(9).to_string())));
    assert_eq!(refused(StartError::Unavailable("full".into())).await.0, 503);
    let (status, problem) = refused(StartError::Store { why: "no answer".into(), unknown: true }).await;
    assert_eq!(status, 503);
    assert!(problem["hint"].as_str().unwrap().contains("same idempotency key"), "{problem}");
}

#[tokio::test]
async fn a_malformed_start_does_not_reach_the_engine() {
    let api = api_with(Ok(started(run_id(1), true))).await;
    let query = api.call(post(PATH, &json!({ "query": "order two apples" }))).await;
    assert_eq!(query.status, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(query.json()["reasons"], json!(["create-order", "get-order"]));
    for body in [json!({}), json!({ "workflow": "a", "query": "b" })] {
        assert_eq!(api.call(post(PATH, &body)).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    for body in [json!({ "workflow": "a", "inputs": 1 }), json!([]), json!(["a", null, 1])] {
        assert_eq!(api.call(post(PATH, &body)).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let deep = (0..110).fold(json!(1), |inner, _| json!([inner]));
    let answer = api.call(post(PATH, &json!({ "workflow": "a", "input": deep }))).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text.contains("output_depth_max"), "{}", answer.text);
    let deeper = format!("{{\"workflow\":\"a\",\"input\":{}1{}}}", "[".repeat(1_000), "]".repeat(1_000));
    let answer = api.call(super::test_api::post_text(PATH, deeper)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.text.contains("output_depth_max"), "{}", answer.text);
    assert!(api.engine.starts.lock().unwrap().is_empty());
    assert_eq!(api.call(get(PATH)).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

/// A client that was told 503 would start the run again.
#[tokio::test]
async fn a_start_is_accepted_even_if_the_run_cannot_be_read_for_the_response() {
    let mut api = api_with(Ok(started(run_id(1), true))).await;
    let _dir = api.close_store().await;
    let streamed = json!({ "workflow": "create-order", "stream": true, "as": "ada" });
    let rerun = post(&format!("{PATH}/{}/rerun", run_id(7)), &json!({ "from": "charge", "as": "ada" }));
    for request in [post(PATH, &start_request()), post(PATH, &streamed), rerun] {
        let answer = api.call(with(request, "prefer", "respond-async")).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        assert_eq!(answer.headers["location"], format!("{PATH}/{}", run_id(1)));
        let data = &answer.json()["data"];
        assert_eq!(data["run_id"], run_id(1).to_string());
        assert!(
            data["trouble"].as_str().unwrap().starts_with("it was started, but its events cannot be read"),
            "{data}"
        );
    }
    assert_eq!(api.call(get(&format!("{PATH}/{}", run_id(1)))).await.status, StatusCode::SERVICE_UNAVAILABLE);
}
