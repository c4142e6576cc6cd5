//! Client connections: accepting, serving and draining them.
//!
//! Serves each connection in a task of its own. Always true: open connections are bounded: at the limit a new one takes
//! the place of one that is idle, or waits (one here, more in the kernel's queue); a connection has one timer, which is
//! never armed further ahead than `check_every`, so that it fires in time also for a wait that begins meanwhile; a
//! request arms no timer of its own. If a client is gone, the work for its request ends. A client that only closed its
//! sending side is served as long as bytes move: it counts as gone if none could be sent to it for
//! `client_half_close_ms`.
//! During a drain nothing new is accepted, idle connections close, requests in flight finish with `connection: close`,
//! and what is left at the time limit is cut.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::cut::Cut;
use super::exchange_record::CurrentRecord;
use super::headers::Forwarder;
use super::monotonic::{NEVER, instant, now};
use super::proxied_request::Client;
use super::reply_body::ReplyBody;
use super::respond::record_unreadable;
use super::shared::{Drained, Shared};
use super::socket::{ClientIo, Peek, has_bytes, has_stopped_sending, peek};
use super::switch;
use super::wait::{ConnectionWait, Overdue, Phase};
use crate::limits::Limits;

/// After a drain begins: how long a new connection may take to send its first request. The connection waited in
/// the kernel's queue, so its request has usually arrived already.
const FIRST_REQUEST_MICROS: u64 = 250_000;
/// The pause after accepting failed, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// When a new connection finds no room, this fraction of all connections is closed at once, if so many are idle: the
/// search for the ones that have been idle longest looks at all connections, and is not repeated for each new one.
const IDLE_CLOSED_SHARE: usize = 64;
/// The most idle connections that are closed at once.
const IDLE_CLOSED_MAX: usize = 32;
/// How long after a search for idle connections the next one begins, if there is still no room.
const IDLE_SEARCH_PAUSE: Duration = Duration::from_millis(20);
/// How often a connection is asked whether its client has stopped sending while nobody reads the request's body.
const UNREAD_BODY_LOOK_MICROS: u64 = 500_000;
/// A connection that has been idle for less is not closed for a new one, because its client's next request may be on
/// its way …
const IDLE_MICROS_MIN: u64 = 100_000;
/// … unless the new connection has waited for so many searches.
const PATIENT_SEARCHES: u32 = 25;
/// After the drain's time limit: how long cut connections may take to end.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// At the end of a drain: how long the last lines of the access log may take to be written.
const LAST_LINES_WAIT: Duration = Duration::from_secs(2);

/// The state of a drain.
pub(super) mod drain {
    /// Serving normally.
    pub const NO: u8 = 0;
    /// Finishing requests in flight.
    pub const FINISH: u8 = 1;
    /// Cutting connections.
    pub const CUT: u8 = 2;
}

/// Accepts until told to stop, then drains.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, shutdown: CancellationToken) -> Drained {
    let limit = usize::try_from(shared.limits.client_connections_max).unwrap_or(usize::MAX);
    let room = Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS)));
    let period = Limits::ms(shared.limits.service_idle_ms / 4).max(Duration::from_millis(100));
    let mut sweep = interval(period);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The one accepted connection for which there is no room yet.
    let mut waiting = None;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            permit = wait_for_room(&shared, &room, limit), if waiting.is_some() => {
                if let Some((stream, peer)) = waiting.take() {
                    spawn_connection(&shared, stream, peer, permit);
                }
            }
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((stream, peer)) => match room.clone().try_acquire_owned() {
                    Ok(permit) => spawn_connection(&shared, stream, peer, permit),
                    Err(_) => waiting = Some((stream, peer)),
                },
                Err(error) if is_transient(&error) => tracing::debug!(%error, "a connection ended before it began"),
                Err(error) => {
                    tracing::warn!(%error, "connections cannot be accepted; trying again after a pause");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = sweep.tick() => shared.table().sweep(),
        }
    }
    // Connections in the kernel's queue are established for their clients, who expect an answer.
    while let Some((stream, peer)) = waiting.take().or_else(|| listener.accept().now_or_never()?.ok()) {
        let Ok(permit) = room.clone().try_acquire_owned() else { break };
        spawn_connection(&shared, stream, peer, permit);
    }
    drop(listener);
    drain_connections(&shared).await
}

/// Waits until one more connection may be open. Meanwhile the connections that have been idle longest are closed.
async fn wait_for_room(shared: &Shared, room: &Arc<Semaphore>, limit: usize) -> OwnedSemaphorePermit {
    let at_once = (limit / IDLE_CLOSED_SHARE).clamp(1, IDLE_CLOSED_MAX);
    let mut searches = 0_u32;
    loop {
        let idle_for = if searches < PATIENT_SEARCHES { IDLE_MICROS_MIN } else { 0 };
        searches = searches.saturating_add(1);
        shared.open_connections.close_idle(at_once, now().saturating_sub(idle_for));
        // The semaphore is never closed.
        if let Ok(Ok(permit)) = timeout(IDLE_SEARCH_PAUSE, room.clone().acquire_owned()).await {
            return permit;
        }
    }
}

/// Whether the error concerns one connection, whose client caused it: the next one can be accepted at once.
fn is_transient(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

async fn drain_connections(shared: &Shared) -> Drained {
    let began = Instant::now();
    shared.drain.store(drain::FINISH, Release);
    shared.open_connections.wake();
    shared.tasks.close();
    let finished = timeout(Limits::ms(shared.limits.drain_ms), shared.tasks.wait()).await.is_ok();
    let cut = if finished { 0 } else { shared.tasks.len() };
    shared.drain.store(drain::CUT, Release);
    shared.cut.cancel();
    shared.open_connections.wake();
    if !finished && timeout(CUT_WAIT, shared.tasks.wait()).await.is_err() {
        tracing::warn!(left = shared.tasks.len(), "connections are still open after the drain cut them");
    }
    if timeout(Limits::ms(shared.limits.drain_ms), shared.settler.settled()).await.is_err() {
        tracing::warn!("captured exchanges were not settled in time; their comparisons are missing");
    }
    if let Some(access_log) = &shared.access_log {
        access_log.flush(LAST_LINES_WAIT).await;
    }
    Drained { cut, took: began.elapsed() }
}

fn spawn_connection(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
    // Without this, small writes wait for acknowledgements. A failure only costs time.
    let _ = stream.set_nodelay(true);
    let shared = shared.clone();
    shared.clone().tasks.spawn(async move {
        let wait = Arc::new(ConnectionWait::new());
        let stream = Arc::new(stream);
        let _open = shared.open_connections.register(wait.clone());
        let peer = peer.ip();
        let forwarder = Forwarder::new(peer, shared.trust_forwarded);
        let connection_permit = Arc::new(permit);
        let record = CurrentRecord::new(shared.access_log.clone());
        let client =
            Arc::new(Client { shared: shared.clone(), wait: wait.clone(), forwarder, peer, record, connection_permit });
        let service = service_fn(|request: Request<Incoming>| switch::serve(client.clone(), request));
        let io = TokioIo::new(ClientIo::new(stream.clone(), wait.clone(), shared.settler.clone()));
        let connection = builder(&shared.limits).serve_connection(io, service).with_upgrades();
        let cut = drive(connection, &client, &stream).await;
        wait.unflushed.abandon(&shared.settler, cut);
        // An exchange without an answer: the client is gone, or the drain did not wait for it any longer.
        if let Some(mut record) = client.record.take() {
            record.note(|record| record.request_bytes = wait.request_bytes());
            record.end(Some(cut));
        }
    });
}

fn builder(limits: &Limits) -> http1::Builder {
    let head = usize::try_from(limits.head_bytes_max).unwrap_or(64 << 10).max(8 << 10);
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
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

/// Serves one connection to its end. Returns why an exchange that is not complete by then was cut.
async fn drive<S>(connection: Connection<S>, client: &Client, stream: &TcpStream) -> Cut
where
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = Infallible>,
    S::Future: Send + 'static,
{
    let (shared, wait) = (&client.shared, &client.wait);
    let wait_limits = &shared.wait_limits;
    let mut armed = wait.due(wait_limits).0.min(now().saturating_add(wait_limits.check_every));
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(instant(armed)));
    let mut closing = false;
    let (mut overdue_exchange, mut peeked_exchange) = (0, 0);
    let mut drain_since = None;
    let mut next_look = 0;
    poll_fn(|cx: &mut Context<'_>| {
        // Registered before the drain's state is read: the drain writes the state and then wakes.
        wait.waker.register(cx.waker());
        loop {
            let drain = shared.drain.load(Acquire);
            if drain == drain::CUT {
                return Poll::Ready(Cut::Drain);
            }
            if drain == drain::FINISH && !closing {
                let since = *drain_since.get_or_insert_with(now);
                if wait.exchange_count() > 0 || now() >= since + FIRST_REQUEST_MICROS {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                } else if since + FIRST_REQUEST_MICROS < armed {
                    armed = since + FIRST_REQUEST_MICROS;
                    timer.as_mut().reset(instant(armed));
                }
            }
            let exchange_count = wait.exchange_count();
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::trace!(%error, "a client connection ended");
                    let refused = record_unreadable(&shared.table().no_route().route_metrics, &error);
                    if let Some((reason, status)) = refused {
                        client.record.unreadable(client.peer, status, reason);
                    }
                }
                return Poll::Ready(Cut::ClientGone);
            }
            if !closing && wait.takes_close_request() && !has_bytes(stream) {
                closing = true;
                connection.as_mut().graceful_shutdown();
                shared.open_connections.count_idle_closed();
                continue;
            }
            // The poll began a request during a drain: loop, so that the connection closes after this request.
            if drain == drain::FINISH && !closing && wait.exchange_count() > exchange_count {
                continue;
            }
            // hyper does not read the socket while a request is in flight.
            let in_flight =
                matches!(wait.phase(), Phase::Upload | Phase::FirstByte | Phase::Reply | Phase::OwnDeadline);
            if in_flight && wait.is_request_done() && !wait.has_fin() && peeked_exchange != wait.exchange_count() {
                match peek(stream, cx) {
                    Peek::Nothing => {}
                    Peek::Bytes => peeked_exchange = wait.exchange_count(),
                    Peek::Fin => wait.saw_fin(),
                    Peek::Reset => return Poll::Ready(Cut::ClientGone),
                }
            }
            // Nobody reads a body while its request waits for its turn or for the engine.
            let is_body_unread = wait.phase() == Phase::OwnDeadline && !wait.is_request_done();
            if is_body_unread && !wait.has_fin() {
                let at = now();
                if at >= next_look {
                    next_look = at + UNREAD_BODY_LOOK_MICROS;
                    if has_stopped_sending(stream) {
                        wait.saw_fin();
                    }
                }
                if next_look < armed {
                    armed = next_look;
                    timer.as_mut().reset(instant(armed));
                }
            }
            let (due, _) = wait.due(wait_limits);
            if due < armed {
                armed = due;
                timer.as_mut().reset(instant(armed));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let (due, why) = wait.due(wait_limits);
            let at = now();
            if due <= at {
                // An exchange is answered once; another overrun cuts the connection.
                if why == Overdue::Cut || overdue_exchange == wait.exchange_count() {
                    return Poll::Ready(wait.why_cut(wait_limits));
                }
                overdue_exchange = wait.exchange_count();
                wait.report_overdue(why);
            }
            let latest = if is_body_unread && !wait.has_fin() { next_look } else { NEVER };
            armed = due.min(latest).max(at + 1).min(at.saturating_add(wait_limits.check_every));
            timer.as_mut().reset(instant(armed));
        }
    })
    .await
}
