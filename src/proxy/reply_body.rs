//! The body of a reply to the client.
//!
//! Always true:
//! - Frames are passed on as they come. A body of this process (a problem, the engine's answer) leaves in bounded
//!   pieces, each when the socket has taken those before it, so that no protocol copies or buffers all of it.
//! - An error on the side of legacy, or of the service whose reply is streamed, becomes an error on the client's side,
//!   so that a truncated reply is never completed. The error is passed on when the socket has taken everything before
//!   it, because at an error hyper and h2 discard what they still buffer.
//!
//! When hyper, or `http2::stream`, drops the body, it has the last frame. Then legacy's connection returns to the pool,
//! and what remains to be done waits in `completion` until the socket has taken the last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderName;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, MAX_FORWARDS,
    SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower::BoxError;

use super::admission::Admission;
use super::answered_exchange::AnsweredExchange;
use super::completion::Completion;
use super::compression::CompressedBody;
use super::copied_exchange::CopiedReply;
use super::cut_reason::CutReason;
use super::exchange_record::ExchangeRecord;
use super::legacy::LegacyConnection;
use super::route_metrics::AnsweredBy;
use super::wait::ConnectionWait;
use super::workflow_gate::InProgress;
use crate::exchange::OpenWriteGuard;
use crate::limits::REPLY_PIECE_BYTES_MAX;
use crate::transport::CutReply;

type PolledFrame = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Fields that say how a message is framed, routed, authenticated or read, which a client must know before its body:
/// they have no place in trailers (RFC 9110, 6.5.1). hyper leaves them out of those of HTTP/1.1.
static NOT_IN_TRAILERS: [HeaderName; 12] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

enum Reply {
    Legacy(Incoming),
    /// The engine's answer, whose body a service is still sending.
    Streamed(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
    /// What is left of a body that is known.
    Full(Bytes),
    /// The engine's answer, compressed.
    Compressed(Box<CompressedBody>),
    /// Empty, but of unknown length: hyper drops the `content-length` of a 304 whose body it knows to be empty. Holds
    /// whether the body was polled.
    Unmodified(bool),
}

/// The body of a reply to the client.
pub(super) struct ReplyBody {
    reply: Reply,
    connection: Option<LegacyConnection>,
    copied_reply: Option<Box<CopiedReply>>,
    answered: Option<AnsweredExchange>,
    wait: Arc<ConnectionWait>,
    /// Bytes that were passed on.
    bytes: u64,
    ended: bool,
    /// An error that is passed on when the socket has taken what was passed on before it.
    error: Option<BoxError>,
}

impl ReplyBody {
    /// The proxy's problem document or empty answer, or the engine's answer.
    pub(super) fn full(bytes: Bytes, wait: Arc<ConnectionWait>, answered: Option<AnsweredExchange>) -> Self {
        Self::new(Reply::Full(bytes), wait, answered)
    }
    /// Legacy's reply, streamed.
    pub(super) fn legacy(
        body: Incoming,
        connection: LegacyConnection,
        copied_reply: Option<Box<CopiedReply>>,
        wait: Arc<ConnectionWait>,
        answered: Option<AnsweredExchange>,
    ) -> Self {
        let mut this = Self::new(Reply::Legacy(body), wait, answered);
        (this.connection, this.copied_reply) = (Some(connection), copied_reply);
        this
    }
    /// The engine's answer, with the body that a service is still sending.
    pub(super) fn streamed(
        body: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
        wait: Arc<ConnectionWait>,
        answered: AnsweredExchange,
    ) -> Self {
        Self::new(Reply::Streamed(body), wait, Some(answered))
    }
    fn new(reply: Reply, wait: Arc<ConnectionWait>, answered: Option<AnsweredExchange>) -> Self {
        // The head is passed on together with this body.
        wait.flush.note_passed_on();
        Self { reply, connection: None, copied_reply: None, answered, wait, bytes: 0, ended: false, error: None }
    }
    /// The same body, compressed while it is sent.
    pub(super) fn compressed(mut self) -> Self {
        if let Reply::Full(bytes) = &mut self.reply {
            self.reply = Reply::Compressed(Box::new(CompressedBody::new(std::mem::take(bytes))));
        }
        self
    }
    /// The body of a 304 whose head declares a length.
    pub(super) fn unmodified(mut self) -> Self {
        if self.is_end_stream() {
            self.reply = Reply::Unmodified(false);
        }
        self
    }

    /// Keeps what the request holds, and its record for the access log, until the exchange has ended.
    pub(super) fn set_held(&mut self, admission: Option<Box<Admission>>, record: Option<ExchangeRecord>) {
        if let Some(answered) = &mut self.answered {
            (answered.admission, answered.record) = (admission, record);
        }
    }

    /// Counts the exchange as in progress until it has ended. An exchange whose body is streamed does not count: its
    /// run has ended, nothing of it is stored, and a hand-over must not wait for a long download.
    pub(super) fn set_in_progress(&mut self, in_progress: InProgress) {
        if let Some(answered) = self.answered.as_mut().filter(|_| !matches!(self.reply, Reply::Streamed(_))) {
            answered.in_progress = Some(in_progress);
        }
    }

    /// Counts the request as an open write, which may change something, until the exchange has ended.
    pub(super) fn set_write(&mut self, write: OpenWriteGuard) {
        if let Some(answered) = self.answered.as_mut() {
            answered.write = Some(write);
        }
    }

    /// Returns which arm gave this answer, if the answer is to say so.
    pub(super) fn exposed_arm(&self) -> Option<AnsweredBy> {
        self.answered.as_ref().filter(|answered| answered.exposes_arm).map(|answered| answered.answered_by)
    }

    /// Notes what was polled of the reply of legacy or of a service, and passes it on. `broken` is the reason to record
    /// if the sender cuts the reply.
    fn relay(&mut self, polled: PolledFrame, broken: CutReason, cx: &mut Context<'_>) -> PolledFrame {
        match self.wait.note_reply_poll(polled) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    NOT_IN_TRAILERS.iter().for_each(|name| drop(trailers.remove(name)));
                }
                self.wait.progress();
                self.wait.flush.note_passed_on();
                if let Some(rates) = self.wait.rates() {
                    rates.legacy_sent(frame.data_ref().map_or(0, Bytes::len));
                }
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if frame.is_trailers() {
                    self.ended = true;
                }
                if let (Some(copied_reply), Some(data)) = (&mut self.copied_reply, frame.data_ref()) {
                    copied_reply.take(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let is_client_gone = self.wait.is_request_broken();
                if let Some(answered) = &mut self.answered {
                    answered.cut = Some(if is_client_gone { CutReason::ClientGone } else { broken });
                }
                if let Some(copied_reply) = self.copied_reply.take() {
                    copied_reply.on_legacy_error();
                }
                self.error = Some(error);
                self.poll_error(cx)
            }
            Poll::Ready(None) => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    /// Returns the error that has come, once the socket has taken what was passed on before it.
    fn poll_error(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        match self.error.is_some() && self.wait.flush.is_due(cx) {
            true => Poll::Pending,
            false => Poll::Ready(self.error.take().map(Err)),
        }
    }

    fn is_whole(&self) -> bool {
        // hyper does not poll a body that must be empty.
        self.ended || self.is_end_stream() || matches!(self.reply, Reply::Unmodified(_))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let this = &mut *self;
        if this.error.is_some() {
            return this.poll_error(cx);
        }
        match &mut this.reply {
            Reply::Full(bytes) => {
                let piece = bytes.split_to(bytes.len().min(REPLY_PIECE_BYTES_MAX));
                this.ended = bytes.is_empty();
                this.bytes += piece.len() as u64;
                Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
            }
            Reply::Compressed(body) => {
                let piece = body.next();
                this.ended = body.is_at_end();
                this.bytes += piece.as_ref().map_or(0, |piece| piece.as_ref().map_or(0, |bytes| bytes.len() as u64));
                Poll::Ready(piece.transpose().map(|piece| piece.map(Frame::data).map_err(Into::into)))
            }
            Reply::Unmodified(polled) => {
                *polled = true;
                this.ended = true;
                Poll::Ready(None)
            }
            Reply::Legacy(body) => {
                let polled = match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(None) if this.connection.as_ref().is_some_and(|legacy| legacy.is_cut(body)) => {
                        Poll::Ready(Some(Err(CutReply.into())))
                    }
                    polled => polled.map_err(Into::into),
                };
                this.relay(polled, CutReason::LegacyReplyBroken, cx)
            }
            Reply::Streamed(body) => {
                let polled = body.as_mut().poll_frame(cx);
                this.relay(polled, CutReason::ServiceReplyBroken, cx)
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        match &self.reply {
            Reply::Legacy(body) => body.is_end_stream(),
            Reply::Streamed(body) => body.is_end_stream(),
            Reply::Full(bytes) => bytes.is_empty(),
            Reply::Compressed(body) => body.is_at_end(),
            Reply::Unmodified(polled) => *polled,
        }
    }
    fn size_hint(&self) -> SizeHint {
        match &self.reply {
            Reply::Legacy(body) => body.size_hint(),
            Reply::Streamed(body) => body.size_hint(),
            Reply::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Reply::Compressed(_) | Reply::Unmodified(_) => SizeHint::default(),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        let whole = self.is_whole();
        if let Some(connection) = self.connection.take()
            && whole
            && self.wait.is_request_done()
        {
            connection.return_to_pool();
        }
        if let Some(record) = self.answered.as_mut().and_then(|answered| answered.record.as_mut()) {
            let (reply_bytes, request_bytes) = (self.bytes, self.wait.request_bytes());
            record.note(|record| (record.reply_bytes, record.request_bytes) = (reply_bytes, request_bytes));
        }
        // The copy is dropped if the reply was cut. `ended` notes the time before the instance can be adopted: a reply
        // that ended before the adoption does not give out the instance's id a second time.
        let copied = self.copied_reply.take().filter(|_| whole).map(CopiedReply::ended);
        // The count at legacy ends before the client has the reply and may send the instance's next request.
        let admission =
            self.answered.as_mut().and_then(|answered| Some((answered.status, answered.admission.as_mut()?)));
        if let Some((status, mut at_legacy)) = admission.and_then(|(status, held)| Some((status, held.at_legacy.take()?)))
            && whole
            && matches!(self.reply, Reply::Legacy(_) | Reply::Unmodified(_))
            // After a 5xx reply, legacy or a server behind it may still be performing the request.
            && !status.is_server_error()
        {
            at_legacy.ended();
        }
        let completion = Completion::new(self.wait.exchange_count(), copied, self.answered.take());
        self.wait.unflushed.push(completion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_ours_leaves_in_bounded_pieces_of_the_same_memory() {
        let whole = Bytes::from(vec![7; 3 * REPLY_PIECE_BYTES_MAX + 1]);
        let mut body = ReplyBody::full(whole.clone(), Arc::new(ConnectionWait::new()), None);
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sent = 0;
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
            let piece = frame.unwrap().into_data().unwrap();
            assert_eq!(piece.as_ptr(), whole[sent..].as_ptr(), "not copied");
            sent += piece.len();
            assert!(piece.len() <= REPLY_PIECE_BYTES_MAX && body.bytes == sent as u64);
            assert_eq!((body.is_end_stream(), body.is_whole()), (sent == whole.len(), sent == whole.len()));
        }
        assert_eq!(sent, whole.len());
    }
}
