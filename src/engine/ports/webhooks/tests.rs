//! What the answer of a receiver means.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use http::Uri;

use super::*;
use crate::flag::Service;
use crate::store::tests::{run_id, webhook_message};
use crate::transport::AddressRegistry;

/// Delivers a message to a receiver that answers with this head and keeps the connection open.
async fn deliver_to(head: &'static str) -> DeliveryResult {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let receiver = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4_096]).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    });
    let receiver_at = Receiver::at_url("ops", &url, &Limits::default()).unwrap_or_else(|why| panic!("{why:?}"));
    let connections = ConnectionPool::new(&Limits::default());
    let result = deliver(&connections, &webhook_message(run_id(1), 1), &receiver_at).await;
    drop(receiver.await.unwrap());
    result
}

#[tokio::test]
async fn the_status_decides_even_if_the_body_does_not_come() {
    let delivered = deliver_to("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await;
    assert_eq!(delivered, DeliveryResult::Delivered);
    let refused = deliver_to("HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n").await;
    assert_eq!(refused, DeliveryResult::Refused("it answered 404".into()));
}

/// The URLs at which a message is sent, if its service has these base URLs; `None`: it is not in the files.
fn urls(message: &WebhookMessage, bases: Option<&[&'static str]>) -> Result<Vec<String>, DeliveryResult> {
    let limits = Limits::default();
    let service = |bases: &[&'static str]| Service::at("ops", bases.iter().map(|base| Uri::from_static(base)));
    let service_limits = bases.map(|bases| ServiceLimits::of(&service(bases), &limits, &AddressRegistry::new()));
    let receiver = receiver_of(message, service_limits.as_ref(), &limits)?;
    Ok(receiver.uris.iter().map(Uri::to_string).collect())
}

#[tokio::test]
async fn a_message_goes_to_the_addresses_that_its_service_has_now() {
    let message = webhook_message(run_id(1), 1);
    let moved: &[&str] = &["http://moved:80", "http://other/base"];
    assert_eq!(urls(&message, Some(moved)).unwrap(), ["http://moved:80/hook", "http://other/base/hook"]);
    assert_eq!(urls(&message, None).unwrap(), [&*message.url], "the service is no longer in the files");
    let earlier = WebhookMessage { path: None, ..message.clone() };
    assert_eq!(urls(&earlier, Some(moved)).unwrap(), [&*message.url], "of an older version");
    let stayed: &[&str] = &["http://moved:80", "http://127.0.0.1"];
    assert_eq!(urls(&earlier, Some(stayed)).unwrap(), ["http://moved:80/hook", "http://127.0.0.1/hook"]);
    let secure = WebhookMessage { url: "https://127.0.0.1/hook".into(), ..message.clone() };
    let unnamed = WebhookMessage { url: String::new(), ..message };
    for unsendable in [secure, unnamed] {
        let why = urls(&unsendable, None);
        assert!(matches!(why, Err(DeliveryResult::Failed(_))), "it waits for the files: {why:?}");
    }
}
