//! Which address of its service a call goes to.
//!
//! Always true: each address is tried at most once for one attempt; another one is tried only while nothing of the
//! request has left, because the connection failed. No further address is tried after [`SLOW_CONNECTS_MAX`] failures
//! other than an immediate refusal; after one such failure, unavailable addresses (ejected or unhealthy) are not tried.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::time::{Instant, timeout_at};

use super::destination::{Destination, traffic};
use super::pooled_connection::to_origin_form;
use super::service::ServiceLimits;
use crate::transport::{Address, ConnectError, InFlight, TrafficClass};
use crate::workflow::Mode;

/// The most addresses at which one attempt waits for a connection in vain.
const SLOW_CONNECTS_MAX: usize = 3;

/// The address of an attempt.
pub(super) struct AddressChoice<'a> {
    upstream: &'a ServiceLimits,
    traffic: TrafficClass,
    tried: Vec<Arc<Address>>,
    slow_connects: usize,
    /// The call, as the address counts it.
    pub in_flight: InFlight,
}

impl<'a> AddressChoice<'a> {
    /// Chooses the address that is tried first. Waits until the service's names were looked up once.
    ///
    /// # Errors
    /// There is none: nothing is sent.
    pub(super) async fn begin(upstream: &'a ServiceLimits, mode: Mode, until: Instant) -> Result<Self, String> {
        let (addresses, traffic) = (upstream.addresses(), traffic(mode));
        addresses.start();
        if !addresses.is_ready() {
            // In a box, so that other calls have smaller futures.
            let ready = timeout_at(until, Box::pin(addresses.ready())).await;
            ready.unwrap_or(Err(ConnectError::TimedOut)).map_err(|error| error.to_string())?;
        }
        let chosen = addresses.choose(&[], true, traffic);
        let in_flight = chosen.ok_or_else(|| "the service's name has no address".to_owned())?;
        Ok(Self { upstream, traffic, tried: Vec::new(), slow_connects: 0, in_flight })
    }

    /// The connection to this one has failed: chooses another one. `false` if none is left.
    pub(super) fn try_another(&mut self, error: &ConnectError) -> bool {
        let addresses = self.upstream.addresses();
        if self.traffic == TrafficClass::Real {
            // The name may lead elsewhere by now.
            addresses.request_lookup();
        }
        self.tried.push(self.in_flight.address().clone());
        self.slow_connects += usize::from(!error.is_refusal());
        let may_try = self.slow_connects < SLOW_CONNECTS_MAX;
        let another = may_try.then(|| addresses.choose(&self.tried, self.slow_connects == 0, self.traffic)).flatten();
        let is_another = another.is_some();
        if let Some(another) = another {
            self.in_flight = another;
        }
        is_another
    }

    /// The target of the request at its base URL.
    fn uri<'u>(&self, uris: &'u [Uri]) -> &'u Uri {
        &uris[self.in_flight.address().target.index]
    }

    /// Where the connection leads to.
    pub(super) fn destination<'d>(&'d self, uris: &'d [Uri]) -> Destination<'d> {
        let (protocol, dialer) = (self.upstream.protocol(), self.upstream.addresses().dialer());
        Destination { protocol, dialer, in_flight: &self.in_flight, uri: self.uri(uris) }
    }

    /// Addresses a request to it. `names_host`: the request has a `Host` field of its own.
    pub(super) fn put_into(&self, request: &mut Request<Full<Bytes>>, uris: &[Uri], names_host: bool) {
        if !names_host {
            request.headers_mut().remove(HOST);
        }
        *request.uri_mut() = self.uri(uris).clone();
        to_origin_form(request, self.upstream.protocol());
    }
}
