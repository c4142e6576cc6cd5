//! The pool of idle connections to services.
//!
//! Always true: a connection that was taken belongs to one exchange and returns only after both of its messages ended
//! completely; idle connections are bounded in number and age, and each connection is replaced by a new one after a
//! time, so that a changed address of its service's name is noticed. There are eight lists, and the threads take them
//! in turn, so that up to eight threads share no lock; only when a thread's list is empty another one is tried. A
//! connection that the other side closed is noticed by its task and not handed out; `legacy` handles one that is closed
//! just after.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::monotonic::{NEVER, now};
use super::request_body::RequestBody;
use super::turns::Turns;
use crate::flag::Service;
use crate::limits::Limits;

const SHARDS: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static SHARD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Relaxed) % SHARDS);
}

/// A connection to a service.
pub(super) struct Connection {
    pub sender: SendRequest<RequestBody>,
    /// When it is no longer given to an exchange, in microseconds of `monotonic::now`.
    retires: u64,
}

struct Idle {
    connection: Connection,
    since: u64,
}

/// One address of a service.
pub(super) struct Target {
    host: String,
    port: u16,
    /// For requests that name no host.
    pub authority: HeaderValue,
    /// The base path in front of each path; usually empty.
    base: String,
    idle: [Mutex<Vec<Idle>>; SHARDS],
    idle_count: AtomicUsize,
    idle_max: usize,
    idle_micros: u64,
    age_micros: u64,
    head_bytes_max: usize,
}

/// Why there is no connection: nothing was sent.
#[derive(Debug)]
pub(super) enum ConnectError {
    Refused(std::io::Error),
    TimedOut,
    Handshake(hyper::Error),
}

impl Target {
    fn new(url: &Uri, limits: &Limits) -> Self {
        let authority = url.authority().map_or("", |a| a.as_str());
        let host = url.host().unwrap_or_default();
        Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority).unwrap_or(HeaderValue::from_static("legacy")),
            base: url.path().trim_end_matches('/').to_owned(),
            idle: Default::default(),
            idle_count: AtomicUsize::new(0),
            idle_max: usize::try_from(limits.service_idle_connections_max).unwrap_or(usize::MAX),
            idle_micros: limits.service_idle_ms.saturating_mul(1_000),
            age_micros: limits.service_connection_age_ms.saturating_mul(1_000),
            head_bytes_max: usize::try_from(limits.head_bytes_max).unwrap_or(64 << 10).max(8 << 10),
        }
    }

    /// The target of a request below the base path; `None` where there is no base path.
    pub(super) fn uri(&self, origin: &Uri) -> Option<Uri> {
        if self.base.is_empty() {
            return None;
        }
        let path = origin.path_and_query().map_or("/", |p| p.as_str());
        format!("{}{path}", self.base).parse().ok()
    }

    /// An idle connection that is not known to be closed.
    pub(super) async fn take(&self) -> Option<Connection> {
        let home = SHARD.with(Cell::get);
        for step in 0..SHARDS {
            while let Some(Idle { mut connection, since }) = self.pop((home + step) % SHARDS) {
                let at = now();
                let is_fresh = at.saturating_sub(since) < self.idle_micros && at < connection.retires;
                let sender = &mut connection.sender;
                // A connection returns to the pool when its reply ends, possibly before its own task has noticed that
                // end: `ready` waits for the task.
                if is_fresh && !sender.is_closed() && (sender.is_ready() || sender.ready().await.is_ok()) {
                    return Some(connection);
                }
            }
        }
        None
    }

    fn pop(&self, shard: usize) -> Option<Idle> {
        let mut list = match self.idle[shard].try_lock() {
            Ok(list) => list,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let idle = list.pop();
        if idle.is_some() {
            self.idle_count.fetch_sub(1, Relaxed);
        }
        idle
    }

    pub(super) fn return_to_pool(&self, connection: Connection) {
        let since = now();
        let is_full = self.idle_count.load(Relaxed) >= self.idle_max;
        if is_full || connection.sender.is_closed() || connection.retires <= since {
            return;
        }
        let shard = SHARD.with(Cell::get);
        let mut list = self.idle[shard].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        list.push(Idle { connection, since });
        self.idle_count.fetch_add(1, Relaxed);
    }

    /// Closes connections that have been idle for too long.
    fn sweep(&self) {
        let now = now();
        for shard in &self.idle {
            let mut list = shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let before = list.len();
            list.retain(|Idle { connection, since }| {
                let is_fresh = now.saturating_sub(*since) < self.idle_micros && now < connection.retires;
                is_fresh && !connection.sender.is_closed()
            });
            self.idle_count.fetch_sub(before - list.len(), Relaxed);
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self, within: Duration) -> Result<Connection, ConnectError> {
        let stream = match timeout(within, TcpStream::connect((self.host.as_str(), self.port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(ConnectError::Refused(e)),
            Err(_) => return Err(ConnectError::TimedOut),
        };
        // Without this, small writes wait for acknowledgements. A failure only costs time.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_header_size(self.head_bytes_max)
            // Bounds what is read ahead for a client that does not read; a head must fit too.
            .max_buf_size(self.head_bytes_max.saturating_mul(2))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Handshake)?;
        // The task ends when the sender and the bodies are dropped, or the other side closes. Errors reach the exchange
        // that uses the connection.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        // Spread, so that connections that were opened together do not end together.
        let retires = match self.age_micros {
            0 => NEVER,
            age => now().saturating_add(age - fastrand::u64(0..=age / 10)),
        };
        Ok(Connection { sender, retires })
    }
}

/// A service as the proxy calls it.
pub(super) struct Upstream {
    pub service: Arc<Service>,
    pub targets: Vec<Arc<Target>>,
    next: AtomicUsize,
    /// `None` if it gets any number of requests at the same time.
    pub turns: Option<Turns>,
    pub connect: Duration,
    /// The limit for the first byte of a reply, in microseconds.
    pub first_byte: u64,
}

impl Upstream {
    pub(super) fn new(service: Arc<Service>, limits: &Limits) -> Self {
        let first_byte = service.first_byte.unwrap_or(Limits::ms(limits.first_byte_ms));
        Self {
            targets: service.urls.iter().map(|url| Arc::new(Target::new(url, limits))).collect(),
            next: AtomicUsize::new(0),
            turns: Turns::of(&service, limits),
            connect: service.connect.unwrap_or(Limits::ms(limits.connect_ms)),
            first_byte: u64::try_from(first_byte.as_micros()).unwrap_or(u64::MAX),
            service,
        }
    }
    /// Its addresses in round-robin order.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Arc<Target>> {
        let start = if self.targets.len() > 1 { self.next.fetch_add(1, Relaxed) } else { 0 };
        let n = self.targets.len();
        (0..n).map(move |i| &self.targets[(start.wrapping_add(i)) % n])
    }
    pub(super) fn sweep(&self) {
        self.targets.iter().for_each(|target| target.sweep());
    }
}
