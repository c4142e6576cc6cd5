//! What the answer of a receiver means.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::store::tests::{run_id, webhook_message};

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
    let client = super::receiver::webhook_client(Default::default(), Duration::from_secs(5));
    let result = deliver(&client, &webhook_message(run_id(1), 1), &url).await;
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

#[test]
fn a_message_goes_to_the_address_that_its_service_has_now() {
    let message = webhook_message(run_id(1), 1);
    assert_eq!(url_of(&message, Some("http://moved:80")).as_deref(), Some("http://moved:80/hook"));
    assert_eq!(url_of(&message, None), Some(message.url.clone()), "the service is no longer in the files");
    let earlier = WebhookMessage { path: None, ..message.clone() };
    assert_eq!(url_of(&earlier, Some("http://moved:80")), Some(message.url.clone()), "of an older version");
    assert_eq!(url_of(&WebhookMessage { url: String::new(), ..message }, None), None, "it waits for the files");
}
