//! Compares the order of calls: in which order legacy made the calls that are paired with intents.
//!
//! The engine's order is that of its intents: the order of the steps in the plan. If neither of two steps needs the
//! other, the engine may send their calls at the same time: that is a difference where legacy began the second call
//! when it had the reply to the first. Not compared are the order of the items of one step, that of the steps of a
//! workflow that is run for each item, and that of the calls of `undo:`, which are sent in the reverse order of the
//! steps they undo.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Call, EngineCall};
use super::call_template::CallRole;
use super::pairing::{Pairs, StepCalls};
use crate::compare::findings::ComparisonFindings;
use crate::compare::verdict::DifferenceKind;
use crate::names::{OF_UNDO, StepId};

/// Reports the shared calls that legacy made in another order than the engine would.
pub(super) fn report(
    steps: &[StepCalls<'_>],
    engine: &[EngineCall<'_>],
    legacy: &[Call<'_>],
    pairs: &Pairs,
    findings: &mut ComparisonFindings<'_>,
) {
    let is_shared = |step: &&StepCalls<'_>| {
        let template = step.engine.first().and_then(|n| engine.get(*n)?.template);
        template.is_none_or(|template| template.role == CallRole::Shared) && !step.step.as_str().ends_with(OF_UNDO)
    };
    // The calls with their steps. Legacy's calls are indexed in the order in which they began.
    let mut calls: Vec<(usize, usize)> = Vec::new();
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| is_shared(step)) {
        let paired = step.engine.iter().filter_map(|n| pairs.legacy_of.get(*n).copied().flatten());
        calls.extend(paired.map(|call| (call, at)));
    }
    calls.sort_unstable();
    let in_any_order = |at: &usize| steps[*at].rules.any_order.is_some();
    let all: Vec<usize> = calls.iter().map(|(_, at)| *at).collect();
    let judged: Vec<usize> = all.iter().copied().filter(|at| !in_any_order(at)).collect();
    let in_one_fan_out = |(first, second): &(usize, usize)| {
        let fan_out = |at: usize| fan_out_of(&steps[at], engine);
        fan_out(*first).is_some() && fan_out(*first) == fan_out(*second)
    };
    for (first, second) in swapped(&judged).filter(|pair| !in_one_fan_out(pair)) {
        let (first, second) = (steps[first].step, steps[second].step);
        let texts = (format!("{first}, then {second}"), format!("{second}, then {first}"));
        findings.set_prefix(format!("effects.{first}, effects.{second}"));
        findings.add_text("", DifferenceKind::EffectOrder, Some(&texts.0), Some(&texts.1));
    }
    let at_the_same_time = unordered(&calls, steps, engine, legacy);
    for (first, second) in at_the_same_time.iter().filter(|pair| !in_one_fan_out(pair)) {
        let rules: Vec<_> = [first, second].iter().filter_map(|at| steps[**at].rules.any_order).collect();
        rules.iter().for_each(|rule| findings.count_use(*rule));
        if rules.is_empty() {
            let (first, second) = (steps[*first].step, steps[*second].step);
            let texts = (format!("{first}, then {second}"), format!("{first} and {second} at the same time"));
            findings.set_prefix(format!("effects.{first}, effects.{second}"));
            findings.add_text("", DifferenceKind::EffectOrder, Some(&texts.0), Some(&texts.1));
        }
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

/// The most steps with calls of which each two are judged.
const STEPS_MAX: usize = 64;

/// The steps, two and two, that the engine may send at the same time although legacy made all calls of the first before
/// those of the second. `calls`: legacy's calls with the indexes of their steps, in legacy's order.
fn unordered(
    calls: &[(usize, usize)],
    steps: &[StepCalls<'_>],
    engine: &[EngineCall<'_>],
    legacy: &[Call<'_>],
) -> Vec<(usize, usize)> {
    // By step: the number of its first call, and the number from which on calls began after its last reply.
    let mut spans: BTreeMap<usize, (u64, Option<u64>)> = BTreeMap::new();
    for (call, at) in calls {
        let Some((call, number)) = legacy.get(*call).and_then(|call| Some((call, call.number?))) else { continue };
        let span = spans.entry(*at).or_insert((number, Some(0)));
        span.0 = span.0.min(number);
        span.1 = span.1.zip(call.replied_before).map(|(a, b)| a.max(b));
    }
    let after = |at: &usize| {
        let template = steps[*at].engine.first().and_then(|n| engine.get(*n)?.template);
        template.map(|template| &template.after)
    };
    let mut found = Vec::new();
    let judged: Vec<_> = spans.iter().take(STEPS_MAX).collect();
    for (n, (one, of_one)) in judged.iter().enumerate() {
        for (other, of_other) in &judged[n + 1..] {
            let (Some(before_one), Some(before_other)) = (after(one), after(other)) else { continue };
            if contains(before_one, steps[**other].step) || contains(before_other, steps[**one].step) {
                continue;
            }
            let precedes = |a: &(u64, Option<u64>), b: &(u64, Option<u64>)| a.1.is_some_and(|end| end <= b.0);
            if precedes(of_one, of_other) {
                found.push((**one, **other));
            } else if precedes(of_other, of_one) {
                found.push((**other, **one));
            }
        }
    }
    found
}

/// The step that runs a workflow for each item, if this step is below one.
fn fan_out_of<'e>(step: &StepCalls<'_>, engine: &[EngineCall<'e>]) -> Option<&'e StepId> {
    step.engine.first().and_then(|n| engine.get(*n)?.template)?.fan_out.as_ref()
}

/// Whether a step is among others, or a step that runs it is: `pay` for `pay/charge`.
fn contains(steps: &BTreeSet<StepId>, step: &StepId) -> bool {
    let mut above = std::iter::successors(Some(step.as_str()), |name| Some(name.rsplit_once('/')?.0));
    above.any(|name| steps.contains(name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::compare::effects::tests::{CHARGES, charge, checked, compared, intent, posted};
    use crate::compare::{DifferenceKind, Effect};

    const MAILS: &str = "http://mailer/orders/7/mails";

    /// The paths of the differences in order, where legacy charged and then mailed; the reply to the charge came before
    /// the call with this number began. `needs`: the step `mail` needs `charge`.
    fn found(replied_before: Option<u64>, needs: bool, rules: &Value) -> Vec<String> {
        found_below(None, replied_before, needs, rules)
    }

    /// As `found`, where a step runs the workflow of both for each item.
    fn found_below(fan_out: Option<&str>, replied_before: Option<u64>, needs: bool, rules: &Value) -> Vec<String> {
        let mut rules = checked(rules).unwrap();
        rules.effects.templates.iter_mut().for_each(|template| template.fan_out = fan_out.map(Into::into));
        for template in rules.effects.templates.iter_mut().filter(|_| needs) {
            if template.step.as_ref().is_some_and(|step| step.as_str() == "mail") {
                template.after = ["charge".into()].into();
            }
        }
        let charged = Effect { replied_before, ..posted(CHARGES, json!({ "amount": 1 })) };
        let effects = vec![charged, posted(MAILS, json!({ "to": "a" }))];
        let intents = vec![charge(json!({ "amount": 1 })), intent("mail", None, "POST", MAILS, json!({ "to": "a" }))];
        let comparison = compared((&json!(1), &json!(1)), effects, intents, &rules).unwrap();
        let is_order = |kind| kind == DifferenceKind::EffectOrder;
        comparison.differences.into_iter().filter(|d| is_order(d.kind)).map(|d| d.path).collect()
    }

    #[test]
    fn a_step_that_does_not_wait_for_what_legacy_did_before_is_a_difference_in_order() {
        let none: [&str; 0] = [];
        assert_eq!(found(Some(1), false, &json!({})), ["effects.charge, effects.mail"]);
        assert_eq!(found(Some(1), true, &json!({})), none, "it waits");
        assert_eq!(found(Some(2), false, &json!({})), none, "legacy had no reply yet when it began the mail");
        assert_eq!(found(None, false, &json!({})), none, "that is not known");
        assert_eq!(found_below(Some("ship"), Some(1), false, &json!({})), none, "the runs of items overlap");
        let any_order = json!({ "effects": { "mail": { "any_order": true } } });
        assert_eq!(found(Some(1), false, &any_order), none);
    }
}
