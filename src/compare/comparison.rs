//! One comparison from its first step to its verdict.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::bounds::{BoundExceeded, CompareBounds};
use super::compared_body::ComparedBody;
use super::context::WalkContext;
use super::earlier_ids::{self, BoundIds, EarlierIds};
use super::effects::{EffectCoverage, IntentCounts, PairedCalls, RunExtent};
use super::findings::{ComparisonFindings, ReportAs};
use super::id_map::{FoundIds, IdMap};
use super::observation::Body;
use super::pair::{InstanceIds, Pair};
use super::redact::ShownAs;
use super::rules::{Rules, Status};
use super::rules_by_node::RulesByNode;
use super::text::{self, TextContext};
use super::verdict::{Comparison, DifferenceKind, ENGINE, LEGACY};
use super::walk::{SetIdBinding, Walk};
use super::{assert, cause, headers, other_bodies, rule_conditions};
use crate::names::StepId;

/// Compares two observations. `expired` is called now and then and says whether the time is used up. A comparison that
/// has found a difference by then is a truncated mismatch; one that has not ends with [`BoundExceeded::Time`].
///
/// # Errors
/// The observations cannot be compared within the bounds. There is then no verdict, neither match nor mismatch.
pub fn compare(
    pair: &Pair<'_>,
    rules: &Rules,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) -> Result<Comparison, BoundExceeded> {
    compared(pair, &[], rules, bounds, expired).map(|(comparison, _)| comparison)
}

/// Compares two observations of an instance, of which earlier pairs have bound these ids. Returns also the ids that
/// this pair binds.
///
/// # Errors
/// As [`compare`].
pub fn compare_in_instance<'p>(
    pair: &'p Pair<'p>,
    earlier: &[EarlierIds],
    rules: &'p Rules,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) -> Result<(Comparison, BoundIds<'p>), BoundExceeded> {
    let (comparison, ids) = compared(pair, earlier, rules, bounds, expired)?;
    Ok((comparison, BoundIds::of(pair, rules, ids)))
}

/// The comparison with the ids of headers bound first. If ids contradict each other there, it is made once more with
/// those of the body bound first, and the one with fewer differences counts.
fn compared(
    pair: &Pair<'_>,
    earlier: &[EarlierIds],
    rules: &Rules,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) -> Result<(Comparison, IdMap), BoundExceeded> {
    let (mut comparison, mut ids) = compare_from(FirstIds::OfHeaders, (pair, earlier), rules, bounds, expired)?;
    // If a wrong id is bound first, all right ones differ from it. Which of two contradicting ids is wrong is not
    // known, so both orders are tried, unless there is a single difference, which the other order cannot make fewer.
    if ids.are_contradicted() && !rules.body.header_ids.is_empty() && comparison.differences.len() > 1 {
        let other = compare_from(FirstIds::OfBody, (pair, earlier), rules, bounds, expired).ok();
        let has_fewer = |other: &Comparison| {
            !other.differences.is_empty() && other.differences.len() < comparison.differences.len()
        };
        if let Some(other) = other.filter(|(other, _)| has_fewer(other)) {
            (comparison, ids) = other;
        }
    }
    comparison.intents = intent_counts(pair, rules, comparison.effects.as_ref());
    Ok((comparison, ids))
}

/// Which ids are bound first: where others contradict them, the others are reported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstIds {
    /// An id in a header names what the reply is about.
    OfHeaders,
    /// Tried where ids contradict each other: a header may be the one that is wrong.
    OfBody,
}

fn compare_from(
    first: FirstIds,
    (pair, earlier): (&Pair<'_>, &[EarlierIds]),
    rules: &Rules,
    bounds: &CompareBounds,
    expired: &dyn Fn() -> bool,
) -> Result<(Comparison, IdMap), BoundExceeded> {
    let mut findings = ComparisonFindings::new(bounds.differences, expired, pair.sensitive);
    findings.set_captured(pair.legacy.is_captured());
    let mut ids = IdMap::of_kinds(rules.texts.kinds());
    rule_conditions::turn_off(pair, &rules.texts, &mut findings);
    match compare_parts(first, pair, rules, bounds, &mut ids, &mut findings) {
        Ok(()) => earlier_ids::report_contradictions(earlier, pair, rules, &ids, &mut findings),
        Err(BoundExceeded::Time) if findings.has_differences() => findings.truncate(),
        Err(exceeded) => return Err(exceeded),
    }
    Ok((findings.finish(rules), ids))
}

/// Counts, by step, how many of the engine's intents were compared with a call by legacy, or by an assert. Calls of
/// steps that only read are no intents; those that legacy makes too are counted as if they were, because the gates ask
/// for them by step (`sent_reads`).
fn intent_counts(pair: &Pair<'_>, rules: &Rules, effects: Option<&EffectCoverage>) -> BTreeMap<StepId, IntentCounts> {
    let mut counts: BTreeMap<StepId, IntentCounts> = BTreeMap::new();
    for intent in pair.engine.intents() {
        counts.entry(intent.step.clone()).or_default().intents += 1;
    }
    for (step, counts) in &mut counts {
        let compared = effects.and_then(|effects| effects.steps.get(step)).map_or(0, |step| step.compared);
        counts.compared = compared;
        // An assert that was not evaluated for this pair compared nothing.
        let mut asserts = rules.asserts.iter().filter(|assert| assert::applies(assert, pair));
        let are_read = asserts.any(|assert| assert.reads(step));
        let are_read = are_read && !pair.engine.has_stopped();
        counts.asserted = if are_read { counts.intents.saturating_sub(compared) } else { 0 };
    }
    for (step, calls) in effects.iter().flat_map(|effects| &effects.reads_of_both) {
        let counts = counts.entry(step.clone()).or_default();
        counts.intents = counts.intents.saturating_add(*calls);
        counts.compared = counts.compared.saturating_add(*calls);
    }
    counts
}

/// Compares status, headers, bodies, calls to other services and intents, and evaluates the asserts.
fn compare_parts(
    first: FirstIds,
    pair: &Pair<'_>,
    rules: &Rules,
    bounds: &CompareBounds,
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    if pair.engine.has_stopped() {
        return compare_calls_so_far(pair, rules, bounds, ids, findings);
    }
    let same_class = compare_status(pair, rules, findings);
    let compares_beside = rules.compare_beside_the_bodies_of(pair);
    let (legacy, engine) = match equal_body(pair, rules, bounds, compares_beside) {
        Some(body) => (ComparedBody::unread(body.clone()), ComparedBody::unread(body.clone())),
        None => (ComparedBody::of(pair.legacy, bounds)?, ComparedBody::of(pair.engine, bounds)?),
    };
    for (arm, body) in [(LEGACY, &legacy), (ENGINE, &engine)] {
        body.unparsable().into_iter().for_each(|of| findings.add_unparsable(arm, of.format));
    }
    let add_cause = |findings: &mut ComparisonFindings<'_>| {
        let cause = cause::of_refusals(pair, &legacy.parsed(), &engine.parsed());
        cause.into_iter().for_each(|cause| findings.add_cause(&cause));
    };
    // A refusal's body is compared with no other reply's, so equal paths may have different causes: the cause is a part
    // of the fingerprint.
    let statuses_differ = findings.has_differences();
    if statuses_differ {
        add_cause(findings);
    }
    let documents = match legacy.documents(&engine) {
        Some([a, b]) => Some((a.root, b.root, RulesByNode::of(&rules.body, [a, b], findings)?)),
        None => None,
    };
    bind_instance(pair, rules, ids);
    if first == FirstIds::OfHeaders {
        bind_headers(pair, rules, ids, findings);
    }
    if let Some((a, b, rules_by_node)) = &documents {
        Walk::bind_ids(WalkContext { rules: &rules.body, rules_by_node, ids, findings }, *a, *b)?;
    }
    if first == FirstIds::OfBody {
        bind_headers(pair, rules, ids, findings);
    }
    let texts = match &documents {
        Some(_) => None,
        None => ComparedBody::texts([&legacy, &engine], [pair.legacy, pair.engine], bounds)?,
    };
    if let (Some(text), Some([a, b])) = (&rules.text, &texts) {
        text::bind_ids(a, b, text, ids, findings)?;
    }
    let calls = match pair.effects {
        Some(effects) => Some(PairedCalls::of(effects, pair.engine, &rules.effects, bounds, ids, findings)?),
        None => None,
    };
    bind_ids_in_sets(ids, |which, ids| {
        let mut are_left = false;
        if let Some((a, b, rules_by_node)) = &documents {
            let findings = &mut *findings;
            let context = WalkContext { rules: &rules.body, rules_by_node, ids: &mut *ids, findings };
            are_left |= Walk::bind_ids_in_sets(context, which, *a, *b)?;
        }
        if let Some(calls) = &calls {
            are_left |= calls.bind_ids_in_sets(which, ids, findings)?;
        }
        Ok(are_left)
    })?;

    headers::compare(pair, rules, ids, findings);
    // If one arm refuses and the other succeeds, the bodies have nothing in common: only the difference in status is
    // reported.
    if same_class {
        let found_before = findings.found();
        findings.report_as(if pair.stale_reads { ReportAs::StaleRead } else { ReportAs::Found });
        let compared = match &documents {
            Some((a, b, rules_by_node)) => {
                let context = WalkContext { rules: &rules.body, rules_by_node, ids, findings };
                Walk::report(context, "$", *a, *b)
            }
            None => {
                let (renaming, needs_compared_line) = (rules.body.renaming, !compares_beside);
                let context = TextContext { rules: rules.text.as_ref(), ids, renaming, needs_compared_line };
                let names = [legacy.type_name(), engine.type_name()];
                let compared = match &texts {
                    Some([a, b]) => text::compare(a, b, context, findings),
                    None => {
                        let (a, b) = (legacy.parsed(), engine.parsed());
                        other_bodies::compare((&a, &names[0]), (&b, &names[1]), context, findings)
                    }
                };
                // Says why bodies are compared as text, or by their digests, although their types say something else.
                if findings.found() > found_before && legacy.unparsable().or(engine.unparsable()).is_some() {
                    findings.add_text("body", DifferenceKind::Type, Some(&names[0]), Some(&names[1]));
                }
                compared
            }
        };
        findings.report_as(ReportAs::Found);
        // Two refusals with one status and different bodies differ at the same paths, whatever they say.
        if findings.found() > found_before && !statuses_differ {
            add_cause(findings);
        }
        compared?;
        let compares_bodies = findings.compared.take_value() || findings.found() > found_before;
        findings.compared.replies = compares_beside || compares_bodies;
    }
    if let Some(calls) = &calls {
        calls.report(RunExtent::WholeRun, ids, findings)?;
    }
    if !pair.legacy.intents().is_empty() && !pair.engine.intents().is_empty() {
        let (legacy, engine) = (assert::intents(pair.legacy), assert::intents(pair.engine));
        findings.report_as(ReportAs::Intent);
        let rules_by_node = RulesByNode::default();
        let context = WalkContext { rules: &rules.body, rules_by_node: &rules_by_node, ids, findings };
        Walk::report(context, "intents", (&legacy).into(), (&engine).into())?;
        findings.report_as(ReportAs::Found);
    }
    if same_class {
        ids.unproven().into_iter().for_each(|rule| findings.count_use(rule));
    }
    if rules.asserts.is_empty() {
        return Ok(());
    }
    assert::evaluate(pair, legacy.value(), engine.value(), rules, ids, findings)
}

/// Binds the ids in headers.
fn bind_headers(pair: &Pair<'_>, rules: &Rules, ids: &mut IdMap, findings: &ComparisonFindings<'_>) {
    for header in rules.body.header_ids.iter().filter(|header| findings.applies(header.rule())) {
        header.bind(pair, ids);
    }
}

/// The body of both replies, if it is the same, byte for byte, and need not be parsed: parsing it twice would take most
/// of the comparison's time. It need not be parsed if all of this is true:
/// - no rule binds ids in it, and no assert reads it;
/// - it does not matter whether a value of it is compared, because something else of the replies is, or because no rule
///   ignores a part of it.
fn equal_body<'p>(pair: &Pair<'p>, rules: &Rules, bounds: &CompareBounds, compares_beside: bool) -> Option<&'p Bytes> {
    if !compares_beside && rules.may_ignore_parts_of_bodies() {
        return None;
    }
    let (legacy, engine) = (pair.legacy, pair.engine);
    let (Body::Whole(body), Body::Whole(other)) = (legacy.body(), engine.body()) else { return None };
    let is_same_type = [CONTENT_TYPE, CONTENT_ENCODING]
        .iter()
        .all(|name| legacy.headers().get_all(name).iter().eq(engine.headers().get_all(name)));
    // Calls may bind ids too.
    let binds_ids = rules.body.renaming.is_some() || pair.effects.is_some();
    let is_unread = rules.asserts.is_empty() && !binds_ids && legacy.status() == engine.status();
    (is_unread && is_same_type && body.len() <= bounds.bytes && body == other).then_some(body)
}

/// Compares the calls of a run that could not go on with those of legacy. Reports the calls that only one of them made,
/// except a call by legacy that a later step of the workflow might have made.
fn compare_calls_so_far(
    pair: &Pair<'_>,
    rules: &Rules,
    bounds: &CompareBounds,
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<(), BoundExceeded> {
    let Some(effects) = pair.effects else { return Ok(()) };
    bind_instance(pair, rules, ids);
    let calls = PairedCalls::of(effects, pair.engine, &rules.effects, bounds, ids, findings)?;
    bind_ids_in_sets(ids, |which, ids| calls.bind_ids_in_sets(which, ids, findings))?;
    calls.report(RunExtent::StoppedRun, ids, findings)
}

/// The most times that sets are walked to bind ids. Each walk may bind further ids by means of those bound before.
const WALKS_OF_SETS_MAX: usize = 16;

/// Binds the ids in all sets, first in those elements whose partner is certain: ids that are bound there may make the
/// partners of further elements certain. `bind` binds the ids of the elements that it is asked for, and returns whether
/// ids of other elements may be left.
fn bind_ids_in_sets(
    ids: &mut IdMap,
    mut bind: impl FnMut(SetIdBinding, &mut IdMap) -> Result<bool, BoundExceeded>,
) -> Result<(), BoundExceeded> {
    for _ in 0..WALKS_OF_SETS_MAX {
        let before = ids.len();
        if !bind(SetIdBinding::Unambiguous, ids)? {
            return Ok(());
        }
        if ids.len() == before {
            break;
        }
    }
    bind(SetIdBinding::All, ids).map(|_| ())
}

/// Binds the ids of the instance. Without rules for ids, replies with different ids are different.
fn bind_instance(pair: &Pair<'_>, rules: &Rules, ids: &mut IdMap) {
    if let Some(InstanceIds { legacy, engine }) = pair.instance.filter(|_| rules.body.renaming.is_some()) {
        ids.bind(None, legacy, engine, || FoundIds {
            path: "instance.id".to_owned(),
            shown_as: ShownAs::UnderKey,
            legacy: legacy.as_str().into(),
            engine: engine.as_str().into(),
            rule: None,
            unproven: None,
        });
    }
}

/// Compares the statuses, and returns whether they are of the same class.
fn compare_status(pair: &Pair<'_>, rules: &Rules, findings: &mut ComparisonFindings<'_>) -> bool {
    let (legacy, engine) = (pair.legacy.status(), pair.engine.status());
    let same_class = legacy.as_u16() / 100 == engine.as_u16() / 100;
    match rules.status {
        _ if legacy == engine => {}
        Status::Class { rule } if same_class => findings.count_use(rule),
        Status::Class { .. } | Status::Exact => {
            findings.add_text("status", DifferenceKind::Status, Some(legacy.as_str()), Some(engine.as_str()));
        }
    }
    same_class
}
