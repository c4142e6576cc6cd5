//! Opens connections over which requests are forwarded.
//!
//! Always true: within the service's `connect` time a connection is open, with all handshakes done, or opening has
//! failed and nothing of a request was sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::monotonic::{NEVER, now};
use super::pool::Http1Connection;
use super::request_body::RequestBody;
use crate::flag::{HttpVersion, Service};
use crate::limits::Limits;
use crate::transport::{
    Address, ConnectError, ConnectionProtocol, Dialer, Http2Bounds, Http2Connection, ServiceStream,
};

/// A connection that was opened.
pub(super) enum Opened {
    Http1(Http1Connection),
    Http2(Http2Connection<RequestBody>),
}

/// How connections to a service are opened.
pub(super) struct Connector {
    pub dialer: Arc<Dialer>,
    age_micros: u64,
    head_bytes_max: usize,
    /// `None`: 100, the number that hyper parses without an allocation.
    reply_fields_max: Option<usize>,
    preserve_header_case: bool,
}

impl Connector {
    pub(super) fn new(service: &Service, dialer: Arc<Dialer>, limits: &Limits) -> Self {
        Self {
            dialer,
            age_micros: limits.service_connection_age_ms.saturating_mul(1_000),
            head_bytes_max: usize::try_from(limits.head_bytes_max).unwrap_or(64 << 10).max(8 << 10),
            reply_fields_max: limits.reply_fields_max_for_hyper(),
            preserve_header_case: service.preserve_header_case,
        }
    }

    /// Opens a connection.
    pub(super) async fn open(&self, address: &Address, http: HttpVersion) -> Result<Opened, ConnectError> {
        let opening = async {
            match self.dialer.stream(address.socket, &address.target, http).await? {
                (stream, ConnectionProtocol::Http1) => self.http1(stream).await.map(Opened::Http1),
                (stream, ConnectionProtocol::Http2) => self.http2(stream).await.map(Opened::Http2),
            }
        };
        timeout(self.dialer.connect, opening).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn http1(&self, stream: ServiceStream) -> Result<Http1Connection, ConnectError> {
        let received = stream.received();
        let mut builder = hyper::client::conn::http1::Builder::new();
        if let Some(max) = self.reply_fields_max {
            builder.max_headers(max);
        }
        let (sender, connection) = builder
            .max_header_size(self.head_bytes_max)
            .preserve_header_case(self.preserve_header_case)
            // Bounds what is read ahead of a slow client; at least one head must fit.
            .max_buf_size(self.head_bytes_max.saturating_mul(2))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectError::Handshake(error.to_string()))?;
        // The task ends when the sender and the bodies are dropped, or the other side closes. Errors reach the exchange
        // that uses the connection.
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        let retires = self.age().map_or(NEVER, |age| now().saturating_add(age));
        Ok(Http1Connection { sender, received, retires })
    }

    async fn http2(&self, stream: ServiceStream) -> Result<Http2Connection<RequestBody>, ConnectError> {
        let head_bytes_max = u32::try_from(self.head_bytes_max).unwrap_or(u32::MAX);
        let retires = self.age().map(|age| Instant::now() + Duration::from_micros(age));
        Ok(Http2Connection::open(stream, Http2Bounds { head_bytes_max, retires }).await?)
    }

    /// Returns how long a new connection is used, in microseconds. Varies at random, so that connections that were
    /// opened together do not end together. `None`: no limit.
    fn age(&self) -> Option<u64> {
        let age = self.age_micros;
        (age > 0).then(|| age - fastrand::u64(0..=age / 10))
    }
}
