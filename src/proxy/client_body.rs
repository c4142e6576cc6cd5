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
    /// Of HTTP/1.1.
    Http1(Incoming),
    /// Of a stream of HTTP/2.
    Http2(RequestStream),
    /// There is none: what follows is not HTTP.
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
