//! What other modules report to the evidence: how comparisons ended, how the engine served callers, whether its answers
//! met the invariants of their routes, and which calls by legacy are in no compared pair.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::Evidence;
use super::counters::Counters;
use super::guards::count_for_guard;
use super::invariants::{GuardedAnswer, InvariantVerdict, JudgedAnswer};
use super::route_counters::RouteCounters;
use super::uncompared_calls::{UncomparedCallCounts, UncomparedTargets};
use crate::clock;
use crate::exchange::{
    CallTarget, ComparisonOutcome, EngineAnswer, LateFailureObserver, OfferedRequest, Served, ServedObserver,
    TicketCounter, UnbegunTicket, UncomparedCalls, UncomparedReason,
};
use crate::flag::{Invariant, State, StratumValue};
use crate::names::{PlanId, RouteId};
use crate::store::{candidate_key, route_of_candidate};

/// While legacy's latency is not known: a client that leaves without an answer has waited unusually long if it has
/// waited longer than this.
const LONG_WAIT: Duration = Duration::from_secs(1);

impl TicketCounter for Evidence {
    fn settle(&self, request: &OfferedRequest, outcome: ComparisonOutcome) {
        let (route, shared) = (&request.route, self.counters(&request.route));
        let failed =
            matches!(outcome, ComparisonOutcome::Failed(_)) && shared.lock().has_basis_of(request.files_version);
        // While `_uncounted` lives, the mark of the route is not cleared, because the failure is not counted yet.
        let _uncounted = failed.then(|| self.mark(route));
        let shared = self.counters(route);
        settle(&mut shared.lock(), &shared, &self.guard_signal, request, outcome);
    }
    fn settle_unbegun(&self, unbegun: UnbegunTicket, outcome: ComparisonOutcome) {
        let UnbegunTicket { mut request, uncounted_value, is_without_twin } = unbegun;
        let shared = self.counters(&request.route);
        let (of_route, signal) = (shared.clone(), self.guard_signal.clone());
        // A failure is marked before it is counted.
        let _uncounted = matches!(outcome, ComparisonOutcome::Failed(_)).then(|| self.mark(&request.route));
        shared.count(move |counters| {
            if let Some(value) = uncounted_value {
                request.declared = counters.counted_value(request.files_version, value);
            }
            if is_without_twin {
                counters.count_without_twin(&request);
            }
            settle(counters, &of_route, &signal, &request, outcome);
        });
    }
    fn begin(&self, request: &OfferedRequest) {
        self.counters(&request.route).lock().begin(request);
    }
    fn end(&self, request: &OfferedRequest) {
        self.counters(&request.route).lock().end(request);
    }
    fn counted_value(&self, request: &OfferedRequest, value: StratumValue) -> Option<StratumValue> {
        self.counters(&request.route).lock().counted_value(request.files_version, value)
    }
    fn count_without_twin(&self, request: &OfferedRequest) {
        self.counters(&request.route).lock().count_without_twin(request);
    }
}

/// Counts the outcome of a request in the counters of its route, and for its guard.
fn settle(
    counters: &mut Counters,
    of_route: &RouteCounters,
    signal: &Arc<Notify>,
    request: &OfferedRequest,
    outcome: ComparisonOutcome,
) {
    counters.settle(request, outcome);
    if counters.has_basis_of(request.files_version) {
        let request = request.clone();
        count_for_guard(of_route, signal, move |guard| guard.count_outcome(&request, outcome));
    }
}

impl ServedObserver for Evidence {
    fn served(&self, route: &RouteId, files_version: u64, served: Served) {
        if matches!(served, Served::Answered | Served::CallerError) {
            return self.counters(route).count(move |counters| counters.served(files_version, served));
        }
        if !self.counters(route).lock().has_basis_of(files_version) {
            return;
        }
        // A mark is a write of 64 bytes. The caller's answer waits for it only at the first error since the evidence
        // was stored, and for a bounded time.
        let _uncounted = self.mark(route);
        self.counters(route).lock().served(files_version, served);
    }
    fn answered(&self, route: &RouteId, answer: EngineAnswer) {
        let shared = self.counters(route);
        let (of_route, signal) = (shared.clone(), self.guard_signal.clone());
        shared.count(move |counters| {
            if counters.has_basis_of(answer.files_version) {
                count_for_guard(&of_route, &signal, move |guard| guard.count_answer(&answer));
            }
        });
    }
    fn exceeds_usual_wait_at_legacy(&self, route: &RouteId, waited: Duration) -> bool {
        let of_candidate = route_of_candidate(route);
        let counters = self.counters(of_candidate.as_ref().unwrap_or(route));
        waited > counters.long_wait().unwrap_or(LONG_WAIT)
    }
}

impl LateFailureObserver for Evidence {
    fn failed_after_answer(&self, route: &RouteId, plan: &PlanId, rung: State) {
        // A run of the candidate counts for the candidate; a run of an earlier plan counts for neither.
        let candidate = candidate_key(route);
        let is_of_plan = |id: &&RouteId| self.counters(id).lock().plan.as_ref() == Some(plan);
        let Some(route) = [route, &candidate].into_iter().find(is_of_plan) else { return };
        let shared = self.counters(route);
        let files_version = shared.lock().basis_since;
        // While `_uncounted` lives, the mark of the route is not cleared, because the failure is not counted yet.
        let _uncounted = self.mark(route);
        shared.lock().failed_after_answer(rung);
        if rung >= State::Live {
            let (served, took, run) = (Served::Error, None, None);
            self.answered(route, EngineAnswer { files_version, rung, served, took, run });
        }
    }
}

impl Evidence {
    /// Counts what was found out about the invariants of a route and one answer of the engine.
    pub fn record_invariants(&self, route: &RouteId, answer: &JudgedAnswer, found: &[(&Invariant, InvariantVerdict)]) {
        let (label, plan) = match route_of_candidate(route) {
            Some(of_candidate) => (of_candidate.to_string(), "candidate"),
            None => (route.to_string(), "in_force"),
        };
        for (invariant, verdict) in found {
            metrics::counter!(
                "pointsman_invariants_total",
                "route" => label.clone(), "invariant" => invariant.name.clone(), "plan" => plan, "result" => verdict.label()
            )
            .increment(1);
        }
        if !self.counters(route).lock().has_basis_of(answer.files_version) {
            return;
        }
        let is_broken = found.iter().any(|(_, verdict)| verdict.is_broken());
        // While `_uncounted` lives, the mark of the route is not cleared, because nothing is counted yet.
        let _uncounted = is_broken.then(|| self.mark(route));
        let shared = self.counters(route);
        let now = clock::now();
        let mut broken: Vec<(&str, u64, Option<&str>)> = Vec::new();
        {
            let mut counters = shared.lock();
            // An answer may be judged after the files have changed its invariant.
            let in_force: Vec<_> = found.iter().filter(|(invariant, _)| counters.has_invariant(invariant)).collect();
            for (invariant, verdict) in in_force {
                let counts = counters.evidence.invariants.entry(invariant.name.clone()).or_default();
                let so_far = counts.count(invariant, verdict, answer, now);
                match verdict {
                    InvariantVerdict::Broken => broken.push((&invariant.name, so_far, None)),
                    InvariantVerdict::Error(why) => broken.push((&invariant.name, so_far, Some(why))),
                    InvariantVerdict::Held | InvariantVerdict::NotJudged(_) => {}
                }
            }
            counters.dirty = true;
        }
        // A line for the first, the second, the fourth, … so that a broken service does not fill the log.
        for (invariant, so_far, error) in broken.into_iter().filter(|(_, so_far, _)| so_far.is_power_of_two()) {
            let run = answer.run.map(|run| run.to_string()).unwrap_or_default();
            tracing::warn!(%route, run, invariant, broken = so_far, error, "an answer of the engine broke an invariant");
        }
        if let Some(how) = answer.for_guard {
            self.count_invariants_for_guard(route, *answer, how == GuardedAnswer::Bad);
        }
    }

    /// Counts calls by legacy that are in no compared pair of a route. `is_expected`: whether the workflow makes such a
    /// call, or the rules ignore it.
    pub fn count_uncompared(&self, calls: &UncomparedCalls, is_expected: &dyn Fn(&CallTarget) -> bool) {
        let is_expected_now = calls.to.as_deref().is_some_and(is_expected);
        let to = calls.to.as_ref().map(|to| to.without_values());
        let would_be_first = {
            let shared = self.counters(&calls.route);
            let mut counters = shared.lock();
            let mut counts = counters.targets_to_count_in(calls.reason, to.as_ref(), is_expected_now);
            counts.any(|counted| counted.targets.would_be_first(to.as_ref()))
        };
        // An open tunnel is reported repeatedly, with the number of calls 0.
        if calls.calls == 0 && !would_be_first {
            return;
        }
        // While `_uncounted` lives, the mark of the route is not cleared, because the calls are not counted yet.
        let _uncounted = would_be_first.then(|| self.mark(&calls.route));
        let shared = self.counters(&calls.route);
        let mut counters = shared.lock();
        let mut is_changed = false;
        for CountedIn { targets, are_of_files_in_force } in
            counters.targets_to_count_in(calls.reason, to.as_ref(), is_expected_now)
        {
            // Which calls the earlier files expect is not known here.
            targets.count(to.clone(), calls, &|to| are_of_files_in_force && is_expected(to));
            is_changed = true;
        }
        counters.dirty |= is_changed;
    }

    /// The calls by legacy that are in no compared pair of a route.
    pub fn uncompared_calls(&self, route: &RouteId) -> UncomparedCallCounts {
        self.counters(route).lock().evidence.uncompared_calls.clone()
    }

    /// Notes that an answer of the engine is going to be judged. If the process is killed before that, the answer
    /// counts as not judged.
    pub fn begin_check(&self, route: &RouteId) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        counters.checks_in_flight += 1;
        counters.dirty = true;
    }

    /// Notes that an answer was judged, or will not be.
    pub fn end_check(&self, route: &RouteId) {
        let shared = self.counters(route);
        let mut counters = shared.lock();
        counters.checks_in_flight = counters.checks_in_flight.saturating_sub(1);
        counters.dirty = true;
    }

    /// Sets the rules of the cohorts that the files declare, each as a hash by the cohort's name. Call it after
    /// [`Evidence::set_basis`].
    pub fn set_cohorts(&self, route: &RouteId, rules: &BTreeMap<String, String>) {
        let rules = rules.clone();
        self.counters(route).lock().edit(move |counters| counters.set_cohorts(&rules));
    }

    /// Sets the invariants that the files declare. The counts of other invariants are dropped, and answers that an
    /// earlier process had not judged when it ended count as not judged. Call it after [`Evidence::set_basis`].
    pub fn set_invariants<'a>(&self, routes: impl Iterator<Item = (&'a RouteId, &'a [Invariant])>) {
        for (route, invariants) in routes {
            let invariants = invariants.to_vec();
            self.counters(route).lock().edit(move |counters| counters.set_invariants(&invariants));
        }
    }
}

/// Targets among which a call that is in no compared pair is counted.
struct CountedIn<'c> {
    targets: &'c mut UncomparedTargets,
    /// Whether they belong to the evidence of the files in force, and not to that of earlier files.
    are_of_files_in_force: bool,
}

impl Counters {
    /// The targets among which a call that is in no compared pair is counted:
    /// - those of the evidence in force, unless the files in force expect the call;
    /// - those of each earlier evidence that is kept because it goes on if the files are changed back. Its pairs may
    ///   lack the call too, because a request that was decided by the earlier files may have caused it. Whether those
    ///   files expect the call is judged by the gate once they are in force again, which needs the call's target. So a
    ///   call that is expected now is counted there only if its target is listed or there is room to list it: it must
    ///   not add to the calls to unlisted targets.
    fn targets_to_count_in(
        &mut self,
        reason: UncomparedReason,
        to: Option<&CallTarget>,
        is_expected_now: bool,
    ) -> impl Iterator<Item = CountedIn<'_>> {
        let Self { evidence, kept, .. } = self;
        let of_kept = kept.iter_mut().map(|kept| &mut kept.evidence);
        let of_kept = of_kept
            .map(move |evidence| CountedIn {
                targets: evidence.uncompared_calls.of_mut(reason),
                are_of_files_in_force: false,
            })
            .filter(move |counted| !is_expected_now || counted.targets.can_name(to));
        let in_force = (!is_expected_now).then_some(evidence).into_iter();
        let in_force = in_force.map(move |evidence| CountedIn {
            targets: evidence.uncompared_calls.of_mut(reason),
            are_of_files_in_force: true,
        });
        in_force.chain(of_kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::EvidenceBasis;
    use crate::flag::{Guard, GuardCondition, GuardRelease};

    /// A request that legacy answered with an error says nothing for or against clean evidence, compared or not.
    #[tokio::test]
    async fn a_skipped_request_that_legacy_refused_makes_clean_pairs_no_rarer() {
        let (evidence, _store) = crate::evidence::testing::evidence().await;
        let route: RouteId = "orders".into();
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        let (release, mismatch) = (GuardRelease::Evidence, Some(0.01));
        let (errors, p99_ratio, notify) = (None, None, None);
        let guard = Guard { mismatch, errors, p99_ratio, over: 500, at_least: 5, in_dark: false, release, notify };
        evidence.set_guards([(&route, Some(&guard))].into_iter());
        for (status, not_compared) in [(404, 0), (500, 0), (200, 1)] {
            let legacy_status = http::StatusCode::from_u16(status).ok();
            let request = OfferedRequest { legacy_status, ..OfferedRequest::new(route.clone(), 0) };
            evidence.settle(&request, ComparisonOutcome::Skipped(crate::flag::SkipReason::QueueFull));
            assert_eq!(evidence.clean_pairs(&route, State::Shadow).not_compared, not_compared, "{status}");
        }
    }

    /// A thread that compares may be suspended while it holds both locks.
    #[tokio::test]
    async fn threads_that_serve_clients_do_not_wait_for_those_that_compare() {
        let (evidence, _store) = crate::evidence::testing::evidence().await;
        let route: RouteId = "orders".into();
        evidence.set_basis(0, &[(route.clone(), "one".into())]);
        let shared = evidence.counters(&route);
        let (counters, guard) = (shared.lock(), shared.lock_guard());
        let (of_client, to) = (evidence.clone(), route.clone());
        let serving = std::thread::spawn(move || {
            let request = OfferedRequest { rung: State::Dark, ..OfferedRequest::new(to.clone(), 0) };
            let mut ticket = crate::exchange::ComparisonTicket::new(request, of_client.clone());
            ticket.expect_twin();
            ticket.skip(crate::flag::SkipReason::QueueFull);
            let answer =
                EngineAnswer { files_version: 0, rung: State::Live, served: Served::Answered, took: None, run: None };
            of_client.served(&to, 0, answer.served);
            of_client.answered(&to, answer);
        });
        serving.join().expect("it does not wait");
        assert_eq!(counters.totals.offered, 0);
        drop((counters, guard));
        let of = evidence.of(&route);
        assert_eq!((of.skipped.values().sum::<u64>(), of.dark_without_twin, of.engine_answers), (1, 1, 1));
    }

    /// Also for the callers of a candidate, whose evidence has no replies of legacy.
    #[tokio::test]
    async fn a_client_has_waited_long_after_twice_as_long_as_legacy_takes_for_nearly_all() {
        let (evidence, _store) = crate::evidence::testing::evidence().await;
        let route: RouteId = "orders".into();
        let candidate = candidate_key(&route);
        let ms = Duration::from_millis;
        let without_legacy = [999, 1_001].map(|waited| evidence.exceeds_usual_wait_at_legacy(&route, ms(waited)));
        assert_eq!(without_legacy, [false, true], "nothing is known of legacy");
        for _ in 0..200 {
            evidence.counters(&route).lock().evidence.legacy.latencies.count(ms(20));
        }
        evidence.refresh_guards();
        for of in [&route, &candidate] {
            assert_eq!(
                [5, 25, 45].map(|waited| evidence.exceeds_usual_wait_at_legacy(of, ms(waited))),
                [false, false, true]
            );
        }
    }

    #[tokio::test]
    async fn runs_that_fail_after_their_answer_count_for_the_guard_if_they_are_of_the_present_plan() {
        let (evidence, _store) = crate::evidence::testing::evidence().await;
        let (route, plan): (RouteId, PlanId) = ("orders".into(), "plan_2".into());
        let basis = EvidenceBasis { plan: Some(plan.clone()), ..EvidenceBasis::from("one") };
        evidence.set_basis(0, &[(route.clone(), basis)]);
        let (release, errors) = (GuardRelease::Hand, Some(0.01));
        let guard = Guard {
            mismatch: None,
            errors,
            p99_ratio: None,
            over: 500,
            at_least: 5,
            in_dark: false,
            release,
            notify: None,
        };
        evidence.set_guards([(&route, Some(&guard))].into_iter());
        for (plan, rung, crosses) in
            [("plan_1".into(), State::Live, false), (plan.clone(), State::Dark, false), (plan, State::Live, true)]
        {
            (0..5).for_each(|_| evidence.failed_after_answer(&route, &plan, rung));
            let found: Vec<_> =
                evidence.take_guard_crossings().into_iter().map(|crossing| crossing.condition).collect();
            assert_eq!(found, vec![GuardCondition::Errors; usize::from(crosses)], "{plan} in {rung}");
        }
        assert_eq!((evidence.of(&route).engine_errors, evidence.of(&route).dark.failed_after_answer), (5, 5));
    }
}
