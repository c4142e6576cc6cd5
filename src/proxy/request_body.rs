//! A request's body on its way to legacy.
//!
//! Always true: frames go by as they come, none is held back, and none is kept unless somebody asked for a copy; an error
//! on the client's side becomes an error on legacy's, so that a request that was cut is never completed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::capture::RequestCapture;
use super::clock::{Clock, now};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The exchange that a request's body belongs to.
pub(super) struct Account {
    pub clock: Arc<Clock>,
    pub turn: u32,
}

enum Source {
    Empty,
    Incoming(Incoming),
    Whole(Option<Bytes>, Option<HeaderMap>),
    Prefixed(Option<Bytes>, Incoming),
}

/// A request's body on its way to legacy.
pub(super) struct RequestBody {
    source: Source,
    account: Option<Account>,
    tee: Option<Arc<Mutex<RequestCapture>>>,
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { source: Source::Empty, account: None, tee: None }
    }
    /// As it comes.
    pub(super) fn streamed(body: Incoming, account: Account, tee: Option<Arc<Mutex<RequestCapture>>>) -> Self {
        Self { source: Source::Incoming(body), account: Some(account), tee }
    }
    /// Read before, for an arm that gave it back.
    pub(super) fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { source: Source::Whole(Some(bytes), trailers), account: None, tee: None }
    }
    /// Read in part before, and the rest as it comes.
    pub(super) fn prefixed(prefix: Bytes, rest: Incoming, account: Account) -> Self {
        Self { source: Source::Prefixed(Some(prefix), rest), account: Some(account), tee: None }
    }

    /// What goes by is copied; what was read before is copied at once.
    pub(super) fn copied_to(mut self, tee: Option<Arc<Mutex<RequestCapture>>>) -> Self {
        if let Some(tee) = tee {
            let mut copy = tee.lock().unwrap_or_else(PoisonError::into_inner);
            match &self.source {
                Source::Whole(bytes, _) => {
                    bytes.iter().for_each(|bytes| copy.take(bytes));
                    copy.ended = Some(now());
                }
                Source::Prefixed(prefix, _) => prefix.iter().for_each(|bytes| copy.take(bytes)),
                Source::Empty | Source::Incoming(_) => {}
            }
            drop(copy);
            self.tee = Some(tee);
        }
        self
    }

    fn ended(&mut self) {
        if let Some(tee) = &self.tee {
            tee.lock().unwrap_or_else(PoisonError::into_inner).ended = Some(now());
        }
        if let Some(account) = self.account.take() {
            account.clock.request_ended(account.turn);
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
                if let Some(account) = &self.account {
                    account.clock.client_is_slow(account.turn);
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(account) = &self.account {
                    account.clock.uploaded(account.turn);
                }
                if let (Some(tee), Some(data)) = (&self.tee, frame.data_ref()) {
                    tee.lock().unwrap_or_else(PoisonError::into_inner).take(data);
                }
                if end || frame.is_trailers() {
                    self.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                if let Some(account) = self.account.take() {
                    account.clock.request_broke(account.turn);
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
