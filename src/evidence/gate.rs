//! Decides whether a route's evidence allows the route to go up one rung. A pure function of the evidence.
//!
//! Always true: a condition that lacks evidence is no `pass`.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::bound;
use super::branches::OTHER_BRANCHES;
use super::conditions::{Condition, ConditionName as Name, GateVerdict as Verdict, nothing_yet, pass};
use super::gate_text::{ComparedWith, NAMES_SHOWN, duration_text, elapsed, first_of, more_needed};
use super::route::RouteEvidence;
use super::rung::RungCounts;
use super::strata::too_rarely_compared;
use super::stratum_names::{TOO_LARGE, are_several_kinds};
use crate::flag::{Invariant, Promote, SkipReason, State};
use crate::names::StepId;

/// The share of dark requests that may have no twin (the instance that the engine made from the same create), percent.
const WITHOUT_TWIN_PERCENT_MAX: u64 = 10;

/// A route as a gate looks at it.
#[derive(Clone, Copy)]
pub struct JudgedRoute<'a> {
    /// Its evidence.
    pub evidence: &'a RouteEvidence,
    /// What its gates require.
    pub promote: &'a Promote,
    /// Its shared steps whose calls have to be compared with legacy's calls, or judged by an `assert`.
    pub shared_steps: &'a [StepId],
    /// Its private steps whose calls legacy must not make too.
    pub private_steps: &'a [StepId],
    /// Steps that read with an unsafe method (such as POST). The gate stays shut if legacy makes the same call.
    pub sent_reads: &'a [StepId],
    /// The shared steps of the workflows that its workflow runs, whose calls nothing compares: `WORKFLOW/STEP`.
    pub shared_steps_below: &'a [String],
    /// What the engine's answers have to meet.
    pub invariants: &'a [Invariant],
    /// Whether its share in `live` is 100 %.
    pub live_share_is_all: bool,
    /// The present time.
    pub now: Timestamp,
}

/// The conditions for going up from one rung to the next; none for staying or going down. Not called for a follower
/// that goes from `shadow` to `dark`: its instances have no twins yet, so the follower has no pairs.
pub fn conditions(route: &JudgedRoute<'_>, from: State, to: State) -> Vec<Condition> {
    match (from, to) {
        (State::Off, State::Shadow) => Vec::new(),
        (State::Shadow, State::Dark) => {
            let mut conditions = route.of_pairs(State::Shadow);
            conditions.extend(route.private_calls_of_both().into_iter().chain(route.reads_of_both()));
            conditions
        }
        (State::Dark, State::Live) => {
            let mut conditions = route.of_pairs(State::Dark);
            conditions.extend([route.effects(State::Dark, ComparedWith::Legacy), route.twins()]);
            conditions.extend(route.private_calls_of_both().into_iter().chain(route.reads_of_both()));
            conditions
        }
        (State::Live, State::Only) => route.of_answers(),
        (from, to) if to <= from => Vec::new(),
        (from, to) => {
            let detail = format!("goes up one rung at a time, and {from} to {to} is more than one");
            vec![Condition { name: Name::OneRung, verdict: Verdict::Fail, detail }]
        }
    }
}

impl JudgedRoute<'_> {
    /// The conditions on pairs, for leaving `rung`. To leave `shadow`, the pairs of both rungs count; to leave `dark`,
    /// only those made in `dark`.
    pub(super) fn of_pairs(&self, rung: State) -> Vec<Condition> {
        let mut conditions = vec![
            self.pairs(rung),
            self.open_differences(),
            self.mismatch_rate(rung),
            self.coverage(rung),
            self.strata(rung),
            self.errors(rung),
        ];
        conditions.extend(self.noise());
        conditions.extend(self.latency(rung));
        conditions.extend(self.age_of_pairs(rung));
        conditions
    }

    fn pairs(&self, rung: State) -> Condition {
        let (have, wanted, e) = (self.evidence.pairs_without_error_at(rung), self.promote.pairs, self.evidence);
        let in_dark = if rung == State::Dark { " in dark" } else { "" };
        if have >= wanted {
            return pass(Name::Pairs, format!("{have} compared pairs{in_dark} of {wanted}"));
        }
        let more = wanted - have;
        let noun = if more == 1 { "pair" } else { "pairs" };
        let with_error = match rung {
            State::Dark => e.dark_pairs_with_error,
            _ => e.dark_pairs_with_error + e.shadow_pairs_with_error,
        };
        let errors = match with_error {
            0 => String::new(),
            n => format!("; {n} that legacy answered with 4xx or 5xx do not count"),
        };
        let since = self.counted_since("pairs");
        let detail = format!("needs {more} more compared {noun}{in_dark} ({have} of {wanted}{errors}){since}");
        Condition { name: Name::Pairs, verdict: Verdict::Inconclusive, detail }
    }

    /// The condition on open differences: at most so many pairs differ as the settings allow.
    pub fn open_differences(&self) -> Condition {
        let (open, allowed) = (self.evidence.mismatched, self.promote.open_differences);
        if open <= allowed {
            let earlier = self.evidence.earlier.iter().map(|earlier| earlier.mismatched);
            let earlier = self.evidence.dropped.mismatched + earlier.sum::<u64>();
            let earlier = match earlier {
                0 => String::new(),
                n => format!("; {n} differed before the workflow or the rules were changed"),
            };
            return pass(Name::OpenDifferences, format!("{open} pairs that differ; at most {allowed} may{earlier}"));
        }
        let detail = format!(
            "has {open} open {} since the workflow or the rules last changed: fix the workflow or the rules \
             (`pointsman help gates`){}{}",
            if open == 1 { "mismatch" } else { "mismatches" },
            self.more_were_lost(),
            // A call that was attributed to no request is missing from its pair, which then shows `effect_extra`.
            self.evidence
                .all
                .legacy_calls
                .why_not_known(self.promote.coverage_at_least)
                .map_or_else(String::new, |why| format!("; but first: {why}")),
        );
        Condition { name: Name::OpenDifferences, verdict: Verdict::Fail, detail }
    }

    fn mismatch_rate(&self, rung: State) -> Condition {
        let (wanted, pairs) = (self.promote.mismatch_below, self.evidence.pairs_without_error_at(rung));
        let differ = self.evidence.mismatched;
        let restarts = self.evidence.rule_changes_after_differences();
        let bound = bound::upper_after(restarts, pairs, differ.min(pairs));
        let percent = |rate: f64| rate * 100.0;
        let starts_over = match restarts {
            0 => String::new(),
            1 => {
                "; the rules or other settings were changed after a difference, so that it takes more pairs".to_owned()
            }
            n => format!(
                "; the rules or other settings were changed after a difference {n} times, so that it takes more pairs"
            ),
        };
        let by_noise = match self.evidence.noise.ignored {
            0 => String::new(),
            n => format!(", beside the {n} pairs that differ only by noise"),
        };
        let found = format!(
            "at most {:.2} % of requests differ{by_noise}, by the {pairs} pairs that count, with 95 % confidence{starts_over}",
            percent(bound)
        );
        if bound < wanted || wanted >= 1.0 {
            return pass(Name::MismatchBelow, found);
        }
        let more = match differ {
            0 => format!(": {} more equal pairs", bound::clean_pairs_after(restarts, wanted).saturating_sub(pairs)),
            _ => String::new(),
        };
        let detail = format!("needs a rate of mismatches below {} %{more} ({found})", percent(wanted));
        // With differences the rate may never come below the limit.
        let verdict = if differ == 0 { Verdict::Inconclusive } else { Verdict::Fail };
        Condition { name: Name::MismatchBelow, verdict, detail }
    }

    fn coverage(&self, rung: State) -> Condition {
        let (e, wanted) = (self.evidence, self.promote.coverage_at_least);
        let compared = e.pairs_without_error_at(rung);
        let not_compared = match rung {
            State::Dark => e.not_compared_at(State::Dark),
            _ => e.not_compared_at(State::Shadow) + e.not_compared_at(State::Dark),
        };
        let all = compared + not_compared;
        if all == 0 && e.pairs() > 0 {
            return nothing_yet(
                Name::CoverageAtLeast,
                "no request was compared yet that legacy answered without an error",
            );
        }
        if all == 0 {
            let left_out: Vec<String> =
                self.evidence.skipped.iter().map(|(reason, count)| format!("`{reason}` {count}")).collect();
            let detail = match left_out.is_empty() {
                true => "no request was offered for a comparison yet".to_owned(),
                false => format!(
                    "no request was compared yet: those that came were skipped as {} (`pointsman help compare`)",
                    first_of(&left_out, ", ")
                ),
            };
            return Condition { name: Name::CoverageAtLeast, verdict: Verdict::Inconclusive, detail };
        }
        let share = compared as f64 / all as f64;
        let found = format!("{:.1} % of requests were compared ({compared} of {all})", share * 100.0);
        if share >= wanted {
            return pass(Name::CoverageAtLeast, found);
        }
        let more = more_needed((compared, all), wanted).map_or_else(String::new, |more| {
            let requests = if more == 1 { "request" } else { "requests" };
            format!(": needs {more} more {requests} if all of them are compared")
        });
        let detail = format!("{found}; at least {} % have to be{more}{}", wanted * 100.0, self.most_skipped());
        Condition { name: Name::CoverageAtLeast, verdict: Verdict::Fail, detail }
    }

    /// Whether each kind of request and each branch of the workflow was compared often enough. For `shadow` the pairs
    /// of both rungs count. For `dark` only those made there do; but a kind or branch that came only in `shadow` needs
    /// to have been compared only there.
    fn strata(&self, rung: State) -> Condition {
        let wanted = self.promote.strata_at_least;
        let RungCounts { strata, branches, .. } = self.evidence.counts_at(rung);
        // Kinds that are counted together may hide one that was not compared.
        let lacks_pairs = |name: &str, compared: u64, all: u64| {
            let are_several = are_several_kinds(name) || name == OTHER_BRANCHES;
            compared < wanted || (wanted > 0 && are_several && compared < all)
        };
        let share = self.promote.coverage_at_least;
        let kinds =
            strata.iter().filter_map(|(name, counts)| match lacks_pairs(name, counts.compared, counts.served) {
                true => Some(format!("`{name}` ({} of {} served)", counts.compared, counts.served)),
                false => too_rarely_compared(name, counts, share).filter(|_| wanted > 0),
            });
        let of_branches = branches
            .branches
            .iter()
            .filter(|(name, counts)| lacks_pairs(name, counts.compared, counts.runs))
            .map(|(name, counts)| format!("runs with {name} ({} of {} runs)", counts.compared, counts.runs));
        // Steps that were reached only by runs that could not be compared.
        let steps = branches
            .only_unfinished()
            .filter(|_| wanted > 0)
            .map(|(step, runs)| format!("runs with `{step}` ({runs} could not be compared)"));
        let of_both_rungs = (rung >= State::Dark).then_some(&self.evidence.all);
        let kinds_of_shadow = of_both_rungs
            .into_iter()
            .flat_map(|all| &all.strata)
            .filter(|(name, counts)| !strata.contains_key(*name) && lacks_pairs(name, counts.compared, counts.served))
            .map(|(name, counts)| format!("`{name}` ({} of {} served in `shadow`)", counts.compared, counts.served));
        let branches_of_shadow = of_both_rungs
            .into_iter()
            .flat_map(|all| &all.branches.branches)
            .filter(|(name, counts)| {
                !branches.branches.contains_key(*name) && lacks_pairs(name, counts.compared, counts.runs)
            })
            .map(|(name, counts)| {
                format!("runs with {name} ({} of {} runs in `shadow`)", counts.compared, counts.runs)
            });
        let lacking: Vec<String> =
            kinds.chain(of_branches).chain(steps).chain(kinds_of_shadow).chain(branches_of_shadow).collect();
        if strata.is_empty() && wanted > 0 {
            return nothing_yet(Name::StrataAtLeast, "no kind of request was noted yet");
        }
        if lacking.is_empty() {
            let kinds = strata.len() + branches.branches.len();
            let never: Vec<String> = branches.never_taken().map(|step| format!("`{step}`")).collect();
            let never = match never.is_empty() {
                true => String::new(),
                false => format!("; no compared run reached {}", first_of(&never, ", ")),
            };
            let each = if kinds == 1 { "the one kind".to_owned() } else { format!("each of {kinds} kinds") };
            let pairs = if wanted == 1 { "pair" } else { "pairs" };
            let detail = format!("{each} of requests and runs has {wanted} compared {pairs} or more{never}");
            return pass(Name::StrataAtLeast, detail);
        }
        let detail = format!(
            "needs {wanted} compared {} or more, and the share that coverage wants, of each kind of request that legacy \
             served and of each branch of the workflow: {}",
            if wanted == 1 { "pair" } else { "pairs" },
            first_of(&lacking, ", "),
        );
        let is_too_large = lacking.iter().any(|name| name.contains(TOO_LARGE));
        let detail = match is_too_large {
            true => {
                let why = "what is too large to be compared is a kind of its own (`body_capture_bytes_max`, \
                           `compare_bytes_max`): the engine would answer it without ever having been compared";
                format!("{detail}. {why}")
            }
            false => detail,
        };
        Condition { name: Name::StrataAtLeast, verdict: Verdict::Inconclusive, detail }
    }

    fn twins(&self) -> Condition {
        let without = self.evidence.dark_without_twin;
        let all = self.evidence.dark_with_twin + without;
        let share = without as f64 * 100.0 / all.max(1) as f64;
        let found = format!("{share:.1} % of dark requests without a twin ({without} of {all})");
        if all == 0 && self.evidence.dark_pairs == 0 {
            return nothing_yet(Name::Twins, "no request was run in dark yet");
        }
        // In integers, so that a share of exactly the maximum passes.
        if without * 100 <= all * WITHOUT_TWIN_PERCENT_MAX {
            return pass(Name::Twins, found);
        }
        let detail = format!("has {found}; at most {WITHOUT_TWIN_PERCENT_MAX} % may have none{}", self.most_skipped());
        Condition { name: Name::Twins, verdict: Verdict::Fail, detail }
    }

    fn age_of_pairs(&self, rung: State) -> Option<Condition> {
        let last = self.evidence.counts_at(rung).last_pair;
        // `last_pair` is not set by a pair that both arms refused, so it may be absent although there are pairs. If one
        // of those without an error is counted and it is absent, an earlier version stored the evidence.
        let pairs = self.evidence.pairs_without_error_at(rung);
        self.age("compared pair", last, last.is_none() && pairs > 0)
    }

    /// The condition on the age of the last `what`. `None` if there is none yet: then other conditions fail to hold.
    pub(super) fn age(&self, what: &str, last: Option<Timestamp>, is_of_earlier_version: bool) -> Option<Condition> {
        let (name, wanted) = (Name::AgeAtMost, self.promote.age_at_most);
        let (verdict, detail) = match last {
            None if is_of_earlier_version => (
                Verdict::Stale,
                format!("an earlier version did not note when the last {what} was: one more is needed"),
            ),
            None => return None,
            Some(last) => {
                let age = elapsed(last, self.now);
                let found = format!("the last {what} was {} ago", duration_text(age));
                match age <= wanted {
                    true => (Verdict::Pass, found),
                    false => (Verdict::Stale, format!("{found}; it may be at most {} old", duration_text(wanted))),
                }
            }
        };
        Some(Condition { name, verdict, detail })
    }

    /// If differences were lost: says since when `counted` (pairs or answers) are counted, and why only since then.
    /// Otherwise empty.
    pub(super) fn counted_since(&self, counted: &str) -> String {
        let since = self.evidence.lost_differences.map(|at| {
            format!(
                "; {counted} are counted since {at:.0}: one or more differences were lost: an earlier process ended before \
                 it had stored them, or the store is a restored backup"
            )
        });
        since.unwrap_or_default()
    }

    /// If differences were lost: a note that there were more than are counted. Otherwise empty.
    fn more_were_lost(&self) -> String {
        let lost = self.evidence.lost_differences.map(|at| {
            format!(
                "; more are not counted: they were not stored when the process that ran before {at:.0} ended, or were \
                 found after the backup was made from which this store was restored"
            )
        });
        lost.unwrap_or_default()
    }

    /// Names the most frequent reasons why requests that count against coverage were skipped, or failed.
    fn most_skipped(&self) -> String {
        let counts =
            |reason: &str| SkipReason::ALL.iter().all(|r| r.as_str() != reason || r.may_count_against_coverage());
        let mut reasons: Vec<_> = self.evidence.skipped.iter().chain(&self.evidence.failed).collect();
        reasons.retain(|(reason, count)| **count > 0 && counts(reason));
        reasons.sort_by_key(|(reason, count)| (Reverse(**count), reason.as_str()));
        match reasons.is_empty() {
            true => String::new(),
            false => {
                let some = reasons.iter().take(NAMES_SHOWN).map(|(reason, count)| format!("`{reason}` {count}"));
                let is_unresolved = reasons.iter().any(|(reason, _)| *reason == SkipReason::UnresolvedEffect.as_str());
                let legacy_calls = match is_unresolved && self.evidence.all.legacy_calls.watched > 0 {
                    true => ", and which calls by legacy belong to no request: `pointsman egress ROUTE`",
                    false => "",
                };
                format!(
                    ". Requests were skipped or failed as {}: see `pointsman help compare`{legacy_calls}",
                    some.collect::<Vec<_>>().join(", ")
                )
            }
        }
    }
}
