//! Asks legacy what it would have answered to a request that the engine has answered, and compares (a reverse
//! comparison).
//!
//! Always true: only requests of routes that are declared safe to repeat are sent to legacy, and none of a route for
//! which legacy was seen to change something. If legacy's calls are watched, so are its calls for such a request. At
//! most [`REPEATS_IN_FLIGHT_MAX`](super::repeat::REPEATS_IN_FLIGHT_MAX) are in flight, together with those of `repeat`;
//! each counts until its calls are known. A request that finds no room is not sent. The pair of a reverse comparison
//! counts as a pair of `shadow`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::watch;

use super::engine_result::EngineResult;
use super::run::Runner;
use super::stop::Stop;
use crate::compare::Observation;
use crate::exchange::{
    Answered, ComparisonOutcome, ComparisonTicket, EngineAnswered, KeysOfLegacy, NotRepeated, OfferedRequest,
    RepeatRequest, RequestCopy, RequestEffects, RequestToWatch, ReverseRequest, RunReport, SentBody,
};
use crate::flag::State;
use crate::limits::Limits;
use crate::workflow::Mode;

/// What legacy answered to a request, and the calls that it made for it.
struct LegacyAnswer {
    reply: Observation,
    /// The calls that it made for the request; `None` if they are not watched.
    effects: Option<RequestEffects>,
}

/// The body of a request, which is there as a whole.
struct WholeBody(Bytes);

impl SentBody for WholeBody {
    fn whole(&self) -> Option<Bytes> {
        Some(self.0.clone())
    }
}

impl Runner {
    /// Sends the request to legacy and compares the answers, if it was chosen for that and no stop is asked for.
    pub(super) async fn compare_with_legacy(&self, answered: &EngineAnswered, mut stop: watch::Receiver<Stop>) {
        let (Some(reverse), Ok(engine)) = (&answered.reverse, &answered.answer) else { return };
        let outcome = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => "shutting_down",
            outcome = self.ask_and_compare(answered, reverse, engine) => outcome,
        };
        count_reverse(answered, outcome);
    }

    /// Returns the label `outcome`.
    async fn ask_and_compare(
        &self,
        answered: &EngineAnswered,
        reverse: &ReverseRequest,
        engine: &Arc<Observation>,
    ) -> &'static str {
        let Ok(_permit) = self.repeats.try_acquire() else { return "busy" };
        match self.ask_legacy(answered, reverse).await {
            Ok(asked) => self.compare_reversed(answered, engine, asked),
            Err(why) => why,
        }
    }

    /// Sends the request to legacy. The error is the label `outcome`.
    async fn ask_legacy(
        &self,
        answered: &EngineAnswered,
        reverse: &ReverseRequest,
    ) -> Result<LegacyAnswer, &'static str> {
        let Some(legacy) = &self.legacy else { return Err("forbidden") };
        let (route, within) = (&answered.flag.route.id, Limits::ms(self.limits.shadow_run_ms));
        let trace = format!("00-{:032x}-{:016x}-01", fastrand::u128(1..), fastrand::u64(1..));
        let trace = HeaderValue::try_from(trace).map_err(|_| "forbidden")?;
        let request = RepeatRequest::of_engine_answer(answered, within, trace).ok_or("forbidden")?;
        self.evidence.may_repeat(route)?;
        let copy = || RequestCopy { body: Bytes::new(), ..RequestCopy::clone(&answered.request) };
        let watch = reverse.effect_registry.as_ref().map(|registry| {
            let body = Some(Arc::new(WholeBody(answered.request.body.clone())) as Arc<dyn SentBody>);
            registry.watch(RequestToWatch { compared: Some(route), request: &copy, sent: request.headers(), body })
        });
        let reply = tokio::time::timeout(within, legacy.ask(request)).await;
        let effects = watch.as_ref().and_then(|watch| watch.effects());
        let is_watched = watch.is_some();
        if let Some(watch) = watch {
            watch.reply_passed_on();
        }
        if let Some(effects) = &effects {
            tokio::time::sleep(effects.window()).await;
            self.note_unattributed_writes(answered, effects);
        }
        let reply = match reply {
            Ok(reply) => reply.map_err(NotRepeated::as_str),
            Err(_) => Err("failed"),
        };
        match (reply, is_watched && effects.is_none()) {
            (Ok(_), true) => Err("effects_unknown"),
            (reply, _) => Ok(LegacyAnswer { reply: reply?, effects }),
        }
    }

    /// Notes the calls for the request by which legacy changed something, or may have.
    fn note_unattributed_writes(&self, answered: &EngineAnswered, effects: &RequestEffects) {
        let route = &answered.flag.route.id;
        self.note_legacy_calls(&answered.flag.route, effects);
        if !effects.unattributed_writes().is_empty() {
            self.evidence.note_reverse_unattributed_writes(route);
        }
    }

    /// Counts the pair. Returns the label `outcome`.
    fn compare_reversed(
        &self,
        answered: &EngineAnswered,
        engine: &Arc<Observation>,
        LegacyAnswer { reply: legacy, effects }: LegacyAnswer,
    ) -> &'static str {
        let EngineAnswered { flags, flag, request, instance, run, cohort, declared, .. } = answered;
        let offered = OfferedRequest {
            method: request.method.clone(),
            cohort: cohort.clone(),
            declared: declared.clone(),
            legacy_status: Some(legacy.status()),
            ..OfferedRequest::new(flag.route.id.clone(), flags.files_version)
        };
        debug_assert_eq!(offered.rung, State::Shadow);
        let ticket = ComparisonTicket::new(offered, self.evidence.clone());
        let pair = Answered {
            flags: Arc::clone(flags),
            flag: Arc::clone(flag),
            mode: Mode::Rehearse,
            request: Arc::clone(request),
            legacy: Arc::new(legacy),
            instance: instance.clone(),
            legacy_keys: KeysOfLegacy { keys: Vec::new(), decided_at: crate::clock::now() },
            effects,
            reads: None,
            repeat: None,
            candidate: None,
            at_legacy: None,
        };
        let report = RunReport { run: *run, ..RunReport::default() };
        match self.compare_answers(ticket, pair, Observation::clone(engine), report) {
            true => "compared",
            false => "not_compared",
        }
    }

    /// Compares an answer of the engine with what legacy answered afterwards, and settles the ticket. Returns whether
    /// it was compared.
    fn compare_answers(
        &self,
        mut ticket: ComparisonTicket,
        answered: Answered,
        engine: Observation,
        report: RunReport,
    ) -> bool {
        let generation = self.evidence.generation(ticket.route(), answered.flags.files_version);
        let (result, stratum) = (EngineResult::Comparable(engine, report), ticket.stratum());
        let compared = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let counted_in = (generation, stratum.as_deref());
            self.compare_and_count(&answered, counted_in, result, None, (&mut None, &mut false))
        }));
        let outcome = compared.unwrap_or(ComparisonOutcome::Failed("panic"));
        ticket.settle(outcome);
        !matches!(outcome, ComparisonOutcome::Skipped(_) | ComparisonOutcome::Failed(_))
    }
}

/// Counts what became of a request that was chosen for a reverse comparison.
pub(super) fn count_reverse(answered: &EngineAnswered, outcome: &'static str) {
    let route = answered.flag.route.id.to_string();
    metrics::counter!("pointsman_reverse_comparisons_total", "route" => route, "outcome" => outcome).increment(1);
}
