//! Compares the order of calls: in which order legacy made the calls that are paired with intents.
//!
//! The engine's order is that of its intents: the order of the steps in the plan. If neither of two steps needs the
//! other, the engine may send their calls at the same time: that is a difference where legacy began the second call
//! when it had the reply to the first. Not compared are the order of the items of one step, that of the steps of a
//! workflow that is run for each item, and that of the calls of `undo:`, which are sent in the reverse order of the
//! steps they undo.
//!
//! Calls that legacy had under way at the same time have no order. In another request they may happen to follow each
//! other. So the orders that legacy did not keep are noted, for whoever looks at many requests.

use std::collections::{BTreeMap, BTreeSet};

use super::call::{Call, EngineCall};
use super::call_template::CallRole;
use super::pairing::Pairs;
use super::step_calls::StepCalls;
use crate::compare::findings::ComparisonFindings;
use crate::compare::verdict::DifferenceKind;
use crate::names::{OF_UNDO, StepId};

/// The most steps of which each two are judged.
const STEPS_MAX: usize = 64;

/// Reports the shared calls that legacy made in another order than the engine would, and notes which orders it did not
/// keep.
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
    let order = Order { steps, engine, spans: spans(&calls, legacy), overlapping: overlapping(&calls, legacy) };
    let in_any_order = |at: &usize| steps[*at].rules.any_order.is_some();
    let all: Vec<usize> = calls.iter().map(|(_, at)| *at).collect();
    let judged: Vec<usize> = all.iter().copied().filter(|at| !in_any_order(at)).collect();
    for (first, second) in order.swapped_in(&judged) {
        let texts = (order.then(first, second), order.then(second, first));
        order.report((first, second), texts, findings);
    }
    let unordered = order.unordered();
    for (first, second) in unordered.iter().copied() {
        let rules: Vec<_> = [first, second].iter().filter_map(|at| steps[*at].rules.any_order).collect();
        rules.iter().for_each(|rule| findings.count_use(*rule));
        if rules.is_empty() {
            let at_once = format!("{} and {} at the same time", steps[first].step, steps[second].step);
            order.report((first, second), (order.then(first, second), at_once), findings);
        }
    }
    for (first, second) in swapped(&all) {
        [first, second].iter().filter_map(|at| steps[*at].rules.any_order).for_each(|rule| findings.count_use(rule));
    }
    order
        .not_kept(&unordered)
        .into_iter()
        .for_each(|(first, second)| findings.add_order_not_kept(order.path(first, second)));
}

/// The neighbours of which the first comes after the second in the engine's order. There are none if and only if the
/// whole list is in the engine's order.
fn swapped(order: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    order.windows(2).filter_map(|pair| match pair {
        [first, second] if first > second => Some((*first, *second)),
        _ => None,
    })
}

/// When legacy made the calls of one step, as numbers of calls.
#[derive(Clone, Copy)]
struct Span {
    /// The step's first call.
    begin: u64,
    /// The step's last call.
    last_begin: u64,
    /// The first call of any step that began after the first reply to this step; `None` if the time of a reply is not
    /// known.
    first_end: Option<u64>,
    /// The same after the last reply to this step.
    end: Option<u64>,
}

/// By step: when legacy made its calls.
fn spans(calls: &[(usize, usize)], legacy: &[Call<'_>]) -> BTreeMap<usize, Span> {
    let mut spans: BTreeMap<usize, Span> = BTreeMap::new();
    for (call, at) in calls {
        let Some((call, number)) = legacy.get(*call).and_then(|call| Some((call, call.number?))) else { continue };
        let end = call.replied_before;
        let span = spans.entry(*at).or_insert(Span { begin: number, last_begin: number, first_end: end, end });
        span.begin = span.begin.min(number);
        span.last_begin = span.last_begin.max(number);
        span.first_end = span.first_end.zip(end).map(|(a, b)| a.min(b));
        span.end = span.end.zip(end).map(|(a, b)| a.max(b));
    }
    spans
}

/// The pairs of steps, the smaller index first, of which legacy had calls under way at the same time.
fn overlapping(calls: &[(usize, usize)], legacy: &[Call<'_>]) -> BTreeSet<(usize, usize)> {
    // By step: the number from which on calls began after all replies so far.
    let mut ends: BTreeMap<usize, u64> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for (call, at) in calls {
        let Some((call, number)) = legacy.get(*call).and_then(|call| Some((call, call.number?))) else { continue };
        let under_way = ends.iter().filter(|(other, end)| *other != at && **end > number);
        found.extend(under_way.map(|(other, _)| ((*at).min(*other), (*at).max(*other))));
        if let Some(end) = call.replied_before
            && (ends.len() < STEPS_MAX || ends.contains_key(at))
        {
            let last = ends.entry(*at).or_default();
            *last = end.max(*last);
        }
    }
    found
}

/// What is known of the order in which legacy made the calls of steps; a step is an index.
struct Order<'o, 'a> {
    steps: &'o [StepCalls<'a>],
    engine: &'o [EngineCall<'a>],
    spans: BTreeMap<usize, Span>,
    overlapping: BTreeSet<(usize, usize)>,
}

impl Order<'_, '_> {
    fn overlap(&self, one: usize, other: usize) -> bool {
        self.overlapping.contains(&(one.min(other), one.max(other)))
    }

    /// The pairs of steps whose calls legacy made in another order than the engine would. `order`: the steps of
    /// legacy's calls.
    fn swapped_in(&self, order: &[usize]) -> Vec<(usize, usize)> {
        let is_judged =
            |(first, second): &(usize, usize)| !self.overlap(*first, *second) && !self.in_one_fan_out(*first, *second);
        let found: Vec<_> = swapped(order).filter(is_judged).collect();
        if !found.is_empty() || !swapped(order).any(|(first, second)| self.overlap(first, second)) {
            return found;
        }
        // Between two calls in the wrong order there may be one that has no order with either.
        let in_order: BTreeSet<usize> = order.iter().copied().take(STEPS_MAX).collect();
        let span = |at: &usize| self.spans.get(at).copied();
        let is_swapped = |first: usize, second: usize| {
            span(&first).zip(span(&second)).is_some_and(|(a, b)| a.first_end.is_some_and(|end| end <= b.last_begin))
        };
        let firsts = in_order.iter().flat_map(|first| in_order.range(..first).map(move |second| (*first, *second)));
        firsts.filter(|pair| is_judged(pair) && is_swapped(pair.0, pair.1)).take(1).collect()
    }

    /// The pairs of judged steps of which neither needs the other, with their spans.
    fn without_needs(&self) -> impl Iterator<Item = ((usize, Span), (usize, Span))> {
        let judged: Vec<(usize, Span)> = self.spans.iter().take(STEPS_MAX).map(|(at, span)| (*at, *span)).collect();
        let mut pairs = Vec::new();
        for (n, one) in judged.iter().enumerate() {
            pairs.extend(judged.iter().skip(n + 1).map(|other| (*one, *other)));
        }
        pairs.into_iter().filter(|((one, _), (other, _))| {
            self.needs(*one, *other) == Some(false) && !self.in_one_fan_out(*one, *other)
        })
    }

    /// Whether one of two steps needs the other; `None` if that is not known.
    fn needs(&self, one: usize, other: usize) -> Option<bool> {
        let after = |at: usize| Some(&self.engine.get(*self.steps[at].engine.first()?)?.template?.after);
        let (before_one, before_other) = (after(one)?, after(other)?);
        Some(contains(before_one, self.steps[other].step) || contains(before_other, self.steps[one].step))
    }

    /// The pairs of steps, in legacy's order, whose calls the engine may send at the same time although legacy made all
    /// calls of the first before those of the second.
    fn unordered(&self) -> Vec<(usize, usize)> {
        let in_order = |((one, a), (other, b)): ((usize, Span), (usize, Span))| {
            if precedes(a, b) { Some((one, other)) } else { precedes(b, a).then_some((other, one)) }
        };
        self.without_needs().filter_map(in_order).collect()
    }

    /// The orders that legacy did not keep. `unordered`: what [`Self::unordered`] returns.
    ///
    /// That a call began while an earlier one was under way shows that it does not need the other's reply, and not that
    /// it may come first: where the engine has the two in an order, only the one in which they began counts.
    fn not_kept(&self, unordered: &[(usize, usize)]) -> BTreeSet<(usize, usize)> {
        let began_first = |one: usize, other: usize| {
            let spans = self.spans.get(&one).zip(self.spans.get(&other));
            spans.is_some_and(|(one, other)| one.begin < other.last_begin)
        };
        let both_ways = self.overlapping.iter().flat_map(|(one, other)| [(*one, *other), (*other, *one)]);
        let at_once = both_ways
            .filter(|(first, second)| self.needs(*first, *second) == Some(false) || began_first(*second, *first));
        let reversed = unordered.iter().map(|(first, second)| (*second, *first));
        at_once.chain(reversed).collect()
    }

    fn in_one_fan_out(&self, one: usize, other: usize) -> bool {
        let fan_out = |at: usize| fan_out_of(&self.steps[at], self.engine);
        fan_out(one).is_some() && fan_out(one) == fan_out(other)
    }

    fn report(&self, (first, second): (usize, usize), texts: (String, String), findings: &mut ComparisonFindings<'_>) {
        findings.set_prefix(self.path(first, second));
        findings.add_text("", DifferenceKind::EffectOrder, Some(&texts.0), Some(&texts.1));
    }

    fn path(&self, first: usize, second: usize) -> String {
        format!("effects.{}, effects.{}", self.steps[first].step, self.steps[second].step)
    }

    fn then(&self, first: usize, second: usize) -> String {
        format!("{}, then {}", self.steps[first].step, self.steps[second].step)
    }
}

/// Whether all calls of the first were answered before those of the second began.
fn precedes(first: Span, second: Span) -> bool {
    first.end.is_some_and(|end| end <= second.begin)
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
        found_below(None, replied_before, needs, rules).0
    }

    /// As `found`, where a step runs the workflow of both for each item; also the orders that legacy did not keep.
    fn found_below(
        fan_out: Option<&str>,
        replied_before: Option<u64>,
        needs: bool,
        rules: &Value,
    ) -> (Vec<String>, Vec<String>) {
        let charged = Effect { replied_before, ..posted(CHARGES, json!({ "amount": 1 })) };
        in_order(fan_out, vec![charged, posted(MAILS, json!({ "to": "a" }))], needs, rules)
    }

    fn in_order(fan_out: Option<&str>, effects: Vec<Effect>, needs: bool, rules: &Value) -> (Vec<String>, Vec<String>) {
        let mut rules = checked(rules).unwrap();
        rules.effects.templates.iter_mut().for_each(|template| template.fan_out = fan_out.map(Into::into));
        for template in rules.effects.templates.iter_mut().filter(|_| needs) {
            if template.step.as_ref().is_some_and(|step| step.as_str() == "mail") {
                template.after = ["charge".into()].into();
            }
        }
        let intents = vec![charge(json!({ "amount": 1 })), intent("mail", None, "POST", MAILS, json!({ "to": "a" }))];
        let comparison = compared((&json!(1), &json!(1)), effects, intents, &rules).unwrap();
        let is_order = |kind| kind == DifferenceKind::EffectOrder;
        let found = comparison.differences.into_iter().filter(|d| is_order(d.kind)).map(|d| d.path).collect();
        (found, comparison.orders_not_kept)
    }

    #[test]
    fn a_step_that_does_not_wait_for_what_legacy_did_before_is_a_difference_in_order() {
        let none: [&str; 0] = [];
        assert_eq!(found(Some(1), false, &json!({})), ["effects.charge, effects.mail"]);
        assert_eq!(found(Some(1), true, &json!({})), none, "it waits");
        assert_eq!(found(Some(2), false, &json!({})), none, "legacy had no reply yet when it began the mail");
        assert_eq!(found(None, false, &json!({})), none, "that is not known");
        assert_eq!(found_below(Some("ship"), Some(1), false, &json!({})).0, none, "the runs of items overlap");
        let any_order = json!({ "effects": { "mail": { "any_order": true } } });
        assert_eq!(found(Some(1), false, &any_order), none);
    }

    #[test]
    fn calls_that_legacy_has_under_way_at_the_same_time_have_no_order() {
        let swapped = |replied_before: Option<u64>, needs: bool| {
            let mailed = Effect { replied_before, ..posted(MAILS, json!({ "to": "a" })) };
            in_order(None, vec![mailed, posted(CHARGES, json!({ "amount": 1 }))], needs, &json!({}))
        };
        let (mail_first, charge_first) = ("effects.mail, effects.charge", "effects.charge, effects.mail");
        let none: Vec<String> = Vec::new();
        assert_eq!(swapped(Some(1), true), (vec![mail_first.to_owned()], none.clone()));
        assert_eq!(swapped(None, true), (vec![mail_first.to_owned()], none.clone()), "it is not known");
        let both = vec![charge_first.to_owned(), mail_first.to_owned()];
        // The mail has begun first: only that it comes second is not kept.
        assert_eq!(swapped(Some(2), true), (none.clone(), vec![charge_first.to_owned()]));
        assert_eq!(swapped(Some(2), false), (none.clone(), both));
        // Where the engine has no order, the one that legacy had in this request is not its other one.
        assert_eq!(swapped(Some(1), false), (vec![mail_first.to_owned()], vec![charge_first.to_owned()]));
        assert_eq!(found_below(None, Some(1), true, &json!({})), (none.clone(), none), "the engine's own order");
    }
}
