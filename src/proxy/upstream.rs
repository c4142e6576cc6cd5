//! A service as the proxy calls it: its addresses with their connections, and the choice of the one that gets a
//! request.
//!
//! Always true: of the available addresses one is chosen by weight and load; if none is available, one is still tried;
//! an address that accepts no connection is not tried twice for one request. The list of addresses, and which of them
//! are available, is kept by [`ServiceAddresses`], which the proxy shares with the steps' calls.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use metrics::{Counter, counter};

use super::address::{ForwardedInFlight, ProxiedAddress, UpstreamShared};
use super::own_sockets::OwnSockets;
use super::pool::Connection;
use super::retry_budget::RetryBudget;
use super::turns::Turns;
use crate::flag::Service;
use crate::limits::Limits;
use crate::transport::{
    AddressRegistry, ConnectError, ServiceAddresses, ServiceCallers, ServiceInUse, TrafficClass, choose_address,
};

/// The most addresses that one request tries to connect to.
const CONNECTS_MAX: usize = 3;

/// A service as the proxy calls it.
pub(super) struct Upstream {
    pub service: Arc<Service>,
    /// `None` if the service gets any number of requests at the same time.
    pub turns: Option<Turns>,
    pub retry_budget: RetryBudget,
    /// The sockets of this process, which calls by legacy may not reach. `None` if the service is called for clients.
    pub own: Option<Arc<OwnSockets>>,
    common: Arc<UpstreamShared>,
    shared: Arc<ServiceAddresses>,
    /// The addresses in `shared`, each with the proxy's connections to it.
    addresses: ArcSwap<Vec<Arc<ProxiedAddress>>>,
    /// The version of the list in `shared` from which `addresses` was made.
    version: AtomicU64,
    /// `None` once newer files have replaced this service. Locked while `addresses` is updated.
    in_force: Mutex<Option<ServiceInUse>>,
    /// Requests that were sent to a second address because the first one gave no answer.
    pub retries: Counter,
}

impl Upstream {
    /// `own` is set if the service is called for legacy, by the egress listener.
    pub(super) fn new(
        service: Arc<Service>,
        limits: &Limits,
        registry: &AddressRegistry,
        own: Option<Arc<OwnSockets>>,
    ) -> Self {
        let shared = registry.of(&service, limits);
        let name = || service.name.to_string();
        Self {
            turns: Turns::of_service(&service, limits),
            retry_budget: RetryBudget::default(),
            common: Arc::new(UpstreamShared::new(&service, shared.dialer().clone(), limits)),
            addresses: ArcSwap::default(),
            version: AtomicU64::new(0),
            in_force: Mutex::new(Some(shared.in_force())),
            retries: counter!("pointsman_legacy_retries_total", "service" => name()),
            own,
            shared,
            service,
        }
    }

    /// Returns the record of who calls the service.
    pub(super) fn callers(&self) -> &Arc<ServiceCallers> {
        self.shared.callers()
    }

    /// Starts the background tasks: lookups and health checks. Further calls do nothing.
    pub(super) fn start(&self) {
        self.shared.start();
    }

    fn addresses(&self) -> Guard<Arc<Vec<Arc<ProxiedAddress>>>> {
        if self.version.load(Relaxed) != self.shared.version() {
            self.take_over_list();
        }
        self.addresses.load()
    }

    /// Updates `addresses` from the list in `shared`. An address that stays keeps its connections.
    fn take_over_list(&self) {
        let _one_at_a_time = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        // The version is read before the list: if the list changes meanwhile, the next request updates it again.
        let version = self.shared.version();
        let before = self.addresses.load();
        let known = |state| before.iter().find(|address| Arc::ptr_eq(&address.shared, state)).cloned();
        let list = self.shared.list();
        let with_connections = list.iter().map(|state| {
            known(state).unwrap_or_else(|| Arc::new(ProxiedAddress::new(state.clone(), self.common.clone())))
        });
        let after: Vec<_> = with_connections.collect();
        let is_gone = |address: &&Arc<ProxiedAddress>| !after.iter().any(|kept| Arc::ptr_eq(kept, address));
        before.iter().filter(is_gone).for_each(|address| address.close());
        self.addresses.store(Arc::new(after));
        self.version.store(version, Relaxed);
    }

    /// Returns a connection for a request, and whether it has carried a request before. Addresses that accept no
    /// connection are added to `tried`.
    pub(super) async fn connection(
        &self,
        tried: &mut Vec<Arc<ProxiedAddress>>,
        must_be_new: bool,
        only_http1: bool,
    ) -> Result<(Connection, ForwardedInFlight, bool), ConnectError> {
        if !self.shared.is_ready() {
            // Boxed, so that the futures of other requests are smaller.
            Box::pin(self.shared.ready()).await?;
        }
        let mut why = None;
        // Whether the connections that failed did so without delay.
        let mut failed_at_once = true;
        for _ in 0..CONNECTS_MAX {
            let Some(address) = self.choose(tried, failed_at_once) else { break };
            // Counts as in flight while connecting, so that others choose an address that connects slowly less often.
            let in_flight = ForwardedInFlight::new(address);
            let address = &in_flight.address;
            match address.connection(must_be_new, only_http1).await {
                Ok((connection, reused)) => return Ok((connection, in_flight, reused)),
                Err(error) => {
                    failed_at_once &= error.is_refusal();
                    why = Some(error);
                }
            }
            tried.push(address.clone());
            // The service's name may resolve to other addresses by now.
            self.shared.request_lookup();
        }
        let nowhere = || ConnectError::Refused(std::io::Error::other("the service has no other address"));
        Err(why.unwrap_or_else(nowhere))
    }

    /// Whether an address other than these gets requests.
    pub(super) fn has_another(&self, tried: &[Arc<ProxiedAddress>]) -> bool {
        let addresses = self.addresses();
        addresses.len() > 1
            && addresses.iter().any(|address| address.shared.is_available() && is_untried(address, tried))
    }

    /// Chooses an address that is not among `tried`. An unavailable one (ejected or unhealthy) is chosen only if there
    /// is no other one, and if `may_be_unavailable` or none has been tried.
    fn choose(&self, tried: &[Arc<ProxiedAddress>], may_be_unavailable: bool) -> Option<Arc<ProxiedAddress>> {
        let addresses = self.addresses();
        if let [only] = &addresses[..] {
            return tried.is_empty().then(|| only.clone());
        }
        let state = |index: usize| &*addresses[index].shared;
        let is_tried = |index: usize| !is_untried(&addresses[index], tried);
        let may_be_unavailable = may_be_unavailable || tried.is_empty();
        let chosen = choose_address(addresses.len(), state, is_tried, may_be_unavailable, TrafficClass::Real);
        chosen.map(|index| addresses[index].clone())
    }

    /// Records that the files in force no longer have the service, or have changed it. Requests under way may still
    /// hold this value.
    pub(super) fn replaced(&self) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns the number of requests in flight to its addresses.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.addresses.load().iter().map(|address| address.shared.in_flight(TrafficClass::Real)).sum()
    }

    /// Closes connections that have been idle for too long.
    pub(super) fn sweep(&self) {
        self.addresses().iter().for_each(|address| address.sweep());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.addresses.load().iter().for_each(|address| address.close());
    }
}

fn is_untried(address: &Arc<ProxiedAddress>, tried: &[Arc<ProxiedAddress>]) -> bool {
    !tried.iter().any(|one| Arc::ptr_eq(one, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_accepts_no_connection_is_left_for_another_one_of_the_service() {
        let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let socket = origin.local_addr().unwrap();
        let urls = [dead, socket].map(|address| format!("http://{address}").parse().unwrap());
        let registry = AddressRegistry::new();
        let upstream = Upstream::new(Arc::new(Service::at("shop", urls)), &Limits::default(), &registry, None);
        for _ in 0..10 {
            let connected = upstream.connection(&mut Vec::new(), true, false).await;
            assert!(connected.is_ok_and(|(_, in_flight, _)| in_flight.address.shared.socket == socket));
        }
    }
}
