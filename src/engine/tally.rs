//! What metrics say of one run.

use std::collections::{BTreeMap, HashMap};

use metrics::{counter, histogram};
use tokio::time::Instant;

use crate::engine::machine::Measure;
use crate::engine::scheduler::gauges::{active, open_questions};
use crate::names::{StepId, WorkflowName};
use crate::workflow::{Mode, Risk, Run, RunStatus};

/// Counts one run. An unfinished run that is kept is counted in its status wherever it rests or moves, another while it
/// moves.
pub(super) struct Tally {
    workflow: WorkflowName,
    mode: Mode,
    begun: HashMap<(StepId, Option<u32>), Instant>,
    /// The status in which it is counted.
    counted: Option<RunStatus>,
    /// Its open questions, by risk, as they are counted.
    asked: BTreeMap<Risk, usize>,
    /// It was paused before this task.
    was_paused: bool,
    /// It is in the store, or will be.
    kept: bool,
}

impl Tally {
    /// Of a run that is new, or was taken up (and is counted already); whether it is kept in the store.
    pub fn of(run: &Run, taken: bool, kept: bool) -> Self {
        let mut tally = Self {
            workflow: run.started().workflow.clone(),
            mode: run.mode(),
            begun: HashMap::new(),
            counted: taken.then(|| run.status()),
            asked: first_asked(run).filter(|_| taken).map(|risk| (risk, 1)).into_iter().collect(),
            was_paused: taken && run.status() == RunStatus::Paused,
            kept,
        };
        tally.count(Some(run.status()));
        tally.count_asked(run);
        tally
    }
    fn count_asked(&mut self, run: &Run) {
        let mut asked: BTreeMap<Risk, usize> = BTreeMap::new();
        run.asked().for_each(|asks| *asked.entry(asks.risk).or_default() += 1);
        for risk in [Risk::Low, Risk::Medium, Risk::High] {
            let count = |of: &BTreeMap<Risk, usize>| of.get(&risk).copied().unwrap_or_default() as f64;
            let more = count(&asked) - count(&self.asked);
            if more != 0.0 {
                open_questions(risk).increment(more);
            }
        }
        self.asked = asked;
    }
    fn count(&mut self, status: Option<RunStatus>) {
        let status = status.filter(|status| !status.is_final());
        if self.counted == status {
            return;
        }
        if let Some(before) = std::mem::replace(&mut self.counted, status) {
            active(&self.workflow, before).decrement(1.0);
        }
        if let Some(status) = status {
            active(&self.workflow, status).increment(1.0);
        }
    }
    /// The run as it stands now.
    pub fn count_run(&mut self, run: &Run) {
        self.count(Some(run.status()));
        // Most runs ask nobody anything.
        if !self.asked.is_empty() || run.asked().next().is_some() {
            self.count_asked(run);
        }
    }
    /// Something to count.
    pub fn see(&mut self, measure: &Measure, run: &Run) {
        match measure {
            Measure::StepBegan { step, item } => drop(self.begun.insert((step.clone(), *item), Instant::now())),
            Measure::StepEnded { step, item, outcome } => self.step_ended(step, *item, outcome),
            Measure::Retry { step } => {
                let (workflow, step) = (self.workflow.as_str().to_owned(), step.as_str().to_owned());
                counter!("pointsman_step_retries_total", "workflow" => workflow, "step" => step).increment(1);
            }
            Measure::Paused { step, item, conflict } => {
                self.step_ended(step, *item, "unknown");
                tracing::warn!(run = %run.id(), %step, kind = conflict, "the run is paused");
            }
            Measure::InstanceWithoutId => {
                tracing::error!(run = %run.id(), "the answer says that it created an instance and has no id of it: follow-ups will not find it");
            }
        }
    }
    fn step_ended(&mut self, step: &StepId, item: Option<u32>, outcome: &'static str) {
        let took = self.begun.remove(&(step.clone(), item)).map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let (workflow, step) = (self.workflow.as_str().to_owned(), step.as_str().to_owned());
        histogram!("pointsman_step_duration_seconds", "workflow" => workflow, "step" => step, "outcome" => outcome)
            .record(took);
    }
    /// The run's task ends; whether nothing of it is kept, or it rests.
    pub fn ended(&mut self, run: &Run, discarded: bool, parked: bool) {
        let status = run.status();
        if discarded {
            self.count(None);
        }
        let paused = status == RunStatus::Paused && !self.was_paused;
        let outcome = match (discarded, status) {
            (true, _) => "discarded",
            (false, status) if status.is_final() || paused => status.as_str(),
            (false, _) => return, // it goes on
        };
        let (workflow, mode) = (self.workflow.as_str().to_owned(), self.mode.as_str());
        counter!("pointsman_runs_total", "workflow" => workflow, "mode" => mode, "outcome" => outcome).increment(1);
        let (id, workflow, mode) = (run.id(), &self.workflow, self.mode.as_str());
        match run.failure() {
            Some(failure) => {
                tracing::info!(run = %id, %workflow, mode, outcome, why = failure.kind.as_str(), "run ended")
            }
            None => tracing::debug!(run = %id, %workflow, mode, outcome, parked, "run ended"),
        }
    }
}

/// The risk of the question that a listing shows: only that one is known of a run that rests.
fn first_asked(run: &Run) -> Option<Risk> {
    run.summary(run.started().started).checkpoint.map(|(_, risk)| risk)
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.kept {
            self.count(None);
        }
    }
}
