//! Runs one request that legacy answered: asks the engine, compares the two observations, and settles the ticket.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::capture::{CapturedRun, capture, is_captured};
use super::compared::{ComparedReplies, ComparedRequest, FirstRun};
use super::engine_result::EngineResult;
use super::given_ids::{GivenIds, created_ids};
use super::ids_of_instances::IdsOfInstances;
use super::in_flight::RunInFlight;
use super::kept::kept_pair;
use super::legacy_calls;
use super::legacy_read_replies::{LegacyReadReplies, replays_reads};
use super::parts::{RepeatedLegacy, RulesInForce};
use super::queue::{HeldMemory, QueuedRequest};
use super::redaction::{PairRedaction, PairToRedact};
use super::run_end::RunEnd;
use super::run_facts::{
    COMPARING_PERCENT, awaited_intents, count_cut_sample, count_not_judged, effects_of, goes_to, makes_twin, rung_of,
    runs_twice, unattributed_steps,
};
use super::sample::sample;
use super::stop::Stop;
use crate::byte_budget::ByteBudget;
use crate::compare::{
    AwaitedIntents, BoundExceeded, CompareBounds, HidesSensitive, Pair, Rules, Verdict, compare, compare_in_instance,
};
use crate::evidence::{
    BranchOutcome, CAPTURE_BYTES_MAX, Captures, DifferingPlaces, Evidence, EvidenceGeneration, LegacyCallsStatus,
    PairClass, Sample,
};
use crate::exchange::{
    Answered, CallTarget, ComparisonOutcome, ComparisonTicket, EngineArm, Reads, RecordedReads, RequestEffects, Twins,
    request_value,
};
use crate::flag::SkipReason;
use crate::limits::Limits;
use crate::names::{RouteId, StepId};
use crate::workflow::Mode;

/// What every run needs.
pub(super) struct Runner {
    pub(super) engine: EngineArm,
    /// Sends a request to legacy a second time; `None`: no request is sent twice.
    pub(super) legacy: Option<RepeatedLegacy>,
    /// Permits for the requests that are sent to legacy a second time.
    pub(super) repeats: Semaphore,
    pub(super) evidence: Arc<Evidence>,
    pub(super) captures: Arc<Captures>,
    pub(super) rules: RulesInForce,
    pub(super) limits: Arc<Limits>,
    pub(super) in_flight: Arc<AtomicU64>,
    /// The memory for requests that wait, before or after their run, until the calls by legacy are known. While it is
    /// used up, other requests still run.
    pub(super) waiting: Arc<ByteBudget>,
    /// The memory for requests that wait for their turn on a twin.
    pub(super) turn_memory: Arc<ByteBudget>,
    /// Waits for the ends of dark runs.
    pub(super) twins: Arc<dyn Twins>,
    /// The ids that the engine gave to twins.
    pub(super) given_ids: GivenIds,
    /// The ids that earlier pairs of an instance bound.
    pub(super) ids_of_instances: IdsOfInstances,
}

/// A request that the engine has run, until it is compared.
pub(super) struct RunRequest {
    ticket: ComparisonTicket,
    answered: Answered,
    generation: EvidenceGeneration,
    result: EngineResult,
    /// From this time on no further call by legacy can be attributed to this request; `None` where none ever is.
    effects_complete: Option<tokio::time::Instant>,
    recorded: Option<FirstReads>,
    _memory: HeldMemory,
}

/// The reads of a run. They are recorded if any of these holds:
///
/// - Its pair is captured.
/// - Its request is run a second time.
/// - It is a dark run, whose report has no events that tell what it read.
/// - Legacy's calls may be equal to its reads.
pub(super) struct FirstReads {
    reads: Arc<RecordedReads>,
    is_captured: bool,
    runs_twice: bool,
}

impl RunRequest {
    /// Waits until all calls are known that legacy made for this request. Returns `false` if a stop was asked for
    /// before that.
    pub(super) async fn wait_for_effects(&self, mut stop: watch::Receiver<Stop>) -> bool {
        let Some(at) = self.effects_complete else { return true };
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(at) => true,
            _ = stop.wait_for(|stop| *stop != Stop::No) => false,
        }
    }
    /// Settles its ticket: it was not compared for this reason.
    pub(super) fn skip(self, reason: SkipReason) {
        self.ticket.skip(reason);
    }
}

impl Runner {
    /// Whether the run takes outputs of steps, or replies to its reads, from the calls that legacy made.
    pub(super) fn takes_replies(&self, entry: &QueuedRequest) -> bool {
        let answered = &entry.answered;
        let may_take = || replays_reads(answered) || self.rules_of(answered.compared_as()).takes_replies();
        answered.effects.is_some() && may_take()
    }

    /// Waits, for a bounded time, until the calls by legacy are known from which the run takes replies. `None`: the
    /// ticket is settled, because too many requests wait or a stop was asked for.
    pub(super) async fn wait_for_calls(
        &self,
        mut entry: QueuedRequest,
        mut stop: watch::Receiver<Stop>,
    ) -> Option<QueuedRequest> {
        let Some(effects) = entry.answered.effects.clone() else { return Some(entry) };
        entry.ticket.begin();
        let Some(reserved) = self.waiting.reserve(entry.answered.bytes()) else {
            entry.ticket.skip(SkipReason::EffectsQueueFull);
            return None;
        };
        entry.memory = reserved.into();
        let rules = self.rules_of(entry.answered.compared_as());
        let wait = Limits::ms(self.limits.egress_rehearse_wait_ms).min(effects.window());
        let end = tokio::time::Instant::from_std(entry.offered) + wait;
        tokio::select! {
            biased;
            () = legacy_calls::wait_for_calls(&effects, &rules, end) => Some(entry),
            _ = stop.wait_for(|stop| *stop != Stop::No) => {
                entry.ticket.skip(SkipReason::ShuttingDown);
                None
            }
        }
    }

    /// Asks the engine. Returns the request if it is to be compared (if not, its ticket is settled), and how the run
    /// ended.
    pub(super) async fn run(&self, entry: QueuedRequest) -> (Option<RunRequest>, RunEnd) {
        let _in_flight = RunInFlight::begin(&self.in_flight);
        let QueuedRequest { mut ticket, answered, generation, offered, place: _, memory, turn: _ } = entry;
        ticket.begin();
        metrics::histogram!("pointsman_shadow_lag_seconds").record(offered.elapsed().as_secs_f64());
        // The exchange has ended by the time it is offered.
        let window = answered.effects.as_ref().map(RequestEffects::window);
        let effects_complete = window.map(|window| tokio::time::Instant::from_std(offered) + window);
        let is_captured = is_captured(&answered);
        let runs_twice = runs_twice(&answered);
        let holds_reads_against_calls =
            answered.effects.is_some() && self.rules_of(answered.compared_as()).has_unsafe_reads();
        let is_recorded = is_captured || runs_twice || answered.mode == Mode::Dark || holds_reads_against_calls;
        let recorded = is_recorded.then(|| Arc::new(RecordedReads::new(CAPTURE_BYTES_MAX)));
        let of_legacy = match replays_reads(&answered) {
            false => None,
            true => {
                let (calls, rules) = (answered.effects.as_ref(), self.rules_of(answered.compared_as()));
                let Some(reads) = LegacyReadReplies::new(calls, &rules, &self.waiting, recorded.clone()) else {
                    self.note_legacy_write(&answered);
                    ticket.skip(SkipReason::EffectsQueueFull);
                    return (None, RunEnd::UNKNOWN);
                };
                Some(Arc::new(reads))
            }
        };
        let reads = answered.reads.clone();
        let reads = reads.or_else(|| Some(of_legacy.clone()? as Arc<dyn Reads>));
        let reads = reads.or_else(|| Some(recorded.clone()? as Arc<dyn Reads>));
        let result = match self.ask(&answered, reads).await {
            // Reads that were answered with what legacy saw are not stale.
            Ok(result) if of_legacy.as_ref().is_some_and(|reads| !reads.has_sent()) => result.without_stale_reads(),
            Ok(result) => result,
            Err(outcome) => {
                self.note_legacy_write(&answered);
                ticket.settle(outcome);
                return (None, RunEnd::UNKNOWN);
            }
        };
        let report = result.report();
        let end = RunEnd::of(report, matches!(result, EngineResult::Comparable(..)), &answered);
        if makes_twin(&answered, report, &result) {
            ticket.record_twin_made();
            self.evidence.record_twin(ticket.route(), generation);
        }
        if let EngineResult::Comparable(engine, report) = &result
            && report.run.is_none()
            && engine.status().is_client_error()
            && answered.legacy.status().is_client_error()
        {
            ticket.expect_no_twin();
        }
        // After `end` was computed: the run has changed its twin, also if it cannot be compared because of a read.
        let result = result.skipped_if_unanswered(of_legacy.as_deref().map(|reads| reads as &dyn Reads));
        let memory = match effects_complete {
            None => Some(memory),
            Some(_) => {
                let recorded = recorded.as_ref().map_or(0, |reads| reads.bytes());
                self.waiting.reserve(answered.bytes() + result.bytes() + recorded).map(HeldMemory::from)
            }
        };
        let Some(_memory) = memory else {
            self.note_legacy_write(&answered);
            ticket.skip(SkipReason::EffectsQueueFull);
            return (None, end);
        };
        let recorded = recorded.map(|reads| FirstReads { reads, is_captured, runs_twice });
        (Some(RunRequest { ticket, answered, generation, result, effects_complete, recorded, _memory }), end)
    }

    /// Compares, and settles the ticket. Returns the request if it was chosen to be run, or sent to legacy, a second
    /// time.
    pub(super) fn compare(&self, run: RunRequest) -> Option<ComparedRequest> {
        let RunRequest { mut ticket, answered, generation, result, effects_complete: _, recorded, _memory } = run;
        let branch = result.branch().clone();
        self.note_legacy_write(&answered);
        let (stratum, mut replies, mut calls_unknown) = (ticket.stratum(), None, false);
        let twice = recorded.as_ref().filter(|recorded| recorded.runs_twice).map(|recorded| recorded.reads.clone());
        let first = twice.and_then(|reads| FirstRun::of(&result, reads));
        // A panic in the comparison fails this ticket alone.
        let compared = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let counted_in = (generation, stratum.as_deref());
            self.compare_and_count(&answered, counted_in, result, recorded.as_ref(), (&mut replies, &mut calls_unknown))
        }));
        let outcome = compared.unwrap_or(ComparisonOutcome::Failed("panic"));
        let rung = rung_of(&answered);
        let branch_outcome = BranchOutcome { outcome, calls_unknown };
        self.evidence.record_branch(answered.compared_as(), generation, rung, &branch, branch_outcome);
        ticket.settle(outcome);
        (replies.is_some() || first.is_some()).then_some(ComparedRequest { answered, generation, replies, first })
    }

    /// How pairs of this route are compared.
    pub(super) fn rules_of(&self, route: &RouteId) -> Arc<Rules> {
        self.rules.load().get(route).cloned().unwrap_or_default()
    }

    /// Compares the two observations, counts the pair, keeps a sample of a mismatch, and returns the outcome.
    pub(super) fn compare_and_count(
        &self,
        answered: &Answered,
        (generation, stratum): (EvidenceGeneration, Option<&str>),
        result: EngineResult,
        recorded: Option<&FirstReads>,
        (to_repeat, calls_unknown): (&mut Option<ComparedReplies>, &mut bool),
    ) -> ComparisonOutcome {
        let (engine, report) = match result {
            EngineResult::Comparable(engine, report) | EngineResult::Stopped(engine, report) => (engine, report),
            EngineResult::NotComparable(outcome, report) => {
                self.count_unresolved(answered, generation, outcome, &report);
                return outcome;
            }
        };
        let unresolved = ComparisonOutcome::Skipped(SkipReason::UnresolvedEffect);
        let run_reads = answered.reads.as_deref().or_else(|| Some(&*recorded?.reads as &dyn Reads));
        let route = answered.compared_as();
        let rules = self.rules_of(route);
        let unattributed = unattributed_steps(answered, &rules, engine.intents());
        let engine =
            engine.with_sent_reads(run_reads.and_then(Reads::unsafe_reads)).with_unattributed_steps(unattributed);
        let awaited = awaited_intents(answered, &rules);
        let effects = effects_of(answered);
        let may_lack_awaited = |open: &Vec<StepId>| {
            awaited.may_still_be_recorded(|step| !open.contains(step)) || !answered.legacy.intents().is_empty()
        };
        if engine.has_stopped() && effects.is_none() {
            self.count_unresolved(answered, generation, unresolved, &report);
            return unresolved;
        }
        let lacks_intents = report.lacks_intents && awaited != AwaitedIntents::None;
        if !engine.has_stopped() && (lacks_intents || report.open_steps.as_ref().is_some_and(may_lack_awaited)) {
            return ComparisonOutcome::Skipped(SkipReason::MayStillRecordIntents);
        }
        let request = if rules.reads_request() { request_value(&answered.request) } else { Value::Null };
        let bounds = CompareBounds::of(&self.limits);
        let start = Instant::now();
        let compare_within = Limits::ms(self.limits.compare_ms);
        let expired = || start.elapsed() >= compare_within;
        let redaction = PairRedaction::of(PairToRedact {
            answered,
            engine: &engine,
            report: &report,
            effects: effects.as_deref(),
            recorded: recorded.map(|recorded| &*recorded.reads),
            bounds,
            expired: &expired,
        });
        let pair = Pair {
            legacy: &answered.legacy,
            engine: &engine,
            effects: effects.as_deref(),
            request: &request,
            instance: report.instance.as_ref(),
            stale_reads: report.stale_reads,
            // Secrets that nothing declares are hidden only in samples that are stored, because few differing pairs
            // become samples.
            sensitive: redaction.declares_secrets().then_some(&redaction as &dyn HidesSensitive),
        };
        let family = answered.flag.family.first_id();
        let created = created_ids(answered, &engine, bounds.bytes);
        // Only `dark` keeps the twin to which these ids belong.
        let instance = created.clone().or_else(|| report.instance.clone()).filter(|_| answered.mode == Mode::Dark);
        let mut earlier = instance.as_ref().map(|ids| self.ids_of_instances.of(family, ids)).unwrap_or_default();
        let engine_generation = || self.evidence.engine_generation(route, answered.flags.files_version);
        let id_reused = created.clone().and_then(|ids| self.given_ids.note(family, engine_generation(), ids));
        let pair = Pair { instance: pair.instance.or(id_reused.as_ref()), ..pair };
        // The rest of the time is left for the record that is kept of the pair.
        let comparing_within = compare_within * COMPARING_PERCENT / 100;
        let is_over = || start.elapsed() >= comparing_within;
        let compared = match instance {
            None => compare(&pair, &rules, &bounds, &is_over).map(|comparison| (comparison, None)),
            Some(_) => {
                let compare = |earlier: &[_]| compare_in_instance(&pair, earlier, &rules, &bounds, &is_over);
                let compared = self.given_ids.compared(family, &mut earlier, compare);
                compared.map(|(comparison, bound_ids)| (comparison, Some(bound_ids)))
            }
        };
        let (comparison, bound_ids) = match compared {
            Ok(compared) => compared,
            Err(BoundExceeded::Size) => return ComparisonOutcome::Skipped(SkipReason::BodyTooLarge),
            Err(BoundExceeded::Depth | BoundExceeded::Effects | BoundExceeded::Time) => {
                return ComparisonOutcome::Skipped(SkipReason::OverBudget);
            }
        };
        // A call that legacy did not make is a difference, whatever the run would have done after it.
        if engine.has_stopped() && comparison.verdict != Verdict::Mismatch {
            self.count_unresolved(answered, generation, unresolved, &report);
            return unresolved;
        }
        // If no call was compared with one by legacy either, the pair is equal only because nothing was compared.
        if !comparison.compares_anything() && comparison.verdict != Verdict::Mismatch {
            return ComparisonOutcome::Skipped(SkipReason::NothingCompared);
        }
        if let (Some(instance), Some(bound_ids), Verdict::Match | Verdict::Ignored) =
            (instance, bound_ids, comparison.verdict)
        {
            created.iter().for_each(|created| self.given_ids.note_kind(family, created, &bound_ids));
            self.ids_of_instances.note(family, &instance, bound_ids.to_remember());
        }
        let lacks_calls = comparison.lacks_calls_of(engine.unattributed_steps());
        if lacks_calls {
            count_not_judged(answered, "unattributed");
        }
        let are_calls_known = effects.is_some() && !lacks_calls;
        let is_made = |to: &CallTarget| engine.intents().iter().any(|intent| goes_to(intent, to));
        let is_expected = |to: &CallTarget| {
            is_made(to) || rules.is_expected_call(to.service.as_ref(), &to.authority, &to.method, &to.path)
        };
        let is_ignored = |to: &CallTarget| rules.ignores_call(to.service.as_ref(), &to.authority, &to.method, &to.path);
        let legacy_calls = LegacyCallsStatus::of(answered.effects.as_ref(), are_calls_known, is_ignored, is_expected);
        // A candidate is compared with the calls of the plan in force: unknown if there are none although it has
        // intents.
        *calls_unknown = legacy_calls.are_unknown()
            || answered.candidate.is_some() && effects.is_none() && !engine.intents().is_empty();
        let class = PairClass { rung: rung_of(answered), stratum, legacy_calls };
        let verdict = self.evidence.record_pair(route, generation, class, &comparison, &answered.legacy, &engine);
        if !engine.has_stopped() {
            let uncompared = rules.uncompared_headers(&answered.legacy, &engine);
            self.evidence.record_uncompared_headers(route, generation, uncompared);
        }
        *to_repeat = answered.repeat.as_ref().filter(|_| !engine.has_stopped()).map(|_| ComparedReplies {
            engine: DifferingPlaces::of(&comparison),
            status: engine.status(),
            stale_reads: report.stale_reads,
        });
        if let Some(FirstReads { reads, .. }) = recorded.filter(|first| first.is_captured && !engine.has_stopped()) {
            let (redaction, verdict, recorded) = (&redaction, comparison.verdict, &**reads);
            let captured = CapturedRun { answered, report: &report, pair: &pair, recorded, redaction, verdict };
            capture(&self.captures, &captured, &rules, &bounds, &expired);
        }
        // A sample is kept also if the pair differs by noise alone: the difference may later turn out to count.
        match comparison.verdict {
            Verdict::Match => ComparisonOutcome::Matched,
            Verdict::Ignored => ComparisonOutcome::Ignored,
            Verdict::Mismatch => {
                if self.evidence.wants_sample(route, generation, &comparison.fingerprint) {
                    let sample = sample(answered, &engine, &report, &redaction, comparison, &self.limits);
                    let kept = kept_pair(answered, (&pair, &earlier), &rules, &redaction, &self.limits);
                    if redaction.was_over() {
                        count_cut_sample(route);
                    }
                    self.evidence.keep_sample(generation, Sample { kept: Some(kept), ..sample });
                }
                if verdict == Verdict::Ignored { ComparisonOutcome::Ignored } else { ComparisonOutcome::Mismatched }
            }
        }
    }
}
