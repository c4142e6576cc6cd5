//! The listeners, as the files declare them.
//!
//! The question it answers: "on which address are clients accepted, and what precedes their HTTP?" `config` builds a
//! [`Listener`] from the files, and the [`EgressListener`] for legacy's own calls; `proxy` serves both. Always
//! true: a PROXY header is expected only where it is declared, and is required there; what TLS handshakes need
//! ([`ServerTls`]) has been checked, and is only replaced as a whole.

mod certificate;
mod egress;
mod forwarding;
mod identity;
mod network;
mod proxy_protocol;
mod tls;

#[cfg(test)]
#[path = "../../tests/it/support/certificates.rs"]
pub(crate) mod test_certificates;

use std::net::SocketAddr;

pub use certificate::{Certificate, CertificateError, read_certificates, validity};
pub use egress::{Destination, EgressListener, bare_host};
pub use forwarding::{ForwardedFields, ForwardedTrust, Forwarding};
pub use identity::{ClientIdentity, IdentityHeaders};
pub use network::Network;
pub use proxy_protocol::{ProxyProtocol, ProxyVersion};
pub use tls::{ClientVerification, ListenerTls, ServerTls, TlsParts, crypto};

/// A listener of the proxy.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The address.
    pub address: SocketAddr,
    /// Set if each connection begins with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Set if HTTP is spoken over TLS.
    pub tls: Option<ListenerTls>,
    /// Whether clients may speak HTTP/2: with TLS it is offered, without TLS they may begin it (prior knowledge).
    pub http2: bool,
}

impl Listener {
    /// A listener without TLS, for HTTP/1.1 and HTTP/2.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, proxy_protocol: None, tls: None, http2: true }
    }

    /// Whether the process has to be started again for `newer` to replace this one. Other settings of TLS, and
    /// certificates, can be replaced at any time.
    pub fn needs_restart(&self, newer: &Self) -> bool {
        let identity = |listener: &Self| listener.tls.as_ref().map(|tls| tls.identity.clone());
        self.address != newer.address
            || self.proxy_protocol != newer.proxy_protocol
            || (self.tls.is_none() && self.http2 != newer.http2)
            || identity(self) != identity(newer)
    }
}
