//! The answer to a head that a client has begun to send and does not complete while the process stops or hands over.
//!
//! Always true: no exchange of the connection is under way, and all earlier answers were flushed; nothing of the
//! request was begun, so it is safe to send it again. The connection closes after the answer. The HTTP library (hyper)
//! would close the connection without an answer, and the client would not know whether the request was carried out.
//!
//! If the client takes no bytes, or does not close, the connection is given up after [`ANSWER_WAIT_MAX`].

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::failure::HEAD_TIMEOUT;
use super::proxied_request::Client;
use super::respond::record_unfinished;
use super::socket::{Closing, Transport};

/// The most time for writing the answer and for the client to close the connection afterwards.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(500);

/// Answers 408, and closes the connection.
pub(super) async fn refuse(client: &Client, transport: &Arc<Transport>) {
    let wait = &client.wait;
    let body = record_unfinished(&client.shared.table().no_route().route_metrics);
    client.record.log_unreadable_head(client.peer, 408, HEAD_TIMEOUT);
    let head = format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         x-pointsman-source: proxy\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = [head.as_bytes(), &body].concat();
    let (mut written, mut closing) = (0, Closing::default());
    let answered = async {
        while written < answer.len() {
            written += poll_fn(|cx| transport.poll_write(wait, cx, &answer[written..])).await?;
        }
        poll_fn(|cx| transport.poll_flush(wait, cx)).await?;
        // Unread bytes of the client would cause a reset that destroys the answer on its way.
        poll_fn(|cx| closing.poll(transport, wait, cx)).await
    };
    let _ = timeout(ANSWER_WAIT_MAX, answered).await; // the client may be gone
}
