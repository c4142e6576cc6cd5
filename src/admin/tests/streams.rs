//! What happens, as server-sent events.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::runs::{ended, with_a_run};
use super::world::{World, get, post};
use crate::limits::Limits;
use crate::store::tests::run_id;

fn path() -> String {
    format!("/api/v2/orchestrate/run/{}/stream", run_id(1))
}

/// `(id, name, data)` of each frame.
fn frames(text: &str) -> Vec<(u64, String, Value)> {
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
async fn a_run_that_has_ended_is_told_whole_and_then_no_more() {
    let world = with_a_run().await;
    ended(&world).await;
    let answer = world.call(get(&path())).await;
    assert_eq!((answer.status, answer.kind.as_str()), (StatusCode::OK, "text/event-stream"));
    let told = frames(&answer.text);
    let names: Vec<_> = told.iter().map(|(id, name, _)| (*id, name.as_str())).collect();
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
    assert_eq!(told[0].2["steps"], json!(["late", "charge", "total", "mail"]));
    assert_eq!((&told[4].2["outcome"], &told[4].2["status"]), (&json!("skipped"), &json!("running")));
    assert_eq!(
        (&told[6].2["data"]["status"], &told[6].2["data"]["job"]["mode"]),
        (&json!("completed"), &json!("stream"))
    );
    for last in 1..7 {
        let mut request = get(&path());
        request.headers_mut().insert("last-event-id", last.to_string().parse().unwrap());
        let rest = frames(&world.call(request).await.text);
        assert_eq!(rest, told[last..], "after {last}");
    }
    let mut request = get(&path());
    request.headers_mut().insert("last-event-id", "7".parse().unwrap());
    assert_eq!(world.call(request).await.status, StatusCode::NO_CONTENT, "a client stops coming again");
    let mut request = get(&path());
    request.headers_mut().insert("last-event-id", "soon".parse().unwrap());
    assert_eq!(world.call(request).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_happens_later_is_told_when_it_does() {
    let mut world = with_a_run().await;
    world.limits.api_heartbeat_ms = 20;
    let response = world.router().oneshot(get(&path())).await.unwrap();
    let mut body = response.into_body();
    let mut text = String::new();
    let mut more = async |text: &mut String, until: &str| {
        while !text.contains(until) {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("in time");
            let frame = frame.expect("it goes on").unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    more(&mut text, ": still here").await;
    assert_eq!(frames(&text).len(), 5);
    ended(&world).await;
    more(&mut text, "event: end").await;
    assert_eq!(frames(&text).len(), 7);
}

#[tokio::test]
async fn streams_are_bounded_and_given_back() {
    let mut world = with_a_run().await;
    world.limits = Limits { api_streams_max: 1, ..world.limits.clone() };
    let router = world.router();
    let first = router.clone().oneshot(get(&path())).await.unwrap();
    let refused = router.clone().oneshot(get(&path())).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(first);
    assert_eq!(router.oneshot(get(&path())).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_start_can_be_followed_at_once() {
    let world = with_a_run().await;
    ended(&world).await;
    *world.desk.start.lock().unwrap() = Some(Ok(super::desk::started(run_id(1), true)));
    let ask = json!({ "workflow": "create-order", "stream": true });
    let answer = world.call(post("/api/v2/orchestrate/run", &ask)).await;
    assert_eq!((answer.status, frames(&answer.text).len()), (StatusCode::OK, 7));
    let mut world = World::new().await;
    world.limits.api_streams_max = 0;
    let refused = world.call(post("/api/v2/orchestrate/run", &ask)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(world.desk.starts.lock().unwrap().is_empty(), "no run without its stream");
}
