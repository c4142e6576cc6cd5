//! Evidence as metrics.
//!
//! The metrics recorder renders one metric after the other while counting goes on, so sums would disagree. Therefore
//! these counts are not kept in the recorder: before each scrape, every route's counters are copied once, under their
//! lock. Only latencies, which have to agree with no other metric, are recorded directly.

use std::sync::PoisonError;

use metrics::{counter, gauge};

use super::Evidence;
use super::counters::Totals;
use super::latency_ratio::RatioInterval;
use super::noise::{NoiseOfLegacy, NoisePairs};
use super::noise_places::may_be_noise_at;
use super::route::RouteEvidence;
use super::route_counters::RouteCounters;
use crate::names::RouteId;
use crate::store::route_of_candidate;

impl Evidence {
    /// Sets the metrics from one copy of every route, then renders them; one scrape at a time.
    ///
    /// Counters are increased by what was counted since the last copy, because they may have values of an earlier
    /// [`Evidence`] of this process.
    pub fn scrape<T>(&self, render: impl FnOnce() -> T) -> T {
        let _one_at_a_time = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish();
        render()
    }

    /// Sets the metrics from one copy of every route. If the metrics were rendered at the same time, the result would
    /// mix two copies: [`Evidence::scrape`] prevents that.
    pub fn publish(&self) {
        let copy = |shared: &RouteCounters| {
            let mut counters = shared.lock();
            (counters.evidence.clone(), counters.take_unpublished(), counters.noise.clone())
        };
        let copies: Vec<_> = self.all().into_iter().map(|(route, shared)| (route, copy(&shared))).collect();
        for (route, (evidence, totals, noise)) in &copies {
            publish(route, evidence, totals);
            publish_noise(route, noise, &evidence.noise);
        }
    }
}

/// Sets all gauges of one route from one copy of its counters, and increases its counters by `totals`.
fn publish(route: &RouteId, evidence: &RouteEvidence, totals: &Totals) {
    if let Some(route) = route_of_candidate(route) {
        return publish_candidate(&route, evidence, totals);
    }
    let name = || route.as_str().to_owned();
    let Totals { offered, matched, ignored, mismatched, skipped, failed, differences, noise_ignored } = totals;
    counter!("pointsman_offered_total", "route" => name()).increment(*offered);
    let outcome = |outcome: &'static str, reason: &'static str, count: u64| {
        counter!("pointsman_comparisons_total", "route" => name(), "outcome" => outcome, "reason" => reason)
            .increment(count);
    };
    outcome("matched", "", *matched);
    outcome("ignored", "", *ignored);
    outcome("mismatched", "", *mismatched);
    for (reason, count) in skipped {
        outcome("skipped", reason.as_str(), *count);
    }
    for (reason, count) in failed {
        outcome("failed", reason, *count);
    }
    for (kind, count) in differences {
        counter!("pointsman_differences_total", "route" => name(), "kind" => kind.as_str()).increment(*count);
    }
    counter!("pointsman_noise_ignored_total", "route" => name()).increment(*noise_ignored);
    publish_statistics(route, evidence);
}

/// Sets the metrics of the candidate of a route. They have names of their own, so that sums over routes leave them out.
fn publish_candidate(route: &RouteId, evidence: &RouteEvidence, totals: &Totals) {
    let name = || route.as_str().to_owned();
    // A candidate is compared with the plan in force, which is never asked twice: it has no noise.
    let Totals { offered: _, matched, ignored, mismatched, skipped, failed, differences: _, noise_ignored: _ } = totals;
    let outcome = |outcome: &'static str, reason: &'static str, count: u64| {
        counter!("pointsman_candidate_comparisons_total", "route" => name(), "outcome" => outcome, "reason" => reason)
            .increment(count);
    };
    outcome("matched", "", *matched);
    outcome("ignored", "", *ignored);
    outcome("mismatched", "", *mismatched);
    skipped.iter().for_each(|(reason, count)| outcome("skipped", reason.as_str(), *count));
    failed.iter().for_each(|(reason, count)| outcome("failed", reason, *count));
    gauge!("pointsman_candidate_pairs", "route" => name()).set(evidence.pairs() as f64);
    gauge!("pointsman_candidate_mismatch_upper_bound", "route" => name()).set(evidence.mismatch_upper_bound());
    gauge!("pointsman_candidate_coverage", "route" => name()).set(evidence.coverage());
}

fn publish_statistics(route: &RouteId, evidence: &RouteEvidence) {
    let name = || route.as_str().to_owned();
    gauge!("pointsman_evidence_pairs", "route" => name()).set(evidence.pairs() as f64);
    gauge!("pointsman_evidence_mismatch_upper_bound", "route" => name()).set(evidence.mismatch_upper_bound());
    gauge!("pointsman_evidence_coverage", "route" => name()).set(evidence.coverage());
    let statistics = evidence.statistics();
    gauge!("pointsman_evidence_combined_upper_bound", "route" => name()).set(statistics.combined_upper_bound);
    if let Some(excess) = statistics.errors.excess {
        let bound = |end: &'static str, at: f64| {
            gauge!("pointsman_evidence_error_excess", "route" => name(), "end" => end).set(at);
        };
        bound("at_least", excess.at_least);
        bound("at_most", excess.at_most);
    }
    if let Some(RatioInterval { at_least, at_most }) = statistics.latency_ratio {
        let bound = |end: &'static str, at: f64| {
            gauge!("pointsman_evidence_latency_ratio", "route" => name(), "end" => end).set(at);
        };
        bound("at_least", at_least);
        bound("at_most", at_most.unwrap_or(f64::INFINITY));
    }
}

/// Sets the gauges of the noise of one route.
fn publish_noise(route: &RouteId, noise: &NoiseOfLegacy, outcomes: &NoisePairs) {
    if noise.repeats == 0 {
        return;
    }
    let verdict = |place: &String| match outcomes.places.get(place) {
        _ if !may_be_noise_at(place) => "several_values",
        Some(counts) if counts.engine_differs_more => "engine_differs_more",
        Some(counts) if counts.legacy_differs_more => "legacy_differs_more",
        Some(_) | None => "noise",
    };
    let verdicts: Vec<_> = noise.places.keys().map(verdict).collect();
    for verdict in ["noise", "engine_differs_more", "legacy_differs_more", "several_values"] {
        let places = verdicts.iter().filter(|at_place| **at_place == verdict).count();
        gauge!("pointsman_noise_places", "route" => route.as_str().to_owned(), "verdict" => verdict).set(places as f64);
    }
}
