//! Where a call goes: one address of a service, and how the service is spoken to.

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Uri};
use http_body_util::Full;

use super::pooled_connection::to_origin_form;
use super::protocol::{Endpoint, Protocol};
use crate::flag::HttpVersion;
use crate::transport::{
    AddressChoice, ConnectError, ConnectionProtocol, Http2Bounds, Http2Connection, RequestInFlight, ServiceStream,
    TrafficClass,
};
use crate::workflow::Mode;

/// The traffic class under which an address counts the calls of runs in this mode.
pub(in crate::engine) fn traffic(mode: Mode) -> TrafficClass {
    match mode {
        Mode::Real => TrafficClass::Real,
        Mode::Rehearse | Mode::Dark => TrafficClass::Secondary,
    }
}

/// One address of a service as the destination of a call.
pub(in crate::engine) struct Destination<'a> {
    pub protocol: &'a Protocol,
    /// The call, as its address counts it.
    pub in_flight: &'a RequestInFlight,
    /// The call's URL under that base URL of the service to which the chosen address belongs.
    pub uri: &'a Uri,
}

impl<'a> Destination<'a> {
    /// The address that was chosen; `uris` has the target of the request at each of the service's base URLs.
    pub fn of(protocol: &'a Protocol, choice: &'a AddressChoice<'_>, uris: &'a [Uri]) -> Self {
        let uri = &uris[choice.in_flight.address().target.index];
        Self { protocol, in_flight: &choice.in_flight, uri }
    }

    /// Addresses a request to this destination. `names_host`: the request has a `Host` field of its own.
    pub fn put_into(&self, request: &mut Request<Full<Bytes>>, names_host: bool) {
        if !names_host {
            request.headers_mut().remove(HOST);
        }
        *request.uri_mut() = self.uri.clone();
        to_origin_form(request, self.protocol);
    }

    /// The endpoint by which connections to this destination are pooled.
    pub(super) fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let endpoint = self.protocol.endpoint(self.uri, self.in_flight.address().socket);
        endpoint.ok_or_else(|| ConnectError::Handshake("its URL names no host".into()))
    }

    /// Opens a connection, before any HTTP.
    pub(super) async fn connect(&self, http: HttpVersion) -> Result<(ServiceStream, ConnectionProtocol), ConnectError> {
        self.in_flight.connect(http).await
    }

    /// Opens an HTTP/2 connection over `stream`.
    pub(super) async fn connect_http2(
        &self,
        stream: ServiceStream,
        bounds: Http2Bounds,
    ) -> Result<Http2Connection<Full<Bytes>>, ConnectError> {
        self.in_flight.counted(async { Ok(Http2Connection::open(stream, bounds).await?) }).await
    }
}
