//! The event stream over all runs and routes.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::test_api::{TestApi, get, post};
use crate::limits::Limits;
use crate::store::tests::{append, run_id, with_status};
use crate::workflow::RunStatus;

const PATH: &str = "/api/v2/events";

/// An open stream, and what has come of it that was not looked at.
struct Stream {
    body: Body,
    text: String,
}

/// An event: id, name, data.
type Event = (String, String, Value);

impl Stream {
    async fn open(router: &Router, path: &str, last: Option<&str>) -> Self {
        let mut request = get(path);
        if let Some(last) = last {
            request.headers_mut().insert("last-event-id", last.parse().unwrap());
        }
        let response = send(router, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next block that has something else than a comment; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame()).await.expect("in time");
            self.text.push_str(std::str::from_utf8(&frame?.unwrap().into_data().unwrap()).unwrap());
        }
    }

    /// The next event.
    async fn event(&mut self) -> Event {
        loop {
            let block = self.block().await.expect("the stream has not ended");
            if let Some(data) = field(&block, "data") {
                let id = field(&block, "id").unwrap_or_default();
                return (id, field(&block, "event").unwrap(), serde_json::from_str(&data).unwrap());
            }
        }
    }

    /// The next event with this name; others are left out.
    async fn named(&mut self, name: &str) -> Event {
        loop {
            let event = self.event().await;
            if event.1 == name {
                return event;
            }
        }
    }
}

fn field(block: &str, name: &str) -> Option<String> {
    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
}

async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

/// Appends one event to a run.
async fn advance(api: &TestApi, run: u64, seq: u64, status: RunStatus) {
    let append = with_status(append(run_id(run), seq, 1), status);
    api.store.append(append.into()).await.unwrap();
}

#[tokio::test]
async fn a_stream_begins_with_reset_and_tells_each_change_of_a_run() {
    let api = TestApi::new().await;
    advance(&api, 1, 1, RunStatus::Running).await;
    let router = api.router();
    let mut stream = Stream::open(&router, PATH, None).await;
    let (id, name, data) = stream.event().await;
    assert_eq!((name.as_str(), data), ("reset", json!({ "why": "begins" })));
    assert!(!id.is_empty(), "the client can continue after it");

    advance(&api, 1, 2, RunStatus::WaitingCheckpoint).await;
    let (_, name, data) = stream.event().await;
    assert_eq!(name, "run", "nothing of what happened before: {data}");
    assert_eq!((&data["run_id"], &data["seq"]), (&json!(run_id(1).to_string()), &json!(2)));
    assert_eq!((&data["status"], &data["waits"]), (&json!("waiting_checkpoint"), &json!(true)));
    assert_eq!((&data["workflow"], &data["route"]), (&json!("create-order"), &json!("orders.create")));
    let (_, name, data) = stream.event().await;
    assert_eq!((name.as_str(), &data["waits"]), ("waiting", &json!(true)));

    advance(&api, 2, 1, RunStatus::Running).await;
    let (_, name, data) = stream.event().await;
    assert_eq!((name.as_str(), &data["run_id"]), ("run", &json!(run_id(2).to_string())));
    advance(&api, 1, 3, RunStatus::Completed).await;
    assert_eq!(stream.event().await.2["status"], "completed");
    let (_, name, data) = stream.event().await;
    assert_eq!((name.as_str(), &data["waits"]), ("waiting", &json!(false)), "it does not wait any more");
}

#[tokio::test]
async fn a_stream_continues_after_the_last_event_without_a_gap_or_a_repetition() {
    let api = TestApi::new().await;
    let router = api.router();
    let mut stream = Stream::open(&router, &format!("{PATH}?events=run"), None).await;
    let (reset, ..) = stream.event().await;
    let mut all = Vec::new();
    for n in 1..=3 {
        advance(&api, n, 1, RunStatus::Running).await;
        all.push(stream.event().await);
    }
    for (at, last) in [&reset].into_iter().chain(all.iter().map(|(id, ..)| id)).enumerate() {
        let mut again = Stream::open(&router, &format!("{PATH}?events=run"), Some(last)).await;
        let mut rest = Vec::new();
        while rest.len() < all.len() - at {
            rest.push(again.event().await);
        }
        assert_eq!(rest, all[at..]);
        // The id can stand in the query too.
        let mut again = Stream::open(&router, &format!("{PATH}?events=run&after={last}"), None).await;
        if let Some(next) = all.get(at) {
            assert_eq!(again.event().await, *next);
        }
    }

    // What happens while nobody listens is told to the next client that continues.
    let last = all[2].0.clone();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(300)).await;
    advance(&api, 4, 1, RunStatus::Running).await;
    advance(&api, 2, 2, RunStatus::Completed).await;
    let mut again = Stream::open(&router, &format!("{PATH}?events=run"), Some(&last)).await;
    let mut found = [again.event().await, again.event().await].map(|(_, _, data)| data["run_id"].clone());
    found.sort_by_key(Value::to_string);
    assert_eq!(found, [json!(run_id(2).to_string()), json!(run_id(4).to_string())]);
}

#[tokio::test]
async fn an_id_that_this_process_does_not_know_is_answered_with_reset() {
    let api = TestApi::new().await;
    let router = api.router();
    let mut stream = Stream::open(&router, PATH, None).await;
    let (id, ..) = stream.event().await;
    let (ring, _) = id.split_once('-').unwrap();
    for unknown in ["0123456789abcdef-0", "17", "nonsense", &format!("{ring}-99999")] {
        let mut stream = Stream::open(&router, PATH, Some(unknown)).await;
        let (_, name, data) = stream.event().await;
        assert_eq!((name.as_str(), data), ("reset", json!({ "why": "unknown" })), "{unknown}");
    }
    // Another process.
    let mut other = Stream::open(&api.router(), PATH, Some(&id)).await;
    assert_eq!(other.event().await.2, json!({ "why": "unknown" }));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_too_slow_is_told_to_read_everything_again() {
    let api = TestApi::new().await;
    let router = api.router();
    let mut slow = Stream::open(&router, PATH, None).await;
    let (id, ..) = slow.event().await;
    let mut quick = Stream::open(&router, &format!("{PATH}?events=run"), None).await;
    quick.event().await;
    // More changes than are kept: each is told before the next one happens, so that they are not one.
    let kept_max = crate::admin::events::KEPT_MAX as u64;
    let mut seqs = [0_u64; 60];
    let mut told = 0;
    while told <= kept_max {
        for run in 1..=60 {
            seqs[run as usize - 1] += 1;
            advance(&api, run, seqs[run as usize - 1], RunStatus::Running).await;
        }
        for _ in 1..=60 {
            quick.event().await;
            told += 1;
        }
    }
    let (_, name, data) = slow.named("reset").await;
    assert_eq!((name.as_str(), data), ("reset", json!({ "why": "slow" })));
    let mut late = Stream::open(&router, PATH, Some(&id)).await;
    assert_eq!(late.event().await.2, json!({ "why": "missed" }));
    // From then on it gets what changes.
    advance(&api, 99, 1, RunStatus::Running).await;
    assert_eq!(slow.event().await.2["run_id"], run_id(99).to_string());
}

#[tokio::test(start_paused = true)]
async fn when_more_runs_change_than_are_named_a_watched_run_is_told_all_the_same() {
    let api = TestApi::new().await;
    let router = api.router();
    let watched = run_id(1);
    let mut one = Stream::open(&router, &format!("{PATH}?run={watched}&events=run"), None).await;
    let mut all = Stream::open(&router, &format!("{PATH}?events=run"), None).await;
    one.event().await;
    all.event().await;
    for n in 1..=300 {
        advance(&api, n, 1, RunStatus::Running).await;
    }
    let (_, name, data) = one.event().await;
    assert_eq!((name.as_str(), &data["run_id"]), ("run", &json!(watched.to_string())));
    let (_, _, data) = all.named("runs").await;
    assert!(data["named"].as_u64().is_some_and(|named| named < 300), "{data}");
    // The watched run changes alone: other clients' runs are not told to this one.
    advance(&api, 2, 2, RunStatus::Running).await;
    advance(&api, 1, 2, RunStatus::Completed).await;
    let (_, _, data) = one.named("run").await;
    assert_eq!((&data["run_id"], &data["seq"]), (&json!(watched.to_string()), &json!(2)));
}

#[tokio::test]
async fn flips_the_kill_switch_and_evidence_are_told() {
    let api = TestApi::new().await;
    let router = api.router();
    let mut stream = Stream::open(&router, PATH, None).await;
    stream.event().await;
    let request = json!({ "to": "shadow", "as": "ada" });
    let moved = send(&router, post("/api/v2/routes/orders.create/flip", &request)).await;
    assert_eq!(moved.status(), StatusCode::OK);
    let (_, _, data) = stream.named("route").await;
    assert_eq!((&data["route"], &data["requested"]), (&json!("orders.create"), &json!("shadow")));
    assert_eq!(data["effective"]["state"], "shadow");
    // The number of the flip comes with the same event, or with one a little later.
    let mut flip = data["flip"].clone();
    while flip.is_null() {
        flip = stream.named("route").await.2["flip"].clone();
    }
    let flips = send(&router, get("/api/v2/flips?limit=1")).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(flip, serde_json::from_slice::<Value>(&flips).unwrap()[0]["number"]);

    let frozen = send(&router, post("/api/v2/freeze", &json!({ "on": true, "as": "ada" }))).await;
    assert_eq!(frozen.status(), StatusCode::OK);
    assert_eq!(stream.named("freeze").await.2, json!({ "freeze": "instances" }));

    api.settle_request("orders.create");
    assert_eq!(stream.named("evidence").await.2["route"], "orders.create");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_said() {
    let mut api = TestApi::new().await;
    api.store = std::sync::Arc::new(super::hanging_store::HangingStore::default());
    let router = api.router();
    let mut stream = Stream::open(&router, PATH, None).await;
    assert_eq!(stream.event().await.1, "reset");
    assert_eq!(stream.event().await.2, json!({ "answers": false }));
}

#[tokio::test]
async fn streams_are_bounded_and_their_slots_released() {
    let mut api = TestApi::new().await;
    api.limits = Limits { api_streams_max: 1, ..api.limits.clone() };
    let router = api.router();
    let first = send(&router, get(PATH)).await;
    assert_eq!(send(&router, get(PATH)).await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(first);
    assert_eq!(send(&router, get(PATH)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stream_ends_when_the_listener_stops() {
    let api = TestApi::new().await;
    let router = api.router();
    let mut stream = Stream::open(&router, PATH, None).await;
    stream.event().await;
    api.stopping.cancel();
    while stream.block().await.is_some() {}
}

#[tokio::test]
async fn a_quiet_stream_has_heartbeats_with_the_last_id() {
    let mut api = TestApi::new().await;
    api.limits.api_heartbeat_ms = 20;
    let router = api.router();
    let mut stream = Stream::open(&router, &format!("{PATH}?events=files"), None).await;
    let (begin, ..) = stream.event().await;
    advance(&api, 1, 1, RunStatus::Running).await;
    loop {
        let block = stream.block().await.unwrap();
        let id = field(&block, "id").expect("a heartbeat has the id");
        assert!(block.starts_with(": heartbeat"), "{block}");
        // It names a change that this client does not want, so that the client does not miss it later.
        if id != begin {
            break;
        }
    }
}

#[tokio::test]
async fn parameters_that_cannot_be_meant_are_refused() {
    let api = TestApi::new().await;
    let many = vec![run_id(1).to_string(); 65].join(",");
    let many = format!("run={many}");
    for (query, detail) in [
        ("run=order-17", "run: `order-17` is not a run's id"),
        ("events=runz", "events: `runz` is not one of run, waiting, route, evidence, freeze, files"),
        (many.as_str(), "run: 65 runs are named; the most are 64"),
    ] {
        let answer = api.call(get(&format!("{PATH}?{query}"))).await;
        assert_eq!((answer.status, answer.json()["detail"].as_str()), (StatusCode::BAD_REQUEST, Some(detail)));
    }
}
