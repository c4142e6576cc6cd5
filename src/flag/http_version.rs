//! Which version of HTTP is spoken to a service.

/// Which version of HTTP is spoken to a service. A request to switch protocols always goes over HTTP/1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; without TLS with prior knowledge.
    Http2,
    /// What the service chooses in the TLS handshake.
    Negotiated,
}
