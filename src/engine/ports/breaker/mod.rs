//! PURE. The circuit breaker of one service: whether a call is tried at all.
//!
//! The question it answers: "is this service so ill that a call would only wait for its failure?" Closed: all go
//! through, and it opens where too many of enough calls failed. Open: none goes through until its time is over.
//! Half-open: a bounded number of probes goes through; it closes when all of them succeeded, and opens for twice as
//! long at the first that fails.
//!
//! Always true: an open breaker lets nothing through; of one half-open time never more probes are under way and
//! succeeded than allowed; it closes only after that many successes; what a call of an earlier time says moves nothing.
//! Time is an argument: whatever has passed since some fixed instant, never going back.
//!
//! What counts as a failure is the neighbour's business (`service`), which also turns a [`Change`] into a log line and
//! metrics.

#[cfg(test)]
mod tests;
mod window;

use std::time::Duration;

pub(crate) use window::Counts;

use crate::flag::Breaker as Rule;
use window::Window;

/// A breaker.
#[derive(Clone, Debug)]
pub(crate) struct Breaker {
    rule: Rule,
    state: State,
    since: Duration,
    window: Window,
    /// Which time between two changes of state it is.
    period: u64,
    /// How often it has opened without closing in between.
    openings: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Duration },
    HalfOpen { under_way: u32, succeeded: u32 },
}

/// The state, for whoever looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Probes go through.
    HalfOpen,
    /// Nothing goes through.
    Open,
}

impl BreakerState {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// A call may leave. It is handed back with what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Pass {
    period: u64,
}

/// No call may leave; another may be tried at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shut {
    pub retry_at: Duration,
}

/// What became of a call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    /// The service answered in good order.
    Succeeded,
    /// It did not.
    Failed,
    /// The call says nothing of the service: it was not sent, or nobody waited for its end.
    Inconclusive,
}

/// It went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub from: BreakerState,
    pub to: BreakerState,
    /// What the window held when it opened.
    pub counts: Counts,
    /// For how long it opened.
    pub open_for: Option<Duration>,
}

impl Breaker {
    /// A closed one.
    pub fn new(rule: Rule) -> Self {
        let window = Window::new(rule.over);
        Self { rule, state: State::Closed, since: Duration::ZERO, window, period: 0, openings: 0 }
    }

    /// Asks for a call to be let through.
    pub fn admit(&mut self, now: Duration) -> (Result<Pass, Shut>, Option<Change>) {
        let mut change = None;
        if matches!(self.state, State::Open { until } if until <= now) {
            change = Some(self.enter(State::HalfOpen { under_way: 0, succeeded: 0 }, now));
        }
        let admitted = match &mut self.state {
            State::Closed => Ok(Pass { period: self.period }),
            State::Open { until } => Err(Shut { retry_at: *until }),
            State::HalfOpen { under_way, succeeded } if *under_way + *succeeded < self.rule.probes.max(1) => {
                *under_way += 1;
                Ok(Pass { period: self.period })
            }
            State::HalfOpen { .. } => Err(Shut { retry_at: now.saturating_add(self.probing()) }),
        };
        (admitted, change)
    }

    /// Hands a pass back with what became of its call. What was let through before the last change of state moves
    /// nothing: it tells of a service as it was.
    pub fn settle(&mut self, pass: Pass, fate: CallOutcome, now: Duration) -> Option<Change> {
        if pass.period != self.period {
            return None;
        }
        match (&mut self.state, fate) {
            (State::Closed, CallOutcome::Inconclusive) | (State::Open { .. }, _) => None,
            (State::Closed, CallOutcome::Succeeded) => {
                self.window.count(false, now);
                None
            }
            (State::Closed, CallOutcome::Failed) => {
                self.window.count(true, now);
                let counts = self.window.counts(now);
                let enough = counts.calls >= u64::from(self.rule.min.max(1));
                (enough && counts.failed as f64 >= self.rule.failures * counts.calls as f64).then(|| self.open(now))
            }
            (State::HalfOpen { under_way, .. }, CallOutcome::Inconclusive) => {
                *under_way = under_way.saturating_sub(1);
                None
            }
            (State::HalfOpen { .. }, CallOutcome::Failed) => Some(self.open(now)),
            (State::HalfOpen { under_way, succeeded }, CallOutcome::Succeeded) => {
                *under_way = under_way.saturating_sub(1);
                *succeeded += 1;
                (*succeeded >= self.rule.probes.max(1)).then(|| {
                    self.openings = 0;
                    self.enter(State::Closed, now)
                })
            }
        }
    }

    /// Whether a call of a rehearsed or dark run has to stay here. It is no probe and moves nothing. Where nobody real
    /// has called for `open_max` after the open time, what the breaker knows is too old to refuse anybody.
    pub fn look(&self, now: Duration) -> Result<(), Shut> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until } if now < until => Err(Shut { retry_at: until }),
            State::Open { until } if now >= until.saturating_add(self.rule.open_max) => Ok(()),
            State::HalfOpen { .. } if now >= self.since.saturating_add(self.rule.open_max) => Ok(()),
            State::Open { .. } | State::HalfOpen { .. } => Err(Shut { retry_at: now.saturating_add(self.probing()) }),
        }
    }

    /// Whether a call would be refused now; asks for nothing and moves nothing.
    pub fn refuses(&self, now: Duration) -> Option<Shut> {
        match self.state {
            State::Closed => None,
            State::Open { until } => (now < until).then_some(Shut { retry_at: until }),
            State::HalfOpen { under_way, succeeded } => (under_way + succeeded >= self.rule.probes.max(1))
                .then(|| Shut { retry_at: now.saturating_add(self.probing()) }),
        }
    }

    /// The state as it is shown.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
    /// Since when it is in this state.
    pub fn since(&self) -> Duration {
        self.since
    }
    /// When probes go through, where none does now because its time is not over.
    pub fn opens_until(&self) -> Option<Duration> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }
    /// What it has seen lately.
    pub fn counts(&self, now: Duration) -> Counts {
        self.window.counts(now)
    }
    /// Whether a success was so slow that it counts as a failure.
    pub fn too_slow(&self, took: Duration) -> bool {
        self.rule.slow.is_some_and(|slow| took > slow)
    }

    /// While probes are under way the others come again after this: long enough not to crowd, and soon after the
    /// probes have ended.
    fn probing(&self) -> Duration {
        (self.rule.open / 5).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn open(&mut self, now: Duration) -> Change {
        let doubled = self.rule.open.saturating_mul(1u32.checked_shl(self.openings).unwrap_or(u32::MAX));
        let open_for = doubled.min(self.rule.open_max).max(self.rule.open);
        self.openings = self.openings.saturating_add(1);
        let counts = self.window.counts(now);
        let change = self.enter(State::Open { until: now.saturating_add(open_for) }, now);
        Change { counts, open_for: Some(open_for), ..change }
    }

    fn enter(&mut self, state: State, now: Duration) -> Change {
        let from = self.state();
        self.state = state;
        self.since = now;
        self.period += 1;
        self.window.clear();
        Change { from, to: self.state(), counts: Counts::default(), open_for: None }
    }
}
