//! Evidence as metrics.
//!
//! A recorder renders one metric after the other, while counting goes on; so nothing is counted in it as it happens.
//! Before each scrape every route is looked at once, under its lock, and the counters are set to what was seen.

use metrics::{counter, gauge};

use super::RouteEvidence;
use super::book::{Page, Totals};
use crate::names::RouteId;

/// Sets all metrics of one route to one look at it.
pub(super) fn publish(route: &RouteId, page: &Page) {
    let Page { basis: _, epoch: _, evidence, totals, dirty: _ } = page;
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
