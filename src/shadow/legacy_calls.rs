//! The calls that legacy made for one request, from which the engine's steps take their outputs (`rehearse: legacy`).
//!
//! Always true: only calls that were known when the engine's run began are used, so that `corresponding` returns the
//! same for the same arguments. The wait for them is bounded by `egress_rehearse_wait_ms` and by `egress.window`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::compare::{CompareBounds, CorrespondingCall, Effect, EffectReply, Intent, Rules, corresponding_call};
use crate::exchange::{LegacyCalls, RequestEffects};
use crate::limits::Limits;
use crate::names::RouteId;

/// The pauses between two looks at what is known of legacy's calls: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The calls that legacy made for one request, as of one moment.
pub(super) struct CallsOfRequest {
    route: RouteId,
    rules: Arc<Rules>,
    bounds: CompareBounds,
    /// How long one search may take.
    within: Duration,
    calls: Vec<Arc<Effect>>,
    /// Whether there may be more calls, because some could not be attributed or kept.
    is_incomplete: bool,
    /// Whether the outcomes of searches are counted in the metric. `false` for a run that repeats an earlier one.
    is_counted: bool,
    /// Whether the run is a candidate's: the calls are then those of the plan in force.
    of_candidate: bool,
}

impl CallsOfRequest {
    pub(super) fn new(
        route: RouteId,
        rules: Arc<Rules>,
        effects: &RequestEffects,
        limits: &Limits,
        is_counted: bool,
        of_candidate: bool,
    ) -> Self {
        let so_far = effects.so_far();
        Self {
            route,
            rules,
            bounds: CompareBounds::of(limits),
            within: Limits::ms(limits.compare_ms),
            calls: so_far.calls.into_iter().map(Arc::new).collect(),
            is_incomplete: so_far.gaps > 0,
            is_counted,
            of_candidate,
        }
    }

    /// The end of an error text: where to look for calls that were attributed to no request. Empty for a candidate: the
    /// calls of the plan in force, with which it is compared, are all known.
    fn where_to_look(&self) -> String {
        match self.of_candidate {
            true => String::new(),
            false => format!(": `pointsman egress {}` shows which calls belong to no request", self.route),
        }
    }

    fn find(
        &self,
        intent_and_siblings: (&Intent, &dyn Fn() -> Vec<Intent>),
        assigned: &BTreeSet<u64>,
    ) -> (&'static str, FoundCall) {
        if self.is_incomplete {
            let why = "some calls could be this request's or another's, or were not kept";
            return ("incomplete", Err(format!("{why}{}", self.where_to_look())));
        }
        let end = Instant::now() + self.within;
        let expired = || Instant::now() >= end;
        match corresponding_call(&self.rules, &self.calls, intent_and_siblings, assigned, &self.bounds, &expired) {
            Ok(CorrespondingCall::One { number, reply }) => ("taken", Ok((number, reply))),
            Ok(CorrespondingCall::Ambiguous(1)) => {
                ("ambiguous", Err("the only call by legacy that fits may be another step's".to_owned()))
            }
            Ok(CorrespondingCall::Ambiguous(many)) => ("ambiguous", Err(format!("{many} calls by legacy fit equally"))),
            Ok(CorrespondingCall::None { nearest: Some(nearest) }) => {
                ("none", Err(format!("no call by legacy corresponds; the nearest is `{nearest}`")))
            }
            Ok(CorrespondingCall::None { nearest: None }) => {
                let why = "no call by legacy is known to be for this request";
                ("none", Err(format!("{why}{}", self.where_to_look())))
            }
            Err(exceeded) => ("over_budget", Err(exceeded.to_string())),
        }
    }
}

/// The number of the call by legacy that corresponds, and its reply; or why none was found.
type FoundCall = Result<(u64, Option<EffectReply>), String>;

impl LegacyCalls for CallsOfRequest {
    fn corresponding(
        &self,
        intent: &Intent,
        siblings: &dyn Fn() -> Vec<Intent>,
        assigned: &BTreeSet<u64>,
    ) -> FoundCall {
        let (outcome, found) = self.find((intent, siblings), assigned);
        if self.is_counted {
            let route = self.route.to_string();
            metrics::counter!("pointsman_effects_rehearsed_total", "route" => route, "outcome" => outcome).increment(1);
        }
        found
    }
}

/// Waits until no call that could be this request's is open and each step that takes a reply has a call that may be its
/// own, but no longer than until `end`.
pub(super) async fn wait_for_calls(effects: &RequestEffects, rules: &Rules, end: tokio::time::Instant) {
    let mut pause = PAUSES.0;
    loop {
        let so_far = effects.so_far();
        let is_there = so_far.open == 0 && rules.all_replies_may_be_there(&so_far.calls);
        if is_there || tokio::time::Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + pause)).await;
        pause = PAUSES.1.min(pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::StepId;

    #[test]
    fn where_no_call_is_known_the_reason_names_the_command_that_shows_those_of_no_request() {
        let found = |of_candidate: bool, has_gap: bool| {
            let effects = RequestEffects::new(Duration::from_secs(1));
            if has_gap {
                effects.add_gap();
            }
            let (rules, limits) = (Arc::new(Rules::default()), Limits::default());
            let calls = CallsOfRequest::new("orders".into(), rules, &effects, &limits, false, of_candidate);
            let intent = Intent {
                step: StepId::from("charge"),
                item: None,
                method: http::Method::POST,
                url: "http://bank.test/charges".to_owned(),
                headers: Vec::new(),
                body: serde_json::Value::Null,
                service: None,
                bytes: None,
                taken_from: None,
            };
            calls.corresponding(&intent, &Vec::new, &BTreeSet::new()).err().unwrap_or_default()
        };
        for has_gap in [true, false] {
            assert!(found(false, has_gap).contains(": `pointsman egress orders` shows"), "{}", found(false, has_gap));
            assert!(!found(true, has_gap).contains("pointsman egress"), "{}", found(true, has_gap));
        }
    }
}
