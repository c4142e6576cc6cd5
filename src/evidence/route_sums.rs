//! Adds up what several processes count of one route.

use super::add_change::{AddChange, newest, newest_by_key, oldest, replaced, sum};
use super::noise::NoiseOfLegacy;
use super::route::RouteEvidence;
use super::strata::NotCompared;
use super::{fingerprints, rule_changes};
use crate::flag::State;

impl AddChange for RouteEvidence {
    /// In all three, the pairs that are equal by noise must be counted as differences
    /// ([`RouteEvidence::without_noise`]).
    fn add_change(&mut self, before: &Self, after: &Self) {
        self.add_streak(before, after);
        self.add_not_compared(before, after);
        let Self {
            shadow_pairs,
            dark_pairs,
            shadow_pairs_with_error,
            dark_pairs_with_error,
            matched,
            ignored,
            mismatched,
            skipped,
            failed,
            dark_with_twin,
            dark_without_twin,
            engine_answers: _,
            engine_answers_4xx: _,
            answers,
            answers_since,
            last_answer,
            // This, `lost_differences` and `restarted` are no counts: only an edit (`shared_counters`) changes them.
            cohort_rules: _,
            strata_by,
            invariants,
            engine_errors,
            lost_differences: _,
            restarted: _,
            not_compared: _,
            all,
            dark,
            legacy,
            stopped_by_guard,
            earlier,
            dropped,
            rule_hits,
            rule_last_hits,
            unparsable_bodies,
            uncompared_headers,
            seen,
            unresolved,
            noise,
            second_runs,
            uncompared_calls,
            gaps,
            undecided_places: _,
        } = self;
        sum(shadow_pairs, &before.shadow_pairs, &after.shadow_pairs);
        sum(dark_pairs, &before.dark_pairs, &after.dark_pairs);
        sum(shadow_pairs_with_error, &before.shadow_pairs_with_error, &after.shadow_pairs_with_error);
        sum(dark_pairs_with_error, &before.dark_pairs_with_error, &after.dark_pairs_with_error);
        sum(matched, &before.matched, &after.matched);
        sum(ignored, &before.ignored, &after.ignored);
        sum(mismatched, &before.mismatched, &after.mismatched);
        sum(skipped, &before.skipped, &after.skipped);
        sum(failed, &before.failed, &after.failed);
        sum(dark_with_twin, &before.dark_with_twin, &after.dark_with_twin);
        sum(dark_without_twin, &before.dark_without_twin, &after.dark_without_twin);
        sum(answers, &before.answers, &after.answers);
        oldest(answers_since, &before.answers_since, &after.answers_since);
        newest(last_answer, &before.last_answer, &after.last_answer);
        sum(strata_by, &before.strata_by, &after.strata_by);
        sum(invariants, &before.invariants, &after.invariants);
        sum(engine_errors, &before.engine_errors, &after.engine_errors);
        sum(all, &before.all, &after.all);
        sum(dark, &before.dark, &after.dark);
        sum(legacy, &before.legacy, &after.legacy);
        replaced(stopped_by_guard, &before.stopped_by_guard, &after.stopped_by_guard);
        rule_changes::add_change(earlier, &before.earlier, &after.earlier);
        *dropped = dropped.max(after.dropped);
        sum(rule_hits, &before.rule_hits, &after.rule_hits);
        newest_by_key(rule_last_hits, &before.rule_last_hits, &after.rule_last_hits);
        sum(unparsable_bodies, &before.unparsable_bodies, &after.unparsable_bodies);
        sum(uncompared_headers, &before.uncompared_headers, &after.uncompared_headers);
        fingerprints::add_change(seen, &before.seen, &after.seen);
        sum(unresolved, &before.unresolved, &after.unresolved);
        sum(noise, &before.noise, &after.noise);
        sum(second_runs, &before.second_runs, &after.second_runs);
        sum(uncompared_calls, &before.uncompared_calls, &after.uncompared_calls);
        sum(gaps, &before.gaps, &after.gaps);
    }
}

impl RouteEvidence {
    /// Adds up consecutive answers without an error. If one process had an error, it is not known which answers of the
    /// others came after it, so these do not count.
    fn add_streak(&mut self, before: &Self, after: &Self) {
        let has_errors = |counts: &Self| counts.engine_errors > before.engine_errors;
        match (has_errors(self), has_errors(after)) {
            (false, false) => {
                self.engine_answers.add_change(&before.engine_answers, &after.engine_answers);
                self.engine_answers_4xx.add_change(&before.engine_answers_4xx, &after.engine_answers_4xx);
            }
            (true, false) => {}
            (had_errors, true) => {
                if !had_errors || after.engine_answers < self.engine_answers {
                    (self.engine_answers, self.engine_answers_4xx) = (after.engine_answers, after.engine_answers_4xx);
                }
            }
        }
    }

    fn add_not_compared(&mut self, before: &Self, after: &Self) {
        let of = |evidence: &Self| NotCompared {
            shadow: evidence.not_compared_at(State::Shadow),
            dark: evidence.not_compared_at(State::Dark),
        };
        if self.not_compared.is_some() || after.not_compared.is_some() {
            let mut own = of(self);
            own.add_change(&of(before), &of(after));
            self.not_compared = Some(own);
        }
    }

    /// Takes back which pairs count as equal because of noise: they count as different again. Evidence is added up in
    /// this form, and then [`RouteEvidence::judge_groups`] decides once for the sum which groups are noise. Otherwise
    /// two processes could each have moved the pairs of one group from different to equal.
    pub(super) fn without_noise(mut self) -> Self {
        let orders = std::mem::take(&mut self.noise.orders_not_kept);
        self.judge_groups(&NoiseOfLegacy::default());
        self.noise.orders_not_kept = orders;
        self
    }
}
