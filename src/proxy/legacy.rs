//! Sends a request to legacy.
//!
//! Always true:
//! - A request is sent a second time only if it has no body, its connection ended before one byte of an answer came,
//!   and a repeat is harmless. That is so in two cases: it is idempotent, and its connection had been idle in the pool;
//!   or it is safe, another address can take it, and the retry budget allows it.
//! - Over HTTP/1.1 a request is never sent a third time, unless hyper has returned it unsent.
//! - Over HTTP/2 a request of any method is also sent again, over another connection and a bounded number of times, if
//!   the service says that it has not processed the request, or if the connection ended before the request was sent.
//! - Every failure says whether anything was sent.
//! - A completely sent request without an answer counts towards the ejection of its address.
//!
//! When legacy is slow, the limits in `wait` end the wait; when the caller goes away, dropping this future closes
//! legacy's connection.

use std::sync::Arc;

use http::header::{HOST, UPGRADE};
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;

use super::address::{ForwardedInFlight, ProxiedAddress};
use super::headers::find;
use super::kept_head::KeptHead;
use super::monotonic::{now, recent};
use super::own_connections::{ConnectionOwner, OwnConnections};
use super::pool::Connection;
use super::request_body::{RepeatableBody, RequestBody};
use super::turns::{NoTurn, Turn};
use super::upstream::Upstream;
use super::wait::{ConnectionWait, Overdue, Phase};
use crate::flag::HttpVersion;
use crate::limits::{CONNECTION_ENDED_MAX, NOT_PROCESSED_MAX};
use crate::transport::{ConnectError, Http2Connection, NotProcessed, SendError, is_http2_violation};

/// A connection to legacy that one exchange holds.
pub(super) struct LegacyConnection {
    connection: Connection,
    in_flight: ForwardedInFlight,
    /// The time that getting the connection took, in microseconds.
    pub connecting: u64,
    /// When the request was handed to the connection, in microseconds of `monotonic::now`.
    pub sent: u64,
    /// Whether the connection may return to the pool after this exchange.
    pub reusable: bool,
    /// The exchange's turn at the service.
    pub turn: Option<Turn>,
    /// Set if no other client may use the connection.
    pub owner: Option<ConnectionOwner>,
}

impl LegacyConnection {
    /// Whether the reply whose body hyper has ended was cut.
    pub(super) fn is_cut(&self, body: &Incoming) -> bool {
        match &self.connection {
            Connection::Http1(_) => false,
            Connection::Http2(stream) => stream.is_cut(body),
        }
    }
    /// Returns the connection for reuse. To be called only when request and reply have ended completely.
    pub(super) fn return_to_pool(self) {
        if let Connection::Http1(connection) = self.connection
            && self.reusable
        {
            let address = &self.in_flight.address;
            match self.owner {
                Some(owner) => owner.keep(connection, address.clone()),
                None => address.keep(connection),
            }
        }
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(super) enum CallError {
    /// The service has as many requests as it may get: nothing was sent.
    Busy,
    /// The address is a listener of this process: nothing was sent.
    OwnListener,
    /// There was no connection: nothing was sent.
    Unreachable(ConnectError),
    /// The service says that it has not processed the request, or the connection ended before it was sent (HTTP/2).
    NotProcessed,
    /// The request was sent, in part or whole, and the connection ended before a reply.
    Closed(hyper::Error),
    /// The bytes that came back are not an HTTP reply.
    Invalid(hyper::Error),
}

/// Sends a request to legacy and awaits the head of the reply. Takes the request out of `request` when it sends it.
/// `passes_interim`: the client gets interim replies.
pub(super) async fn call(
    upstream: &Arc<Upstream>,
    request: &mut Request<RequestBody>,
    wait: &ConnectionWait,
    own: &Arc<OwnConnections>,
    passes_interim: bool,
) -> Result<(Response<Incoming>, LegacyConnection), CallError> {
    let service = &upstream.service.name;
    let mut owner = own.owner_for(service, request.headers());
    *request.version_mut() = Version::HTTP_11;
    let origin = request.uri().clone();
    // The Host of legacy's own calls is our egress listener, or the host of the URL: it is replaced.
    let keeps_host = upstream.own.is_none() && find(request.headers(), &HOST).is_some();
    let mut must_be_new = false;
    // Why the first attempt to send this request, or its copy, failed.
    let mut first_error = None;
    // Addresses that gave no connection or no answer to this request.
    let mut tried = Vec::new();
    upstream.start();
    upstream.retry_budget.count_request();
    let mut turn = match &upstream.turns {
        Some(turns) => {
            wait.enter(Phase::OwnDeadline);
            Some(turns.take().await.map_err(|NoTurn| CallError::Busy)?)
        }
        None => None,
    };
    // HTTP/2 cannot express a request to switch protocols.
    let only_http1 = upstream.service.http != HttpVersion::Http1 && request.headers().contains_key(UPGRADE);
    let (mut was_sent, mut refused, mut ended) = (false, 0, 0);
    loop {
        let asked_at = now();
        let kept = match &owner {
            Some(_) if !must_be_new => own.take(service).await,
            _ => None,
        };
        let connected = match kept {
            Some((connection, in_flight)) => Ok((Connection::Http1(connection), in_flight, true)),
            None => {
                let is_own = owner.is_some();
                upstream.connection(&mut tried, must_be_new || is_own, only_http1 || is_own).await
            }
        };
        let (mut connection, in_flight, reused) = match (connected, first_error.take()) {
            (Ok(connected), before) => {
                first_error = before;
                connected
            }
            (Err(_), Some(before)) => return Err(CallError::Closed(before)),
            (Err(_), None) if refused + ended > 0 => return Err(CallError::NotProcessed),
            (Err(why), None) => return Err(CallError::Unreachable(why)),
        };
        if upstream.own.as_ref().is_some_and(|own| own.contains(in_flight.address.shared.socket)) {
            return Err(CallError::OwnListener);
        }
        let target = &in_flight.address.shared.target;
        match target.uri(&origin) {
            Some(uri) => *request.uri_mut() = uri,
            // The URI may still have the base path of the address that was tried before.
            None if was_sent => *request.uri_mut() = origin.clone(),
            None => {}
        }
        was_sent = true;
        if let Some(host) = target.host(keeps_host) {
            request.headers_mut().insert(HOST, host.clone());
        }
        let is_first = first_error.is_none();
        let may_go_elsewhere = is_first && !reused && request.method().is_safe() && upstream.has_another(&tried);
        let may_repeat = is_first && (reused || may_go_elsewhere) && is_repeatable(request);
        let sent = recent();
        wait.start_sending(sent);
        let received = connection.received().count();
        let awaited = UnansweredRequest { address: &in_flight.address, wait, multiplexed: multiplexed(&connection) };
        let is_http2 = matches!(connection, Connection::Http2(_));
        let (sending, resend, copy);
        match &mut connection {
            Connection::Http1(connection) => {
                (resend, copy) = (None, may_repeat.then(|| KeptHead::of(request)));
                if !passes_interim {
                    connection.received.count_interim_replies();
                }
                sending = connection.sender.try_send_request(std::mem::take(request)).await.map_err(SendError::from);
            }
            Connection::Http2(stream) => {
                // A copy is kept, because the service may report that it has not processed the request.
                let (mut to_send, kept) = ResendCopy::keep(std::mem::take(request));
                (resend, copy) = (Some(kept), None);
                target.to_http2(&mut to_send);
                sending = stream.send(to_send).await;
            }
        }
        drop(awaited);
        let mut failed = match sending {
            Ok(response) => {
                in_flight.address.shared.answered();
                let connecting = sent.saturating_sub(asked_at);
                let owner = own.owner_after(service, response.status(), response.headers()).or(owner.take());
                let (turn, reusable) = (turn.take(), true);
                return Ok((
                    response,
                    LegacyConnection { connection, in_flight, connecting, sent, reusable, turn, owner },
                ));
            }
            Err(failed) => failed,
        };
        if let Some(resend) = &resend
            && let Some(why) = failed.not_processed()
        {
            why.count(service);
            let may_resend = match why {
                NotProcessed::Refused => {
                    refused += 1;
                    refused < NOT_PROCESSED_MAX
                }
                NotProcessed::Unsent | NotProcessed::GoingAway => {
                    ended += 1;
                    ended < CONNECTION_ENDED_MAX
                }
            };
            let Some(copy) = resend.to_request().filter(|_| may_resend) else {
                return Err(first_error.map_or(CallError::NotProcessed, CallError::Closed));
            };
            if is_first {
                wait.mark_not_sent();
            }
            *request = copy;
            // A connection that has ended gets no more requests; one that refuses a stream may refuse the next one.
            must_be_new = why == NotProcessed::Refused;
            if must_be_new {
                tried.push(in_flight.address.clone());
                if upstream.has_another(&tried) {
                    must_be_new = false;
                } else {
                    tried.pop();
                }
            }
            continue;
        }
        // hyper reports an end within the head of an answer, or after an interim answer, as an end without an answer.
        // So the count of received bytes decides.
        let is_silent = is_closed(&failed.error, is_http2) && connection.received().count() == received;
        let mut repeat = resend
            .filter(|_| may_repeat)
            .and_then(|resend| resend.to_request())
            .or(copy.map(|mut kept| kept.request()));
        if reused {
            // The idle connection was closed meanwhile. After one such failure a new connection is opened.
            must_be_new = true;
            if let Some(untouched) = failed.unsent.take() {
                *request = *untouched;
                continue;
            }
            if let Some(copy) = repeat.take().filter(|_| is_silent) {
                *request = copy;
                first_error = Some(failed.error);
                continue;
            }
        }
        // A service may refuse a body, and close, before all of the body has come.
        if wait.is_request_done() {
            in_flight.address.shared.unanswered();
        }
        if let Some(copy) = repeat.filter(|_| may_go_elsewhere && is_silent)
            && upstream.retry_budget.take()
        {
            upstream.retries.increment(1);
            *request = copy;
            first_error = Some(failed.error);
            tried.push(in_flight.address.clone());
            continue;
        }
        return Err(match is_closed(&failed.error, is_http2) {
            true => CallError::Closed(failed.error),
            false => CallError::Invalid(failed.error),
        });
    }
}

/// A request whose answer is awaited. If the wait exceeds its limit, the request counts as unanswered by its address.
struct UnansweredRequest<'a> {
    address: &'a Arc<ProxiedAddress>,
    wait: &'a ConnectionWait,
    /// The connection, if other requests share it, and its count of received bytes when the request was handed over.
    multiplexed: Option<(Arc<Http2Connection<RequestBody>>, u64)>,
}

fn multiplexed(connection: &Connection) -> Option<(Arc<Http2Connection<RequestBody>>, u64)> {
    match connection {
        Connection::Http1(_) => None,
        Connection::Http2(stream) => Some((stream.connection().clone(), stream.received().count())),
    }
}

impl Drop for UnansweredRequest<'_> {
    fn drop(&mut self) {
        // A service may be slow to take a body because its client is slow to send it.
        let is_late = matches!(self.wait.overdue_reported(), Some(Overdue::FirstByte | Overdue::Total));
        if is_late && self.wait.is_request_done() {
            self.address.shared.unanswered();
            // Nothing at all has arrived on the connection since: the service may be gone, and later requests on it
            // would each wait for long.
            if let Some((connection, received)) = &self.multiplexed
                && connection.received().count() == *received
            {
                connection.retire();
            }
        }
    }
}

/// Whether sending a request twice is harmless.
fn is_repeatable(request: &Request<RequestBody>) -> bool {
    let idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    idempotent && http_body::Body::is_end_stream(request.body())
}

/// What is kept of a request that is sent over HTTP/2, so that it can be sent again.
struct ResendCopy {
    head: Request<()>,
    /// `None` if the request has no body.
    body: Option<RepeatableBody>,
}

impl ResendCopy {
    fn keep(request: Request<RequestBody>) -> (Request<RequestBody>, Self) {
        let head = copy_of(&request, ());
        if http_body::Body::is_end_stream(request.body()) {
            return (request, Self { head, body: None });
        }
        let (parts, body) = request.into_parts();
        let (body, kept) = body.kept();
        (Request::from_parts(parts, body), Self { head, body: Some(kept) })
    }
    /// Returns the request, to be sent again; `None` if its body was too large to be kept.
    fn to_request(&self) -> Option<Request<RequestBody>> {
        let body = match &self.body {
            None => RequestBody::empty(),
            Some(kept) => RequestBody::resend(kept)?,
        };
        Some(copy_of(&self.head, body))
    }
}

/// Returns a request with the same head.
fn copy_of<A, B>(request: &Request<A>, body: B) -> Request<B> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Whether the connection, or the request's stream, ended before a reply.
fn is_closed(error: &hyper::Error, is_http2: bool) -> bool {
    if is_http2 {
        return !is_http2_violation(error);
    }
    let io = || std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>()).is_some();
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_body_write_aborted() || io()
}
