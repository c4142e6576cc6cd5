//! What becomes of evidence if a process ended before it had stored what it knew.
//!
//! Always true: what was lost never counts as compared, and equal pairs among which differences may have been lost
//! count for nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::fingerprints::PairsByKind;
use super::route::RouteEvidence;
use super::strata::NotCompared;
use super::stratum_names::is_of_errors;
use super::uncompared_headers::UncomparedHeaders;
use crate::flag::{SkipReason, State};

/// The evidence without what may hide lost differences and errors.
pub(super) fn after_loss(before: RouteEvidence, now: Timestamp) -> RouteEvidence {
    // Only pairs that differ stay counted. The rung of each pair is not stored, so as many as possible count as
    // made in shadow.
    let differing = before.mismatched + before.noise.ignored;
    let shadow_pairs = differing.min(before.shadow_pairs);
    RouteEvidence {
        shadow_pairs,
        dark_pairs: differing - shadow_pairs,
        shadow_pairs_with_error: 0,
        dark_pairs_with_error: 0,
        matched: 0,
        ignored: before.noise.ignored,
        mismatched: before.mismatched,
        skipped: before.skipped,
        failed: before.failed,
        // Both counts stay: the gate reads their ratio, which a lost difference does not change.
        dark_with_twin: before.dark_with_twin,
        dark_without_twin: before.dark_without_twin,
        engine_answers: 0,
        engine_answers_4xx: 0,
        answers: before.answers.only_errors(),
        answers_since: None,
        last_answer: None,
        cohort_rules: before.cohort_rules,
        strata_by: before.strata_by,
        invariants: before.invariants.into_iter().map(|(name, counts)| (name, counts.without_held())).collect(),
        engine_errors: before.engine_errors,
        lost_differences: Some(now),
        restarted: before.restarted,
        not_compared: before.not_compared,
        all: before.all.without_equal_pairs(),
        dark: before.dark.without_equal_pairs(),
        legacy: before.legacy,
        stopped_by_guard: before.stopped_by_guard,
        earlier: before.earlier,
        dropped: before.dropped,
        rule_hits: BTreeMap::new(),
        rule_last_hits: BTreeMap::new(),
        unparsable_bodies: BTreeMap::new(),
        uncompared_headers: UncomparedHeaders::default(),
        seen: before.seen,
        unresolved: before.unresolved,
        noise: before.noise,
        second_runs: before.second_runs,
        uncompared_calls: before.uncompared_calls,
        gaps: before.gaps,
        undecided_places: before.undecided_places,
    }
}

impl RouteEvidence {
    /// Counts requests as not compared, because the process ended (`shutting_down`), or the basis of the evidence
    /// changed (`files_changed`), while the shadow executor worked on them.
    pub(super) fn count_lost(&mut self, lost: &PairsByKind, reason: SkipReason) {
        if lost.is_empty() {
            return;
        }
        let so_far =
            NotCompared { shadow: self.not_compared_at(State::Shadow), dark: self.not_compared_at(State::Dark) };
        let not_compared = self.not_compared.get_or_insert(so_far);
        let without_error = |of_rung: &BTreeMap<String, u64>| -> u64 {
            of_rung.iter().filter(|(stratum, _)| !is_of_errors(stratum)).map(|(_, requests)| requests).sum()
        };
        not_compared.shadow += without_error(&lost.shadow);
        not_compared.dark += without_error(&lost.dark);
        *self.skipped.entry(reason.as_str().to_owned()).or_default() += lost.pairs();
        for (stratum, requests) in lost.shadow.iter().chain(&lost.dark) {
            self.all.count_served(stratum, *requests);
        }
        for (stratum, requests) in &lost.dark {
            self.dark.count_served(stratum, *requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{Method, StatusCode};

    use super::*;
    use crate::evidence::Evidence;
    use crate::evidence::testing::Memory;
    use crate::exchange::{ComparisonOutcome, ComparisonTicket, OfferedRequest};
    use crate::names::RouteId;

    #[tokio::test]
    async fn requests_that_are_under_way_at_a_kill_count_as_not_compared() {
        let (store, route) = (Arc::new(Memory::new()), RouteId::from("orders"));
        let evidence = Evidence::load(store.clone()).await.unwrap();
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        let begun_with = |status, rung| {
            let request = OfferedRequest { rung, method: Method::GET, ..OfferedRequest::new(route.clone(), 0) };
            let mut ticket = ComparisonTicket::new(request, evidence.clone());
            ticket.set_legacy_status(status);
            ticket.begin();
            ticket
        };
        let begun = |rung| begun_with(StatusCode::OK, rung);
        // An error of legacy counts for its kind only.
        let refused = begun_with(StatusCode::NOT_FOUND, State::Dark);
        begun(State::Dark).settle(ComparisonOutcome::Matched);
        let open = [begun(State::Dark), begun(State::Shadow), begun(State::Dark)];
        evidence.flush().await.unwrap();

        let after = Evidence::load(store.clone()).await.unwrap();
        let seen = after.of(&route);
        assert_eq!(seen.skipped["shutting_down"], 4);
        assert_eq!((seen.not_compared_at(State::Shadow), seen.not_compared_at(State::Dark)), (1, 2));
        let served = |counts: &crate::evidence::RungCounts| {
            let of_kind = counts.strata["GET 2xx"];
            (of_kind.served, of_kind.compared)
        };
        assert_eq!((served(&seen.all), served(&seen.dark)), ((4, 1), (3, 1)));
        assert_eq!(seen.all.strata["GET 4xx"].served, 1);

        // Once they are settled, nothing is lost.
        open.into_iter().chain([refused]).for_each(|ticket| ticket.settle(ComparisonOutcome::Matched));
        evidence.flush().await.unwrap();
        let seen = Evidence::load(store).await.unwrap().of(&route);
        assert_eq!((seen.skipped.len(), seen.not_compared_at(State::Dark)), (0, 0));
    }
}
