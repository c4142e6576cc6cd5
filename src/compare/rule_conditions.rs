//! Evaluates the conditions of rules for a pair.

use std::sync::Arc;

use serde_json::json;

use super::findings::ComparisonFindings;
use super::pair::Pair;
use super::rule_texts::RuleTexts;
use crate::expression::{Expression, ExpressionError, Scope};

/// What conditions read of a pair.
fn scope(pair: &Pair<'_>) -> Scope {
    let mut scope = Scope::new();
    scope.set("request", Arc::new(pair.request.clone()));
    scope.set("legacy", Arc::new(json!({ "status": pair.legacy.status().as_u16() })));
    scope
}

/// Turns off the rules whose condition does not hold or cannot be evaluated. The latter is counted; such a rule does
/// not apply, because a rule makes values equal, and in doubt they count as different.
pub(super) fn turn_off(pair: &Pair<'_>, rules: &RuleTexts, findings: &mut ComparisonFindings<'_>) {
    let mut conditions = rules.conditions().peekable();
    if conditions.peek().is_none() {
        return;
    }
    let scope = scope(pair);
    for (rule, condition) in conditions {
        match condition.holds(&scope) {
            Ok(true) => {}
            Ok(false) => findings.turn_off(rule),
            Err(_) => {
                findings.turn_off(rule);
                rules.note_of_failed_condition(rule).into_iter().for_each(|note| findings.count_note(note));
            }
        }
    }
}

/// Whether the condition of an assert holds.
///
/// # Errors
/// It cannot be evaluated.
pub(super) fn holds(condition: &Expression, pair: &Pair<'_>) -> Result<bool, ExpressionError> {
    condition.holds(&scope(pair))
}
