//! A bound listener, with what its connections have in common.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::{Counter, counter};
use tokio::net::TcpListener;

use super::line_limit::LineLimit;
use super::monotonic::now;
use crate::listener::{EgressListener, IdentityHeaders, Listener, ProxyProtocol, ServerTls};

static ACCEPT_LINES: LineLimit = LineLimit::new();

/// A bound socket, and its declaration in the files.
pub struct ProxyListener {
    pub(super) socket: TcpListener,
    pub(super) endpoint: Arc<Endpoint>,
}

/// What the connections of one listener have in common.
pub(super) struct Endpoint {
    /// The address as the files have it: the label of metrics.
    name: String,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) tls: Option<EndpointTls>,
    /// Whether clients may speak HTTP/2 without TLS; with TLS the handshake chooses the protocol.
    pub(super) http2: bool,
    plain_connections: Counter,
    http1_connections: Counter,
    http2_connections: Counter,
}

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1, or HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The TLS of a listener.
pub(super) struct EndpointTls {
    /// The settings of new handshakes; replaced at a reload.
    pub(super) server: Arc<ArcSwap<ServerTls>>,
    pub(super) identity: IdentityHeaders,
}

impl ProxyListener {
    /// A bound socket with its declaration.
    pub fn new(socket: TcpListener, declared: &Listener) -> Self {
        let Listener { address, proxy_protocol, tls, http2 } = declared;
        let name = address.to_string();
        let tls = tls.as_ref().and_then(|tls| {
            let server = Arc::new(ArcSwap::new(tls.server.clone()?));
            Some(EndpointTls { server, identity: tls.identity.clone() })
        });
        let endpoint = Endpoint {
            proxy_protocol: proxy_protocol.clone(),
            tls,
            http2: *http2,
            plain_connections: connections(&name, "http"),
            http1_connections: http_connections(&name, "1.1"),
            http2_connections: http_connections(&name, "2"),
            name,
        };
        Self { socket, endpoint: Arc::new(endpoint) }
    }
    /// A bound socket for legacy's own calls.
    pub fn egress(socket: TcpListener, declared: &EgressListener) -> Self {
        Self::new(socket, &Listener { http2: false, ..Listener::plain(declared.address) })
    }
    /// The address on which it listens.
    ///
    /// # Errors
    /// The system call failed.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
    /// Returns the settings of new handshakes, to be replaced while the listener is served.
    pub fn tls(&self) -> Option<Arc<ArcSwap<ServerTls>>> {
        self.endpoint.tls.as_ref().map(|tls| tls.server.clone())
    }
}

fn connections(listener: &str, protocol: &'static str) -> Counter {
    counter!("pointsman_client_connections_total", "listener" => listener.to_owned(), "protocol" => protocol)
}

fn http_connections(listener: &str, version: &'static str) -> Counter {
    counter!("pointsman_client_http_connections_total", "listener" => listener.to_owned(), "version" => version)
}

impl Endpoint {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
    /// Counts a connection without TLS.
    pub(super) fn count_plain(&self) {
        self.plain_connections.increment(1);
    }
    /// Counts a connection, once its protocol is known.
    pub(super) fn count_http(&self, protocol: Protocol) {
        match protocol {
            Protocol::Http1 => self.http1_connections.increment(1),
            Protocol::Http2 => self.http2_connections.increment(1),
        }
    }
    /// Counts a completed handshake.
    pub(super) fn count_handshake(&self, version: &'static str, is_resumed: bool) {
        connections(&self.name, version).increment(1);
        let kind = if is_resumed { "resumed" } else { "full" };
        counter!("pointsman_tls_handshakes_total", "listener" => self.name.clone(), "kind" => kind).increment(1);
    }
    /// Counts a failed handshake.
    pub(super) fn count_failed_handshake(&self, reason: &'static str) {
        let listener = self.name.clone();
        counter!("pointsman_tls_handshake_failures_total", "listener" => listener, "reason" => reason).increment(1);
    }
    /// Counts and logs a failure to accept, for example because no file descriptors are left.
    pub(super) fn count_accept_failure(&self, error: &std::io::Error) {
        let listener = self.name();
        counter!("pointsman_accept_failures_total", "listener" => listener.to_owned()).increment(1);
        if let Some(left_out) = ACCEPT_LINES.next_line(now() / 1_000_000) {
            let message = "connections cannot be accepted; trying again after a pause";
            tracing::warn!(%error, listener, left_out, "{message}");
        }
    }
    /// Counts a PROXY header that was read, or a connection that was closed because it had no valid one.
    pub(super) fn count_proxy_header(&self, outcome: &'static str) {
        counter!("pointsman_proxy_headers_total", "listener" => self.name.clone(), "outcome" => outcome).increment(1);
    }
}
