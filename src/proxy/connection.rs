//! One client connection, from its first byte to its end; HTTP/2 is served in `http2`.
//!
//! Always true: a connection has one timer, which is never armed further ahead than `check_every`, so that it also
//! fires in time for a wait that begins after it was armed; a request arms no timer of its own. If a client is gone,
//! the work for its request ends. A client that only closed its sending side is served as long as bytes move: it counts
//! as gone if no bytes could be sent to it for `client_half_close_ms`.
//! During a drain idle connections close, requests in flight finish with `connection: close`, and what is left at the
//! time limit is cut.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio::time::sleep_until;

use super::client_addresses::ConnectionPermit;
use super::client_body::ClientBody;
use super::cut_reason::CutReason;
use super::drain::{self, Close};
use super::endpoint::{Endpoint, Protocol};
use super::exchange_record::CurrentRecord;
use super::headers::Forwarder;
use super::http2;
use super::monotonic::{ConnectionPoll, NEVER, instant, now};
use super::open_connections::OpenCount;
use super::parking::{ParkedConnection, ParkedTls};
use super::preamble::{self, Secured};
use super::prior_knowledge;
use super::proxied_request::Client;
use super::raw_socket::{self, Peek};
use super::reply_body::ReplyBody;
use super::respond::record_unreadable;
use super::shared::Shared;
use super::socket::{ClientIo, Transport};
use super::switch;
use super::tls_stream::TlsStream;
use super::unfinished_head;
use super::wait::{ConnectionWait, Overdue, Phase};
use crate::listener::Forwarding;

/// How often a connection checks whether its client has stopped sending, while nobody reads the request's body.
const UNREAD_BODY_CHECK_MICROS: u64 = 500_000;

/// An HTTP/1.1 connection without hyper's state.
struct Http1Connection {
    transport: Transport,
    /// Bytes of the client that were read already.
    read_before: Bytes,
    peer: IpAddr,
    /// The forwarding rules that were in force when the connection was accepted.
    forwarding: Arc<Forwarding>,
    /// The header fields for the client's certificate.
    identity: Vec<(HeaderName, HeaderValue)>,
    permit: ConnectionPermit,
    count: OpenCount,
}

/// Serves one connection until it ends or is parked.
pub(super) async fn serve(
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    stream: TcpStream,
    peer: IpAddr,
    mut permit: ConnectionPermit,
) {
    let wait = Arc::new(ConnectionWait::with_rates(&shared.wait_limits));
    let count = shared.open_connections.count();
    let _registered = shared.open_connections.register(wait.clone());
    let mut peer = peer;
    if let Some(proxy_protocol) = &endpoint.proxy_protocol {
        // Boxed, so that other connections take less memory.
        let source = Box::pin(preamble::read_source(&shared, &endpoint, proxy_protocol, &stream, peer, &wait)).await;
        let Some(source) = source else { return };
        peer = source;
        if !shared.admits(&mut permit, peer, &endpoint) {
            return;
        }
    }
    let mut read_before = Bytes::new();
    let (transport, identity, protocol) = match &endpoint.tls {
        None => {
            endpoint.count_plain();
            let mut protocol = Protocol::Http1;
            if endpoint.http2 {
                let Some(first) = prior_knowledge::read_first(&shared, &stream, &wait).await else { return };
                (protocol, read_before) = first;
            }
            (Transport::Plain(stream), Vec::new(), protocol)
        }
        Some(tls) => {
            let secured = Box::pin(preamble::secure(&shared, &endpoint, tls, stream, peer, &wait)).await;
            let Some(Secured { stream, identity, protocol }) = secured else { return };
            (Transport::Tls(Box::new(stream)), identity, protocol)
        }
    };
    endpoint.count_http(protocol);
    let forwarding = shared.forwarding.load_full();
    if protocol == Protocol::Http2 {
        let shared = shared.clone();
        let forwarder = Forwarder::new(peer, transport.scheme(), &forwarding, identity);
        let transport = Arc::new(transport);
        let accepted = http2::Accepted { shared, transport, read_before, wait, forwarder, peer, permit };
        // Boxed, so that other connections take less memory.
        return Box::pin(http2::serve(accepted)).await;
    }
    let connection = Http1Connection { transport, read_before, peer, forwarding, identity, permit, count };
    serve_http1(&shared, connection, &wait).await;
}

/// Serves a connection that was parked, until it ends or is parked again. `read_before` is what its client has sent.
pub(super) async fn resume(shared: Arc<Shared>, parked: ParkedConnection, read_before: Bytes) {
    let wait = Arc::new(ConnectionWait::with_rates(&shared.wait_limits));
    if read_before.is_empty() {
        wait.enter(Phase::Idle);
    }
    let _registered = shared.open_connections.register(wait.clone());
    if let Some(connection) = Http1Connection::from_parked(parked, read_before) {
        serve_http1(&shared, connection, &wait).await;
    }
}

impl Http1Connection {
    /// Returns `None`, and closes the socket, if the runtime does not accept it.
    fn from_parked(parked: ParkedConnection, read_before: Bytes) -> Option<Self> {
        let ParkedConnection { socket, tls, peer, forwarding, permit, count } = parked;
        let socket = TcpStream::from_std(socket)
            .inspect_err(|error| tracing::warn!(%error, "an idle connection was closed: its socket cannot be watched"))
            .ok()?;
        let (transport, identity) = match tls {
            None => (Transport::Plain(socket), Vec::new()),
            Some(tls) => (Transport::Tls(Box::new(TlsStream::resumed(socket, tls.session))), tls.identity),
        };
        Some(Self { transport, read_before, peer, forwarding, identity, permit, count })
    }

    /// Returns `None`, and closes the socket, if the runtime does not release it.
    fn into_parked(self) -> Option<ParkedConnection> {
        let Self { transport, read_before: _, peer, forwarding, identity, permit, count } = self;
        let (socket, tls) = match transport {
            Transport::Plain(socket) => (socket, None),
            Transport::Tls(stream) => {
                let (socket, session) = stream.into_parts();
                (socket, Some(Box::new(ParkedTls { session, identity })))
            }
        };
        let socket = socket.into_std().ok()?;
        Some(ParkedConnection { socket, tls, peer, forwarding, permit, count })
    }
}

/// Serves a connection until it ends or is parked.
async fn serve_http1(shared: &Arc<Shared>, mut connection: Http1Connection, wait: &Arc<ConnectionWait>) {
    wait.set_parkable(true);
    while let Some((idle, since)) = serve_until_idle(shared, connection, wait).await {
        connection = idle;
        // Part of the next head; hyper gets these bytes again.
        if !connection.read_before.is_empty() {
            continue;
        }
        let Some(parked) = connection.into_parked() else { return };
        let Err(parked) = shared.parking.park(since, parked) else { return };
        wait.set_parkable(false);
        let Some(unparked) = Http1Connection::from_parked(parked, Bytes::new()) else { return };
        connection = unparked;
    }
}

/// Serves a connection until it ends, or is to be parked; in that case returns it, with the time since which it is
/// idle.
async fn serve_until_idle(
    shared: &Arc<Shared>,
    connection: Http1Connection,
    wait: &Arc<ConnectionWait>,
) -> Option<(Http1Connection, u64)> {
    let Http1Connection { transport, read_before, peer, forwarding, identity, permit, count } = connection;
    let forwarder = Forwarder::new(peer, transport.scheme(), &forwarding, identity);
    let transport = Arc::new(transport);
    let client = Arc::new(Client {
        shared: shared.clone(),
        wait: wait.clone(),
        forwarder: Arc::new(forwarder),
        peer,
        record: CurrentRecord::new(shared.access_log.clone()),
        own_connections: Arc::default(),
        connection_permit: Arc::new(permit),
    });
    let service =
        service_fn(|request: Request<Incoming>| switch::serve(client.clone(), request.map(ClientBody::Http1)));
    let io = TokioIo::new(ClientIo::new(transport.clone(), wait.clone(), shared.settler.clone(), read_before));
    let mut connection = builder(shared).serve_connection(io, service).with_upgrades();
    let cut = match drive(&mut connection, &client, &transport).await {
        DriveResult::Cut(cut) => {
            drop(connection);
            cut
        }
        DriveResult::UnfinishedHead => {
            drop(connection);
            // Boxed, so that other connections take less memory.
            Box::pin(unfinished_head::refuse(&client, &transport)).await;
            CutReason::ClientGone
        }
        DriveResult::Idle(since) => {
            let read_before = connection.into_parts().map(|parts| parts.read_buf)?;
            // Only hyper had other references to these, and it has no exchange now.
            let (client, transport) = (Arc::into_inner(client)?, Arc::into_inner(transport)?);
            let identity = Arc::into_inner(client.forwarder)?.into_identity();
            let permit = Arc::into_inner(client.connection_permit)?;
            let idle = Http1Connection { transport, read_before, peer, forwarding, identity, permit, count };
            return Some((idle, since));
        }
    };
    wait.unflushed.abandon(&shared.settler, cut);
    // An exchange without an answer: the client is gone, or the drain did not wait for it any longer.
    if wait.phase().awaits_answer() {
        cut.count();
    }
    if let Some(mut record) = client.record.take() {
        record.note(|record| record.request_bytes = wait.request_bytes());
        record.end(Some(cut));
    }
    None
}

fn builder(shared: &Shared) -> http1::Builder {
    let limits = &shared.limits;
    let head = usize::try_from(limits.head_bytes_max).unwrap_or(64 << 10).max(8 << 10);
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .auto_date_header(shared.egress.is_none()) // nothing is added to a service's reply to legacy
        .preserve_header_case(shared.egress.is_some() || shared.flags.load().preserves_header_case)
        .header_read_timeout(None)
        .max_header_size(head)
        .max_buf_size(head.saturating_mul(2).max(128 << 10));
    // hyper parses up to 100 fields without allocating, unless a limit is set.
    if limits.head_fields_max != 100 {
        builder.max_headers(usize::try_from(limits.head_fields_max).unwrap_or(100).max(1));
    }
    builder
}

type Connection<S> = http1::UpgradeableConnection<TokioIo<ClientIo>, S>;

/// Why `drive` returned.
enum DriveResult {
    /// The connection has ended, or is to be closed; an incomplete exchange is cut for this reason.
    Cut(CutReason),
    /// The connection is to be parked; it has been idle since this time.
    Idle(u64),
    /// The process stops or hands over, and the rest of a head did not come in time.
    UnfinishedHead,
}

/// Polls a connection until it ends, is overdue, is cut, or is to be parked.
async fn drive<S>(connection: &mut Connection<S>, client: &Client, transport: &Transport) -> DriveResult
where
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let (shared, wait) = (&client.shared, &client.wait);
    let wait_limits = &shared.wait_limits;
    let mut armed = wait.due(wait_limits).0.min(now().saturating_add(wait_limits.check_every));
    let mut connection = Pin::new(connection);
    let mut timer = pin!(sleep_until(instant(armed)));
    // The deadline and the waker of the timer's last poll that was pending.
    let mut polled: Option<(u64, Waker)> = None;
    let mut closing = false;
    let (mut overdue_exchange, mut peeked_exchange) = (0, 0);
    let mut drain_since = None;
    let mut next_check = 0;
    poll_fn(|cx: &mut Context<'_>| {
        let _poll = ConnectionPoll::begin();
        // Registered before the drain's state is read: the drain writes the state and then wakes.
        wait.waker.register(cx.waker());
        loop {
            let drain = shared.drain.load(Acquire);
            if drain == drain::NOT_DRAINING {
                drain_since = None;
            } else if drain == drain::CUT || (shared.cuts_workflows.load(Acquire) && wait.may_use_store()) {
                return Poll::Ready(DriveResult::Cut(CutReason::Drain));
            } else if !closing {
                let since = *drain_since.get_or_insert_with(now);
                match drain::when_to_close(shared, drain, since, wait, transport) {
                    Close::Now => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    Close::At(at) if at < armed => {
                        armed = at;
                        timer.as_mut().reset(instant(armed));
                    }
                    Close::At(_) => {}
                    Close::UnfinishedHead => return Poll::Ready(DriveResult::UnfinishedHead),
                }
            }
            let exchange_count = wait.exchange_count();
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a client connection ended");
                    let refused = record_unreadable(&shared.table().no_route().route_metrics, &error);
                    if let Some((reason, status)) = refused {
                        client.record.log_unreadable_head(client.peer, status, reason);
                    }
                }
                return Poll::Ready(DriveResult::Cut(CutReason::ClientGone));
            }
            if !closing && wait.take_close_request() && !raw_socket::has_bytes(transport.socket()) {
                closing = true;
                connection.as_mut().graceful_shutdown();
                shared.open_connections.count_idle_closed();
                continue;
            }
            if let Some(since) = wait.take_parking_request(wait_limits)
                && !closing
                && drain == drain::NOT_DRAINING
                && transport.is_at_rest()
            {
                // A parked connection gives up its own connections to services, and the service would no longer know
                // the client.
                match client.own_connections.is_any_bound() {
                    true => wait.set_parkable(false),
                    false => return Poll::Ready(DriveResult::Idle(since)),
                }
            }
            // The poll began a request during a drain: loop, so that the connection closes after this request.
            if drain != drain::NOT_DRAINING && !closing && wait.exchange_count() > exchange_count {
                continue;
            }
            // hyper does not read the socket while a request is in flight.
            let in_flight =
                matches!(wait.phase(), Phase::Upload | Phase::FirstByte | Phase::Reply | Phase::OwnDeadline);
            if in_flight && wait.is_request_done() && !wait.has_fin() && peeked_exchange != wait.exchange_count() {
                match transport.peek(wait, cx) {
                    Peek::Nothing => {}
                    Peek::Bytes => peeked_exchange = wait.exchange_count(),
                    Peek::Fin => wait.on_fin(),
                    Peek::Reset => return Poll::Ready(DriveResult::Cut(CutReason::ClientGone)),
                }
            }
            // Nobody reads a body while its request waits for its turn or for the engine.
            let is_body_unread = wait.phase() == Phase::OwnDeadline && !wait.is_request_done();
            if is_body_unread && !wait.has_fin() {
                let at = now();
                if at >= next_check {
                    next_check = at + UNREAD_BODY_CHECK_MICROS;
                    if raw_socket::has_stopped_sending(transport.socket()) {
                        wait.on_fin();
                    }
                }
                if next_check < armed {
                    armed = next_check;
                    timer.as_mut().reset(instant(armed));
                }
            }
            let (due, _) = wait.due(wait_limits);
            if due < armed {
                armed = due;
                timer.as_mut().reset(instant(armed));
            }
            // Another poll would register the same waker for the same deadline again: this comparison costs less.
            let is_registered = polled.as_ref().is_some_and(|(at, by)| *at == armed && by.will_wake(cx.waker()));
            if is_registered && !timer.is_elapsed() {
                return Poll::Pending;
            }
            // Without tokio's coop budget, a poll only schedules the task again, and registers nothing with the timer.
            let registers = coop::has_budget_remaining();
            if timer.as_mut().poll(cx).is_pending() {
                polled = registers.then(|| (armed, cx.waker().clone()));
                return Poll::Pending;
            }
            polled = None;
            let (due, why) = wait.due(wait_limits);
            let at = now();
            if due <= at {
                // An exchange is answered once; another overrun cuts the connection.
                if why == Overdue::Cut || overdue_exchange == wait.exchange_count() {
                    return Poll::Ready(DriveResult::Cut(wait.why_cut(wait_limits)));
                }
                overdue_exchange = wait.exchange_count();
                wait.report_overdue(why);
            }
            let latest = if is_body_unread && !wait.has_fin() { next_check } else { NEVER };
            armed = due.min(latest).max(at + 1).min(at.saturating_add(wait_limits.check_every));
            timer.as_mut().reset(instant(armed));
        }
    })
    .await
}
