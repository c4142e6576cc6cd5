//! A service that steps call: where it is, and whose turn it is there.
//!
//! The question it answers: "may this call leave, and when?" It asks the breaker, waits for a free place and for the
//! rate, asks the breaker again, and hands out a [`Permit`] that is given back with what was heard.
//!
//! Always true: all runs of the process share what is here, also over a reload that does not change the service. Only
//! real runs move the breaker; rehearsed and dark ones see it, and have places and a share of the rate of their own. A
//! call that is refused here has not left. A turn that is dropped (its run was cut off) gives everything back and says
//! nothing of the service.
//!
//! When the service is slow, its places fill and calls wait within their own time; when it is gone, the breaker opens
//! and they do not even wait. A call that waited most of its time and then ran out of it says nothing of the service:
//! our own queue must not open the breaker.

mod metrics;
mod outcome;
mod rate;
#[cfg(test)]
mod tests;
mod view;
mod waiting;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub use view::{BreakerView, ServiceView};

use crate::engine::bounds::usize_of;
use crate::engine::ports::breaker::{Breaker, BreakerState, CallOutcome, Change, Pass, Shut};
use crate::flag::{Breaker as Rule, Rate, Service};
use crate::limits::Limits;
use crate::names::{RunId, ServiceName};
use crate::workflow::{AttemptResult, Mode};
use metrics::{RefusedBy, ServiceMetrics};
use outcome::Times;
use rate::Rates;
use waiting::Waiting;

/// A service's URLs, places, breaker and rate.
pub(in crate::engine) struct Upstream {
    name: ServiceName,
    terms: Terms,
    next: AtomicUsize,
    real: Arc<Semaphore>,
    /// Rehearsed and dark runs.
    secondary: Arc<Semaphore>,
    started: Instant,
    guarded: Mutex<Guarded>,
    under_way: Arc<CallCount>,
    secondary_under_way: Arc<CallCount>,
    waiting: Waiting,
    /// No newer files say otherwise.
    in_force: AtomicBool,
    metrics: ServiceMetrics,
}

/// What the files say of it: where that is the same, everything else is kept.
#[derive(Clone, Debug, PartialEq)]
struct Terms {
    urls: Vec<String>,
    calls_max: usize,
    secondary_max: usize,
    connect: Duration,
    first_byte: Option<Duration>,
    breaker: Option<Rule>,
    rate: Option<Rate>,
}

struct Guarded {
    breaker: Option<Breaker>,
    rates: Option<Rates>,
}

impl Upstream {
    /// A service that the files name.
    pub fn of(service: &Service, limits: &Limits) -> Self {
        let calls_max = places(service.calls_max.unwrap_or(limits.service_calls_max));
        let terms = Terms {
            urls: service.urls.iter().map(|uri| uri.to_string().trim_end_matches('/').to_owned()).collect(),
            calls_max,
            secondary_max: share_of(calls_max, limits),
            connect: service.connect.unwrap_or_else(|| Limits::ms(limits.connect_ms)),
            first_byte: service.first_byte,
            breaker: service.breaker,
            rate: service.rate,
        };
        let name = service.name.clone();
        let metrics = ServiceMetrics::new(&name, terms.breaker.is_some(), terms.rate.is_some());
        let share = limits.shadow_service_share_percent;
        let guarded =
            Guarded { breaker: terms.breaker.map(Breaker::new), rates: terms.rate.map(|rate| Rates::new(rate, share)) };
        Self {
            name,
            next: AtomicUsize::new(0),
            real: Arc::new(Semaphore::new(terms.calls_max)),
            secondary: Arc::new(Semaphore::new(terms.secondary_max)),
            started: Instant::now(),
            guarded: Mutex::new(guarded),
            under_way: Arc::default(),
            secondary_under_way: Arc::default(),
            waiting: Waiting::default(),
            in_force: AtomicBool::new(false),
            metrics,
            terms,
        }
    }

    /// Takes the place of the one before it, or lets that one stay where the files say the same of it.
    pub fn or(self, before: Option<&Arc<Upstream>>) -> Arc<Upstream> {
        match before {
            Some(before) if before.terms == self.terms => before.clone(),
            before => {
                if let Some(before) = before {
                    before.retire();
                }
                self.in_force.store(true, Ordering::Relaxed);
                self.metrics.stands(BreakerState::Closed);
                Arc::new(self)
            }
        }
    }

    /// Newer files say otherwise: runs that began before go on with it, and it is not shown any more.
    pub fn retire(&self) {
        self.in_force.store(false, Ordering::Relaxed);
        self.metrics.stands(BreakerState::Closed);
    }

    /// The base that records show.
    pub fn first(&self) -> &str {
        self.terms.urls.first().map_or("", |url| url)
    }
    /// The base that takes the next call.
    pub fn next(&self) -> &str {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        self.terms.urls.get(place % self.terms.urls.len().max(1)).map_or("", |url| url)
    }
    /// Connecting takes no longer.
    pub fn connect(&self) -> Duration {
        self.terms.connect
    }
    /// The first byte of a reply takes no longer, where the files say so.
    pub fn first_byte(&self) -> Option<Duration> {
        self.terms.first_byte
    }

    /// Waits for a call's turn, no longer than until `ends`.
    ///
    /// # Errors
    /// It has none: the call has not left.
    pub async fn turn(self: &Arc<Self>, mode: Mode, run: RunId, ends: Instant) -> Result<Permit, AttemptResult> {
        let came = self.now();
        self.ask(mode)?;
        let (gate, under_way) = match mode {
            Mode::Real => (&self.real, &self.under_way),
            Mode::Rehearse | Mode::Dark => (&self.secondary, &self.secondary_under_way),
        };
        let mut waits = None;
        // A free place is nobody's who waits: they are handed theirs.
        let place = match gate.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                waits = Some(self.waiting.one(run));
                let Ok(Ok(place)) = tokio::time::timeout_at(ends, gate.clone().acquire_owned()).await else {
                    let by_rate = self.guarded().rates.as_ref().is_some_and(|rates| rates.is_busy(self.now()));
                    return Err(self.refused(if by_rate { RefusedBy::Rate } else { RefusedBy::Calls }));
                };
                place
            }
        };
        if self.terms.rate.is_some() {
            waits.get_or_insert_with(|| self.waiting.one(run));
            self.pace(mode, ends).await?;
        }
        drop(waits);
        let pass = self.admit(mode)?;
        self.metrics.begun();
        Ok(Permit {
            base: self.clone(),
            pass,
            came,
            began: self.now(),
            ends: ends.duration_since(self.started),
            _under_way: CountedCall::one(under_way),
            _place: place,
        })
    }

    /// Waits until the rate lets the call begin.
    async fn pace(&self, mode: Mode, ends: Instant) -> Result<(), AttemptResult> {
        let latest = ends.duration_since(self.started);
        loop {
            let now = self.now();
            let next = match (&mut self.guarded().rates, mode) {
                (None, _) => return Ok(()),
                (Some(rates), Mode::Real) => rates.queue(now, latest),
                (Some(rates), Mode::Rehearse | Mode::Dark) => match rates.admit_secondary(now) {
                    Ok(()) => return Ok(()),
                    Err(again) if again > latest => Err(again),
                    Err(again) => Ok(again),
                },
            };
            // Nobody waits for what cannot come in time.
            let at = next.map_err(|_| self.refused(RefusedBy::Rate))?;
            tokio::time::sleep_until(self.started + at).await;
            if mode == Mode::Real {
                return Ok(());
            }
        }
    }

    /// Whether it is worth waiting at all.
    fn ask(&self, mode: Mode) -> Result<(), AttemptResult> {
        let now = self.now();
        let shut = self.guarded().breaker.as_ref().and_then(|breaker| match mode {
            Mode::Real => breaker.refuses(now),
            Mode::Rehearse | Mode::Dark => breaker.look(now).err(),
        });
        shut.map_or(Ok(()), |shut| Err(self.shut(shut, now)))
    }

    fn admit(&self, mode: Mode) -> Result<Option<Pass>, AttemptResult> {
        if mode != Mode::Real {
            return self.ask(mode).map(|()| None);
        }
        let now = self.now();
        let mut guarded = self.guarded();
        let Some((admitted, change)) = guarded.breaker.as_mut().map(|breaker| breaker.admit(now)) else {
            return Ok(None);
        };
        self.changed(change, &guarded);
        admitted.map(Some).map_err(|shut| self.shut(shut, now))
    }

    fn settle(&self, pass: Pass, fate: CallOutcome) {
        let now = self.now();
        let mut guarded = self.guarded();
        let change = guarded.breaker.as_mut().and_then(|breaker| breaker.settle(pass, fate, now));
        self.changed(change, &guarded);
    }

    /// Told while it is guarded, so that the last one told is the last one that happened.
    fn changed(&self, change: Option<Change>, _guarded: &MutexGuard<'_, Guarded>) {
        if let Some(change) = change {
            self.metrics.changed(change, self.in_force.load(Ordering::Relaxed));
        }
    }

    fn shut(&self, shut: Shut, now: Duration) -> AttemptResult {
        self.metrics.refused(RefusedBy::Breaker);
        let left = shut.retry_at.saturating_sub(now);
        // Rounded up: who comes again then does not come too early.
        let retry_after_ms = u64::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        AttemptResult::BreakerOpen { service: self.name.clone(), retry_after_ms }
    }

    fn refused(&self, by: RefusedBy) -> AttemptResult {
        self.metrics.refused(by);
        AttemptResult::NotSent(match (by, &self.terms.rate) {
            (RefusedBy::Rate, Some(rate)) => format!("the service takes no more than {rate}"),
            (RefusedBy::Rate, None) | (RefusedBy::Calls, _) | (RefusedBy::Breaker, _) => {
                "the service has as many calls under way as it may".to_owned()
            }
        })
    }

    /// What has passed since it was made.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn guarded(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's turn at a service. Given back by [`Permit::heard`], or dropped.
pub(in crate::engine) struct Permit {
    base: Arc<Upstream>,
    pass: Option<Pass>,
    came: Duration,
    began: Duration,
    ends: Duration,
    _under_way: CountedCall,
    _place: OwnedSemaphorePermit,
}

impl Permit {
    /// The call is over.
    pub fn heard(mut self, heard: &AttemptResult) {
        let times = Times { came: self.came, began: self.began, ends: self.ends, heard: self.base.now() };
        let too_slow = |took| self.base.guarded().breaker.as_ref().is_some_and(|breaker| breaker.too_slow(took));
        let fate = outcome::of(heard, times, too_slow);
        if let Some(pass) = self.pass.take() {
            self.base.settle(pass, fate);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.base.metrics.ended();
        if let Some(pass) = self.pass.take() {
            self.base.settle(pass, CallOutcome::Inconclusive);
        }
    }
}

/// How many calls are under way.
#[derive(Default)]
struct CallCount(AtomicUsize);

impl CallCount {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts one call until it is dropped.
struct CountedCall(Arc<CallCount>);

impl CountedCall {
    fn one(number: &Arc<CallCount>) -> Self {
        number.0.fetch_add(1, Ordering::Relaxed);
        Self(number.clone())
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn places(bound: u64) -> usize {
    usize_of(bound).clamp(1, Semaphore::MAX_PERMITS)
}

fn share_of(calls_max: usize, limits: &Limits) -> usize {
    (calls_max.saturating_mul(usize_of(limits.shadow_service_share_percent.min(100))) / 100).max(1)
}
