//! One connection to a service, as a call uses it.
//!
//! Always true: an HTTP/1.1 connection belongs to one call, which polls it itself, without a task in between; an HTTP/2
//! connection has a task, and calls share it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version, response};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tower::BoxError;

use super::protocol::{Endpoint, Protocol, with_sources};
use crate::transport::{ConnectError, CutReply, Http2Stream, NotProcessed, SendError, ServiceStream};

/// A reply's head and its body. `Err` holds the first bytes of a body that is larger than the bound.
pub(in crate::engine) type Reply = (response::Parts, Result<Bytes, Bytes>);

/// Why there is no reply.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum ExchangeError {
    /// Nothing of the request was sent.
    NotSent(String),
    /// The service says that it has not processed the request, or its connection ended before it was sent (HTTP/2).
    NotProcessed(NotProcessed, String),
    /// Some of it may have been sent.
    CutOff(String),
}

/// The bounds of the head of a reply.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct ReplyHeadBounds {
    /// The most bytes.
    pub bytes: u32,
    /// The most fields, over HTTP/1.1, in the form that hyper takes.
    pub fields: Option<usize>,
}

/// How an exchange ended.
pub(in crate::engine) enum Exchanged {
    /// A complete reply came.
    Whole(Reply),
    /// The head of a reply came whose body is not read here.
    Head(response::Parts, Incoming),
    /// The head of the reply did not come in time.
    HeadTimedOut,
    /// The body of the reply did not end in time.
    BodyTimedOut,
}

/// One connection.
pub(in crate::engine) struct PooledConnection {
    connection: ProtocolConnection,
    /// Whether it was taken from the pool.
    pub reused: bool,
    /// Whether the head of a reply to the last request has come.
    pub is_answered: bool,
    /// When it is to be replaced by a new one; `None` if never.
    retires: Option<Instant>,
    /// Where it leads to.
    pub endpoint: Endpoint,
}

#[allow(clippy::large_enum_variant)] // a box would cost each call of the usual kind an allocation
enum ProtocolConnection {
    Http1 {
        sender: SendRequest<Full<Bytes>>,
        /// `None` once it is closed.
        connection: Option<Connection<TokioIo<ServiceStream>, Full<Bytes>>>,
    },
    Http2(Http2Stream<Full<Bytes>>),
}

impl PooledConnection {
    /// Begins HTTP/1.1 on a new connection.
    pub async fn http1(
        stream: ServiceStream,
        endpoint: Endpoint,
        age: Duration,
        reply_heads: ReplyHeadBounds,
    ) -> Result<Self, ConnectError> {
        let mut builder = http1::Builder::new();
        builder.max_header_size(usize::try_from(reply_heads.bytes).unwrap_or(usize::MAX));
        if let Some(max) = reply_heads.fields {
            builder.max_headers(max);
        }
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| ConnectError::Handshake(with_sources(&error)))?;
        // Spread, so that connections that were opened together do not end together.
        let retires = (!age.is_zero()).then(|| Instant::now() + age.mul_f64(1.0 - fastrand::f64() / 10.0));
        let connection = ProtocolConnection::Http1 { sender, connection: Some(connection) };
        Ok(Self { connection, reused: false, is_answered: false, retires, endpoint })
    }

    /// One stream of an HTTP/2 connection, for one request.
    pub fn http2(stream: Http2Stream<Full<Bytes>>, endpoint: Endpoint, reused: bool) -> Self {
        Self { connection: ProtocolConnection::Http2(stream), reused, is_answered: false, retires: None, endpoint }
    }

    /// Whether it is old enough to be replaced by a new one.
    pub fn is_retired(&self) -> bool {
        self.retires.is_some_and(|retires| retires <= Instant::now())
    }

    /// Sends a request and reads its reply, with a body of at most `body_bytes_max` bytes, which is not read if
    /// `is_streamed` says so. If the returned future is dropped before it completes, the connection is in the middle of
    /// a message and cannot be used again.
    ///
    /// # Errors
    /// There is no complete reply. The request is returned where it was certainly not processed.
    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
        head_deadline: Instant,
        deadline: Instant,
        is_streamed: impl FnOnce(&response::Parts, &Incoming) -> bool,
    ) -> Result<Exchanged, (ExchangeError, Option<Request<Full<Bytes>>>)> {
        let (head, mut body) = match self.send(request, head_deadline).await? {
            Some(reply) => reply.into_parts(),
            None => return Ok(Exchanged::HeadTimedOut),
        };
        if is_streamed(&head, &body) {
            return Ok(Exchanged::Head(head, body));
        }
        let whole = timeout_at(deadline, self.read_whole(&mut body, body_bytes_max));
        match whole.await {
            Ok(Ok(body)) => Ok(Exchanged::Whole((head, body))),
            Ok(Err(why)) => Err((ExchangeError::CutOff(why), None)),
            Err(_) => Ok(Exchanged::BodyTimedOut),
        }
    }

    /// Sends a request and waits for the head of its reply; `None` if that does not come in time.
    ///
    /// # Errors
    /// The same as of [`Self::exchange`].
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Option<Response<Incoming>>, (ExchangeError, Option<Request<Full<Bytes>>>)> {
        self.is_answered = false;
        let (reply, copy) = match &mut self.connection {
            ProtocolConnection::Http1 { sender, connection } => {
                let mut send = pin!(sender.try_send_request(request));
                let sent = poll_fn(|cx| {
                    drive(connection, cx);
                    send.as_mut().poll(cx)
                });
                (timeout_at(deadline, sent).await.map(|reply| reply.map_err(SendError::from)), None)
            }
            ProtocolConnection::Http2(stream) => {
                let (copy, received) = (request.clone(), stream.received().count());
                let reply = timeout_at(deadline, stream.send(to_http2(request, &self.endpoint))).await;
                if reply.is_err() && stream.received().count() == received {
                    // Nothing at all was received: the service may be gone, and later calls would only time out too.
                    stream.connection().retire();
                }
                (reply, Some(copy))
            }
        };
        match reply {
            Err(_) => Ok(None),
            Ok(Ok(reply)) => {
                self.is_answered = true;
                Ok(Some(reply))
            }
            Ok(Err(error)) => Err(not_replied(error, copy)),
        }
    }

    /// Reads a body. The inner `Err` holds the first bytes of a body that is larger than the bound.
    ///
    /// # Errors
    /// It was cut off.
    pub async fn read_whole(&mut self, body: &mut Incoming, bytes_max: usize) -> Result<Result<Bytes, Bytes>, String> {
        let mut whole = BytesMut::new();
        loop {
            let frame = poll_fn(|cx| self.poll_body(body, cx)).await;
            let Some(frame) = frame else { return Ok(Ok(whole.freeze())) };
            if let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() {
                if whole.len() + data.len() > bytes_max {
                    whole.extend_from_slice(&data[..data.len().min(bytes_max.saturating_sub(whole.len()))]);
                    return Ok(Err(whole.freeze()));
                }
                whole.extend_from_slice(&data);
            }
        }
    }

    /// Polls the body of the reply that came over it.
    pub fn poll_body(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Polling the body registers its demand, driving the connection reads, and the second poll takes the data.
        let first = Pin::new(&mut *body).poll_frame(cx).map_err(Into::into);
        match &mut self.connection {
            ProtocolConnection::Http2(stream) if matches!(first, Poll::Ready(None)) && stream.is_cut(body) => {
                Poll::Ready(Some(Err(CutReply.into())))
            }
            ProtocolConnection::Http1 { connection, .. } if first.is_pending() => {
                drive(connection, cx);
                Pin::new(body).poll_frame(cx).map_err(Into::into)
            }
            ProtocolConnection::Http1 { .. } | ProtocolConnection::Http2(_) => first,
        }
    }

    /// Whether it is an HTTP/1.1 connection that is open and ready for a request, as far as this side knows. Also marks
    /// it as reused: only connections that have carried a request are asked.
    pub fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        self.reused = true;
        match &mut self.connection {
            ProtocolConnection::Http1 { sender, connection } => {
                drive(connection, cx);
                connection.is_some() && sender.is_ready()
            }
            ProtocolConnection::Http2(_) => false,
        }
    }
}

/// Says why there is no reply, and returns the request where it was certainly not processed. `copy` is the request, if
/// it went over HTTP/2.
fn not_replied(
    failed: SendError<Full<Bytes>>,
    copy: Option<Request<Full<Bytes>>>,
) -> (ExchangeError, Option<Request<Full<Bytes>>>) {
    let why = with_sources(&failed.error);
    match (copy, failed.not_processed(), failed.unsent) {
        (Some(copy), Some(reason), _) => (ExchangeError::NotProcessed(reason, why), Some(copy)),
        (None, _, Some(unsent)) => (ExchangeError::NotSent(why), Some(*unsent)),
        _ => (ExchangeError::CutOff(why), None),
    }
}

/// Lets the connection read and write. An error of the connection shows in the exchange that is in progress.
fn drive(connection: &mut Option<Connection<TokioIo<ServiceStream>, Full<Bytes>>>, cx: &mut Context<'_>) {
    if let Some(alive) = connection
        && Pin::new(alive).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// Brings a request into the form that goes over a connection: the target without the host, which goes into a header.
pub(in crate::engine) fn to_origin_form(request: &mut Request<Full<Bytes>>, protocol: &Protocol) {
    let host = protocol.host(request.uri());
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if let Some(host) = host {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    *request.uri_mut() = Uri::from(path);
}

/// Brings a request in origin form into the form of HTTP/2, whose target has the authority in place of `Host`.
fn to_http2(mut request: Request<Full<Bytes>>, endpoint: &Endpoint) -> Request<Full<Bytes>> {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    let mut parts = Parts::default();
    parts.scheme = Some(if endpoint.is_https { Scheme::HTTPS } else { Scheme::HTTP });
    let named = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.authority = Some(named.unwrap_or_else(|| endpoint.authority.clone()));
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}
