//! What does a body cost on its way? Nothing: frames go by as they come.
//!
//! [`InBody`] goes to legacy, [`OutBody`] to the client. Always true: no frame is held back, and none is kept unless
//! somebody asked for a copy; an error on one side becomes an error on the other, so that a message that was cut is
//! never completed. What happens when a reply ends is settled when its body is dropped: by then hyper has the last
//! frame.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::capture::Tee;
use super::clock::{Clock, now};
use super::legacy::Lease;
use super::meter::Finish;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The copy of a request's body that is taken while it streams.
#[derive(Default)]
pub(super) struct RequestCapture {
    pub bytes: BytesMut,
    pub bytes_max: usize,
    pub too_large: bool,
    /// When the last byte went by.
    pub ended: Option<u64>,
}

impl RequestCapture {
    fn take(&mut self, frame: &Bytes) {
        if self.too_large || self.bytes.len() + frame.len() > self.bytes_max {
            self.too_large = true;
            self.bytes = BytesMut::new();
        } else {
            // A copy: a slice would keep the whole read buffer alive.
            self.bytes.extend_from_slice(frame);
        }
    }
}

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
pub(super) struct InBody {
    source: Source,
    account: Option<Account>,
    tee: Option<Arc<Mutex<RequestCapture>>>,
}

impl InBody {
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

    fn ended(&mut self) {
        if let Some(tee) = &self.tee {
            tee.lock().unwrap_or_else(PoisonError::into_inner).ended = Some(now());
        }
        if let Some(account) = self.account.take() {
            account.clock.request_ended(account.turn);
        }
    }
}

impl Body for InBody {
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

enum Reply {
    Legacy(Incoming),
    Full(Option<Bytes>),
    /// Nothing, and its length must not be known: hyper drops the `content-length` of a 304 whose body it knows to
    /// be empty.
    Unmodified(bool),
}

/// A reply's body on its way to the client.
pub(super) struct OutBody {
    reply: Reply,
    lease: Option<Lease>,
    tee: Option<Box<Tee>>,
    finish: Option<Finish>,
    clock: Arc<Clock>,
    ended: bool,
}

impl OutBody {
    /// What we say ourselves, or the engine's answer.
    pub(super) fn full(bytes: Bytes, clock: Arc<Clock>, finish: Option<Finish>) -> Self {
        Self { reply: Reply::Full(Some(bytes)), lease: None, tee: None, finish, clock, ended: false }
    }
    /// Legacy's reply as it comes.
    pub(super) fn legacy(
        body: Incoming,
        lease: Lease,
        tee: Option<Box<Tee>>,
        clock: Arc<Clock>,
        finish: Option<Finish>,
    ) -> Self {
        Self { reply: Reply::Legacy(body), lease: Some(lease), tee, finish, clock, ended: false }
    }
    /// A 304 that says how long the body would be.
    pub(super) fn unmodified(mut self) -> Self {
        if self.is_end_stream() {
            self.reply = Reply::Unmodified(false);
        }
        self
    }

    fn is_whole(&self) -> bool {
        // hyper does not poll what may have no bytes.
        self.ended || self.is_end_stream() || matches!(self.reply, Reply::Unmodified(_))
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match &mut this.reply {
            Reply::Full(bytes) => {
                this.ended = true;
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Reply::Unmodified(polled) => {
                *polled = true;
                this.ended = true;
                Poll::Ready(None)
            }
            Reply::Legacy(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    this.clock.progress();
                    if frame.is_trailers() {
                        this.ended = true;
                    }
                    if let (Some(tee), Some(data)) = (&mut this.tee, frame.data_ref()) {
                        tee.take(data);
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Some(Err(e)) => {
                    if let Some(tee) = this.tee.take() {
                        tee.legacy_broke();
                    }
                    Poll::Ready(Some(Err(e.into())))
                }
                None => {
                    this.ended = true;
                    Poll::Ready(None)
                }
            },
        }
    }
    fn is_end_stream(&self) -> bool {
        match &self.reply {
            Reply::Legacy(body) => body.is_end_stream(),
            Reply::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Reply::Unmodified(polled) => *polled,
        }
    }
    fn size_hint(&self) -> SizeHint {
        match &self.reply {
            Reply::Legacy(body) => body.size_hint(),
            Reply::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Reply::Unmodified(_) => SizeHint::default(),
        }
    }
}

impl Drop for OutBody {
    fn drop(&mut self) {
        let whole = self.is_whole();
        if let Some(lease) = self.lease.take()
            && whole
            && self.clock.is_request_done()
        {
            lease.give_back();
        }
        if let Some(tee) = self.tee.take()
            && whole
        {
            tee.finish();
        }
        if let Some(finish) = self.finish.take() {
            finish.record();
        }
        if self.clock.is_request_done() {
            self.clock.enter(super::clock::Phase::Idle);
        }
    }
}
