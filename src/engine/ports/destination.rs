//! Where a call goes: one address of a service, and how the service is spoken to.
//!
//! Always true: an address that gives no connection counts that for its ejection, once for each connection that is
//! tried, and only if the call is one of a real run ([`InFlight`]).

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use tokio::time::timeout;

use super::protocol::{Endpoint, Protocol};
use crate::flag::HttpVersion;
use crate::transport::{
    ConnectError, ConnectionProtocol, Dialer, Http2Bounds, Http2Connection, InFlight, ServiceStream, TrafficClass,
};
use crate::workflow::Mode;

/// Whose call it is, for the address that it goes to.
pub(in crate::engine) fn traffic(mode: Mode) -> TrafficClass {
    match mode {
        Mode::Real => TrafficClass::Real,
        Mode::Rehearse | Mode::Dark => TrafficClass::Secondary,
    }
}

/// Where a call goes.
pub(in crate::engine) struct Destination<'a> {
    pub protocol: &'a Protocol,
    pub dialer: &'a Dialer,
    /// The call, as its address counts it.
    pub in_flight: &'a InFlight,
    /// The URL at the service's base URL to which the address belongs.
    pub uri: &'a Uri,
}

impl Destination<'_> {
    /// What connections to it have in common.
    pub(super) fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let endpoint = self.protocol.endpoint(self.uri, self.in_flight.address().socket);
        endpoint.ok_or_else(|| ConnectError::Handshake("its URL names no host".into()))
    }

    /// A connection over which nothing of HTTP was sent.
    pub(super) async fn connect(&self, http: HttpVersion) -> Result<(ServiceStream, ConnectionProtocol), ConnectError> {
        let address = self.in_flight.address();
        self.counted(self.dialer.stream(address.socket, &address.target, http)).await
    }

    /// An HTTP/2 connection over such a one.
    pub(super) async fn connect_http2(
        &self,
        stream: ServiceStream,
        bounds: Http2Bounds,
    ) -> Result<Http2Connection<Full<Bytes>>, ConnectError> {
        self.counted(async { Ok(Http2Connection::open(stream, bounds).await?) }).await
    }

    async fn counted<T>(&self, opening: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        let opened = timeout(self.dialer.connect, opening).await.unwrap_or(Err(ConnectError::TimedOut));
        if opened.is_err() {
            self.in_flight.connect_failed();
        }
        opened
    }
}
