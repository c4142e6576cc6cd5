//! The state of a service for people: its breaker, and its calls in flight.

use jiff::{SignedDuration, Timestamp};

use super::ServiceLimits;
use crate::clock;
use crate::engine::ports::breaker::BreakerState;
use crate::names::{RunId, ServiceName};
use crate::transport::AddressesView;

/// The state of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// Its base URLs.
    pub urls: Vec<String>,
    /// Its addresses and names.
    pub addresses: AddressesView,
    /// Its breaker; `None` where it has none.
    pub breaker: Option<BreakerView>,
    /// Calls of real runs in flight.
    pub in_flight: u64,
    /// The most calls of real runs in flight.
    pub calls_max: u64,
    /// Calls of rehearsed and dark runs in flight.
    pub secondary_in_flight: u64,
    /// The most calls of rehearsed and dark runs in flight.
    pub secondary_calls_max: u64,
    /// Calls that wait for the concurrency limit or for the rate.
    pub waiting: u64,
    /// The rate limit as it is configured: `100/s`.
    pub rate: Option<String>,
    /// How many calls may begin at once after a pause.
    pub burst: Option<u64>,
}

/// The state of a breaker.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerView {
    /// Its state.
    pub state: BreakerState,
    /// When it entered this state.
    pub since: Timestamp,
    /// While open: when the next call is let through as a probe. If that time has passed, the next call is a probe.
    pub next_probe: Option<Timestamp>,
    /// While closed: calls of real runs that ended within its window.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
    /// The other processes where it is open.
    pub open_in: Vec<String>,
}

impl ServiceLimits {
    /// What a call of this run waits for at this service; `None` where no call of the run waits.
    pub fn wait_reason(&self, run: RunId) -> Option<String> {
        if !self.waiting.contains(run) {
            return None;
        }
        let name = &self.name;
        let (in_flight, secondary) = (self.in_flight.get(), self.secondary_in_flight.get());
        let mut reason =
            format!("it waits for a permit of {name}: {in_flight} of {} calls in flight", self.config.calls_max);
        if secondary > 0 {
            reason.push_str(&format!(", and {secondary} of {} of rehearsed or dark runs", self.config.secondary_max));
        }
        if let Some(rate) = self.config.rate {
            reason.push_str(&format!(", no more than {rate}"));
        }
        Some(reason)
    }
    /// The present state.
    pub fn view(&self, name: ServiceName) -> ServiceView {
        let (wall, now) = (clock::now(), self.now());
        let at = |at: std::time::Duration| {
            let apart = |span| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
            let there = wall.checked_sub(apart(now.saturating_sub(at)));
            there.and_then(|there| there.checked_add(apart(at.saturating_sub(now)))).unwrap_or(wall)
        };
        let breaker = self.breaker().as_ref().map(|breaker| {
            let counts = breaker.counts(now);
            BreakerView {
                state: breaker.state(),
                since: at(breaker.since()),
                next_probe: breaker.open_until().map(at),
                calls: counts.calls,
                failed: counts.failed,
                open_in: self.open_in(),
            }
        });
        ServiceView {
            name,
            urls: self.config.urls.clone(),
            addresses: self.addresses.view(),
            breaker,
            in_flight: self.in_flight.get() as u64,
            calls_max: self.config.calls_max as u64,
            secondary_in_flight: self.secondary_in_flight.get() as u64,
            secondary_calls_max: self.config.secondary_max as u64,
            waiting: self.waiting.count() as u64,
            rate: self.config.rate.map(|rate| rate.to_string()),
            burst: self.config.rate.map(|rate| rate.burst),
        }
    }
}
