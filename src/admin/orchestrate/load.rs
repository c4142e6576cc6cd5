//! Loads a run from the store: its events, the state that follows from them, its plan and its waiting descendants.

use std::sync::Arc;

use serde_json::Value;

use crate::admin::error::ApiError;
use crate::admin::state::ApiState;
use crate::names::{JobId, RunId, Seq};
use crate::store::{RunFilter, StoredEvent};
use crate::workflow::{Run, RunStarted, RunStatus, RunView, fold, view_and_run};

/// How many descendants of a run are searched for those that wait, at most.
const DESCENDANTS_MAX: usize = 100;

/// A run, as the events in the store describe it.
pub(super) struct RunForDisplay {
    pub events: Vec<StoredEvent>,
    pub run: Run,
    pub view: RunView,
    plan: Option<Arc<Value>>,
    /// Descendants (runs that it started, runs that those started, and so on) that wait for a person or a signal, the
    /// oldest first.
    pub waiting_descendants: Vec<Run>,
}

impl RunForDisplay {
    pub async fn load(state: &ApiState, run: RunId) -> Result<Self, ApiError> {
        let events = state.parts.store.events(run, Seq::FIRST).await?;
        Self::of_events(state, run, events).await
    }

    /// Like `load`, from all events of the run.
    pub async fn of_events(state: &ApiState, run: RunId, events: Vec<StoredEvent>) -> Result<Self, ApiError> {
        let store = &state.parts.store;
        if events.is_empty() {
            return Err(match store.run(run).await? {
                Some(summary) => ApiError::purged(&summary),
                None => ApiError::no_run(&run.to_string()),
            });
        }
        let view_and_state = view_and_run(events.iter().map(|stored| (stored.at, &stored.event)));
        let (view, run) = view_and_state.map_err(ApiError::damaged)?;
        let plan = match state.parts.engine.plan_source(&view.plan_id) {
            None => store.plan(view.plan_id.clone()).await?.map(Arc::new),
            cached => cached,
        };
        let waiting_descendants = waiting_descendants(state, &run).await?;
        Ok(Self { events, run, view, plan, waiting_descendants })
    }

    pub fn started(&self) -> &RunStarted {
        self.run.started()
    }

    /// The definition that the run was started with and keeps, if the store still has it.
    pub fn plan(&self) -> Option<&Value> {
        self.plan.as_deref()
    }

    /// The names of the plan's steps.
    pub fn planned_steps(&self) -> impl Iterator<Item = &str> {
        let steps = self.plan.as_ref().and_then(|plan| plan.get("steps")).and_then(Value::as_object);
        steps.into_iter().flat_map(|steps| steps.keys().map(String::as_str))
    }
}

/// The error for a run whose events were purged; `None` for every other run.
pub(super) async fn purged(state: &ApiState, run: RunId) -> Option<ApiError> {
    let summary = state.parts.store.run(run).await.ok().flatten()?;
    let events = state.parts.store.events(run, Seq::FIRST).await.ok()?;
    events.is_empty().then(|| ApiError::purged(&summary))
}

/// Descendants of a run that wait for a person or a signal.
async fn waiting_descendants(state: &ApiState, run: &Run) -> Result<Vec<Run>, ApiError> {
    let store = &state.parts.store;
    let mut parents: Vec<RunId> = run.children().next().map(|_| run.id()).into_iter().collect();
    let (mut waiting, mut visited) = (Vec::new(), 0);
    while let Some(parent) = parents.pop() {
        let (statuses, limit) = (RunStatus::OPEN.to_vec(), DESCENDANTS_MAX - visited);
        let filter = RunFilter { parent: Some(parent), statuses, limit, ..RunFilter::default() };
        for child in store.runs(filter).await? {
            visited += 1;
            match child.status {
                RunStatus::Paused | RunStatus::WaitingCheckpoint | RunStatus::WaitingSignal => {
                    let events = store.events(child.run_id, Seq::FIRST).await?;
                    waiting.extend(fold(events.iter().map(|stored| &stored.event)));
                }
                _ => parents.push(child.run_id),
            }
        }
        if visited >= DESCENDANTS_MAX {
            break;
        }
    }
    waiting.sort_by_key(|run| run.id());
    Ok(waiting)
}

/// The run that an id in a path names: the run with this id, or the newest run of the job with this id.
pub(super) async fn resolve_id(state: &ApiState, id: &str) -> Result<RunId, ApiError> {
    if !id.starts_with("job_") {
        return parse_run_id(id);
    }
    let job = parse_job_id(id)?;
    let filter = RunFilter { job: Some(job), limit: 1, ..RunFilter::default() };
    let newest = state.parts.store.runs(filter).await?.into_iter().next();
    // The first run of a job has the job's UUID.
    Ok(newest.map_or(RunId(job.0), |run| run.run_id))
}

pub(super) fn parse_run_id(text: &str) -> Result<RunId, ApiError> {
    text.parse().map_err(|_| ApiError::bad(format!("`{text}` is not a run's id: they look like run_0190…")))
}

pub(super) fn parse_job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|_| ApiError::bad(format!("`{text}` is not a job's id: they look like job_0190…")))
}
