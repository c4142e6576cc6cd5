//! Chooses the address of its service to which a call of a step, a message to a webhook or a batch of spans goes.
//!
//! Always true:
//! - Each address is tried at most once for one attempt. Another address is tried only if the connection to the one
//!   before failed, so that nothing of the request was sent.
//! - No further address is tried after [`SLOW_CONNECTS_MAX`] slow failures (all but an immediate refusal). After one
//!   slow failure, unavailable addresses (ejected or unhealthy) are not tried.
//! - Each failed connection for a real request ([`RequestInFlight`]) counts towards the ejection of its address.

use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};

use super::address::{Address, RequestInFlight, TrafficClass};
use super::addresses::ServiceAddresses;
use super::dialer::ConnectError;
use super::stream::ServiceStream;
use super::tls::ConnectionProtocol;
use crate::flag::HttpVersion;

/// The most slow failures to connect in one attempt.
const SLOW_CONNECTS_MAX: usize = 3;

/// The address of an attempt.
pub struct AddressChoice<'a> {
    addresses: &'a Arc<ServiceAddresses>,
    traffic: TrafficClass,
    tried: Vec<Arc<Address>>,
    slow_connects: usize,
    /// Counts the request at the address that is tried now.
    pub in_flight: RequestInFlight,
}

impl<'a> AddressChoice<'a> {
    /// Chooses the address that is tried first. Waits, at most until `until`, for the first lookup of the service's
    /// names.
    ///
    /// # Errors
    /// The service has no address: nothing is sent.
    pub async fn begin(
        addresses: &'a Arc<ServiceAddresses>,
        traffic: TrafficClass,
        until: Instant,
    ) -> Result<Self, String> {
        addresses.start();
        if !addresses.is_ready() {
            // In a box, so that other requests have smaller futures.
            let ready = timeout_at(until, Box::pin(addresses.ready())).await;
            ready.unwrap_or(Err(ConnectError::TimedOut)).map_err(|error| error.to_string())?;
        }
        let chosen = addresses.choose(&[], true, traffic);
        let in_flight = chosen.ok_or_else(|| "the service's name has no address".to_owned())?;
        Ok(Self { addresses, traffic, tried: Vec::new(), slow_connects: 0, in_flight })
    }

    /// Chooses another address after the connection to the present one failed. Returns `false` if none is left.
    pub fn try_another(&mut self, error: &ConnectError) -> bool {
        if self.traffic == TrafficClass::Real {
            // The name may have other addresses by now.
            self.addresses.request_lookup();
        }
        self.tried.push(self.in_flight.address().clone());
        self.slow_connects += usize::from(!error.is_refusal());
        let may_try = self.slow_connects < SLOW_CONNECTS_MAX;
        let is_quick = self.slow_connects == 0;
        let another = may_try.then(|| self.addresses.choose(&self.tried, is_quick, self.traffic)).flatten();
        let is_another = another.is_some();
        if let Some(another) = another {
            self.in_flight = another;
        }
        is_another
    }
}

impl RequestInFlight {
    /// Opens a connection to the request's address, over which HTTP has not sent anything, in bounded time.
    ///
    /// # Errors
    /// The address accepts no connection in time, or the TLS handshake failed: counted at the address.
    pub async fn connect(&self, http: HttpVersion) -> Result<(ServiceStream, ConnectionProtocol), ConnectError> {
        let address = self.address();
        self.counted(address.common.dialer.stream(address.socket, &address.target, http)).await
    }

    /// Bounds the time for opening a connection, or for its handshake, and counts a failure at the address.
    ///
    /// # Errors
    /// `opening` failed, or was not complete in time.
    pub async fn counted<T>(&self, opening: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        let opened = timeout(self.address().common.dialer.connect, opening).await;
        let opened = opened.unwrap_or(Err(ConnectError::TimedOut));
        if let Err(why) = &opened {
            self.connect_failed(why);
        }
        opened
    }
}
