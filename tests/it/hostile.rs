//! Malicious request heads and bodies: refused, or passed on unchanged, within the bounds on memory.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method, Request};
use http_body_util::Full;
use pointsman::demo::http::Client;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::raw_connection::RawConnection;
use crate::support::test_system::{TestSystem, id, some_order};
use crate::support::{FlagsDir, Pointsman, WAIT_MAX, checker};

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_never_reach_legacy() {
    let origin = Origin::start(OriginReply::Json("{}")).await;
    let flags = FlagsDir::passthrough(&origin.url());
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let heads = [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: 0x5",
        "content-length: -1",
        "content-length : 5",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: gzip",
        "host: b\r\ncontent-length: 5",
        "x: a\rb\r\ncontent-length: 5",
        "x: a\0b\r\ncontent-length: 5",
        " folded: x\r\ncontent-length: 5",
    ];
    for head in heads {
        let request = format!("POST /x HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\nhello{smuggled}");
        let answer = RawConnection::connect(pointsman.listen)
            .await
            .send(&request)
            .await
            .close_sending()
            .await
            .read_to_close()
            .await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{head:?} got {text}");
    }
    let requests = [
        "GET /x HTTP/1.1\r\n\r\n".to_owned(),
        "GET /x HTTP/0.9\r\n\r\n".to_owned(),
        "GET /x\r\n\r\n".to_owned(),
        "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("GET /x HTTP/1.1\r\nhost: a\r\n{}\r\n", "x-h: y\r\n".repeat(200)),
        format!("GET /x HTTP/1.1\r\nhost: a\r\nx-big: {}\r\n\r\n", "y".repeat(200_000)),
    ];
    for request in &requests {
        let answer = RawConnection::connect(pointsman.listen)
            .await
            .send(request)
            .await
            .close_sending()
            .await
            .read_to_close()
            .await;
        let text = String::from_utf8_lossy(&answer);
        let shown: String = request.chars().take(80).collect();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{shown:?} got {text}");
    }
    let seen = origin.seen();
    assert!(seen.is_empty(), "reached legacy: {:?}", seen.iter().map(|s| &s.line).collect::<Vec<_>>());
    let fine = RawConnection::connect(pointsman.listen)
        .await
        .send("GET /fine HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .reply()
        .await;
    assert_eq!(fine.status, 200);
    assert_eq!(pointsman.stop().await, Some(0));
}

/// Requests that the proxy answers itself leave a count and a line in the log.
#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_are_counted_and_logged_by_reason() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", gone.local_addr().expect("an address"));
    drop(gone);
    let flags = FlagsDir::passthrough(&url);
    let strict = "{ id: strict, match: { method: GET, path: /strict }, legacy: shop, paths: strict }";
    flags.write("routes/strict.yaml", &format!("routes: [ {strict} ]\n"));
    let dir = tempfile::tempdir().expect("a directory");
    let start = Start::in_memory(flags.path(), dir.path());
    let mut pointsman = Pointsman::start(&start).await;
    let large = format!("GET /x HTTP/1.1\r\nhost: a\r\nx-big: {}\r\n\r\n", "y".repeat(200_000));
    let broken = "POST /x HTTP/1.1\r\nhost: a\r\nexpect: more\r\ncontent-length: 0\r\n\r\n";
    for (request, status, reason) in [
        ("GET /x HTTP/1.1\r\nhost : a\r\n\r\n", 400, "malformed-head"),
        (&large, 431, "head-too-large"),
        ("GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "ambiguous-request"),
        ("GET /strict%2F HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bad-path"),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 501, "no-tunnel"),
        ("TRACE /x HTTP/1.1\r\nhost: a\r\n\r\n", 501, "no-trace"),
        (broken, 417, "expectation-failed"),
        ("GET /x HTTP/1.1\r\nhost: a\r\n\r\n", 502, "legacy-unreachable"),
    ] {
        let reply = RawConnection::connect(pointsman.listen).await.send(request).await.reply().await;
        assert_eq!(reply.status, status, "{reason}");
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(body.contains(&format!("urn:pointsman:problem:{reason}")), "{reason}: {body}");
        let labels = [("route", "default"), ("reason", reason)];
        pointsman.until_metric(reason, |metrics| metrics.sum("pointsman_refusals_total", &labels) == 1.0).await;
        let line = pointsman.log().lines().find(|line| line.contains(reason)).map(str::to_owned);
        assert!(line.as_ref().is_some_and(|line| line.contains("left_out")), "{reason}: {line:?}");
    }
    // Six of eight: hyper answers the two heads that it cannot read before there is a request to count. A reply counts
    // once its last byte was written, which may be after the client has read it.
    let by_proxy = [("route", "default"), ("answered_by", "proxy")];
    let answered = |metrics: &crate::support::Metrics| metrics.sum("pointsman_requests_total", &by_proxy);
    pointsman.until_metric("all answers", |metrics| answered(metrics) == 6.0).await;
    assert_eq!(pointsman.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_paths_do_not_bypass_a_route() {
    let system = TestSystem::start().await;
    system.climb_to("shadow").await;
    for path in ["/orders%2F1", "//orders", "/orders//1/cancel", "/x/%2e%2e%2Forders"] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}");
        let answer = RawConnection::connect(system.pointsman.listen).await.send(request).await.reply().await;
        assert!(answer.status == 400 || answer.status == 404, "{path}: {}", answer.status);
    }
    let offered = |m: &crate::support::Metrics| m.sum("pointsman_offered_total", &[("route", "orders.create")]);
    let before = offered(&system.pointsman.metrics().await);
    // Dot segments are resolved: this is /orders, and its route applies.
    let body = some_order(1).to_string();
    let length = body.len();
    let request = format!(
        "POST /x/../orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let answer = RawConnection::connect(system.pointsman.listen).await.send(request).await.reply().await;
    assert_eq!(answer.status, 201);
    system.record_order(serde_json::from_slice(&answer.body).expect("JSON"));
    system.pointsman.until_metric("the offer", |m| offered(m) > before).await;
    system.finish().await;
}

/// In `off` too, retries of requests that the engine took and requests for its instances go to the engine: no other
/// spelling of the method or the path, and no `Connection` field, makes one reach legacy.
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_do_not_bypass_keys_and_pins_in_off() {
    let system = TestSystem::start().await;
    system.climb_to("live").await;
    let body = some_order(1);
    let reply = system.send_with(Method::POST, "/orders", &[("idempotency-key", "kept")], &body).await;
    let order = reply.expect("a reply").json();
    system.record_order(order.clone());
    system.lower("off").await;
    let served = system.legacy.served();
    let (id, body) = (id(&order), body.to_string());
    let spelled = |method: &str, path: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nidempotency-key: kept\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (method, path) in [
        ("POST", "//orders".to_owned()),
        ("POST", "/%2Forders".to_owned()),
        ("POST", "/orders;v=1".to_owned()),
        ("POST", "/x/..;/orders".to_owned()),
        ("GET", format!("/orders//{id}")),
        ("GET", format!("/orders%2F{id}")),
        ("GET", format!("/orders/{id};v=1")),
        ("POST", format!("/orders/{id}//cancel")),
        ("post", "/orders".to_owned()),
        ("get", format!("/orders/{id}")),
        // A field that `Connection` names would be removed before the retry key is read.
        ("POST", "/orders HTTP/1.1\r\nconnection: idempotency-key\r\nx-rest:".to_owned()),
    ] {
        let request = spelled(method, &path);
        let answer = RawConnection::connect(system.pointsman.listen).await.send(request).await.reply().await;
        assert_eq!(answer.status, 400, "{method} {path}");
    }
    let again =
        RawConnection::connect(system.pointsman.listen).await.send(spelled("POST", "/orders")).await.reply().await;
    let again: serde_json::Value = serde_json::from_slice(&again.body).expect("JSON");
    assert_eq!(again["id"], order["id"], "the engine took it");
    assert_eq!(system.legacy.served(), served);
    system.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_hostile_bodies_are_answered_by_legacy_and_counted() {
    let system = TestSystem::start().await;
    system.climb_to("shadow").await;
    let base = system.pointsman.resident_kib();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![b' '; 1 << 20]).expect("memory takes it");
    }
    let bomb = bomb.finish().expect("memory takes it");
    let bodies: [(&str, Vec<u8>, Option<&str>); 5] = [
        ("no JSON", b"{\"items\": [".to_vec(), None),
        ("deep JSON", deep.into_bytes(), None),
        ("a gzip bomb", bomb, Some("gzip")),
        ("just over the capture cap", vec![b' '; (1 << 20) + 1], None),
        ("8 MiB", vec![b'x'; 8 << 20], None),
    ];
    let client = Client::new(WAIT_MAX);
    for (what, body, encoding) in bodies {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/orders", system.pointsman.url()))
            .header("content-type", "application/json");
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        let reply = client.send(request).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(reply.status.is_client_error(), "{what}: legacy refuses it itself: {}", reply.status);
    }
    system
        .pointsman
        .until_metric("everything to be settled", |m| {
            checker::check_balance(m);
            let waiting = m.sum("pointsman_shadow_queue_depth", &[]) + m.sum("pointsman_shadow_in_flight", &[]);
            waiting == 0.0 && m.sum("pointsman_offered_total", &[("route", "orders.create")]) >= 5.0
        })
        .await;
    let grown = system.pointsman.resident_kib().saturating_sub(base);
    assert!(grown < 200 << 10, "grew by {grown} KiB");
    system.finish().await;
}
