//! How many connections one client address has.
//!
//! Always true:
//! - Without a limit nothing is counted.
//! - A connection counts from its acceptance, or from the PROXY header that says who its client is, until it ends. One
//!   that has become a tunnel counts until the tunnel ends.
//! - The addresses of one IPv6 network of 64 bits count as one, because whoever has one of them usually has them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Gauge, counter, gauge};
use tokio::sync::OwnedSemaphorePermit;

use super::line_limit::LineLimit;
use super::monotonic::now;

static REFUSED_LINES: LineLimit = LineLimit::new();

/// The connections of each client address.
pub(super) struct ClientAddresses {
    connections_max: u64,
    counts: Mutex<Counts>,
    most: Gauge,
}

#[derive(Default)]
struct Counts {
    of_address: HashMap<IpAddr, u64>,
    /// The number of addresses with N connections, at index N; the last entry is above 0.
    addresses_with: Vec<u64>,
}

impl Counts {
    /// Records that the number of connections of one address has changed.
    fn on_change(&mut self, from: u64, to: u64) {
        let [from, to] = [from, to].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        if self.addresses_with.len() <= to {
            self.addresses_with.resize(to + 1, 0);
        }
        self.addresses_with[to] += 1;
        if let Some(addresses) = self.addresses_with.get_mut(from) {
            *addresses = addresses.saturating_sub(1);
        }
        while self.addresses_with.last() == Some(&0) {
            self.addresses_with.pop();
        }
    }
    /// Returns the number of connections of the address that has the most.
    fn most(&self) -> usize {
        self.addresses_with.len().saturating_sub(1)
    }
}

impl ClientAddresses {
    /// `None` if the number of connections of one address is not limited.
    pub(super) fn new(connections_max: u64) -> Option<Arc<Self>> {
        if connections_max == 0 {
            return None;
        }
        gauge!("pointsman_client_connections_per_address_max").set(connections_max as f64);
        let (counts, most) = (Mutex::default(), gauge!("pointsman_client_connections_per_address"));
        Some(Arc::new(Self { connections_max, counts, most }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client has as many connections as it may have.
    pub(super) fn is_full(&self, client: IpAddr) -> bool {
        self.counts().of_address.get(&network(client)).is_some_and(|count| *count >= self.connections_max)
    }

    fn take(self: &Arc<Self>, client: IpAddr) -> Option<ClientConnectionPermit> {
        let network = network(client);
        let mut counts = self.counts();
        let count = counts.of_address.get(&network).copied().unwrap_or(0);
        if count >= self.connections_max {
            return None;
        }
        counts.of_address.insert(network, count + 1);
        counts.on_change(count, count + 1);
        self.most.set(counts.most() as f64);
        Some(ClientConnectionPermit { addresses: self.clone(), network })
    }
}

/// Counts and logs a connection that is closed because its client has as many as it may have.
pub(super) fn count_refused(client: IpAddr, listener: &str) {
    counter!("pointsman_client_connections_refused_total", "listener" => listener.to_owned()).increment(1);
    if let Some(left_out) = REFUSED_LINES.next_line(now() / 1_000_000) {
        let limit = "client_connections_per_address_max";
        tracing::warn!(listener, %client, limit, left_out, "a connection was closed: its client has too many");
    }
}

/// Returns the address that stands for all addresses of one client.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

/// One connection of a client, until it is dropped.
struct ClientConnectionPermit {
    addresses: Arc<ClientAddresses>,
    network: IpAddr,
}

impl Drop for ClientConnectionPermit {
    fn drop(&mut self) {
        let Self { addresses, network } = self;
        let mut counts = addresses.counts();
        let Some(count) = counts.of_address.get(network).copied() else { return };
        match count {
            1 => counts.of_address.remove(network),
            _ => counts.of_address.insert(*network, count - 1),
        };
        counts.on_change(count, count - 1);
        addresses.most.set(counts.most() as f64);
    }
}

/// The permits that an open connection holds until it ends.
pub(super) struct ConnectionPermit {
    _room: OwnedSemaphorePermit,
    /// `None` if connections per address are not counted. Boxed, so that the connection then takes less memory.
    permit: Option<Box<ClientConnectionPermit>>,
}

impl ConnectionPermit {
    pub(super) fn new(room: OwnedSemaphorePermit) -> Self {
        Self { _room: room, permit: None }
    }

    /// Counts the connection as one of this client's; `false` if the client already has as many as it may have.
    pub(super) fn count_for(&mut self, addresses: &Arc<ClientAddresses>, client: IpAddr) -> bool {
        self.permit = addresses.take(client).map(Box::new);
        self.permit.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_more_than_it_may_and_the_most_of_one_is_known() {
        assert!(ClientAddresses::new(0).is_none());
        let addresses = ClientAddresses::new(3).unwrap();
        let take = |text: &str| addresses.take(text.parse().unwrap());
        let most = || addresses.counts().most();
        let mut first: Vec<_> = (0..3).map(|_| take("192.0.2.7").unwrap()).collect();
        assert!(take("192.0.2.7").is_none() && take("::ffff:192.0.2.7").is_none());
        assert!(addresses.is_full("192.0.2.7".parse().unwrap()) && !addresses.is_full("192.0.2.8".parse().unwrap()));
        let other = take("192.0.2.8").unwrap();
        assert_eq!(most(), 3);
        first.pop();
        assert_eq!(most(), 2);
        first.push(take("192.0.2.7").unwrap());
        drop(first);
        assert_eq!(most(), 1);
        drop(other);
        assert_eq!(most(), 0);
        assert!(addresses.counts().of_address.is_empty(), "an address without connections takes no memory");
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_count_as_one() {
        let addresses = ClientAddresses::new(1).unwrap();
        let take = |text: &str| addresses.take(text.parse().unwrap());
        let _first = take("2001:db8:0:1::7").unwrap();
        assert!(take("2001:db8:0:1:ffff::1").is_none());
        assert!(take("2001:db8:0:2::7").is_some());
    }
}
