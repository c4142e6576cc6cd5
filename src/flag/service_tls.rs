//! What TLS handshakes with a service need.

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::http_version::HttpVersion;

/// What TLS handshakes with a service need: whom to trust, who we are, and which name to expect. Two values are equal
/// if they were made from equal files and settings.
#[derive(Clone)]
pub struct ServiceTls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    digest: [u8; 32],
}

impl ServiceTls {
    /// `server_name` replaces the URL's host; `digest` is a hash of all files and settings.
    pub fn new(config: ClientConfig, server_name: Option<ServerName<'static>>, digest: [u8; 32]) -> Self {
        // The copies share the sessions that can be resumed.
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        let (http1, http2) = (b"http/1.1".as_slice(), b"h2".as_slice());
        Self {
            http1: offering(&[http1]),
            http2: offering(&[http2]),
            either: offering(&[http2, http1]),
            server_name,
            digest,
        }
    }

    /// The configuration for a handshake that offers this version of HTTP (ALPN).
    pub fn config(&self, http: HttpVersion) -> &Arc<ClientConfig> {
        match http {
            HttpVersion::Http1 => &self.http1,
            HttpVersion::Http2 => &self.http2,
            HttpVersion::Negotiated => &self.either,
        }
    }

    /// The name that the service's certificate must have, and that is sent to the service (SNI), if it is not the URL's
    /// host.
    pub fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// A hash of all files and settings.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl PartialEq for ServiceTls {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for ServiceTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}
