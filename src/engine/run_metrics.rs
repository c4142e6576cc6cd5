//! The metrics and log lines of one run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use metrics::{counter, histogram};
use tokio::time::Instant;

use crate::engine::machine::{Attempt, CallId, Measure};
use crate::engine::run_spans::RunSpans;
use crate::engine::scheduler::gauges::{CountedRuns, open_checkpoints, unfinished_runs};
use crate::names::{RunId, StepId, WorkflowName};
use crate::workflow::{AttemptResult, InFlight, Mode, Plan, Risk, Run, RunStatus};

/// Keeps the metrics of one run. The gauges count an unfinished durable run under its status, whether it has a task or
/// is suspended, and a rehearsal while it has a task.
pub(super) struct RunMetrics {
    run: RunId,
    workflow: WorkflowName,
    mode: Mode,
    step_begun: HashMap<(StepId, Option<u32>), Instant>,
    /// The runs that the gauge counts, on a store that several processes share.
    shared: Option<Arc<CountedRuns>>,
    /// The status under which the gauges count the run, on a store of one process.
    counted_status: Option<RunStatus>,
    /// Its open checkpoints by risk, as the gauges count them.
    counted_checkpoints: BTreeMap<Risk, usize>,
    /// Whether it was paused when it was loaded.
    was_paused: bool,
    /// Whether it was paused with an open conflict when it was loaded, so that the conflict was counted before.
    was_in_conflict: bool,
    /// Whether it is in the store, or will be.
    is_stored: bool,
    /// Whether it repeats a run that was counted.
    is_replay: bool,
    /// `None` if its trace is not recorded.
    spans: Option<Box<RunSpans>>,
}

impl RunMetrics {
    /// The metrics of a run. The gauges do not count a new run yet. They already count a run that was loaded
    /// (`was_loaded`) from a store of one process; on a store that several processes share, `shared` says whether they
    /// count it.
    pub fn new(run: &Run, was_loaded: bool, is_stored: bool, shared: Option<Arc<CountedRuns>>) -> Self {
        let was_counted = was_loaded && shared.as_ref().is_none_or(|shared| shared.counts(run.id()));
        let counted_checkpoint = listed_risk(run).filter(|_| was_counted).map(|risk| (risk, 1));
        let mut metrics = Self {
            run: run.id(),
            shared,
            workflow: run.started().workflow.clone(),
            mode: run.mode(),
            step_begun: HashMap::new(),
            counted_status: was_loaded.then(|| run.status()),
            counted_checkpoints: counted_checkpoint.into_iter().collect(),
            was_paused: was_loaded && run.status() == RunStatus::Paused,
            was_in_conflict: was_loaded && run.is_paused_in_conflict(),
            is_stored,
            is_replay: false,
            spans: RunSpans::of(run).map(Box::new),
        };
        metrics.count_status(Some(run.status()));
        metrics.count_checkpoints(run);
        metrics
    }
    /// Neither counts nor times the run, which repeats one that was counted.
    #[must_use]
    pub fn of_replay(mut self, is_replay: bool) -> Self {
        self.is_replay = is_replay;
        self
    }
    fn count_checkpoints(&mut self, run: &Run) {
        let mut open: BTreeMap<Risk, usize> = BTreeMap::new();
        run.open_checkpoints().for_each(|checkpoint| *open.entry(checkpoint.risk).or_default() += 1);
        for risk in [Risk::Low, Risk::Medium, Risk::High] {
            let count = |of: &BTreeMap<Risk, usize>| of.get(&risk).copied().unwrap_or_default() as f64;
            let more = count(&open) - count(&self.counted_checkpoints);
            if more != 0.0 {
                open_checkpoints(risk).increment(more);
            }
        }
        self.counted_checkpoints = open;
    }
    fn count_status(&mut self, status: Option<RunStatus>) {
        if let Some(shared) = &self.shared {
            return shared.set(self.run, &self.workflow, status);
        }
        let status = status.filter(|status| !status.is_final());
        if self.counted_status == status {
            return;
        }
        if let Some(before) = std::mem::replace(&mut self.counted_status, status) {
            unfinished_runs(&self.workflow, before).decrement(1.0);
        }
        if let Some(status) = status {
            unfinished_runs(&self.workflow, status).increment(1.0);
        }
    }
    /// Updates the gauges to the run's present status and checkpoints.
    pub fn update(&mut self, run: &Run) {
        self.count_status(Some(run.status()));
        // Most runs have no checkpoint.
        if !self.counted_checkpoints.is_empty() || run.open_checkpoints().next().is_some() {
            self.count_checkpoints(run);
        }
    }
    /// Records what the machine measured.
    pub fn record(&mut self, measure: &Measure, run: &Run) {
        if let Some(spans) = &mut self.spans {
            spans.record(measure, run);
        }
        if self.is_replay {
            return;
        }
        match measure {
            Measure::StepBegan { step, item } => drop(self.step_begun.insert((step.clone(), *item), Instant::now())),
            Measure::CallEnded { last: Attempt { step, item, part, .. }, outcome } => {
                if part.is_do() {
                    self.step_ended(step, *item, outcome);
                }
            }
            Measure::Retry { ended, .. } => {
                let (workflow, step) = (self.workflow.as_str().to_owned(), ended.step.as_str().to_owned());
                counter!("pointsman_step_retries_total", "workflow" => workflow, "step" => step).increment(1);
            }
            Measure::Paused { step, item, conflict } => {
                let outcome =
                    if matches!(*conflict, "outcome_unknown" | "undo_unknown") { "unknown" } else { "conflict" };
                self.step_ended(step, *item, outcome);
                tracing::warn!(run = %run.id(), %step, kind = conflict, "the run is paused until a person decides: `pointsman runs show RUN` lists the choices");
            }
            Measure::RespondConditionErrors(count) => {
                let workflow = self.workflow.as_str().to_owned();
                counter!("pointsman_respond_condition_errors_total", "workflow" => workflow).increment(*count as u64);
                tracing::warn!(run = %run.id(), count, "conditions of `respond` have no value: they count as false");
            }
            Measure::InstanceWithoutId => {
                let workflow = self.workflow.as_str().to_owned();
                let route = run.started().route.as_ref().map(ToString::to_string).unwrap_or_default();
                counter!("pointsman_instances_without_id_total", "route" => route, "workflow" => workflow).increment(1);
                tracing::error!(
                    run = %run.id(),
                    "the answer has no id of the instance that the run created: follow-up requests will not find it"
                );
            }
        }
    }
    /// Records that an attempt is about to be sent.
    pub fn call_begins(&mut self, attempt: &InFlight) {
        if let Some(spans) = &mut self.spans {
            spans.call_begins(attempt);
        }
    }
    /// Records that an attempt has a result, which the machine is about to judge.
    pub fn call_finished(&mut self, call: CallId, result: &AttemptResult, plan: &Plan) {
        let CallId { step, item, part, attempt: number, .. } = call;
        if let (Some(spans), Some(step)) = (&mut self.spans, plan.steps.get(step.0)) {
            spans.call_finished(&Attempt { step: step.id.clone(), item, part, number }, result);
        }
    }
    fn step_ended(&mut self, step: &StepId, item: Option<u32>, outcome: &'static str) {
        let seconds = self.step_begun.remove(&(step.clone(), item)).map_or(0.0, |begun| begun.elapsed().as_secs_f64());
        let (workflow, step) = (self.workflow.as_str().to_owned(), step.as_str().to_owned());
        histogram!("pointsman_step_duration_seconds", "workflow" => workflow, "step" => step, "outcome" => outcome)
            .record(seconds);
    }
    /// Whether the run has failed, or is paused because of a conflict, in this task and after its answer.
    pub fn failed_after_answer(&self, run: &Run) -> bool {
        run.failed_after_answer() && !self.was_in_conflict
    }
    /// Called when the run's task ends: the run was discarded, is suspended, or has ended.
    pub fn task_ended(&mut self, run: &Run, discarded: bool, is_suspended: bool) {
        let status = run.status();
        if discarded {
            self.count_status(None);
        }
        let is_newly_paused = status == RunStatus::Paused && !self.was_paused;
        let outcome = match (discarded, status) {
            (true, _) => "discarded",
            (false, status) if status.is_final() || is_newly_paused => status.as_str(),
            (false, _) => return, // the run goes on later
        };
        if let Some(spans) = &self.spans
            && (discarded || status.is_final())
        {
            spans.run_ended(run, outcome);
        }
        let (workflow, mode) = (self.workflow.as_str().to_owned(), self.mode.as_str());
        if !self.is_replay {
            counter!("pointsman_runs_total", "workflow" => workflow, "mode" => mode, "outcome" => outcome).increment(1);
        }
        let (id, workflow, mode) = (run.id(), &self.workflow, self.mode.as_str());
        match run.failure() {
            Some(failure) => {
                let (why, step) = (failure.kind.as_str(), failure.step.as_ref().map(tracing::field::display));
                tracing::info!(run = %id, %workflow, mode, outcome, why, step, "the run's task has ended");
            }
            None => {
                tracing::debug!(run = %id, %workflow, mode, outcome, is_suspended, "the run's task has ended")
            }
        }
    }
}

/// The risk of the checkpoint in the run's summary. Of a suspended run the gauges count only that checkpoint.
fn listed_risk(run: &Run) -> Option<Risk> {
    run.summary(run.started().started).checkpoint.map(|(_, risk)| risk)
}

impl Drop for RunMetrics {
    fn drop(&mut self) {
        if !self.is_stored {
            self.count_status(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{at, completed_run, run_id};
    use crate::workflow::fold;

    /// The value of the gauge of running runs in the scraped text.
    fn running(text: &str) -> Option<&str> {
        let line = text.lines().find(|line| line.starts_with("pointsman_runs_active") && line.contains("running"))?;
        line.rsplit(' ').next()
    }

    #[test]
    fn a_run_taken_over_from_another_process_is_counted_once() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let events: Vec<_> = completed_run(run_id(1), at(0)).events.into_iter().map(|(_, event)| event).collect();
        let (begun, ended) = (fold(&events[..2]).unwrap(), fold(&events).unwrap());
        metrics::with_local_recorder(&recorder, || {
            let shared = Arc::new(CountedRuns::default());
            for is_known in [false, true] {
                if is_known {
                    let label = (begun.started().workflow.clone(), begun.status());
                    shared.replace(HashMap::from([(run_id(1), label)]));
                }
                let mut metrics = RunMetrics::new(&begun, true, true, Some(shared.clone()));
                assert_eq!(running(&handle.render()), Some("1"), "known: {is_known}");
                metrics.update(&ended);
                drop(metrics);
                assert_eq!(running(&handle.render()), Some("0"), "known: {is_known}");
            }
            drop(RunMetrics::new(&begun, true, true, Some(shared.clone())));
            assert_eq!(running(&handle.render()), Some("1"), "another process executes it now");
            shared.replace(HashMap::new());
            assert_eq!(running(&handle.render()), Some("0"), "it has ended in the other process");
        });
    }
}
