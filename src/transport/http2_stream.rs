//! One request on an HTTP/2 connection, and why it has no reply.
//!
//! Always true: a request has its permit until its reply and its body have both ended, because the service counts its
//! stream for as long; a request that was certainly not processed is told from one that may have been.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use metrics::counter;
use tokio::sync::Notify;

use super::http2_body::PermittedBody;
use super::http2_connection::Http2Connection;
use super::stream::Received;
use crate::names::ServiceName;

/// What all connections to one address share.
#[derive(Default)]
pub(super) struct AddressStreams {
    /// Notified when a connection may get another request.
    pub(super) freed: Notify,
    pub(super) requests_max: RequestsMax,
}

/// How many requests one connection gets: learned from connections that the service ended early.
///
/// The limit is assumed after two connections within [`REMEMBERED_FOR`] have ended before all of their requests were
/// processed. A single one would prove nothing: the service may restart, or close idle connections. The limit is
/// forgotten after the same time, because the service may have been changed.
#[derive(Default)]
pub(super) struct RequestsMax(Mutex<ObservedEnds>);

#[derive(Default)]
struct ObservedEnds {
    /// When a connection last ended before all of its requests were processed.
    last: Option<Instant>,
    /// The limit, and when it was last observed.
    max: Option<(usize, Instant)>,
}

/// How long the early end of a connection counts.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

impl RequestsMax {
    /// Returns how many requests a connection may get now.
    pub(super) fn current(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).current().unwrap_or(usize::MAX)
    }

    /// Records that a connection has ended before all of its requests were processed: this many were, or still are.
    fn ended_after(&self, processed: usize) {
        if processed == 0 {
            return;
        }
        let mut observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        if observed.last.replace(at).is_some_and(|last| last.elapsed() < REMEMBERED_FOR) {
            let max = observed.current().map_or(processed, |max| max.max(processed));
            observed.max = Some((max, at));
        }
    }
}

impl ObservedEnds {
    fn current(&self) -> Option<usize> {
        self.max.filter(|(_, at)| at.elapsed() < REMEMBERED_FOR).map(|(max, _)| max)
    }
}

/// Why a request was certainly not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProcessed {
    /// Nothing of the request was sent: its connection was closing.
    Unsent,
    /// The service ends the connection, and has not begun to process the request (GOAWAY).
    GoingAway,
    /// The service has refused the request's stream (REFUSED_STREAM).
    Refused,
}

impl NotProcessed {
    /// Counts a request that this service has not processed, for this reason.
    pub fn count(self, service: &ServiceName) {
        let reason = match self {
            Self::Unsent => "unsent",
            Self::GoingAway => "going_away",
            Self::Refused => "refused",
        };
        counter!("pointsman_service_not_processed_total", "service" => service.to_string(), "reason" => reason)
            .increment(1);
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub struct SendError<B> {
    /// The error.
    pub error: hyper::Error,
    /// The request, if nothing of it was sent.
    pub unsent: Option<Box<Request<B>>>,
}

impl<B> SendError<B> {
    /// Returns why the request was certainly not processed (RFC 9113, section 8.7); `None` if it may have been.
    pub fn not_processed(&self) -> Option<NotProcessed> {
        if self.unsent.is_some() {
            return Some(NotProcessed::Unsent);
        }
        let error = http2_error(&self.error).filter(|error| error.is_remote())?;
        match error.reason() {
            _ if error.is_go_away() => Some(NotProcessed::GoingAway),
            Some(Reason::REFUSED_STREAM) if error.is_reset() => Some(NotProcessed::Refused),
            _ => None,
        }
    }
}

impl<B> From<TrySendError<Request<B>>> for SendError<B> {
    fn from(mut failed: TrySendError<Request<B>>) -> Self {
        let unsent = failed.take_message().map(Box::new);
        Self { error: failed.into_error(), unsent }
    }
}

/// Whether what came over an HTTP/2 connection violates the protocol. Every other failure is an end of the connection,
/// or of the stream.
pub fn is_http2_violation(error: &hyper::Error) -> bool {
    http2_error(error).is_some_and(|error| error.is_library())
}

fn http2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error).and_then(|error| error.downcast_ref::<h2::Error>())
}

/// The error of a reply that was cut: see [`Http2Stream::is_cut`].
#[derive(Debug, thiserror::Error)]
#[error("the service reset the stream before the end of its reply")]
pub struct CutReply;

/// One request's permit to use a connection, until it is dropped.
struct StreamPermit<B> {
    connection: Arc<Http2Connection<B>>,
    streams: Arc<AddressStreams>,
}

impl<B> Drop for StreamPermit<B> {
    fn drop(&mut self) {
        self.connection.leave();
        self.streams.freed.notify_one();
    }
}

/// One request on an HTTP/2 connection.
pub struct Http2Stream<B> {
    permit: Arc<StreamPermit<B>>,
}

impl<B> Http2Stream<B> {
    pub(super) fn on(connection: Arc<Http2Connection<B>>, streams: Arc<AddressStreams>) -> Self {
        connection.enter();
        Self { permit: Arc::new(StreamPermit { connection, streams }) }
    }
    /// Returns the counter of the bytes that come over the connection.
    pub fn received(&self) -> &Received {
        self.permit.connection.received()
    }
    /// Whether the reply whose body hyper has ended, without trailers, was cut: the service has reset the stream before
    /// its end with NO_ERROR or CANCEL, which hyper takes for the end of the body.
    ///
    /// Such a reset is found on the connection, and h2 does not tell whether a stream was reset before or after its
    /// end. So once a stream of the connection was cut, a whole reply counts as cut too if the service resets its
    /// stream after it, because it wants no more of the request. Such a connection gets no further request.
    pub fn is_cut(&self, body: &Incoming) -> bool {
        !body.is_end_stream() && self.permit.connection.has_cut_streams()
    }
    /// Returns the connection of the stream.
    pub fn connection(&self) -> &Arc<Http2Connection<B>> {
        &self.permit.connection
    }
}

impl<B> Http2Stream<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    /// Sends a request and awaits the head of its reply. Dropping the future, or the reply's body, resets the stream.
    ///
    /// # Errors
    /// There is no reply.
    pub async fn send(&self, request: Request<B>) -> Result<Response<Incoming>, SendError<B>> {
        let StreamPermit { connection, streams } = &*self.permit;
        let request = request.map(|body| PermittedBody { body, _permit: self.permit.clone() });
        let sending = connection.hand_over(|| connection.sender.clone().try_send_request(request));
        let failed = match sending.await {
            Ok(response) => return Ok(response),
            Err(failed) => SendError::from(failed),
        };
        let unsent = failed.unsent.map(|request| Box::new(request.map(|sent| sent.body)));
        let failed = SendError { error: failed.error, unsent };
        if matches!(failed.not_processed(), Some(NotProcessed::Unsent | NotProcessed::GoingAway)) {
            // Other requests must not get the connection until hyper notices its end, a moment later.
            let is_first = connection.retire();
            if let Some(processed) = connection.requests_processed().filter(|_| is_first) {
                streams.requests_max.ended_after(processed);
            }
        }
        Err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_that_ends_early_sets_no_limit() {
        let max = RequestsMax::default();
        max.ended_after(7);
        assert_eq!(max.current(), usize::MAX);
        // One that has processed nothing shows nothing either.
        max.ended_after(0);
        assert_eq!(max.current(), usize::MAX);
        max.ended_after(7);
        assert_eq!(max.current(), 7);
        max.ended_after(5);
        assert_eq!(max.current(), 7, "another one has shown that it takes more");
        max.ended_after(9);
        assert_eq!(max.current(), 9);
    }
}
