//! How a service is spoken to by calls of steps and by messages to webhooks: TLS, version of HTTP, `Host`.

use std::net::SocketAddr;

use http::uri::Authority;
use http::{HeaderValue, Uri};

use crate::flag::{HttpVersion, SentHost, Service};

/// How a service is spoken to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::engine) struct Protocol {
    /// The digest of the settings by which the service is verified.
    tls: Option<[u8; 32]>,
    pub http: HttpVersion,
    host: Option<Authority>,
}

/// Everything that a connection depends on: requests with the same endpoint may use the same connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::engine) struct Endpoint {
    socket: SocketAddr,
    pub is_https: bool,
    pub authority: Authority,
    tls: Option<[u8; 32]>,
    http: u8,
}

impl Protocol {
    pub fn of(service: &Service) -> Self {
        let host = match &service.host {
            SentHost::Client | SentHost::Url => None,
            SentHost::Fixed(host) => Some(host.clone()),
        };
        let tls = service.tls.as_ref().map(|tls| *tls.digest());
        Self { tls, http: service.http, host }
    }

    /// The endpoint at this address that a URL leads to; `None` if it names no host.
    pub fn endpoint(&self, uri: &Uri, socket: SocketAddr) -> Option<Endpoint> {
        Some(Endpoint {
            socket,
            is_https: is_https(uri),
            authority: uri.authority()?.clone(),
            tls: self.tls,
            http: self.http as u8,
        })
    }

    /// The `Host` field of a request to this URL.
    pub fn host(&self, uri: &Uri) -> Option<HeaderValue> {
        let default_port = if is_https(uri) { 443 } else { 80 };
        let host = match (&self.host, uri.host(), uri.port_u16()) {
            (Some(host), ..) => HeaderValue::from_str(host.as_str()),
            (None, Some(host), Some(port)) if port != default_port => HeaderValue::from_str(&format!("{host}:{port}")),
            (None, host, _) => HeaderValue::from_str(host.unwrap_or_default()),
        };
        host.ok()
    }
}

/// Whether requests to a URL go over TLS.
pub(in crate::engine) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// The error with its sources.
pub(in crate::engine) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
