//! One address of a service, with the connections over which requests are forwarded to it.
//!
//! Always true: connections are made within the service's `connect` time. Whether the address gets requests depends on
//! its state ([`transport::Address`](crate::transport::Address)), which it shares with the steps' calls of the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::time::timeout;

use super::connector::{Connector, Opened};
use super::line_limit::LineLimit;
use super::monotonic::now;
use super::pool::{Connection, Http1Connection, IdleBounds, IdleConnections};
use super::request_body::RequestBody;
use crate::flag::{HttpVersion, Service};
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::transport::{self, ConnectError, Dialer, Multiplexer, TrafficClass};

/// What the addresses of one service have in common.
pub(super) struct UpstreamShared {
    pub service: ServiceName,
    pub connector: Connector,
    pub idle: Arc<IdleBounds>,
}

impl UpstreamShared {
    pub(super) fn new(service: &Service, dialer: Arc<Dialer>, limits: &Limits) -> Self {
        Self {
            service: service.name.clone(),
            connector: Connector::new(service, dialer, limits),
            idle: Arc::new(IdleBounds::new(service, limits)),
        }
    }
}

static FAILED_HANDSHAKES: LineLimit = LineLimit::new();

/// One address of a service.
pub(super) struct ProxiedAddress {
    /// The state shared with the steps' calls of the service: load, ejection, health.
    pub shared: Arc<transport::Address>,
    common: Arc<UpstreamShared>,
    /// HTTP/1.1 connections that carry no request.
    idle: IdleConnections,
    /// HTTP/2 connections.
    multiplexed: Multiplexer<RequestBody, ConnectError>,
    /// Whether the last handshake that negotiated the HTTP version chose HTTP/1.1.
    chose_http1: AtomicBool,
    /// Whether no more requests are forwarded to this address. A request that began earlier may still be in flight.
    is_closed: AtomicBool,
}

impl ProxiedAddress {
    pub(super) fn new(shared: Arc<transport::Address>, common: Arc<UpstreamShared>) -> Self {
        Self {
            shared,
            idle: IdleConnections::new(common.idle.clone()),
            multiplexed: Multiplexer::default(),
            chose_http1: AtomicBool::new(false),
            common,
            is_closed: AtomicBool::new(false),
        }
    }

    /// Stops forwarding requests to this address and closes its idle connections.
    pub(super) fn close(&self) {
        if !self.is_closed.swap(true, Relaxed) {
            self.idle.close_all();
            self.multiplexed.close_all();
        }
    }
    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, connection: Http1Connection) {
        if !self.is_closed.load(Relaxed) {
            self.idle.put(connection);
        }
    }
    /// Closes connections that have been idle for too long.
    pub(super) fn sweep(&self) {
        self.idle.sweep();
        self.multiplexed.sweep(self.common.idle.time_max());
    }

    /// Returns a connection for one request, and whether that connection has carried a request before. Ejects the
    /// address if it accepts no connection. `only_http1` is for requests that HTTP/2 cannot express.
    pub(super) async fn connection(
        self: &Arc<Self>,
        must_be_new: bool,
        only_http1: bool,
    ) -> Result<(Connection, bool), ConnectError> {
        let http = if only_http1 { HttpVersion::Http1 } else { self.common.connector.dialer.http };
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
        // Boxed, so that the futures of requests that need no new connection are smaller.
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
            false => self.connect(http).await.map(|opened| self.for_first_request(opened)),
        }
    }

    /// Returns the new connection, or its first stream (HTTP/2), for the request that opened it.
    fn for_first_request(&self, opened: Opened) -> Connection {
        match opened {
            Opened::Http1(connection) => Connection::Http1(connection),
            Opened::Http2(connection) => Connection::Http2(self.multiplexed.add(connection)),
        }
    }

    /// Opens a stream. If `must_be_new`, its connection was opened for this request, or while this request waited.
    async fn stream(self: &Arc<Self>, must_be_new: bool) -> Result<Connection, ConnectError> {
        let mut http1 = None;
        let opening = self.multiplexed.open(
            async || match self.connect(self.common.connector.dialer.http).await? {
                Opened::Http2(connection) => Ok(Some(connection)),
                Opened::Http1(connection) => {
                    http1 = Some(connection);
                    Ok(None)
                }
            },
            |_| !must_be_new,
            ConnectError::copy,
        );
        // Opening a connection takes at most half of this time. In the other half this request may wait for a
        // connection that another request opens.
        let stream =
            timeout(self.common.connector.dialer.connect * 2, opening).await.unwrap_or(Err(ConnectError::TimedOut))?;
        match (stream, http1) {
            (Some(stream), _) => Ok(Connection::Http2(stream)),
            (None, Some(connection)) => Ok(Connection::Http1(connection)),
            // Another request's handshake has chosen HTTP/1.1.
            (None, None) => self.connect(HttpVersion::Http1).await.map(|opened| self.for_first_request(opened)),
        }
    }

    /// Opens a connection. Ejects the address if it accepts none.
    async fn connect(self: &Arc<Self>, http: HttpVersion) -> Result<Opened, ConnectError> {
        let opened = self.common.connector.open(&self.shared, http).await;
        if http == HttpVersion::Negotiated
            && let Ok(opened) = &opened
        {
            self.chose_http1.store(matches!(opened, Opened::Http1(_)), Relaxed);
        }
        if let Err(error) = &opened {
            if matches!(error, ConnectError::Tls(_) | ConnectError::Handshake(_))
                && let Some(left_out) = FAILED_HANDSHAKES.next_line(now() / 1_000_000)
            {
                let (service, address) = (self.common.service.as_str(), self.shared.socket);
                tracing::warn!(service, %address, %error, left_out, "no connection to a service: nothing was sent");
            }
            self.shared.connect_failed(error);
        }
        opened
    }
}

impl Drop for ProxiedAddress {
    fn drop(&mut self) {
        self.close();
    }
}

/// One request in flight to an address, until it is dropped.
pub(super) struct ForwardedInFlight {
    pub address: Arc<ProxiedAddress>,
}

impl ForwardedInFlight {
    pub(super) fn new(address: Arc<ProxiedAddress>) -> Self {
        address.shared.begin(TrafficClass::Real);
        Self { address }
    }
}

impl Drop for ForwardedInFlight {
    fn drop(&mut self) {
        self.address.shared.end(TrafficClass::Real);
    }
}
