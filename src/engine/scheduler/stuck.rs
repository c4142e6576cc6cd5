//! Runs that nothing would ever move: each is a bug, and shown as one.
//!
//! Always true: a run is listed at most once, and removed when it moves again; at most a thousand are listed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::gauge;

use crate::names::{RunId, WorkflowName};

/// Runs that are named.
const NAMED_MAX: usize = 1_000;

/// Runs that nothing would ever move.
#[derive(Default)]
pub(in crate::engine) struct Stuck(Mutex<BTreeMap<RunId, (WorkflowName, String)>>);

impl Stuck {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RunId, (WorkflowName, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// This one, for this reason.
    pub fn note(&self, run: RunId, workflow: &WorkflowName, why: &str) {
        let mut all = self.all();
        if all.contains_key(&run) || all.len() >= NAMED_MAX {
            return;
        }
        tracing::error!(%run, %workflow, why, "the run is stuck");
        all.insert(run, (workflow.clone(), why.to_owned()));
        gauge(workflow).increment(1.0);
    }
    /// It moved, unless it is stuck again.
    pub fn forget_unless(&self, run: RunId, again: bool) {
        if !again && let Some((workflow, _)) = self.all().remove(&run) {
            gauge(&workflow).decrement(1.0);
        }
    }
    /// Whether it is known.
    pub fn knows(&self, run: RunId) -> bool {
        self.all().contains_key(&run)
    }
    /// All that are named, oldest first.
    pub fn list(&self) -> Vec<(RunId, String)> {
        self.all().iter().map(|(run, (_, why))| (*run, why.clone())).collect()
    }
}

fn gauge(workflow: &WorkflowName) -> metrics::Gauge {
    gauge!("pointsman_runs_stuck", "workflow" => workflow.as_str().to_owned())
}
