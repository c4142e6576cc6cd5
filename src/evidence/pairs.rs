//! Counts what the shadow executor did with the requests that it took.

use jiff::Timestamp;

use super::Evidence;
use super::branches::BranchOutcome;
use super::generation::EvidenceGeneration;
use super::noise::LegacyWrite;
use super::noise_places::DifferingPlaces;
use super::noise_view::{self, NoiseView};
use super::second_runs::EnginePlaces;
use super::strata::PairClass;
use crate::clock;
use crate::compare::{Comparison, Observation, UncomparedHeader, Verdict};
use crate::exchange::Branch;
use crate::flag::State;
use crate::names::RouteId;
use crate::store::route_of_candidate;

/// After this many reverse requests during which legacy made unattributed writing calls, the route gets no more.
const REVERSE_UNATTRIBUTED_WRITES_MAX: u32 = 3;

/// Counts of a route. If they are as before, nothing was compared and no answer counted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvidenceCounts {
    /// How many requests of the route this process has settled since it started.
    pub settled: u64,
    /// The number of pairs, of all processes that share the store.
    pub pairs: u64,
    /// How many of them differ.
    pub mismatched: u64,
    /// Consecutive answers of the engine to callers without an error.
    pub answers: u64,
    /// Errors of the engine as the answering arm.
    pub errors: u64,
    /// When the evidence was last started from zero.
    pub restarted: Option<Timestamp>,
}

impl Evidence {
    /// Counts a pair, before its ticket is settled. A pair of an earlier generation counts in the totals only. Returns
    /// its verdict: [`Verdict::Ignored`] for a pair that differs only where legacy differs from itself.
    pub fn record_pair<'a>(
        &self,
        route: &RouteId,
        generation: EvidenceGeneration,
        class: impl Into<PairClass<'a>>,
        comparison: &Comparison,
        legacy: &Observation,
        engine: &Observation,
    ) -> Verdict {
        let class = class.into();
        let mut verdict = comparison.verdict;
        {
            let is_difference =
                comparison.verdict == Verdict::Mismatch && self.counters(route).lock().is_of(generation);
            // The mark says that the store may lack differences of this route (`marks`). It is not cleared before this
            // value is dropped, which happens once the difference is counted.
            let _uncounted = is_difference.then(|| self.mark(route));
            let shared = self.counters(route);
            let mut counters = shared.lock();
            if counters.is_of(generation) {
                verdict = counters.record_pair(class, comparison, legacy, engine);
            }
            // The differences of a pair that counts as equal by noise are not counted.
            if verdict == Verdict::Mismatch {
                counters.count_differences(comparison);
            }
            if counters.is_of(generation) {
                let differs = verdict == Verdict::Mismatch && !counters.was_noise(comparison);
                drop(counters);
                let failed = legacy.status().as_u16() >= 400;
                self.count_pair_for_guard(&shared, class.rung, differs, failed);
            }
        }
        if route_of_candidate(route).is_some() {
            return verdict;
        }
        let (legacy, engine) = (legacy.latency(), engine.latency());
        let slower = if engine > legacy { "engine" } else { "legacy" };
        metrics::histogram!("pointsman_paired_latency_seconds", "route" => route.as_str().to_owned(), "slower" => slower)
            .record(engine.abs_diff(legacy).as_secs_f64());
        verdict
    }

    /// Counts the headers of a pair that the rules do not compare. A pair of an earlier generation does not count.
    pub fn record_uncompared_headers<'p>(
        &self,
        route: &RouteId,
        generation: EvidenceGeneration,
        headers: impl Iterator<Item = UncomparedHeader<'p>>,
    ) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.is_of(generation) {
            counters.evidence.uncompared_headers.count(headers);
            counters.dirty = true;
        }
    }

    /// Whether requests of a route may be sent to legacy a second time; the error is the label `outcome`: the files do
    /// not say so (`forbidden`), or legacy was seen to change something (`legacy_writes`).
    ///
    /// # Errors
    /// They may not.
    pub fn may_repeat(&self, route: &RouteId) -> Result<(), &'static str> {
        let shared = self.counters(route);
        let counters = shared.lock();
        match (counters.noise.may_repeat(), &counters.noise.write) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err("legacy_writes"),
            (false, None) => Err("forbidden"),
        }
    }

    /// Whether what is found out about a request of this generation still counts.
    pub fn is_of(&self, route: &RouteId, generation: EvidenceGeneration) -> bool {
        self.counters(route).lock().is_of(generation)
    }

    /// Notes that legacy made a call that may have changed something, for a request of this route (of whatever
    /// generation). From now on no request of the route is sent to legacy a second time.
    pub fn record_legacy_write(&self, route: &RouteId, call: &str) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.noise.may_repeat() {
            counters.noise.write = Some(LegacyWrite { call: call.to_owned(), at: clock::now() });
            counters.dirty = true;
            drop(counters);
            tracing::error!(
                %route, call,
                "the route is declared `replay_safe`, but legacy made a call that may change something: no request of \
                 the route is sent to legacy a second time any more. Take `replay_safe` out"
            );
        }
    }

    /// Notes that legacy made unattributed writing calls during a reverse request of this route. After
    /// `REVERSE_UNATTRIBUTED_WRITES_MAX` such requests that counts as a call that may have changed something.
    pub fn note_reverse_unattributed_writes(&self, route: &RouteId) {
        let is_last = {
            let shared = self.counters(route);
            let mut counters = shared.lock();
            counters.noise.reverse_unattributed_writes += 1;
            counters.dirty = true;
            counters.noise.reverse_unattributed_writes >= REVERSE_UNATTRIBUTED_WRITES_MAX
        };
        if is_last {
            let call =
                format!("calls of no known request during {REVERSE_UNATTRIBUTED_WRITES_MAX} reverse comparisons");
            self.record_legacy_write(route, &call);
        }
    }

    /// Counts a request that legacy answered twice: where the engine's reply, and legacy's second one, differ from
    /// legacy's first one. `same_class`: the statuses of all three are of one class. Returns whether it was counted:
    /// not if the request is of an earlier generation, or if not all differences are known.
    pub fn record_repeat(
        &self,
        route: &RouteId,
        generation: EvidenceGeneration,
        engine: &DifferingPlaces,
        second_reply: &DifferingPlaces,
        same_class: bool,
    ) -> bool {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        counters.is_of(generation) && counters.record_repeat(engine, second_reply, same_class)
    }

    /// Counts a request that the engine ran twice. Returns whether it was counted: not if the request is of an earlier
    /// generation.
    pub fn record_second_run(&self, route: &RouteId, generation: EvidenceGeneration, at: &EnginePlaces) -> bool {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        let counts = counters.is_of(generation);
        if counts {
            counters.record_second_run(at);
        }
        counts
    }

    /// How legacy differs from itself; `None` if no request was sent to it twice.
    pub fn noise(&self, route: &RouteId) -> Option<NoiseView> {
        let (legacy, evidence) = {
            let shared = self.counters(route);
            let counters = shared.lock();
            (counters.noise.clone(), counters.evidence.clone())
        };
        noise_view::view(&legacy, &evidence)
    }

    /// How many requests of a route have been settled since the process started.
    pub fn settled(&self, route: &RouteId) -> u64 {
        self.counters(route).lock().totals.offered
    }

    /// What tells that the evidence of a route has changed, without a copy of it; `None` if it has none.
    pub fn counts(&self, route: &RouteId) -> Option<EvidenceCounts> {
        let shared = self.known_counters(route)?;
        let counters = shared.lock();
        let evidence = &counters.evidence;
        Some(EvidenceCounts {
            settled: counters.totals.offered,
            pairs: evidence.pairs(),
            mismatched: evidence.mismatched,
            answers: evidence.engine_answers,
            errors: evidence.engine_errors,
            restarted: evidence.restarted.as_ref().map(|restart| restart.at),
        })
    }

    /// How many requests of a route the shadow executor is working on. Until they are compared, they count against
    /// coverage. Those of other processes on the same store are included, as these last reported them.
    pub fn in_flight(&self, route: &RouteId) -> u64 {
        let Some(shared) = self.known_counters(route) else { return 0 };
        let own = self.own_process();
        let counters = shared.lock();
        let others = counters.processes.iter().filter(|(id, _)| **id != own).map(|(_, share)| share.in_flight.pairs());
        counters.in_flight.pairs() + others.sum::<u64>()
    }

    /// Counts a dark request that has a twin. A request of an earlier generation does not count.
    pub fn record_twin(&self, route: &RouteId, generation: EvidenceGeneration) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.is_of(generation) {
            counters.evidence.dark_with_twin += 1;
            counters.dirty = true;
        }
    }

    /// Counts which branch a run took through its workflow, and whether it was compared. A run of an earlier generation
    /// does not count.
    pub fn record_branch(
        &self,
        route: &RouteId,
        generation: EvidenceGeneration,
        rung: State,
        branch: &Branch,
        outcome: impl Into<BranchOutcome>,
    ) {
        let outcome = outcome.into();
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.is_of(generation) {
            counters.evidence.all.count_branch(branch, outcome);
            if rung == State::Dark {
                counters.evidence.dark.count_branch(branch, outcome);
            }
            counters.dirty = true;
        }
    }

    /// Counts why a request was skipped as `unresolved_effect`. A request of an earlier generation does not count. The
    /// text must not hold secrets.
    pub fn record_unresolved(&self, route: &RouteId, generation: EvidenceGeneration, why: &str) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        if counters.is_of(generation) {
            counters.count_unresolved(why);
        }
    }
}
