//! A service as the proxy calls it: its addresses, and which of them gets a request.
//!
//! Always true: of the addresses that get requests one is chosen by `balance`; where none of them gets requests, one is
//! tried all the same; an address that accepts no connection is not tried twice for one request. The addresses of names
//! are looked up again from time to time (`resolver`); an address that stays keeps its connections and its state. A
//! name that cannot be looked up keeps the addresses that it had.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::address::{Address, Common, InFlight};
use super::balance::{Candidate, choose};
use super::connector::ConnectError;
use super::health_check;
use super::monotonic::now;
use super::pool::Connection;
use super::resolver::Resolver;
use super::retry_budget::RetryBudget;
use super::target::Target;
use super::turns::Turns;
use crate::flag::Service;
use crate::limits::Limits;
use crate::names::ServiceName;

/// The most addresses that one request tries to connect to.
const CONNECTS_MAX: usize = 3;
/// The shortest pause between two lookups of a service's names.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);
const TOO_SLOW: &str = "the lookup of the service's name takes too long";

/// A service as the proxy calls it.
pub(super) struct Upstream {
    pub service: Arc<Service>,
    /// `None` if it gets any number of requests at the same time.
    pub turns: Option<Turns>,
    pub retry_budget: RetryBudget,
    common: Arc<Common>,
    targets: Vec<Arc<Target>>,
    addresses: ArcSwap<Vec<Arc<Address>>>,
    resolver: Resolver,
    lookup_period: Duration,
    /// Asks for a lookup before its time.
    look_up: Arc<Notify>,
    is_started: AtomicBool,
    /// Whether it has addresses and a lookup of its names has ended, so that requests do not wait for one.
    is_looked_up: AtomicBool,
    /// One lookup at a time; why the last one found nothing, and when.
    lookup: tokio::sync::Mutex<Option<(u64, String)>>,
    /// Held while the addresses are replaced. Whether newer files have replaced this service.
    is_replaced: Mutex<bool>,
    addresses_gauge: Gauge,
    lookup_failures: Counter,
    /// Requests that were sent to a second address because the first one gave no answer.
    pub retries: Counter,
}

impl Upstream {
    /// `before` is the service as earlier files had it: until its names are looked up again, they have the addresses
    /// that they had.
    pub(super) fn new(service: Arc<Service>, limits: &Limits, before: Option<&Upstream>) -> Self {
        let upstream = Self::with_resolver(service, limits, Resolver::system());
        if let Some(before) = before {
            upstream.take_addresses(before);
        }
        upstream
    }

    fn take_addresses(&self, before: &Upstream) {
        let known = before.addresses.load();
        let is_same = |a: &Target, b: &Target| (&a.host, a.port) == (&b.host, b.port);
        let mut has_all = true;
        for target in self.targets.iter().filter(|target| target.host.parse::<IpAddr>().is_err()) {
            let of_target = known.iter().filter(|address| is_same(&address.target, target));
            let found: Vec<_> = of_target.map(|address| (address.socket, target.clone())).collect();
            has_all &= !found.is_empty();
            self.replace(|address| Arc::ptr_eq(&address.target, target), found.into_iter());
        }
        self.is_looked_up.store(has_all, Relaxed);
    }

    pub(super) fn with_resolver(service: Arc<Service>, limits: &Limits, resolver: Resolver) -> Self {
        let targets: Vec<_> = service.urls.iter().map(|url| Arc::new(Target::new(url, &service.host))).collect();
        let name = || service.name.to_string();
        let upstream = Self {
            turns: Turns::of(&service, limits),
            retry_budget: RetryBudget::default(),
            common: Arc::new(Common::new(&service, limits)),
            addresses: ArcSwap::default(),
            resolver,
            lookup_period: Limits::ms(limits.service_resolve_ms),
            look_up: Arc::default(),
            is_started: AtomicBool::new(false),
            is_looked_up: AtomicBool::new(targets.iter().all(|target| target.host.parse::<IpAddr>().is_ok())),
            lookup: tokio::sync::Mutex::default(),
            is_replaced: Mutex::default(),
            addresses_gauge: gauge!("pointsman_legacy_addresses", "service" => name()),
            lookup_failures: counter!("pointsman_legacy_lookup_failures_total", "service" => name()),
            retries: counter!("pointsman_legacy_retries_total", "service" => name()),
            targets,
            service,
        };
        let literal = |target: &Arc<Target>| target.host.parse().ok().map(|ip: IpAddr| (target.clone(), ip));
        let literals: Vec<_> = upstream.targets.iter().filter_map(literal).collect();
        upstream
            .replace(|_| false, literals.into_iter().map(|(target, ip)| (SocketAddr::new(ip, target.port), target)));
        upstream
    }

    fn has_names(&self) -> bool {
        self.targets.iter().any(|target| target.host.parse::<IpAddr>().is_err())
    }

    /// Its names that have no address, each behind the service's own name. Empty before they are first looked up.
    pub(super) fn names_without_address(&self) -> Vec<(ServiceName, String)> {
        let known = self.addresses.load();
        let has_none = |target: &&Arc<Target>| !known.iter().any(|address| Arc::ptr_eq(&address.target, target));
        let names = self.targets.iter().filter(|_| self.is_started.load(Relaxed)).filter(has_none);
        names.map(|target| (self.service.name.clone(), target.host.clone())).collect()
    }

    /// Starts what is done for it beside the requests: lookups and health checks. Does nothing the second time.
    pub(super) fn start(self: &Arc<Self>) {
        if self.is_started.load(Relaxed) || self.is_started.swap(true, Relaxed) {
            return;
        }
        self.addresses.load().iter().for_each(health_check::start);
        if self.has_names() {
            tokio::spawn(keep_looking_up(Arc::downgrade(self), self.look_up.clone(), self.lookup_period));
        }
    }

    /// A connection for a request, and whether it has carried one before. Addresses that accept no connection are added
    /// to `tried`.
    pub(super) async fn connection(
        &self,
        tried: &mut Vec<Arc<Address>>,
        must_be_new: bool,
        only_http1: bool,
        asked_at: u64,
    ) -> Result<(Connection, InFlight, bool), ConnectError> {
        if !self.is_looked_up.load(Relaxed) {
            self.first_lookup().await?;
        }
        let mut why = None;
        // Whether the connections that failed did so at once.
        let mut costs_nothing = true;
        for _ in 0..CONNECTS_MAX {
            let Some(address) = self.choose(tried, costs_nothing, asked_at) else { break };
            // In flight already while connecting, so that others choose less often an address that connects slowly.
            let in_flight = InFlight::new(address);
            let address = &in_flight.address;
            match address.connection(must_be_new, only_http1).await {
                Ok((connection, reused)) => return Ok((connection, in_flight, reused)),
                Err(error) => {
                    costs_nothing &= matches!(error, ConnectError::Refused(_));
                    why = Some(error);
                }
            }
            tried.push(address.clone());
            // The name may lead elsewhere by now.
            self.look_up.notify_one();
        }
        let nowhere = || ConnectError::Refused(std::io::Error::other("the service has no other address"));
        Err(why.unwrap_or_else(nowhere))
    }

    /// Whether another address than these gets requests.
    pub(super) fn has_another(&self, tried: &[Arc<Address>]) -> bool {
        let addresses = self.addresses.load();
        addresses.len() > 1 && addresses.iter().any(|address| address.is_available() && is_untried(address, tried))
    }

    /// An address that is not among `tried`. One that gets no requests is chosen only if there is no other one, and if
    /// `may_be_ejected` or none has been tried.
    fn choose(&self, tried: &[Arc<Address>], may_be_ejected: bool, at: u64) -> Option<Arc<Address>> {
        let addresses = self.addresses.load();
        if let [only] = &addresses[..] {
            return tried.is_empty().then(|| only.clone());
        }
        let candidate = |must_be_available: bool, index: usize| {
            let address: &Arc<Address> = &addresses[index];
            let may_be = is_untried(address, tried) && (address.is_available() || !must_be_available);
            let weight = if may_be { address.weight(at) } else { 0 };
            Candidate { weight, in_flight: address.in_flight() }
        };
        let random = |below: u64| fastrand::u64(..below);
        let chosen = choose(addresses.len(), |index| candidate(true, index), random);
        let chosen = match chosen {
            None if may_be_ejected || tried.is_empty() => {
                choose(addresses.len(), |index| candidate(false, index), random)
            }
            chosen => chosen,
        };
        chosen.map(|index| addresses[index].clone())
    }

    /// Waits for the first addresses.
    async fn first_lookup(&self) -> Result<(), ConnectError> {
        let unresolved = |why: &str| ConnectError::Unresolved(std::io::Error::other(why.to_owned()));
        let look_up = async {
            let mut failed = self.lookup.lock().await;
            if self.is_looked_up.load(Relaxed) {
                return Ok(());
            }
            let pause = u64::try_from(LOOKUP_PAUSE.as_micros()).unwrap_or(u64::MAX);
            if let Some((_, why)) = failed.as_ref().filter(|(at, _)| now().saturating_sub(*at) < pause) {
                return Err(unresolved(why));
            }
            *failed = self.look_up_all().await.map(|why| (now(), why));
            if self.addresses.load().is_empty() {
                let why = failed.as_ref().map_or("the service's name has no address", |(_, why)| why);
                return Err(unresolved(why));
            }
            self.is_looked_up.store(true, Relaxed);
            Ok(())
        };
        // Each lookup has that time, and another request may have to wait for it first.
        let in_time = timeout(self.common.connector.connect * 2, look_up).await;
        in_time.unwrap_or_else(|_| Err(unresolved(TOO_SLOW)))
    }

    /// Looks up all names. Returns why one could not be looked up.
    async fn look_up_all(&self) -> Option<String> {
        let names = self.targets.iter().filter(|target| target.host.parse::<IpAddr>().is_err());
        let look_up = async |target: &Arc<Target>| {
            let found = timeout(self.common.connector.connect, self.resolver.look_up(&target.host, target.port)).await;
            let too_slow = |_| Err(std::io::Error::new(std::io::ErrorKind::TimedOut, TOO_SLOW));
            (target.clone(), found.unwrap_or_else(too_slow))
        };
        let mut failure = None;
        for (target, found) in join_all(names.map(look_up)).await {
            match found {
                Ok(sockets) => {
                    let found = sockets.into_iter().map(|socket| (socket, target.clone()));
                    self.replace(|address| Arc::ptr_eq(&address.target, &target), found);
                }
                Err(error) => {
                    self.lookup_failures.increment(1);
                    let name = target.host.as_str();
                    tracing::warn!(service = self.service.name.as_str(), name, %error, "a service's name has no address now");
                    failure = Some(error.to_string());
                }
            }
        }
        failure
    }

    /// Replaces the addresses for which `are_old` holds by these. One that is among both stays as it is.
    fn replace(&self, are_old: impl Fn(&Address) -> bool, found: impl Iterator<Item = (SocketAddr, Arc<Target>)>) {
        let is_replaced = self.is_replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.addresses.load();
        let (old, others): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|address| are_old(address));
        // At the start all of them begin together.
        let used_since = if before.is_empty() { 0 } else { now() };
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
        if !*is_replaced {
            self.addresses_gauge.set(after.len() as f64);
        }
        self.addresses.store(Arc::new(after));
    }

    /// The files in force have the service no longer, or have changed it. Requests under way may still hold this one.
    pub(super) fn replaced(&self, is_removed: bool) {
        let mut is_replaced = self.is_replaced.lock().unwrap_or_else(PoisonError::into_inner);
        *is_replaced = true;
        if is_removed {
            self.addresses_gauge.set(0.0);
        }
    }

    /// Requests that are in flight to its addresses.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.addresses.load().iter().map(|address| address.in_flight()).sum()
    }

    /// Closes connections that have been idle for too long.
    pub(super) fn sweep(&self) {
        self.addresses.load().iter().for_each(|address| address.sweep());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.addresses.load().iter().for_each(|address| address.remove());
    }
}

fn is_untried(address: &Arc<Address>, tried: &[Arc<Address>]) -> bool {
    !tried.iter().any(|one| Arc::ptr_eq(one, address))
}

/// Looks up the names of a service in a period, and earlier if an address accepts no connection.
async fn keep_looking_up(upstream: Weak<Upstream>, asked: Arc<Notify>, period: Duration) {
    loop {
        sleep(LOOKUP_PAUSE.min(period)).await;
        // Ends when a request asks for a look-up or when the period is over, whichever is first: both begin the next
        // one.
        let _ = timeout(period.saturating_sub(LOOKUP_PAUSE), asked.notified()).await;
        let Some(upstream) = upstream.upgrade() else { return };
        let mut failed = upstream.lookup.lock().await;
        *failed = upstream.look_up_all().await.map(|why| (now(), why));
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn sockets(upstream: &Upstream) -> Vec<String> {
        upstream.addresses.load().iter().map(|address| address.socket.to_string()).collect()
    }

    #[tokio::test]
    async fn the_first_request_waits_for_the_addresses_of_the_names() {
        let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = origin.local_addr().unwrap();
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let resolver = Resolver::new(move |_, _| Box::pin(async move { Ok(vec![socket]) }));
        let urls = [format!("http://{dead}"), "http://shop.test:9000".into()].map(|url| url.parse().unwrap());
        let upstream = Upstream::with_resolver(Arc::new(Service::at("shop", urls)), &Limits::default(), resolver);
        for _ in 0..10 {
            let connected = upstream.connection(&mut Vec::new(), true, false, now()).await;
            assert!(connected.is_ok_and(|(_, in_flight, _)| in_flight.address.socket == socket));
        }
    }

    /// A long exchange may still hold an address that was removed.
    #[tokio::test]
    async fn a_removed_address_no_longer_counts_and_a_changed_service_keeps_those_of_its_names() {
        let (a, b) = ("127.0.0.1:1", "127.0.0.1:2");
        let answers = Arc::new(Mutex::new(vec![vec![a, b], vec![b]]));
        let resolver = Resolver::new(move |_, _| {
            let answer = answers.lock().unwrap().remove(0);
            Box::pin(async move { Ok(answer.iter().map(|socket| socket.parse().unwrap()).collect()) })
        });
        let service = Service::at("shop", ["http://shop.test:9000".parse().unwrap()]);
        let upstream = Upstream::with_resolver(Arc::new(service.clone()), &Limits::default(), resolver);
        upstream.look_up_all().await;
        let held = upstream.addresses.load()[0].clone();
        assert!(held.connection(true, false).await.is_err() && !held.is_available(), "ejected");
        upstream.look_up_all().await;
        assert_eq!(sockets(&upstream), [b]);
        assert!(held.is_removed() && held.is_available(), "it is not among the ejected ones any more");
        let changed = Arc::new(Service { slow_start: Some(Duration::from_secs(9)), ..service });
        let changed = Upstream::new(changed, &Limits::default(), Some(&upstream));
        assert_eq!((sockets(&changed), changed.is_looked_up.load(Relaxed)), (vec![b.to_owned()], true));
    }

    #[tokio::test]
    async fn the_addresses_of_a_name_are_replaced_and_stay_while_it_has_none() {
        let answers = Arc::new(Mutex::new(Vec::<io::Result<Vec<&str>>>::new()));
        let asked = answers.clone();
        let resolver = Resolver::new(move |name, port| {
            assert_eq!((name.as_str(), port), ("shop.test", 9000));
            let answer = asked.lock().unwrap().remove(0);
            Box::pin(async move { answer.map(|found| found.iter().map(|socket| socket.parse().unwrap()).collect()) })
        });
        let urls = ["http://127.0.0.1:1", "http://shop.test:9000"].map(|url| url.parse().unwrap());
        let service = Arc::new(Service::at("shop", urls));
        let upstream = Upstream::with_resolver(service, &Limits::default(), resolver);
        assert_eq!(sockets(&upstream), ["127.0.0.1:1"]);
        let look_up = async |answer| {
            answers.lock().unwrap().push(answer);
            upstream.look_up_all().await;
            sockets(&upstream)
        };
        let (a, b, c) = ("10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.3:9000");
        assert_eq!(look_up(Ok(vec![a, b, a])).await, ["127.0.0.1:1", a, b]);
        let kept = upstream.addresses.load()[2].clone();
        assert_eq!(look_up(Ok(vec![b, c])).await, ["127.0.0.1:1", b, c]);
        assert!(Arc::ptr_eq(&kept, &upstream.addresses.load()[1]), "it keeps its connections and its state");
        assert_eq!(look_up(Err(io::Error::other("no answer"))).await, ["127.0.0.1:1", b, c]);
        assert_eq!(look_up(Ok(vec![])).await, ["127.0.0.1:1", b, c]);
    }
}
