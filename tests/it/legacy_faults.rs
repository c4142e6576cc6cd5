//! How the proxy answers when legacy is slow, unreachable or violates HTTP; and what it changes in a healthy exchange.

use std::time::{Duration, Instant};

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::raw_connection::{RawConnection, RawReply};
use crate::support::{FlagsDir, Pointsman};

struct TestProxy {
    pointsman: Pointsman,
    origin: Origin,
    _dir: tempfile::TempDir,
    _flags: FlagsDir,
}

async fn start_proxy() -> TestProxy {
    let origin = Origin::start(OriginReply::Json("{}")).await;
    let flags = FlagsDir::passthrough(&origin.url());
    flags.edit("pointsman.yaml", |text| {
        format!("{text}limits: {{ first_byte_ms: 400, body_idle_ms: 400, connect_ms: 400 }}\n")
    });
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    TestProxy { pointsman: Pointsman::start(&start).await, origin, _dir: dir, _flags: flags }
}

impl TestProxy {
    async fn get(&self) -> RawReply {
        let request = "GET /x HTTP/1.1\r\nhost: shop.example\r\n\r\n";
        RawConnection::connect(self.pointsman.listen).await.send(request).await.reply().await
    }
}

fn check_problem(reply: &RawReply, status: u16) {
    assert_eq!(reply.status, status, "{reply:?}");
    assert_eq!(reply.header("x-pointsman-source"), Some("proxy"));
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_legacy_is_a_504_in_time() {
    let mut proxy = start_proxy().await;
    proxy.origin.script(OriginReply::Stall, 1);
    let begun = Instant::now();
    check_problem(&proxy.get().await, 504);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    proxy.origin.script(OriginReply::Slow(Duration::from_millis(50), "{}"), 1);
    assert_eq!(proxy.get().await.status, 200);
    assert_eq!(proxy.pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_that_closes_is_a_502_and_a_cut_body_is_never_completed() {
    let mut proxy = start_proxy().await;
    proxy.origin.script(OriginReply::Close, 1);
    let closed = proxy.get().await;
    // Legacy closed a new connection without sending a byte: whether it saw the request is unknown.
    check_problem(&closed, 502);
    for reply in [OriginReply::CutMidBody, OriginReply::CutMidChunks] {
        proxy.origin.script(reply.clone(), 1);
        let request = "GET /x HTTP/1.1\r\nhost: shop.example\r\n\r\n";
        let bytes = RawConnection::connect(proxy.pointsman.listen).await.send(request).await.read_to_close().await;
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.ends_with("0\r\n\r\n") || text.contains("content-length: 9\r\n");
        assert!(!whole, "{reply:?} was passed on as whole: {text}");
    }
    assert_eq!(proxy.get().await.status, 200);
    assert_eq!(proxy.pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_legacy_is_a_502() {
    let flags = FlagsDir::passthrough("http://127.0.0.1:1");
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let request = "GET /x HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    check_problem(&RawConnection::connect(pointsman.listen).await.send(request).await.reply().await, 502);
    assert_eq!(pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_stay_on_their_hop() {
    let mut proxy = start_proxy().await;
    let request = "GET /x?a=%20 HTTP/1.1\r\nhost: shop.example\r\nconnection: keep-alive, x-mine\r\nx-mine: 1\r\n\
                   te: trailers\r\nproxy-authorization: secret\r\nx-forwarded-for: 6.6.6.6\r\nx-kept: yes\r\n\r\n";
    let reply = RawConnection::connect(proxy.pointsman.listen).await.send(request).await.reply().await;
    assert_eq!(reply.status, 200);
    let seen = proxy.origin.seen().remove(0);
    assert_eq!(seen.line, "GET /x?a=%20 HTTP/1.1");
    assert_eq!(seen.header("x-kept"), Some("yes"));
    assert_eq!(seen.header("host"), Some("shop.example"));
    for removed in ["x-mine", "proxy-authorization"] {
        assert_eq!(seen.header(removed), None, "{removed} was passed on");
    }
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "the client's own value is not trusted");
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert!(seen.header("via").is_some() && seen.header("traceparent").is_some());
    assert_eq!(proxy.pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_waits_for_100_continue_and_arrives_whole() {
    let mut proxy = start_proxy().await;
    let mut raw = RawConnection::connect(proxy.pointsman.listen).await;
    raw.send("POST /up HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 6\r\n\r\n").await;
    let reply = raw.reply().await;
    assert_eq!(reply.status, 100);
    let reply = raw.send("upload").await.reply().await;
    assert_eq!(reply.status, 200);
    assert_eq!(proxy.origin.seen()[0].body, b"upload");
    assert_eq!(proxy.pointsman.stop().await, Some(0));
}
