//! Opens connections to the addresses of a service, up to the point where HTTP begins.
//!
//! Always true: if a connection cannot be opened, nothing of a request was sent.
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http2_connection::{Http2Bounds, Http2Connection, Http2Error};
use super::stream::{SecuredPeer, ServiceStream};
use super::target::Target;
use super::tls::{ConnectionProtocol, TlsError};
use crate::flag::{HttpVersion, Service, ServiceTls};
use crate::limits::Limits;
use crate::names::ServiceName;

/// Why there is no connection: nothing was sent.
#[derive(Debug)]
pub enum ConnectError {
    /// The service's name has no address now.
    Unresolved(std::io::Error),
    /// The address accepts no connection.
    Refused(std::io::Error),
    /// The connection was not open in time.
    TimedOut,
    /// The TLS handshake failed.
    Tls(String),
    /// HTTP cannot be spoken over the connection.
    Handshake(String),
}

impl ConnectError {
    /// Returns a copy of the error, for a request that waited for the same connection.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = |error: &std::io::Error| std::io::Error::new(error.kind(), error.to_string());
        match self {
            Self::Unresolved(error) => Self::Unresolved(copy(error)),
            Self::Refused(error) => Self::Refused(copy(error)),
            Self::TimedOut => Self::TimedOut,
            Self::Tls(why) => Self::Tls(why.clone()),
            Self::Handshake(why) => Self::Handshake(why.clone()),
        }
    }

    /// Whether the system reported the failure, usually at once, and the time for connecting did not just run out.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
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

/// Opens connections to the addresses of a service.
pub struct Dialer {
    /// The longest time to open a connection, with all handshakes.
    pub connect: Duration,
    /// The version of HTTP that is spoken.
    pub http: HttpVersion,
    service: ServiceName,
    tls: Option<ServiceTls>,
    head_bytes_max: u32,
    /// Takes the place of the network.
    #[cfg(test)]
    network: Option<simulated::Network>,
}

impl Dialer {
    pub(super) fn new(service: &Service, limits: &Limits) -> Self {
        Self {
            connect: service.connect.unwrap_or(Limits::ms(limits.connect_ms)),
            http: service.http,
            service: service.name.clone(),
            tls: service.tls.clone(),
            head_bytes_max: u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX),
            #[cfg(test)]
            network: simulated::network(),
        }
    }

    /// Opens a connection over which HTTP has not sent anything. The caller bounds the time.
    ///
    /// # Errors
    /// The address accepts no connection, or the TLS handshake failed.
    pub async fn stream(
        &self,
        socket: SocketAddr,
        target: &Target,
        http: HttpVersion,
    ) -> Result<(ServiceStream, ConnectionProtocol), ConnectError> {
        #[cfg(test)]
        if let Some(network) = &self.network {
            let connected = network(socket).await.map_err(ConnectError::Refused)?;
            return Ok((ServiceStream::simulated(connected), ConnectionProtocol::Http1));
        }
        let socket = TcpStream::connect(socket).await.map_err(ConnectError::Refused)?;
        let secured = |tls| SecuredPeer { service: &self.service, tls, host: &target.host };
        let tls = self.tls.as_ref().filter(|_| target.is_https).map(secured);
        Ok(ServiceStream::open(socket, tls, http).await?)
    }

    /// Opens a connection like one for a request, and closes it: finds out whether the address accepts connections.
    pub(super) async fn try_to_connect(&self, socket: SocketAddr, target: &Target) -> Result<(), ConnectError> {
        let trying = async {
            let (stream, spoken) = self.stream(socket, target, self.http).await?;
            if spoken == ConnectionProtocol::Http2 {
                let bounds = Http2Bounds { head_bytes_max: self.head_bytes_max, retires: None };
                drop(Http2Connection::<Empty<Bytes>>::open(stream, bounds).await?);
            }
            Ok(())
        };
        timeout(self.connect, trying).await.unwrap_or(Err(ConnectError::TimedOut))
    }
}

/// A network within the process, for simulations: whatever is made on a thread while it has one uses it for good.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::RefCell;
    use std::io;
    use std::net::SocketAddr;
    use std::sync::Arc;

    use futures_util::future::BoxFuture;
    use tokio::io::DuplexStream;

    /// Connects to an address.
    pub type Network = Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<DuplexStream>> + Send + Sync>;

    thread_local! {
        static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
    }

    /// Sets the network of what is made on this thread from now on; `None`: the machine's.
    pub fn set(network: Option<Network>) {
        NETWORK.set(network);
    }
    pub(super) fn network() -> Option<Network> {
        NETWORK.with_borrow(Clone::clone)
    }
}
