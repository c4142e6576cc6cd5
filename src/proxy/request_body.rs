//! The body of a request to legacy.
//!
//! Always true: frames are passed on as they come, and copied only where a copy was asked for; an error on the client's
//! side becomes an error on legacy's, so that a truncated request is never completed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::capture::BodyCopy;
use super::monotonic::now;
use super::wait::ConnectionWait;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reports the progress of a request's body to its connection's wait.
pub(super) struct BodyProgress {
    pub wait: Arc<ConnectionWait>,
    pub exchange_number: u32,
}

enum Source {
    Empty,
    Incoming(Incoming),
    Whole(Option<Bytes>, Option<HeaderMap>),
    Prefixed(Option<Bytes>, Incoming),
}

/// The body of a request to legacy.
pub(super) struct RequestBody {
    source: Source,
    progress: Option<BodyProgress>,
    copy: Option<Arc<Mutex<BodyCopy>>>,
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { source: Source::Empty, progress: None, copy: None }
    }
    /// Streamed from the client.
    pub(super) fn streamed(body: Incoming, progress: BodyProgress, copy: Option<Arc<Mutex<BodyCopy>>>) -> Self {
        Self { source: Source::Incoming(body), progress: Some(progress), copy }
    }
    /// Read completely before: for the engine, which gave the request back, or to compare it with a request that the
    /// engine has under another credential.
    pub(super) fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { source: Source::Whole(Some(bytes), trailers), progress: None, copy: None }
    }
    /// Read in part before; the rest is streamed.
    pub(super) fn prefixed(prefix: Bytes, rest: Incoming, progress: BodyProgress) -> Self {
        Self { source: Source::Prefixed(Some(prefix), rest), progress: Some(progress), copy: None }
    }

    /// Copies what is passed on; what was read before is copied at once.
    pub(super) fn copied_to(mut self, copy: Option<Arc<Mutex<BodyCopy>>>) -> Self {
        if let Some(copy) = copy {
            let mut bytes_copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
            match &self.source {
                Source::Whole(bytes, _) => {
                    bytes.iter().for_each(|bytes| bytes_copy.take(bytes));
                    bytes_copy.ended = Some(now());
                }
                Source::Prefixed(prefix, _) => prefix.iter().for_each(|bytes| bytes_copy.take(bytes)),
                Source::Empty | Source::Incoming(_) => {}
            }
            drop(bytes_copy);
            self.copy = Some(copy);
        }
        self
    }

    fn ended(&mut self) {
        if let Some(copy) = &self.copy {
            copy.lock().unwrap_or_else(PoisonError::into_inner).ended = Some(now());
        }
        if let Some(progress) = self.progress.take() {
            progress.wait.request_ended(progress.exchange_number);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let incoming = match &mut self.source {
            Source::Empty => return Poll::Ready(None),
            Source::Whole(bytes, trailers) => {
                if let Some(bytes) = bytes.take()
                    && !bytes.is_empty()
                {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                return Poll::Ready(trailers.take().map(|t| Ok(Frame::trailers(t))));
            }
            Source::Prefixed(prefix, _) if prefix.is_some() => {
                return Poll::Ready(prefix.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            Source::Prefixed(_, incoming) | Source::Incoming(incoming) => incoming,
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let end = incoming.is_end_stream();
        match polled {
            Poll::Pending => {
                if let Some(progress) = &self.progress {
                    progress.wait.set_waits_for_client(progress.exchange_number);
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(progress) = &self.progress {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    progress.wait.uploaded(progress.exchange_number, bytes);
                }
                if let (Some(copy), Some(data)) = (&self.copy, frame.data_ref()) {
                    copy.lock().unwrap_or_else(PoisonError::into_inner).take(data);
                }
                if end || frame.is_trailers() {
                    self.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                if let Some(progress) = self.progress.take() {
                    progress.wait.request_broke(progress.exchange_number);
                }
                Poll::Ready(Some(Err(e.into())))
            }
            Poll::Ready(None) => {
                self.ended();
                Poll::Ready(None)
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Incoming(body) => body.is_end_stream(),
            Source::Whole(bytes, trailers) => bytes.as_ref().is_none_or(Bytes::is_empty) && trailers.is_none(),
            Source::Prefixed(prefix, rest) => prefix.is_none() && rest.is_end_stream(),
        }
    }
    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Incoming(body) => body.size_hint(),
            Source::Whole(bytes, None) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Whole(_, Some(_)) | Source::Prefixed(..) => SizeHint::default(),
        }
    }
}
