//! Compares the order of calls: in which order legacy made the calls that are paired with intents.
//!
//! The engine's order is that of its intents: the order of the steps in the plan. Not compared are the order of the
//! items of one step, and that of the calls of `undo:`, which are sent in the reverse order of the steps they undo.

use super::call::EngineCall;
use super::call_template::CallRole;
use super::pairing::{Pairs, StepCalls};
use crate::compare::findings::ComparisonFindings;
use crate::compare::verdict::DifferenceKind;

/// Reports the shared calls that legacy made in another order than the engine would.
pub(super) fn report(
    steps: &[StepCalls<'_>],
    engine: &[EngineCall<'_>],
    pairs: &Pairs,
    findings: &mut ComparisonFindings<'_>,
) {
    let is_shared = |step: &&StepCalls<'_>| {
        let template = step.engine.first().and_then(|n| engine.get(*n)?.template);
        template.is_none_or(|template| template.role == CallRole::Shared) && !step.step.as_str().ends_with(".undo")
    };
    // The calls with their steps. Legacy's calls are indexed in the order in which they began.
    let mut calls: Vec<(usize, usize)> = Vec::new();
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| is_shared(step)) {
        let paired = step.engine.iter().filter_map(|n| pairs.legacy_of.get(*n).copied().flatten());
        calls.extend(paired.map(|call| (call, at)));
    }
    calls.sort_unstable();
    let in_any_order = |at: &usize| steps[*at].rules.any_order.is_some();
    let all: Vec<usize> = calls.into_iter().map(|(_, at)| at).collect();
    let judged: Vec<usize> = all.iter().copied().filter(|at| !in_any_order(at)).collect();
    for (first, second) in swapped(&judged) {
        let (first, second) = (steps[first].step, steps[second].step);
        let texts = (format!("{first}, then {second}"), format!("{second}, then {first}"));
        findings.set_prefix(format!("effects.{first}, effects.{second}"));
        findings.add_text("", DifferenceKind::EffectOrder, Some(&texts.0), Some(&texts.1));
    }
    for (first, second) in swapped(&all) {
        [first, second].iter().filter_map(|at| steps[*at].rules.any_order).for_each(|rule| findings.count_use(rule));
    }
}

/// Returns the neighbours of which the first comes after the second in the engine's order. There are none if and only
/// if the whole list is in the engine's order.
fn swapped(order: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    order.windows(2).filter_map(|pair| match pair {
        [first, second] if first > second => Some((*first, *second)),
        _ => None,
    })
}
