//! Runs the engine beside legacy for requests that legacy has answered, within a budget, and compares.
//!
//! The question it answers: "what would the engine have done with this request?" A request that has been answered is
//! offered; it waits in a queue that is bounded in entries and bytes; on threads of their own, at lower priority, the
//! engine runs it, the two observations are compared, and its ticket is settled.
//!
//! Always true: offering never waits; every ticket is settled exactly once, whatever happens to the run; of a
//! mismatch only a redacted sample is kept; a route that takes all it can get leaves places, memory and slots for the
//! others (`shared_bound`, `dispatch`).
//!
//! `proxy` decides which requests are offered; `evidence` adds up the outcomes.
//!
//! A share of the compared pairs is captured (`capture`): the engine can be run again from a capture.
//!
//! In `dark`, the engine makes a *twin* of each instance that legacy creates, from the same request, and runs later
//! requests of the instance on its twin. The requests of one instance are run one after the other, in the order of
//! legacy's answers (`open_requests`, `instance_order`); those that wait for their turn hold no slot (`followups`).
//!
//! A request whose workflow takes outputs from legacy's own calls (`rehearse: legacy`) waits for a bounded time,
//! without a slot, until these calls are known (`legacy_calls`).
//!
//! Some requests of a route that is declared safe to repeat are sent to legacy a second time after the comparison
//! (`repeat`), to learn how legacy differs from itself. Few are in flight at a time; a request for which there is no
//! room is not sent. Some rehearsals are run a second time from the same inputs (`second_run`), to learn where the
//! engine differs from itself.
//!
//! The engine's own answers to callers, in `live` and `only`, are checked once the callers have them (`answer_checks`):
//! the invariants of the route are judged, and some requests of a route that is safe to repeat are sent to legacy
//! (`reverse`).
//!
//! When the engine is slow, runs end at their time-out and the queue fills up, and what does not fit is skipped and
//! counted. When the engine is gone or panics, only the runs that asked it fail. An answer after the time-out is
//! ignored.

mod answer_checks;
mod ask;
mod capture;
mod compared;
mod control;
mod control_reads;
mod declared_body;
mod dispatch;
mod engine_result;
mod event_bodies;
mod event_messages;
mod followups;
mod given_ids;
mod ids_of_instances;
mod in_flight;
mod instance_order;
mod kept;
mod legacy_calls;
mod legacy_read_replies;
mod marked_twins;
mod open_requests;
mod parts;
mod queue;
mod redaction;
mod repeat;
mod reverse;
mod run;
mod run_end;
mod run_facts;
mod sample;
mod second_run;
mod shared_bound;
mod stop;
mod unresolved;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};

use answer_checks::AnswerChecks;
use dispatch::run_entries;
use followups::store_marks;
use given_ids::GivenIds;
use ids_of_instances::IdsOfInstances;
use instance_order::InstanceOrder;
use open_requests::{OpenRequests, Placement};
use queue::QueuedRequest;
use repeat::REPEATS_IN_FLIGHT_MAX;
use run::Runner;
use shared_bound::SharedBound;
use stop::Stop;

pub use control::CONTROL_ENDS_WITHIN;
pub use parts::{RepeatedLegacy, RulesInForce, ShadowParts};

use crate::byte_budget::ByteBudget;
use crate::compare::Body;
use crate::evidence::Evidence;
use crate::exchange::{
    Answered, ComparisonOutcome, ComparisonTicket, EngineAnswered, InstanceAccess, Offer, OfferedRequest, OpenRequest,
};
use crate::flag::SkipReason;
use crate::names::RouteId;
use crate::priority;
use crate::workflow::Mode;

/// The shadow executor.
pub struct Shadow {
    /// Holds as many entries as there are places, so that a request that has a place always fits.
    queue: mpsc::Sender<QueuedRequest>,
    /// The places in the queue.
    places: Arc<SharedBound>,
    /// The memory for requests that wait for a slot or are run.
    budget: Arc<SharedBound>,
    /// The memory for requests that wait, before or after their run, until the calls by legacy are known.
    waiting: Arc<ByteBudget>,
    /// The memory for requests that wait for their turn on a twin.
    turn_memory: Arc<ByteBudget>,
    /// The checks of the engine's answers.
    checks: AnswerChecks,
    /// The requests of instances that legacy has.
    requests: Arc<OpenRequests>,
    order: Arc<InstanceOrder>,
    in_flight: Arc<AtomicU64>,
    evidence: Arc<Evidence>,
    stop: watch::Sender<Stop>,
    /// Becomes `true` once the last ticket is settled.
    ended: watch::Receiver<bool>,
    runtime: Option<Runtime>,
}

/// How busy the shadow executor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Entries that wait.
    pub queue_depth: u64,
    /// Runs under way.
    pub in_flight: u64,
}

impl Shadow {
    /// Starts the threads.
    ///
    /// # Errors
    /// The threads cannot be started.
    pub fn start(parts: ShadowParts) -> std::io::Result<Arc<Self>> {
        let ShadowParts { engine, legacy, twins, evidence, captures, rules, limits } = parts;
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(size(limits.shadow_threads))
            .thread_name("shadow")
            .on_thread_start(priority::lower)
            .enable_all()
            .build()?;
        let places_max = size(limits.shadow_queue_entries_max).min(Semaphore::MAX_PERMITS);
        let (queue, queued) = mpsc::channel(places_max);
        let places = SharedBound::new(places_max as u64);
        let (stop, stopping) = watch::channel(Stop::No);
        let (done, ended) = watch::channel(false);
        let slots = SharedBound::new(limits.shadow_in_flight_max.max(1));
        let in_flight = Arc::new(AtomicU64::new(0));
        let budget = SharedBound::new(limits.shadow_queue_bytes_max);
        let waiting_pairs = ByteBudget::new(limits.egress_waiting_bytes_max);
        let turn_memory = ByteBudget::new(limits.followups_held_bytes_max);
        let order = InstanceOrder::new(Arc::clone(&twins));
        let runner = Arc::new(Runner {
            engine,
            legacy,
            repeats: Semaphore::new(REPEATS_IN_FLIGHT_MAX),
            evidence: Arc::clone(&evidence),
            captures,
            rules,
            limits,
            in_flight: Arc::clone(&in_flight),
            waiting: Arc::clone(&waiting_pairs),
            turn_memory: Arc::clone(&turn_memory),
            twins: Arc::clone(&twins),
            given_ids: GivenIds::default(),
            ids_of_instances: IdsOfInstances::default(),
        });
        let entries = run_entries(queued, stopping, slots, Arc::clone(&runner));
        let (no_more_marks, stop_marks) = watch::channel(false);
        let marks = runtime.spawn(store_marks(Arc::clone(&order), twins, stop_marks));
        runtime.spawn(async move {
            entries.await;
            no_more_marks.send_replace(true);
            // An error says that the task has ended.
            let _ = marks.await;
            // Fails where the receiver was dropped, which is no error.
            let _ = done.send(true);
        });
        let (waiting, runtime) = (waiting_pairs, Some(runtime));
        let requests = Arc::new(OpenRequests::new(Arc::clone(&order)));
        Ok(Arc::new(Self {
            queue,
            places,
            budget,
            waiting,
            turn_memory,
            checks: AnswerChecks::new(runner),
            requests,
            order,
            in_flight,
            evidence,
            stop,
            ended,
            runtime,
        }))
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        Load { queue_depth: self.places.used(), in_flight: self.in_flight.load(Ordering::Acquire) }
    }

    /// Sets the gauges. Called right before a scrape is rendered.
    pub fn publish(&self) {
        let Load { queue_depth, in_flight } = self.load();
        metrics::gauge!("pointsman_shadow_queue_depth").set(queue_depth as f64);
        metrics::gauge!("pointsman_shadow_in_flight").set(in_flight as f64);
        metrics::gauge!("pointsman_effects_waiting_pairs").set(self.waiting.entries() as f64);
        metrics::gauge!("pointsman_effects_waiting_bytes").set(self.waiting.used() as f64);
        metrics::gauge!("pointsman_answer_checks").set(self.checks.under_way() as f64);
        metrics::gauge!("pointsman_followups_pending").set(self.turn_memory.entries() as f64);
        metrics::gauge!("pointsman_followups_pending_bytes").set(self.turn_memory.used() as f64);
    }

    /// Takes no more entries, and gives those that are there this time to finish. Two kinds of entries are settled as
    /// `shutting_down`: at once, those that wait for calls by legacy or for their turn on a twin; after this time, all
    /// that are left.
    pub async fn drain(&self, within: Duration) {
        self.stop.send_modify(|stop| *stop = if *stop == Stop::No { Stop::Finish } else { *stop });
        let mut ended = self.ended.clone();
        let all_ended = async {
            self.checks.end().await;
            // An error says that the task has ended.
            let _ = ended.wait_for(|ended| *ended).await;
        };
        if tokio::time::timeout(within, all_ended).await.is_ok() {
            return;
        }
        self.stop.send_replace(Stop::Now);
        // A run that never yields cannot be aborted; its ticket is settled if it ever ends.
        if tokio::time::timeout(ABORT_TIMEOUT, ended.wait_for(|ended| *ended)).await.is_err() {
            tracing::warn!("a shadow run could not be aborted in time; it is left running");
        }
    }
}

/// How long aborting may take.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

impl Offer for Shadow {
    fn open(&self, request: OfferedRequest) -> ComparisonTicket {
        ComparisonTicket::new(request, self.evidence.clone())
    }

    fn offer(&self, mut ticket: ComparisonTicket, answered: Answered) {
        ticket.set_outcome_on_drop(ComparisonOutcome::Skipped(SkipReason::ShuttingDown));
        match answered.mode {
            Mode::Dark => ticket.expect_twin(),
            // Without legacy's body there is nothing to compare with, which is the only purpose of a rehearsal.
            Mode::Rehearse if *answered.legacy.body() == Body::TooLarge => {
                return ticket.skip(SkipReason::BodyTooLarge);
            }
            Mode::Rehearse => {}
            // A real run beside legacy would perform every effect twice: no caller asks for one, and none is run.
            Mode::Real => return ticket.settle(ComparisonOutcome::Failed("mode")),
        }
        let bytes = u64::try_from(answered.bytes()).unwrap_or(u64::MAX);
        let place = self.places.take(ticket.route(), 1);
        let Some((place, reserved)) = place.and_then(|place| Some((place, self.budget.take(ticket.route(), bytes)?)))
        else {
            return ticket.skip(SkipReason::QueueFull);
        };
        let generation = self.evidence.generation(ticket.route(), answered.flags.files_version);
        let twin = answered.instance.as_ref().and_then(|instance| instance.run);
        let placed = answered.at_legacy.map(|time| self.requests.offered(time, answered.mode, twin));
        let turn = match placed {
            None | Some(Placement::Unordered) => None,
            Some(Placement::Turn(turn)) => Some(turn),
            Some(Placement::Skip(reason)) => return ticket.skip(reason),
        };
        match self.queue.try_send(QueuedRequest::new(ticket, answered, generation, (place, reserved), turn)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(entry)) => entry.ticket.skip(SkipReason::QueueFull),
            Err(mpsc::error::TrySendError::Closed(entry)) => entry.ticket.skip(SkipReason::ShuttingDown),
        }
    }

    fn check(&self, answered: EngineAnswered) {
        if let Some(runtime) = &self.runtime {
            self.checks.begin(answered, runtime, self.stop.subscribe());
        }
    }

    fn has_room(&self, route: &RouteId) -> bool {
        self.places.has_room(route) && self.budget.has_room(route)
    }

    fn announce(&self, access: InstanceAccess, is_write: bool, now: u64) -> Option<OpenRequest> {
        Some(Arc::clone(&self.requests).announce(access, is_write, now))
    }

    fn may_add_twins(&self) -> bool {
        self.order.may_add_twins()
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        if let Some(runtime) = self.runtime.take() {
            // Does not wait for the tasks: this thread may not block. Tickets of dropped tasks settle themselves.
            runtime.shutdown_background();
        }
    }
}
