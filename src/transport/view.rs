//! The state of a service's addresses, for people.
//!
//! Always true: reading it changes nothing, and requests do not wait for it.

use std::net::SocketAddr;
use std::time::Duration;

use super::address::Address;
use super::addresses::ServiceAddresses;
use super::ejection::EjectionReason;
use super::last_failures::AddressFailure;

/// The addresses of a service, and the lookups of its names.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressesView {
    /// The addresses, in the order of the URLs.
    pub addresses: Vec<AddressView>,
    /// The lookups of the names, in the order of the URLs. A URL with an IP address has no lookup.
    pub lookups: Vec<LookupView>,
}

/// One address. Times are ages, because this module has no wall clock.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressView {
    /// The IP address and port.
    pub socket: SocketAddr,
    /// The index of the address's base URL among those of the service.
    pub url: usize,
    /// The weight of that URL.
    pub weight: u64,
    /// Which percentage of its share of the requests the address gets: less than 100 during the slow start.
    pub share_percent: u64,
    /// Forwarded requests, calls of real runs and messages to webhooks in flight.
    pub in_flight: u64,
    /// Calls of rehearsed and dark runs in flight.
    pub secondary_in_flight: u64,
    /// Set if the address is ejected.
    pub ejected: Option<EjectedView>,
    /// Whether the address's health checks fail.
    pub is_unhealthy: bool,
    /// The last failure since the service was changed.
    pub last_failure: Option<FailureView>,
}

/// An ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectedView {
    /// In how long the address is tried again; zero if that is now.
    pub tried_in: Duration,
    /// Why the address is ejected.
    pub reason: EjectionReason,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureView {
    /// How long ago the failure happened.
    pub age: Duration,
    /// What happened.
    pub why: String,
}

/// A name of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupView {
    /// The name.
    pub name: String,
    /// How long ago the last lookup ended; `None` before the first one.
    pub age: Option<Duration>,
    /// Why the last lookup failed, if it did: the name keeps the addresses that it had.
    pub failure: Option<String>,
}

impl ServiceAddresses {
    /// Returns the present state of the addresses.
    pub fn view(&self) -> AddressesView {
        let now = self.common.now();
        let mut addresses: Vec<_> = self.list().iter().map(|address| of_address(address, now)).collect();
        addresses.sort_by_key(|view| (view.url, view.socket));
        let mut lookups: Vec<LookupView> = Vec::new();
        for target in self.names() {
            if lookups.iter().all(|known| known.name != target.host) {
                let (at, failure) = self.last_lookups.of(&target.host).unzip();
                let age = at.map(|at| since(at, now));
                lookups.push(LookupView { name: target.host.clone(), age, failure: failure.flatten() });
            }
        }
        AddressesView { addresses, lookups }
    }
}

fn of_address(address: &Address, now: u64) -> AddressView {
    let (real, all) = address.counts();
    let tried_in = |until: u64| Duration::from_micros(until.saturating_sub(now));
    let ejected = address.ejection().map(|(until, reason)| EjectedView { tried_in: tried_in(until), reason });
    let failure = address.last_failure();
    AddressView {
        socket: address.socket,
        url: address.target.index,
        weight: address.target.weight,
        share_percent: address.share_percent(now),
        in_flight: real,
        secondary_in_flight: all.saturating_sub(real),
        ejected,
        is_unhealthy: address.is_unhealthy(),
        last_failure: failure.map(|AddressFailure { at, why }| FailureView { age: since(at, now), why }),
    }
}

fn since(at: u64, now: u64) -> Duration {
    Duration::from_micros(now.saturating_sub(at))
}
