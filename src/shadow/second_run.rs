//! Runs the engine a second time for a rehearsed request, from the same inputs, and counts where its results differ.
//!
//! The second run gets the same request, reply and calls by legacy, and its reads are answered with what the first run
//! read; it has a clock, ids and random values of its own. So a difference comes from these, or from the order in
//! which parallel steps end: only a rule that says how the value may differ makes it equal to legacy's.
//!
//! Always true: it sends nothing, and it runs only if a slot is free, so that no request waits for it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::sync::watch;

use super::compared::{ComparedRequest, FirstRun};
use super::engine_result::EngineResult;
use super::in_flight::RunInFlight;
use super::run::Runner;
use super::shared_bound::SharedBound;
use super::stop::Stop;
use crate::compare::{Body, CapturedReads, CompareBounds, Effect, Intent, Observation, Pair, Rules, compare};
use crate::evidence::EnginePlaces;
use crate::exchange::{Answered, ProblemDocument, Reads, ReplayedReads, request_value};
use crate::limits::Limits;

impl Runner {
    /// Runs the engine a second time if the request was chosen for that, unless a stop is asked for.
    pub(super) async fn run_again(
        &self,
        compared: &ComparedRequest,
        slots: &Arc<SharedBound>,
        mut stop: watch::Receiver<Stop>,
    ) {
        let Some(first) = &compared.first else { return };
        let outcome = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop != Stop::No) => "shutting_down",
            outcome = self.try_run_again(compared, first, slots) => outcome,
        };
        let route = compared.answered.flag.route.id.to_string();
        metrics::counter!("pointsman_second_runs_total", "route" => route, "outcome" => outcome).increment(1);
    }

    /// Returns the label `outcome`.
    async fn try_run_again(
        &self,
        compared: &ComparedRequest,
        first: &FirstRun,
        slots: &Arc<SharedBound>,
    ) -> &'static str {
        let ComparedRequest { answered, generation, .. } = compared;
        let route = &answered.flag.route.id;
        if !self.evidence.is_of(route, *generation) {
            return "files_changed";
        }
        let Some(reads) = first.reads.all() else { return "reads_too_large" };
        let Some(_slot) = slots.take(route, 1) else { return "busy" };
        let _in_flight = RunInFlight::begin(&self.in_flight);
        let reads = Arc::new(ReplayedReads::new(CapturedReads::of_run(reads)));
        let result = self.ask(answered, Some(reads.clone() as Arc<dyn Reads>)).await;
        // The second run made a read that the first one did not, because of its own clock, ids or random values.
        let places = match (result, reads.unanswered()) {
            (_, Some(_)) => EnginePlaces::other_read(),
            (Ok(EngineResult::Comparable(second, _)), None) => {
                let rules = self.rules_of(route);
                let judged = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    self.places(answered, &rules, &first.engine, &second)
                }));
                match judged.ok().flatten() {
                    Some(places) => places,
                    None => return "not_compared",
                }
            }
            (Ok(EngineResult::Stopped(..) | EngineResult::NotComparable(..)) | Err(_), None) => return "failed",
        };
        match self.evidence.record_second_run(route, *generation, &places) {
            false => "files_changed",
            true if places.is_empty() => "equal",
            true => "differs",
        }
    }

    /// Where two results of the engine differ under the rules of the route: in the reply, and in the calls that its
    /// steps would have made. `None`: not compared within the bounds.
    fn places(
        &self,
        answered: &Answered,
        rules: &Rules,
        first: &Observation,
        second: &Observation,
    ) -> Option<EnginePlaces> {
        let request = if rules.reads_request() { request_value(&answered.request) } else { Value::Null };
        let (effects, second) = first_run_as_effects(first, second, |intent| rules.makes_as_effect(intent));
        let pair = Pair {
            legacy: first,
            engine: &second,
            effects: Some(&effects),
            request: &request,
            instance: None,
            stale_reads: false,
            // Of the differences only the places are kept, and no values.
            sensitive: None,
        };
        let end = Instant::now() + Limits::ms(self.limits.compare_ms).min(Duration::from_secs(1));
        let comparison = compare(&pair, rules, &CompareBounds::of(&self.limits), &|| Instant::now() >= end).ok()?;
        let mut places = EnginePlaces::of(&comparison);
        if is_own_problem(first) && is_own_problem(&second) {
            places.remove(RUN_OF_PROBLEM);
        }
        Some(places)
    }
}

/// Where our own problem documents name their run, which is another one each time.
const RUN_OF_PROBLEM: &str = "value $.run";

/// Whether a run was answered with a problem document of ours and not with one that its workflow made.
fn is_own_problem(seen: &Observation) -> bool {
    let Body::Whole(body) = seen.body() else { return false };
    let is_problem = seen.headers().get(CONTENT_TYPE).is_some_and(|of| of == "application/problem+json");
    is_problem && serde_json::from_slice::<ProblemDocument>(body).is_ok()
}

/// The calls that the first run would have made, as effects numbered in the order of its intents, and the second run
/// with intents that refer to these numbers. Legacy's numbers cannot be kept: only steps that took their output from a
/// call by legacy have one. Intents of the two runs that took their output from the same call by legacy are paired.
///
/// For example, the first run's intents are `reserve`, with the output of its `rehearse:`, and `charge`, with that of
/// legacy's call 3. They become the effects 1 and 2. In the second run, an intent that was taken from call 3 is now
/// taken from effect 2; one that was taken from a call that the first run did not take is taken from none.
fn first_run_as_effects(
    first: &Observation,
    second: &Observation,
    is_effect: impl Fn(&Intent) -> bool,
) -> (Vec<Arc<Effect>>, Observation) {
    let made: Vec<(u64, &Intent)> = (1..).zip(first.intents().iter().filter(|intent| is_effect(intent))).collect();
    let number_by_taken: BTreeMap<u64, u64> =
        made.iter().filter_map(|(number, intent)| Some((intent.taken_from?, *number))).collect();
    let of_second = second.intents().iter().map(|intent| {
        let taken_from = intent.taken_from.and_then(|taken| number_by_taken.get(&taken).copied());
        Intent { taken_from, ..intent.clone() }
    });
    let second = second.clone().with_intents(of_second.collect());
    let effects = made.into_iter().map(|(number, intent)| Arc::new(Effect::of_intent(intent, number)));
    (effects.collect(), second)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exchange::RunReport;
    use crate::shadow::engine_result::refused;

    #[test]
    fn only_pointsmans_own_problem_documents_are_recognised() {
        let own = refused(ProblemDocument::no_such_instance(), RunReport::default(), Duration::ZERO);
        let EngineResult::Comparable(own, _) = own else { panic!("it is compared") };
        assert!(is_own_problem(&own));
        let of_workflow = |kind: &'static str, body: Value| {
            let headers = [(CONTENT_TYPE, http::HeaderValue::from_static(kind))].into_iter().collect();
            let (status, body) = (http::StatusCode::CONFLICT, Body::Whole(body.to_string().into()));
            Observation::new(status, headers, body, Duration::ZERO, Vec::new())
        };
        assert!(!is_own_problem(&of_workflow("application/problem+json", json!({ "title": "sold out", "run": 7 }))));
        assert!(!is_own_problem(&of_workflow("application/json", json!({ "run": 7 }))));
    }

    /// `charge` took its output from legacy's call 3, `reserve` and `mail` from their own `rehearse:`.
    #[test]
    fn the_calls_of_the_first_run_have_the_order_of_its_intents() {
        let run = |calls: &[(&str, Option<u64>)]| {
            let intent = |(step, taken_from): &(&str, Option<u64>)| Intent {
                step: (*step).into(),
                item: None,
                method: http::Method::POST,
                url: format!("http://world/{step}"),
                headers: Vec::new(),
                body: Value::Null,
                service: None,
                bytes: None,
                taken_from: *taken_from,
            };
            let intents = calls.iter().map(intent).collect();
            Observation::new(http::StatusCode::OK, Default::default(), Body::TooLarge, Duration::ZERO, intents)
        };
        let calls = [("look", None), ("reserve", None), ("charge", Some(3)), ("mail", None), ("void", Some(9))];
        let (effects, second) =
            first_run_as_effects(&run(&calls[..4]), &run(&calls), |intent| intent.step.as_str() != "look");
        let made: Vec<_> = effects.iter().map(|effect| (effect.url.as_str(), effect.number)).collect();
        assert_eq!(made, [("http://world/reserve", 1), ("http://world/charge", 2), ("http://world/mail", 3)]);
        let taken: Vec<_> = second.intents().iter().map(|intent| intent.taken_from).collect();
        assert_eq!(taken, [None, None, Some(2), None, None], "`charge` of both runs took the same reply");
    }
}
