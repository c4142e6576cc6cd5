//! The pool of connections to addresses of services.
//!
//! Always true: an HTTP/1.1 connection belongs to one call at a time, and returns to the pool only after request and
//! reply are complete; idle connections are bounded in number and age; none is given another request after
//! `service_connection_age_ms`. HTTP/2 connections are shared ([`Multiplexer`]). A request of which certainly nothing
//! was handed to the socket is returned with `ExchangeError::NotSent`, and one that the service has not processed with
//! `ExchangeError::NotProcessed`. What an outcome means, and how long a call may take, is decided by `client`.
//!
//! When the other side is slow, the call waits until its deadline, and its connection is closed. A closed idle
//! connection is detected before a request is given to it, except if it is closed at that very moment. A connection
//! whose server sent more than one reply is not used again.
//!
//! If the server closes a connection while a request is on its way, the outcome of the request is unknown. Therefore a
//! request that must not be repeated gets a used connection only under two conditions. The connection was idle for less
//! than [`ConnectionPool::unrepeatable_idle`], which is shorter than servers' keep-alive time-outs. And this server is
//! known to keep connections open after a reply, and has not closed one early in the last minute. Over HTTP/2 the first
//! condition suffices: a server says which requests it has not processed before it closes a connection.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use tokio::time::Instant;

use super::destination::Destination;
use super::pooled_connection::{PooledConnection, ReplyHeadBounds};
use super::protocol::Endpoint;
use crate::flag::HttpVersion;
use crate::limits::Limits;
use crate::transport::{ConnectError, ConnectionProtocol, Http2Bounds, Http2Connection, Multiplexer};

/// The HTTP/2 connections to one endpoint.
type Multiplexed = Multiplexer<Full<Bytes>, ConnectError>;

/// Connections, by the endpoint that they lead to.
pub(in crate::engine) struct ConnectionPool {
    state: Mutex<PoolState>,
    idle_max: usize,
    idle_max_age: Duration,
    /// A connection that has been idle for longer carries only requests that may be repeated.
    unrepeatable_idle: Duration,
    /// How long a connection is used; 0: as long as it lasts.
    age: Duration,
    reply_heads: ReplyHeadBounds,
}

#[derive(Default)]
struct PoolState {
    by_endpoint: HashMap<Endpoint, Origin>,
    multiplexed: HashMap<Endpoint, Arc<Multiplexed>>,
    /// Whether the task that closes expired connections is running.
    has_sweeper: bool,
}

/// One server's idle connections, the longest idle first, and what is known about its keep-alive.
#[derive(Default)]
struct Origin {
    idle: VecDeque<(PooledConnection, Instant)>,
    /// Whether a connection was still open [`KEEPS_OPEN_AFTER`] after its last reply.
    keeps_open: bool,
    /// When this side last found that the server had closed a connection within [`EARLY_CLOSE`] after its last reply,
    /// although the reply had not announced that.
    closed_early: Option<Instant>,
}

/// A connection that is still open this long after a reply is one that the server keeps open.
const KEEPS_OPEN_AFTER: Duration = Duration::from_millis(20);
/// If a server closes an idle connection sooner than this, its keep-alive time-out cannot be relied on.
const EARLY_CLOSE: Duration = Duration::from_secs(1);
/// After an early close, for this long no request that must not be repeated is sent over a used connection.
const DISTRUST_FOR: Duration = Duration::from_secs(60);

impl Origin {
    /// Records that a connection was found open or closed, and how long after its last reply.
    fn observe(&mut self, open: bool, idle: Duration) {
        if open {
            self.keeps_open |= idle >= KEEPS_OPEN_AFTER;
        } else if idle < EARLY_CLOSE {
            self.closed_early = Some(Instant::now());
        }
    }
    /// Whether a request that must not be repeated may be given to a used connection.
    fn is_trusted(&self) -> bool {
        self.keeps_open && self.closed_early.is_none_or(|at| at.elapsed() >= DISTRUST_FOR)
    }
}

/// Which idle connections may be reused for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum ReusePolicy {
    /// All that are open: the request may be repeated.
    Any,
    /// Those that were idle for less than `unrepeatable_idle`: the request must not be repeated.
    Recent,
    /// None, only a new connection: on the connection before, the server refused to process the request.
    None,
}

impl ConnectionPool {
    pub fn new(limits: &Limits) -> Arc<Self> {
        let idle_max = usize::try_from(limits.service_idle_connections_max).unwrap_or(usize::MAX);
        let idle_max_age = Limits::ms(limits.service_idle_ms);
        let unrepeatable_idle = Limits::ms(limits.service_unrepeatable_idle_ms);
        let age = Limits::ms(limits.service_connection_age_ms);
        let reply_heads = ReplyHeadBounds {
            bytes: u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX),
            fields: limits.reply_fields_max_for_hyper(),
        };
        Arc::new(Self { state: Mutex::default(), idle_max, idle_max_age, unrepeatable_idle, age, reply_heads })
    }

    /// A connection for a request: an idle one if it may carry the request, else a new one.
    ///
    /// # Errors
    /// No connection could be opened; nothing was sent.
    pub async fn take(
        self: &Arc<Self>,
        destination: &Destination<'_>,
        reuse: ReusePolicy,
    ) -> Result<PooledConnection, ConnectError> {
        let (is_new, repeatable) = (reuse == ReusePolicy::None, reuse == ReusePolicy::Any);
        let endpoint = destination.endpoint()?;
        let http = destination.protocol.http;
        let multiplexed = (http != HttpVersion::Http1).then(|| self.multiplexed(&endpoint));
        // The server may just be closing a connection that was idle for longer than `unrepeatable_idle`.
        let may_carry = |connection: &Http2Connection<_>| {
            !is_new && (repeatable || connection.idle_for().is_none_or(|idle| idle < self.unrepeatable_idle))
        };
        if let Some(stream) = multiplexed.as_ref().and_then(|multiplexed| multiplexed.take(may_carry)) {
            return Ok(PooledConnection::http2(stream, endpoint, true));
        }
        if !is_new && let Some(connection) = poll_fn(|cx| Poll::Ready(self.pop(&endpoint, repeatable, cx))).await {
            return Ok(connection);
        }
        let Some(multiplexed) = multiplexed else {
            let (stream, _) = destination.connect(HttpVersion::Http1).await?;
            return PooledConnection::http1(stream, endpoint, self.age, self.reply_heads).await;
        };
        let mut http1 = None;
        let opening = multiplexed.open(
            async || match destination.connect(http).await? {
                (stream, ConnectionProtocol::Http1) => {
                    http1 = Some(stream);
                    Ok(None)
                }
                (stream, ConnectionProtocol::Http2) => {
                    destination.connect_http2(stream, self.http2_bounds()).await.map(Some)
                }
            },
            may_carry,
            ConnectError::copy,
        );
        match opening.await? {
            Some(stream) => Ok(PooledConnection::http2(stream, endpoint, false)),
            None => {
                let stream = match http1 {
                    Some(stream) => stream,
                    // Another call has found that the service chooses HTTP/1.1.
                    None => destination.connect(HttpVersion::Http1).await?.0,
                };
                PooledConnection::http1(stream, endpoint, self.age, self.reply_heads).await
            }
        }
    }

    /// The bounds of a new HTTP/2 connection.
    fn http2_bounds(&self) -> Http2Bounds {
        let age = self.age.mul_f64(1.0 - fastrand::f64() / 10.0);
        let retires = (!self.age.is_zero()).then(|| std::time::Instant::now() + age);
        Http2Bounds { head_bytes_max: self.reply_heads.bytes, retires }
    }

    /// The HTTP/2 connections to an endpoint.
    fn multiplexed(self: &Arc<Self>, endpoint: &Endpoint) -> Arc<Multiplexed> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let multiplexed = state.multiplexed.entry(endpoint.clone()).or_default().clone();
        self.start_sweeper(&mut state);
        multiplexed
    }

    fn start_sweeper(self: &Arc<Self>, state: &mut PoolState) {
        if !std::mem::replace(&mut state.has_sweeper, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_max_age));
        }
    }

    /// Takes the most recently used idle connection that may carry a request; `repeatable`: one that may be repeated.
    fn pop(&self, endpoint: &Endpoint, repeatable: bool, cx: &mut Context<'_>) -> Option<PooledConnection> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = state.by_endpoint.get_mut(endpoint)?;
        origin.idle.retain(|(connection, _)| !connection.is_retired());
        if !repeatable && !origin.is_trusted() {
            // The state of the longest idle connection shows whether the server keeps connections open.
            let (mut connection, since) = origin.idle.pop_front_if(|(_, since)| since.elapsed() >= KEEPS_OPEN_AFTER)?;
            let open = connection.is_idle(cx);
            origin.observe(open, since.elapsed());
            if open {
                origin.idle.push_front((connection, since));
            }
            if !origin.is_trusted() {
                return None;
            }
        }
        let within = if repeatable { self.idle_max_age } else { self.unrepeatable_idle };
        while let Some((mut connection, since)) = origin.idle.pop_back_if(|(_, since)| since.elapsed() < within) {
            let open = connection.is_idle(cx);
            origin.observe(open, since.elapsed());
            if open {
                return Some(connection);
            }
            if !repeatable && !origin.is_trusted() {
                return None;
            }
        }
        None
    }

    /// Returns a connection to the pool; closes it where it cannot be used again, was used for long enough, or too many
    /// are idle.
    pub async fn give_back(self: &Arc<Self>, connection: PooledConnection) {
        let mut connection = Some(connection);
        poll_fn(|cx| {
            if let Some(connection) = connection.take() {
                self.put_back(connection, cx);
            }
            Poll::Ready(())
        })
        .await;
    }

    /// As [`Self::give_back`], within a poll. To be called in the engine's runtime, which outlives those of the proxy's
    /// threads.
    pub fn put_back(self: &Arc<Self>, mut connection: PooledConnection, cx: &mut Context<'_>) {
        if !connection.is_idle(cx) || self.idle_max == 0 || connection.is_retired() {
            return;
        }
        let endpoint = connection.endpoint.clone();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = match state.by_endpoint.get_mut(&endpoint) {
            Some(origin) => origin,
            None => state.by_endpoint.entry(endpoint).or_default(),
        };
        if origin.idle.len() >= self.idle_max {
            return;
        }
        origin.idle.push_back((connection, Instant::now()));
        self.start_sweeper(&mut state);
    }

    /// Removes expired and retired connections, and those that the server has closed; returns whether any is left.
    async fn sweep_once(&self) -> bool {
        poll_fn(|cx| {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.by_endpoint.retain(|_, origin| {
                origin.idle.retain_mut(|(connection, since)| {
                    since.elapsed() < self.idle_max_age && !connection.is_retired() && connection.is_idle(cx)
                });
                !origin.idle.is_empty()
            });
            state.multiplexed.retain(|_, multiplexed| {
                multiplexed.sweep(self.idle_max_age);
                // A call that holds a reference to it may be opening a connection.
                !multiplexed.is_empty() || Arc::strong_count(multiplexed) > 1
            });
            state.has_sweeper = !state.by_endpoint.is_empty() || !state.multiplexed.is_empty();
            Poll::Ready(state.has_sweeper)
        })
        .await
    }
}

/// Sweeps from time to time, until no idle connection is left.
async fn sweep(pool: Weak<ConnectionPool>, idle_max_age: Duration) {
    let pause = (idle_max_age / 4).clamp(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        tokio::time::sleep(pause).await;
        match pool.upgrade() {
            Some(pool) if pool.sweep_once().await => {}
            _ => return,
        }
    }
}
