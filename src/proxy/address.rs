//! One address of a service: its connections, and whether it gets requests.
//!
//! Always true: an ejected address is tried again by a task of its own, and no client waits for that; the task ends
//! when the address is no longer one of its service. Connections are made within the service's `connect` time.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper_util::rt::TokioIo;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::ejection::{EjectedCount, Ejection, Why};
use super::monotonic::{NEVER, now};
use super::pool::{Connection, IdleBounds, IdleConnections};
use crate::flag::{BaseUrl, Eject, HealthCheck, Service};
use crate::limits::Limits;
use crate::names::ServiceName;

/// Why there is no connection: nothing was sent.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The service's name has no address now.
    Unresolved(std::io::Error),
    Refused(std::io::Error),
    TimedOut,
    Handshake(hyper::Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(error) => write!(f, "its name cannot be looked up: {error}"),
            Self::Refused(error) => write!(f, "{error}"),
            Self::TimedOut => f.write_str("no connection in time"),
            Self::Handshake(error) => write!(f, "{error}"),
        }
    }
}

/// One base URL of a service.
pub(super) struct Target {
    pub host: String,
    pub port: u16,
    /// For requests that name no host.
    pub authority: HeaderValue,
    /// The base path in front of each path; usually empty.
    pub base: String,
    pub weight: u64,
}

impl Target {
    pub(super) fn new(url: &BaseUrl) -> Self {
        let BaseUrl { uri, weight } = url;
        let authority = uri.authority().map_or("", |a| a.as_str());
        let host = uri.host().unwrap_or_default();
        Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority).unwrap_or(HeaderValue::from_static("legacy")),
            base: uri.path().trim_end_matches('/').to_owned(),
            weight: u64::from(*weight),
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
}

/// What the addresses of one service have in common.
pub(super) struct Common {
    pub service: ServiceName,
    pub eject: Option<Eject>,
    pub health: Option<HealthCheck>,
    /// In microseconds; 0: none.
    slow_start: u64,
    pub connect: Duration,
    pub idle: Arc<IdleBounds>,
    age_micros: u64,
    head_bytes_max: usize,
    pub ejected_count: EjectedCount,
    ejected_gauge: Gauge,
    unhealthy_gauge: Gauge,
    connect_failures: Counter,
}

impl Common {
    pub(super) fn new(service: &Service, limits: &Limits) -> Self {
        let name = || service.name.to_string();
        Self {
            service: service.name.clone(),
            eject: service.eject,
            health: service.health.clone(),
            slow_start: service.slow_start.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            connect: service.connect.unwrap_or(Limits::ms(limits.connect_ms)),
            idle: Arc::new(IdleBounds::new(limits)),
            age_micros: limits.service_connection_age_ms.saturating_mul(1_000),
            head_bytes_max: usize::try_from(limits.head_bytes_max).unwrap_or(64 << 10).max(8 << 10),
            ejected_count: EjectedCount::default(),
            ejected_gauge: gauge!("pointsman_legacy_addresses_ejected", "service" => name()),
            unhealthy_gauge: gauge!("pointsman_legacy_addresses_unhealthy", "service" => name()),
            connect_failures: counter!("pointsman_legacy_connect_failures_total", "service" => name()),
        }
    }
}

/// One address of a service.
pub(super) struct Address {
    pub socket: SocketAddr,
    pub target: Arc<Target>,
    pub common: Arc<Common>,
    pub idle: IdleConnections,
    in_flight: AtomicU64,
    ejection: Ejection,
    /// Since when it gets requests, in microseconds of `monotonic::now`.
    used_since: AtomicU64,
    /// Whether a task checks its health.
    pub is_checked: AtomicBool,
    /// Whether it is no address of its service any more. A request that takes long may hold it for long.
    is_removed: AtomicBool,
}

impl Address {
    pub(super) fn new(socket: SocketAddr, target: Arc<Target>, common: Arc<Common>, used_since: u64) -> Self {
        Self {
            socket,
            target,
            idle: IdleConnections::new(common.idle.clone()),
            common,
            in_flight: AtomicU64::new(0),
            ejection: Ejection::default(),
            used_since: AtomicU64::new(used_since),
            is_checked: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
        }
    }

    /// Whether it is no address of its service any more.
    pub(super) fn is_removed(&self) -> bool {
        self.is_removed.load(Relaxed)
    }
    /// It is no address of its service any more: closes its idle connections, and ends its tasks and counts.
    pub(super) fn remove(&self) {
        if self.is_removed.swap(true, Relaxed) {
            return;
        }
        self.idle.close_all();
        let Common { ejected_count, ejected_gauge, unhealthy_gauge, .. } = &*self.common;
        let (is_ejected, is_unhealthy) = self.ejection.leave(ejected_count);
        if is_ejected {
            ejected_gauge.decrement(1.0);
        }
        if is_unhealthy {
            unhealthy_gauge.decrement(1.0);
        }
    }
    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, connection: Connection) {
        if !self.is_removed() {
            self.idle.put(connection);
        }
    }

    /// Whether it is neither ejected nor unhealthy.
    pub(super) fn is_available(&self) -> bool {
        self.ejection.is_available()
    }
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }
    /// Its weight in hundredths, less while it has been used only for a short time.
    pub(super) fn weight(&self, at: u64) -> u64 {
        let (slow_start, full) = (self.common.slow_start, self.target.weight * 100);
        if slow_start == 0 {
            return full;
        }
        let used_for = at.saturating_sub(self.used_since.load(Relaxed)).min(slow_start);
        let share = u128::from(full) * u128::from(used_for) / u128::from(slow_start);
        // Without any request it could not show that it serves.
        u64::try_from(share).unwrap_or(full).max(full / 10)
    }

    /// A new connection. An address that accepts none is ejected.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Connection, ConnectError> {
        let opened = self.open().await;
        if opened.is_err() {
            self.common.connect_failures.increment(1);
            self.eject(Why::NoConnection);
        }
        opened
    }

    async fn open(&self) -> Result<Connection, ConnectError> {
        let common = &self.common;
        let stream = match timeout(common.connect, TcpStream::connect(self.socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(ConnectError::Refused(e)),
            Err(_) => return Err(ConnectError::TimedOut),
        };
        // Without this, small writes wait for acknowledgements. A failure only costs time.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_header_size(common.head_bytes_max)
            // Bounds what is read ahead for a client that does not read; a head must fit too.
            .max_buf_size(common.head_bytes_max.saturating_mul(2))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Handshake)?;
        // The task ends when the sender and the bodies are dropped, or the other side closes. Errors reach the exchange
        // that uses the connection.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        // Spread, so that connections that were opened together do not end together.
        let retires = match common.age_micros {
            0 => NEVER,
            age => now().saturating_add(age - fastrand::u64(0..=age / 10)),
        };
        Ok(Connection { sender, retires })
    }

    /// A request got an answer.
    pub(super) fn answered(&self) {
        self.ejection.answered();
        // It was tried although it is ejected.
        if self.ejection.is_ejected() {
            self.readmit();
        }
    }
    /// A request was sent to it and got no answer: not in time, or the connection ended.
    pub(super) fn unanswered(self: &Arc<Self>) {
        let Some(settings) = self.common.eject.as_ref().filter(|_| !self.is_removed()) else { return };
        if let Some(time) = self.ejection.unanswered(settings, &self.common.ejected_count, now()) {
            self.ejected(Why::NoAnswer, time);
        }
    }
    fn eject(self: &Arc<Self>, why: Why) {
        let Some(settings) = self.common.eject.as_ref().filter(|_| !self.is_removed()) else { return };
        if let Some(time) = self.ejection.eject(why, settings, &self.common.ejected_count, now()) {
            self.ejected(why, time);
        }
    }

    fn ejected(self: &Arc<Self>, why: Why, time: Duration) {
        let Common { service, ejected_gauge, .. } = &*self.common;
        ejected_gauge.increment(1.0);
        counter!("pointsman_legacy_ejections_total", "service" => service.to_string(), "reason" => why.label())
            .increment(1);
        tracing::warn!(
            service = service.as_str(), address = %self.socket, reason = why.label(), ms = time.as_millis(),
            "an address of a service gets no requests for a while"
        );
        // There is no runtime only while the process ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(readmit(Arc::downgrade(self), time));
        }
    }

    /// It gets requests again, if it was ejected.
    fn readmit(&self) {
        let Common { service, eject: Some(settings), ejected_count, ejected_gauge, .. } = &*self.common else { return };
        if self.ejection.readmit(settings, ejected_count, now()) {
            self.used_since.store(now(), Relaxed);
            ejected_gauge.decrement(1.0);
            let (service, address) = (service.as_str(), self.socket);
            tracing::info!(service, %address, "an address of a service gets requests again");
        }
    }

    /// Records what the health checks found.
    pub(super) fn set_healthy(&self, is_healthy: bool) {
        if self.is_removed() || !self.ejection.set_healthy(is_healthy) {
            return;
        }
        let Common { service, unhealthy_gauge, .. } = &*self.common;
        let (service, address) = (service.as_str(), self.socket);
        if is_healthy {
            unhealthy_gauge.decrement(1.0);
            self.used_since.store(now(), Relaxed);
            tracing::info!(service, %address, "an address of a service passes its health checks again");
        } else {
            unhealthy_gauge.increment(1.0);
            tracing::warn!(service, %address, "an address of a service fails its health checks and gets no requests");
        }
    }
}

/// Waits until an ejected address accepts a connection again.
async fn readmit(address: Weak<Address>, mut time: Duration) {
    loop {
        sleep(time).await;
        let Some(address) = address.upgrade().filter(|address| address.ejection.is_ejected()) else { return };
        let Some(settings) = &address.common.eject else { return };
        match address.open().await {
            Ok(connection) => {
                address.keep(connection);
                return address.readmit();
            }
            Err(error) => {
                time = address.ejection.stay_ejected(settings);
                tracing::debug!(%error, address = %address.socket, ms = time.as_millis(), "it still accepts no connection");
            }
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.remove();
    }
}

/// One request in flight to an address, until it is dropped.
pub(super) struct InFlight {
    pub address: Arc<Address>,
}

impl InFlight {
    pub(super) fn new(address: Arc<Address>) -> Self {
        address.in_flight.fetch_add(1, Relaxed);
        Self { address }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.address.in_flight.fetch_sub(1, Relaxed);
    }
}
