//! What others tell evidence: how comparisons ended, and how the engine served callers.

use super::Evidence;
use crate::exchange::{
    ComparisonOutcome, EngineAnswer, LateFailureObserver, OfferedRequest, Served, ServedObserver, TicketCounter,
};
use crate::flag::State;
use crate::names::{PlanId, RouteId};

impl TicketCounter for Evidence {
    fn settle(&self, request: &OfferedRequest, outcome: ComparisonOutcome) {
        let (route, shared) = (&request.route, self.counters(&request.route));
        let failed =
            matches!(outcome, ComparisonOutcome::Failed(_)) && shared.lock().has_basis_of(request.files_version);
        // This guard keeps the mark until the failure is counted.
        let _uncounted = failed.then(|| self.mark(route));
        let shared = self.counters(route);
        shared.lock().settle(request, outcome);
        if shared.lock().has_basis_of(request.files_version) {
            self.count_outcome_for_guard(&shared, request, outcome);
        }
    }
    fn count_without_twin(&self, request: &OfferedRequest) {
        let shared = self.counters(&request.route);
        let mut counters = shared.lock();
        if counters.has_basis_of(request.files_version) {
            counters.evidence.dark_without_twin += 1;
            counters.dirty = true;
        }
    }
}

impl ServedObserver for Evidence {
    fn served(&self, route: &RouteId, files_version: u64, served: Served) {
        if !self.counters(route).lock().has_basis_of(files_version) {
            return;
        }
        // The caller's answer waits for this write of 64 bytes only at the first error since the evidence was stored,
        // and for a bounded time.
        let _uncounted = (!matches!(served, Served::Answered | Served::CallerError)).then(|| self.mark(route));
        self.counters(route).lock().served(files_version, served);
    }
    fn answered(&self, route: &RouteId, answer: EngineAnswer) {
        if self.counters(route).lock().has_basis_of(answer.files_version) {
            self.count_answer_for_guard(route, &answer);
        }
    }
}

impl LateFailureObserver for Evidence {
    fn failed_after_answer(&self, route: &RouteId, plan: &PlanId, rung: State) {
        // A run of an earlier plan says nothing of the present one.
        if self.counters(route).lock().plan.as_ref() != Some(plan) {
            return;
        }
        // This guard keeps the mark until the failure is counted.
        let _uncounted = self.mark(route);
        self.counters(route).lock().failed_after_answer(rung);
    }
}
