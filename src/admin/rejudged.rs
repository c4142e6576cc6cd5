//! Judges the samples of a route again, under rules that are not in force.
//!
//! Always true: nothing is changed; the work has a time limit and runs for one request at a time, off the threads that
//! answer others; a sample that cannot be judged again is counted with the reason, never as equal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::samples::{SampleGroup, SamplesOfRoute};
use super::types::{NotJudgedSamples, TriedGroup, TriedSamples};
use crate::compare::{
    CompareBounds, Difference, PairRecord, Rejudged, Rules, SuggestContext, SuggestGroup, SuggestSample, Suggestions,
    rejudge, suggest,
};
use crate::config::RouteRules;
use crate::evidence::RouteEvidence;
use crate::limits::Limits;
use crate::store::SampleRecord;

/// How long the samples of one route may be judged again, all together.
const TRY_TIME_MAX: Duration = Duration::from_secs(3);
/// How long rules are searched for. With the judgement of what is found, less than what the API waits for an answer.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(4);
/// The most differences that are listed of one group.
const DIFFERENCES_MAX: usize = 64;
/// Why a sample that an earlier version stored is not judged.
const OF_EARLIER_VERSION: &str = "an earlier version stored the sample, without the pair";

/// Judges all samples; the groups come in the order of `diffs`.
pub(super) fn tried(of_route: &SamplesOfRoute, in_force: &Rules, rules: &Rules, limits: &Limits) -> Vec<TriedGroup> {
    let (bounds, end) = (CompareBounds::of(limits), Instant::now() + TRY_TIME_MAX);
    let judged = |sample: &SampleRecord| match &sample.kept {
        None => Err(OF_EARLIER_VERSION.to_owned()),
        Some(PairRecord::Not(why)) => Err(why.to_string()),
        Some(PairRecord::Pair(kept)) => {
            let end = end.min(Instant::now() + Limits::ms(limits.compare_ms));
            let expired = || Instant::now() >= end;
            rejudge(kept, &sample.differences, in_force, rules, &bounds, &expired).map_err(|why| why.to_string())
        }
    };
    let groups = of_route.groups();
    groups.map(|group| of_group(group.fingerprint, group.pairs, &group.samples, judged)).collect()
}

/// Proposes rules that explain the samples.
pub(super) fn suggested(of_route: &SamplesOfRoute, in_force: &RouteRules, limits: &Limits) -> Suggestions {
    let groups: Vec<SuggestGroup<'_>> = of_route.groups().map(|group| group_to_explain(&group)).collect();
    let end = Instant::now() + SEARCH_TIME_MAX;
    let context = SuggestContext {
        in_force: &in_force.rules,
        check: &|draft| in_force.check_draft(draft),
        compared: &|class| compared(&of_route.evidence, class),
        bounds: &CompareBounds::of(limits),
        expired: &|| Instant::now() >= end,
    };
    suggest(&groups, &context)
}

fn group_to_explain<'a>(group: &SampleGroup<'a>) -> SuggestGroup<'a> {
    let kept = group.samples.iter().filter_map(|sample| match &sample.kept {
        Some(PairRecord::Pair(kept)) => {
            let (differences, compared_ns) = (sample.differences.as_slice(), sample.at.as_nanosecond());
            Some(SuggestSample { kept, differences, compared_ns })
        }
        Some(PairRecord::Not(_)) | None => None,
    });
    let samples: Vec<SuggestSample<'a>> = kept.collect();
    SuggestGroup { pairs: group.pairs, not_kept: (group.samples.len() - samples.len()) as u64, samples }
}

/// How many pairs were compared in which legacy answered with this class of status.
fn compared(evidence: &RouteEvidence, class: u16) -> u64 {
    let word = format!("{class}xx");
    let strata = evidence.all.strata.iter().filter(|(name, _)| name.split(' ').any(|part| part == word));
    match strata.map(|(_, counts)| counts.compared).sum() {
        // An earlier version did not count them by kind.
        0 => evidence.pairs(),
        compared => compared,
    }
}

fn of_group(
    fingerprint: &str,
    pairs: u64,
    samples: &[&SampleRecord],
    judged: impl Fn(&SampleRecord) -> Result<Rejudged, String>,
) -> TriedGroup {
    let mut group = TriedGroup {
        fingerprint: fingerprint.to_owned(),
        pairs,
        samples: TriedSamples::default(),
        before: samples.first().map(|sample| sample.differences.clone()).unwrap_or_default(),
        still: Vec::new(),
        new: Vec::new(),
        equal_by: BTreeMap::new(),
        not_judged: Vec::new(),
    };
    let mut not_judged: BTreeMap<String, u64> = BTreeMap::new();
    for sample in samples {
        group.samples.kept += 1;
        match judged(sample) {
            Ok(Rejudged { comparison, still, new, was_cut: _ }) => {
                match comparison.differences.is_empty() && !comparison.truncated {
                    true => group.samples.equal += 1,
                    false => group.samples.differ += 1,
                }
                add(&mut group.still, still);
                add(&mut group.new, new);
                for (rule, _) in comparison.ignored_by {
                    *group.equal_by.entry(rule).or_default() += 1;
                }
            }
            Err(why) => {
                group.samples.not_judged += 1;
                *not_judged.entry(why).or_default() += 1;
            }
        }
    }
    group.not_judged = not_judged.into_iter().map(|(reason, samples)| NotJudgedSamples { reason, samples }).collect();
    group
}

/// Adds the differences at places that are not listed yet, and those whose numbers are further apart than the listed
/// ones. What is kept of a pair has nothing secret in it; the values are cut.
fn add(listed: &mut Vec<Difference>, found: Vec<Difference>) {
    for mut difference in found {
        difference.mask_and_cut(str::to_owned);
        let is_here = |other: &Difference| (&other.path, other.kind) == (&difference.path, difference.kind);
        match listed.iter().position(is_here) {
            Some(index) if difference.distance() > listed[index].distance() => listed[index] = difference,
            None if listed.len() < DIFFERENCES_MAX => listed.push(difference),
            Some(_) | None => {}
        }
    }
}

/// The sum of what became of the samples of all groups.
pub(super) fn total(groups: &[TriedGroup]) -> TriedSamples {
    let mut total = TriedSamples::default();
    for TriedSamples { kept, equal, differ, not_judged } in groups.iter().map(|group| group.samples) {
        total.kept += kept;
        total.equal += equal;
        total.differ += differ;
        total.not_judged += not_judged;
    }
    total
}
