//! One HTTP/2 connection of a client, from its preface to its end.
//!
//! Always true: one task does everything: it polls the h2 crate, then the exchanges that were woken, so that dropping
//! the task ends all exchanges. One timer serves the waits of all exchanges; it is never armed further ahead than
//! `check_every`, so that it also fires in time for a wait that begins after it was armed. The connection's own
//! `ConnectionWait` is `Idle` while there is no stream (`Linger` if the connection is to close), and `Reply` while
//! there is one: then it records when the socket last took bytes.
//! During a drain, after too long an idle time, or to make room for a new connection, GOAWAY tells the client to begin
//! nothing more; what is in flight finishes, and the connection closes. A connection that has been quiet is ended at
//! once, see [`QUIET_MICROS`].

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::{Sleep, sleep_until};

use super::io::Http2Io;
use super::settings::builder;
use super::stream::Stream;
use super::stream_deadlines::{StreamDeadlines, timed};
use super::traffic::{EndedStream, Traffic};
use super::waker::ConnectionWaker;
use crate::proxy::client_addresses::ConnectionPermit;
use crate::proxy::cut_reason::CutReason;
use crate::proxy::drain;
use crate::proxy::exchange_record::CurrentRecord;
use crate::proxy::failure::HEAD_TOO_LARGE;
use crate::proxy::headers::Forwarder;
use crate::proxy::monotonic::{NEVER, instant, now};
use crate::proxy::own_connections::OwnConnections;
use crate::proxy::preamble;
use crate::proxy::proxied_request::Client;
use crate::proxy::shared::Shared;
use crate::proxy::socket::Transport;
use crate::proxy::wait::{ConnectionWait, Overdue, Phase};

/// A connection that has had no stream for this long is ended with one GOAWAY that names its last stream. A request
/// that comes at that moment is not served, and its client knows that it may send it again (RFC 9113, 6.8). Otherwise
/// the first GOAWAY names the highest possible stream id, and a PING finds out when the client has received it, so that
/// each request that is on its way is served; clients that take the first GOAWAY for the end of the connection fail at
/// this PING when they send their next request.
const QUIET_MICROS: u64 = 1_000_000;

/// A connection whose client speaks HTTP/2.
pub(in crate::proxy) struct Accepted {
    pub shared: Arc<Shared>,
    pub transport: Arc<Transport>,
    /// Bytes of the client that were read already.
    pub read_before: Bytes,
    pub wait: Arc<ConnectionWait>,
    pub forwarder: Forwarder,
    pub peer: IpAddr,
    pub permit: ConnectionPermit,
}

/// Serves one connection to its end.
pub(in crate::proxy) async fn serve(accepted: Accepted) {
    let Accepted { shared, transport, read_before, wait, forwarder, peer, permit } = accepted;
    let traffic = Arc::new(Traffic::new(&shared.limits));
    let io = Http2Io::new(transport, wait.clone(), traffic.clone(), read_before);
    let handshake = builder(&shared.limits).handshake(io);
    let handshake = preamble::within(&shared, &wait, shared.limits.head_read_ms, handshake).await;
    let Ok(Ok(connection)) = handshake else {
        tracing::trace!("a client connection ended before HTTP/2 began");
        return;
    };
    wait.enter(Phase::Idle);
    let (forwarder, permit) = (Arc::new(forwarder), Arc::new(permit));
    let deadlines = Arc::new(StreamDeadlines::new());
    let own_connections = Arc::<OwnConnections>::default();
    let start = |request: Request<RecvStream>, respond: SendResponse<Bytes>| {
        let stream = Arc::new(Stream::new(&shared.wait_limits));
        let client = Arc::new(Client {
            shared: shared.clone(),
            wait: stream.wait.clone(),
            forwarder: forwarder.clone(),
            peer,
            record: CurrentRecord::new(shared.access_log.clone()),
            own_connections: own_connections.clone(),
            connection_permit: permit.clone(),
        });
        (stream.clone(), timed(client, stream, deadlines.clone(), request, respond))
    };
    let mut driver = Driver {
        shared: &shared,
        wait: &wait,
        peer,
        connection,
        traffic,
        start,
        deadlines: deadlines.clone(),
        open: HashMap::new(),
        exchanges: FuturesUnordered::new(),
        ended: Vec::new(),
        opened: 0,
        idle_since: now(),
        closing_since: None,
        head_since: None,
        drain_since: None,
        has_failed: false,
        is_write_blocked: false,
        streams_gauge: gauge!("pointsman_client_streams"),
        streams_total: counter!("pointsman_client_streams_total"),
    };
    let mut armed = NEVER;
    let mut timer = pin!(sleep_until(instant(now().saturating_add(shared.wait_limits.check_every))));
    let waker = ConnectionWaker::new();
    let cut = poll_fn(|cx| waker.poll(cx, |cx| driver.poll(cx, timer.as_mut(), &mut armed))).await;
    // The exchanges that are left end with the connection, for this reason.
    driver.open.values().for_each(|stream| stream.cut(cut));
    driver.streams_gauge.decrement(driver.open.len() as f64);
}

/// A connection with its streams.
struct Driver<'a, S, F> {
    shared: &'a Shared,
    wait: &'a ConnectionWait,
    peer: IpAddr,
    connection: Connection<Http2Io, Bytes>,
    traffic: Arc<Traffic>,
    /// Creates the stream and the exchange of a request.
    start: S,
    deadlines: Arc<StreamDeadlines>,
    /// The open streams, by their ids.
    open: HashMap<u32, Arc<Stream>>,
    exchanges: FuturesUnordered<F>,
    /// Streams whose last byte was flushed; empty between polls.
    ended: Vec<EndedStream>,
    /// The number of streams so far.
    opened: u64,
    idle_since: u64,
    /// Since when the client has been told to begin nothing more.
    closing_since: Option<u64>,
    /// Since when a head has been incomplete.
    head_since: Option<u64>,
    /// Since when the process has been stopping, as this connection noticed.
    drain_since: Option<u64>,
    /// The connection ends because the client violated the protocol, or a limit.
    has_failed: bool,
    is_write_blocked: bool,
    streams_gauge: Gauge,
    streams_total: Counter,
}

impl<S, F> Driver<'_, S, F>
where
    S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> (Arc<Stream>, F),
    F: Future<Output = u32>,
{
    /// Completes when the connection has ended or is to be cut, with the reason for the exchanges that are left.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>, armed: &mut u64) -> Poll<CutReason> {
        // Registered before the drain's state is read: the drain writes the state and then wakes.
        self.wait.waker.register(cx.waker());
        loop {
            match self.shared.drain.load(Acquire) {
                drain::CUT => return Poll::Ready(CutReason::Drain),
                drain::FINISH => self.finish(),
                drain::HAND_OVER => {
                    self.close();
                    if self.shared.cuts_workflows.load(Acquire) {
                        let streams = self.open.values().filter(|stream| stream.wait.may_use_store());
                        streams.for_each(|stream| stream.cut(CutReason::Drain));
                    }
                }
                _ => {}
            }
            if self.poll_connection(cx).is_ready() {
                // The same poll may have written the last byte of an answer: its exchange is complete.
                self.observe();
                self.poll_exchanges(cx);
                return Poll::Ready(CutReason::ClientGone);
            }
            if self.observe() {
                continue;
            }
            self.poll_exchanges(cx);
            if self.closing_since.is_none() && self.wait.take_close_request() {
                self.shared.open_connections.count_idle_closed();
                self.close();
                continue;
            }
            let due = self.due();
            if due < *armed {
                *armed = due.min(now().saturating_add(self.shared.wait_limits.check_every));
                timer.as_mut().reset(instant(*armed));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let at = now();
            if self.check_connection(at).is_ready() {
                return Poll::Ready(CutReason::ClientGone);
            }
            self.check_streams(at);
            *armed = self.due().max(at + 1).min(at.saturating_add(self.shared.wait_limits.check_every));
            timer.as_mut().reset(instant(*armed));
        }
    }

    /// During a drain: closes the connection once a first request has begun, or has had the time to arrive.
    fn finish(&mut self) {
        let since = *self.drain_since.get_or_insert_with(now);
        if self.opened > 0 || now() >= since + drain::FIRST_REQUEST_MICROS {
            self.close();
        }
    }

    /// Tells the client to begin nothing more. The connection closes when its streams have ended.
    fn close(&mut self) {
        if self.closing_since.is_none() {
            self.closing_since = Some(now());
            let is_quiet = self.open.is_empty() && now() >= self.idle_since + QUIET_MICROS;
            match is_quiet {
                true => self.connection.abrupt_shutdown(Reason::NO_ERROR),
                false => self.connection.graceful_shutdown(),
            }
            if self.open.is_empty() {
                self.enter_idle();
            }
        }
    }

    /// Enters the idle phase: no stream is open.
    fn enter_idle(&mut self) {
        // What the client still sends is read and discarded before the socket is closed, so that no reset destroys the
        // end of the last answer on its way.
        self.wait.enter(if self.closing_since.is_some() { Phase::Linger } else { Phase::Idle });
        self.idle_since = now();
    }

    /// Reads, accepts streams, writes. Completes when the connection has ended.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.connection.poll_accept(cx)) {
                Some(Ok((request, respond))) => {
                    let id = respond.stream_id().as_u32();
                    let (stream, exchange) = (self.start)(request, respond);
                    if self.open.is_empty() {
                        self.wait.enter(Phase::Reply);
                    }
                    self.open.insert(id, stream);
                    self.exchanges.push(exchange);
                    self.opened += 1;
                    self.streams_total.increment(1);
                    self.streams_gauge.increment(1.0);
                }
                Some(Err(error)) => {
                    tracing::trace!(%error, "a client connection ended");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    /// Acts on what `traffic` saw of the frames that were read and written. Returns whether the connection is to be
    /// polled again.
    fn observe(&mut self) -> bool {
        let observed = self.traffic.observe(&mut self.ended);
        for EndedStream { stream, by_head } in std::mem::take(&mut self.ended) {
            match self.open.get(&stream) {
                Some(stream) => {
                    stream.flushed();
                    self.traffic.on_answer();
                }
                // The h2 crate itself has answered a head that is too large.
                None if by_head => {
                    self.shared.table().no_route().route_metrics.count_refusal(HEAD_TOO_LARGE);
                    let record = CurrentRecord::new(self.shared.access_log.clone());
                    record.log_unreadable_head(self.peer, 431, HEAD_TOO_LARGE);
                }
                None => {}
            }
        }
        if observed.has_flushed {
            self.deadlines.flushed(self.open.values());
        }
        self.is_write_blocked = observed.is_write_blocked;
        if let Some(stream) = observed.partial_data.and_then(|stream| self.open.get(&stream))
            && stream.wait.phase() == Phase::Upload
        {
            stream.wait.progress();
        }
        match (observed.is_within_head, self.head_since) {
            (true, None) => self.head_since = Some(now()),
            (true, Some(_)) => {}
            (false, _) => self.head_since = None,
        }
        let refused = observed.refused.or(observed.is_flooded.then_some(Reason::ENHANCE_YOUR_CALM));
        if !self.has_failed && (refused.is_some() || observed.has_failed) {
            self.has_failed = true;
            self.closing_since.get_or_insert_with(now);
            self.open.values().for_each(|stream| stream.cut(CutReason::Http2Error));
            if let Some(reason) = refused.filter(|_| !observed.has_failed) {
                self.connection.abrupt_shutdown(reason);
                return true;
            }
        }
        false
    }

    /// Polls the exchanges that were woken.
    fn poll_exchanges(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.exchanges.poll_next_unpin(cx) {
            self.open.remove(&ended);
            self.streams_gauge.decrement(1.0);
            if self.open.is_empty() {
                self.enter_idle();
            }
        }
    }

    /// Returns the latest time at which the timer is to fire.
    fn due(&self) -> u64 {
        let limits = &self.shared.wait_limits;
        let drain = self.drain_since.map_or(NEVER, |since| since + drain::FIRST_REQUEST_MICROS);
        let idle = match self.closing_since {
            None if self.open.is_empty() => self.idle_since.saturating_add(limits.idle).min(drain),
            None => NEVER,
            Some(since) if self.has_failed => since.saturating_add(limits.linger),
            Some(since) if self.open.is_empty() => since.max(self.idle_since).saturating_add(limits.linger),
            Some(_) => NEVER,
        };
        let head = self.head_since.map_or(NEVER, |since| since.saturating_add(limits.head));
        idle.min(head).min(self.deadlines.due.load(Relaxed))
    }

    /// Completes when the connection is to be cut.
    fn check_connection(&mut self, at: u64) -> Poll<()> {
        let limits = &self.shared.wait_limits;
        let is_over = |since: u64, limit: u64| since.saturating_add(limit) <= at;
        if self.head_since.is_some_and(|since| is_over(since, limits.head)) {
            return Poll::Ready(());
        }
        match self.closing_since {
            Some(since) if self.has_failed && is_over(since, limits.linger) => Poll::Ready(()),
            Some(since) if self.open.is_empty() && is_over(since.max(self.idle_since), limits.linger) => {
                Poll::Ready(())
            }
            None if self.open.is_empty() && is_over(self.idle_since, limits.idle) => {
                self.close();
                Poll::Pending
            }
            Some(_) | None => Poll::Pending,
        }
    }

    /// Tells exchanges that they are overdue, or cuts them.
    fn check_streams(&self, at: u64) {
        let limits = &self.shared.wait_limits;
        let mut next = NEVER;
        for stream in self.open.values() {
            let wait = &stream.wait;
            if self.is_write_blocked {
                wait.on_socket_progress(self.wait.since());
            }
            let (due, why) = wait.due(limits);
            if due > at {
                next = next.min(due);
            } else if why == Overdue::Cut || wait.overdue_reported().is_some() {
                // An exchange is answered only once; if it is overdue again, it is cut.
                stream.cut(wait.why_cut(limits));
            } else {
                wait.report_overdue(why);
                wait.waker.wake();
                next = next.min(wait.due(limits).0);
            }
        }
        self.deadlines.due.store(next, Relaxed);
    }
}
