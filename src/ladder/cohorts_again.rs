//! Cohorts that go by their own evidence are judged again while nothing moves: they go up once the pairs under way are
//! compared, and down once a pair of theirs differs.
//!
//! Always true: such a move needs no record in the store, because the evidence has it; the listeners are told.

use super::Ladder;
use super::cohort_gate::CohortJudgement;
use super::mover::Mover;

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
                let of_route = before.routes.get(route).map(|position| &position.route.cohorts);
                of_route.is_some_and(|all| cohort.is_none_or(|cohort| all.iter().any(|of| of.name == cohort)))
            });
            let by_evidence = before.routes.values().filter(|at| at.route.cohorts.iter().any(|of| of.force.is_none()));
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
            // Puts no route in `only`: a freeze overtakes none.
            if self.in_force().set_positions(after.clone(), unrecorded, computed_from).is_some() {
                self.tell_cohort_moves(before, &after);
                return;
            }
        }
    }
}
