//! Streams: every event once, over interruptions and restarts.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{BankTest, RUN};
use crate::support::WAIT_MAX;
use crate::support::origin::OriginReply;

/// `(id, name)` of each frame.
fn frames(text: &str) -> Vec<(u64, String)> {
    let mut frames = Vec::new();
    let mut id = None;
    for line in text.lines() {
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.trim().parse().ok();
        } else if let (Some(name), Some(id)) = (line.strip_prefix("event: "), id.take()) {
            frames.push((id, name.trim().to_owned()));
        }
    }
    frames
}

/// Reads a stream until it contains a text, and disconnects.
async fn read_until(test: &BankTest, path: &str, after: u64, until: &str) -> String {
    let mut stream = TcpStream::connect(test.pointsman.admin).await.expect("it listens");
    let head =
        format!("GET {path}/stream HTTP/1.1\r\nhost: {}\r\nlast-event-id: {after}\r\n\r\n", test.pointsman.admin);
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut text = String::new();
    let mut chunk = [0; 4_096];
    let read = async {
        while !text.contains(until) {
            let n = stream.read(&mut chunk).await.expect("readable");
            assert_ne!(n, 0, "it ended before {until}:\n{text}");
            text.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    };
    tokio::time::timeout(WAIT_MAX, read).await.expect("in time");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_followed_to_its_end() {
    let test = BankTest::open().await;
    test.bank.script(OriginReply::Status(429), 1);
    test.flags.write("workflows/order.yaml", &super::WORKFLOWS[0].1.replace("attempts: 1", "attempts: 3, base: 10ms"));
    let names = crate::support::until("a retry in the stream", || async {
        let request = json!({ "workflow": "order", "input": { "sku": "a" }, "stream": true });
        let reply = test.call(Method::POST, RUN, &[], &request).await;
        assert_eq!(
            (reply.status, &reply.headers["content-type"]),
            (StatusCode::OK, &"text/event-stream".parse().unwrap())
        );
        let received = frames(&String::from_utf8_lossy(&reply.body));
        let ids: Vec<u64> = received.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "without a gap");
        let names: Vec<String> = received.into_iter().map(|(_, name)| name).collect();
        test.bank.script(OriginReply::Status(429), usize::from(!names.iter().any(|name| name == "step_retrying")));
        names.iter().any(|name| name == "step_retrying").then_some(names)
    })
    .await;
    assert_eq!(names[..3], ["plan", "step_started", "step_retrying"]);
    assert_eq!(names.last().map(String::as_str), Some("end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reconnects_misses_nothing_over_a_restart() {
    let mut test = BankTest::open().await;
    let run = test.start_run("pick", json!({})).await;
    let first = frames(&read_until(&test, &run, 0, "event: checkpoint").await);
    let last = first.last().expect("frames").0;
    test.kill_and_restart().await;
    let pending = test.wait_for_status(&run, "waiting_checkpoint").await["data"]["pending_checkpoint"].clone();
    let answer = json!({ "values": { "selected_asset_id": "a" } });
    let (rest, answered) = tokio::join!(
        read_until(&test, &run, last, "event: end"),
        test.post(pending["answer"].as_str().unwrap(), answer),
    );
    assert_eq!(answered.0, 200, "{}", answered.1);
    let mut ids: Vec<u64> = first.iter().map(|(id, _)| *id).collect();
    ids.extend(frames(&rest).iter().map(|(id, _)| *id));
    let events = test.pointsman.get(&format!("{run}/events")).await;
    let all: Vec<u64> = events.as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(ids, all);
    let end = all.len().to_string();
    let after_end = test.call(Method::GET, &format!("{run}/stream"), &[("last-event-id", &end)], &Value::Null).await;
    assert_eq!(after_end.status, StatusCode::NO_CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_a_disconnected_client_frees_its_slot() {
    let test = BankTest::with("limits: { api_streams_max: 1, api_heartbeat_ms: 50 }").await;
    let run = test.start_run("pick", json!({})).await;
    let mut held = TcpStream::connect(test.pointsman.admin).await.expect("it listens");
    let head = format!("GET {run}/stream HTTP/1.1\r\nhost: {}\r\n\r\n", test.pointsman.admin);
    held.write_all(head.as_bytes()).await.expect("sent");
    let mut byte = [0; 1];
    held.read_exact(&mut byte).await.expect("it begins");
    let refused = test.call(Method::GET, &format!("{run}/stream"), &[], &Value::Null).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    drop(held);
    let again = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let mut stream = TcpStream::connect(test.pointsman.admin).await.expect("it listens");
            stream.write_all(head.as_bytes()).await.expect("sent");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.expect("an answer");
            if &answer == b"HTTP/1.1 200" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    again.await.expect("the slot is free again");
    test.wait_for_status(&run, "waiting_checkpoint").await;
}
