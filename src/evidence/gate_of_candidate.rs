//! Decides whether the evidence of a candidate allows it to be in force.

use super::conditions::Condition;
use super::gate::JudgedRoute;
use super::gate_text::{AnswersOf, ComparedWith};
use crate::flag::State;

/// The conditions for a larger share of the candidate of a route, and for putting it in force. Its pairs are rehearsals
/// that were compared with what the plan in force answered and sent; what it has answered itself must not have failed.
pub fn candidate_conditions(route: &JudgedRoute<'_>) -> Vec<Condition> {
    let mut conditions = route.of_pairs(State::Shadow);
    let answers = route.evidence.answers.over(route.promote.window, route.now);
    conditions.extend(route.errors_of_answers(answers, AnswersOf::Candidate));
    conditions.extend(route.invariants());
    conditions.push(route.effects(State::Shadow, ComparedWith::PlanInForce));
    conditions
}
