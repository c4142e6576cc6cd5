//! The addresses of a service: those that its URLs contain, and those of the names that its URLs contain.
//!
//! Always true: names are looked up again from time to time (`resolver`), and earlier if an address accepts no
//! connection; an address that stays keeps its state; a name that cannot be looked up keeps the addresses that it had.
//! Lookups run on the process's own runtime, so that a rehearsal, whose threads have a low priority, never delays a
//! lookup that a caller waits for.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::address::{Address, RequestInFlight, ServiceState, TrafficClass, choose_address};
use super::callers::ServiceCallers;
use super::dialer::{ConnectError, Dialer};
use super::health_check;
use super::last_failures::LastLookups;
use super::resolver::Resolver;
use super::target::Target;
use crate::flag::{BaseUrl, Eject, HealthCheck, HttpVersion, SentHost, Service, ServiceTls};
use crate::limits::Limits;

/// The shortest pause between two lookups of a service's names.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);
const TOO_SLOW: &str = "the lookup of the service's name takes too long";

/// The settings of a service on which its addresses depend. A reload that changes none of them keeps the addresses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AddressSettings {
    urls: Vec<BaseUrl>,
    host: SentHost,
    http: HttpVersion,
    tls: Option<ServiceTls>,
    connect: Option<Duration>,
    eject: Option<Eject>,
    health: Option<HealthCheck>,
    slow_start: Option<Duration>,
}

impl AddressSettings {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            urls: service.urls.clone(),
            host: service.host.clone(),
            http: service.http,
            tls: service.tls.clone(),
            connect: service.connect,
            eject: service.eject,
            health: service.health.clone(),
            slow_start: service.slow_start,
        }
    }
}

/// The addresses of a service, which forwarded requests and calls of steps share.
pub struct ServiceAddresses {
    pub(super) settings: AddressSettings,
    pub(super) common: Arc<ServiceState>,
    targets: Vec<Arc<Target>>,
    list: ArcSwap<Vec<Arc<Address>>>,
    /// Counts the replacements of the list.
    version: AtomicU64,
    resolver: Resolver,
    lookup_period: Duration,
    /// Notified to begin a lookup before the period is over.
    look_up: Arc<Notify>,
    is_started: AtomicBool,
    /// Whether requests need not wait for a lookup: no host is a name, each name has the addresses of earlier files, or
    /// a request has waited for a lookup and there are addresses.
    is_looked_up: AtomicBool,
    /// Held during a lookup, so that there is one at a time. Set if the last lookup failed for a name: when that was,
    /// in microseconds of `ServiceState::now`, and why.
    lookup: tokio::sync::Mutex<Option<(u64, String)>>,
    pub(super) last_lookups: LastLookups,
    /// Who uses the service. Locked also while the list is replaced, so that the gauge agrees with the list.
    usage: Mutex<Usage>,
    addresses_gauge: Gauge,
    lookup_failures: Counter,
    callers: Arc<ServiceCallers>,
}

/// Who uses a service, and how many of its addresses the gauge counts.
#[derive(Default)]
struct Usage {
    /// How many parts of the process have the service in force.
    users: usize,
    /// Whether newer files have other addresses for the service.
    is_replaced: bool,
    /// How many addresses of the service the gauge counts.
    addresses: usize,
}

impl Usage {
    /// Makes the gauge count this many addresses; none if the service is not in force.
    fn show(&mut self, gauge: &Gauge, addresses: usize) {
        let addresses = if self.users > 0 && !self.is_replaced { addresses } else { 0 };
        gauge.increment(addresses as f64 - self.addresses as f64);
        self.addresses = addresses;
    }
}

impl ServiceAddresses {
    /// `before` are the addresses of earlier files: a name keeps those that it had until it is looked up again.
    pub(super) fn new(
        service: &Service,
        limits: &Limits,
        resolver: Resolver,
        runtime: Option<Handle>,
        callers: Arc<ServiceCallers>,
        before: Option<&ServiceAddresses>,
    ) -> Self {
        let target = |(index, url)| Arc::new(Target::new(index, url, &service.host));
        let targets: Vec<_> = service.urls.iter().enumerate().map(target).collect();
        let name = || service.name.to_string();
        let addresses = Self {
            settings: AddressSettings::of(service),
            common: Arc::new(ServiceState::new(service, limits, runtime)),
            list: ArcSwap::default(),
            version: AtomicU64::new(0),
            resolver,
            lookup_period: Limits::ms(limits.service_resolve_ms),
            look_up: Arc::default(),
            is_started: AtomicBool::new(false),
            is_looked_up: AtomicBool::new(targets.iter().all(|target| target.host.parse::<IpAddr>().is_ok())),
            lookup: tokio::sync::Mutex::default(),
            last_lookups: LastLookups::default(),
            usage: Mutex::default(),
            addresses_gauge: gauge!("pointsman_service_addresses", "service" => name()),
            lookup_failures: counter!("pointsman_service_lookup_failures_total", "service" => name()),
            targets,
            callers,
        };
        let literal = |target: &Arc<Target>| target.host.parse().ok().map(|ip: IpAddr| (target.clone(), ip));
        let literals: Vec<_> = addresses.targets.iter().filter_map(literal).collect();
        addresses
            .replace(|_| false, literals.into_iter().map(|(target, ip)| (SocketAddr::new(ip, target.port), target)));
        if let Some(before) = before {
            addresses.take_addresses(before);
        }
        addresses
    }

    /// Takes over the addresses that earlier files had for the same names, until the names are looked up.
    fn take_addresses(&self, before: &ServiceAddresses) {
        let known = before.list.load();
        let is_same = |a: &Target, b: &Target| (&a.host, a.port) == (&b.host, b.port);
        let mut has_all = true;
        for target in self.names() {
            let of_target = known.iter().filter(|address| is_same(&address.target, target));
            let found: Vec<_> = of_target.map(|address| (address.socket, target.clone())).collect();
            has_all &= !found.is_empty();
            self.replace(|address| Arc::ptr_eq(&address.target, target), found.into_iter());
        }
        self.is_looked_up.store(has_all, Relaxed);
    }

    /// Returns the targets whose host is a name, which has to be looked up, and not an address.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.iter().filter(|target| target.host.parse::<IpAddr>().is_err())
    }

    /// Returns the record of who calls the service.
    pub fn callers(&self) -> &Arc<ServiceCallers> {
        &self.callers
    }

    /// Whether an exchange with the service is under way, or a tunnel to it is open.
    pub(super) fn is_in_use(&self) -> bool {
        let has_exchange = |address: &Arc<Address>| address.in_flight(TrafficClass::Secondary) > 0;
        self.callers.has_tunnels() || self.list.load().iter().any(has_exchange)
    }

    /// Returns the dialer, which opens connections to these addresses.
    pub fn dialer(&self) -> &Arc<Dialer> {
        &self.common.dialer
    }

    /// Returns the present addresses of the service.
    pub fn list(&self) -> Arc<Vec<Arc<Address>>> {
        self.list.load_full()
    }

    /// Returns a number that changes with each change of the list.
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }

    /// Chooses an address for a request that is not among `tried`, and counts the request there. An unavailable address
    /// (ejected or unhealthy) is chosen only if there is no other one, and if `may_be_unavailable`.
    pub fn choose(
        &self,
        tried: &[Arc<Address>],
        may_be_unavailable: bool,
        traffic: TrafficClass,
    ) -> Option<RequestInFlight> {
        let list = self.list.load();
        let is_tried = |index: usize| tried.iter().any(|one| Arc::ptr_eq(one, &list[index]));
        let chosen = choose_address(list.len(), |index| &list[index], is_tried, may_be_unavailable, traffic);
        chosen.map(|index| RequestInFlight::new(list[index].clone(), traffic))
    }

    /// Returns the service's names that have no address. Empty before the first lookup, and if the files in force do
    /// not have the service.
    pub(super) fn names_without_address(&self) -> Vec<String> {
        let is_in_force = {
            let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
            usage.users > 0 && !usage.is_replaced
        };
        let known = self.list.load();
        let has_none = |target: &&Arc<Target>| {
            self.last_lookups.of(&target.host).is_some()
                && !known.iter().any(|address| Arc::ptr_eq(&address.target, target))
        };
        let names = self.targets.iter().filter(|_| is_in_force && self.is_started.load(Relaxed)).filter(has_none);
        names.map(|target| target.host.clone()).collect()
    }

    /// Starts the background tasks: lookups and health checks. Further calls do nothing.
    pub fn start(self: &Arc<Self>) {
        if self.is_started.load(Relaxed) || self.is_started.swap(true, Relaxed) {
            return;
        }
        self.list.load().iter().for_each(health_check::start);
        if self.names().next().is_some() {
            self.common.spawn(keep_looking_up(Arc::downgrade(self), self.look_up.clone(), self.lookup_period));
        }
    }

    /// Asks for a lookup of the names before the period is over, because an address accepts no connection.
    pub fn request_lookup(&self) {
        self.look_up.notify_one();
    }

    /// Whether requests need not wait for a lookup.
    pub fn is_ready(&self) -> bool {
        self.is_looked_up.load(Relaxed)
    }

    /// Waits for the first addresses.
    ///
    /// # Errors
    /// No name has an address.
    pub async fn ready(self: &Arc<Self>) -> Result<(), ConnectError> {
        if self.is_ready() {
            return Ok(());
        }
        let unresolved = |why: &str| ConnectError::Unresolved(std::io::Error::other(why.to_owned()));
        let (done, found) = oneshot::channel();
        let addresses = self.clone();
        self.common.spawn(async move { drop(done.send(addresses.first_lookup().await)) });
        // Each lookup has `connect` as its limit, and this request may first have to wait for another request's lookup.
        match timeout(self.common.dialer.connect * 2, found).await {
            Ok(Ok(found)) => found.map_err(|why| unresolved(&why)),
            Ok(Err(_)) => Err(unresolved("the process ends")),
            Err(_) => Err(unresolved(TOO_SLOW)),
        }
    }

    /// Looks up the names if no lookup has succeeded. A failure counts for [`LOOKUP_PAUSE`] without a new lookup.
    async fn first_lookup(&self) -> Result<(), String> {
        let mut failed = self.lookup.lock().await;
        if self.is_looked_up.load(Relaxed) {
            return Ok(());
        }
        let pause = u64::try_from(LOOKUP_PAUSE.as_micros()).unwrap_or(u64::MAX);
        if let Some((_, why)) = failed.as_ref().filter(|(at, _)| self.common.now().saturating_sub(*at) < pause) {
            return Err(why.clone());
        }
        *failed = self.look_up_all().await.map(|why| (self.common.now(), why));
        if self.list.load().is_empty() {
            let why = failed.as_ref().map_or("the service's name has no address", |(_, why)| why);
            return Err(why.to_owned());
        }
        self.is_looked_up.store(true, Relaxed);
        Ok(())
    }

    /// Looks up all names. Returns why a name could not be looked up, if one could not.
    async fn look_up_all(&self) -> Option<String> {
        let within = self.common.dialer.connect;
        let look_up = async |target: &Arc<Target>| {
            let found = timeout(within, self.resolver.look_up(&target.host, target.port)).await;
            let too_slow = |_| Err(std::io::Error::new(std::io::ErrorKind::TimedOut, TOO_SLOW));
            (target.clone(), found.unwrap_or_else(too_slow))
        };
        let mut failure = None;
        for (target, found) in join_all(self.names().map(look_up)).await {
            let why = found.as_ref().err().map(ToString::to_string);
            self.last_lookups.note(&target.host, self.common.now(), why);
            match found {
                Ok(sockets) => {
                    let found = sockets.into_iter().map(|socket| (socket, target.clone()));
                    self.replace(|address| Arc::ptr_eq(&address.target, &target), found);
                }
                Err(error) => {
                    self.lookup_failures.increment(1);
                    let (service, name) = (self.common.service.as_str(), target.host.as_str());
                    tracing::warn!(
                        service, name, %error,
                        "a service's name cannot be looked up now; it keeps the addresses that it had, if any"
                    );
                    failure = Some(error.to_string());
                }
            }
        }
        failure
    }

    /// Puts `found` in the place of the addresses for which `is_old` holds. An address that is among both keeps its
    /// state.
    fn replace(&self, is_old: impl Fn(&Address) -> bool, found: impl Iterator<Item = (SocketAddr, Arc<Target>)>) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.list.load();
        let (old, others): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|address| is_old(address));
        // The first addresses begin together, so that their slow start favours none of them.
        let used_since = if before.is_empty() { 0 } else { self.common.now() };
        let mut after = others;
        for (socket, target) in found {
            if after.iter().any(|address| address.socket == socket && Arc::ptr_eq(&address.target, &target)) {
                continue;
            }
            let stays = old.iter().find(|address| address.socket == socket);
            let made = || Arc::new(Address::new(socket, target, self.common.clone(), used_since));
            after.push(stays.cloned().unwrap_or_else(made));
        }
        let is_gone = |address: &&Arc<Address>| !after.iter().any(|kept| Arc::ptr_eq(kept, address));
        old.iter().filter(is_gone).for_each(|address| address.remove());
        if self.is_started.load(Relaxed) {
            after.iter().for_each(health_check::start);
        }
        self.common.ejected_count.set_addresses(after.len());
        usage.show(&self.addresses_gauge, after.len());
        self.list.store(Arc::new(after));
        self.version.fetch_add(1, Release);
    }

    /// Records that a part of the process has the service in force, until the guard is dropped.
    pub fn in_force(self: &Arc<Self>) -> ServiceInUse {
        self.change_usage(|usage| usage.users += 1);
        ServiceInUse(self.clone())
    }

    /// Records that newer files have other addresses for the service. Requests under way may still hold these.
    pub(super) fn mark_replaced(&self) {
        self.change_usage(|usage| usage.is_replaced = true);
    }

    fn change_usage(&self, change: impl FnOnce(&mut Usage)) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut usage);
        let addresses = self.list.load().len();
        usage.show(&self.addresses_gauge, addresses);
    }
}

/// One part of the process that has a service in force, until this value is dropped.
pub struct ServiceInUse(Arc<ServiceAddresses>);

impl Drop for ServiceInUse {
    fn drop(&mut self) {
        self.0.change_usage(|usage| usage.users = usage.users.saturating_sub(1));
    }
}

impl Drop for ServiceAddresses {
    fn drop(&mut self) {
        self.list.load().iter().for_each(|address| address.remove());
    }
}

/// Looks up the names of a service once in each period, and earlier if an address accepts no connection.
async fn keep_looking_up(addresses: Weak<ServiceAddresses>, asked: Arc<Notify>, period: Duration) {
    loop {
        sleep(LOOKUP_PAUSE.min(period)).await;
        // Ends when a request asks for a lookup, or when the period is over.
        let _ = timeout(period.saturating_sub(LOOKUP_PAUSE), asked.notified()).await;
        let Some(addresses) = addresses.upgrade() else { return };
        let mut failed = addresses.lookup.lock().await;
        *failed = addresses.look_up_all().await.map(|why| (addresses.common.now(), why));
    }
}

#[cfg(test)]
#[path = "tests/addresses.rs"]
mod tests;
