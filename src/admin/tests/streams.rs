//! Server-sent events of a run.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::runs::{api_with_run, finish_run};
use super::test_api::{TestApi, get, post};
use crate::limits::Limits;
use crate::store::tests::run_id;

fn path() -> String {
    format!("/api/v2/orchestrate/run/{}/stream", run_id(1))
}

/// `(id, name, data)` of each event.
fn events(text: &str) -> Vec<(u64, String, Value)> {
    let field = |block: &str, name: &str| {
        block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    };
    text.split("\n\n")
        .filter_map(|block| {
            let data = serde_json::from_str(&field(block, "data")?).unwrap();
            Some((field(block, "id")?.parse().unwrap(), field(block, "event")?, data))
        })
        .collect()
}

#[tokio::test]
async fn an_ended_run_is_streamed_whole_and_then_204() {
    let api = api_with_run().await;
    finish_run(&api).await;
    let answer = api.call(get(&path())).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::OK, "text/event-stream"));
    let streamed = events(&answer.text);
    let names: Vec<_> = streamed.iter().map(|(id, name, _)| (*id, name.as_str())).collect();
    let expected = [
        (1, "plan"),
        (2, "step_finished"),
        (3, "step_started"),
        (4, "step_finished"),
        (5, "step_finished"),
        (6, "progress"),
        (7, "end"),
    ];
    assert_eq!(names, expected);
    assert_eq!(streamed[0].2["steps"], json!(["late", "charge", "total", "mail"]));
    assert_eq!((&streamed[4].2["outcome"], &streamed[4].2["status"]), (&json!("skipped"), &json!("running")));
    assert_eq!(
        (&streamed[6].2["data"]["status"], &streamed[6].2["data"]["job"]["mode"]),
        (&json!("completed"), &json!("stream"))
    );
    for last in 1..7 {
        let mut request = get(&path());
        request.headers_mut().insert("last-event-id", last.to_string().parse().unwrap());
        let rest = events(&api.call(request).await.text);
        assert_eq!(rest, streamed[last..], "after {last}");
    }
    let mut request = get(&path());
    request.headers_mut().insert("last-event-id", "7".parse().unwrap());
    assert_eq!(api.call(request).await.status, StatusCode::NO_CONTENT, "the client stops reconnecting");
    let mut request = get(&path());
    request.headers_mut().insert("last-event-id", "8".parse().unwrap());
    assert_eq!(events(&api.call(request).await.text), streamed, "the client has events of another run");
    let mut request = get(&path());
    request.headers_mut().insert("last-event-id", "soon".parse().unwrap());
    assert_eq!(api.call(request).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn later_events_are_streamed_as_they_happen() {
    let mut api = api_with_run().await;
    api.limits.api_heartbeat_ms = 20;
    let response = api.router().oneshot(get(&path())).await.unwrap();
    let mut body = response.into_body();
    let mut text = String::new();
    let mut more = async |text: &mut String, until: &str| {
        while !text.contains(until) {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("in time");
            let frame = frame.expect("the stream has not ended").unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    more(&mut text, ": heartbeat").await;
    assert_eq!(events(&text).len(), 5);
    finish_run(&api).await;
    more(&mut text, "event: end").await;
    assert_eq!(events(&text).len(), 7);
}

#[tokio::test]
async fn streams_are_bounded_and_their_slots_released() {
    for (streams, connections, bound) in [(1, 100, "(api_streams_max)"), (2, 2, "(half of api_connections_max)")] {
        let mut api = api_with_run().await;
        api.limits = Limits { api_streams_max: streams, api_connections_max: connections, ..api.limits.clone() };
        let router = api.router();
        let first = router.clone().oneshot(get(&path())).await.unwrap();
        let refused = router.clone().oneshot(get(&path())).await.unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let text = refused.into_body().collect().await.unwrap().to_bytes();
        assert!(std::str::from_utf8(&text).unwrap().contains(bound), "{text:?}");
        drop(first);
        assert_eq!(router.oneshot(get(&path())).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_start_can_respond_with_a_stream() {
    let api = api_with_run().await;
    finish_run(&api).await;
    *api.engine.start.lock().unwrap() = Some(Ok(super::fake_engine::started(run_id(1), true)));
    let request = json!({ "workflow": "create-order", "stream": true });
    let answer = api.call(post("/api/v2/orchestrate/run", &request)).await;
    assert_eq!((answer.status, events(&answer.text).len()), (StatusCode::OK, 7));

    // A repetition with the same idempotency key.
    let after = |is_new: bool, last: &'static str| {
        *api.engine.start.lock().unwrap() = Some(Ok(super::fake_engine::started(run_id(1), is_new)));
        let mut again = post("/api/v2/orchestrate/run", &request);
        again.headers_mut().insert("last-event-id", last.parse().unwrap());
        api.call(again)
    };
    let rest = after(false, "5").await;
    assert_eq!(events(&rest.text).first().map(|(id, ..)| *id), Some(6));
    assert_eq!(after(false, "7").await.status, StatusCode::NO_CONTENT);
    assert!(rest.text.starts_with("id: 5\nretry: "), "{}", rest.text);
    let new = after(true, "5").await.text;
    assert_eq!(events(&new).len(), 7, "a new run has no events that the client has");
    assert!(new.starts_with("id: 0\nretry: "), "by the SSE standard, the client sends 0 if it reconnects now: {new}");
    assert_eq!(
        events(&after(false, "9").await.text).len(),
        7,
        "the event is of a run that was removed before this one"
    );
    let begun = api.engine.starts.lock().unwrap().len();
    assert_eq!(after(true, "soon").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(api.engine.starts.lock().unwrap().len(), begun, "nothing was started");

    let mut api = TestApi::new().await;
    api.limits.api_streams_max = 0;
    let refused = api.call(post("/api/v2/orchestrate/run", &request)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(api.engine.starts.lock().unwrap().is_empty(), "no run without its stream");
}
