//! The API from outside: one call in, one answer out.

mod description;
mod desk;
mod door;
mod older;
mod orders;
mod runs;
mod starts;
mod streams;
mod world;

use http::StatusCode;
use serde_json::json;

use self::world::{World, get, post};

#[tokio::test]
async fn what_is_here_is_said_as_plain_text() {
    let world = World::new().await;
    let answer = world.call(get("/")).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::OK, "text/plain; charset=utf-8"));
    assert!(answer.text.contains("/api/v2/status"));
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(world.call(get("/healthz")).await.text, "ok\n");
    assert_eq!(world.call(get("/readyz")).await.text, "ready\n");
    assert_eq!(world.call(get("/metrics")).await.text, "up 1\n");
}

#[tokio::test]
async fn a_process_that_drains_is_not_ready() {
    let mut world = World::new().await;
    world.vitals.not_ready = Some("draining".into());
    let answer = world.call(get("/readyz")).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n"));
    assert_eq!(world.call(get("/healthz")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn status_is_everything_at_a_glance() {
    let mut world = World::new().await;
    world.vitals.flags_error = Some("routes.yaml:3:1: unknown key `percnt`".into());
    let status = world.call(get("/api/v2/status")).await.json();
    assert_eq!(status["freeze"], "no");
    assert_eq!(status["flags"]["last_error"], "routes.yaml:3:1: unknown key `percnt`");
    assert_eq!(status["engine_healthy"], true);
    let route = &status["routes"][0];
    assert_eq!((&route["id"], &route["matches"]), (&json!("orders.create"), &json!("POST /orders")));
    assert_eq!(route["requests"], 12);
    assert_eq!(route["effective"], json!({ "state": "off", "why": "unproven" }));
    assert_eq!(world.call(get("/api/v2/routes")).await.json(), status["routes"]);
}

#[tokio::test]
async fn a_route_says_what_the_next_rung_takes() {
    let world = World::new().await;
    let route = world.call(get("/api/v2/routes/orders.create")).await.json();
    assert_eq!(route["next"], json!({ "to": "shadow", "missing": [] }));
    assert_eq!(route["horizon"], json!([]));
    world.move_to("orders.create", "shadow").await;
    let route = world.call(get("/api/v2/routes/orders.create")).await.json();
    assert_eq!(route["next"]["to"], "dark");
    assert!(!route["next"]["missing"].as_array().unwrap().is_empty(), "no pairs yet");
    assert_eq!(route["flip"]["by"], "ada (unverified)");
}

#[tokio::test]
async fn an_unknown_route_gets_the_names_there_are_the_nearest_first() {
    let world = World::new().await;
    for call in [get("/api/v2/routes/orders.creat"), post("/api/v2/routes/orders.creat/flip", &json!({ "to": "off" }))]
    {
        let answer = world.call(call).await;
        assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
        assert_eq!(answer.headers["x-pointsman-source"], "proxy");
        let problem = answer.json();
        assert_eq!(problem["hint"], "did you mean `orders.create`?");
        assert_eq!(problem["reasons"], json!(["orders.create", "orders.show"]));
    }
}

#[tokio::test]
async fn a_flip_is_recorded_with_who_and_why() {
    let world = World::new().await;
    let ask = json!({ "to": "shadow", "reason": "try it", "as": "ada" });
    let done = world.call(post("/api/v2/routes/orders.create/flip", &ask)).await.json();
    assert_eq!(done["effective"]["state"], "shadow");
    assert_eq!((&done["changed"], &done["shares"]["shadow"]), (&json!(true), &json!(100.0)));
    let flips = world.call(get("/api/v2/flips?route=orders.create&limit=1")).await.json();
    assert_eq!(flips[0], done["flip"]);
    assert_eq!((&flips[0]["by"], &flips[0]["reason"]), (&json!("ada (unverified)"), &json!("try it")));
    assert_eq!(world.call(get("/api/v2/flips?route=orders.show")).await.json(), json!([]));
}

#[tokio::test]
async fn a_shut_gate_is_409_with_every_reason() {
    let world = World::new().await;
    world.move_to("orders.create", "shadow").await;
    let answer = world.call(post("/api/v2/routes/orders.create/flip", &json!({ "to": "dark" }))).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let route = world.call(get("/api/v2/routes/orders.create")).await.json();
    assert_eq!((&route["row"]["requested"], &route["row"]["forced"]), (&json!("shadow"), &json!(null)));
    assert!(!route["next"]["missing"].as_array().unwrap().is_empty());
    assert_eq!(answer.json()["reasons"], route["next"]["missing"]);
    let ask = json!({ "to": "dark", "force": true, "reason": "a drill" });
    assert_eq!(world.call(post("/api/v2/routes/orders.create/flip", &ask)).await.status, StatusCode::OK);
    assert_eq!(world.call(get("/api/v2/status")).await.json()["routes"][0]["forced"], "a drill");
}

#[tokio::test]
async fn what_makes_no_sense_is_409_too() {
    let world = World::new().await;
    let ask = json!({ "to": "shadow", "force": true });
    let answer = world.call(post("/api/v2/routes/orders.create/flip", &ask)).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.text.contains("wants a reason"), "{}", answer.text);
}

#[tokio::test]
async fn the_kill_switch() {
    let world = World::new().await;
    let done = world.call(post("/api/v2/freeze", &json!({ "on": true, "effects": true }))).await.json();
    assert_eq!((&done["freeze"], &done["runs_in_flight"]), (&json!("effects"), &json!(3)));
    assert_eq!(world.call(get("/api/v2/status")).await.json()["freeze"], "effects");
    let weaker = world.call(post("/api/v2/freeze", &json!({ "on": true }))).await;
    assert_eq!(weaker.status, StatusCode::CONFLICT, "it would let go of what is held");
    assert!(weaker.text.contains("freeze --off"), "{}", weaker.text);
    assert_eq!(world.call(get("/api/v2/status")).await.json()["freeze"], "effects");
    let answer = world.call(post("/api/v2/freeze", &json!({ "on": false, "effects": true }))).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_bad_body_is_told_where() {
    let world = World::new().await;
    let bad = async |body: &str| {
        let answer = world.call(world::post_text("/api/v2/routes/orders.create/flip", body.to_owned())).await;
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    let (status, detail) = bad("{\n  \"to\": \"shadow\",\n  \"forse\": true\n}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(detail.contains("unknown field `forse`") && detail.contains("line 3"), "{detail}");
    let (_, detail) = bad("{\"to\": \"sideways\"}").await;
    assert!(detail.contains("sideways") && detail.contains("line 1"), "{detail}");
    let (_, detail) = bad("{\"to\": \"shadow\", \"percent\": 150}").await;
    assert_eq!(detail, "percent: 150 is not between 0 and 100");
    let (status, detail) = bad(&format!("{{\"to\": \"{}\"}}", "x".repeat(2 << 20))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(detail.contains("api_body_bytes_max"), "{detail}");
    let answer = world.call(get("/api/v2/flips?rute=x")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("rute"), "{}", answer.text);
}

#[tokio::test]
async fn other_paths_and_methods_are_problems_too() {
    let world = World::new().await;
    let answer = world.call(get("/api/v2/nothing")).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
    let answer = world.call(get("/api/v2/freeze")).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "application/problem+json"));
}

#[tokio::test]
async fn differences_are_grouped_by_fingerprint() {
    let world = World::new().await;
    let sample = |fingerprint: &str, n: i64| crate::store::SampleRecord {
        route: "orders.create".into(),
        fingerprint: fingerprint.into(),
        at: crate::store::tests::at(n),
        run: None,
        differences: Vec::new(),
        legacy: format!("legacy {n}"),
        engine: "<script>".into(),
        request: "POST /orders".into(),
    };
    let samples = vec![sample("a", 1), sample("b", 2), sample("b", 3), sample("c", 4)];
    world.store.put_samples(samples, 9, 9).await.unwrap();
    let diffs = world.call(get("/api/v2/routes/orders.create/diffs")).await.json();
    let groups = diffs["groups"].as_array().unwrap();
    let seen: Vec<_> =
        groups.iter().map(|g| (g["fingerprint"].as_str().unwrap(), g["count"].as_u64().unwrap())).collect();
    assert_eq!(seen, [("b", 2), ("c", 1), ("a", 1)]);
    assert_eq!(groups[0]["sample"]["legacy"], "legacy 3", "the newest");
    let diffs = world.call(get("/api/v2/routes/orders.create/diffs?limit=1")).await;
    assert_eq!(diffs.kind, "application/json");
    assert_eq!(diffs.json()["groups"].as_array().unwrap().len(), 1);
    let evidence = world.call(get("/api/v2/routes/orders.create/evidence")).await.json();
    assert_eq!((&evidence["route"], &evidence["next"]["to"]), (&json!("orders.create"), &json!("shadow")));
}
