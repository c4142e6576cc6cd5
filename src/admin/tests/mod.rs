//! The API as a router: each test sends requests and reads the responses.

pub mod access;
mod changes;
mod deprecated;
mod egress;
mod fake_engine;
mod hanging_store;
mod openapi;
mod rehearsals;
mod rule_trials;
mod run_commands;
mod runs;
mod starts;
mod streams;
pub mod test_api;

use http::StatusCode;
use serde_json::json;

use self::test_api::{TestApi, get, post};
use super::Reloaded;

#[tokio::test]
async fn the_index_and_the_probes_are_plain_text() {
    let api = TestApi::new().await;
    let answer = api.call(get("/")).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::OK, "text/plain; charset=utf-8"));
    assert!(answer.text.contains("/api/v2/status"));
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(api.call(get("/healthz")).await.text, "ok\n");
    assert_eq!(api.call(get("/readyz")).await.text, "ready\n");
    assert_eq!(api.call(get("/metrics")).await.text, "up 1\n");
}

#[tokio::test]
async fn a_process_that_drains_is_not_ready() {
    let mut api = TestApi::new().await;
    api.process.not_ready = Some("draining".into());
    let answer = api.call(get("/readyz")).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n"));
    assert_eq!(api.call(get("/healthz")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn status_shows_the_process_and_all_routes() {
    let mut api = TestApi::new().await;
    api.process.flags_error = Some("routes.yaml:3:1: unknown key `percnt`".into());
    let status = api.call(get("/api/v2/status")).await.json();
    assert_eq!(status["freeze"], "no");
    assert_eq!(status["flags"]["last_error"], "routes.yaml:3:1: unknown key `percnt`");
    assert_eq!(status["engine_healthy"], true);
    let route = &status["routes"][0];
    assert_eq!((&route["id"], &route["matches"]), (&json!("orders.create"), &json!("POST /orders")));
    assert_eq!(route["requests"], 12);
    assert_eq!(route["effective"], json!({ "state": "off", "why": "unproven" }));
    assert_eq!(api.call(get("/api/v2/routes")).await.json(), status["routes"]);
}

#[tokio::test(start_paused = true)]
async fn status_answers_while_the_store_hangs() {
    let mut api = TestApi::new().await;
    api.store = std::sync::Arc::new(hanging_store::HangingStore::default());
    let answer = tokio::time::timeout(std::time::Duration::from_secs(1), api.call(get("/api/v2/status"))).await;
    let answer = answer.expect("within a second");
    assert_eq!(answer.status, StatusCode::OK);
    let status = answer.json();
    assert_eq!(status["runs"], json!(null), "not known, which is not none");
    assert_eq!(status["store_trouble"], "the store did not answer within 500 ms");
    assert_eq!(status["routes"][0]["id"], "orders.create");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_needs_a_store_that_hangs_is_refused() {
    let mut api = TestApi::new().await;
    api.store = std::sync::Arc::new(hanging_store::HangingStore::default());
    let answer = api.call(get("/api/v2/orchestrate/runs")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["detail"], "there was no answer within 8 s");
}

#[tokio::test]
async fn a_route_is_503_while_the_store_cannot_be_read() {
    let api = TestApi::new().await;
    api.store.close().await;
    let answer = api.call(get("/api/v2/routes/orders.create")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["title"], "The store did not answer", "{}", answer.json());
}

#[tokio::test]
async fn a_route_shows_what_its_next_rung_requires() {
    let api = TestApi::new().await;
    let route = api.call(get("/api/v2/routes/orders.create")).await.json();
    assert_eq!(route["next"], json!({ "to": "shadow", "verdict": "pass", "missing": [], "conditions": [] }));
    assert_eq!(route["horizon"], json!([]));
    api.move_to("orders.create", "shadow").await;
    let route = api.call(get("/api/v2/routes/orders.create")).await.json();
    assert_eq!(route["next"]["to"], "dark");
    assert!(!route["next"]["missing"].as_array().unwrap().is_empty(), "no pairs yet");
    assert_eq!(route["flip"]["by"], "ada (unverified)");
}

#[tokio::test]
async fn an_unknown_route_is_404_with_the_known_ids_nearest_first() {
    let api = TestApi::new().await;
    for call in [get("/api/v2/routes/orders.creat"), post("/api/v2/routes/orders.creat/flip", &json!({ "to": "off" }))]
    {
        let answer = api.call(call).await;
        assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
        assert_eq!(answer.headers["x-pointsman-source"], "proxy");
        let problem = answer.json();
        assert_eq!(problem["hint"], "did you mean `orders.create`?");
        assert_eq!(problem["reasons"], json!(["orders.create", "orders.show"]));
    }
}

#[tokio::test]
async fn a_flip_is_recorded_with_caller_and_reason() {
    let api = TestApi::new().await;
    let request = json!({ "to": "shadow", "reason": "try it", "as": "ada" });
    let done = api.call(post("/api/v2/routes/orders.create/flip", &request)).await.json();
    assert_eq!(done["effective"]["state"], "shadow");
    assert_eq!((&done["changed"], &done["shares"]["shadow"]), (&json!(true), &json!(100.0)));
    let flips = api.call(get("/api/v2/flips?route=orders.create&limit=1")).await.json();
    assert_eq!(flips[0], done["flip"]);
    assert_eq!((&flips[0]["by"], &flips[0]["reason"]), (&json!("ada (unverified)"), &json!("try it")));
    assert_eq!(api.call(get("/api/v2/flips?route=orders.show")).await.json(), json!([]));
}

#[tokio::test]
async fn a_shut_gate_is_409_with_every_missing_condition() {
    let api = TestApi::new().await;
    api.move_to("orders.create", "shadow").await;
    let answer = api.call(post("/api/v2/routes/orders.create/flip", &json!({ "to": "dark" }))).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let route = api.call(get("/api/v2/routes/orders.create")).await.json();
    assert_eq!((&route["row"]["requested"], &route["row"]["forced"]), (&json!("shadow"), &json!(null)));
    assert!(!route["next"]["missing"].as_array().unwrap().is_empty());
    assert_eq!(answer.json()["reasons"], route["next"]["missing"]);
    let request = json!({ "to": "dark", "force": true, "reason": "a drill" });
    assert_eq!(api.call(post("/api/v2/routes/orders.create/flip", &request)).await.status, StatusCode::OK);
    assert_eq!(api.call(get("/api/v2/status")).await.json()["routes"][0]["forced"], "a drill");
}

#[tokio::test]
async fn force_without_a_reason_is_409() {
    let api = TestApi::new().await;
    let request = json!({ "to": "shadow", "force": true });
    let answer = api.call(post("/api/v2/routes/orders.create/flip", &request)).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains("needs a reason"), "{}", answer.text);
}

#[tokio::test]
async fn a_freeze_holds_effects_and_is_not_weakened_without_lifting_it() {
    let api = TestApi::new().await;
    let done = api.call(post("/api/v2/freeze", &json!({ "on": true, "effects": true }))).await.json();
    assert_eq!((&done["freeze"], &done["runs_in_flight"]), (&json!("effects"), &json!(3)));
    assert_eq!(done["open_runs"], 0, "none in the store");
    assert_eq!(api.call(get("/api/v2/status")).await.json()["freeze"], "effects");
    let weaker = api.call(post("/api/v2/freeze", &json!({ "on": true }))).await;
    assert_eq!(weaker.status, StatusCode::CONFLICT, "it would release the held effects");
    assert!(weaker.text.contains("freeze --off"), "{}", weaker.text);
    assert_eq!(api.call(get("/api/v2/status")).await.json()["freeze"], "effects");
    let answer = api.call(post("/api/v2/freeze", &json!({ "on": false, "effects": true }))).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json()["type"], "urn:pointsman:problem:contradicting-fields");
}

#[tokio::test]
async fn a_malformed_body_is_400_with_line_and_field() {
    let api = TestApi::new().await;
    let bad = async |body: &str| {
        let answer = api.call(test_api::post_text("/api/v2/routes/orders.create/flip", body.to_owned())).await;
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    let (status, detail) = bad("{\n  \"to\": \"shadow\",\n  \"forse\": true\n}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(detail.contains("unknown field `forse`") && detail.contains("line 3"), "{detail}");
    let (_, detail) = bad("{\"to\": \"sideways\"}").await;
    assert!(detail.contains("sideways") && detail.contains("line 1"), "{detail}");
    let (_, detail) = bad("{\"to\": \"shadow\", \"percent\": 150}").await;
    assert_eq!(detail, "percent: 150 is not between 0 and 100");
    let (_, detail) = bad("{\"to\": \"shadow\", \"percent\": 0.001}").await;
    assert_eq!(detail, "percent: 0.001 is finer than 0.01");
    let (status, detail) = bad(&format!("{{\"to\": \"{}\"}}", "x".repeat(2 << 20))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(detail.contains("api_body_bytes_max"), "{detail}");
    let answer = api.call(get("/api/v2/flips?rute=x")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("rute"), "{}", answer.text);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let api = TestApi::new().await;
    let answer = api.call(get("/api/v2/nothing")).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
    let answer = api.call(get("/api/v2/freeze")).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "application/problem+json"));
}

#[tokio::test]
async fn differences_are_grouped_by_fingerprint() {
    let api = TestApi::new().await;
    let sample = |fingerprint: &str, n: i64| crate::store::SampleRecord {
        at: crate::store::tests::at(n),
        legacy: format!("legacy {n}"),
        engine: "<script>".into(),
        ..crate::evidence::testing::sample("orders.create".into(), fingerprint)
    };
    let samples = vec![sample("a", 1), sample("b", 2), sample("b", 3), sample("c", 4)];
    api.store.put_samples(samples, 9, 9).await.unwrap();
    let diffs = api.call(get("/api/v2/routes/orders.create/diffs")).await.json();
    let groups = diffs["groups"].as_array().unwrap();
    let seen: Vec<_> =
        groups.iter().map(|g| (g["fingerprint"].as_str().unwrap(), g["count"].as_u64().unwrap())).collect();
    assert_eq!(seen, [("b", 2), ("c", 1), ("a", 1)]);
    assert_eq!(groups[0]["sample"]["legacy"], "legacy 3", "the newest");
    assert_eq!(groups[0]["other_samples"][0]["legacy"], "legacy 2");
    assert_eq!(groups[1]["other_samples"], json!([]));
    let diffs = api.call(get("/api/v2/routes/orders.create/diffs?limit=1")).await;
    assert_eq!(diffs.kind, "application/json");
    assert_eq!(diffs.json()["groups"].as_array().unwrap().len(), 1);
    let evidence = api.call(get("/api/v2/routes/orders.create/evidence")).await.json();
    assert_eq!((&evidence["route"], &evidence["next"]["to"]), (&json!("orders.create"), &json!("shadow")));
}

#[tokio::test]
async fn a_reload_answers_with_the_outcome_of_the_reading() {
    let mut api = TestApi::new().await;
    let reload = async |api: &TestApi| api.call(post("/api/v2/reload", &json!({ "as": "ada" }))).await;
    let stopping = reload(&api).await;
    assert_eq!(stopping.status, StatusCode::SERVICE_UNAVAILABLE, "{}", stopping.text);
    assert_eq!(stopping.json()["type"], "urn:pointsman:problem:stopping");
    let sentences = vec!["`a` would do harm".to_owned(), "`b` too".to_owned()];
    api.reloaded = Some(Reloaded::RefusedByLadder(sentences));
    let refused = reload(&api).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);
    assert_eq!(refused.json()["reasons"], json!(["`a` would do harm", "`b` too"]));
    api.reloaded = Some(Reloaded::NotRecorded("the disk is full".to_owned()));
    let failed = reload(&api).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE, "{}", failed.text);
    assert!(failed.text.contains("the disk is full; the last good set stays in force"), "{}", failed.text);
    api.reloaded = Some(Reloaded::Waits("files are being put in force".to_owned()));
    let waits = reload(&api).await;
    assert_eq!(waits.status, StatusCode::SERVICE_UNAVAILABLE, "{}", waits.text);
    assert_eq!(waits.json()["type"], "urn:pointsman:problem:move-waits", "the store has refused nothing");
    assert_eq!(api.call(post("/api/v2/reload", &json!({ "to": "off" }))).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_flip_that_changes_nothing_names_the_processes_that_have_not_followed() {
    let mut api = TestApi::new().await;
    api.move_to("orders.create", "shadow").await;
    api.behind = vec!["process 7 on a".to_owned()];
    let request = json!({ "to": "shadow", "as": "ada" });
    let answer = api.call(post("/api/v2/routes/orders.create/flip", &request)).await;
    let (status, answer) = (answer.status, answer.json());
    assert_eq!((status, &answer["changed"]), (StatusCode::OK, &json!(false)), "{answer}");
    assert_eq!(answer["not_in_force_in"], json!(["process 7 on a"]), "{answer}");
}
