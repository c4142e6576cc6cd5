//! An order whose body takes long to arrive.

use std::net::SocketAddr;

use serde_json::Value;

use super::raw_connection::{RawConnection, RawReply};

/// An order whose client sends its body in two parts.
pub struct SlowOrder {
    client: RawConnection,
    rest: Vec<u8>,
}

impl SlowOrder {
    /// Sends the head, and half of the body after `100 Continue`.
    pub async fn begin(to: SocketAddr, headers: &[(&str, &str)], order: &Value) -> Self {
        let body = order.to_string().into_bytes();
        let mut client = RawConnection::connect(to).await;
        let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n{fields}expect: 100-continue\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        client.send(head).await;
        assert_eq!(client.reply().await.status, 100);
        let (half, rest) = body.split_at(body.len() / 2);
        client.send(half).await;
        Self { client, rest: rest.to_vec() }
    }
    /// Sends the rest of the body.
    pub async fn send_rest(&mut self) {
        self.client.send(std::mem::take(&mut self.rest)).await;
    }
    /// Sends the rest of the body, and waits for the answer.
    pub async fn end(mut self) -> RawReply {
        self.send_rest().await;
        self.client.reply().await
    }
}
