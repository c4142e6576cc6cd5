//! One address of a service: how many requests are in flight to it, and whether it gets more.
//!
//! Always true:
//! - Forwarded requests and calls of steps share this state; each kind has its own connections.
//! - Requests of rehearsed and dark runs ([`TrafficClass::Secondary`]) read this state and never change it: their
//!   failures eject no address, and their successes readmit none.
//! - A task tries an ejected address again, and no request waits for that. The task ends when the address is no longer
//!   one of its service.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::balance::{Candidate, choose};
use super::dialer::{ConnectError, Dialer};
use super::ejection::{Availability, EjectedCount, EjectionReason};
use super::last_failures::AddressFailure;
use super::target::Target;
use crate::flag::{Eject, HealthCheck, Service};
use crate::limits::Limits;
use crate::names::ServiceName;

/// Whose requests go to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficClass {
    /// Forwarded requests, calls of real runs, messages to webhooks, and spans for the collector.
    Real,
    /// Calls of rehearsed and dark runs.
    Secondary,
}

/// State that all addresses of one service share.
pub(super) struct ServiceState {
    pub service: ServiceName,
    pub dialer: Arc<Dialer>,
    pub health: Option<HealthCheck>,
    eject: Option<Eject>,
    /// How long a new address gets fewer requests, in microseconds; 0: no slow start.
    slow_start: u64,
    pub ejected_count: EjectedCount,
    started: Instant,
    /// Where tasks of addresses run. `None` only in tests without a runtime.
    runtime: Option<Handle>,
    ejected_gauge: Gauge,
    unhealthy_gauge: Gauge,
    connect_failures: Counter,
}

impl ServiceState {
    pub(super) fn new(service: &Service, limits: &Limits, runtime: Option<Handle>) -> Self {
        let name = || service.name.to_string();
        Self {
            service: service.name.clone(),
            dialer: Arc::new(Dialer::new(service, limits)),
            health: service.health.clone(),
            eject: service.eject,
            slow_start: service.slow_start.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            ejected_count: EjectedCount::default(),
            started: Instant::now(),
            runtime,
            ejected_gauge: gauge!("pointsman_service_addresses_ejected", "service" => name()),
            unhealthy_gauge: gauge!("pointsman_service_addresses_unhealthy", "service" => name()),
            connect_failures: counter!("pointsman_service_connect_failures_total", "service" => name()),
        }
    }

    /// Returns the microseconds since this state was made.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Runs a task on the runtime in which the registry was made, whichever runtime calls this: the runtime of
    /// rehearsals and dark runs has a low priority, and ends before the process does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Only tests may have no runtime.
        if let Some(runtime) = self.runtime.clone().or_else(|| Handle::try_current().ok()) {
            runtime.spawn(task);
        }
    }
}

/// One address of a service.
pub struct Address {
    /// The IP address and port.
    pub socket: SocketAddr,
    /// The base URL whose host has this address.
    pub target: Arc<Target>,
    pub(super) common: Arc<ServiceState>,
    in_flight: AtomicU64,
    secondary_in_flight: AtomicU64,
    availability: Availability,
    last_failure: Mutex<Option<AddressFailure>>,
    /// Since when the address gets requests, in microseconds of `ServiceState::now`.
    used_since: AtomicU64,
    /// Whether a task checks the address's health.
    pub(super) is_checked: AtomicBool,
    /// Whether the service no longer has this address. A long request may still hold this value.
    is_removed: AtomicBool,
}

impl Address {
    pub(super) fn new(socket: SocketAddr, target: Arc<Target>, common: Arc<ServiceState>, used_since: u64) -> Self {
        Self {
            socket,
            target,
            common,
            in_flight: AtomicU64::new(0),
            secondary_in_flight: AtomicU64::new(0),
            availability: Availability::default(),
            last_failure: Mutex::default(),
            used_since: AtomicU64::new(used_since),
            is_checked: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
        }
    }

    /// Whether the service no longer has this address.
    pub fn is_removed(&self) -> bool {
        self.is_removed.load(Relaxed)
    }
    /// Marks the address as removed from its service, so that its tasks end, and takes it out of the counts and gauges.
    pub(super) fn remove(&self) {
        if self.is_removed.swap(true, Relaxed) {
            return;
        }
        let ServiceState { ejected_count, ejected_gauge, unhealthy_gauge, .. } = &*self.common;
        let (is_ejected, is_unhealthy) = self.availability.remove(ejected_count);
        if is_ejected {
            ejected_gauge.decrement(1.0);
        }
        if is_unhealthy {
            unhealthy_gauge.decrement(1.0);
        }
    }

    /// Whether the address is neither ejected nor unhealthy.
    pub fn is_available(&self) -> bool {
        self.availability.is_available()
    }
    /// Counts one more request in flight.
    pub fn begin(&self, traffic: TrafficClass) {
        self.count_of(traffic).fetch_add(1, Relaxed);
    }
    /// Counts one request less in flight.
    pub fn end(&self, traffic: TrafficClass) {
        self.count_of(traffic).fetch_sub(1, Relaxed);
    }
    fn count_of(&self, traffic: TrafficClass) -> &AtomicU64 {
        match traffic {
            TrafficClass::Real => &self.in_flight,
            TrafficClass::Secondary => &self.secondary_in_flight,
        }
    }
    /// Returns the requests in flight that count when an address is chosen for this traffic. For real requests only
    /// real ones count, so that rehearsed and dark runs divert none of them; for secondary ones all count.
    pub fn in_flight(&self, traffic: TrafficClass) -> u64 {
        let real = self.in_flight.load(Relaxed);
        match traffic {
            TrafficClass::Real => real,
            TrafficClass::Secondary => real + self.secondary_in_flight.load(Relaxed),
        }
    }
    /// Returns the weight of the address, in hundredths. It is lower during the slow start.
    fn weight(&self, at: u64) -> u64 {
        let (slow_start, full) = (self.common.slow_start, self.target.weight * 100);
        if slow_start == 0 {
            return full;
        }
        let used_for = at.saturating_sub(self.used_since.load(Relaxed)).min(slow_start);
        let share = u128::from(full) * u128::from(used_for) / u128::from(slow_start);
        // At least a tenth: without any request the address could never show that it serves.
        u64::try_from(share).unwrap_or(full).max(full / 10)
    }

    /// Returns which percentage of its share of the requests the address gets: less than 100 during the slow start.
    pub(super) fn share_percent(&self, at: u64) -> u64 {
        // The weight is in hundredths.
        self.weight(at) / self.target.weight.max(1)
    }
    /// Returns the number of real requests in flight, and that of all requests in flight.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.in_flight(TrafficClass::Real), self.in_flight(TrafficClass::Secondary))
    }
    /// Returns when an ejected address is tried again, and why it was ejected; `None` if it is not ejected.
    pub(super) fn ejection(&self) -> Option<(u64, EjectionReason)> {
        self.availability.ejection()
    }
    /// Whether the address's health checks fail.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.availability.is_unhealthy()
    }
    /// Returns the last failure of a real request or of a health check.
    pub(super) fn last_failure(&self) -> Option<AddressFailure> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn note_failure(&self, why: String) {
        let failure = AddressFailure { at: self.common.now(), why };
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// Records that a real request got an answer.
    pub fn answered(&self) {
        self.availability.answered();
        // An ejected address that gives an answer gets requests again.
        if self.availability.is_ejected() {
            self.readmit();
        }
    }
    /// Records that a real request was sent to the address and got no answer: none came in time, or the connection
    /// ended.
    pub fn unanswered(self: &Arc<Self>) {
        self.note_failure("a request got no answer".to_owned());
        let Some(settings) = self.common.eject.as_ref().filter(|_| !self.is_removed()) else { return };
        let ServiceState { ejected_count, .. } = &*self.common;
        if let Some(time) = self.availability.unanswered(settings, ejected_count, self.common.now()) {
            self.on_ejected(EjectionReason::NoAnswer, time);
        }
    }
    /// Records that a real request got no connection.
    pub fn connect_failed(self: &Arc<Self>, why: &ConnectError) {
        self.note_failure(format!("no connection: {why}"));
        self.common.connect_failures.increment(1);
        let Some(settings) = self.common.eject.as_ref().filter(|_| !self.is_removed()) else { return };
        let ServiceState { ejected_count, .. } = &*self.common;
        if let Some(time) =
            self.availability.eject(EjectionReason::NoConnection, settings, ejected_count, self.common.now())
        {
            self.on_ejected(EjectionReason::NoConnection, time);
        }
    }

    /// Counts and logs the ejection, and starts the task that ends it.
    fn on_ejected(self: &Arc<Self>, why: EjectionReason, time: Duration) {
        let ServiceState { service, ejected_gauge, .. } = &*self.common;
        ejected_gauge.increment(1.0);
        counter!("pointsman_service_ejections_total", "service" => service.to_string(), "reason" => why.label())
            .increment(1);
        tracing::warn!(
            service = service.as_str(), address = %self.socket, reason = why.label(), ms = time.as_millis(),
            "an address of a service gets no requests for a while"
        );
        self.common.spawn(readmit_when_it_accepts(Arc::downgrade(self), time));
    }

    /// Lets the address get requests again, if it was ejected.
    fn readmit(&self) {
        let ServiceState { service, eject: Some(settings), ejected_count, ejected_gauge, .. } = &*self.common else {
            return;
        };
        let now = self.common.now();
        if self.availability.readmit(settings, ejected_count, now) {
            self.used_since.store(now, Relaxed);
            ejected_gauge.decrement(1.0);
            let (service, address) = (service.as_str(), self.socket);
            tracing::info!(service, %address, "an address of a service gets requests again");
        }
    }

    /// Records that a health check failed.
    pub(super) fn check_failed(&self, why: &str) {
        self.note_failure(format!("a health check failed: {why}"));
    }

    /// Records what the health checks found.
    pub(super) fn set_healthy(&self, is_healthy: bool) {
        if self.is_removed() || !self.availability.set_healthy(is_healthy) {
            return;
        }
        let ServiceState { service, unhealthy_gauge, .. } = &*self.common;
        let (service, address) = (service.as_str(), self.socket);
        if is_healthy {
            unhealthy_gauge.decrement(1.0);
            self.used_since.store(self.common.now(), Relaxed);
            tracing::info!(service, %address, "an address of a service passes its health checks again");
        } else {
            unhealthy_gauge.increment(1.0);
            tracing::warn!(service, %address, "an address of a service fails its health checks and gets no requests");
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Waits until an ejected address accepts a connection again, and readmits it.
async fn readmit_when_it_accepts(address: Weak<Address>, mut time: Duration) {
    loop {
        sleep(time).await;
        let Some(address) = address.upgrade().filter(|address| address.availability.is_ejected()) else { return };
        let Some(settings) = &address.common.eject else { return };
        match address.common.dialer.try_to_connect(address.socket, &address.target).await {
            Ok(()) => return address.readmit(),
            Err(error) => {
                address.note_failure(format!("no connection: {error}"));
                time = address.availability.stay_ejected(settings, address.common.now());
                tracing::debug!(%error, address = %address.socket, ms = time.as_millis(), "an ejected address still accepts no connection");
            }
        }
    }
}

/// Returns the index of the address that gets a request, among those that were not tried. An unavailable address
/// (ejected or unhealthy) is chosen only if there is no other one, and if `may_be_unavailable`.
pub fn choose_address<'a>(
    count: usize,
    address: impl Fn(usize) -> &'a Address,
    is_tried: impl Fn(usize) -> bool,
    may_be_unavailable: bool,
    traffic: TrafficClass,
) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let common = &address(0).common;
    let at = if common.slow_start == 0 { 0 } else { common.now() };
    let candidate = |must_be_available: bool, index: usize| {
        let address = address(index);
        let may_be = !is_tried(index) && (address.is_available() || !must_be_available);
        let weight = if may_be { address.weight(at) } else { 0 };
        Candidate { weight, in_flight: address.in_flight(traffic) }
    };
    let random = |below: u64| fastrand::u64(..below);
    let available = choose(count, |index| candidate(true, index), random);
    match available {
        None if may_be_unavailable => choose(count, |index| candidate(false, index), random),
        available => available,
    }
}

/// Counts one request as in flight to an address, until this value is dropped. Whether the request was answered changes
/// the address's state only if it is a real request.
pub struct RequestInFlight {
    address: Arc<Address>,
    traffic: TrafficClass,
}

impl RequestInFlight {
    pub(super) fn new(address: Arc<Address>, traffic: TrafficClass) -> Self {
        address.begin(traffic);
        Self { address, traffic }
    }
    /// Returns the address to which the request goes.
    pub fn address(&self) -> &Arc<Address> {
        &self.address
    }
    /// Records that the request got an answer.
    pub fn answered(&self) {
        self.if_real(|address| address.answered());
    }
    /// Records that the request was sent and got no answer.
    pub fn unanswered(&self) {
        self.if_real(|address| address.unanswered());
    }
    /// Records that the request got no connection.
    pub fn connect_failed(&self, why: &ConnectError) {
        self.if_real(|address| address.connect_failed(why));
    }
    fn if_real(&self, change: impl FnOnce(&Arc<Address>)) {
        match self.traffic {
            TrafficClass::Real => change(&self.address),
            TrafficClass::Secondary => {}
        }
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.address.end(self.traffic);
    }
}
