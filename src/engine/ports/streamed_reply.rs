//! A reply whose body goes to the caller of its run while the service sends it.
//!
//! Always true: until the body has ended or is dropped, the call keeps its connection and its permit (`calls_max`), and
//! its address counts it as in flight. Bytes are read from the service only when the body is polled. An HTTP/1.1
//! connection whose body ended as a whole returns to the pool, and any other one is closed; of an HTTP/2 connection
//! only the stream ends. A body that the service cuts ends with an error.
//!
//! The body is polled by the proxy, on a thread of its own runtime; socket and pool belong to the engine's.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue, response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tower::BoxError;

use super::connections::ConnectionPool;
use super::pooled_connection::PooledConnection;
use super::service::CallPermit;
use crate::exchange::{ServiceReply, StreamedBody};
use crate::transport::RequestInFlight;

/// A reply whose head has come.
pub(super) struct OpenReply {
    body: Incoming,
    connection: PooledConnection,
    pool: Arc<ConnectionPool>,
    /// The call, as its address counts it.
    in_flight: RequestInFlight,
    /// The names of the trailers that may follow.
    trailer: Vec<HeaderValue>,
}

impl OpenReply {
    pub fn new(
        head: &response::Parts,
        body: Incoming,
        connection: PooledConnection,
        pool: &Arc<ConnectionPool>,
        in_flight: RequestInFlight,
    ) -> Self {
        let trailer = head.headers.get_all(TRAILER).iter().cloned().collect();
        Self { body, connection, pool: pool.clone(), in_flight, trailer }
    }

    /// Makes the body available to the run's caller. The permit is held until the body has ended. To be called in the
    /// engine's runtime.
    pub fn hand_over(self, receiver: &StreamedBody, permit: CallPermit) {
        let Self { body, connection, pool, in_flight, trailer } = self;
        let mut fields = HeaderMap::new();
        fields.extend(trailer.into_iter().map(|value| (Some(TRAILER), value)));
        let idle = permit.service().body_idle();
        let call = OpenCall { body, connection, pool, runtime: Handle::current(), permit, _in_flight: in_flight };
        let service = call.permit.service().name().clone();
        let body = Box::pin(ServiceBody { call: Some(call), bytes: 0 });
        receiver.set(ServiceReply { service, body, fields, idle });
    }
}

/// What a call holds until its reply's body has ended.
struct OpenCall {
    body: Incoming,
    connection: PooledConnection,
    pool: Arc<ConnectionPool>,
    runtime: Handle,
    permit: CallPermit,
    _in_flight: RequestInFlight,
}

impl OpenCall {
    /// The body has ended as a whole.
    fn end(self, cx: &mut Context<'_>) {
        let Self { body, connection, pool, runtime, .. } = self;
        let _entered = runtime.enter();
        pool.put_back(connection, cx);
        drop(body);
    }
}

/// The body.
struct ServiceBody {
    /// `None` once it has ended.
    call: Option<OpenCall>,
    /// Bytes that came.
    bytes: u64,
}

impl ServiceBody {
    /// Notes that the body ends before it is whole.
    fn log_cut(&self, why: &str) {
        if let Some(call) = &self.call {
            let service = call.permit.service().name();
            tracing::debug!(%service, bytes = self.bytes, why, "a streamed reply ended before its body was whole");
        }
    }
}

impl Body for ServiceBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(call) = &mut this.call else { return Poll::Ready(None) };
        let frame = ready!(call.connection.poll_body(&mut call.body, cx));
        let has_ended = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || call.body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if let Some(Ok(frame)) = &frame {
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        if has_ended {
            this.call.take().into_iter().for_each(|call| call.end(cx));
        }
        if let Some(Err(_)) = &frame {
            this.log_cut("the service cut it");
            this.call = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.call.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.call.as_ref().map_or_else(|| SizeHint::with_exact(0), |call| call.body.size_hint())
    }
}

impl Drop for ServiceBody {
    fn drop(&mut self) {
        self.log_cut("the caller's exchange ended first");
    }
}
