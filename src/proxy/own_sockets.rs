//! The sockets on which this process listens: a call by legacy that leads back to one of them would loop, or reach the
//! API with the rights of this machine.
//!
//! Always true: what is checked is the address to which a connection is about to be opened, so that names that resolve
//! to this machine are found too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Some port: no packet is sent to it.
const DISCARD_PORT: u16 = 9;

/// The sockets on which this process listens.
#[derive(Clone, Debug, Default)]
pub struct OwnSockets(Vec<SocketAddr>);

impl OwnSockets {
    /// `addresses` must be those of all sockets on which this process listens.
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self(addresses)
    }

    /// Whether a connection to this address reaches one of these sockets.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.0.iter().filter(|own| own.port() == address.port()).any(|own| {
            let own = own.ip().to_canonical();
            // Connecting to "any address" reaches loopback.
            own == ip || (ip.is_unspecified() && own.is_loopback()) || (own.is_unspecified() && is_of_this_machine(ip))
        })
    }
}

/// Whether this machine has the address, tested by the source of packets to it: only packets to an own address have
/// that address as their source too. Binding would not tell, since a machine may allow binding addresses that it does
/// not have (`ip_nonlocal_bind`). Only called if the port is one of this process's own; connecting a UDP socket sends
/// nothing.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || source_of(ip).is_some_and(|source| source == ip)
}

/// Returns the address from which packets to this one are sent.
fn source_of(ip: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((ip, DISCARD_PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_ours_if_a_connection_to_it_reaches_a_socket_of_ours() {
        for (own, address, is_ours) in [
            ("127.0.0.1:8090", "127.0.0.1:8090", true),
            ("127.0.0.1:8090", "127.0.0.1:8091", false),
            ("127.0.0.1:8090", "127.0.0.2:8090", false),
            ("127.0.0.1:8090", "0.0.0.0:8090", true),
            ("127.0.0.1:8090", "[::ffff:127.0.0.1]:8090", true),
            ("0.0.0.0:8090", "127.0.0.9:8090", true),
            // An address from a network for documentation, which no machine has.
            ("0.0.0.0:8090", "192.0.2.7:8090", false),
            ("10.1.2.3:8090", "192.0.2.7:8090", false),
        ] {
            let sockets = OwnSockets::new(vec![own.parse().unwrap()]);
            assert_eq!(sockets.contains(address.parse().unwrap()), is_ours, "{own} {address}");
        }
        // The machine's own address, if it has one beside loopback.
        let documentation: IpAddr = "192.0.2.7".parse().unwrap();
        if let Some(own) = source_of(documentation) {
            assert!(OwnSockets::new(vec!["0.0.0.0:8090".parse().unwrap()]).contains((own, 8090).into()), "{own}");
        }
    }
}
