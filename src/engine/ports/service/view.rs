//! A service as people see it: its breaker, and who is under way there.

use jiff::{SignedDuration, Timestamp};

use super::Upstream;
use crate::clock;
use crate::engine::ports::breaker::BreakerState;
use crate::names::{RunId, ServiceName};

/// A service now.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// Its base URLs.
    pub urls: Vec<String>,
    /// Its breaker; none where it is off.
    pub breaker: Option<BreakerView>,
    /// Calls of real runs under way.
    pub in_flight: u64,
    /// As many as may be.
    pub calls_max: u64,
    /// Calls of rehearsed and dark runs under way.
    pub secondary_in_flight: u64,
    /// As many as may be, beside the real ones.
    pub secondary_calls_max: u64,
    /// Calls that wait for their turn, by number or by rate.
    pub waiting: u64,
    /// How many may begin in a time, as it is written: `100/s`.
    pub rate: Option<String>,
    /// How many of them may begin at once after a pause.
    pub burst: Option<u64>,
}

/// A breaker now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerView {
    /// Its state.
    pub state: BreakerState,
    /// Since when.
    pub since: Timestamp,
    /// Open: when the next call goes through as a probe; in the past where it waits for one to come.
    pub next_probe: Option<Timestamp>,
    /// Closed: calls of real runs that ended within its window.
    pub calls: u64,
    /// Those of them that failed.
    pub failed: u64,
}

impl Upstream {
    /// What a run waits for here before its call may leave, where one does.
    pub fn kept_waiting(&self, run: RunId) -> Option<String> {
        if !self.waiting.has(run) {
            return None;
        }
        let name = &self.name;
        let (under_way, secondary) = (self.under_way.get(), self.secondary_under_way.get());
        let mut says =
            format!("it waits for its turn at {name}: {under_way} of {} calls under way", self.terms.calls_max);
        if secondary > 0 {
            says.push_str(&format!(", and {secondary} of {} rehearsed or dark beside them", self.terms.secondary_max));
        }
        if let Some(rate) = self.terms.rate {
            says.push_str(&format!(", no more than {rate}"));
        }
        Some(says)
    }
    /// As it is now.
    pub fn view(&self, name: ServiceName) -> ServiceView {
        let (wall, now) = (clock::now(), self.now());
        let at = |at: std::time::Duration| {
            let apart = |span| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
            let there = wall.checked_sub(apart(now.saturating_sub(at)));
            there.and_then(|there| there.checked_add(apart(at.saturating_sub(now)))).unwrap_or(wall)
        };
        let breaker = self.guarded().breaker.as_ref().map(|breaker| {
            let counts = breaker.counts(now);
            BreakerView {
                state: breaker.state(),
                since: at(breaker.since()),
                next_probe: breaker.opens_until().map(at),
                calls: counts.calls,
                failed: counts.failed,
            }
        });
        ServiceView {
            name,
            urls: self.terms.urls.clone(),
            breaker,
            in_flight: self.under_way.get() as u64,
            calls_max: self.terms.calls_max as u64,
            secondary_in_flight: self.secondary_under_way.get() as u64,
            secondary_calls_max: self.terms.secondary_max as u64,
            waiting: self.waiting.count() as u64,
            rate: self.terms.rate.map(|rate| rate.to_string()),
            burst: self.terms.rate.map(|rate| rate.burst),
        }
    }
}
