//! How an answered request reaches the shadow executor, and how its comparison is accounted for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::{Answered, EngineAnswered, InstanceAccess, OfferedRequest, OpenRequest};
use crate::flag::{SkipReason, State, StratumValue};
use crate::names::{RouteId, RunId};

/// Takes answered requests to the shadow executor. No method is async or waits: a request that cannot be taken is
/// settled as skipped.
pub trait Offer: Send + Sync {
    /// Opens the ticket of one request that should be compared. It must be settled; a dropped ticket settles itself.
    fn open(&self, request: OfferedRequest) -> ComparisonTicket;
    /// Hands over an answered request, or settles its ticket as skipped where the queue is full.
    fn offer(&self, ticket: ComparisonTicket, answered: Answered);
    /// Hands over a request that the engine answered, for its route's invariants and a reverse comparison.
    fn check(&self, answered: EngineAnswered);
    /// Whether the shadow executor can take a request of this route now; asked before bodies are copied.
    fn has_room(&self, route: &RouteId) -> bool;
    /// Announces a request of an instance before legacy gets it. `is_write`: its method is not a safe one. `now`: the
    /// proxy's clock, in microseconds. Returns `None` if nobody has to know of the request.
    fn announce(&self, access: InstanceAccess, is_write: bool, now: u64) -> Option<OpenRequest> {
        let _ = (access, is_write, now);
        None
    }
    /// Whether legacy may have created instances whose twins are still being made. Asked before the owner of an
    /// instance is looked up: if this returns `false`, an instance without a pin has no twin.
    fn may_add_twins(&self) -> bool {
        false
    }
}

/// How a request that should have been compared ended: exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ComparisonOutcome {
    /// Equal.
    Matched,
    /// Equal only because of a rule.
    Ignored,
    /// Different.
    Mismatched,
    /// Not compared, and why.
    Skipped(SkipReason),
    /// The engine or the comparison failed, and how: a closed set of labels.
    Failed(&'static str),
}

impl ComparisonOutcome {
    /// Whether a dark request with this outcome counts as one whose twin (the engine's run of the same request) is
    /// missing. Not counted: a request for which legacy created no instance, a client's retry, and a request that
    /// follows up an instance without a twin.
    fn counts_as_without_twin(self) -> bool {
        !matches!(
            self,
            ComparisonOutcome::Skipped(
                SkipReason::LegacyRefused | SkipReason::LegacyFailed | SkipReason::Retried | SkipReason::NoTwin
            )
        )
    }
}

/// Counts tickets: `offered` and the outcome together, so that their sums agree at every scrape.
pub trait TicketCounter: Send + Sync {
    /// Counts a request that has ended with this outcome. Called exactly once for each ticket.
    fn settle(&self, request: &OfferedRequest, outcome: ComparisonOutcome);
    /// Records that the shadow executor begins to work on a request. Called at most once for each ticket.
    fn begin(&self, request: &OfferedRequest) {
        let _ = request;
    }
    /// Records that a request which had begun is about to be settled.
    fn end(&self, request: &OfferedRequest) {
        let _ = request;
    }
    /// Returns the value under which a request with this value of `promote.strata_by` is counted:
    /// - its own value;
    /// - if there are too many values already, the one that all further values share;
    /// - `None`, if the files declare another `strata_by` by now.
    ///
    /// Called at most once for each ticket, after legacy's reply.
    fn counted_value(&self, request: &OfferedRequest, value: StratumValue) -> Option<StratumValue> {
        let _ = request;
        Some(value)
    }
    /// Counts a request in `dark` that has ended without a durable run. Called at most once for each ticket, before it
    /// is settled.
    fn count_without_twin(&self, request: &OfferedRequest) {
        let _ = request;
    }
    /// Settles a request that the shadow executor has not begun. A ticket calls this instead of the methods above. A
    /// thread that serves clients may call it, so it does not wait for other threads.
    fn settle_unbegun(&self, mut unbegun: UnbegunTicket, outcome: ComparisonOutcome) {
        let UnbegunTicket { request, uncounted_value, is_without_twin } = &mut unbegun;
        if let Some(value) = uncounted_value.take() {
            request.declared = self.counted_value(request, value);
        }
        if *is_without_twin {
            self.count_without_twin(request);
        }
        self.settle(request, outcome);
    }
}

/// What a ticket says of a request that the shadow executor has not begun.
#[derive(Clone, Debug)]
pub struct UnbegunTicket {
    /// The request.
    pub request: OfferedRequest,
    /// The request's value of `promote.strata_by`, if the counter has not said yet under which value it counts.
    pub uncounted_value: Option<StratumValue>,
    /// Whether the request counts as one in `dark` without a durable run.
    pub is_without_twin: bool,
}

/// Stands for one request that should be compared. It must be settled exactly once, with the outcome of that request.
pub struct ComparisonTicket {
    request: OfferedRequest,
    /// `None` once the ticket is settled.
    counter: Option<Arc<dyn TicketCounter>>,
    on_drop: ComparisonOutcome,
    twin_missing: bool,
    has_begun: bool,
    /// The value of `promote.strata_by` for this request, until the counter has said under which value it counts.
    uncounted_value: Option<StratumValue>,
    observer: Option<OutcomeObserver>,
}

/// Is told with which outcome a ticket was settled.
type OutcomeObserver = Box<dyn FnOnce(ComparisonOutcome) + Send + Sync>;

impl ComparisonTicket {
    /// Opens a ticket. Dropping it settles it as "client went away", unless
    /// [`ComparisonTicket::set_outcome_on_drop`] says otherwise.
    pub fn new(mut request: OfferedRequest, counter: Arc<dyn TicketCounter>) -> Self {
        Self {
            uncounted_value: request.declared.take(),
            request,
            counter: Some(counter),
            on_drop: ComparisonOutcome::Skipped(SkipReason::ClientWentAway),
            twin_missing: false,
            has_begun: false,
            observer: None,
        }
    }
    /// The route.
    pub fn route(&self) -> &RouteId {
        &self.request.route
    }
    /// The stratum of the request ([`OfferedRequest::stratum`]). To be called after legacy's reply.
    pub fn stratum(&mut self) -> Option<String> {
        self.find_counted_value();
        self.request.stratum()
    }
    /// Asks the counter under which value the request counts. Not done when the ticket is opened: the counter may be
    /// locked, and the caller is still waiting for legacy's reply then.
    fn find_counted_value(&mut self) {
        if let (Some(value), Some(counter)) = (self.uncounted_value.take(), &self.counter) {
            self.request.declared = counter.counted_value(&self.request, value);
        }
    }
    /// Sets the status of legacy's reply.
    pub fn set_legacy_status(&mut self, status: StatusCode) {
        self.request.legacy_status = Some(status);
    }
    /// Records that the shadow executor begins to work on the request. If the process is killed before the ticket is
    /// settled, the request counts as not compared.
    pub fn begin(&mut self) {
        self.find_counted_value();
        if !std::mem::replace(&mut self.has_begun, true)
            && let Some(counter) = &self.counter
        {
            counter.begin(&self.request);
        }
    }
    /// Sets the outcome with which dropping the ticket settles it.
    pub fn set_outcome_on_drop(&mut self, outcome: ComparisonOutcome) {
        self.on_drop = outcome;
    }
    /// Calls this when the ticket is settled, with its outcome.
    pub fn observe(&mut self, observer: impl FnOnce(ComparisonOutcome) + Send + Sync + 'static) {
        self.observer = Some(Box::new(observer));
    }
    /// Records that the request, which is in `dark`, should get a twin. It counts as without twin unless
    /// [`ComparisonTicket::record_twin_made`] is called before the ticket is settled.
    pub fn expect_twin(&mut self) {
        self.twin_missing = true;
    }
    /// Records that the engine has created a durable run for the request.
    pub fn record_twin_made(&mut self) {
        self.twin_missing = false;
    }
    /// Records that no twin is missing, because no instance exists: legacy and the engine both refused the request, and
    /// the engine created no run.
    pub fn expect_no_twin(&mut self) {
        self.twin_missing = false;
    }
    /// Settles the ticket with an outcome.
    pub fn settle(mut self, outcome: ComparisonOutcome) {
        self.end(outcome);
    }
    fn end(&mut self, outcome: ComparisonOutcome) {
        if let Some(counter) = self.counter.take() {
            let is_without_twin = self.twin_missing && outcome.counts_as_without_twin();
            if self.has_begun {
                if is_without_twin {
                    counter.count_without_twin(&self.request);
                }
                counter.end(&self.request);
                counter.settle(&self.request, outcome);
            } else {
                let (request, uncounted_value) = (self.request.clone(), self.uncounted_value.take());
                counter.settle_unbegun(UnbegunTicket { request, uncounted_value, is_without_twin }, outcome);
            }
            if let Some(observer) = self.observer.take() {
                observer(outcome);
            }
        }
    }
    /// Settles the ticket as skipped.
    pub fn skip(self, reason: SkipReason) {
        self.settle(ComparisonOutcome::Skipped(reason));
    }
}

impl Drop for ComparisonTicket {
    fn drop(&mut self) {
        self.end(self.on_drop);
    }
}

impl fmt::Debug for ComparisonTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ComparisonTicket({})", self.request.route)
    }
}

/// How the engine served a caller, in `live`, in `only`, or because it owns the instance; the gate to `only` uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// It answered.
    Answered,
    /// It answered with a 4xx status, or the caller got a problem with one: an error of the caller.
    CallerError,
    /// Legacy answers instead: the engine gave the request back, or the request's body is too large for the engine.
    FellBack,
    /// It answered with a 5xx status, or the caller got a problem with one.
    Error,
    /// It is unknown what was done. The caller got a problem such as `outcome-unknown`, or an answer while the run was
    /// paused because of a conflict, or left after a long wait without an answer.
    Unknown,
}

/// Is told how the engine served callers. Retries, pending answers and runs that ended on purpose are not reported.
pub trait ServedObserver: Send + Sync {
    /// Records how the engine served one request of a route. `files_version`: the version of the files that decided the
    /// request.
    fn served(&self, route: &RouteId, files_version: u64, served: Served);
    /// Records the same for the guard of the route. Unlike [`Self::served`], this is also called for requests that do
    /// not count for the gate to `only` because only the `force:` of a cohort put their caller in `live`.
    fn answered(&self, route: &RouteId, answer: EngineAnswer) {
        let _ = (route, answer);
    }
    /// Whether a client that left without an answer had waited longer than nearly all of legacy's clients wait. Only
    /// such a departure counts against the engine.
    fn exceeds_usual_wait_at_legacy(&self, route: &RouteId, waited: Duration) -> bool;
}

/// How the engine served one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineAnswer {
    /// The version of the files that decided the request.
    pub files_version: u64,
    /// The caller's rung; that of the route where the engine owns the instance.
    pub rung: State,
    /// How it was served.
    pub served: Served,
    /// How long the engine took; `None` if it was not asked.
    pub took: Option<Duration>,
    /// The run, if there is one.
    pub run: Option<RunId>,
}
