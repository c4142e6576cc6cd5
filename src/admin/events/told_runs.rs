//! Which changes of runs were told, and which runs wait for a person.

use std::collections::{HashMap, HashSet, VecDeque};

use super::change::waits_for_person;
use crate::names::{RunId, Seq};
use crate::workflow::RunSummary;

/// The most runs of which it is known what was told. A change of another one may be told twice.
const TOLD_MAX: usize = 8_192;
/// The most waiting runs that are known.
const WAITING_MAX: usize = 10_000;

/// Up to which event each of the last runs was told: a look may find a run again that has not changed.
#[derive(Default)]
pub(super) struct ToldRuns {
    seqs: HashMap<RunId, Seq>,
    /// In the order in which they were told first.
    order: VecDeque<RunId>,
}

impl ToldRuns {
    /// Whether the run has changed since it was told; then it counts as told.
    pub fn is_new(&mut self, run: &RunSummary) -> bool {
        match self.seqs.insert(run.run_id, run.seq) {
            Some(told) => told != run.seq,
            None => {
                self.order.push_back(run.run_id);
                if self.order.len() > TOLD_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.seqs.remove(&oldest);
                }
                true
            }
        }
    }
}

/// The runs that wait for a person.
#[derive(Default)]
pub(super) struct WaitingRuns {
    runs: HashSet<RunId>,
    /// Whether no other runs wait.
    is_complete: bool,
}

impl WaitingRuns {
    /// `are_all`: whether no other runs wait.
    pub fn new(waiting: &[RunSummary], are_all: bool) -> Self {
        Self { runs: waiting.iter().map(|run| run.run_id).collect(), is_complete: are_all }
    }

    /// From now on, runs may wait that are not known.
    pub fn forget_completeness(&mut self) {
        self.is_complete = false;
    }

    /// Whether this change of a run concerns people for whom runs wait: it waits, or it did before, or may have.
    pub fn has_changed(&mut self, run: &RunSummary) -> bool {
        if !waits_for_person(run.status) {
            return self.runs.remove(&run.run_id) || !self.is_complete;
        }
        match self.runs.len() < WAITING_MAX {
            true => _ = self.runs.insert(run.run_id),
            false => self.is_complete = false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{run_id, summary};
    use crate::workflow::RunStatus;

    fn run(n: u64, seq: u64, status: RunStatus) -> RunSummary {
        RunSummary { status, ..summary(run_id(n), seq) }
    }

    #[test]
    fn a_run_is_told_once_for_each_change_and_the_number_of_runs_kept_is_bounded() {
        let mut told = ToldRuns::default();
        assert!(told.is_new(&summary(run_id(1), 1)));
        assert!(!told.is_new(&summary(run_id(1), 1)));
        assert!(told.is_new(&summary(run_id(1), 2)));
        for n in 2..=(TOLD_MAX as u64 + 1) {
            assert!(told.is_new(&summary(run_id(n), 1)));
        }
        assert_eq!((told.seqs.len(), told.order.len()), (TOLD_MAX, TOLD_MAX));
    }

    #[test]
    fn only_runs_that_wait_or_have_waited_concern_people() {
        let mut waiting = WaitingRuns::new(&[run(1, 3, RunStatus::Paused)], true);
        assert!(!waiting.has_changed(&run(2, 1, RunStatus::Running)));
        assert!(waiting.has_changed(&run(1, 4, RunStatus::Running)), "it goes on");
        assert!(!waiting.has_changed(&run(1, 5, RunStatus::Completed)));
        assert!(waiting.has_changed(&run(2, 2, RunStatus::WaitingCheckpoint)));
        assert!(waiting.has_changed(&run(2, 3, RunStatus::WaitingCheckpoint)), "it may ask something else");
        waiting.forget_completeness();
        assert!(waiting.has_changed(&run(3, 9, RunStatus::Completed)), "it may have waited");
    }
}
