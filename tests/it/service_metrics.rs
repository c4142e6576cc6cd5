//! What the metrics say of services that get forwarded requests.

use std::net::SocketAddr;

use h2::Reason;
use http::Method;
use pointsman::demo::http::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::{FlagsDir, LOCAL, Metrics, Pointsman, WAIT_MAX};

/// A service over HTTP/2 that refuses every request.
async fn refusing() -> SocketAddr {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_streams_are_counted_and_a_removed_service_has_no_addresses() {
    let (address, origin) = (refusing().await, Origin::start(OriginReply::Json("{}")).await);
    let flags = FlagsDir::empty();
    let services =
        format!("services:\n  shop: {{ urls: [\"http://{address}\"], http: 2 }}\n  other: {}\n", origin.url());
    flags.write("pointsman.yaml", &format!("{services}default_legacy: shop\n"));
    let dir = tempfile::tempdir().expect("a directory");
    let (store, log) = ("memory:".into(), dir.path().join("log"));
    let mut pointsman = Pointsman::start(&Start { flags: flags.path().to_owned(), store, log, env: vec![] }).await;
    let client = Client::new(WAIT_MAX);
    let url = format!("http://{}/charges", pointsman.listen);
    let refused = client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer");
    assert_eq!(refused.status, 503);
    assert!(refused.json()["type"].as_str().is_some_and(|kind| kind.ends_with("legacy-not-processed")));
    let metrics = pointsman.metrics().await;
    let labels = [("service", "shop"), ("reason", "refused")];
    let is = |value: f64, wanted: f64| (value - wanted).abs() < 0.5;
    assert!(is(metrics.sum("pointsman_service_not_processed_total", &labels), 3.0), "it was sent three times");
    let addresses = |metrics: &Metrics, service| metrics.sum("pointsman_service_addresses", &[("service", service)]);
    assert!(is(addresses(&metrics, "shop"), 1.0));
    flags.edit("pointsman.yaml", |text| {
        let without_shop = text.lines().filter(|line| !line.starts_with("  shop:"));
        without_shop.map(|line| line.replace("default_legacy: shop", "default_legacy: other") + "\n").collect()
    });
    let is_replaced = |metrics: &Metrics| is(addresses(metrics, "other"), 1.0) && is(addresses(metrics, "shop"), 0.0);
    pointsman.until_metric("shop has no addresses", is_replaced).await;
    assert_eq!(client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer").status, 200);
    assert_eq!(pointsman.stop().await, Some(0));
}

/// Answers each request with these bytes, in pieces of a few bytes.
async fn answering(bytes: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(LOCAL).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).expect("a socket");
            tokio::spawn(async move {
                let (mut head, mut part) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut part).await {
                    head.extend_from_slice(&part[..read]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        for piece in bytes.as_bytes().chunks(23) {
                            if stream.write_all(piece).await.is_err() {
                                return;
                            }
                            tokio::task::yield_now().await;
                        }
                    }
                }
            });
        }
    });
    address
}

/// hyper's server cannot send interim replies to an HTTP/1.1 client.
#[tokio::test(flavor = "multi_thread")]
async fn interim_replies_for_a_client_of_http1_are_consumed_and_counted() {
    let address = answering(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX-Last: yes\r\nContent-Length: 41\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\n\r\nonly a body\r\n",
    )
    .await;
    let flags = FlagsDir::empty();
    flags.write("pointsman.yaml", &format!("services: {{ shop: \"http://{address}\" }}\ndefault_legacy: shop\n"));
    let dir = tempfile::tempdir().expect("a directory");
    let (store, log) = ("memory:".into(), dir.path().join("log"));
    let mut pointsman = Pointsman::start(&Start { flags: flags.path().to_owned(), store, log, env: vec![] }).await;
    for _ in 0..2 {
        let mut client = TcpStream::connect(pointsman.listen).await.expect("it listens");
        client.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("it reads");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-last: yes"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nonly a body\r\n"), "{answer}");
    }
    let metrics = pointsman.metrics().await;
    let counted = |outcome| metrics.sum("pointsman_interim_replies_total", &[("outcome", outcome)]);
    assert_eq!((counted("consumed") as u64, counted("passed") as u64), (6, 0));
    assert_eq!(pointsman.stop().await, Some(0));
}
