//! The body of a client's request, by the protocol that carries it.
//!
//! Always true: frames come as the client sent them; an error means that the message is not complete and never will be.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower::BoxError;

use super::http2::RequestStream;

/// The body of a client's request.
pub(super) enum ClientBody {
    /// The body of an HTTP/1.1 request.
    Http1(Incoming),
    /// The body of a request on an HTTP/2 stream.
    Http2(RequestStream),
    /// The request has no body: what follows its head is not HTTP.
    None,
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            ClientBody::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            ClientBody::Http2(body) => Pin::new(body).poll_frame(cx),
            ClientBody::None => Poll::Ready(None),
        }
    }
    fn is_end_stream(&self) -> bool {
        match self {
            ClientBody::Http1(body) => body.is_end_stream(),
            ClientBody::Http2(body) => body.is_end_stream(),
            ClientBody::None => true,
        }
    }
    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Http1(body) => body.size_hint(),
            ClientBody::Http2(body) => body.size_hint(),
            ClientBody::None => SizeHint::with_exact(0),
        }
    }
}
