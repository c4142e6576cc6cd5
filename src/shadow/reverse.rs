//! Asks legacy what it would have answered to a request that the engine has answered, and compares (a reverse
//! comparison).
//!
//! Always true: only requests of routes that are declared safe to repeat are asked, and none of a route for which
//! legacy was seen to change something. At most [`REPEATS_IN_FLIGHT_MAX`](super::repeat::REPEATS_IN_FLIGHT_MAX) are
//! under way, those included that are sent a second time; a request that finds no room is not asked. Such a pair counts
//! as one of `shadow`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tokio::sync::watch;

use super::engine_result::EngineResult;
use super::run::Runner;
use super::stop::Stop;
use crate::compare::Observation;
use crate::exchange::{
    Answered, ComparisonOutcome, ComparisonTicket, EngineAnswered, KeysOfLegacy, NotRepeated, OfferedRequest,
    RepeatRequest, RunReport,
};
use crate::flag::State;
use crate::limits::Limits;
use crate::workflow::Mode;

impl Runner {
    /// Asks legacy if the request was chosen for that, unless a stop is asked for.
    pub(super) async fn compare_with_legacy(&self, answered: &EngineAnswered, mut stop: watch::Receiver<Stop>) {
        let (Some(_), Ok(engine)) = (&answered.reverse, &answered.answer) else { return };
        let outcome = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => "shutting_down",
            legacy = self.ask_legacy(answered) => match legacy {
                Ok(legacy) => self.compare_reversed(answered, engine, legacy),
                Err(why) => why,
            },
        };
        let route = answered.flag.route.id.to_string();
        metrics::counter!("pointsman_reverse_comparisons_total", "route" => route, "outcome" => outcome).increment(1);
    }

    /// The error is the label `outcome`.
    async fn ask_legacy(&self, answered: &EngineAnswered) -> Result<Observation, &'static str> {
        let Some(legacy) = &self.legacy else { return Err("forbidden") };
        let within = Limits::ms(self.limits.shadow_run_ms);
        let request = RepeatRequest::of_engine_answer(answered, within).ok_or("forbidden")?;
        self.evidence.may_repeat(&answered.flag.route.id)?;
        let Ok(_permit) = self.repeats.try_acquire() else { return Err("busy") };
        match tokio::time::timeout(within, legacy.ask(request)).await {
            Ok(reply) => reply.map_err(NotRepeated::as_str),
            Err(_) => Err("failed"),
        }
    }

    /// Counts the pair. Returns the label `outcome`.
    fn compare_reversed(
        &self,
        answered: &EngineAnswered,
        engine: &Arc<Observation>,
        legacy: Observation,
    ) -> &'static str {
        let EngineAnswered { flags, flag, request, instance, run, .. } = answered;
        let offered = OfferedRequest {
            method: request.method.clone(),
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
            effects: None,
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
        ticket: ComparisonTicket,
        answered: Answered,
        engine: Observation,
        report: RunReport,
    ) -> bool {
        let generation = self.evidence.generation(ticket.route(), answered.flags.files_version);
        let (result, stratum) = (EngineResult::Comparable(engine, report), ticket.stratum());
        let compared = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let of = (generation, stratum.as_deref());
            self.compare_and_count(&answered, of, result, None, (&mut None, &mut false))
        }));
        let outcome = compared.unwrap_or(ComparisonOutcome::Failed("panic"));
        ticket.settle(outcome);
        !matches!(outcome, ComparisonOutcome::Skipped(_) | ComparisonOutcome::Failed(_))
    }
}
