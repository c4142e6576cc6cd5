//! The addresses of all services of the process.
//!
//! The question it answers: "what does this process know about the addresses of this service?" Always true: whoever
//! asks for a service with the same settings gets the same addresses, so that forwarded requests and calls of steps
//! learn from each other which address is dead.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;

use super::addresses::{AddressSettings, ServiceAddresses};
use super::callers::CallerLog;
use super::resolver::Resolver;
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::ServiceName;

/// The addresses of services, by name.
pub struct AddressRegistry {
    /// The newest addresses of each service, as long as somebody holds them.
    by_service: Mutex<HashMap<ServiceName, Weak<ServiceAddresses>>>,
    resolver: Resolver,
    runtime: Option<Handle>,
    callers: Arc<CallerLog>,
}

impl AddressRegistry {
    /// Makes an empty registry. Lookups and health checks run on the runtime in which it is made.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_resolver(Resolver::system())
    }

    pub(super) fn with_resolver(resolver: Resolver) -> Arc<Self> {
        Arc::new(Self {
            by_service: Mutex::default(),
            resolver,
            runtime: Handle::try_current().ok(),
            callers: Arc::default(),
        })
    }

    /// Returns the addresses of a service with these settings.
    pub fn of(&self, service: &Service, limits: &Limits) -> Arc<ServiceAddresses> {
        let mut by_service = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        by_service.retain(|_, addresses| addresses.strong_count() > 0);
        let known = by_service.get(&service.name).and_then(Weak::upgrade);
        if let Some(same) = known.as_ref().filter(|known| known.settings == AddressSettings::of(service)) {
            return same.clone();
        }
        let (resolver, runtime) = (self.resolver.clone(), self.runtime.clone());
        let callers = self.callers.of(&service.name);
        let addresses = Arc::new(ServiceAddresses::new(service, limits, resolver, runtime, callers, known.as_deref()));
        if let Some(known) = known {
            known.mark_replaced();
        }
        by_service.insert(service.name.clone(), Arc::downgrade(&addresses));
        addresses
    }

    /// Returns the record of who calls the services.
    pub fn callers(&self) -> &Arc<CallerLog> {
        &self.callers
    }

    /// Returns the services with which an exchange is under way, or to which a tunnel is open.
    pub fn services_in_use(&self) -> Vec<ServiceName> {
        let by_service = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        let all = by_service.iter().filter_map(|(service, addresses)| Some((service, addresses.upgrade()?)));
        all.filter(|(_, addresses)| addresses.is_in_use()).map(|(service, _)| service.clone()).collect()
    }

    /// Returns the host names that have no address, each with its service.
    pub fn names_without_address(&self) -> Vec<(ServiceName, String)> {
        let by_service = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        let all = by_service.iter().filter_map(|(service, addresses)| Some((service, addresses.upgrade()?)));
        let names = all.flat_map(|(service, addresses)| {
            let names = addresses.names_without_address();
            names.into_iter().map(|name| (service.clone(), name))
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}
