//! What the metrics say of services that get forwarded requests.

use std::net::SocketAddr;

use h2::Reason;
use http::Method;
use pointsman::demo::http::Client;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::origin::{Origin, OriginReply};
use crate::support::process::Start;
use crate::support::{FlagsDir, LOCAL, Metrics, PATIENCE, Pointsman};

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
    let client = Client::new(PATIENCE);
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
    flags.edit("pointsman.yaml", |text| text.replace("default_legacy: shop", "default_legacy: other"));
    let is_replaced = |metrics: &Metrics| is(addresses(metrics, "other"), 1.0) && is(addresses(metrics, "shop"), 0.0);
    pointsman.until_metric("shop has no addresses", is_replaced).await;
    assert_eq!(client.json(Method::POST, &url, &[], &json!({})).await.expect("an answer").status, 200);
    assert_eq!(pointsman.stop().await, Some(0));
}
