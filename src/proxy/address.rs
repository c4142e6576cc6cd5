//! One address of a service: its connections, and whether it gets requests.
//!
//! Always true: an ejected address is tried again by a task of its own, and no client waits for that; the task ends
//! when the address is no longer one of its service. Connections are made within the service's `connect` time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::connector::{ConnectError, Connector, Opened};
use super::ejection::{EjectedCount, Ejection, Why};
use super::line_limit::LineLimit;
use super::monotonic::now;
use super::pool::{Connection, Http1Connection, IdleBounds, IdleConnections};
use super::request_body::RequestBody;
use super::target::Target;
use crate::flag::{Eject, HealthCheck, HttpVersion, Service};
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::transport::Multiplexer;

/// What the addresses of one service have in common.
pub(super) struct Common {
    pub service: ServiceName,
    pub eject: Option<Eject>,
    pub health: Option<HealthCheck>,
    /// In microseconds; 0: none.
    slow_start: u64,
    pub connector: Connector,
    pub idle: Arc<IdleBounds>,
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
            connector: Connector::new(service, limits),
            idle: Arc::new(IdleBounds::new(service, limits)),
            ejected_count: EjectedCount::default(),
            ejected_gauge: gauge!("pointsman_legacy_addresses_ejected", "service" => name()),
            unhealthy_gauge: gauge!("pointsman_legacy_addresses_unhealthy", "service" => name()),
            connect_failures: counter!("pointsman_legacy_connect_failures_total", "service" => name()),
        }
    }
}

static FAILED_HANDSHAKES: LineLimit = LineLimit::new();

/// One address of a service.
pub(super) struct Address {
    pub socket: SocketAddr,
    pub target: Arc<Target>,
    pub common: Arc<Common>,
    /// HTTP/1.1 connections that carry no request.
    pub idle: IdleConnections,
    /// HTTP/2 connections.
    multiplexed: Multiplexer<RequestBody, ConnectError>,
    /// Whether it chose HTTP/1.1 the last time, where that is negotiated.
    chose_http1: AtomicBool,
    in_flight: AtomicU64,
    ejection: Ejection,
    /// Since when it gets requests, in microseconds of `monotonic::now`.
    used_since: AtomicU64,
    /// Whether a task checks its health.
    pub is_checked: AtomicBool,
    /// Whether its service no longer has this address. A long request may still hold it then.
    is_removed: AtomicBool,
}

impl Address {
    pub(super) fn new(socket: SocketAddr, target: Arc<Target>, common: Arc<Common>, used_since: u64) -> Self {
        Self {
            socket,
            target,
            idle: IdleConnections::new(common.idle.clone()),
            multiplexed: Multiplexer::default(),
            chose_http1: AtomicBool::new(false),
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
        self.multiplexed.close_all();
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
    pub(super) fn keep(&self, connection: Http1Connection) {
        if !self.is_removed() {
            self.idle.put(connection);
        }
    }
    /// Closes connections that have been idle for too long.
    pub(super) fn sweep(&self) {
        self.idle.sweep();
        self.multiplexed.sweep(self.common.idle.time_max());
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

    /// A connection for one request, and whether it has carried one before. An address that accepts none is ejected.
    /// `only_http1` is for requests that HTTP/2 has no form for.
    pub(super) async fn connection(
        self: &Arc<Self>,
        must_be_new: bool,
        only_http1: bool,
    ) -> Result<(Connection, bool), ConnectError> {
        let http = if only_http1 { HttpVersion::Http1 } else { self.common.connector.http };
        if http != HttpVersion::Http1
            && !must_be_new
            && let Some(stream) = self.multiplexed.take(|_| true)
        {
            return Ok((Connection::Http2(stream), true));
        }
        if http != HttpVersion::Http2
            && !must_be_new
            && let Some(connection) = self.idle.take().await
        {
            return Ok((Connection::Http1(connection), true));
        }
        // In a box, so that requests that need no new connection have smaller futures.
        Box::pin(self.new_connection(must_be_new, http)).await.map(|connection| (connection, false))
    }

    async fn new_connection(
        self: &Arc<Self>,
        must_be_new: bool,
        http: HttpVersion,
    ) -> Result<Connection, ConnectError> {
        let may_be_http2 = match http {
            HttpVersion::Http1 => false,
            HttpVersion::Http2 => true,
            HttpVersion::Negotiated => !self.chose_http1.load(Relaxed),
        };
        match may_be_http2 {
            true => self.stream(must_be_new).await,
            false => self.connect(http).await.map(|opened| self.use_first(opened)),
        }
    }

    /// The place of the first request on a connection.
    fn use_first(&self, opened: Opened) -> Connection {
        match opened {
            Opened::Http1(connection) => Connection::Http1(connection),
            Opened::Http2(connection) => Connection::Http2(self.multiplexed.add(connection)),
        }
    }

    /// A stream on a connection that was not open before, or for which this request has waited.
    async fn stream(self: &Arc<Self>, must_be_new: bool) -> Result<Connection, ConnectError> {
        let mut http1 = None;
        let opening = self.multiplexed.open(
            async || match self.connect(self.common.connector.http).await? {
                Opened::Http2(connection) => Ok(Some(connection)),
                Opened::Http1(connection) => {
                    http1 = Some(connection);
                    Ok(None)
                }
            },
            |_| !must_be_new,
            ConnectError::copy,
        );
        // Opening one takes at most half of that, and another request may have to be waited for first.
        let stream =
            timeout(self.common.connector.connect * 2, opening).await.unwrap_or(Err(ConnectError::TimedOut))?;
        match (stream, http1) {
            (Some(stream), _) => Ok(Connection::Http2(stream)),
            (None, Some(connection)) => Ok(Connection::Http1(connection)),
            // Another request has found that HTTP/1.1 is chosen.
            (None, None) => self.connect(HttpVersion::Http1).await.map(|opened| self.use_first(opened)),
        }
    }

    /// A new connection. An address that accepts none is ejected.
    async fn connect(self: &Arc<Self>, http: HttpVersion) -> Result<Opened, ConnectError> {
        let opened = self.open(http).await;
        if http == HttpVersion::Negotiated
            && let Ok(opened) = &opened
        {
            self.chose_http1.store(matches!(opened, Opened::Http1(_)), Relaxed);
        }
        if let Err(error) = &opened {
            let Common { service, connect_failures, .. } = &*self.common;
            connect_failures.increment(1);
            if matches!(error, ConnectError::Tls(_) | ConnectError::Handshake(_))
                && let Some(left_out) = FAILED_HANDSHAKES.next_line(now() / 1_000_000)
            {
                let (service, address) = (service.as_str(), self.socket);
                tracing::warn!(service, %address, %error, left_out, "no connection to a service: nothing was sent");
            }
            self.eject(Why::NoConnection);
        }
        opened
    }

    async fn open(&self, http: HttpVersion) -> Result<Opened, ConnectError> {
        self.common.connector.open(self.socket, &self.target, http).await
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
        match address.open(address.common.connector.http).await {
            Ok(opened) => {
                match opened {
                    Opened::Http1(connection) => address.keep(connection),
                    Opened::Http2(connection) => drop(address.multiplexed.add(connection)),
                }
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
