//! Sends a request to legacy.
//!
//! Always true: a request is sent a second time only if no whole head of a reply came and a repeat is harmless: it is
//! idempotent, without a body, and its connection had been idle in the pool; or it is safe, without a body, another
//! address can take it, and the retry budget allows that. It is never sent a third time, save that hyper has returned
//! it unsent. Every failure says whether anything was sent. An address that gave no answer to a whole request is told
//! so. When legacy is slow, the limits in `wait` end the wait; when
//! the caller goes away, dropping this future closes legacy's connection.

use std::sync::Arc;

use http::header::HOST;
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;

use super::address::{Address, ConnectError, InFlight};
use super::monotonic::now;
use super::pool::Connection;
use super::request_body::RequestBody;
use super::turns::{Busy, Turn};
use super::upstream::Upstream;
use super::wait::{ConnectionWait, Overdue, Phase};

/// A connection to legacy that one exchange holds.
pub(super) struct LegacyConnection {
    connection: Connection,
    in_flight: InFlight,
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
            self.in_flight.address.keep(self.connection);
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
    upstream: &Arc<Upstream>,
    mut request: Request<RequestBody>,
    wait: &ConnectionWait,
) -> Result<(Response<Incoming>, LegacyConnection), CallError> {
    *request.version_mut() = Version::HTTP_11;
    let origin = request.uri().clone();
    let has_host = request.headers().contains_key(HOST);
    let mut must_be_new = false;
    // Why the first sending of this request, or of its copy, failed.
    let mut sent_before = None;
    // Addresses that gave no connection or no answer to this request.
    let mut tried = Vec::new();
    upstream.start();
    upstream.retry_budget.count_request();
    let mut turn = match &upstream.turns {
        Some(turns) => {
            wait.enter(Phase::OwnDeadline);
            Some(turns.take().await.map_err(|Busy| CallError::Busy)?)
        }
        None => None,
    };
    loop {
        let asked_at = now();
        let connected = upstream.connection(&mut tried, must_be_new, asked_at).await;
        let (mut connection, in_flight, reused) = match (connected, sent_before.take()) {
            (Ok(connected), before) => {
                sent_before = before;
                connected
            }
            (Err(_), Some(before)) => return Err(CallError::Closed(before)),
            (Err(why), None) => return Err(CallError::Unreachable(why)),
        };
        let target = &in_flight.address.target;
        if let Some(uri) = target.uri(&origin) {
            *request.uri_mut() = uri;
        }
        if !has_host {
            request.headers_mut().insert(HOST, target.authority.clone());
        }
        let is_first = sent_before.is_none();
        let may_go_elsewhere = is_first && !reused && request.method().is_safe() && upstream.has_another(&tried);
        let mut repeat = if is_first && (reused || may_go_elsewhere) { repeatable(&request) } else { None };
        wait.set_first_byte_limit(upstream.first_byte);
        let sent = now();
        wait.start_sending();
        let awaited = Awaited { address: &in_flight.address, wait };
        let sending = connection.sender.try_send_request(request).await;
        drop(awaited);
        let mut failed = match sending {
            Ok(response) => {
                in_flight.address.answered();
                let connecting = sent.saturating_sub(asked_at);
                return Ok((
                    response,
                    LegacyConnection { connection, in_flight, connecting, sent, reusable: true, turn: turn.take() },
                ));
            }
            Err(failed) => failed,
        };
        if reused {
            // The idle connection was closed meanwhile. After one such failure a new connection is opened.
            must_be_new = true;
            if let Some(untouched) = failed.take_message() {
                request = untouched;
                continue;
            }
            if let Some(copy) = repeat.take().filter(|_| is_closed(failed.error())) {
                request = copy;
                sent_before = Some(failed.into_error());
                continue;
            }
        }
        // A service may refuse a body before all of it has come, and close.
        if wait.is_request_done() {
            in_flight.address.unanswered();
        }
        if let Some(copy) = repeat.filter(|_| may_go_elsewhere && is_closed(failed.error()))
            && upstream.retry_budget.take()
        {
            upstream.retries.increment(1);
            request = copy;
            sent_before = Some(failed.into_error());
            tried.push(in_flight.address.clone());
            continue;
        }
        let error = failed.into_error();
        return Err(match is_closed(&error) {
            true => CallError::Closed(error),
            false => CallError::Invalid(error),
        });
    }
}

/// A request whose answer is awaited. If the wait ends because it is too long, the address is told so.
struct Awaited<'a> {
    address: &'a Arc<Address>,
    wait: &'a ConnectionWait,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        // A service may be slow to take a body because its client is slow to send it.
        let is_late = matches!(self.wait.overdue_reported(), Some(Overdue::FirstByte | Overdue::Total));
        if is_late && self.wait.is_request_done() {
            self.address.unanswered();
        }
    }
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
