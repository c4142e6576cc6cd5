//! Decides whether the evidence of a candidate allows it to be in force.

use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::JudgedRoute;
use super::gate_text::{AnswersOf, ComparedWith};
use super::guard::CleanPairs;
use super::guard_stop::GuardStop;
use crate::flag::State;

/// The conditions for a larger share of the candidate of a route, and for putting it in force. Its pairs are rehearsals
/// that were compared with what the plan in force answered and sent. Its own answers to callers must not have more
/// errors, and not more refusals (4xx), than those of the plan in force.
///
/// `stopped`: set if the guard has stopped the candidate; with the pairs in a row without a difference since then, if
/// enough of them release it.
pub fn candidate_conditions(
    route: &JudgedRoute<'_>,
    stopped: Option<(&GuardStop, Option<CleanPairs>)>,
) -> Vec<Condition> {
    let mut conditions = route.of_pairs(State::Shadow);
    let answers = route.evidence.answers.over(route.promote.window, route.now);
    conditions.extend(route.errors_of_answers(answers, AnswersOf::Candidate));
    conditions.extend(route.client_errors(answers, AnswersOf::Candidate));
    conditions.extend(stopped.map(|(stop, clean)| route.not_stopped(stop, clean)));
    conditions.extend(route.invariants());
    conditions.push(route.effects(State::Shadow, ComparedWith::PlanInForce));
    conditions
}

impl JudgedRoute<'_> {
    /// The condition on a candidate that the guard has stopped. `clean`: the pairs in a row without a difference since
    /// then, if enough of them release it.
    pub(super) fn not_stopped(&self, GuardStop { at, why }: &GuardStop, clean: Option<CleanPairs>) -> Condition {
        let found = format!("the guard has taken its share of new requests away ({at:.0}): {why}");
        let wanted = self.promote.pairs;
        match clean {
            Some(clean) if clean.pairs < wanted => {
                let detail = format!("{found}; needs {} more clean pairs in a row", wanted - clean.pairs);
                Condition { name: Name::StoppedByGuard, verdict: Verdict::Inconclusive, detail }
            }
            Some(clean) if clean.coverage() < self.promote.coverage_at_least => {
                let covered = clean.coverage() * 100.0;
                let detail = format!("{found}; {covered:.1} % of the requests since then were compared");
                Condition { name: Name::StoppedByGuard, verdict: Verdict::Inconclusive, detail }
            }
            Some(clean) => pass(Name::StoppedByGuard, format!("{found}; {} clean pairs in a row since", clean.pairs)),
            None => {
                let detail = format!(
                    "{found}. Change the workflow, or the address of the service that failed; or pass the gate with \
                     `--force --reason …`"
                );
                Condition { name: Name::StoppedByGuard, verdict: Verdict::Fail, detail }
            }
        }
    }
}
