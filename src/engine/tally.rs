//! What metrics say of one run.

use std::collections::HashMap;

use metrics::{counter, gauge, histogram};
use tokio::time::Instant;

use crate::names::{StepId, WorkflowName};
use crate::workflow::{Creates, Event, Mode, Outcome, Run, RunStatus};

/// Counts one run; while it lives, the run is counted as running.
pub(super) struct Tally {
    workflow: WorkflowName,
    mode: Mode,
    begun: HashMap<(StepId, Option<u32>), Instant>,
}

impl Tally {
    pub fn of(run: &Run) -> Self {
        let tally = Self { workflow: run.started().workflow.clone(), mode: run.mode(), begun: HashMap::new() };
        tally.active(RunStatus::Running).increment(1.0);
        tally
    }
    fn active(&self, status: RunStatus) -> metrics::Gauge {
        let workflow = self.workflow.as_str().to_owned();
        gauge!("pointsman_runs_active", "workflow" => workflow, "status" => status.as_str())
    }
    /// One more event.
    pub fn see(&mut self, event: &Event, run: &Run) {
        match event {
            Event::StepStarted(started) if started.attempt == 1 => {
                self.begun.insert((started.step.clone(), started.item), Instant::now());
            }
            Event::StepFinished(finished) => {
                let outcome = match finished.outcome {
                    Outcome::Done { .. } => "done",
                    Outcome::NotDone { .. } => "not_done",
                    Outcome::Unknown { .. } => "unknown",
                    Outcome::Failed { .. } => "failed",
                    Outcome::Rehearsed { .. } => "rehearsed",
                    Outcome::Unfit { .. } => "unfit",
                };
                self.step_ended(&finished.step, finished.item, outcome);
            }
            Event::RetryScheduled(retry) => {
                let (workflow, step) = (self.workflow.as_str().to_owned(), retry.step.as_str().to_owned());
                counter!("pointsman_step_retries_total", "workflow" => workflow, "step" => step).increment(1);
            }
            Event::Paused { conflict, .. } => {
                self.step_ended(&conflict.step, conflict.item, "unknown");
                tracing::warn!(run = %run.id(), step = %conflict.step, kind = conflict.kind.as_str(), "the run is paused");
            }
            Event::Responded { answer, pin: None }
                if matches!(run.started().creates, Some(Creates::Engine { .. }))
                    && (200..300).contains(&answer.status) =>
            {
                tracing::error!(run = %run.id(), "the answer says that it created an instance and has no id of it: follow-ups will not find it");
            }
            Event::RunStarted(_)
            | Event::StepStarted(_)
            | Event::StepComputed { .. }
            | Event::StepSkipped { .. }
            | Event::FanOutOpened { .. }
            | Event::FailReached { .. }
            | Event::Responded { .. }
            | Event::AnswerFailed { .. }
            | Event::PendingAnswered { .. }
            | Event::DeadlinePassed {}
            | Event::Completed {}
            | Event::Failed { .. }
            | Event::FallbackTaken { .. }
            | Event::Probed { .. }
            | Event::Resolved { .. }
            | Event::PauseOrdered { .. }
            | Event::Resumed { .. }
            | Event::CancelOrdered { .. }
            | Event::InputAdjusted { .. }
            | Event::RetriedNow { .. }
            | Event::CheckpointOpened(_)
            | Event::CheckpointAnswered { .. }
            | Event::CheckpointEscalated { .. }
            | Event::WaitBegan { .. }
            | Event::SignalReceived { .. }
            | Event::WaitEnded { .. }
            | Event::LockQueued { .. }
            | Event::LockTaken { .. }
            | Event::LockLeft { .. }
            | Event::ChildStarted { .. }
            | Event::ChildEnded { .. }
            | Event::ResultTaken(_)
            | Event::CompensationBegan { .. }
            | Event::Cancelled { .. }
            | Event::Abandoned { .. } => {}
        }
    }
    fn step_ended(&mut self, step: &StepId, item: Option<u32>, outcome: &'static str) {
        let took = self.begun.remove(&(step.clone(), item)).map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let (workflow, step) = (self.workflow.as_str().to_owned(), step.as_str().to_owned());
        histogram!("pointsman_step_duration_seconds", "workflow" => workflow, "step" => step, "outcome" => outcome)
            .record(took);
    }
    /// The run is not driven any further here.
    pub fn ended(&self, run: &Run, discarded: bool) {
        let status = run.status();
        let outcome = match (discarded, status) {
            (true, _) => "discarded",
            (false, RunStatus::Running) => return, // the next process goes on
            (false, status) => status.as_str(),
        };
        if status == RunStatus::Paused && !discarded {
            self.active(RunStatus::Paused).increment(1.0);
        }
        let (workflow, mode) = (self.workflow.as_str().to_owned(), self.mode.as_str());
        counter!("pointsman_runs_total", "workflow" => workflow, "mode" => mode, "outcome" => outcome).increment(1);
        let (id, workflow, mode) = (run.id(), &self.workflow, self.mode.as_str());
        match run.failure() {
            Some(failure) => {
                tracing::info!(run = %id, %workflow, mode, outcome, why = failure.kind.as_str(), "run ended")
            }
            None => tracing::debug!(run = %id, %workflow, mode, outcome, "run ended"),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.active(RunStatus::Running).decrement(1.0);
    }
}
