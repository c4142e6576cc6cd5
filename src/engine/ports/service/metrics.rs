//! Metrics and log lines of one service.

use metrics::{Counter, Gauge, counter, gauge};

use crate::engine::ports::breaker::{BreakerState, Change};
use crate::names::ServiceName;

/// What refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusedBy {
    Breaker,
    Rate,
    Calls,
}

/// The metrics of one service; their handles are registered once, so that no call looks one up.
pub(super) struct ServiceMetrics {
    name: ServiceName,
    state: Gauge,
    closed: Counter,
    half_open: Counter,
    opened: Counter,
    in_flight: Gauge,
    by_breaker: Counter,
    by_rate: Counter,
    by_calls: Counter,
}

impl ServiceMetrics {
    pub fn new(name: &ServiceName, has_breaker: bool, has_rate: bool) -> Self {
        let service = || name.as_str().to_owned();
        let to = |state: BreakerState| match has_breaker {
            true => {
                counter!("pointsman_breaker_transitions_total", "service" => service(), "to" => label(state))
            }
            false => Counter::noop(),
        };
        let refused = |by: &'static str, can: bool| match can {
            true => counter!("pointsman_service_refused_total", "service" => service(), "by" => by),
            false => Counter::noop(),
        };
        let state = match has_breaker {
            true => gauge!("pointsman_breaker_state", "service" => service()),
            false => Gauge::noop(),
        };
        Self {
            state,
            closed: to(BreakerState::Closed),
            half_open: to(BreakerState::HalfOpen),
            opened: to(BreakerState::Open),
            in_flight: gauge!("pointsman_service_calls_in_flight", "service" => service()),
            by_breaker: refused("breaker", has_breaker),
            by_rate: refused("rate", has_rate),
            by_calls: refused("calls", true),
            name: name.clone(),
        }
    }
    /// Sets the gauge of the breaker's state.
    pub fn set_state(&self, state: BreakerState) {
        self.state.set(match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        });
    }
    /// Counts a call that begins.
    pub fn call_started(&self) {
        self.in_flight.increment(1.0);
    }
    /// Counts a call that has ended.
    pub fn call_ended(&self) {
        self.in_flight.decrement(1.0);
    }
    /// Counts a call that was refused.
    pub fn refused(&self, by: RefusedBy) {
        match by {
            RefusedBy::Breaker => self.by_breaker.increment(1),
            RefusedBy::Rate => self.by_rate.increment(1),
            RefusedBy::Calls => self.by_calls.increment(1),
        }
    }
    /// Reports that the breaker changed its state. `in_force`: the gauge shows this breaker, because newer files have
    /// not replaced it.
    pub fn report_change(&self, change: Change, in_force: bool) {
        let Change { from, to, counts, open_for } = change;
        let service = self.name.as_str();
        let (from, state) = (from.as_str(), to.as_str());
        match to {
            BreakerState::Open => {
                self.opened.increment(1);
                let (calls, failed, open_ms) = (counts.calls, counts.failed, open_for.unwrap_or_default().as_millis());
                tracing::warn!(
                    service,
                    from,
                    to = state,
                    calls,
                    failed,
                    open_ms,
                    "the breaker opens: no calls are sent to the service"
                );
            }
            BreakerState::HalfOpen => {
                self.half_open.increment(1);
                tracing::info!(
                    service,
                    from,
                    to = state,
                    "the breaker is half open: it admits a few calls to see whether the service answers again"
                );
            }
            BreakerState::Closed => {
                self.closed.increment(1);
                tracing::info!(service, from, to = state, "the breaker closes: the service answers again");
            }
        }
        if in_force {
            self.set_state(to);
        }
    }
}

/// A state as a metric's label.
fn label(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half_open",
        BreakerState::Open => "open",
    }
}
