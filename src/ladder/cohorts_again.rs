//! Cohorts that go by their own evidence are judged periodically, also while no route moves: they go up once the pairs
//! under way are compared, and down once one of their pairs differs.
//!
//! Always true: such a move is not recorded as a flip, because the next process finds it again by the stored evidence.
//! The listeners are told of it.

use super::Ladder;
use super::cohort_gate::CohortJudgement;
use super::mover::Mover;
use super::positions::RoutePosition;

impl Ladder {
    /// Judges the cohorts that go by their own evidence again. To be called periodically; cheap while there are none.
    pub fn judge_cohorts_again(&self) {
        self.mover.judge_cohorts_again();
    }
}

impl Mover {
    fn judge_cohorts_again(&self) {
        loop {
            let inputs = self.in_force().inputs();
            if !inputs.has_files {
                return;
            }
            let before = &inputs.positions;
            self.gate().opening.retain(|route, cohort| {
                let cohorts = before.routes.get(route).map(|position| &position.route.cohorts);
                cohorts.is_some_and(|all| cohort.is_none_or(|cohort| all.iter().any(|other| other.name == cohort)))
            });
            let is_by_evidence = |at: &&RoutePosition| at.route.cohorts.iter().any(|cohort| cohort.force.is_none());
            let by_evidence = before.routes.values().filter(is_by_evidence);
            let judged = by_evidence.map(|position| {
                let proven = self.gate().proven_cohorts(before, position, CohortJudgement::Periodic);
                (position, proven)
            });
            let changed: Vec<_> =
                judged.filter(|(position, proven)| position.inputs.proven_cohorts != *proven).collect();
            if changed.is_empty() {
                return;
            }
            let mut after = before.clone();
            for (position, proven) in changed {
                if let Some(position) = after.routes.get_mut(&position.route.id) {
                    position.inputs.proven_cohorts = proven;
                }
            }
            let (unrecorded, computed_from) = (inputs.unrecorded.clone(), inputs.positions_version);
            // This puts no route in `only`, so a freeze overtakes none.
            if self.in_force().set_positions(after.clone(), unrecorded, computed_from).is_some() {
                self.tell_cohort_moves(before, &after);
                return;
            }
        }
    }
}
