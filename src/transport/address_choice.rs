//! Which address of its service a call of a step, a message to a webhook or a batch of spans goes to.
//!
//! Always true: each address is tried at most once for one attempt; another one is tried only while nothing of the
//! request has left, because the connection failed. No further address is tried after [`SLOW_CONNECTS_MAX`] failures
//! other than an immediate refusal; after one such failure, unavailable addresses (ejected or unhealthy) are not tried.
//! An address that gives a request no connection counts that for its ejection, once for each connection that is tried,
//! and only if the request is a real one ([`RequestInFlight`]).

use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};

use super::address::{Address, RequestInFlight, TrafficClass};
use super::addresses::ServiceAddresses;
use super::dialer::ConnectError;
use super::stream::ServiceStream;
use super::tls::ConnectionProtocol;
use crate::flag::HttpVersion;

/// The most addresses at which one attempt waits for a connection in vain.
const SLOW_CONNECTS_MAX: usize = 3;

/// The address of an attempt.
pub struct AddressChoice<'a> {
    addresses: &'a Arc<ServiceAddresses>,
    traffic: TrafficClass,
    tried: Vec<Arc<Address>>,
    slow_connects: usize,
    /// The request, as the address counts it.
    pub in_flight: RequestInFlight,
}

impl<'a> AddressChoice<'a> {
    /// Chooses the address that is tried first. Waits until the service's names were looked up once.
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
    /// Opens a connection to its address, over which HTTP has not sent anything, in bounded time.
    ///
    /// # Errors
    /// The address accepts no connection in time, or the TLS handshake failed: counted at the address.
    pub async fn connect(&self, http: HttpVersion) -> Result<(ServiceStream, ConnectionProtocol), ConnectError> {
        let address = self.address();
        self.counted(address.common.dialer.stream(address.socket, &address.target, http)).await
    }

    /// Bounds the time for a connection, or for its handshake, and counts a failure at the address.
    ///
    /// # Errors
    /// It is not open in time, or failed.
    pub async fn counted<T>(&self, opening: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        let opened = timeout(self.address().common.dialer.connect, opening).await;
        let opened = opened.unwrap_or(Err(ConnectError::TimedOut));
        if let Err(why) = &opened {
            self.connect_failed(why);
        }
        opened
    }
}
