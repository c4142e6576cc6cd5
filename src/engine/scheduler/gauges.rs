//! Gauges of unfinished runs and of open checkpoints: set by the watchdog, and updated by each run's driver.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::gauge;

use crate::names::{RunId, WorkflowName};
use crate::workflow::{Risk, RunStatus};

/// The gauge of open checkpoints of a risk.
pub(in crate::engine) fn open_checkpoints(risk: Risk) -> metrics::Gauge {
    gauge!("pointsman_checkpoints_open", "risk" => risk.as_str())
}

/// The gauge of unfinished runs of a workflow in a status.
pub(in crate::engine) fn unfinished_runs(workflow: &WorkflowName, status: RunStatus) -> metrics::Gauge {
    gauge!("pointsman_runs_active", "workflow" => workflow.as_str().to_owned(), "status" => status.as_str())
}

/// The runs that the gauge of unfinished runs counts, on a store that several processes share. When a run is loaded, it
/// may be counted under another status, or not at all: another process may have begun or resumed it since the watchdog
/// last read all runs. Always true: the gauge is the number of these runs, so it is never negative.
#[derive(Default)]
pub(in crate::engine) struct CountedRuns(Mutex<HashMap<RunId, (WorkflowName, RunStatus)>>);

impl CountedRuns {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, (WorkflowName, RunStatus)>> {
        // A poisoned lock is usable: the watchdog corrects wrong counts when it next reads all runs.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Whether the gauge counts a run.
    pub fn counts(&self, run: RunId) -> bool {
        self.lock().contains_key(&run)
    }
    /// Counts a run under a status. Stops counting it if the status is `None` or final.
    pub fn set(&self, run: RunId, workflow: &WorkflowName, status: Option<RunStatus>) {
        let now = status.filter(|status| !status.is_final()).map(|status| (workflow.clone(), status));
        let mut counted = self.lock();
        let before = match &now {
            Some(now) => counted.insert(run, now.clone()),
            None => counted.remove(&run),
        };
        if before == now {
            return;
        }
        if let Some((workflow, status)) = before {
            unfinished_runs(&workflow, status).decrement(1.0);
        }
        if let Some((workflow, status)) = now {
            unfinished_runs(&workflow, status).increment(1.0);
        }
    }
    /// A run has ended, perhaps in another process that took it over.
    pub fn forget(&self, run: RunId) {
        if let Some((workflow, status)) = self.lock().remove(&run) {
            unfinished_runs(&workflow, status).decrement(1.0);
        }
    }
    /// Makes these runs the counted ones, in place of all that were counted before.
    pub fn replace(&self, runs: HashMap<RunId, (WorkflowName, RunStatus)>) {
        let mut counted = self.lock();
        let mut numbers: BTreeMap<&(WorkflowName, RunStatus), u64> = counted.values().map(|label| (label, 0)).collect();
        for label in runs.values() {
            *numbers.entry(label).or_default() += 1;
        }
        for ((workflow, status), number) in numbers {
            unfinished_runs(workflow, *status).set(number as f64);
        }
        *counted = runs;
    }
}
