//! Opens connections to the addresses of a service.
//!
//! Always true: a connection is open, with all handshakes, within the service's `connect` time, or there is none and
//! nothing of a request was sent.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::monotonic::{NEVER, now};
use super::pool::Http1Connection;
use super::request_body::RequestBody;
use super::target::Target;
use crate::flag::{HttpVersion, Service, ServiceTls};
use crate::limits::Limits;
use crate::names::ServiceName;
use crate::transport::{
    ConnectionProtocol, Http2Bounds, Http2Connection, Http2Error, SecuredPeer, ServiceStream, TlsError,
};

/// Why there is no connection: nothing was sent.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The service's name has no address now.
    Unresolved(std::io::Error),
    Refused(std::io::Error),
    TimedOut,
    /// The TLS handshake failed.
    Tls(String),
    /// HTTP cannot be spoken over the connection.
    Handshake(String),
}

impl ConnectError {
    /// The same, for a request that waited for the same connection.
    pub(super) fn copy(&self) -> Self {
        let copy = |error: &std::io::Error| std::io::Error::new(error.kind(), error.to_string());
        match self {
            Self::Unresolved(error) => Self::Unresolved(copy(error)),
            Self::Refused(error) => Self::Refused(copy(error)),
            Self::TimedOut => Self::TimedOut,
            Self::Tls(why) => Self::Tls(why.clone()),
            Self::Handshake(why) => Self::Handshake(why.clone()),
        }
    }
}

impl From<TlsError> for ConnectError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<Http2Error> for ConnectError {
    fn from(error: Http2Error) -> Self {
        Self::Handshake(error.to_string())
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved(error) => write!(f, "its name cannot be looked up: {error}"),
            Self::Refused(error) => write!(f, "{error}"),
            Self::TimedOut => f.write_str("no connection in time"),
            Self::Tls(why) => write!(f, "the TLS handshake failed: {why}"),
            Self::Handshake(why) => f.write_str(why),
        }
    }
}

/// A connection that was opened.
pub(super) enum Opened {
    Http1(Http1Connection),
    Http2(Http2Connection<RequestBody>),
}

/// How a service is connected to.
pub(super) struct Connector {
    /// The longest time to open a connection.
    pub connect: Duration,
    pub http: HttpVersion,
    service: ServiceName,
    tls: Option<ServiceTls>,
    age_micros: u64,
    head_bytes_max: usize,
    preserve_header_case: bool,
}

impl Connector {
    pub(super) fn new(service: &Service, limits: &Limits) -> Self {
        Self {
            connect: service.connect.unwrap_or(Limits::ms(limits.connect_ms)),
            http: service.http,
            service: service.name.clone(),
            tls: service.tls.clone(),
            age_micros: limits.service_connection_age_ms.saturating_mul(1_000),
            head_bytes_max: usize::try_from(limits.head_bytes_max).unwrap_or(64 << 10).max(8 << 10),
            preserve_header_case: service.preserve_header_case,
        }
    }

    /// Opens a connection.
    pub(super) async fn open(
        &self,
        socket: SocketAddr,
        target: &Target,
        http: HttpVersion,
    ) -> Result<Opened, ConnectError> {
        let opening = async {
            match self.stream(socket, target, http).await? {
                (stream, ConnectionProtocol::Http1) => self.http1(stream).await.map(Opened::Http1),
                (stream, ConnectionProtocol::Http2) => self.http2(stream).await.map(Opened::Http2),
            }
        };
        timeout(self.connect, opening).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    /// A connection over which nothing of HTTP was sent.
    pub(super) async fn stream(
        &self,
        socket: SocketAddr,
        target: &Target,
        http: HttpVersion,
    ) -> Result<(ServiceStream, ConnectionProtocol), ConnectError> {
        let socket = TcpStream::connect(socket).await.map_err(ConnectError::Refused)?;
        let secured = |tls| SecuredPeer { service: &self.service, tls, host: &target.host };
        let tls = self.tls.as_ref().filter(|_| target.is_https).map(secured);
        Ok(ServiceStream::open(socket, tls, http).await?)
    }

    async fn http1(&self, stream: ServiceStream) -> Result<Http1Connection, ConnectError> {
        let received = stream.received();
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_header_size(self.head_bytes_max)
            .preserve_header_case(self.preserve_header_case)
            // Bounds what is read ahead for a client that does not read; a head must fit too.
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

    /// How long a new connection is used, in microseconds: spread, so that connections that were opened together do not
    /// end together. `None`: as long as it lasts.
    fn age(&self) -> Option<u64> {
        let age = self.age_micros;
        (age > 0).then(|| age - fastrand::u64(0..=age / 10))
    }
}
