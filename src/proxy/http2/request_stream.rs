//! The body of a request on a stream of HTTP/2.
//!
//! Always true:
//! - The flow-control window is opened again only for bytes that were taken, so that at most one window of bytes waits.
//! - A body of declared length is complete once it has that length, any other body only with END_STREAM. A reset or the
//!   end of the connection before is an error.
//! - Trailers cannot carry the header fields for clients' certificates, nor fields that frame or route a request.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use crate::proxy::removed_fields::remove_identity;
use crate::proxy::wait::ConnectionWait;

/// Whether the body has been asked for, so that a client that waits for `100 Continue` should get it.
#[derive(Default)]
pub(super) struct BodyAsked(AtomicBool);

impl BodyAsked {
    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The body of a request.
pub(in crate::proxy) struct RequestStream {
    stream: RecvStream,
    wait: Arc<ConnectionWait>,
    /// The header fields for clients' certificates.
    identity_headers: Vec<HeaderName>,
    asked: Arc<BodyAsked>,
    /// How many bytes of the declared length have not come yet; `None` without a declared length.
    missing: Option<u64>,
    is_data_done: bool,
}

impl RequestStream {
    /// `length` is the declared length.
    pub(super) fn new(
        stream: RecvStream,
        length: Option<u64>,
        wait: Arc<ConnectionWait>,
        identity_headers: Vec<HeaderName>,
    ) -> (Self, Arc<BodyAsked>) {
        let asked = Arc::<BodyAsked>::default();
        let body = Self { stream, wait, identity_headers, asked: asked.clone(), missing: length, is_data_done: false };
        (body, asked)
    }

    fn strip_trailers(&self, trailers: &mut HeaderMap) {
        for name in [CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
            trailers.remove(name);
        }
        remove_identity(trailers, &self.identity_headers);
    }
}

impl Body for RequestStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if !this.asked.is_asked() {
            this.asked.0.store(true, Relaxed);
            // The stream's own future sends `100 Continue`.
            this.wait.waker.wake();
        }
        while !this.is_data_done {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // Releasing the window fails only for more than was received.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.missing = this.missing.map(|missing| missing.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => this.is_data_done = true,
            }
        }
        match ready!(this.stream.poll_trailers(cx)) {
            Ok(Some(mut trailers)) => {
                this.strip_trailers(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }
    fn is_end_stream(&self) -> bool {
        // END_STREAM may come later, in a frame of its own; a body of the declared length is complete without it.
        self.missing == Some(0) || self.stream.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        match self.missing {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(missing) => SizeHint::with_exact(missing),
            None => SizeHint::default(),
        }
    }
}
