//! The evidence of one route: counts since its workflow or rules last changed, and the figures computed from them.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::answers::AnswersByHour;
use super::bound;
use super::fingerprints::FingerprintCount;
use super::guard_stop::GuardStop;
use super::invariants::InvariantCounts;
use super::legacy_replies::RepliesOfLegacy;
use super::noise::NoisePairs;
use super::process_share::EvidenceGap;
use super::rung::RungCounts;
use super::second_runs::SecondRuns;
use super::strata::NotCompared;
use super::strata_by::StrataBy;
use super::uncompared_calls::UncomparedCallCounts;
use super::uncompared_headers::UncomparedHeaders;
use super::undecided_places::UndecidedPlaces;
use crate::compare::{Comparison, UnparsableBody};
use crate::exchange::{ComparisonOutcome, OfferedRequest, Served};
use crate::flag::State;
use crate::names::StepId;

/// The evidence of one route since its workflow or rules last changed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct RouteEvidence {
    /// Pairs made in shadow.
    pub shadow_pairs: u64,
    /// Pairs made in dark.
    pub dark_pairs: u64,
    /// Of the pairs made in shadow, those that legacy answered with an error (4xx or 5xx), so that most likely
    /// nothing was done.
    #[serde(rename = "shadow_refusals")] // the name in stored evidence and in the API, as in the two renames below
    pub shadow_pairs_with_error: u64,
    /// Of the pairs made in dark, those that legacy answered with an error.
    #[serde(rename = "dark_refusals")]
    pub dark_pairs_with_error: u64,
    /// Of all pairs, those that are equal without the help of a rule.
    pub matched: u64,
    /// Of all pairs, those that are equal only by a rule.
    pub ignored: u64,
    /// Of all pairs, those that differ; these are open until the workflow or the rules change.
    pub mismatched: u64,
    /// Requests that were not compared, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Requests whose run failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Dark requests that have a twin: a durable run was made.
    pub dark_with_twin: u64,
    /// Dark requests that have no twin.
    pub dark_without_twin: u64,
    /// Consecutive answers of the engine to callers without an error, since the workflow, the rules or the version of
    /// the binary last changed: in `live`, in `only`, and in every state if the engine owns the instance.
    pub engine_answers: u64,
    /// Of these answers, those with a 4xx status.
    #[serde(rename = "engine_refusals")]
    pub engine_answers_4xx: u64,
    /// The engine's answers to callers of the last week, by the hour.
    pub answers: AnswersByHour,
    /// When the engine's first answer without an error was given, since the workflow or the rules last changed.
    pub answers_since: Option<Timestamp>,
    /// When its last answer without an error was given.
    pub last_answer: Option<Timestamp>,
    /// For each cohort the rule (a hash) by which its requests were counted.
    pub cohort_rules: BTreeMap<String, String>,
    /// By what kinds of requests are told apart beyond method, status and cohort.
    pub strata_by: StrataBy,
    /// How often the engine's answers to callers met the invariants of the route, by the name of the invariant.
    pub invariants: BTreeMap<String, InvariantCounts>,
    /// Errors, unknown outcomes and fallbacks of the engine as the answering arm, since the workflow or the rules last
    /// changed.
    pub engine_errors: u64,
    /// The time since when the pairs are counted, if differences or failures were lost: a process ended before it had
    /// stored them, or the store is a restored backup that was made before they were seen. Mismatches, failures and
    /// errors that were stored before this time stay counted.
    pub lost_differences: Option<Timestamp>,
    /// When the evidence was last started from zero because something that it depends on changed; `None` if that never
    /// happened, or if nothing had been counted by then.
    pub restarted: Option<EvidenceRestart>,
    /// Requests that were not compared and count against coverage; `null` in evidence of an earlier version.
    pub not_compared: Option<NotCompared>,
    /// What was counted of the pairs of all rungs.
    #[serde(flatten)]
    pub all: RungCounts,
    /// Of these, what was counted in `dark`.
    pub dark: RungCounts,
    /// How legacy answers by itself. It outlives a change of the basis that does not concern legacy.
    #[serde(flatten)]
    pub legacy: RepliesOfLegacy,
    /// Of a candidate: the guard has set its share to 0, and nobody has passed its gate by force since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_by_guard: Option<GuardStop>,
    /// What the evidence was each time it was started from zero, the oldest first; the last 16 times.
    pub earlier: Vec<EarlierEvidence>,
    /// What still older times, which are not listed, said of differences and of changes of the rules.
    pub dropped: DroppedEvidence,
    /// For each rule, how often it made two different values equal.
    pub rule_hits: BTreeMap<String, u64>,
    /// For each rule, when it last did so.
    pub rule_last_hits: BTreeMap<String, Timestamp>,
    /// How many bodies of the replies are not what their content types say, by arm and format: `legacy JSON`.
    pub unparsable_bodies: BTreeMap<String, u64>,
    /// The headers of the replies that the rules do not compare.
    pub uncompared_headers: UncomparedHeaders,
    /// The number of pairs that differ, by the fingerprint of their differences, for the 256 fingerprints that were
    /// seen last. Only a few of these pairs are kept as samples.
    pub seen: BTreeMap<String, FingerprintCount>,
    /// Why requests were skipped as `unresolved_effect`, and how often, for the first 16 reasons.
    pub unresolved: BTreeMap<String, u64>,
    /// The pairs that may be noise.
    pub noise: NoisePairs,
    /// Where the engine differed from itself.
    pub second_runs: SecondRuns,
    /// Calls by legacy that may have changed something and that are in no compared pair. They keep the gate to `live`
    /// shut for as long as this evidence counts.
    pub uncompared_calls: UncomparedCallCounts,
    /// Processes that ended without writing what they had counted last, while several share the store: what they
    /// compared then is not among these counts. The last 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<EvidenceGap>,
    /// What is known of places at which captured values are redacted; only a rehearsal of captures has such places.
    #[serde(skip)]
    pub undecided_places: UndecidedPlaces,
}

/// Rules whose hits are counted separately.
const RULES_MAX: usize = 256;
/// How many pairs it takes to call a rule dead. A rule for what happens in one pair of 50 has no hit in this many pairs
/// with a probability of about 1 in 24,000.
const DEAD_RULE_PAIRS: u64 = 500;

impl RouteEvidence {
    /// Counts what a pair says of the rules, and of bodies that are not what their content types say.
    pub(super) fn count_rules_and_bodies(&mut self, comparison: &Comparison, now: Timestamp) {
        for UnparsableBody { arm, format } in &comparison.unparsable {
            *self.unparsable_bodies.entry(format!("{arm} {format}")).or_default() += 1;
        }
        for (rule, hits) in &comparison.ignored_by {
            self.count_hits(rule, u64::from(*hits), now);
        }
        comparison.not_known.iter().for_each(|values| self.undecided_places.note(values));
    }
    /// Counts that a rule made values equal, if there is room for the rule.
    pub(super) fn count_hits(&mut self, rule: &str, hits: u64, now: Timestamp) {
        if let Some(counted) = self.rule_hits.get_mut(rule) {
            *counted += hits;
        } else if self.rule_hits.len() < RULES_MAX {
            self.rule_hits.insert(rule.to_owned(), hits);
        }
        if self.rule_hits.contains_key(rule) {
            self.rule_last_hits.insert(rule.to_owned(), now);
        }
    }
    /// Of these rules, those that made no two values equal in all pairs; none while there are too few pairs to tell.
    pub fn dead_rules<'r>(&self, rules: impl Iterator<Item = &'r str>) -> Vec<String> {
        // With so many rules, the hits of some may not have been counted.
        if self.pairs() < DEAD_RULE_PAIRS || self.rule_hits.len() >= RULES_MAX {
            return Vec::new();
        }
        rules.filter(|rule| !self.rule_hits.contains_key(*rule)).map(str::to_owned).collect()
    }
}

/// Evidence was started from zero, because something that it depends on changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct EvidenceRestart {
    /// When.
    pub at: Timestamp,
    /// What changed, each as the subject of a sentence: "the workflow `create-order`". Empty if that is not known,
    /// because the evidence before was stored by an earlier version.
    pub changed: Vec<String>,
    /// How many pairs had been compared by then.
    pub pairs_before: u64,
}

/// Evidence that was started from zero, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct EarlierEvidence {
    /// When it was started from zero.
    pub until: Timestamp,
    /// What changed, as in [`EvidenceRestart::changed`].
    pub changed: Vec<String>,
    /// The pairs that had been compared.
    pub pairs: u64,
    /// Of these, those that differed.
    pub mismatched: u64,
    /// The basis that it had; empty if an earlier version stored it.
    #[serde(default)]
    pub basis: String,
    /// Whether no pair differed, and there were as many as the gates ask for: a difference that was seen before has
    /// been outweighed.
    #[serde(default, alias = "answered")]
    pub outweighed: bool,
    /// The pairs without an error; `null` if a pair differed, and in evidence of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_pairs: Option<u64>,
}

/// What the entries of [`RouteEvidence::earlier`] said that are not kept any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct DroppedEvidence {
    /// The pairs that differed.
    pub mismatched: u64,
    /// How often the rules were changed after a difference.
    pub rule_changes: u32,
    /// How many changes of the rules do not count, because only plans were changed after a later difference.
    #[serde(alias = "forgiven")]
    pub set_aside: u32,
    /// Whether a difference has not been outweighed.
    pub has_open_difference: bool,
}

/// The evidence of an earlier basis.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct KeptEvidence {
    pub(super) basis: String,
    /// The hashes of the parts of that basis; empty if an earlier version stored it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) parts: BTreeMap<String, String>,
    pub(super) evidence: RouteEvidence,
}

impl RouteEvidence {
    /// Stored evidence, which an earlier version may have written. Such a version also counted the pairs that are equal
    /// by a rule as `matched`.
    pub(super) fn restored(mut self) -> Self {
        self.legacy.complete_latencies(&self.all.narrow_latencies.legacy);
        Self { matched: self.pairs().saturating_sub(self.ignored + self.mismatched), ..self }
    }
    /// The rank of this evidence. Where there is evidence under several ids of one route, the route keeps the one with
    /// the highest rank: evidence with open mismatches before other evidence, and that before none. An id under which
    /// nothing was counted must not hide the open mismatches of another id.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self { mismatched: 1.., .. } => 2,
            other => {
                // What the files declare is no evidence, nor what earlier evidence was, nor how legacy answered under
                // an earlier basis, nor calls without a pair.
                let (restarted, earlier, dropped, strata_by, legacy, uncompared_calls) = Default::default();
                let own = Self { restarted, earlier, dropped, strata_by, legacy, uncompared_calls, ..other.clone() };
                u8::from(own != Self::default())
            }
        }
    }
    /// The number of all pairs.
    pub fn pairs(&self) -> u64 {
        self.shadow_pairs + self.dark_pairs
    }
    /// The pairs that legacy answered without an error. The others say nothing of what the engine does for a request
    /// that succeeds: they count for their kind of request only.
    pub fn pairs_without_error(&self) -> u64 {
        self.pairs_without_error_at(State::Shadow)
    }
    /// Of these, what counts for the gate above a rung: for `shadow` all of them, for `dark` those made there.
    pub(super) fn pairs_without_error_at(&self, rung: State) -> u64 {
        let of_dark = self.dark_pairs.saturating_sub(self.dark_pairs_with_error);
        if rung >= State::Dark {
            return of_dark;
        }
        of_dark + self.shadow_pairs.saturating_sub(self.shadow_pairs_with_error)
    }
    /// The 95 % upper bound of the mismatch rate of the pairs that legacy answered without an error, valid no matter
    /// how often it is read; 1 if there are no such pairs.
    pub fn mismatch_upper_bound(&self) -> f64 {
        let pairs = self.pairs_without_error();
        bound::upper_after(self.rule_changes_after_differences(), pairs, self.mismatched.min(pairs))
    }
    /// How many more such pairs without a mismatch bring the bound below a rate; `None` if there is a mismatch.
    pub fn pairs_needed_for(&self, rate: f64) -> Option<u64> {
        let restarts = self.rule_changes_after_differences();
        let needed = || bound::clean_pairs_after(restarts, rate).saturating_sub(self.pairs_without_error());
        (self.mismatched == 0).then(needed)
    }
    /// What counts for the gate above a rung: for the one from `shadow` to `dark` the pairs of both rungs, for the one
    /// from `dark` to `live` those made in `dark`.
    pub(super) fn counts_at(&self, rung: State) -> &RungCounts {
        if rung >= State::Dark { &self.dark } else { &self.all }
    }
    /// The steps, of these, of which no call was compared with a call by legacy or judged by an `assert`.
    pub fn uncompared<'a>(&self, steps: &'a [StepId]) -> impl Iterator<Item = &'a StepId> {
        self.all.uncompared(steps, 0.0)
    }
    /// The share of requests that were compared, from 0 to 1; 0 if there were none. Requests that were left out by the
    /// route's share, that cannot be compared because of what the client or legacy did, or that legacy answered with an
    /// error do not count.
    pub fn coverage(&self) -> f64 {
        let compared = self.pairs_without_error();
        match compared + self.not_compared_at(State::Shadow) + self.not_compared_at(State::Dark) {
            // If legacy answered all requests with errors, none of them counts, so none that counts was left out.
            0 => f64::from(u8::from(self.pairs() > 0)),
            all => compared as f64 / all as f64,
        }
    }
    /// How many requests of a rung were not compared and count against coverage. In evidence of an earlier version all
    /// that were not compared count, for each rung, because it does not say more.
    pub(super) fn not_compared_at(&self, rung: State) -> u64 {
        match self.not_compared {
            Some(NotCompared { shadow, dark }) => {
                if rung >= State::Dark {
                    dark
                } else {
                    shadow
                }
            }
            None => self.skipped.values().sum::<u64>() + self.failed.values().sum::<u64>(),
        }
    }
    /// Counts a request against coverage if it was not compared. One that legacy answered with an error counts for its
    /// kind only, as its pair would. Call this before the request is counted as skipped or failed.
    pub(super) fn count_coverage(&mut self, request: &OfferedRequest, outcome: ComparisonOutcome) {
        let counts = match outcome {
            ComparisonOutcome::Matched | ComparisonOutcome::Ignored | ComparisonOutcome::Mismatched => false,
            ComparisonOutcome::Skipped(reason) => request.counts_against_coverage(reason),
            ComparisonOutcome::Failed(_) => true,
        };
        let counts = counts && !request.is_error_of_legacy();
        let so_far =
            NotCompared { shadow: self.not_compared_at(State::Shadow), dark: self.not_compared_at(State::Dark) };
        let not_compared = self.not_compared.get_or_insert(so_far);
        let of_rung = if request.rung >= State::Dark { &mut not_compared.dark } else { &mut not_compared.shadow };
        *of_rung += u64::from(counts);
    }
    /// Counts how the engine served a caller.
    pub(super) fn count_served(&mut self, served: Served, now: Timestamp) {
        self.answers.count(served, now);
        match served {
            Served::Answered | Served::CallerError => {
                self.engine_answers += 1;
                self.engine_answers_4xx += u64::from(served == Served::CallerError);
                self.answers_since.get_or_insert(now);
                self.last_answer = Some(now);
            }
            Served::FellBack | Served::Error | Served::Unknown => {
                (self.engine_answers, self.engine_answers_4xx) = (0, 0);
                self.engine_errors += 1;
            }
        }
    }
    /// Counts the engine's answers from zero.
    pub(super) fn restart_answers(&mut self) {
        self.answers = AnswersByHour::default();
        (self.engine_answers, self.engine_answers_4xx) = (0, 0);
        (self.answers_since, self.last_answer) = (None, None);
        self.invariants.clear();
    }
}
