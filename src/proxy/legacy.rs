//! Sends a request to legacy.
//!
//! Always true: a request is sent again only where its first connection had been idle in the pool, no byte of a reply
//! came, and a repeat is harmless: hyper returned the request unsent, or it is idempotent and without a body. Every
//! failure says whether anything was sent. When legacy is slow, the limits in `wait` end the wait; when the caller goes
//! away, dropping this future closes legacy's connection.

use std::sync::Arc;

use http::header::HOST;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;

use super::monotonic::now;
use super::pool::{ConnectError, Connection, Target, Upstream};
use super::request_body::RequestBody;
use super::turns::{Busy, Turn};
use super::wait::{ConnectionWait, Phase};

/// A connection to legacy that one exchange holds.
pub(super) struct LegacyConnection {
    connection: Connection,
    target: Arc<Target>,
    /// Microseconds that it took to get a connection.
    pub connecting: u64,
    /// When the request was handed to the connection.
    pub sent: u64,
    /// Whether the connection may return to the pool after this exchange.
    pub reusable: bool,
    /// Its turn at the service.
    pub turn: Option<Turn>,
}

impl LegacyConnection {
    /// Returns the connection for reuse. To be called only when both messages have ended completely.
    pub(super) fn return_to_pool(self) {
        if self.reusable {
            self.target.return_to_pool(self.connection);
        }
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum CallError {
    /// The service has as many requests as it may get: nothing was sent.
    Busy,
    /// There was no connection: nothing was sent.
    Unreachable(ConnectError),
    /// The request was sent, in part or whole, and the connection ended before a reply.
    Closed(hyper::Error),
    /// The bytes that came back are not an HTTP reply.
    Invalid(hyper::Error),
}

/// Sends a request to legacy and awaits the head of the reply.
pub(super) async fn call(
    upstream: &Upstream,
    mut request: Request<RequestBody>,
    wait: &ConnectionWait,
) -> Result<(Response<Incoming>, LegacyConnection), CallError> {
    *request.version_mut() = Version::HTTP_11;
    let origin = request.uri().clone();
    let has_host = request.headers().contains_key(HOST);
    let mut stale = 0;
    let mut turn = match &upstream.turns {
        Some(turns) => {
            wait.enter(Phase::OwnDeadline);
            Some(turns.take().await.map_err(|Busy| CallError::Busy)?)
        }
        None => None,
    };
    loop {
        let asked_at = now();
        let (mut connection, target, reused) = connection(upstream, stale > 0).await?;
        if let Some(uri) = target.uri(&origin) {
            *request.uri_mut() = uri;
        }
        if !has_host {
            request.headers_mut().insert(HOST, target.authority.clone());
        }
        let repeat = if reused { repeatable(&request) } else { None };
        wait.set_first_byte_limit(upstream.first_byte);
        let sent = now();
        wait.start_sending();
        let mut failed = match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let connecting = sent.saturating_sub(asked_at);
                return Ok((
                    response,
                    LegacyConnection { connection, target, connecting, sent, reusable: true, turn: turn.take() },
                ));
            }
            Err(failed) => failed,
        };
        if reused {
            // The idle connection was closed meanwhile. After one such failure a new connection is opened.
            stale += 1;
            if let Some(untouched) = failed.take_message() {
                request = untouched;
                continue;
            }
            if let Some(copy) = repeat.filter(|_| is_closed(failed.error())) {
                request = copy;
                continue;
            }
        }
        let error = failed.into_error();
        return Err(match is_closed(&error) {
            true => CallError::Closed(error),
            false => CallError::Invalid(error),
        });
    }
}

async fn connection(upstream: &Upstream, must_be_new: bool) -> Result<(Connection, Arc<Target>, bool), CallError> {
    let mut why = None;
    for target in upstream.in_turn() {
        if !must_be_new && let Some(connection) = target.take().await {
            return Ok((connection, target.clone(), true));
        }
        match target.connect(upstream.connect).await {
            Ok(connection) => return Ok((connection, target.clone(), false)),
            Err(e) => why = Some(e),
        }
    }
    let nowhere = || ConnectError::Refused(std::io::Error::other("the service has no address"));
    Err(CallError::Unreachable(why.unwrap_or_else(nowhere)))
}

/// A copy of a request, if sending the request twice is harmless.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    if !idempotent || !http_body::Body::is_end_stream(request.body()) {
        return None;
    }
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Whether the connection ended before a reply.
fn is_closed(error: &hyper::Error) -> bool {
    let io = || std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>()).is_some();
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_body_write_aborted() || io()
}
