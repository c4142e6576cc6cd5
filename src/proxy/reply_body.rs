//! A reply's body on its way to the client.
//!
//! Always true: frames go by as they come; an error on legacy's side becomes an error on the client's, so that a reply that
//! was cut is never completed. What happens when a reply ends is settled when its body is dropped: by then hyper has the
//! last frame.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::capture::Tee;
use super::clock::Clock;
use super::legacy::Lease;
use super::meter::Finish;
use super::request_body::BoxError;

enum Reply {
    Legacy(Incoming),
    Full(Option<Bytes>),
    /// Nothing, and its length must not be known: hyper drops the `content-length` of a 304 whose body it knows to
    /// be empty.
    Unmodified(bool),
}

/// A reply's body on its way to the client.
pub(super) struct ReplyBody {
    reply: Reply,
    lease: Option<Lease>,
    tee: Option<Box<Tee>>,
    finish: Option<Finish>,
    clock: Arc<Clock>,
    ended: bool,
}

impl ReplyBody {
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

impl Body for ReplyBody {
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

impl Drop for ReplyBody {
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
