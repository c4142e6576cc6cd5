//! Decides how far the callers of a cohort may go by the evidence of their own requests.
//!
//! Always true: what a cohort's pairs do not say (coverage, errors, effects, age) is asked of the whole route, so that
//! a cohort never passes a gate by less evidence than the route needs.

use super::bound;
use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, pass};
use super::gate::{JudgedRoute, conditions};
use super::gate_text::first_of;
use super::strata::{StratumCounts, too_rarely_compared};
use super::stratum_names::{OTHER_STRATA, is_of_cohort, is_of_errors};
use crate::flag::State;

/// The conditions that are judged by the cohort's own pairs instead of the route's. `StrataAtLeast` is judged by both,
/// because only the evidence of the whole route knows which branches of the workflow were compared.
const JUDGED_BY_OWN_PAIRS: [Name; 3] = [Name::Pairs, Name::OpenDifferences, Name::MismatchBelow];

/// The conditions under which the callers of a cohort may go up from one rung to the next, up to `live`.
pub fn cohort_conditions(
    route: &JudgedRoute<'_>,
    (cohort, rule): (&str, &str),
    from: State,
    to: State,
) -> Vec<Condition> {
    if route.evidence.cohort_rules.get(cohort).is_none_or(|counted| counted != rule) {
        let detail = format!("the rule of `{cohort}` is new or was changed: no request of its callers was counted yet");
        return vec![Condition { name: Name::Pairs, verdict: Verdict::Inconclusive, detail }];
    }
    let of_route =
        conditions(route, from, to).into_iter().filter(|condition| !JUDGED_BY_OWN_PAIRS.contains(&condition.name));
    route.of_cohort(cohort, from).into_iter().chain(of_route).collect()
}

impl JudgedRoute<'_> {
    fn of_cohort(&self, cohort: &str, rung: State) -> Vec<Condition> {
        let strata = &self.evidence.counts_at(rung).strata;
        let own: Vec<(&String, &StratumCounts)> =
            strata.iter().filter(|(name, _)| is_of_cohort(name, cohort)).collect();
        let succeeded = own.iter().filter(|(name, _)| !is_of_errors(name));
        let pairs: u64 = succeeded.map(|(_, counts)| counts.compared).sum();
        // Differences count on whatever rung they were found.
        let all = self.evidence.all.strata.iter().filter(|(name, _)| is_of_cohort(name, cohort));
        let differ: u64 = all.map(|(_, counts)| counts.mismatched).sum();
        // Requests of kinds that are counted together may be of this cohort too.
        let of_unknown = self.evidence.all.strata.get(OTHER_STRATA).map_or(0, |counts| counts.mismatched);
        let differ = differ + of_unknown;
        vec![
            self.pairs_of_cohort(cohort, rung, pairs),
            self.differences_of_cohort(cohort, differ),
            self.rate_of_cohort(cohort, pairs, differ),
            self.strata_of_cohort(cohort, &own),
        ]
    }

    fn pairs_of_cohort(&self, cohort: &str, rung: State, pairs: u64) -> Condition {
        let wanted = self.promote.pairs;
        let in_dark = if rung == State::Dark { " in dark" } else { "" };
        match wanted.saturating_sub(pairs) {
            0 => pass(Name::Pairs, format!("{pairs} compared pairs of `{cohort}`{in_dark} of {wanted}")),
            more => {
                let noun = if more == 1 { "pair" } else { "pairs" };
                let detail = format!("needs {more} more compared {noun} of `{cohort}`{in_dark} ({pairs} of {wanted})");
                Condition { name: Name::Pairs, verdict: Verdict::Inconclusive, detail }
            }
        }
    }

    fn differences_of_cohort(&self, cohort: &str, differ: u64) -> Condition {
        let allowed = self.promote.open_differences;
        let detail = format!("{differ} pairs of `{cohort}` differ; at most {allowed} may");
        let verdict = if differ <= allowed { Verdict::Pass } else { Verdict::Fail };
        Condition { name: Name::OpenDifferences, verdict, detail }
    }

    fn rate_of_cohort(&self, cohort: &str, pairs: u64, differ: u64) -> Condition {
        let wanted = self.promote.mismatch_below;
        let bound = bound::upper_after(self.evidence.rule_changes_after_differences(), pairs, differ.min(pairs));
        let detail = format!("fewer than {:.2} % of the requests of `{cohort}` differ (95 %)", bound * 100.0);
        let (verdict, wants) = match bound < wanted || wanted >= 1.0 {
            true => (Verdict::Pass, String::new()),
            false => (Verdict::Inconclusive, format!("; it has to be fewer than {:.2} %", wanted * 100.0)),
        };
        Condition { name: Name::MismatchBelow, verdict, detail: format!("{detail}{wants}") }
    }

    fn strata_of_cohort(&self, cohort: &str, own: &[(&String, &StratumCounts)]) -> Condition {
        let wanted = self.promote.strata_at_least;
        let share = self.promote.coverage_at_least;
        let thin = own.iter().filter_map(|(name, counts)| match counts.compared < wanted {
            true => Some(format!("`{name}` ({} of {} served)", counts.compared, counts.served)),
            false => too_rarely_compared(name, counts, share).filter(|_| wanted > 0),
        });
        let thin: Vec<String> = thin.collect();
        match thin.is_empty() {
            true => {
                pass(Name::StrataAtLeast, format!("each of {} kinds of requests of `{cohort}` was compared", own.len()))
            }
            false => {
                let detail = format!(
                    "needs {wanted} compared pairs of each kind of request of `{cohort}`: {}",
                    first_of(&thin, ", ")
                );
                Condition { name: Name::StrataAtLeast, verdict: Verdict::Inconclusive, detail }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::evidence::{RouteEvidence, overall};
    use crate::flag::Promote;

    fn strata(of: &[(&str, u64, u64)]) -> RouteEvidence {
        let mut evidence = RouteEvidence::default();
        for (name, compared, mismatched) in of {
            let counts = StratumCounts {
                served: *compared,
                compared: *compared,
                mismatched: *mismatched,
                calls_unknown: 0,
                skipped: 0,
            };
            evidence.all.strata.insert((*name).to_owned(), counts);
        }
        evidence.dark.strata = evidence.all.strata.clone();
        let pairs: u64 = of.iter().map(|(_, compared, _)| compared).sum();
        evidence.cohort_rules = [("staff", "rule"), ("nobody", "rule")].map(|(a, b)| (a.into(), b.into())).into();
        (evidence.shadow_pairs, evidence.mismatched) = (pairs, of.iter().map(|(.., mismatched)| mismatched).sum());
        evidence.all.last_pair = Some(Timestamp::UNIX_EPOCH);
        evidence
    }

    fn verdict(evidence: &RouteEvidence, cohort: &str) -> (Verdict, String) {
        let promote = Promote { pairs: 50, mismatch_below: 0.2, ..Promote::default() };
        let route = JudgedRoute {
            evidence,
            promote: &promote,
            shared_steps: &[],
            private_steps: &[],
            sent_reads: &[],
            shared_steps_below: &[],
            invariants: &[],
            live_share_is_all: false,
            now: Timestamp::UNIX_EPOCH,
        };
        let found = cohort_conditions(&route, (cohort, "rule"), State::Shadow, State::Dark);
        let shut: Vec<String> =
            found.iter().filter(|one| one.verdict != Verdict::Pass).map(|one| one.detail.clone()).collect();
        (overall(&found), shut.join("; "))
    }

    #[test]
    fn a_cohort_is_judged_by_its_own_pairs() {
        let evidence = strata(&[("POST 2xx", 900, 7), ("POST 2xx staff", 60, 0), ("GET 4xx staff", 5, 0)]);
        assert_eq!(verdict(&evidence, "staff"), (Verdict::Pass, String::new()), "others differ, these do not");
        assert_eq!(verdict(&evidence, "nobody").0, Verdict::Inconclusive, "no pairs of its own");
        let mut changed = evidence.clone();
        changed.cohort_rules.insert("staff".into(), "another rule".into());
        assert_eq!(verdict(&changed, "staff").0, Verdict::Inconclusive, "the pairs are of other callers");
        let (found, why) = verdict(&strata(&[("POST 2xx", 900, 0), ("POST 2xx staff", 60, 1)]), "staff");
        assert_eq!(found, Verdict::Fail);
        assert!(why.contains("1 pairs of `staff` differ"), "{why}");
        let (found, why) = verdict(&strata(&[("POST 2xx staff", 60, 0), ("POST 2xx staff too large", 0, 0)]), "staff");
        assert_eq!(found, Verdict::Inconclusive);
        assert!(why.contains("`POST 2xx staff too large`"), "{why}");
        let (found, why) = verdict(&strata(&[("POST 2xx staff", 20, 0), ("GET 4xx staff", 90, 0)]), "staff");
        assert_eq!(found, Verdict::Inconclusive);
        assert!(why.contains("needs 30 more compared pairs of `staff`"), "{why}");
    }
}
