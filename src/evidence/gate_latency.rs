//! The condition `p99_ratio_below` on the pairs of a rung.
//!
//! Always true: the condition holds only if the upper end of the ratio's interval is below the limit, and fails only if
//! the lower end is not below it. Otherwise it is inconclusive, and asks for more pairs.

use super::bound::ALPHA;
use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, nothing_yet, pass};
use super::gate::JudgedRoute;
use super::latency_quantile::{NarrowPairedLatencies, pairs_min};
use super::latency_ratio::RatioInterval;
use crate::flag::State;

impl JudgedRoute<'_> {
    /// `None` if it is not asked for.
    pub(super) fn latency(&self, rung: State) -> Option<Condition> {
        let wanted = self.promote.p99_ratio_below?;
        let latencies = &self.evidence.counts_at(rung).narrow_latencies;
        let Some(RatioInterval { at_least, at_most }) = latencies.p99_ratio(ALPHA) else {
            return Some(nothing_yet(Name::P99RatioBelow, "the latencies of no pair were noted yet"));
        };
        let pairs = latencies.pairs();
        let times = match at_most {
            Some(at_most) => format!("between {at_least:.2} and {at_most:.2} times"),
            None => format!("at least {at_least:.2} times"),
        };
        let found = format!(
            "the 99th percentile of the engine's latency is {times} legacy's, by {pairs} pairs, with 95 % confidence"
        );
        if at_most.is_some_and(|at_most| at_most < wanted) {
            return Some(pass(Name::P99RatioBelow, found));
        }
        let (verdict, missing) = match at_least >= wanted {
            true => (Verdict::Fail, String::new()),
            false => (Verdict::Inconclusive, more_pairs(latencies, wanted)),
        };
        let detail = format!("{found}; it has to be less than {wanted} times{missing}");
        Some(Condition { name: Name::P99RatioBelow, verdict, detail })
    }
}

/// How many more pairs it takes until the condition can hold.
fn more_pairs(latencies: &NarrowPairedLatencies, wanted: f64) -> String {
    let pairs = latencies.pairs();
    if let Some(enough) = latencies.pairs_until_below(wanted, ALPHA) {
        return format!(": needs {} more pairs if they are like these", enough.saturating_sub(pairs));
    }
    match pairs_min(ALPHA).checked_sub(pairs).filter(|more| *more > 0) {
        Some(more) => format!(": needs at least {more} more pairs"),
        None => ": no number of pairs like these would show that".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::gate_tests::{good, missing, only_missing, small};
    use super::*;
    use crate::evidence::RouteEvidence;
    use crate::flag::Promote;

    fn count(evidence: &mut RouteEvidence, pairs: u64, legacy_ms: u64, engine_ms: u64) {
        let (legacy, engine) = (Duration::from_millis(legacy_ms), Duration::from_millis(engine_ms));
        (0..pairs).for_each(|_| evidence.all.narrow_latencies.count(legacy, engine));
    }

    #[test]
    fn latency_is_judged_only_where_it_is_asked_for() {
        let mut e = good();
        let promote = Promote { p99_ratio_below: Some(2.0), ..small() };
        only_missing(&e, &promote, State::Dark, Name::P99RatioBelow, Verdict::Inconclusive);
        count(&mut e, 100, 10, 100);
        assert_eq!(missing(&e, &small(), State::Shadow, State::Dark), []);
    }

    #[test]
    fn too_few_pairs_are_inconclusive_however_quick_the_engine_is() {
        let (mut e, promote) = (good(), Promote { p99_ratio_below: Some(2.0), ..small() });
        count(&mut e, 100, 10, 5);
        let detail = only_missing(&e, &promote, State::Dark, Name::P99RatioBelow, Verdict::Inconclusive);
        let needed = pairs_min(ALPHA);
        assert_eq!(
            detail,
            format!(
                "the 99th percentile of the engine's latency is at least 0.00 times legacy's, by 100 pairs, with 95 % \
                 confidence; it has to be less than 2 times: needs {} more pairs if they are like these",
                needed - 100
            )
        );
        count(&mut e, needed - 100, 10, 5);
        assert_eq!(missing(&e, &promote, State::Shadow, State::Dark), []);
    }

    /// The percentile that was observed is below the limit, and that may be chance.
    #[test]
    fn the_gate_judges_by_the_ends_of_the_interval() {
        let (mut e, promote) = (good(), Promote { p99_ratio_below: Some(2.0), ..small() });
        count(&mut e, 995, 10, 15);
        count(&mut e, 5, 10, 100);
        let detail = only_missing(&e, &promote, State::Dark, Name::P99RatioBelow, Verdict::Inconclusive);
        let more: u64 =
            detail.split_whitespace().rev().nth(7).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{detail}"));
        count(&mut e, (more + more / 20) * 995 / 1_000, 10, 15);
        count(&mut e, (more + more / 20) * 5 / 1_000, 10, 100);
        assert_eq!(missing(&e, &promote, State::Shadow, State::Dark), [], "{more} more pairs");
        // Slower by far, in enough pairs to know it.
        count(&mut e, 400, 10, 100);
        let detail = only_missing(&e, &promote, State::Dark, Name::P99RatioBelow, Verdict::Fail);
        assert!(detail.ends_with("it has to be less than 2 times"), "{detail}");
    }

    #[test]
    fn a_ratio_at_the_limit_is_said_to_stay_unknown() {
        let (mut e, promote) = (good(), Promote { p99_ratio_below: Some(1.0), ..small() });
        count(&mut e, 1_000, 10, 10);
        let detail = only_missing(&e, &promote, State::Dark, Name::P99RatioBelow, Verdict::Inconclusive);
        assert!(detail.ends_with(": no number of pairs like these would show that"), "{detail}");
    }
}
