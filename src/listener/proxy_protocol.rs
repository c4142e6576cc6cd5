//! What a listener expects of the PROXY protocol.

use std::net::IpAddr;

use super::network::Network;

/// A PROXY header that each connection of a listener begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The versions that are accepted.
    pub version: ProxyVersion,
    /// The networks that may send one. Empty: all may.
    pub trust: Vec<Network>,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// The line of text.
    V1,
    /// The binary header.
    V2,
    /// Either.
    Any,
}

impl ProxyProtocol {
    /// Whether a peer may connect and name the address of its client.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trust.is_empty() || self.trust.iter().any(|network| network.contains(peer))
    }
}
