//! Finds the plans of the runs that have not ended.

use std::collections::BTreeMap;

use super::{RunFilter, Store, StoreError};
use crate::names::{PlanId, RunId, Seq, WorkflowName};
use crate::workflow::{Event, RunStatus};

/// How many runs one request reads.
const PAGE: usize = 500;
/// How many runs that have not ended are examined, the newest first.
const RUNS_MAX: usize = 10_000;

/// The plans with which runs began that have not ended.
#[derive(Debug, Default)]
pub struct OpenPlans {
    /// These runs, by their plan.
    pub runs: BTreeMap<(WorkflowName, PlanId), Vec<RunId>>,
    /// Whether there are more runs that have not ended than were examined.
    pub is_cut: bool,
}

/// Returns the plans of the runs that have not ended.
///
/// # Errors
/// The store does not answer.
pub async fn plans_of_open_runs(store: &dyn Store) -> Result<OpenPlans, StoreError> {
    let mut filter = RunFilter { statuses: RunStatus::OPEN.to_vec(), limit: PAGE, ..RunFilter::default() };
    let (mut found, mut examined) = (OpenPlans::default(), 0);
    loop {
        let page = store.runs(filter.clone()).await?;
        examined += page.len();
        filter.before = page.last().map(|run| run.run_id);
        let is_last = page.len() < PAGE;
        for run in page {
            found.runs.entry((run.workflow, run.plan_id)).or_default().push(run.run_id);
        }
        if is_last || examined >= RUNS_MAX {
            found.is_cut = !is_last;
            return Ok(found);
        }
    }
}

/// The plans of the workflows that this run may run, by name; `None` if its first event does not say them: the run
/// began before versions had them, or it runs none.
///
/// # Errors
/// The store does not answer.
pub async fn child_plans_of(
    store: &dyn Store,
    run: RunId,
) -> Result<Option<BTreeMap<WorkflowName, PlanId>>, StoreError> {
    let events = store.events(run, Seq::FIRST).await?;
    Ok(match events.first().map(|stored| &stored.event) {
        Some(Event::RunStarted(started)) => started.child_plans.as_deref().cloned(),
        Some(_) | None => None,
    })
}
