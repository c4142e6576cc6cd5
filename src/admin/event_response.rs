//! A response of server-sent events.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, header};

/// The header in which a reconnecting client names the last event that it has.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";
/// How long a client waits before it reconnects after a broken connection.
pub(super) const RECONNECT_AFTER_MS: u64 = 500;

/// The response with these blocks.
pub(super) fn event_response(blocks: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = Body::from_stream(blocks.map(Ok::<_, Infallible>)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Tells nginx not to buffer the response.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
