//! `stream: true`: a body that its service, its client or a limit ends before it is whole.

use std::time::Duration;

use serde_json::Value;

use super::EngineTest;
use super::streamed_replies::{CHUNKED, get, get_over_http2, rest_of, test};
use crate::support::until;

impl EngineTest {
    /// Waits until this many exchanges were cut for a reason.
    async fn wait_for_cuts(&self, reason: &str, count: usize) {
        let cuts = [("reason", reason)];
        let counted = |m: &crate::support::Metrics| m.sum("pointsman_exchanges_cut_total", &cuts) == count as f64;
        self.pointsman.until_metric(reason, counted).await;
    }
}

/// The service closes its connection right behind the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn the_caller_gets_all_bytes_that_came_before_a_cut() {
    const SENT: usize = 60_000;
    let (test, service) = test("", "").await;
    for run in 0..20 {
        let (mut client, mut call) = get(&test, &service, "").await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * SENT);
        call.send([head.as_bytes(), &vec![b'x'; SENT]].concat()).await;
        drop(call);
        let all = client.read_to_close().await;
        assert!(all.starts_with(b"HTTP/1.1 200 OK\r\n"), "run {run}: {} bytes", all.len());
        let body = all.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        assert_eq!(all.len() - body, SENT, "run {run}");
    }
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_its_service_cuts_never_looks_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("access.log");
    let (test, service) = test(", calls_max: 1", &format!("access_log: {{ file: {} }}\n", file.display())).await;
    for head in ["HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nsome", &format!("{CHUNKED}4\r\nsome\r\n")] {
        let (mut client, mut call) = get(&test, &service, "").await;
        call.send(head).await;
        client.read_until("some").await;
        drop(call);
        let rest = client.read_to_close().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
        assert_eq!(rest.len(), 0, "{}", String::from_utf8_lossy(&rest));
    }
    let (asked, call) = tokio::join!(get_over_http2(&test), async {
        let mut call = service.call().await;
        call.send(format!("{CHUNKED}4\r\nsome\r\n")).await;
        call
    });
    drop(call);
    let error = rest_of(&mut asked.into_body()).await.expect_err("it is cut");
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
    test.wait_for_cuts("service-reply-cut", 3).await;
    let lines = until("three lines", || async {
        let text = std::fs::read_to_string(&file).ok()?;
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 3).then_some(lines)
    })
    .await;
    for line in &lines {
        assert_eq!((&line["arm"], &line["status"]), (&"engine".into(), &200.into()), "{line}");
        assert_eq!((&line["reply_bytes"], &line["failure"]), (&4.into(), &"service-reply-cut".into()), "{line}");
        assert_eq!(line["service"], "files", "{line}");
    }
    let evidence = test.pointsman.get("/api/v2/routes/files.get/evidence").await;
    let counts = [&evidence["evidence"]["engine_answers"], &evidence["evidence"]["engine_errors"]];
    assert_eq!(counts, [&Value::from(0), &Value::from(3)], "a cut answer is an error of the engine: {evidence}");
    // Each has returned its permit.
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    client.read_until("ok").await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stalls_or_is_slow_is_cut() {
    let limits = "limits: { legacy_send_bytes_per_s_min: 1000, rate_window_ms: 600, body_idle_ms: 30000 }\n";
    let (test, service) = test(", idle: 400ms, calls_max: 1", limits).await;
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send(format!("{CHUNKED}4\r\nsome\r\n")).await;
    client.read_until("some").await;
    call.closed().await;
    assert!(client.read_to_close().await.is_empty());
    test.wait_for_cuts("service-reply-stalled", 1).await;

    let (mut client, mut call) = get(&test, &service, "").await;
    call.send(CHUNKED).await;
    while call.send("1\r\nx\r\n").await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!client.read_to_close().await.ends_with(b"0\r\n\r\n"));
    test.wait_for_cuts("service-reply-slow", 1).await;
    // The next call has the permit.
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    client.read_until("ok").await;
    test.finish().await;
}

/// The step's timeout bounds the time until the head of the reply has come, not the body.
#[tokio::test(flavor = "multi_thread")]
async fn the_deadlines_of_step_and_route_do_not_count_for_the_body() {
    let (test, service) = test("", "limits: { step_timeout_ms: 300 }\n").await;
    test.reload(|| test.flags.edit("routes/all.yaml", |text| text.replace("deadline: 10s", "deadline: 400ms"))).await;
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send(format!("{CHUNKED}5\r\nfirst\r\n")).await;
    client.read_until("first").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    call.send("4\r\nlast\r\n0\r\n\r\n").await;
    client.read_until("last\r\n0\r\n\r\n").await;
    // No head: the deadline holds.
    client.send("GET /files/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    call.next().await;
    assert_eq!(client.reply().await.status, 504);
    call.closed().await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_closes_the_connection_to_the_service_and_returns_the_permit() {
    let (test, service) = test(", calls_max: 1", "").await;
    for round in 1..=3 {
        let (mut client, mut call) = get(&test, &service, "").await;
        call.send(format!("{CHUNKED}4\r\nsome\r\n")).await;
        client.read_until("some").await;
        drop(client);
        call.closed().await;
        test.wait_for_cuts("client-gone", round).await;
    }
    let (asked, mut call) = tokio::join!(get_over_http2(&test), async {
        let mut call = service.call().await;
        call.send(format!("{CHUNKED}4\r\nsome\r\n")).await;
        call
    });
    drop(asked); // RST_STREAM
    call.closed().await;
    test.wait_for_cuts("client-gone", 4).await;
    until("no call to be in flight", || async { (test.calls_in_flight().await == 0).then_some(()) }).await;
    test.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cuts_what_takes_too_long() {
    let (mut test, service) = test("", "limits: { drain_ms: 300 }\n").await;
    let (mut client, mut call) = get(&test, &service, "").await;
    call.send(format!("{CHUNKED}4\r\nsome\r\n")).await;
    client.read_until("some").await;
    test.pointsman.terminate();
    assert!(client.read_to_close().await.is_empty());
    call.closed().await;
    assert_eq!(test.pointsman.wait_for_exit().await, Some(0), "{}", test.pointsman.log());
    test.restart().await;
    test.finish().await;
}
