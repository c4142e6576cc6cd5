//! Decides whether the evidence of a candidate allows it to be in force; and whether the calls of shared steps were
//! compared, which the gate to `live` asks too.

use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::JudgedRoute;
use super::gate_words::{ComparedWith, first_of};
use crate::flag::State;

/// The conditions for a larger share of the candidate of a route, and for putting it in force. Its pairs are rehearsals
/// that were compared with what the plan in force answered and sent; what it has answered itself must not have failed.
pub fn candidate_conditions(route: &JudgedRoute<'_>) -> Vec<Condition> {
    let mut conditions = route.of_pairs(State::Shadow);
    let answers = route.evidence.answers.over(route.promote.window, route.now);
    conditions.extend(route.errors_of_answers(answers));
    conditions.push(route.effects(State::Shadow, ComparedWith::PlanInForce));
    conditions
}

impl JudgedRoute<'_> {
    pub(super) fn effects(&self, rung: State, held_against: ComparedWith) -> Condition {
        let name = Name::EffectsCompared;
        if !self.promote.effects_compared {
            return pass(name, "not required (`effects_compared: false`)".to_owned());
        }
        // For `dark` only those made there: what was compared in `shadow` may have been another kind of request.
        let counts = self.evidence.counts_at(rung);
        let in_dark = if rung == State::Dark { " in dark" } else { "" };
        let wanted = self.promote.coverage_at_least;
        let uncompared: Vec<String> = counts
            .uncompared(self.shared_steps, wanted)
            .map(|step| {
                let of_step = counts.effects.get(step.as_str()).copied().unwrap_or_default();
                format!("`{step}` ({} of {} calls)", of_step.compared + of_step.asserted, of_step.intents)
            })
            .collect();
        let own = (!uncompared.is_empty()).then(|| {
            format!(
                "too few calls of shared steps{in_dark} were held against a call by {} or an `assert` (at least one, \
                 and {} %): {}. {}",
                held_against.caller(),
                wanted * 100.0,
                uncompared.join(", "),
                held_against.advice(),
            )
        });
        let below = (!self.shared_steps_below.is_empty()).then(|| {
            format!(
                "the calls of shared steps of workflows that it runs are compared with nothing: {}. Make the calls in the \
                 route's own workflow, or say in `compare.effects.STEP.unseen` of the step that runs the workflow why they \
                 need no comparison",
                first_of(self.shared_steps_below, ", ")
            )
        });
        let unknown = counts.legacy_calls.why_not_known(wanted);
        let missing: Vec<String> = own.into_iter().chain(below).chain(unknown).collect();
        if missing.is_empty() {
            let steps = self.shared_steps.len();
            return pass(
                name,
                format!("the calls of each of {steps} shared steps were held against something{in_dark}"),
            );
        }
        Condition { name, verdict: Verdict::Inconclusive, detail: missing.join("; and ") }
    }
}
