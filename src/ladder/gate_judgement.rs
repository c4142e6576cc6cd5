//! The judgement of the gates on the way of a move: the reasons of a refusal and the text of the record are both made
//! from it. The text for the record is made only for a move that is recorded.

use crate::evidence::{Condition, ConditionName, GateVerdict};
use crate::flag::{Promote, State};
use crate::secret::{LengthMax, masked_and_cut};
use crate::store::{JudgedCondition, JudgedGate};

/// The longest sentence in a record.
const FOUND_BYTES_MAX: usize = 300;
/// The most sentences of a gate in a record that are not about the route's own evidence.
const OTHERS_MAX: usize = 8;

/// The gates on the way of a move.
pub(super) struct JudgedGates {
    pub on_the_way: Vec<Judgement>,
    /// The gate to `dark`, of a move to `live` that enlarges the share of `dark`: callers outside the share of `live`
    /// are in `dark`.
    pub of_dark: Option<Judgement>,
}

/// The judgement of one gate.
pub(super) struct Judgement {
    pub from: State,
    pub to: State,
    /// The conditions on the route's own evidence, whether they hold or not.
    pub conditions: Vec<Condition>,
    /// The other conditions that do not hold, as sentences.
    pub others: Vec<String>,
    /// The conditions that the evidence of the route's followers does not meet, as sentences.
    pub of_followers: Vec<String>,
}

impl Judgement {
    fn unmet(&self) -> Vec<String> {
        let others = self.others.iter().chain(&self.of_followers).cloned();
        sentences(self.conditions.clone()).chain(others).collect()
    }

    fn recorded(&self, promote: &Promote) -> JudgedGate {
        let others = self.others.iter().chain(&self.of_followers).take(OTHERS_MAX);
        let others = others.map(|why| JudgedCondition {
            name: "other".to_owned(),
            verdict: GateVerdict::Fail.as_str().to_owned(),
            wanted: None,
            found: bounded(why),
        });
        let conditions = recorded_conditions(&self.conditions, promote).into_iter().chain(others).collect();
        JudgedGate { from: self.from.as_str().to_owned(), to: self.to.as_str().to_owned(), conditions }
    }
}

impl JudgedGates {
    /// Why the gates are shut, as sentences.
    pub fn unmet(&self) -> Vec<String> {
        let of_dark = self.of_dark.iter().flat_map(Judgement::unmet);
        let on_the_way = match &self.on_the_way[..] {
            [] => Vec::new(),
            [only] => only.unmet(),
            [first, .., last] => {
                let (from, to) = (first.from, last.to);
                let jump = format!("goes up one rung at a time, and `{from}` to `{to}` is more than one");
                // Force would override all gates on the way, so the refusal names the other conditions of all of them.
                let others = self.on_the_way.iter().flat_map(|gate| gate.others.iter().cloned());
                [jump].into_iter().chain(others).collect()
            }
        };
        on_the_way.into_iter().chain(of_dark).collect()
    }

    /// Whether the gate to `dark` is shut for the larger share of `dark`.
    pub fn is_dark_shut(&self) -> bool {
        self.of_dark.as_ref().is_some_and(|gate| !gate.unmet().is_empty())
    }

    /// The gates as the record of the move has them.
    pub fn recorded(&self, promote: &Promote) -> Vec<JudgedGate> {
        let gates = self.on_the_way.iter().chain(&self.of_dark).map(|gate| gate.recorded(promote));
        gates.filter(|gate| !gate.conditions.is_empty()).collect()
    }
}

/// A gate of which only the conditions on evidence were judged, as a record has it.
pub(super) fn recorded_gate((from, to): (&str, &str), conditions: &[Condition], promote: &Promote) -> JudgedGate {
    JudgedGate { from: from.to_owned(), to: to.to_owned(), conditions: recorded_conditions(conditions, promote) }
}

fn recorded_conditions(conditions: &[Condition], promote: &Promote) -> Vec<JudgedCondition> {
    let settings = promote.settings();
    let of_condition = |Condition { name, verdict, detail }: &Condition| {
        let key = match name {
            ConditionName::CandidateErrors => ConditionName::ErrorsNotWorseBy,
            other => *other,
        };
        JudgedCondition {
            name: name.as_str().to_owned(),
            verdict: verdict.as_str().to_owned(),
            wanted: settings.get(key.as_str()).cloned(),
            found: bounded(detail),
        }
    };
    conditions.iter().map(of_condition).collect()
}

fn bounded(sentence: &str) -> String {
    masked_and_cut(sentence, str::to_owned, LengthMax::Bytes(FOUND_BYTES_MAX))
}

/// The conditions that do not hold, as sentences.
pub(super) fn sentences(conditions: Vec<Condition>) -> impl Iterator<Item = String> {
    conditions.into_iter().filter(|condition| condition.verdict != GateVerdict::Pass).map(|condition| condition.detail)
}
