//! What a hand-over and a drain do with messages of other versions, and with clients that have sent a part of a head.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::succession::succeed;
use crate::support::raw_connection::RawConnection;
use crate::support::test_system::TestSystem;

/// What the process answers on its socket for successors.
async fn answer_to(system: &TestSystem, message: &Value) -> Value {
    let store = system.arguments().store;
    let socket = format!("{}.succession", store.strip_prefix("sqlite:").expect("a SQLite store"));
    let mut stream = tokio::net::UnixStream::connect(socket).await.expect("the process listens");
    let text = message.to_string();
    stream.write_u32(text.len() as u32).await.expect("it reads");
    stream.write_all(text.as_bytes()).await.expect("it reads");
    let length = stream.read_u32().await.expect("an answer");
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.expect("all of it");
    serde_json::from_slice(&answer).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn other_versions_of_the_protocol_are_refused_by_name_and_the_process_goes_on() {
    let mut system = TestSystem::start().await;
    let pid = system.pointsman.pid();
    let later = json!({ "message": "hello", "protocol": 2, "version": "9.9.9", "process": 77, "more": [1] });
    let refused = answer_to(&system, &later).await;
    assert_eq!(refused["message"], "refused");
    let why = refused["why"].as_str().unwrap_or_default();
    for part in [&format!("process {pid}"), "version 1 of the protocol", "9.9.9", "process 77", "speaks version 2"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let refused = answer_to(&system, &json!({ "message": "take_over_now" })).await;
    let why = refused["why"].as_str().unwrap_or_default();
    assert!(why.contains("does not understand the first message") && why.contains("take_over_now"), "{refused}");
    let refused = answer_to(&system, &json!({ "message": "started" })).await;
    assert!(refused["why"].as_str().is_some_and(|why| why.contains("was not told which process asks")), "{refused}");
    // Fields that a later version adds change nothing. The other side then disconnects, so no successor comes.
    let same = json!({ "message": "hello", "protocol": 1, "version": "9.9.9", "process": 77, "more": { "a": 1 } });
    assert_eq!(answer_to(&system, &same).await["message"], "offer");
    system.create_read_cancel().await;
    let log = system.pointsman.log();
    assert!(log.contains("no successor: this process goes on") && !log.contains("handing over"), "{log}");
    let mut old = succeed(&mut system).await;
    assert_eq!(old.wait_for_exit().await, Some(0));
    system.create_read_cancel().await;
    system.finish().await;
}

/// Two connections whose clients have sent a part of a head: one after a whole request, one only the first byte of its
/// first head. The process has accepted both.
async fn clients_with_part_of_a_head(system: &TestSystem) -> [RawConnection; 2] {
    let to = system.pointsman.listen;
    let mut kept = RawConnection::connect(to).await;
    let mut fresh = RawConnection::connect(to).await;
    kept.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    kept.reply().await;
    kept.send("GET /health HTTP/1.1\r\nHo").await;
    // It may be the beginning of HTTP/2 (`PRI * HTTP/2.0`).
    fresh.send("P").await;
    // The answer to a later connection shows that both were accepted.
    RawConnection::connect(to).await.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.reply().await;
    [kept, fresh]
}

async fn check_head_timeout(client: &mut RawConnection) {
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
    assert_eq!(reply.header("x-pointsman-source"), Some("proxy"));
    let problem: Value = serde_json::from_slice(&reply.body).expect("a problem document");
    assert_eq!(problem["type"], "urn:pointsman:problem:head-timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_a_part_of_a_head_delay_no_hand_over_and_get_an_answer() {
    let mut system = TestSystem::start().await;
    let mut clients = clients_with_part_of_a_head(&system).await;
    let mut old = succeed(&mut system).await;
    for client in &mut clients {
        check_head_timeout(client).await;
    }
    // Logged if the hand-over had to wait for them longer than `drain_head_ms` and 2 s.
    assert!(!old.log().contains("connections without a whole request are still open"), "{}", old.log());
    assert_eq!(old.wait_for_exit().await, Some(0));
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_a_part_of_a_head_delay_no_drain_and_get_an_answer() {
    let mut system = TestSystem::start().await;
    let mut clients = clients_with_part_of_a_head(&system).await;
    let began = Instant::now();
    system.pointsman.terminate();
    for client in &mut clients {
        check_head_timeout(client).await;
    }
    drop(clients);
    assert_eq!(system.pointsman.wait_for_exit().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    system.restart().await;
    system.finish().await;
}
