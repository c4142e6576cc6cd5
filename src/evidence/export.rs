//! Evidence as metrics.
//!
//! The metrics recorder renders one metric after the other while counting goes on, so sums would disagree. Therefore
//! these counts are not kept in the recorder: before each scrape, every route's counters are copied once, under their
//! lock. Only latencies, which have to agree with no other metric, are recorded directly.

use metrics::{counter, gauge};

use super::counters::Totals;
use super::route::RouteEvidence;
use crate::names::RouteId;

/// Sets all metrics of one route from one copy of its counters.
pub(super) fn publish(route: &RouteId, evidence: &RouteEvidence, totals: &Totals) {
    let name = || route.as_str().to_owned();
    let Totals { offered, matched, ignored, mismatched, skipped, failed, differences } = totals;
    counter!("pointsman_offered_total", "route" => name()).absolute(*offered);
    let outcome = |outcome: &'static str, reason: &'static str, count: u64| {
        counter!("pointsman_comparisons_total", "route" => name(), "outcome" => outcome, "reason" => reason)
            .absolute(count);
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
        counter!("pointsman_differences_total", "route" => name(), "kind" => kind.as_str()).absolute(*count);
    }
    figures(route, evidence);
}

fn figures(route: &RouteId, evidence: &RouteEvidence) {
    let name = || route.as_str().to_owned();
    gauge!("pointsman_evidence_pairs", "route" => name()).set(evidence.pairs() as f64);
    gauge!("pointsman_evidence_mismatch_upper_bound", "route" => name()).set(evidence.mismatch_upper_bound());
    gauge!("pointsman_evidence_coverage", "route" => name()).set(evidence.coverage());
}
