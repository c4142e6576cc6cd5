//! Judges differing pairs again, after a change of the rules that only allows more.
//!
//! Always true: it works in the background, on one route at a time; no request and no reload waits for it. Until it is
//! done, the differences stay counted, so that no gate opens too early; if the store does not answer, it is tried
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::parts::Parts;
use crate::admin::RulesOfRoute;
use crate::compare::{
    Allowances, CompareBounds, PairRecord, Rejudged, Rules, RulesDraft, is_of_cut_list, may_stand_for_several_names,
    rejudge,
};
use crate::evidence::{DifferingPlaces, PairsToRejudge, RejudgedOutcome, RejudgedPairs, Sample};
use crate::limits::Limits;
use crate::names::RouteId;
use crate::store::{StoreError, route_of_candidate};

/// How long the samples of one route may be judged, all together. What is not judged by then counts as not known.
const JUDGE_TIME_MAX: Duration = Duration::from_secs(10);
/// The pause before the next attempt after the store did not answer, and, in a process that leaves the judging to
/// another one, before it checks again whether pairs still wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Judges pairs again whenever some wait for it, until the task is aborted.
pub(super) async fn run(parts: Parts, rules_of: RulesOfRoute, limits: Arc<Limits>) {
    loop {
        let mut has_failed = false;
        let waiting = parts.evidence.to_rejudge();
        // Only the first process judges. The others read its results with the evidence; if it ends, the next one does.
        if !waiting.is_empty() && !parts.membership.is_first() {
            tokio::time::sleep(RETRY_AFTER).await;
            continue;
        }
        for (key, pairs) in waiting {
            if let Err(error) = rejudge_route(&parts, &rules_of, &limits, &key, pairs).await {
                tracing::warn!(route = %key, %error, "the store does not answer: what differed under the earlier rules is judged again later");
                has_failed = true;
            }
        }
        match has_failed {
            true => tokio::time::sleep(RETRY_AFTER).await,
            false => parts.evidence.rejudging_wanted().await,
        }
    }
}

async fn rejudge_route(
    parts: &Parts,
    rules_of: &RulesOfRoute,
    limits: &Arc<Limits>,
    key: &RouteId,
    pairs: PairsToRejudge,
) -> Result<(), StoreError> {
    // Some samples may not be written yet.
    parts.evidence.flush().await?;
    let _deferred = parts.evidence.defer_sample_writes(key);
    let samples = parts.store.samples(key.clone(), limits.samples_per_route_max()).await?;
    let route = route_of_candidate(key).unwrap_or_else(|| key.clone());
    let before = RulesDraft::of_shown(&pairs.rules);
    let before = before.and_then(|draft| rules_of(&route)?.check_draft(&draft));
    let after = parts.rules.load().get(key).cloned();
    let (since, rules_before) = (pairs.since, pairs.rules.clone());
    let rules_after = after.as_deref().map(Rules::shown_draft).unwrap_or_default();
    let read = samples.clone();
    let judged = match (before, after) {
        (Some(before), Some(after)) => {
            let added = Allowances::added(before.draft(), after.draft());
            let work = Work { pairs, samples, before, after, added, limits: limits.clone() };
            tokio::task::spawn_blocking(move || work.judge()).await.unwrap_or_default()
        }
        _ => Default::default(),
    };
    let evidence_before = parts.evidence.of(key);
    let Some(outcome) = parts.evidence.set_rejudged(key, since, &judged.0, (read, judged.1)) else { return Ok(()) };
    match outcome {
        RejudgedOutcome::Judged { equal, differing } => {
            tracing::info!(route = %key, equal, differing, "what differed under the earlier rules was judged again");
        }
        RejudgedOutcome::FromZero => tracing::warn!(
            route = %key,
            "not all differences under the earlier rules could be judged again, because no sample of them is kept, it \
             is incomplete, or the new rules compare nothing of it: the evidence starts from zero"
        ),
    }
    parts.recorder.rejudged(key, outcome, (rules_before, rules_after), &evidence_before);
    Ok(())
}

/// Samples to be judged again.
struct Work {
    pairs: PairsToRejudge,
    /// Newest first.
    samples: Vec<Sample>,
    before: Rules,
    after: Arc<Rules>,
    /// What the new rules allow and the earlier ones did not.
    added: Option<Allowances>,
    limits: Arc<Limits>,
}

impl Work {
    /// What the pairs are under the new rules, by fingerprint, and the samples that are kept from now on.
    fn judge(self) -> (BTreeMap<String, RejudgedPairs>, Vec<Sample>) {
        let end = Instant::now() + JUDGE_TIME_MAX;
        let (mut found, mut kept) = (BTreeMap::new(), Vec::new());
        let (old, new): (Vec<Sample>, Vec<Sample>) = self.samples.iter().cloned().partition(|sample| {
            sample.at <= self.pairs.since && self.pairs.fingerprints.contains_key(&sample.fingerprint)
        });
        kept.extend(new);
        let mut groups: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        old.into_iter().for_each(|sample| groups.entry(sample.fingerprint.clone()).or_default().push(sample));
        for (fingerprint, samples) in groups {
            if let Some((pairs, samples)) = self.judge_group(&fingerprint, samples, end) {
                found.insert(fingerprint, pairs);
                kept.extend(samples);
            }
        }
        (found, kept)
    }

    /// Judges the pairs of one fingerprint by their samples. `None` if that is not possible: a sample cannot be judged,
    /// nothing of it is compared under the new rules, or the samples do not decide about the pairs without one.
    fn judge_group(
        &self,
        fingerprint: &str,
        mut samples: Vec<Sample>,
        end: Instant,
    ) -> Option<(RejudgedPairs, Vec<Sample>)> {
        let before = DifferingPlaces::of_differences(&samples.first()?.differences);
        // All pairs of the group differ in the same places. If a rule has an index, a filter, a condition or a
        // tolerance, the places do not say whether it allows the differences of the pairs without a sample.
        let count = self.pairs.fingerprints.get(fingerprint).copied()?;
        let are_all_kept = samples.len() as u64 >= count;
        let first = samples.first()?;
        let hides_names = || first.differences.iter().any(|difference| may_stand_for_several_names(&difference.path));
        let are_places_enough = |added: Allowances| {
            let hides_calls = added.ignores_calls && before.hides_path_values();
            added.decide_by_place && !hides_calls && !hides_names() && !is_of_cut_list(fingerprint)
        };
        if !are_all_kept && !self.added.is_some_and(are_places_enough) {
            return None;
        }
        let judged: Option<Vec<Rejudged>> = samples.iter().map(|sample| self.judge_sample(sample, end)).collect();
        let judged = judged?;
        // Pairs with a cut list have fingerprints of their own. An earlier version did not do that: then the group has
        // pairs that differ in other places.
        if !are_all_kept && judged.iter().any(|judged| judged.was_cut) {
            return None;
        }
        let known: BTreeSet<&str> = self.before.names().collect();
        let rules = judged.iter().flat_map(|judged| &judged.comparison.ignored_by).map(|(rule, _)| rule);
        let rules: BTreeSet<&String> = rules.filter(|rule| !known.contains(rule.as_str())).collect();
        let rules = rules.into_iter().cloned().collect();
        // If the list was cut, something else may differ too.
        let is_equal = |judged: &Rejudged| judged.comparison.differences.is_empty() && !judged.comparison.truncated;
        // A pair of which nothing is compared would have counted as skipped under these rules.
        let says_nothing = |judged: &Rejudged| is_equal(judged) && !judged.comparison.compares_anything();
        if judged.iter().any(says_nothing) {
            return None;
        }
        if judged.iter().all(is_equal) {
            return Some((RejudgedPairs { before, after: None, rules }, Vec::new()));
        }
        let first = &judged.first()?.comparison;
        if !judged.iter().all(|judged| judged.comparison.fingerprint == first.fingerprint && !is_equal(judged)) {
            // Some samples are equal, and some differ. Which of the pairs without a sample are equal is not known, so
            // all pairs still count as differing.
            let after = Some((fingerprint.to_owned(), before.clone()));
            return Some((RejudgedPairs { before, after, rules }, samples));
        }
        let after = Some((first.fingerprint.clone(), DifferingPlaces::of(first)));
        for (sample, judged) in samples.iter_mut().zip(judged) {
            sample.fingerprint.clone_from(&judged.comparison.fingerprint);
            sample.differences = judged.comparison.differences;
            sample.differences.iter_mut().for_each(|difference| difference.mask_and_cut(str::to_owned));
        }
        Some((RejudgedPairs { before, after, rules }, samples))
    }

    fn judge_sample(&self, sample: &Sample, end: Instant) -> Option<Rejudged> {
        let Some(PairRecord::Pair(kept)) = &sample.kept else { return None };
        let end = end.min(Instant::now() + Limits::ms(self.limits.compare_ms));
        let (bounds, expired) = (CompareBounds::of(&self.limits), || Instant::now() >= end);
        rejudge(kept, &sample.differences, &self.before, &self.after, &bounds, &expired).ok()
    }
}
