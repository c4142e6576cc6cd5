//! The counters of one route.
//!
//! Always true: everything in [`Counters`] changes under one lock (`route_counters`), so its sums agree whenever they
//! are read.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::basis::BasisParts;
use super::fingerprints::{self, PairsByKind};
use super::generation::EvidenceGeneration;
use super::lost::after_loss;
use super::noise::NoiseOfLegacy;
use super::noise_places::DifferingPlaces;
use super::process_share::{EndedShare, ProcessShare};
use super::rejudging::Rejudging;
use super::route::{KeptEvidence, RouteEvidence};
use super::second_runs::EnginePlaces;
use super::shared_state::SharedState;
use super::strata::PairClass;
use crate::clock;
use crate::compare::{Comparison, DifferenceKind, Observation, Verdict};
use crate::exchange::{ComparisonOutcome, OfferedRequest, Served};
use crate::flag::{SkipReason, State};
use crate::names::{PlanId, RouteId, WorkerId};

/// Failure labels that are counted separately. Labels are literals of the program; the bound guards against a mistake.
const FAILURES_MAX: usize = 32;
/// Reasons for `unresolved_effect` that are counted separately.
const UNRESOLVED_MAX: usize = 16;

/// The counters of one route.
#[derive(Clone, Default)]
pub(super) struct Counters {
    /// The basis of the evidence: a hash of all that its verdicts depend on.
    pub(super) basis: Option<String>,
    /// The parts of the basis; empty if an earlier version stored the evidence.
    pub(super) parts: BasisParts,
    /// The `match:` of the route in earlier files; the present one is a part of the basis.
    pub(super) earlier_matches: Vec<String>,
    /// Set if another route has just taken over exactly the requests that the route is about to give up, with what this
    /// evidence says of their differences: `keep_match` then records nothing.
    pub(super) is_match_handed_over: bool,
    /// The plan of the route's own workflow, of this basis.
    pub(super) plan: Option<PlanId>,
    /// The rules of this basis as JSON; empty if they compare nothing, or if an earlier version stored the evidence.
    pub(super) rules: String,
    /// The pairs that wait to be judged again under new rules, which only allow more than the rules before.
    pub(super) rejudging: Option<Rejudging>,
    /// The requests that the shadow executor works on.
    pub(super) in_flight: PairsByKind,
    /// The first version of the files that has this basis.
    pub(super) basis_since: u64,
    pub(super) generation: u64,
    /// The generation of the engine's behaviour: as `generation`, but a change of the rules alone does not increase it.
    pub(super) engine_generation: u64,
    /// The evidence of the present basis.
    pub(super) evidence: RouteEvidence,
    /// How legacy differs from itself.
    pub(super) noise: NoiseOfLegacy,
    /// Evidence of earlier bases, the oldest first: it goes on if a change is taken back.
    pub(super) kept: Vec<KeptEvidence>,
    /// The counts since the process started.
    pub(super) totals: Totals,
    /// What the metrics have of `totals`.
    pub(super) published: Totals,
    /// The text of each invariant in the files, by name; `None` until they are known.
    pub(super) invariants: Option<BTreeMap<String, String>>,
    /// `promote.strata_by` of the files.
    pub(super) strata_key: String,
    /// How many answers of the engine still have to be judged against invariants.
    pub(super) checks_in_flight: u64,
    /// How many answers an earlier process had not judged when it ended.
    pub(super) checks_lost: u64,
    /// Whether the evidence changed since it was last written.
    pub(super) dirty: bool,
    /// Earlier ids under which the store may still have this evidence, because the rename is not written yet.
    pub(super) stored_under: BTreeSet<RouteId>,
    /// What each process that shares the store has under way; for this process, as of its last write.
    pub(super) processes: BTreeMap<WorkerId, ProcessShare>,
    /// The last writes of processes whose shares have ended, by process.
    pub(super) ended_shares: BTreeMap<WorkerId, EndedShare>,
    /// The name and the text of each invariant in the files that reads the run, so that answers are judged later.
    pub(super) invariants_of_runs: Vec<(String, String)>,
    /// What the store has, if several processes share it.
    pub(super) shared: Option<Box<SharedState<Self>>>,
}

/// Counts since the process started, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) offered: u64,
    pub(super) matched: u64,
    pub(super) ignored: u64,
    pub(super) mismatched: u64,
    pub(super) skipped: BTreeMap<SkipReason, u64>,
    pub(super) failed: BTreeMap<&'static str, u64>,
    pub(super) differences: BTreeMap<DifferenceKind, u64>,
    /// Pairs that counted as equal by noise at the moment when they were compared.
    pub(super) noise_ignored: u64,
}

impl Totals {
    /// What was counted since `before`.
    fn since(&self, before: &Self) -> Self {
        Self {
            offered: self.offered - before.offered,
            matched: self.matched - before.matched,
            ignored: self.ignored - before.ignored,
            mismatched: self.mismatched - before.mismatched,
            skipped: counted_since(&self.skipped, &before.skipped),
            failed: counted_since(&self.failed, &before.failed),
            differences: counted_since(&self.differences, &before.differences),
            noise_ignored: self.noise_ignored - before.noise_ignored,
        }
    }

    /// The sum of all outcomes.
    #[cfg(test)]
    pub(super) fn outcomes(&self) -> u64 {
        let named = self.matched + self.ignored + self.mismatched;
        named + self.skipped.values().sum::<u64>() + self.failed.values().sum::<u64>()
    }
}

fn counted_since<K: Copy + Ord>(counts: &BTreeMap<K, u64>, before: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    counts.iter().map(|(key, count)| (*key, count - before.get(key).copied().unwrap_or_default())).collect()
}

impl Counters {
    /// Returns what was counted since the last call: the metrics are increased by it. They are not set to `totals`,
    /// because they outlive these counters: a process whose successor was lost opens its store again.
    pub(super) fn take_unpublished(&mut self) -> Totals {
        let unpublished = self.totals.since(&self.published);
        self.published.clone_from(&self.totals);
        unpublished
    }

    /// Whether requests that this version of the files decided count in the evidence.
    pub(super) fn has_basis_of(&self, files_version: u64) -> bool {
        files_version >= self.basis_since
    }

    /// Whether a comparison of this generation still counts.
    pub(super) fn is_of(&self, generation: EvidenceGeneration) -> bool {
        generation.0 == Some(self.generation)
    }

    /// Restarts evidence of which differences or failures were lost before they were stored. Stored mismatches,
    /// failures and errors stay. Equal pairs and consecutive answers are set to zero, because differences and errors
    /// among them were lost.
    pub(super) fn restart_after_loss(&mut self, now: Timestamp) {
        self.evidence = after_loss(std::mem::take(&mut self.evidence), now);
        for kept in &mut self.kept {
            kept.evidence = after_loss(std::mem::take(&mut kept.evidence), now);
        }
        self.dirty = true;
    }

    /// Moves the evidence of a renamed route from the counters of its earlier id (`old`, `other`) to these counters, of
    /// `route`. If processes share the store (`is_shared`), the evidence also keeps its row, under the earlier id. The
    /// totals since the process started are not moved.
    pub(super) fn take_evidence(&mut self, (old, route): (&RouteId, &RouteId), other: &mut Self, is_shared: bool) {
        if is_shared {
            let mut shared = other.shared.take().unwrap_or_default();
            shared.row_id = Some(shared.row_id.take().unwrap_or_else(|| old.clone())).filter(|row| row != route);
            self.shared = Some(shared);
        } else {
            self.stored_under.append(&mut other.stored_under);
            self.stored_under.insert(old.clone());
        }
        self.processes = std::mem::take(&mut other.processes);
        self.ended_shares = std::mem::take(&mut other.ended_shares);
        self.basis = other.basis.take();
        self.parts = std::mem::take(&mut other.parts);
        self.earlier_matches = std::mem::take(&mut other.earlier_matches);
        self.kept = std::mem::take(&mut other.kept);
        self.noise = std::mem::take(&mut other.noise);
        self.rules = std::mem::take(&mut other.rules);
        self.rejudging = other.rejudging.take();
        self.basis_since = other.basis_since;
        self.generation = other.generation;
        self.engine_generation = other.engine_generation;
        self.evidence = std::mem::take(&mut other.evidence);
        (self.dirty, other.dirty) = (true, !is_shared);
    }

    /// Counts a pair of this kind of request. Returns its verdict, which is not that of the comparison if it differs by
    /// noise only.
    pub(super) fn record_pair(
        &mut self,
        PairClass { rung, stratum, legacy_calls }: PairClass<'_>,
        comparison: &Comparison,
        legacy: &Observation,
        engine: &Observation,
    ) -> Verdict {
        let evidence = &mut self.evidence;
        let now = clock::now();
        let is_error = legacy.status().as_u16() >= 400;
        let of_rung = (rung == State::Dark).then_some(&mut evidence.dark);
        for counts in std::iter::once(&mut evidence.all).chain(of_rung) {
            counts.count_pair(comparison, legacy, engine, legacy_calls, now);
            if let Some(stratum) = stratum.filter(|_| legacy_calls.are_unknown()) {
                counts.count_unknown_calls(stratum);
            }
        }
        if !(is_error && engine.status().as_u16() >= 400) {
            evidence.legacy.latencies.count(legacy.latency());
        }
        let (pairs, with_error) = match rung {
            State::Dark => (&mut evidence.dark_pairs, &mut evidence.dark_pairs_with_error),
            State::Off | State::Shadow | State::Live | State::Only => {
                (&mut evidence.shadow_pairs, &mut evidence.shadow_pairs_with_error)
            }
        };
        *pairs += 1;
        *with_error += u64::from(is_error);
        if evidence.noise.add_orders_not_kept(&comparison.orders_not_kept) {
            evidence.judge_groups(&self.noise);
        }
        let mut verdict = comparison.verdict;
        match comparison.verdict {
            Verdict::Match => evidence.matched += 1,
            Verdict::Ignored => evidence.ignored += 1,
            Verdict::Mismatch => {
                let kind = PairsByKind::one(rung == State::Dark, stratum);
                fingerprints::count(&mut evidence.seen, &comparison.fingerprint, &kind, now);
                if evidence.noise.count_pairs(&self.noise, &DifferingPlaces::of(comparison), &kind) {
                    evidence.ignored += 1;
                    evidence.count_noise_hits(1, now);
                    self.totals.noise_ignored += 1;
                    verdict = Verdict::Ignored;
                } else {
                    evidence.mismatched += 1;
                }
            }
        }
        evidence.count_rules_and_bodies(comparison, now);
        self.dirty = true;
        verdict
    }

    /// Whether a pair differs only where noise was seen under an earlier basis and is not yet confirmed under this one.
    pub(super) fn was_noise(&self, comparison: &Comparison) -> bool {
        self.noise.was_noise(&DifferingPlaces::of(comparison), &self.evidence.noise.places)
    }

    /// Counts a request that legacy answered twice; see [`RouteEvidence::count_repeat`].
    pub(super) fn record_repeat(
        &mut self,
        engine: &DifferingPlaces,
        second_reply: &DifferingPlaces,
        same_class: bool,
    ) -> bool {
        let counts = self.evidence.count_repeat(&mut self.noise, engine, second_reply, same_class);
        self.dirty |= counts;
        counts
    }

    /// Counts a request that the engine ran twice.
    pub(super) fn record_second_run(&mut self, at: &EnginePlaces) {
        self.evidence.second_runs.count(at);
        self.dirty = true;
    }

    /// Counts why a request was skipped as `unresolved_effect`. The text must not hold secrets.
    pub(super) fn count_unresolved(&mut self, why: &str) {
        let unresolved = &mut self.evidence.unresolved;
        if unresolved.len() < UNRESOLVED_MAX || unresolved.contains_key(why) {
            *unresolved.entry(why.to_owned()).or_default() += 1;
        }
        self.dirty = true;
    }

    pub(super) fn count_differences(&mut self, comparison: &Comparison) {
        for difference in &comparison.differences {
            *self.totals.differences.entry(difference.kind).or_default() += 1;
        }
    }

    /// Notes that the shadow executor works on a request. If the process is killed before the request is settled, the
    /// request counts as not compared.
    pub(super) fn begin(&mut self, request: &OfferedRequest) {
        if self.has_basis_of(request.files_version) && request.counts_against_coverage(SkipReason::ShuttingDown) {
            self.in_flight.add(&PairsByKind::one(request.rung >= State::Dark, request.stratum().as_deref()));
            self.dirty = true;
        }
    }

    /// Notes that a request that had begun is about to be settled.
    pub(super) fn end(&mut self, request: &OfferedRequest) {
        self.in_flight.remove(&PairsByKind::one(request.rung >= State::Dark, request.stratum().as_deref()));
    }

    /// Counts an offered request and its outcome in one step; in the evidence only if the files that decided the
    /// request have the same basis.
    pub(super) fn settle(&mut self, request: &OfferedRequest, outcome: ComparisonOutcome) {
        let counts = self.has_basis_of(request.files_version);
        if counts {
            self.evidence.legacy.count(request, clock::now());
            self.evidence.count_coverage(request, outcome);
            self.evidence.all.count_settled(request, outcome);
            if request.rung >= State::Dark {
                self.evidence.dark.count_settled(request, outcome);
            }
        }
        let totals = &mut self.totals;
        totals.offered += 1;
        match outcome {
            ComparisonOutcome::Matched => totals.matched += 1,
            ComparisonOutcome::Ignored => totals.ignored += 1,
            ComparisonOutcome::Mismatched => totals.mismatched += 1,
            ComparisonOutcome::Skipped(reason) => {
                *totals.skipped.entry(reason).or_default() += 1;
                if counts {
                    *self.evidence.skipped.entry(reason.as_str().to_owned()).or_default() += 1;
                }
            }
            ComparisonOutcome::Failed(how) => {
                let known = totals.failed.len() < FAILURES_MAX || totals.failed.contains_key(how);
                let how = if known { how } else { "other" };
                *totals.failed.entry(how).or_default() += 1;
                if counts {
                    *self.evidence.failed.entry(how.to_owned()).or_default() += 1;
                }
            }
        }
        self.dirty = true;
    }

    /// Counts a request in `dark` that ended without a durable run.
    pub(super) fn count_without_twin(&mut self, request: &OfferedRequest) {
        if self.has_basis_of(request.files_version) {
            self.evidence.dark_without_twin += 1;
            self.dirty = true;
        }
    }

    /// Counts a run that failed after its answer was given or compared.
    pub(super) fn failed_after_answer(&mut self, rung: State) {
        match rung {
            State::Live | State::Only => self.evidence.count_served(Served::Error, clock::now()),
            State::Off | State::Shadow => self.evidence.all.failed_after_answer += 1,
            State::Dark => {
                self.evidence.all.failed_after_answer += 1;
                self.evidence.dark.failed_after_answer += 1;
            }
        }
        self.dirty = true;
    }

    pub(super) fn served(&mut self, files_version: u64, served: Served) {
        if !self.has_basis_of(files_version) {
            return;
        }
        self.evidence.count_served(served, clock::now());
        self.dirty = true;
    }
}
