//! PURE. The circuit breaker of one service: whether a call is tried at all.
//!
//! The question it answers: "does this service fail so often that a call would only wait for its failure?" Closed: all
//! calls are admitted; it opens when at least `min` calls ended in the window and too large a share of them failed.
//! Open: no call is admitted until its time is over. Half-open: a bounded number of probes is admitted; it closes when
//! all of them have succeeded, and opens for twice as long at the first failure.
//!
//! Always true: an open breaker admits nothing; in one half-open period, probes in flight and successes together never
//! exceed the configured number; it closes only after that many successes; the outcome of a call that was admitted in
//! an earlier period changes nothing. While the breaker of the same service is open in another process, `min` counts as
//! 1 here: a single failed call of this process may open it, and nothing opens it without one. Time is an argument: the
//! time since some fixed instant, never going back.
//!
//! What counts as a failure is decided by `service`, which also turns a [`Change`] into a log line and metrics.

#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

pub(crate) use window::Counts;

use crate::flag::BreakerSettings as Rule;
use window::Window;

/// The breaker of one service.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    rule: Rule,
    state: BreakerPhase,
    since: Duration,
    window: Window,
    /// The number of the present period: each change of state begins a new one.
    period: u64,
    /// How many times it has opened without closing in between.
    openings: u32,
    open_elsewhere: bool,
    /// Whether fewer than `min` calls had ended when it opened, because it was open in another process.
    opened_by_hint: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BreakerPhase {
    Closed,
    Open { until: Duration },
    HalfOpen { in_flight: u32, succeeded: u32 },
}

/// The state, for people and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls are admitted.
    Closed,
    /// A bounded number of calls is admitted as probes.
    HalfOpen,
    /// No call is admitted.
    Open,
}

impl BreakerState {
    /// The name of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// The admission of one call. The caller hands it back to [`Breaker::record_outcome`] with the outcome of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct AdmittedCall {
    period: u64,
}

/// The call is not admitted; it may be tried again at `retry_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub retry_at: Duration,
}

/// The outcome of an admitted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// The service is able to answer.
    Succeeded,
    /// The service did not answer, or answered with an error.
    Failed,
    /// The call says nothing about the service: it was not sent, or it was dropped before its end.
    Inconclusive,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub from: BreakerState,
    pub to: BreakerState,
    /// The counts of the window at that time.
    pub counts: Counts,
    /// For how long it is open.
    pub open_for: Option<Duration>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rule: Rule) -> Self {
        let window = Window::new(rule.over);
        Self {
            rule,
            state: BreakerPhase::Closed,
            since: Duration::ZERO,
            window,
            period: 0,
            openings: 0,
            open_elsewhere: false,
            opened_by_hint: false,
        }
    }

    /// Whether the breaker of the same service is open in another process now.
    pub fn set_open_elsewhere(&mut self, open_elsewhere: bool) {
        self.open_elsewhere = open_elsewhere;
    }

    /// Admits or rejects a call. An open breaker whose time is over becomes half-open.
    pub fn admit(&mut self, now: Duration) -> (Result<AdmittedCall, Rejected>, Option<Change>) {
        let mut change = None;
        if matches!(self.state, BreakerPhase::Open { until } if until <= now) {
            change = Some(self.enter(BreakerPhase::HalfOpen { in_flight: 0, succeeded: 0 }, now));
        }
        let admitted = match &mut self.state {
            BreakerPhase::Closed => Ok(AdmittedCall { period: self.period }),
            BreakerPhase::Open { until } => Err(Rejected { retry_at: *until }),
            BreakerPhase::HalfOpen { in_flight, succeeded } if *in_flight + *succeeded < self.rule.probes.max(1) => {
                *in_flight += 1;
                Ok(AdmittedCall { period: self.period })
            }
            BreakerPhase::HalfOpen { .. } => Err(Rejected { retry_at: now.saturating_add(self.probe_retry_pause()) }),
        };
        (admitted, change)
    }

    /// Records the outcome of an admitted call. The outcome of a call that was admitted before the last change of state
    /// is out of date and changes nothing.
    pub fn record_outcome(&mut self, admission: AdmittedCall, outcome: CallOutcome, now: Duration) -> Option<Change> {
        if admission.period != self.period {
            return None;
        }
        match (&mut self.state, outcome) {
            (BreakerPhase::Closed, CallOutcome::Inconclusive) | (BreakerPhase::Open { .. }, _) => None,
            (BreakerPhase::Closed, CallOutcome::Succeeded) => {
                self.window.count(false, now);
                None
            }
            (BreakerPhase::Closed, CallOutcome::Failed) => {
                self.window.count(true, now);
                let counts = self.window.counts(now);
                let min = if self.open_elsewhere { 1 } else { self.rule.min.max(1) };
                let enough = counts.calls >= u64::from(min);
                (enough && counts.failed as f64 >= self.rule.failures * counts.calls as f64).then(|| {
                    self.opened_by_hint = counts.calls < u64::from(self.rule.min);
                    self.open(now)
                })
            }
            (BreakerPhase::HalfOpen { in_flight, .. }, CallOutcome::Inconclusive) => {
                *in_flight = in_flight.saturating_sub(1);
                None
            }
            (BreakerPhase::HalfOpen { .. }, CallOutcome::Failed) => Some(self.open(now)),
            (BreakerPhase::HalfOpen { in_flight, succeeded }, CallOutcome::Succeeded) => {
                *in_flight = in_flight.saturating_sub(1);
                *succeeded += 1;
                (*succeeded >= self.rule.probes.max(1)).then(|| {
                    self.openings = 0;
                    self.enter(BreakerPhase::Closed, now)
                })
            }
        }
    }

    /// Checks a call of a rehearsed or dark run. Such a call is never a probe and changes nothing. If no real run has
    /// called for `open_max` after the open time, the breaker's state is too old to reject the call.
    ///
    /// # Errors
    /// The call is rejected.
    pub fn check_secondary(&self, now: Duration) -> Result<(), Rejected> {
        match self.state {
            BreakerPhase::Closed => Ok(()),
            BreakerPhase::Open { until } if now < until => Err(Rejected { retry_at: until }),
            BreakerPhase::Open { until } if now >= until.saturating_add(self.rule.open_max) => Ok(()),
            BreakerPhase::HalfOpen { .. } if now >= self.since.saturating_add(self.rule.open_max) => Ok(()),
            BreakerPhase::Open { .. } | BreakerPhase::HalfOpen { .. } => {
                Err(Rejected { retry_at: now.saturating_add(self.probe_retry_pause()) })
            }
        }
    }

    /// Whether a call of a real run would be rejected now; changes nothing.
    pub fn would_reject(&self, now: Duration) -> Option<Rejected> {
        match self.state {
            BreakerPhase::Closed => None,
            BreakerPhase::Open { until } => (now < until).then_some(Rejected { retry_at: until }),
            BreakerPhase::HalfOpen { in_flight, succeeded } => (in_flight + succeeded >= self.rule.probes.max(1))
                .then(|| Rejected { retry_at: now.saturating_add(self.probe_retry_pause()) }),
        }
    }

    /// The present state.
    pub fn state(&self) -> BreakerState {
        match self.state {
            BreakerPhase::Closed => BreakerState::Closed,
            BreakerPhase::Open { .. } => BreakerState::Open,
            BreakerPhase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
    /// When it entered this state.
    pub fn since(&self) -> Duration {
        self.since
    }
    /// Until when it is open; `None` where it is not.
    pub fn open_until(&self) -> Option<Duration> {
        match self.state {
            BreakerPhase::Open { until } => Some(until),
            BreakerPhase::Closed | BreakerPhase::HalfOpen { .. } => None,
        }
    }
    /// Whether it has opened because the service failed the calls of another process, and a call of this one.
    pub fn is_opened_by_hint(&self) -> bool {
        self.opened_by_hint
    }
    /// The counts of the present window.
    pub fn counts(&self, now: Duration) -> Counts {
        self.window.counts(now)
    }
    /// Whether a success was so slow that it counts as a failure.
    pub fn is_too_slow(&self, took: Duration) -> bool {
        self.rule.slow.is_some_and(|slow| took > slow)
    }

    /// The pause before a call that was rejected while probes are in flight is tried again. It is long enough that such
    /// calls do not pile up, and short enough that they come soon after the probes have ended.
    fn probe_retry_pause(&self) -> Duration {
        (self.rule.open / 5).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn open(&mut self, now: Duration) -> Change {
        let doubled = self.rule.open.saturating_mul(1u32.checked_shl(self.openings).unwrap_or(u32::MAX));
        let open_for = doubled.min(self.rule.open_max).max(self.rule.open);
        self.openings = self.openings.saturating_add(1);
        let counts = self.window.counts(now);
        let change = self.enter(BreakerPhase::Open { until: now.saturating_add(open_for) }, now);
        Change { counts, open_for: Some(open_for), ..change }
    }

    fn enter(&mut self, state: BreakerPhase, now: Duration) -> Change {
        let from = self.state();
        self.state = state;
        self.since = now;
        self.period += 1;
        self.window.clear();
        Change { from, to: self.state(), counts: Counts::default(), open_for: None }
    }
}
