//! How a service is spoken to by calls of steps and by messages to webhooks: TLS, version of HTTP, `Host`.
//!
//! Always true: a connection is open, with its TLS handshake, within the time that is given, or nothing was sent.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;

use crate::flag::{HttpVersion, SentHost, Service, ServiceTls};
use crate::names::ServiceName;
use crate::transport::{ConnectionProtocol, SecuredPeer, ServiceStream};

/// How a service is spoken to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::engine) struct Protocol {
    /// The service's name, and how it is verified.
    tls: Option<(ServiceName, ServiceTls)>,
    pub http: HttpVersion,
    host: Option<Authority>,
}

/// What of a [`Protocol`] a connection depends on.
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
        let tls = service.tls.clone().map(|tls| (service.name.clone(), tls));
        Self { tls, http: service.http, host }
    }

    /// The endpoint at this address that a URL leads to; `None` if it names no host.
    pub fn endpoint(&self, uri: &Uri, socket: SocketAddr) -> Option<Endpoint> {
        Some(Endpoint {
            socket,
            is_https: is_https(uri),
            authority: uri.authority()?.clone(),
            tls: self.tls.as_ref().map(|(_, tls)| *tls.digest()),
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

    /// A connection for a message to a webhook, over which nothing of HTTP was sent.
    ///
    /// # Errors
    /// There is none within that time.
    pub async fn connect(
        &self,
        uri: &Uri,
        http: HttpVersion,
        within: Duration,
    ) -> Result<(ServiceStream, ConnectionProtocol), String> {
        let until = Instant::now() + within;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(within));
        let stream = connector.oneshot(uri.clone()).await.map_err(|error| with_sources(&error))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let tls = match (&self.tls, is_https(uri)) {
            (Some((service, tls)), true) => Some(SecuredPeer { service, tls, host }),
            // A message of older files, to a service that is not in the files in force.
            (None, true) => return Err("its URL is an https URL, and its service is not in the files in force".into()),
            (_, false) => None,
        };
        let opened = timeout_at(until, ServiceStream::open(stream.into_inner(), tls, http)).await;
        let opened = opened.map_err(|_| format!("no TLS handshake within {} ms", within.as_millis()))?;
        opened.map_err(|error| format!("the TLS handshake failed: {error}"))
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
