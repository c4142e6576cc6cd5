//! A service that steps call: its addresses, concurrency limits, breaker and rate.
//!
//! The question it answers: "may this call be sent, and when?" It checks the breaker, waits for a permit of the
//! concurrency limit and for the rate, checks the breaker again, and returns a [`CallPermit`], to which the call's
//! result is given.
//!
//! Always true: all runs of the process share a service's limits, also across a reload that leaves it as it is. Only
//! calls of real runs change the breaker's state. Calls of rehearsed and dark runs are refused by the breaker too, and
//! have a concurrency limit and a share of the rate of their own. A call that is refused here was not sent. A permit
//! that is dropped without a result (its run was cancelled) counts as inconclusive.
//!
//! When the service is slow, calls wait for permits, each at most for its own timeout. The timeout begins anew with the
//! permit: with only the rest of it, a call would time out at a service that answers in time, and its outcome would be
//! unknown. A step's deadline bounds the wait and the call together, so a call waits only as long as enough of the
//! deadline is left (`CallBounds`). A call whose own time was shorter than its wait, and that then timed out, is
//! inconclusive: our own queue must not open the breaker. When the service is unreachable, the breaker opens and calls
//! are refused at once.

mod call_bounds;
mod call_count;
mod metrics;
mod other_processes;
mod outcome;
mod rate;
mod rate_queue;
#[cfg(test)]
mod tests;
mod view;
mod waiting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub(in crate::engine) use call_bounds::CallBounds;
pub use view::{BreakerView, ServiceView};

use crate::engine::bounds::usize_of;
use crate::engine::ports::breaker::{AdmittedCall, Breaker, BreakerState, CallOutcome, Change, Rejected};
use crate::engine::ports::protocol::Protocol;
use crate::flag::{BreakerSettings as Rule, Rate, Service};
use crate::limits::Limits;
use crate::names::{RunId, ServiceName};
use crate::transport::{AddressRegistry, ServiceAddresses, ServiceInUse};
use crate::workflow::{AttemptResult, Mode};
use call_count::{CallCount, CountedCall};
use metrics::{RefusedBy, ServiceMetrics};
use outcome::Times;
use rate_queue::RateQueue;
use waiting::WaitingCalls;

/// A service's addresses, limits and breaker, and the state of the calls that are sent to it.
pub(in crate::engine) struct ServiceLimits {
    name: ServiceName,
    config: Config,
    /// Its addresses, which forwarded requests share.
    addresses: Arc<ServiceAddresses>,
    /// Keeps the addresses in use; `None` once newer files have changed or removed the service.
    addresses_in_force: Mutex<Option<ServiceInUse>>,
    /// Permits for calls of real runs.
    real_permits: Arc<Semaphore>,
    /// Permits for calls of rehearsed and dark runs.
    secondary_permits: Arc<Semaphore>,
    /// When this was made: times given to the breaker count from here.
    started: Instant,
    breaker: Mutex<Option<Breaker>>,
    /// The other processes where it is open.
    open_in: Mutex<Vec<String>>,
    rates: Option<RateQueue>,
    in_flight: Arc<CallCount>,
    secondary_in_flight: Arc<CallCount>,
    waiting: WaitingCalls,
    /// Whether the newest files have this service with this configuration.
    in_force: AtomicBool,
    metrics: ServiceMetrics,
}

/// The configuration. A reload that does not change it keeps the [`ServiceLimits`].
#[derive(Clone, Debug, PartialEq)]
struct Config {
    urls: Vec<String>,
    protocol: Protocol,
    calls_max: usize,
    secondary_max: usize,
    first_byte: Option<Duration>,
    body_idle: Option<Duration>,
    breaker: Option<Rule>,
    rate: Option<Rate>,
}

impl ServiceLimits {
    /// A service that the files name.
    pub fn of(service: &Service, limits: &Limits, registry: &AddressRegistry) -> Self {
        let addresses = registry.of(service, limits);
        let calls_max = permits(service.calls_max.unwrap_or(limits.service_calls_max));
        let config = Config {
            urls: service.urls.iter().map(|url| url.uri.to_string().trim_end_matches('/').to_owned()).collect(),
            protocol: Protocol::of(service),
            calls_max,
            secondary_max: secondary_share(calls_max, limits),
            first_byte: service.relay.first_byte,
            body_idle: service.relay.idle,
            breaker: service.breaker,
            rate: service.rate,
        };
        let name = service.name.clone();
        let metrics = ServiceMetrics::new(&name, config.breaker.is_some(), config.rate.is_some());
        let share = limits.shadow_service_share_percent;
        Self {
            name,
            addresses_in_force: Mutex::new(Some(addresses.in_force())),
            addresses,
            real_permits: Arc::new(Semaphore::new(config.calls_max)),
            secondary_permits: Arc::new(Semaphore::new(config.secondary_max)),
            started: Instant::now(),
            breaker: Mutex::new(config.breaker.map(Breaker::new)),
            open_in: Mutex::default(),
            rates: config.rate.map(|rate| RateQueue::new(rate, share)),
            in_flight: Arc::default(),
            secondary_in_flight: Arc::default(),
            waiting: WaitingCalls::default(),
            in_force: AtomicBool::new(false),
            metrics,
            config,
        }
    }

    /// Returns the existing one if it has the same configuration and addresses; else retires it and returns this one.
    pub fn or_existing(self, existing: Option<&Arc<ServiceLimits>>) -> Arc<ServiceLimits> {
        match existing {
            Some(existing) if existing.config == self.config && Arc::ptr_eq(&existing.addresses, &self.addresses) => {
                existing.clone()
            }
            existing => {
                if let Some(existing) = existing {
                    existing.retire();
                }
                self.in_force.store(true, Ordering::Relaxed);
                self.metrics.set_state(BreakerState::Closed);
                Arc::new(self)
            }
        }
    }

    /// Newer files have changed or removed the service: calls under way and runs whose caller waits still use it, and
    /// the gauge of the breaker's state no longer shows it.
    pub fn retire(&self) {
        self.in_force.store(false, Ordering::Relaxed);
        *self.addresses_in_force.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.metrics.set_state(BreakerState::Closed);
    }

    /// The URL that recorded requests show.
    pub fn first_url(&self) -> &str {
        self.config.urls.first().map_or("", |url| url)
    }
    /// Its base URLs, in the order of the files.
    pub fn urls(&self) -> &[String] {
        &self.config.urls
    }
    /// Its addresses.
    pub fn addresses(&self) -> &Arc<ServiceAddresses> {
        &self.addresses
    }
    /// Its name.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }
    /// How it is spoken to.
    pub fn protocol(&self) -> &Protocol {
        &self.config.protocol
    }
    /// The timeout for the head of a reply, where one is configured.
    pub fn first_byte_timeout(&self) -> Option<Duration> {
        self.config.first_byte
    }
    /// The longest pause within the body of a reply that is streamed, where one is configured.
    pub fn body_idle(&self) -> Option<Duration> {
        self.config.body_idle
    }

    /// Waits for the permit of a call, within its bounds.
    ///
    /// # Errors
    /// The call gets no permit and is not sent.
    pub async fn acquire(
        self: &Arc<Self>,
        mode: Mode,
        run: RunId,
        bounds: CallBounds,
    ) -> Result<CallPermit, AttemptResult> {
        let (requested_at, wait_until) = (self.now(), bounds.wait_until(Instant::now()));
        self.check_breaker(mode)?;
        let (permits, in_flight) = match mode {
            Mode::Real => (&self.real_permits, &self.in_flight),
            Mode::Rehearse | Mode::Dark => (&self.secondary_permits, &self.secondary_in_flight),
        };
        let mut waiting = None;
        // A released permit goes to the longest waiter first; this takes only a permit that nobody waits for.
        let permit = match permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                waiting = Some(self.waiting.add(run));
                let Ok(Ok(permit)) = tokio::time::timeout_at(wait_until, permits.clone().acquire_owned()).await else {
                    // Calls with a permit may wait for the rate.
                    let rates = self.rates.as_ref().filter(|_| mode == Mode::Real);
                    let next_in = rates.map(RateQueue::next_in).filter(|next_in| !next_in.is_zero());
                    return Err(next_in.map_or_else(|| self.over_calls_max(), |next_in| self.over_rate(next_in)));
                };
                permit
            }
        };
        if let Some(rates) = &self.rates {
            waiting.get_or_insert_with(|| self.waiting.add(run));
            let admitted = match mode {
                Mode::Real => rates.admit(wait_until, bounds.until).await,
                Mode::Rehearse | Mode::Dark => rates.admit_secondary(wait_until, bounds.until).await,
            };
            // A call that cannot begin in time is refused at once.
            admitted.map_err(|next_in| self.over_rate(next_in))?;
        }
        drop(waiting);
        let now = Instant::now();
        let time_allowed = bounds.time_allowed(now);
        // A call without time left is not sent: it would only time out, with an unknown outcome.
        if time_allowed.is_zero() {
            return Err(AttemptResult::NotSent("its deadline passed before it was sent".into()));
        }
        let admission = self.admit(mode)?;
        self.metrics.call_started();
        Ok(CallPermit {
            service_limits: self.clone(),
            admission,
            requested_at,
            granted_at: now.duration_since(self.started),
            time_allowed,
            first_time_allowed: time_allowed,
            bounds,
            _in_flight: CountedCall::new(in_flight),
            _permit: permit,
        })
    }

    /// Refuses the call where the breaker is open.
    fn check_breaker(&self, mode: Mode) -> Result<(), AttemptResult> {
        let now = self.now();
        let rejected = self.breaker().as_ref().and_then(|breaker| match mode {
            Mode::Real => breaker.would_reject(now),
            Mode::Rehearse | Mode::Dark => breaker.check_secondary(now).err(),
        });
        rejected.map_or(Ok(()), |rejected| Err(self.breaker_open(rejected, now)))
    }

    fn admit(&self, mode: Mode) -> Result<Option<AdmittedCall>, AttemptResult> {
        if mode != Mode::Real {
            return self.check_breaker(mode).map(|()| None);
        }
        let now = self.now();
        let mut breaker = self.breaker();
        let Some((admitted, change)) = breaker.as_mut().map(|breaker| breaker.admit(now)) else {
            return Ok(None);
        };
        self.report_change(change, &breaker);
        admitted.map(Some).map_err(|rejected| self.breaker_open(rejected, now))
    }

    fn record_outcome(&self, admission: AdmittedCall, outcome: CallOutcome) {
        let now = self.now();
        let mut breaker = self.breaker();
        let change = breaker.as_mut().and_then(|breaker| breaker.record_outcome(admission, outcome, now));
        self.report_change(change, &breaker);
    }

    /// Called under the lock, so that metrics and log lines appear in the order of the changes.
    fn report_change(&self, change: Option<Change>, _locked: &MutexGuard<'_, Option<Breaker>>) {
        if let Some(change) = change {
            self.metrics.report_change(change, self.in_force.load(Ordering::Relaxed));
        }
    }

    fn breaker_open(&self, rejected: Rejected, now: Duration) -> AttemptResult {
        self.metrics.refused(RefusedBy::Breaker);
        let retry_after_ms = rounded_up_ms(rejected.retry_at.saturating_sub(now));
        AttemptResult::BreakerOpen { service: self.name.clone(), retry_after_ms }
    }

    /// Refuses the call because the rate admits the next one only after this time.
    fn over_rate(&self, next: Duration) -> AttemptResult {
        self.metrics.refused(RefusedBy::Rate);
        let rate = self.config.rate.map(|rate| format!(" ({rate})")).unwrap_or_default();
        let why = format!("the service's rate{rate} admits no call within its timeout");
        AttemptResult::OverRate { why, retry_after_ms: rounded_up_ms(next) }
    }

    fn over_calls_max(&self) -> AttemptResult {
        self.metrics.refused(RefusedBy::Calls);
        AttemptResult::NotSent("the service's limit of calls in flight is reached".to_owned())
    }

    /// The time since this was made.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn breaker(&self) -> MutexGuard<'_, Option<Breaker>> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permission to send one call, until it is dropped. Its result is counted by [`CallPermit::record_outcome`].
pub(in crate::engine) struct CallPermit {
    service_limits: Arc<ServiceLimits>,
    admission: Option<AdmittedCall>,
    requested_at: Duration,
    granted_at: Duration,
    /// How long the call may take.
    time_allowed: Duration,
    /// How long it could take at its first address.
    first_time_allowed: Duration,
    bounds: CallBounds,
    _in_flight: CountedCall,
    _permit: OwnedSemaphorePermit,
}

impl CallPermit {
    /// When the call has to end.
    pub fn deadline(&self) -> Instant {
        self.service_limits.started + self.granted_at + self.time_allowed
    }
    /// The time from the permit to the deadline.
    pub fn time_allowed(&self) -> Duration {
        self.time_allowed
    }
    /// Whether the call has had all of its timeout: its step's deadline did not shorten it.
    pub fn is_whole(&self) -> bool {
        self.time_allowed >= self.bounds.timeout
    }
    /// Restarts the call at another address, because it got no connection. It has its timeout again, as far as the
    /// step's deadline allows, and the time so far does not count for the breaker either. Returns false, and changes
    /// nothing, if the deadline leaves no more than half of the time that it had at its first address: the call might
    /// time out, with an unknown outcome, although the service answers in time.
    pub fn begin_anew(&mut self) -> bool {
        let now = Instant::now();
        let time_allowed = self.bounds.time_allowed(now);
        let has_time = time_allowed > self.first_time_allowed / 2;
        if has_time {
            let granted_at = now.duration_since(self.service_limits.started);
            self.requested_at += granted_at.saturating_sub(self.granted_at);
            (self.granted_at, self.time_allowed) = (granted_at, time_allowed);
        }
        has_time
    }
    /// The service that the call goes to.
    pub fn service(&self) -> &ServiceLimits {
        &self.service_limits
    }
    /// Records the result of the call, which the breaker counts once. The permit is held further.
    pub fn record_outcome(&mut self, result: &AttemptResult) {
        let times = Times {
            requested_at: self.requested_at,
            granted_at: self.granted_at,
            deadline: self.granted_at + self.time_allowed,
            ended_at: self.service_limits.now(),
        };
        let is_too_slow =
            |took| self.service_limits.breaker().as_ref().is_some_and(|breaker| breaker.is_too_slow(took));
        let outcome = outcome::of(result, times, is_too_slow);
        if let Some(admission) = self.admission.take() {
            self.service_limits.record_outcome(admission, outcome);
        }
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.service_limits.metrics.call_ended();
        if let Some(admission) = self.admission.take() {
            self.service_limits.record_outcome(admission, CallOutcome::Inconclusive);
        }
    }
}

/// Rounded up, so that a retry after that time is not too early.
fn rounded_up_ms(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn permits(bound: u64) -> usize {
    usize_of(bound).clamp(1, Semaphore::MAX_PERMITS)
}

fn secondary_share(calls_max: usize, limits: &Limits) -> usize {
    (calls_max.saturating_mul(usize_of(limits.shadow_service_share_percent.min(100))) / 100).max(1)
}
