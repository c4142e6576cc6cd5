//! Runs that have no next wake-up cause, or cannot be loaded: bugs, which are logged, counted and listed.
//!
//! Always true: a run is listed at most once, and removed when it moves again; at most a thousand are listed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::gauge;

use crate::names::{RunId, WorkflowName};

const LISTED_MAX: usize = 1_000;

/// The stuck runs, each with its reason.
#[derive(Default)]
pub(in crate::engine) struct StuckRuns(Mutex<BTreeMap<RunId, (WorkflowName, String)>>);

impl StuckRuns {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RunId, (WorkflowName, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn add(&self, run: RunId, workflow: &WorkflowName, why: &str) {
        let mut all = self.all();
        if all.contains_key(&run) || all.len() >= LISTED_MAX {
            return;
        }
        tracing::error!(%run, %workflow, why, "the run is stuck");
        all.insert(run, (workflow.clone(), why.to_owned()));
        gauge(workflow).increment(1.0);
    }
    /// Removes a run that has moved, unless it is stuck again.
    pub fn remove_unless(&self, run: RunId, is_stuck: bool) {
        if !is_stuck && let Some((workflow, _)) = self.all().remove(&run) {
            gauge(&workflow).decrement(1.0);
        }
    }
    pub fn contains(&self, run: RunId) -> bool {
        self.all().contains_key(&run)
    }
    /// All listed runs and why each is stuck, oldest first.
    pub fn list(&self) -> Vec<(RunId, String)> {
        self.all().iter().map(|(run, (_, why))| (*run, why.clone())).collect()
    }
}

fn gauge(workflow: &WorkflowName) -> metrics::Gauge {
    gauge!("pointsman_runs_stuck", "workflow" => workflow.as_str().to_owned())
}
