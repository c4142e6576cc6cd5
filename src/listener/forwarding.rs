//! What legacy is told about the client, and which peers' fields are believed.

use std::net::IpAddr;

use super::Network;

/// Which fields tell legacy about the client, and from whom they are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// The peers whose fields are believed and added to; those of others are replaced.
    pub trust: ForwardedTrust,
    /// The fields.
    pub fields: ForwardedFields,
}

/// Whose fields are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForwardedTrust {
    /// Nobody's.
    #[default]
    Nobody,
    /// Everybody's.
    Everybody,
    /// Those of peers in these networks.
    Networks(Vec<Network>),
}

/// The fields that tell legacy about the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedFields {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// All of these.
    Both,
}

impl ForwardedTrust {
    /// Whether the fields of this peer are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        match self {
            ForwardedTrust::Nobody => false,
            ForwardedTrust::Everybody => true,
            ForwardedTrust::Networks(networks) => networks.iter().any(|network| network.contains(peer)),
        }
    }
}

impl ForwardedFields {
    /// Whether `X-Forwarded-*` are among them.
    pub fn have_x_forwarded(self) -> bool {
        self != ForwardedFields::Rfc7239
    }
    /// Whether `Forwarded` is among them.
    pub fn have_forwarded(self) -> bool {
        self != ForwardedFields::XForwarded
    }
}
