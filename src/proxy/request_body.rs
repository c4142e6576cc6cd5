//! The body of a request to legacy.
//!
//! Always true: frames are passed on as they come, and copied only where a copy was asked for; an error on the client's
//! side becomes an error on legacy's side, so that a truncated request is never completed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use super::body_copy::BodyCopy;
use super::client_body::ClientBody;
use super::monotonic::now;
use super::request_buffer::BufferedBytes;
use super::wait::ConnectionWait;
use crate::limits::KEPT_BODY_BYTES_MAX;

/// Reports the progress of a request's body to its connection's wait.
#[derive(Clone)]
pub(super) struct BodyProgress {
    pub wait: Arc<ConnectionWait>,
    pub exchange_number: u32,
}

enum Source {
    Empty,
    /// A body that is streamed from the client.
    Incoming(ClientBody),
    /// A body that was read completely: its bytes and its trailers.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// A body of which a part was read; the rest is streamed from the client.
    Prefixed(Option<Bytes>, ClientBody),
    /// A body that may be sent again: first the kept part, then the rest.
    Kept(KeptReader),
}

/// The body of a request to legacy.
pub(super) struct RequestBody {
    source: Source,
    progress: Option<BodyProgress>,
    copy: Option<Arc<Mutex<BodyCopy>>>,
    /// The part of `request_buffers_bytes_max` that the body's buffered bytes use; given back when this is dropped.
    _buffered: Option<BufferedBytes>,
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { source: Source::Empty, progress: None, copy: None, _buffered: None }
    }
    /// Creates a body that is streamed from the client.
    pub(super) fn streamed(body: ClientBody, progress: BodyProgress, copy: Option<Arc<Mutex<BodyCopy>>>) -> Self {
        Self { source: Source::Incoming(body), progress: Some(progress), copy, _buffered: None }
    }
    /// Creates a body that was read completely before, for one of these reasons:
    /// - The engine was to get the request, and gave it back.
    /// - The body was compared with that of a request which the engine has under another credential.
    /// - `buffer_request` asks for it.
    pub(super) fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { source: Source::Whole(Some(bytes), trailers), progress: None, copy: None, _buffered: None }
    }
    /// Creates a body of which `prefix` was read before and the rest is streamed.
    pub(super) fn prefixed(prefix: Bytes, rest: ClientBody, progress: BodyProgress) -> Self {
        Self { source: Source::Prefixed(Some(prefix), rest), progress: Some(progress), copy: None, _buffered: None }
    }

    /// Returns the same body, set up so that what is passed on is kept and can be sent again.
    pub(super) fn kept(self) -> (Self, RepeatableBody) {
        let kept = RepeatableBody::new(self);
        (Self { source: Source::Kept(kept.reader()), progress: None, copy: None, _buffered: None }, kept)
    }
    /// Returns the body from its beginning: first what was passed on before, then the rest; `None` if it was not kept.
    pub(super) fn resend(kept: &RepeatableBody) -> Option<Self> {
        Some(Self { source: Source::Kept(kept.new_reader()?), progress: None, copy: None, _buffered: None })
    }

    /// Holds the reservation for the body's buffered bytes until the body is dropped.
    pub(super) fn with_reservation(self, buffered: Option<BufferedBytes>) -> Self {
        Self { _buffered: buffered, ..self }
    }

    /// Copies the body while it is passed on; what was read before is copied at once.
    pub(super) fn copied_to(mut self, copy: Option<Arc<Mutex<BodyCopy>>>) -> Self {
        if let Some(copy) = copy {
            let mut bytes_copy = copy.lock().unwrap_or_else(PoisonError::into_inner);
            match &self.source {
                Source::Whole(bytes, _) => {
                    bytes.iter().for_each(|bytes| bytes_copy.take(bytes));
                    bytes_copy.ended = Some(now());
                }
                Source::Prefixed(prefix, _) => prefix.iter().for_each(|bytes| bytes_copy.take(bytes)),
                Source::Empty | Source::Incoming(_) | Source::Kept(_) => {}
            }
            drop(bytes_copy);
            self.copy = Some(copy);
        }
        self
    }

    fn on_end(&mut self) {
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
            Source::Kept(kept) => return kept.poll_frame(cx),
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
                    self.on_end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                if let Some(progress) = self.progress.take() {
                    progress.wait.on_request_error(progress.exchange_number);
                }
                Poll::Ready(Some(Err(e)))
            }
            Poll::Ready(None) => {
                self.on_end();
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
            Source::Kept(kept) => kept.is_end_stream(),
        }
    }
    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Incoming(body) => body.size_hint(),
            Source::Whole(bytes, None) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Source::Whole(_, Some(_)) | Source::Prefixed(..) => SizeHint::default(),
            Source::Kept(kept) => kept.size_hint(),
        }
    }
}

/// A body whose passed-on part is kept, up to [`KEPT_BODY_BYTES_MAX`].
pub(super) struct RepeatableBody(Arc<Mutex<ReplayBuffer>>);

struct ReplayBuffer {
    body: RequestBody,
    /// The part that was passed on; `None` once it is too large to be kept.
    passed: Option<Passed>,
    /// The number of the current reader; earlier readers get an error.
    reader: usize,
}

#[derive(Default)]
struct Passed {
    data: Vec<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// Reads a [`RepeatableBody`] from its beginning.
struct KeptReader {
    kept: Arc<Mutex<ReplayBuffer>>,
    number: usize,
    /// The number of kept frames that it has read.
    at: usize,
}

impl RepeatableBody {
    fn new(body: RequestBody) -> Self {
        Self(Arc::new(Mutex::new(ReplayBuffer { body, passed: Some(Passed::default()), reader: 0 })))
    }
    fn reader(&self) -> KeptReader {
        KeptReader { kept: self.0.clone(), number: 0, at: 0 }
    }
    /// Returns a new reader; the previous one can read no more.
    fn new_reader(&self) -> Option<KeptReader> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.passed.as_ref()?;
        kept.reader += 1;
        Some(KeptReader { kept: self.0.clone(), number: kept.reader, at: 0 })
    }
}

impl KeptReader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let kept = &mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.reader != self.number {
            return Poll::Ready(Some(Err("the body is sent over another connection".into())));
        }
        if let Some(passed) = &kept.passed {
            if let Some(data) = passed.data.get(self.at) {
                self.at += 1;
                return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
            }
            if passed.ended {
                let trailers = passed.trailers.clone().filter(|_| self.at == passed.data.len());
                self.at += 1;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
        }
        let polled = Pin::new(&mut kept.body).poll_frame(cx);
        let Some(passed) = &mut kept.passed else { return polled };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) if passed.bytes + data.len() <= KEPT_BODY_BYTES_MAX => {
                    passed.bytes += data.len();
                    passed.data.push(data.clone());
                    self.at += 1;
                }
                (None, Some(trailers)) => {
                    (passed.trailers, passed.ended) = (Some(trailers.clone()), true);
                    self.at += 1;
                }
                _ => kept.passed = None,
            },
            Poll::Ready(Some(Err(_))) => kept.passed = None,
            Poll::Ready(None) => passed.ended = true,
        }
        polled
    }
    fn is_end_stream(&self) -> bool {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = |passed: &Passed| passed.data.len() + usize::from(passed.trailers.is_some());
        let has_more = kept.passed.as_ref().is_some_and(|passed| self.at < frames(passed));
        !has_more && kept.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // The inner body's hint leaves out the bytes that it has yielded, so it fits only before the first frame.
        match &kept.passed {
            Some(passed) if passed.data.is_empty() && self.at == 0 => kept.body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
