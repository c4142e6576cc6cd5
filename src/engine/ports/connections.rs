//! The pool of connections to services.
//!
//! Always true: a connection belongs to one call at a time, and returns to the pool only after request and reply are
//! complete; the call polls the connection itself, without a task in between; idle connections are bounded in number
//! and age; none is given another request after `service_connection_age_ms`. A request of which certainly nothing was
//! handed to the socket is returned with [`ExchangeError::NotSent`]. What an outcome means, and how long a call may
//! take, is decided by `client`.
//!
//! When the other side is slow, the call waits until its deadline, and its connection is closed. A closed idle
//! connection is detected before a request is given to it, except if it is closed at that very moment. A connection
//! whose server sent more than one reply is not used again.
//!
//! If the server closes a connection while a request is on its way, the outcome of the request is unknown. Therefore a
//! request that must not be repeated gets a used connection only under two conditions. The connection was idle for less
//! than [`ConnectionPool::unrepeatable_idle`], which is shorter than servers' keep-alive time-outs. And this server is
//! known to keep connections open after a reply, and has not closed one early in the last minute.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Uri, response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::limits::Limits;

/// A reply's head and its body. `Err` holds the first bytes of a body that is larger than the bound.
pub(in crate::engine) type Reply = (response::Parts, Result<Bytes, Bytes>);

/// Why there is no reply.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum ExchangeError {
    /// Nothing of the request was sent.
    NotSent(String),
    /// Some of it may have been sent.
    CutOff(String),
}

/// Idle connections, by the authority that they lead to.
pub(in crate::engine) struct ConnectionPool {
    idle: Mutex<Idle>,
    idle_max: usize,
    idle_for: Duration,
    /// A connection that has been idle for longer carries only requests that may be repeated.
    unrepeatable_idle: Duration,
    /// How long a connection is used; 0: as long as it lasts.
    age: Duration,
}

#[derive(Default)]
struct Idle {
    by_authority: HashMap<Authority, Origin>,
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

impl ConnectionPool {
    pub fn new(limits: &Limits) -> Arc<Self> {
        let idle_max = usize::try_from(limits.service_idle_connections_max).unwrap_or(usize::MAX);
        let idle_for = Limits::ms(limits.service_idle_ms);
        let unrepeatable_idle = Limits::ms(limits.service_unrepeatable_idle_ms);
        let age = Limits::ms(limits.service_connection_age_ms);
        Arc::new(Self { idle: Mutex::default(), idle_max, idle_for, unrepeatable_idle, age })
    }

    /// A connection for a request: an idle one if it may carry the request, else a new one.
    ///
    /// # Errors
    /// No connection could be opened; nothing was sent.
    pub async fn take(&self, uri: &Uri, repeatable: bool, connect: Duration) -> Result<PooledConnection, String> {
        let authority = uri.authority().ok_or("its URL names no host")?;
        match poll_fn(|cx| Poll::Ready(self.pop(authority, repeatable, cx))).await {
            Some(connection) => Ok(connection),
            None => PooledConnection::open(uri.clone(), connect, self.age).await,
        }
    }

    /// The most recently used idle connection that may carry such a request.
    fn pop(&self, authority: &Authority, repeatable: bool, cx: &mut Context<'_>) -> Option<PooledConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = idle.by_authority.get_mut(authority)?;
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
        let within = if repeatable { self.idle_for } else { self.unrepeatable_idle };
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
    pub async fn give_back(self: &Arc<Self>, uri: &Uri, mut connection: PooledConnection) {
        let Some(authority) = uri.authority() else { return };
        if !poll_fn(|cx| Poll::Ready(connection.is_idle(cx))).await || self.idle_max == 0 || connection.is_retired() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = match idle.by_authority.get_mut(authority) {
            Some(origin) => origin,
            None => idle.by_authority.entry(authority.clone()).or_default(),
        };
        if origin.idle.len() >= self.idle_max {
            return;
        }
        origin.idle.push_back((connection, Instant::now()));
        if !std::mem::replace(&mut idle.has_sweeper, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_for));
        }
    }

    /// Removes expired and retired connections, and those that the server has closed; returns whether any is left.
    async fn sweep_once(&self) -> bool {
        poll_fn(|cx| {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.by_authority.retain(|_, origin| {
                origin.idle.retain_mut(|(connection, since)| {
                    since.elapsed() < self.idle_for && !connection.is_retired() && connection.is_idle(cx)
                });
                !origin.idle.is_empty()
            });
            idle.has_sweeper = !idle.by_authority.is_empty();
            Poll::Ready(idle.has_sweeper)
        })
        .await
    }
}

/// Sweeps from time to time, until no idle connection is left.
async fn sweep(pool: Weak<ConnectionPool>, idle_for: Duration) {
    let pause = (idle_for / 4).clamp(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        tokio::time::sleep(pause).await;
        match pool.upgrade() {
            Some(pool) if pool.sweep_once().await => {}
            _ => return,
        }
    }
}

/// One connection.
pub(in crate::engine) struct PooledConnection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it is closed.
    connection: Option<Connection<TokioIo<TcpStream>, Full<Bytes>>>,
    /// Whether it was taken from the pool.
    pub reused: bool,
    /// When it is to be replaced by a new one; `None` if never.
    retires: Option<Instant>,
}

impl PooledConnection {
    async fn open(uri: Uri, connect: Duration, age: Duration) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect));
        let stream = connector.oneshot(uri).await.map_err(|error| with_sources(&error))?;
        let (sender, connection) = http1::handshake(stream).await.map_err(|error| with_sources(&error))?;
        // Spread, so that connections that were opened together do not end together.
        let retires = (!age.is_zero()).then(|| Instant::now() + age.mul_f64(1.0 - fastrand::f64() / 10.0));
        Ok(Self { sender, connection: Some(connection), reused: false, retires })
    }

    /// Whether it was used for long enough.
    fn is_retired(&self) -> bool {
        self.retires.is_some_and(|retires| retires <= Instant::now())
    }

    /// Sends a request and reads its reply, with a body of at most `bytes_max` bytes. If this is dropped before it is
    /// done, the connection is in the middle of a message and cannot be used again.
    ///
    /// # Errors
    /// There is no complete reply. The request is returned where nothing of it was sent.
    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
        head_deadline: Instant,
        deadline: Instant,
    ) -> Result<Exchanged, (ExchangeError, Option<Request<Full<Bytes>>>)> {
        let mut send = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        let reply = tokio::time::timeout_at(
            head_deadline,
            poll_fn(|cx| {
                drive(connection, cx);
                send.as_mut().poll(cx)
            }),
        );
        let (head, mut body) = match reply.await {
            Err(_) => return Ok(Exchanged::HeadTimedOut),
            Ok(Ok(reply)) => reply.into_parts(),
            Ok(Err(mut error)) => {
                let message = error.take_message();
                let why = with_sources(&error.into_error());
                let error = if message.is_some() { ExchangeError::NotSent(why) } else { ExchangeError::CutOff(why) };
                return Err((error, message));
            }
        };
        let whole = tokio::time::timeout_at(deadline, self.read_whole(&mut body, body_bytes_max));
        match whole.await {
            Ok(Ok(body)) => Ok(Exchanged::Whole((head, body))),
            Ok(Err(why)) => Err((ExchangeError::CutOff(why), None)),
            Err(_) => Ok(Exchanged::BodyTimedOut),
        }
    }

    /// Reads a body. The inner `Err` holds the first bytes of a body that is larger than the bound.
    async fn read_whole(&mut self, body: &mut Incoming, bytes_max: usize) -> Result<Result<Bytes, Bytes>, String> {
        let mut whole = BytesMut::new();
        loop {
            let frame = poll_fn(|cx| {
                // Polling the body registers its demand, driving the connection reads, and the second poll takes the
                // data.
                let first = Pin::new(&mut *body).poll_frame(cx);
                if first.is_ready() {
                    return first;
                }
                drive(&mut self.connection, cx);
                Pin::new(&mut *body).poll_frame(cx)
            });
            let Some(frame) = frame.await else { return Ok(Ok(whole.freeze())) };
            if let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() {
                if whole.len() + data.len() > bytes_max {
                    whole.extend_from_slice(&data[..data.len().min(bytes_max.saturating_sub(whole.len()))]);
                    return Ok(Err(whole.freeze()));
                }
                whole.extend_from_slice(&data);
            }
        }
    }

    /// Whether it is open and ready for a request, as far as this side knows. Also marks it as reused: only connections
    /// that have carried a request are asked.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        drive(&mut self.connection, cx);
        self.reused = true;
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// How an exchange ended.
pub(in crate::engine) enum Exchanged {
    /// A complete reply came.
    Whole(Reply),
    /// The head of the reply did not come in time.
    HeadTimedOut,
    /// The body of the reply did not end in time.
    BodyTimedOut,
}

/// Lets the connection read and write. An error of the connection shows in the exchange that is in progress.
fn drive(connection: &mut Option<Connection<TokioIo<TcpStream>, Full<Bytes>>>, cx: &mut Context<'_>) {
    if let Some(alive) = connection
        && Pin::new(alive).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// Brings a request into the form that goes over a connection: the target without the host, which goes into a header.
pub(in crate::engine) fn to_origin_form(request: &mut Request<Full<Bytes>>) {
    let uri = request.uri();
    let host = match (uri.host(), uri.port_u16()) {
        (Some(host), Some(port)) if port != 80 => HeaderValue::from_str(&format!("{host}:{port}")),
        (host, _) => HeaderValue::from_str(host.unwrap_or_default()),
    };
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if let Ok(host) = host {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    *request.uri_mut() = Uri::from(path);
}

/// The error with its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
