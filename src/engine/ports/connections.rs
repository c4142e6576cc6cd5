//! Connections to services, for calls.
//!
//! Always true: a connection belongs to one call at a time, and comes back only after both of its messages ended whole;
//! the call drives it itself, so that no task stands between a run and its socket; idle ones are bounded in number and
//! age. Whether a request could have left is known: what was not handed to the socket comes back as
//! [`Broken::NotSent`]. What an outcome means is `client`'s business, and so are the times.
//!
//! When the other side is slow, the call waits until somebody drops it, and the connection goes with it; when it has
//! closed an idle connection, that is seen before a request is given to it, but for the moment between; when it answers
//! more than was asked, the connection is not used again.
//!
//! A request that must not be repeated gets a connection that was used before only where a close that crosses it on the
//! wire is unlikely: the connection was idle for less than [`ConnectionPool::unrepeatable_idle`], which is shorter than servers'
//! keep-alive time-outs, and this server was seen to keep connections open after a reply and not to close them early.

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

/// A reply's head, and its body unless that is larger than was allowed.
pub(in crate::engine) type Reply = (response::Parts, Result<Bytes, Bytes>);

/// Why there is no reply.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum Broken {
    /// Nothing of the request has left.
    NotSent(String),
    /// Some of it may have.
    CutOff(String),
}

/// Idle connections, by where they lead to.
pub(in crate::engine) struct ConnectionPool {
    idle: Mutex<Idle>,
    idle_max: usize,
    idle_for: Duration,
    /// An idle connection that is older carries no request that must not be repeated.
    unrepeatable_idle: Duration,
}

#[derive(Default)]
struct Idle {
    by_authority: HashMap<Authority, Origin>,
    /// Somebody closes what is idle for too long.
    swept: bool,
}

/// One server's idle connections, the longest idle first, and what they showed of its keep-alive.
#[derive(Default)]
struct Origin {
    idle: VecDeque<(PooledConnection, Instant)>,
    /// A connection was open [`SURVIVED`] after its last reply.
    keeps_open: bool,
    /// When a connection was last found closed within [`EARLY`] of its last reply, which the reply did not announce.
    closed_early: Option<Instant>,
}

/// A connection that is open so long after a reply was not closed with it.
const SURVIVED: Duration = Duration::from_millis(20);
/// A server that closes sooner does so without a time-out that a client could know.
const EARLY: Duration = Duration::from_secs(1);
/// So long after an early close, no request that must not be repeated is given to a used connection.
const DISTRUST: Duration = Duration::from_secs(60);

impl Origin {
    /// Notes whether a connection was found open so long after its last reply.
    fn observe(&mut self, open: bool, idle: Duration) {
        if open {
            self.keeps_open |= idle >= SURVIVED;
        } else if idle < EARLY {
            self.closed_early = Some(Instant::now());
        }
    }
    /// Whether a request that must not be repeated may be given to a used connection.
    fn is_trusted(&self) -> bool {
        self.keeps_open && self.closed_early.is_none_or(|at| at.elapsed() >= DISTRUST)
    }
}

impl ConnectionPool {
    pub fn new(idle_max: usize, idle_for: Duration, unrepeatable_idle: Duration) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), idle_max, idle_for, unrepeatable_idle })
    }

    /// A connection for a request: an idle one, where that may carry it, or a new one. Once this has returned, a byte
    /// may leave.
    ///
    /// # Errors
    /// There is none; nothing has left.
    pub async fn take(&self, uri: &Uri, repeatable: bool, connect: Duration) -> Result<PooledConnection, String> {
        let authority = uri.authority().ok_or("its URL names no host")?;
        match poll_fn(|cx| Poll::Ready(self.pop(authority, repeatable, cx))).await {
            Some(link) => Ok(link),
            None => PooledConnection::open(uri.clone(), connect).await,
        }
    }

    /// The idle connection that was used last, if it may carry such a request.
    fn pop(&self, authority: &Authority, repeatable: bool, cx: &mut Context<'_>) -> Option<PooledConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = idle.by_authority.get_mut(authority)?;
        if !repeatable && !origin.is_trusted() {
            // The longest idle one shows whether the server keeps connections open at all.
            let (mut link, since) = origin.idle.pop_front_if(|(_, since)| since.elapsed() >= SURVIVED)?;
            let open = link.is_idle(cx);
            origin.observe(open, since.elapsed());
            if open {
                origin.idle.push_front((link, since));
            }
            if !origin.is_trusted() {
                return None;
            }
        }
        let within = if repeatable { self.idle_for } else { self.unrepeatable_idle };
        while let Some((mut link, since)) = origin.idle.pop_back_if(|(_, since)| since.elapsed() < within) {
            let open = link.is_idle(cx);
            origin.observe(open, since.elapsed());
            if open {
                return Some(link);
            }
            if !repeatable && !origin.is_trusted() {
                return None;
            }
        }
        None
    }

    /// For the next call.
    pub async fn give_back(self: &Arc<Self>, uri: &Uri, mut link: PooledConnection) {
        let Some(authority) = uri.authority() else { return };
        if !poll_fn(|cx| Poll::Ready(link.is_idle(cx))).await || self.idle_max == 0 {
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
        origin.idle.push_back((link, Instant::now()));
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.idle_for));
        }
    }

    /// Closes what is idle for too long, or was closed by the other side; whether anything is left.
    async fn swept(&self) -> bool {
        poll_fn(|cx| {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.by_authority.retain(|_, origin| {
                origin.idle.retain_mut(|(link, since)| since.elapsed() < self.idle_for && link.is_idle(cx));
                !origin.idle.is_empty()
            });
            idle.swept = !idle.by_authority.is_empty();
            Poll::Ready(idle.swept)
        })
        .await
    }
}

/// As long as there is something to sweep.
async fn sweep(links: Weak<ConnectionPool>, idle_for: Duration) {
    let pause = (idle_for / 4).clamp(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        tokio::time::sleep(pause).await;
        match links.upgrade() {
            Some(links) if links.swept().await => {}
            _ => return,
        }
    }
}

/// One connection.
pub(in crate::engine) struct PooledConnection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    connection: Option<Connection<TokioIo<TcpStream>, Full<Bytes>>>,
    /// It was idle before.
    pub reused: bool,
}

impl PooledConnection {
    async fn open(uri: Uri, connect: Duration) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect));
        let stream = connector.oneshot(uri).await.map_err(|error| chain(&error))?;
        let (sender, connection) = http1::handshake(stream).await.map_err(|error| chain(&error))?;
        Ok(Self { sender, connection: Some(connection), reused: false })
    }

    /// Sends a request and reads its reply, with a body of at most so many bytes. Whoever drops this leaves the
    /// connection in the middle of a message: it is of no use any more.
    ///
    /// # Errors
    /// There is no whole reply; the request comes back where nothing of it has left.
    pub async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        body_bytes_max: usize,
        head_ends: Instant,
        ends: Instant,
    ) -> Result<Exchanged, (Broken, Option<Request<Full<Bytes>>>)> {
        let mut send = pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        let reply = tokio::time::timeout_at(
            head_ends,
            poll_fn(|cx| {
                drive(connection, cx);
                send.as_mut().poll(cx)
            }),
        );
        let (head, mut body) = match reply.await {
            Err(_) => return Ok(Exchanged::NoHead),
            Ok(Ok(reply)) => reply.into_parts(),
            Ok(Err(mut error)) => {
                let message = error.take_message();
                let why = chain(&error.into_error());
                let broken = if message.is_some() { Broken::NotSent(why) } else { Broken::CutOff(why) };
                return Err((broken, message));
            }
        };
        let whole = tokio::time::timeout_at(ends, self.read_whole(&mut body, body_bytes_max));
        match whole.await {
            Ok(Ok(body)) => Ok(Exchanged::Whole((head, body))),
            Ok(Err(why)) => Err((Broken::CutOff(why), None)),
            Err(_) => Ok(Exchanged::NoEnd),
        }
    }

    /// A body; what there is of one that is larger than the bound is the error.
    async fn read_whole(&mut self, body: &mut Incoming, bytes_max: usize) -> Result<Result<Bytes, Bytes>, String> {
        let mut whole = BytesMut::new();
        loop {
            let frame = poll_fn(|cx| {
                // It says what it wants, is given it, and takes it.
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

    /// Whether it waits for a request, as far as this side knows.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        drive(&mut self.connection, cx);
        self.reused = true;
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// How far an exchange came.
pub(in crate::engine) enum Exchanged {
    /// To its end.
    Whole(Reply),
    /// The head of the reply was not there in time.
    NoHead,
    /// Its body did not end in time.
    NoEnd,
}

/// Moves bytes. What ends it shows in the exchange that is under way.
fn drive(connection: &mut Option<Connection<TokioIo<TcpStream>, Full<Bytes>>>, cx: &mut Context<'_>) {
    if let Some(alive) = connection
        && Pin::new(alive).poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// A request as a connection takes it: its target without the host, which stands in a header.
pub(in crate::engine) fn to_origin(request: &mut Request<Full<Bytes>>) {
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

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
