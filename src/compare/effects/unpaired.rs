//! Reports calls that only one side made.

use std::collections::HashMap;

use super::call::{Call, EngineCall};
use super::call_template::CallRole;
use super::pairing::Pairs;
use super::path_text::{derived_template, url_without_values};
use super::rules::EffectRules;
use super::sent_reads::{ReadsByLegacy, SentReads};
use super::step_calls::{Equality, StepCalls};
use crate::compare::body_rules::IdKind;
use crate::compare::bounds::BoundExceeded;
use crate::compare::findings::ComparisonFindings;
use crate::compare::id_map::IdMap;
use crate::compare::value_hash::Side;
use crate::compare::verdict::DifferenceKind;
use crate::names::{OF_UNDO, StepId};

/// How far the run went whose intents are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::compare) enum RunExtent {
    /// All that the engine would do for the request.
    WholeRun,
    /// A run that could not go on: what it would have done after that is not known.
    StoppedRun,
}

/// The calls of both sides, and which of them belong together.
pub(super) struct Unpaired<'p, 'a> {
    pub(super) legacy: &'p [Call<'a>],
    pub(super) engine: &'p [EngineCall<'a>],
    pub(super) steps: &'p [StepCalls<'a>],
    pub(super) pairs: &'p Pairs,
    pub(super) rules: &'p EffectRules,
    pub(super) sent_reads: &'p SentReads<'a>,
    pub(super) reads: &'p ReadsByLegacy,
    /// The steps whose calls legacy may have made for the request although none is attributed to it.
    pub(super) unattributed: &'p [StepId],
    pub(super) run_extent: RunExtent,
}

/// How many calls of one side are equal to each other, and how many of these have a partner.
#[derive(Clone, Copy, Default)]
struct CallCounts {
    all: usize,
    paired: usize,
}

impl Unpaired<'_, '_> {
    /// Reports the unpaired calls. Returns how many of legacy's calls are not judged.
    pub(super) fn report(&self, ids: &mut IdMap, findings: &mut ComparisonFindings<'_>) -> Result<u32, BoundExceeded> {
        let mut is_doubled = vec![false; self.legacy.len()];
        for step in self.steps {
            let partners = |n: usize| self.pairs.engine_of[n].is_some();
            // A stopped run might have made the second call later.
            if self.run_extent == RunExtent::WholeRun && step.legacy.iter().any(|n| !partners(*n)) {
                let hash = |n: usize, ids: &mut IdMap, findings: &mut ComparisonFindings<'_>| {
                    step.hash(&self.legacy[n], Side::Legacy, Equality::EXACT, ids, findings)
                };
                for n in report_doubled(step, Side::Legacy, &step.legacy, &partners, &hash, ids, findings)? {
                    is_doubled[n] = true;
                }
            }
            // What a stopped run undid, it undid only because it stopped.
            if self.run_extent == RunExtent::WholeRun || !step.step.as_str().ends_with(OF_UNDO) {
                self.report_extra(step, ids, findings)?;
            }
        }
        let mut not_judged = 0u32;
        for (n, call) in self.legacy.iter().enumerate() {
            findings.count_work()?;
            if self.pairs.engine_of[n].is_some() || is_doubled[n] {
                continue;
            }
            if self.reads.contains(n) || !self.report_missing(call, ids, findings)? {
                not_judged = not_judged.saturating_add(1);
            }
        }
        Ok(not_judged)
    }

    /// Reports the intents of a step for which legacy made no call.
    fn report_extra(
        &self,
        step: &StepCalls<'_>,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<(), BoundExceeded> {
        let partners = |n: usize| self.pairs.legacy_of[n].is_some();
        if step.engine.iter().all(|n| partners(*n)) {
            return Ok(());
        }
        let hash = |n: usize, ids: &mut IdMap, findings: &mut ComparisonFindings<'_>| {
            step.hash(&self.engine[n].call, Side::Engine, Equality::EXACT, ids, findings)
        };
        let doubled = report_doubled(step, Side::Engine, &step.engine, &partners, &hash, ids, findings)?;
        for n in step.engine.iter().filter(|n| !partners(**n) && !doubled.contains(*n)) {
            let EngineCall { call, template, .. } = &self.engine[*n];
            if self.unattributed.contains(step.step) {
                // No difference: such a pair is counted elsewhere as one whose calls are not all known.
            } else if let Some(rule) = step.rules.unseen {
                findings.count_use(rule);
            } else if template.is_none_or(|template| template.role != CallRole::Private) {
                let shown = findings.shown_text(&format!("{} {}", call.method, url_without_values(call.url)));
                findings.set_prefix(format!("effects.{}", step.step));
                findings.add_text("", DifferenceKind::EffectExtra, None, Some(&shown));
            }
        }
        Ok(())
    }

    /// Reports a call by legacy that the engine would not make. Returns false if the call is not judged.
    fn report_missing(
        &self,
        call: &Call<'_>,
        ids: &mut IdMap,
        findings: &mut ComparisonFindings<'_>,
    ) -> Result<bool, BoundExceeded> {
        let mut of_workflow = self.rules.templates_of(call).peekable();
        let first = of_workflow.peek().copied();
        let is_judged = match first {
            // The stopped run might have reached that step later.
            Some(_) if self.run_extent == RunExtent::StoppedRun => false,
            Some(_) => of_workflow.all(|template| self.rules.judges(template) || self.sent_reads.decides_for(template)),
            None => !call.method.is_safe(),
        };
        if !is_judged || self.sent_reads.have_equal(call, self.rules, ids, findings)? {
            return Ok(false);
        }
        let service = call.service.map(|service| service.as_str());
        // A second call like that of a step is one more effect: `ignore_calls` is for calls that no step makes.
        let is_of_step = first.is_some_and(|template| matches!(template.role, CallRole::Shared | CallRole::Private));
        let ignored = self.rules.ignore_calls.iter().filter(|_| !is_of_step);
        let mut ignored = ignored.filter(|(calls, _)| calls.names(service, &call.authority, call.method, &call.path));
        if let Some((_, rule)) = ignored.next() {
            findings.count_use(*rule);
            return Ok(true);
        }
        let derived = || derived_template(&call.path, |segment| ids.has_legacy(IdKind::ANY, segment));
        let path = first.map_or_else(derived, |template| template.path.clone());
        let shown = findings.shown_text(&format!("{} {}", call.method, url_without_values(call.url)));
        findings.set_prefix(format!("effects.{} {} {path}", service.unwrap_or(&call.authority), call.method));
        findings.add_text("", DifferenceKind::EffectMissing, Some(&shown), None);
        Ok(true)
    }
}

/// Reports the calls of one side that have no partner but are equal to a call that has one: the other side made fewer
/// of these. Returns the indexes of the reported calls.
fn report_doubled(
    step: &StepCalls<'_>,
    side: Side,
    calls: &[usize],
    has_partner: &dyn Fn(usize) -> bool,
    hash: &dyn Fn(usize, &mut IdMap, &mut ComparisonFindings<'_>) -> Result<u64, BoundExceeded>,
    ids: &mut IdMap,
    findings: &mut ComparisonFindings<'_>,
) -> Result<Vec<usize>, BoundExceeded> {
    let mut counts: HashMap<u64, CallCounts> = HashMap::new();
    let mut hashes = Vec::with_capacity(calls.len());
    for n in calls {
        let hash = hash(*n, ids, findings)?;
        let count = counts.entry(hash).or_default();
        count.all += 1;
        count.paired += usize::from(has_partner(*n));
        hashes.push((*n, hash));
    }
    let mut doubled = Vec::new();
    for (n, hash) in hashes.into_iter().filter(|(n, _)| !has_partner(*n)) {
        let CallCounts { all, paired } = counts.get(&hash).copied().unwrap_or_default();
        if paired == 0 {
            continue;
        }
        let (more, fewer) = (times(all), times(paired));
        let (legacy, engine) = if side == Side::Legacy { (&more, &fewer) } else { (&fewer, &more) };
        findings.set_prefix(format!("effects.{}", step.step));
        findings.add_text("", DifferenceKind::EffectDoubled, Some(legacy), Some(engine));
        doubled.push(n);
    }
    Ok(doubled)
}

fn times(calls: usize) -> String {
    match calls {
        1 => "1 call".to_owned(),
        many => format!("{many} equal calls"),
    }
}
